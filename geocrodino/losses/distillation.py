"""Losses by which one network learns from the outputs or features of another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.losses.contrastive import majority_labels
from geocrodino.losses.precision import at_least_float32, full_precision

_SMALLEST_SQUARE = 1e-16


@full_precision
def distillation_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """Draw the student's class probabilities to the teacher's, pixel by pixel.

    Args:
        student: Logits, shape (B, K, H, W).
        teacher: Logits, same shape; gets no gradient.
        temperature: Divides both logits, above 0; softer probabilities tell more of the classes that lose.
        valid: False at pixels to leave out, bool, shape (B, H, W).

    Returns:
        Mean divergence KL(teacher || student) over the valid pixels times the square of the temperature, which keeps
        the size of the gradient; scalar >= 0, at least float32. 0 where no pixel is valid.

    Raises:
        ValueError: If the shapes do not fit or the temperature is not above 0.

    References:
        Hinton et al. (2015). Distilling the knowledge in a neural network. https://arxiv.org/abs/1503.02531
    """
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            f"expected two sets of logits of one shape (B, K, H, W), found {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    _check_pixels("valid", valid, "logits", student)
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, found {temperature}")
    wide, wide_teacher = at_least_float32(student), at_least_float32(teacher).detach()
    if valid is not None:
        # Equal logits diverge by 0, and nothing that is left out reaches the gradient.
        wide, wide_teacher = (x.where(valid[:, None], 0) for x in (wide, wide_teacher))
    known, learnt = ((x / temperature).log_softmax(dim=1) for x in (wide_teacher, wide))
    total = F.kl_div(learnt, known, reduction="sum", log_target=True) * temperature**2
    pixels = student.shape[0] * student.shape[2] * student.shape[3]
    return total / (pixels if valid is None else valid.sum().clamp(min=1))


@full_precision
def prototype_distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, valid: Tensor | None = None
) -> Tensor:
    """Draw the likeness of the student's features to its class means to what it is within the teacher.

    Each network is compared with its own class means, so the two may have different channels. Every valid
    position counts, labelled or not; the labels only say what the means are taken over.

    Args:
        student: Features, shape (B, C, h, w).
        teacher: Features, shape (B, C', h, w); get no gradient.
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``. The commonest one under a
            feature is taken.
        num_classes: K.
        valid: False at positions to leave out, bool, shape (B, h, w).

    Returns:
        Mean squared difference of cosines over the classes that an image holds and over its positions, scalar in
        [0, 4], at least float32. 0 where no class is present.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Wang et al. (2023). Prototype knowledge distillation for medical segmentation with missing modality.
        https://arxiv.org/abs/2303.09830
    """
    if student.ndim != 4 or teacher.ndim != 4 or (len(student), student.shape[2:]) != (len(teacher), teacher.shape[2:]):
        raise ValueError(
            f"expected feature maps (B, C, h, w) with one B, h and w, found {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    if labels.ndim != 3 or len(labels) != len(student):
        raise ValueError(f"expected labels (B, H, W) for features {tuple(student.shape)}, found {tuple(labels.shape)}")
    height, width = student.shape[2:]
    coarse = majority_labels(labels, (height, width), num_classes).flatten(1)
    members = coarse[:, None] == torch.arange(num_classes, device=coarse.device)[:, None]
    difference = _likeness(student, members) - _likeness(teacher.detach(), members)
    # An absent class has a mean of 0 and thus cosines of 0 in both.
    squares = difference.square()
    counted = torch.ones_like(coarse, dtype=torch.bool) if valid is None else valid.flatten(1)
    places = members.any(dim=2).sum(dim=1) * counted.sum(dim=1)
    return squares.where(counted[:, None], 0).sum() / places.sum().clamp(min=1)


@full_precision
def agreement_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Draw class probabilities to given ones, more where those are surer.

    Cross entropy minus what of it the target alone accounts for, so that agreement is 0 for unsure targets too.

    Args:
        logits: Shape (B, K, H, W).
        target: Probabilities that sum to 1 over the classes, same shape; get no gradient.
        weight: At least 0, shape (B, H, W); a pixel of 0 says nothing, but counts. Gets no gradient.

    Returns:
        Mean of weight * KL(target || softmax(logits)) over all pixels, so that what few pixels say counts little;
        scalar >= 0, at least float32.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if logits.ndim != 4 or logits.shape != target.shape:
        raise ValueError(
            f"expected logits and target of one shape (B, K, H, W), found {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    _check_pixels("weight", weight, "logits", logits)
    used = weight > 0
    wide, wanted = (x.where(used[:, None], 0) for x in (at_least_float32(logits), at_least_float32(target).detach()))
    divergence = F.kl_div(wide.log_softmax(dim=1), wanted, reduction="none").sum(dim=1)
    amount = at_least_float32(weight).detach().where(used, 0)
    return (divergence * amount).mean()


class MaskTokens(nn.Module):
    """Learnt vectors that each pick out a part of a feature map.

    Args:
        channels: C of the features.
        tokens: Number of masks T.

    Attributes:
        tokens: The vectors, shape (T, C).

    Raises:
        ValueError: If a number is below 1.

    References:
        Huang et al. (2023). Masked distillation with receptive tokens. https://arxiv.org/abs/2205.14589
    """

    def __init__(self, channels: int, tokens: int = 8) -> None:
        super().__init__()
        if channels < 1 or tokens < 1:
            raise ValueError(f"expected at least 1 channel and 1 token, found {channels} and {tokens}")
        # Features around 1 then meet the sigmoid where it is steep, however many channels they have.
        self.tokens = nn.Parameter(torch.randn(tokens, channels) / channels**0.5)

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Weigh positions by their likeness to each token.

        Args:
            features: Shape (B, C, h, w).

        Returns:
            Masks in 0 to 1, shape (B, T, h, w), at least float32.

        Raises:
            ValueError: If the shape does not fit.
        """
        channels = self.tokens.shape[1]
        if features.ndim != 4 or features.shape[1] != channels:
            raise ValueError(f"expected features (B, {channels}, h, w), found {tuple(features.shape)}")
        scores = torch.einsum("tc,bchw->bthw", at_least_float32(self.tokens), at_least_float32(features))
        return scores.sigmoid()


@full_precision
def masked_feature_loss(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """Draw the student's features to the teacher's, each masked part counting as much as any other.

    Args:
        student: Features, shape (B, C, h, w).
        teacher: Features, same shape; get no gradient.
        masks: Weights at least 0, shape (B, T, h, w), see ``MaskTokens``; get no gradient.

    Returns:
        Mean over channels of the squared difference, averaged with the weights of each mask, then over masks and
        batch; scalar >= 0, at least float32. An empty mask adds 0.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Huang et al. (2023). Masked distillation with receptive tokens. https://arxiv.org/abs/2205.14589
    """
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            f"expected two feature maps of one shape (B, C, h, w), found {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    if masks.ndim != 4 or (len(masks), masks.shape[2:]) != (len(student), student.shape[2:]):
        raise ValueError(f"expected masks (B, T, h, w) for features {tuple(student.shape)}, found {tuple(masks.shape)}")
    difference = (at_least_float32(student) - at_least_float32(teacher).detach()).square().mean(dim=1, keepdim=True)
    weights = at_least_float32(masks).detach()
    sums = (difference * weights).sum(dim=(2, 3))
    return (sums / _above_zero(weights.sum(dim=(2, 3)))).mean()


@full_precision
def mask_diversity_loss(masks: Tensor) -> Tensor:
    """Penalise masks that pick out the same part.

    Args:
        masks: Weights in 0 to 1, shape (B, T, h, w), see ``MaskTokens``.

    Returns:
        Mean soft Dice coefficient (with squares: 1 for equal masks, whatever their values) of two masks of an image,
        scalar in [0, 1], at least float32. 0 with fewer than two masks.

    Raises:
        ValueError: If the shape does not fit.

    References:
        Huang et al. (2023). Masked distillation with receptive tokens. https://arxiv.org/abs/2205.14589
    """
    if masks.ndim != 4:
        raise ValueError(f"expected masks (B, T, h, w), found {tuple(masks.shape)}")
    flat = at_least_float32(masks).flatten(2)
    products = flat @ flat.mT
    squares = products.diagonal(dim1=1, dim2=2)
    dice = 2 * products / _above_zero(squares[:, :, None] + squares[:, None])
    first, second = torch.triu_indices(flat.shape[1], flat.shape[1], offset=1, device=flat.device)
    pairs = dice[:, first, second]
    return pairs.sum() / max(pairs.numel(), 1)


def _likeness(features: Tensor, members: Tensor) -> Tensor:
    """Cosines (B, K, N) of every feature with the class means of its image, members bool (B, K, N)."""
    flat = at_least_float32(features).flatten(2).mT
    shares = members.to(flat)
    means = shares @ flat / shares.sum(dim=2, keepdim=True).clamp(min=1)
    return _unit(means) @ _unit(flat).mT


def _unit(vectors: Tensor) -> Tensor:
    """Vectors along the last axis at length 1; zero ones stay, without a gradient, which would have no bound."""
    squares = vectors.square().sum(dim=-1, keepdim=True)
    return torch.where(squares > _SMALLEST_SQUARE, vectors * squares.clamp(min=_SMALLEST_SQUARE).rsqrt(), 0)


def _above_zero(divisors: Tensor) -> Tensor:
    return divisors.clamp(min=torch.finfo(divisors.dtype).tiny)


def _check_pixels(name: str, pixels: Tensor | None, subject: str, values: Tensor) -> None:
    if pixels is not None and pixels.shape != (values.shape[0], *values.shape[2:]):
        raise ValueError(f"expected {name} (B, H, W) for {subject} {tuple(values.shape)}, found {tuple(pixels.shape)}")
