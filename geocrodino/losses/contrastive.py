"""Contrast between the modality-invariant features of two modalities: by scene, by class or by position.

All three compute the symmetric InfoNCE loss of N matching rows a_i, b_i with the temperature t:
``s_ij = cos(a_i, b_j) / t``, loss = ``mean_i(-log(exp(s_ii) / sum_j exp(s_ij)))``, averaged with the same for ``s_ji``.
They differ in what a row is.

References:
    van den Oord et al. (2018). Representation learning with contrastive predictive coding.
    https://arxiv.org/abs/1807.03748
    Radford et al. (2021). Learning transferable visual models (the symmetric form). https://arxiv.org/abs/2103.00020
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geocrodino.losses.precision import at_least_float32, full_precision
from geocrodino.settings.classes import IGNORE_INDEX

_SEEN = 0.999
"""An interpolated mask above this counts as valid: all pixels that contribute are valid, up to rounding."""


@full_precision
def image_contrast(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.1,
    *,
    shuffled: bool = False,
    first_valid: Tensor | None = None,
    second_valid: Tensor | None = None,
) -> Tensor:
    """Pull the pooled features of one scene together, and push those of different scenes apart.

    A row is the mean feature of a scene. The two views need no alignment.

    Args:
        first: Invariant features, shape (B, C, h, w).
        second: Invariant features of the same scenes, shape (B, C, h', w').
        temperature: Divides the cosines, above 0.
        shuffled: Pair each scene with a randomly drawn one of the batch instead, as a control experiment.
        first_valid: False at features to leave out of the mean, bool, shape (B, h, w); None: all count.
        second_valid: The same for the second, shape (B, h', w').

    Returns:
        Symmetric InfoNCE over the scenes, scalar >= 0, at least float32. 0 if fewer than two scenes have valid features
        in both modalities.

    Raises:
        ValueError: If a shape does not fit, or ``temperature`` is not above 0.

    References:
        Radford et al. (2021). Learning transferable visual models. https://arxiv.org/abs/2103.00020

    Examples:
        Two scenes with equal features in both modalities, and orthogonal ones between scenes: log(1 + 1/e).

        >>> features = torch.eye(2)[:, :, None, None]
        >>> image_contrast(features, features, temperature=1.0)
        tensor(0.3133)
    """
    _check_pair(first, second, temperature)
    pooled_first, seen_first = _pooled(first, first_valid)
    pooled_second, seen_second = _pooled(second, second_valid)
    both = seen_first & seen_second
    order = _pairing(int(both.sum()), shuffled)
    return _symmetric_info_nce(pooled_first[both], pooled_second[both][order], temperature)


@full_precision
def class_contrast(
    first: Tensor,
    second: Tensor,
    first_labels: Tensor,
    second_labels: Tensor,
    temperature: float = 0.1,
    *,
    num_classes: int,
    shuffled: bool = False,
) -> Tensor:
    """Pull the mean features of one class together across modalities, and push those of different classes apart.

    A row is the mean feature of a class over the batch. Each modality uses the labels of its own view, so the two views
    need no alignment.

    Args:
        first: Invariant features, shape (B, C, h, w).
        second: Invariant features, shape (B, C, h', w').
        first_labels: Labels in the first view, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.
        second_labels: Labels in the second view, same shape and range.
        temperature: Divides the cosines, above 0.
        num_classes: K.
        shuffled: Pair each class with a randomly drawn one of those present instead, as a control experiment.

    Returns:
        Symmetric InfoNCE over the classes, scalar >= 0, at least float32. 0 if fewer than two classes are labelled in
        both modalities.

    Raises:
        ValueError: If a shape does not fit, or ``temperature`` is not above 0.

    References:
        Khosla et al. (2020). Supervised contrastive learning. https://arxiv.org/abs/2004.11362 (related: there the rows
        are single samples)

    Examples:
        Two classes with orthogonal features, equal in both modalities: log(1 + 1/e).

        >>> features, labels = torch.eye(2)[None, :, None], torch.tensor([[[0, 1]]])
        >>> class_contrast(features, features, labels, labels, temperature=1.0, num_classes=2)
        tensor(0.3133)
    """
    _check_pair(first, second, temperature)
    means_first, has_first = _class_means(first, first_labels, num_classes)
    means_second, has_second = _class_means(second, second_labels, num_classes)
    both = has_first & has_second
    order = _pairing(int(both.sum()), shuffled)
    return _symmetric_info_nce(means_first[both], means_second[both][order], temperature)


@full_precision
def pixel_contrast(
    first: Tensor,
    second: Tensor,
    first_transform: Tensor,
    second_transform: Tensor,
    stride: int,
    temperature: float = 0.1,
    *,
    samples_per_image: int = 64,
    shuffled: bool = False,
    first_valid: Tensor | None = None,
    second_valid: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pull features of one ground position together, and push those of different images apart.

    A row is one feature. Positions are drawn in the source view and mapped through the augmentation of each modality.
    Other positions of the same image are not used as negatives, because they often show the same thing. Positions that
    one of the two views does not contain are left out.

    Args:
        first: Invariant features, shape (B, C, h, w).
        second: Invariant features, same shape.
        first_transform: Transform from source pixels (x, y) to augmented pixels, full resolution, shape (B, 3, 3).
        second_transform: The same for the second view.
        stride: Pixels per feature.
        temperature: Divides the cosines, above 0.
        samples_per_image: Highest number of positions drawn from one image.
        shuffled: Pair each image with a randomly drawn one of the batch instead, as a control experiment.
        first_valid: False at features to leave out, bool, shape (B, h, w); None: all count.
        second_valid: The same for the second view.
        generator: Random numbers for the positions; None: torch's global generator.

    Returns:
        Symmetric InfoNCE over the positions, scalar >= 0, at least float32. 0 if fewer than two images have positions
        that both views contain.

    Raises:
        ValueError: If a shape does not fit, or ``temperature`` is not above 0.

    References:
        van den Oord et al. (2018). Representation learning with contrastive predictive coding.
        https://arxiv.org/abs/1807.03748

    Examples:
        Two images of one feature each, orthogonal, equal in both modalities: log(1 + 1/e).

        >>> features, identity = torch.eye(2)[:, :, None, None], torch.eye(3).expand(2, 3, 3)
        >>> pixel_contrast(features, features, identity, identity, stride=1, temperature=1.0)
        tensor(0.3133)
    """
    _check_pair(first, second, temperature)
    if first.shape != second.shape:
        raise ValueError(f"expected feature maps of one shape, found {tuple(first.shape)}, {tuple(second.shape)}")
    order = _pairing(len(second), shuffled)
    views = (
        _View(first, first_transform, first_valid, stride),
        _View(
            second[order],
            second_transform[order],
            None if second_valid is None else second_valid[order],
            stride,
        ),
    )
    seen = views[0].seen & views[1].seen
    device = torch.device("cpu") if generator is None else generator.device
    scores = torch.rand(seen.shape, generator=generator, device=device).to(seen.device)
    count = min(samples_per_image, seen.shape[1])
    chosen = scores.masked_fill(~seen, -1.0).topk(count, dim=1).indices
    kept = seen.gather(1, chosen)
    images = torch.arange(len(seen), device=seen.device)[:, None].expand_as(kept)[kept]
    first, second = (view.sample(chosen)[kept] for view in views)
    return _symmetric_info_nce(first, second, temperature, groups=images)


