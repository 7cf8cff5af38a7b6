"""The operations of one modality: parameters are drawn on the CPU, images are changed on their own device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor

from geocrodino.data.augmentation.build import build_operation, place_of
from geocrodino.data.augmentation.geometry import Layers, move
from geocrodino.data.augmentation.operations import OPERATIONS
from geocrodino.data.augmentation.rows import Found, Rows
from geocrodino.settings.augmentation import Operation
from geocrodino.settings.modality import Modality

_LINEAR_FILTERS = ("RandomGaussianBlur", "RandomBoxBlur", "RandomMotionBlur")
"""Operations that are linear in the image: applied to image and weights, they can leave out invalid pixels."""

_UNIT_RANGE = (
    "ColorJiggle",
    "ColorJitter",
    "RandomAutoContrast",
    "RandomBrightness",
    "RandomClahe",
    "RandomContrast",
    "RandomEqualize",
    "RandomGamma",
    "RandomGaussianIllumination",
    "RandomHue",
    "RandomInvert",
    "RandomJPEG",
    "RandomLinearCornerIllumination",
    "RandomLinearIllumination",
    "RandomPlanckianJitter",
    "RandomPlasmaBrightness",
    "RandomPlasmaContrast",
    "RandomPlasmaShadow",
    "RandomPosterize",
    "RandomRGBShift",
    "RandomRain",
    "RandomSaltAndPepperNoise",
    "RandomSaturation",
    "RandomSharpness",
    "RandomSnow",
    "RandomSolarize",
)
"""Operations that assume values of 0 to 1."""

UNIT_RANGE_STD = 3.0
"""For operations that assume values of 0 to 1, minus and plus this many standard deviations become 0 and 1."""


class Step:
    """One operation and the probability that it changes an image.

    Kornia applies an operation to every image, then restores those that were not drawn. Here the images are drawn
    first, and the operation computes only the drawn ones.

    Args:
        operation: Name and parameters.
        place: Its configuration key, for messages.

    Raises:
        ConfigError: If the operation cannot be built.
    """

    def __init__(self, operation: Operation, place: str) -> None:
        self.operation, self.place = operation, place
        built: Any = build_operation(operation, place)
        self._p, self._p_batch = float(built.p), float(built.p_batch)
        built.p = built.p_batch = 1.0
        self.kornia: Any = built
        self.geometric = isinstance(built, K.GeometricAugmentationBase2D)
        name = operation.name
        self._linear_filter = name in _LINEAR_FILTERS
        self._unit_range = name in _UNIT_RANGE and getattr(built, "clip_output", True)
        self._by_pixel = name in OPERATIONS
        self._own: dict[str, Tensor] | None = None  # parameters that are drawn already

    def draw_matrices(self, shape: torch.Size) -> Tensor:
        """Draw the matrix of a geometric operation for each image of a batch.

        Args:
            shape: (B, C, H, W).

        Returns:
            Source to target pixels (x, y), float64 on the CPU, shape (B, 3, 3); the identity for images not drawn.
        """
        chosen = self._draw(shape[0])
        matrices = torch.eye(3, dtype=torch.float64).repeat(shape[0], 1, 1)
        if len(chosen):
            part = torch.Size((len(chosen), *shape[1:]))
            drawn = self.kornia.forward_parameters(part)
            like = torch.empty(1, dtype=torch.float64).expand(part)  # for shape, dtype and device
            found = self.kornia.generate_transformation_matrix(like, drawn, self.kornia.flags)
            matrices[chosen] = found.expand(len(chosen), 3, 3)
        return matrices

    def change_values(self, image: Tensor, valid: Tensor, *, always: bool = False, rows: Rows | None = None) -> Tensor:
        """Apply an operation on values to the images that are drawn.

        Args:
            image: Normalised values, float, shape (B, C, H, W).
            valid: Whether a pixel holds data, bool, shape (B, H, W).
            always: Whether to change all images, whatever the operation's probability.
            rows: Which rows of a larger batch the images are, whose draws they get; None: they are all.

        Returns:
            Images of the same shape and dtype. Invalid pixels may hold any value. ``image`` itself if none is drawn.
        """
        total = len(image) if rows is None else rows.total
        chosen = torch.arange(total) if always else self._draw(total)
        if not len(chosen):
            return image
        if rows is not None:
            return self._change_some(image, valid, rows.among(chosen))
        if len(chosen) == len(image):
            return self._changed(image, valid[:, None])
        here = chosen.to(image.device)
        part = self._changed(image.index_select(0, here), valid[:, None].index_select(0, here))
        return image.index_copy(0, here, part)

    def _change_some(self, image: Tensor, valid: Tensor, found: Found) -> Tensor:
        """Change the images that are among the drawn ones of a larger batch, each with its own parameters."""
        channels = image.shape[1] + self._linear_filter  # the filter reads the weights too
        drawn = self.kornia.forward_parameters(torch.Size((found.drawn, channels, *image.shape[2:])))
        is_any = len(found.here) > 0
        if not is_any:  # some operations draw when they are applied, and all processes must draw the same
            found = Found(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), found.drawn)
        self._own = found.of(drawn)
        try:
            here = found.here.to(image.device)
            part = self._changed(image.index_select(0, here), valid[:, None].index_select(0, here))
        finally:
            self._own = None
        return image.index_copy(0, here, part) if is_any else image

    def _draw(self, batch: int) -> Tensor:
        """Draw the indices of the images to change, int64 on the CPU, at most ``batch`` of them."""
        if self._p_batch < 1 and torch.rand(1) >= self._p_batch:
            return torch.empty(0, dtype=torch.int64)
        if self._p >= 1:
            return torch.arange(batch)
        drawn = torch.rand(1 if self.kornia.same_on_batch else batch) < self._p
        return drawn.expand(batch).nonzero().flatten()

    def _changed(self, image: Tensor, valid: Tensor) -> Tensor:
        if self._by_pixel:
            return self._apply(image)
        if self._linear_filter:
            weight = valid.to(image.dtype)
            filtered = self._apply(torch.cat([image * weight, weight], dim=1))
            return filtered[:, :-1] / filtered[:, -1:].clamp(min=torch.finfo(image.dtype).tiny)
        image = torch.where(valid, image, 0.0)
        if not self._unit_range:
            return self._apply(image)
        limited = image.clamp(-UNIT_RANGE_STD, UNIT_RANGE_STD)
        changed = self._apply(limited / (2 * UNIT_RANGE_STD) + 0.5)
        return (changed - 0.5) * (2 * UNIT_RANGE_STD) + (image - limited)

    def _apply(self, image: Tensor) -> Tensor:
        changed: Tensor = self.kornia(image) if self._own is None else self.kornia(image, params=self._own)
        return changed


class Pipeline:
    """The operations of one modality, in order.

    Consecutive geometric operations become one matrix, so that pixels are interpolated once.

    Args:
        operations: Names and parameters, in order.
        modality: Modality of the operations, for messages.

    Raises:
        ConfigError: If an operation cannot be built.
    """

    def __init__(self, operations: Sequence[Operation], modality: Modality) -> None:
        self.steps = [Step(o, place_of(modality, i, o.name)) for i, o in enumerate(operations)]

    @property
    def geometry(self) -> list[Operation]:
        """The geometric operations, in order."""
        return [step.operation for step in self.steps if step.geometric]

    def draw_geometry(self, shape: torch.Size, rows: Rows | None = None) -> list[Tensor]:
        """Draw the matrices of all geometric operations.

        Args:
            shape: Shape of the images, (B, C, H, W).
            rows: Which rows of a larger batch the images are, for which the matrices are drawn; None: they are all.

        Returns:
            For each geometric operation, in order: source to target pixels (x, y), float64 on the CPU, shape (B, 3, 3).
        """
        whole = shape if rows is None else torch.Size((rows.total, *shape[1:]))
        drawn = [step.draw_matrices(whole) for step in self.steps if step.geometric]
        return drawn if rows is None else [matrices[rows.own] for matrices in drawn]

    def apply(self, layers: Layers, geometry: Sequence[Tensor], rows: Rows | None = None) -> tuple[Layers, Tensor]:
        """Apply all operations.

        Args:
            layers: Image, validity and labels.
            geometry: Result of `draw_geometry` of this pipeline, or of one with the same geometric operations; each
                matrix float64 on the CPU, shape (B, 3, 3).
            rows: Which rows of a larger batch the images are, whose draws they get; None: they are all.

        Returns:
            Layers of the same shapes, invalid pixels 0, and source to target pixels (x, y), float64 on the CPU, shape
            (B, 3, 3).
        """
        shape = layers.image.shape
        identity = torch.eye(3, dtype=torch.float64).repeat(shape[0], 1, 1)
        applied, pending, matrices = identity, identity, iter(geometry)
        changed = False
        for step in self.steps:
            if step.geometric:
                pending = next(matrices) @ pending
                continue
            if pending is not identity:
                layers, moved = move(self._clean(layers, changed), pending)
                applied, pending, changed = moved @ applied, identity, False
            image = step.change_values(layers.image, layers.valid, rows=rows)
            changed = changed or image is not layers.image
            layers = layers._replace(image=image)
        layers = self._clean(layers, changed)
        if pending is not identity:
            layers, moved = move(layers, pending)
            applied = moved @ applied
        return layers, applied

    @staticmethod
    def _clean(layers: Layers, changed: bool) -> Layers:
        """Set invalid pixels to 0 if the image was changed."""
        if not changed:
            return layers
        return layers._replace(image=torch.where(layers.valid[:, None], layers.image, 0.0))
