"""Random geometry and radiometry for batches, drawn for each modality on its own.

Decoupled geometry lets the two networks see the same scene in two ways. What the losses need to bring the views
together again travels with the batch, as a transform for each image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_affine
from torch import Tensor, nn

from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES, Modality

_VALID_WEIGHT = 0.5
_CURVE_LIMIT_STD = 6.0


class _Geometry(NamedTuple):
    """Random geometry of a batch, on the CPU: exact part first, then the interpolated one."""

    quarter_turns: list[int]
    flips: list[bool]
    rotation_deg: Tensor
    scale: Tensor
    resampled: Tensor


class PairAugmentation(nn.Module):
    """Augments a batch on the device it lies on. Does nothing but name the keys in evaluation mode.

    Seeding torch's global generator reproduces a call.

    Args:
        settings: What to change; None never changes anything.
    """

    def __init__(self, settings: AugmentationSettings | None) -> None:
        super().__init__()
        self.settings = settings

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Augment every modality of a batch.

        Args:
            batch: For each modality m that is there, "m" float (B, C, H, W), 0 where invalid, and "m_valid" bool
                (B, H, W); "labels" int64 (B, H, W), class indices or ``IGNORE_INDEX``.

        Returns:
            For each modality m: "m" and "m_valid" as above; "m_labels" int64 (B, H, W), ``IGNORE_INDEX`` where there
            is no label or m is invalid; "m_transform" float32 (B, 3, 3), source to augmented pixels (x, y).

        Raises:
            ValueError: If no modality is there or shapes do not fit.
        """
        present: list[Modality] = [m for m in MODALITIES if m in batch]
        if not present:
            raise ValueError(f"expected one of {', '.join(MODALITIES)} in the batch, found {', '.join(batch)}")
        with torch.autocast(batch[present[0]].device.type, enabled=False):
            return self._augment(present, batch)

    def _augment(self, present: list[Modality], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = batch["labels"]
        settings = self.settings if self.training else None
        augmented: dict[str, Tensor] = {}
        geometry: _Geometry | None = None
        for modality in present:
            image, valid = batch[modality], batch[f"{modality}_valid"]
            _check_shapes(modality, image, valid, labels)
            own_labels, transform = labels, torch.eye(3, device=image.device).repeat(len(image), 1, 1)
            if settings is not None:
                if geometry is None or settings.decoupled:
                    geometry = _draw(settings, image.shape)
                image, valid, own_labels, transform = _apply(geometry, image, valid, labels)
                image = _change_radiometry(settings.radiometry(modality), image, valid)
            augmented[modality] = image
            augmented[f"{modality}_valid"] = valid
            augmented[f"{modality}_labels"] = own_labels.masked_fill(~valid, IGNORE_INDEX)
            augmented[f"{modality}_transform"] = transform
        return augmented


def _draw(settings: AugmentationSettings, shape: torch.Size) -> _Geometry:
    batch, square = shape[0], shape[-1] == shape[-2]
    turns = torch.randint(4, (batch,)) if square else 2 * torch.randint(2, (batch,))
    flips = torch.rand(batch) < 0.5
    rotation = (2 * torch.rand(batch) - 1) * settings.rotation_deg
    low, high = (math.log(s) for s in settings.scale)
    scale = (low + (high - low) * torch.rand(batch)).exp()
    resampled = torch.rand(batch) < settings.resample_probability
    if settings.rotation_deg == 0 and settings.scale == (1.0, 1.0):
        resampled = torch.zeros_like(resampled)
    return _Geometry(
        (turns * settings.quarter_turn).tolist(), (flips & settings.flip).tolist(), rotation, scale, resampled
    )


def _apply(geometry: _Geometry, image: Tensor, valid: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, validity and labels under a geometry, and its transform."""
    layers = [_turn(layer, geometry.quarter_turns, geometry.flips) for layer in (image, valid, labels)]
    height, width = image.shape[-2:]
    transform = _exact_transform(geometry, height, width)
    chosen = geometry.resampled.nonzero().flatten()
    if chosen.numel():
        free = _free_transform(geometry.rotation_deg[chosen], geometry.scale[chosen], height, width)
        transform[chosen] = free @ transform[chosen]
        here = chosen.to(image.device)
        moved = [layer[here] for layer in layers]
        warped = _warp(moved[0], moved[1], moved[2], free.to(image.device, torch.float32))
        layers = [layer.index_copy(0, here, part) for layer, part in zip(layers, warped, strict=True)]
    image, valid, labels = layers
    return image, valid, labels, transform.to(image.device, torch.float32)


def _turn(values: Tensor, quarter_turns: list[int], flips: list[bool]) -> Tensor:
    """Mirror the columns, then turn anticlockwise: moves values, never mixes them."""
    return torch.stack(
        [
            torch.rot90(value.flip(-1) if flipped else value, turns, (-2, -1))
            for value, turns, flipped in zip(values, quarter_turns, flips, strict=True)
        ]
    )


def _exact_transform(geometry: _Geometry, height: int, width: int) -> Tensor:
    """Matrices (B, 3, 3), float64, of what ``_turn`` does to pixel centres (x, y)."""
    mirror = torch.tensor([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    # One turn brings column x to row width - 1 - x; images that are turned once are square.
    turn = torch.tensor([[0.0, 1, 0], [-1, 0, width - 1], [0, 0, 1]], dtype=torch.float64)
    half_turn = torch.tensor([[-1.0, 0, width - 1], [0, -1, height - 1], [0, 0, 1]], dtype=torch.float64)
    same = torch.eye(3, dtype=torch.float64)
    turned = (same, turn, half_turn, half_turn @ turn)
    return torch.stack(
        [turned[k] @ (mirror if f else same) for k, f in zip(geometry.quarter_turns, geometry.flips, strict=True)]
    )


def _free_transform(rotation_deg: Tensor, scale: Tensor, height: int, width: int) -> Tensor:
    """Matrices (B, 3, 3), float64: rotation and enlargement about the image's middle."""
    angle = torch.deg2rad(rotation_deg.double())
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    x, y = (width - 1) / 2, (height - 1) / 2
    rows = [cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y]
    affine = torch.stack(rows, dim=1).reshape(-1, 2, 3)
    last = torch.tensor([[[0.0, 0, 1]]], dtype=torch.float64).expand(len(affine), 1, 3)
    return torch.cat([affine, last], dim=1)


def _warp(image: Tensor, valid: Tensor, labels: Tensor, transform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Interpolate; what is invalid or outside has no weight and no label."""
    size = (image.shape[-2], image.shape[-1])
    weight = valid[:, None].float()
    stacked = torch.cat([image.float() * weight, weight], dim=1)
    warped = warp_affine(stacked, transform[:, :2], size, mode="bilinear", padding_mode="zeros", align_corners=True)
    values, share = warped[:, :-1], warped[:, -1:]
    seen = share > _VALID_WEIGHT
    values = torch.where(seen, values / share.clamp(min=_VALID_WEIGHT), 0.0).to(image.dtype)
    # Shifted by one, so that the zeros of the padding are not class 0.
    shifted = warp_affine(
        (labels + 1)[:, None].float(),
        transform[:, :2],
        size,
        mode="nearest",
        padding_mode="zeros",
        align_corners=True,
    )[:, 0].round()
    moved = shifted.long() - 1
    return values, seen[:, 0], moved.masked_fill(moved < 0, IGNORE_INDEX)


def _change_radiometry(settings: RadiometrySettings, image: Tensor, valid: Tensor) -> Tensor:
    """Blur, curve, gain, offset and noise; invalid pixels stay 0."""
    batch, bands = image.shape[:2]
    mask = valid[:, None]
    image = _blur(settings, image, mask)
    if settings.curve:
        bend = _around_zero(settings.curve, batch, 1, image)
        bend = bend.where(bend.abs() > 1e-4, torch.full_like(bend, 1e-4))
        limited = image.clamp(-_CURVE_LIMIT_STD, _CURVE_LIMIT_STD)
        # Beyond the limit straight on, so that rare bright values keep their order.
        image = torch.expm1(bend * limited) / bend + (image - limited)
    gain = 1 + _around_zero(settings.gain, batch, 1, image)
    band_gain = 1 + _around_zero(settings.band_gain, batch, bands, image)
    offset = _around_zero(settings.offset_std, batch, 1, image)
    band_offset = _around_zero(settings.band_offset_std, batch, bands, image)
    image = image * gain * band_gain + offset + band_offset
    if settings.noise_std:
        image = image + _around_zero(settings.noise_std, batch, 1, image) * torch.randn_like(image)
    return torch.where(mask, image, 0.0)


def _blur(settings: RadiometrySettings, image: Tensor, mask: Tensor) -> Tensor:
    """Gaussian blur of some images, over valid pixels only."""
    if not settings.blur_sigma_px or not settings.blur_probability:
        return image
    chosen = (torch.rand(len(image)) < settings.blur_probability).nonzero().flatten()
    sigma = (0.1 + 0.9 * torch.rand(len(image), 1))[chosen] * settings.blur_sigma_px
    if not chosen.numel():
        return image
    here = chosen.to(image.device)
    size = 2 * math.ceil(3 * settings.blur_sigma_px) + 1
    weight = mask[here].to(image.dtype)
    stacked = torch.cat([image[here] * weight, weight], dim=1)
    blurred = gaussian_blur2d(
        stacked, (size, size), sigma.expand(-1, 2).to(image), border_type="constant", separable=True
    )
    smallest = torch.finfo(image.dtype).tiny
    part = torch.where(mask[here], blurred[:, :-1] / blurred[:, -1:].clamp(min=smallest), 0.0)
    return image.index_copy(0, here, part)


def _around_zero(most: float, batch: int, bands: int, like: Tensor) -> Tensor:
    """Uniform in -most to most, shape (batch, bands, 1, 1). Drawn on the CPU: one seed, one result anywhere."""
    return ((2 * torch.rand(batch, bands, 1, 1) - 1) * most).to(like)


def _check_shapes(modality: str, image: Tensor, valid: Tensor, labels: Tensor) -> None:
    expected = (image.shape[0], *image.shape[2:])
    if image.ndim != 4 or valid.shape != expected or labels.shape != expected:
        raise ValueError(
            f"expected {modality} (B, C, H, W) with validity and labels (B, H, W), found {tuple(image.shape)}, "
            f"{tuple(valid.shape)} and {tuple(labels.shape)}"
        )