def majority_labels(labels: Tensor, size: tuple[int, int], num_classes: int) -> Tensor:
    """Find the most frequent label under each feature.

    Args:
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.
        size: Height and width of the feature map.
        num_classes: K.

    Returns:
        Class indices, int64, shape (B, *size): the lower index on a tie, ``IGNORE_INDEX`` where no pixel is labelled.

    Examples:
        >>> majority_labels(torch.tensor([[[0, 1, 255, 255], [1, 1, 255, 255]]]), (1, 2), num_classes=2)
        tensor([[[  1, 255]]])
    """
    classes = torch.arange(num_classes, device=labels.device)[None, :, None, None]
    shares = F.adaptive_avg_pool2d((labels[:, None] == classes).float(), size)
    largest, index = shares.max(dim=1)
    return index.masked_fill(largest == 0, IGNORE_INDEX)


class _View:
    """One modality's features, looked up at the source positions of the feature grid."""

    def __init__(self, features: Tensor, transform: Tensor, valid: Tensor | None, stride: int) -> None:
        batch, _, height, width = features.shape
        if transform.shape != (batch, 3, 3):
            raise ValueError(f"expected transforms ({batch}, 3, 3), found {tuple(transform.shape)}")
        self.features = at_least_float32(features)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([columns, rows, torch.ones_like(rows)]).flatten(1).to(self.features)
        moved = feature_transform(transform.to(self.features), stride) @ cells
        x, y = moved[:, 0], moved[:, 1]
        # Rounding can move positions slightly beyond the outermost centres.
        slack = 1e-3
        inside = (x >= -slack) & (x <= width - 1 + slack) & (y >= -slack) & (y <= height - 1 + slack)
        self.grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)[:, :, None]
        self.seen = inside if valid is None else inside & (self._look_up(valid[:, None].to(self.features)) > _SEEN)

    def sample(self, chosen: Tensor) -> Tensor:
        """Read features bilinearly at chosen positions, (B, N) to (B, N, C)."""
        grid = self.grid.gather(1, chosen[:, :, None, None].expand(-1, -1, 1, 2))
        return _grid_sample(self.features, grid)[..., 0].transpose(1, 2)

    def _look_up(self, values: Tensor) -> Tensor:
        return _grid_sample(values, self.grid)[:, 0, :, 0]


