"""Losses by which one network learns from the outputs or features of another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.losses.contrastive import majority_labels
from geocrodino.losses.precision import at_least_float32, full_precision

_SMALLEST_SQUARE = 1e-16
"""Vectors whose squared length is not above this count as zero vectors."""


@full_precision
def distillation_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """Draw the class probabilities of a student towards those of a teacher, pixel by pixel.

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` with the temperature T, averaged over the valid pixels.
    The factor ``T^2`` keeps the size of the gradient independent of T.

    Args:
        student: Logits, shape (B, K, H, W).
        teacher: Logits, same shape. They get no gradient.
        temperature: Divides both logits, above 0. A higher one puts more weight on the less likely classes.
        valid: False at pixels to leave out, bool, shape (B, H, W); None: all count.

    Returns:
        Scalar >= 0, at least float32. 0 if no pixel is valid.

    Raises:
        ValueError: If the shapes do not fit, or ``temperature`` is not above 0.

    References:
        Hinton et al. (2015). Distilling the knowledge in a neural network. https://arxiv.org/abs/1503.02531

    Examples:
        The teacher says 3/4 and 1/4, the student 1/2 and 1/2: KL = 3/4 log(3/2) + 1/4 log(1/2).

        >>> teacher = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1)
        >>> distillation_loss(torch.zeros(1, 2, 1, 1), teacher)
        tensor(0.1308)
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
        # Equal logits have a divergence of 0, and no gradient reaches the pixels that are left out.
        wide, wide_teacher = (x.where(valid[:, None], 0) for x in (wide, wide_teacher))
    known, learnt = ((x / temperature).log_softmax(dim=1) for x in (wide_teacher, wide))
    total = F.kl_div(learnt, known, reduction="sum", log_target=True) * temperature**2
    pixels = student.shape[0] * student.shape[2] * student.shape[3]
    return total / (pixels if valid is None else valid.sum().clamp(min=1))


@full_precision
def prototype_distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, valid: Tensor | None = None
) -> Tensor:
    """Draw the relation of a student's features to its class means towards the same relation within the teacher.

    At each position and for each class k: ``(cos(s, mean_k(s)) - cos(t, mean_k(t)))^2`` with the student's feature s
    and the teacher's t. Each network is compared with its own class means, so the two may have different numbers of
    channels. All valid positions count, labelled or not; labels only decide which features a class mean is taken over.

    Args:
        student: Features, shape (B, C, h, w).
        teacher: Features, shape (B, C', h, w). They get no gradient.
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``. A feature belongs to the most
            frequent class under it.
        num_classes: K.
        valid: False at positions to leave out, bool, shape (B, h, w); None: all count.

    Returns:
        Mean over the classes that an image holds and over its valid positions, scalar in [0, 4], at least float32. 0 if
        no class is present.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Wang et al. (2023). Prototype knowledge distillation for medical segmentation with missing modality.
        https://arxiv.org/abs/2303.09830

    Examples:
        Two positions of two classes. The student's features are equal (all cosines 1), the teacher's are orthogonal
        (cosines 1 and 0): half of the squared differences are 1.

        >>> student, teacher = torch.ones(1, 2, 1, 2), torch.eye(2)[None, :, None]
        >>> prototype_distillation_loss(student, teacher, torch.tensor([[[0, 1]]]), num_classes=2)
        tensor(0.5000)
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
    difference = _cosines_to_class_means(student, members) - _cosines_to_class_means(teacher.detach(), members)
    # A class that is absent has a mean of 0, so its cosines are 0 in both networks.
    squares = difference.square()
    counted = torch.ones_like(coarse, dtype=torch.bool) if valid is None else valid.flatten(1)
    places = members.any(dim=2).sum(dim=1) * counted.sum(dim=1)
    return squares.where(counted[:, None], 0).sum() / places.sum().clamp(min=1)


@full_precision
def agreement_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Draw class probabilities towards a given target, with a weight for each pixel.

    ``weight * KL(target || softmax(logits))``, averaged over all pixels, those of weight 0 included: a target on few
    pixels has little influence. Unlike the cross entropy, the divergence is 0 when both agree, even on an uncertain
    target.

    Args:
        logits: Shape (B, K, H, W).
        target: Probabilities that sum to 1 over the classes, same shape. They get no gradient.
        weight: At least 0, shape (B, H, W). It gets no gradient.

    Returns:
        Scalar >= 0, at least float32.

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        One certain target with weight 1 against equal probabilities, one pixel without weight: log(2) / 2.

        >>> target = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
        >>> agreement_loss(torch.zeros(1, 2, 1, 2), target, torch.tensor([[[1.0, 0.0]]]))
        tensor(0.3466)
    """
    if logits.ndim != 4 or logits.shape != target.shape:
        raise ValueError(
            f"expected logits and target of one shape (B, K, H, W), found {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    _check_pixels("weight", weight, "logits", logits)
    used = weight > 0
    wide, expected = (x.where(used[:, None], 0) for x in (at_least_float32(logits), at_least_float32(target).detach()))
    divergence = F.kl_div(wide.log_softmax(dim=1), expected, reduction="none").sum(dim=1)
    factor = at_least_float32(weight).detach().where(used, 0)
    return (divergence * factor).mean()


class MaskTokens(nn.Module):
    """Learnt vectors, each of which selects a part of a feature map.

    Args:
        channels: C of the features, at least 1.
        tokens: Number of masks T, at least 1.

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
        # With this scale, features of about 1 fall on the steep part of the sigmoid for any number of channels.
        self.tokens = nn.Parameter(torch.randn(tokens, channels) / channels**0.5)

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Weigh each position by its similarity to each token: ``sigmoid(token . feature)``.

        Args:
            features: Shape (B, C, h, w).

        Returns:
            Masks in [0, 1], shape (B, T, h, w), at least float32.

        Raises:
            ValueError: If the shape does not fit.

        Examples:
            Features of 0 are similar to no token and different from none:

            >>> MaskTokens(channels=3, tokens=1)(torch.zeros(1, 3, 1, 1))
            tensor([[[[0.5000]]]], grad_fn=<SigmoidBackward0>)
        """
        channels = self.tokens.shape[1]
        if features.ndim != 4 or features.shape[1] != channels:
            raise ValueError(f"expected features (B, {channels}, h, w), found {tuple(features.shape)}")
        scores = torch.einsum("tc,bchw->bthw", at_least_float32(self.tokens), at_least_float32(features))
        return scores.sigmoid()


@full_precision
def masked_feature_loss(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """Draw the features of a student towards those of a teacher, with equal influence of each masked part.

    For each mask: the mean over the channels of ``(student - teacher)^2``, averaged over positions with the mask's
    weights. Then the mean over masks and batch.

    Args:
        student: Features, shape (B, C, h, w).
        teacher: Features, same shape. They get no gradient.
        masks: Weights at least 0, shape (B, T, h, w), see `MaskTokens`. They get no gradient.

    Returns:
        Scalar >= 0, at least float32. A mask that is 0 everywhere adds 0.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Huang et al. (2023). Masked distillation with receptive tokens. https://arxiv.org/abs/2205.14589

    Examples:
        Differences of 1 and 3, the second with three times the weight: (1 * 1 + 3 * 9) / 4.

        >>> masks = torch.tensor([[[[1.0, 3.0]]]])
        >>> masked_feature_loss(torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1, 1, 2), masks)
        tensor(7.)
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
    """Penalise masks that select the same part of an image.

    The soft Dice coefficient ``2 sum(a b) / (sum(a^2) + sum(b^2))`` of two masks a and b of an image, averaged over all
    pairs. With squares in the divisor, equal masks have the coefficient 1 whatever their values.

    Args:
        masks: Weights in [0, 1], shape (B, T, h, w), see `MaskTokens`.

    Returns:
        Scalar in [0, 1], at least float32. 0 with fewer than two masks.

    Raises:
        ValueError: If the shape does not fit.

    References:
        Huang et al. (2023). Masked distillation with receptive tokens. https://arxiv.org/abs/2205.14589

    Examples:
        The masks (1, 0) and (1, 1): 2 * 1 / (1 + 2).

        >>> mask_diversity_loss(torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]]))
        tensor(0.6667)
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


def _cosines_to_class_means(features: Tensor, members: Tensor) -> Tensor:
    """Cosines (B, K, N) of each feature with the class means of its image; members is bool (B, K, N)."""
    flat = at_least_float32(features).flatten(2).mT
    shares = members.to(flat)
    means = shares @ flat / shares.sum(dim=2, keepdim=True).clamp(min=1)
    return _normalised(means) @ _normalised(flat).mT


def _normalised(vectors: Tensor) -> Tensor:
    """Scale vectors along the last axis to length 1.

    Zero vectors stay as they are and get no gradient, which would be unbounded.
    """
    squares = vectors.square().sum(dim=-1, keepdim=True)
    return torch.where(squares > _SMALLEST_SQUARE, vectors * squares.clamp(min=_SMALLEST_SQUARE).rsqrt(), 0)


def _above_zero(divisors: Tensor) -> Tensor:
    return divisors.clamp(min=torch.finfo(divisors.dtype).tiny)


def _check_pixels(name: str, pixels: Tensor | None, subject: str, values: Tensor) -> None:
    if pixels is not None and pixels.shape != (values.shape[0], *values.shape[2:]):
        raise ValueError(f"expected {name} (B, H, W) for {subject} {tuple(values.shape)}, found {tuple(pixels.shape)}")