def feature_transform(transform: Tensor, stride: int) -> Tensor:
    """Convert a transform between pixels to one between features of a stride.

    Both transforms act on (x, y) with whole numbers at centres. Feature 0 covers the pixels 0 to ``stride - 1``: its
    centre is at pixel ``(stride - 1) / 2``, hence the half pixels.

    Args:
        transform: Between pixels, floating, shape (..., 3, 3).
        stride: Pixels per feature.

    Returns:
        The transform between features, same shape and dtype.

    Examples:
        A shift by 4 px is a shift by 2 features of stride 2:

        >>> shift = torch.tensor([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]])
        >>> feature_transform(shift, stride=2)[0, 2]
        tensor(2.)
    """
    shift = (1 / stride - 1) / 2
    shrink = transform.new_tensor([[1 / stride, 0, shift], [0, 1 / stride, shift], [0, 0, 1]])
    enlarge = transform.new_tensor([[stride, 0, (stride - 1) / 2], [0, stride, (stride - 1) / 2], [0, 0, 1]])
    return shrink @ transform @ enlarge


def _pairing(rows: int, shuffled: bool) -> Tensor:
    """For each row of one modality, the row of the other that it is paired with: its own, or a random one."""
    return torch.randperm(rows) if shuffled else torch.arange(rows)


def _symmetric_info_nce(first: Tensor, second: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """InfoNCE of matching rows (N, C) in both directions; other pairs within a group are not negatives."""
    if len(first) < 2:
        return (first * 0).sum() + (second * 0).sum()
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).mT / temperature
    if groups is not None:
        same = (groups[:, None] == groups[None]).fill_diagonal_(False)
        logits = logits.masked_fill(same, -torch.inf)
    targets = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.mT, targets)) / 2


def _pooled(features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Means over valid positions (B, C), and whether an image has any (B,)."""
    wide = at_least_float32(features)
    if valid is None:
        return wide.mean(dim=(2, 3)), torch.ones(len(wide), dtype=torch.bool, device=wide.device)
    if valid.shape != (wide.shape[0], *wide.shape[2:]):
        raise ValueError(f"expected valid (B, h, w) for features {tuple(wide.shape)}, found {tuple(valid.shape)}")
    counts = valid.sum(dim=(1, 2))
    return (wide * valid[:, None]).sum(dim=(2, 3)) / counts.clamp(min=1)[:, None], counts > 0


def _class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Means over the batch by class (K, C), and whether a class occurs (K,)."""
    if labels.ndim != 3 or len(labels) != len(features):
        raise ValueError(f"expected labels (B, H, W) for features {tuple(features.shape)}, found {tuple(labels.shape)}")
    wide = at_least_float32(features)
    height, width = wide.shape[2:]
    coarse = majority_labels(labels, (height, width), num_classes).flatten()
    members = (coarse[None] == torch.arange(num_classes, device=coarse.device)[:, None]).to(wide)
    counts = members.sum(dim=1)
    return members @ wide.movedim(1, -1).flatten(0, 2) / counts.clamp(min=1)[:, None], counts > 0


def _grid_sample(values: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _check_pair(first: Tensor, second: Tensor, temperature: float) -> None:
    if first.ndim != 4 or second.ndim != 4 or first.shape[:2] != second.shape[:2]:
        raise ValueError(
            f"expected feature maps (B, C, h, w) with one B and C, found {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, found {temperature}")
