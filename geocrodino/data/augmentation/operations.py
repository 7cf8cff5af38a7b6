"""Operations that Kornia does not have, for values with mean 0 and standard deviation 1 and any number of bands.

They are subclasses of Kornia's classes and are named in the same lists of the configuration. Random parameters are
drawn on the CPU.
"""

from __future__ import annotations

import math
from typing import Any

import kornia.augmentation as K
import torch
from kornia.geometry.transform import warp_affine
from torch import Tensor

from geocrodino.data.augmentation.geometry import quarter_turn_matrices, turned
from geocrodino.data.augmentation.rows import normal_like

_CURVE_LIMIT_STD = 6.0

Parameters = dict[str, Tensor]
"""Random parameters of a batch by name; the first axis of each tensor is the image."""


class RandomQuarterTurn(K.GeometricAugmentationBase2D):
    """Turn by 0, 90, 180 or 270 degrees with equal probability; images that are not square by 0 or 180.

    Kornia's ``RandomRotation90`` draws the ends of its range half as often as the values between.

    Args:
        same_on_batch: Whether all images get the same turn.
        p: Share of images that the draw applies to.
    """

    def __init__(self, same_on_batch: bool = False, p: float = 1.0) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Parameters:
        """Draw the turn of each image.

        Args:
            batch_shape: (B, C, H, W).

        Returns:
            ``quarter_turns``: number of anticlockwise right angles, int64, shape (B,), 0 to 3.
        """
        drawn = torch.randint(4, (1 if self.same_on_batch else batch_shape[0],))
        if batch_shape[-1] != batch_shape[-2]:
            drawn = drawn - drawn % 2
        return {"quarter_turns": drawn.expand(batch_shape[0])}

    def compute_transformation(self, input: Tensor, params: Parameters, flags: dict[str, Any]) -> Tensor:
        """Compute the matrices of the turns.

        Args:
            input: Images, shape (B, C, H, W); only shape, dtype and device matter.
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.

        Returns:
            Source to target pixels (x, y), dtype and device of the images, shape (B, 3, 3).
        """
        height, width = input.shape[-2:]
        return quarter_turn_matrices(params["quarter_turns"].cpu(), height, width).to(input)

    def apply_transform(
        self, input: Tensor, params: Parameters, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Turn images, without interpolation.

        Args:
            input: Images, shape (B, C, H, W).
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.
            transform: Not used; part of Kornia's interface.

        Returns:
            Turned images, same shape and dtype.
        """
        return torch.stack([turned(x, int(k)) for x, k in zip(input, params["quarter_turns"], strict=True)])


class RandomRotationScale(K.GeometricAugmentationBase2D):
    """Rotate and scale about the centre. Halving is as likely as doubling, unlike with Kornia's ``RandomAffine``.

    Args:
        degrees: Largest rotation either way, or the smallest and the largest, degrees, anticlockwise.
        scale: Smallest and largest factor of enlargement, above 0; below 1 shrinks.
        same_on_batch: Whether all images get the same draw.
        p: Share of images that the draw applies to.
    """

    def __init__(
        self,
        degrees: float | tuple[float, float],
        scale: tuple[float, float] = (1.0, 1.0),
        same_on_batch: bool = False,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch)
        low, high = degrees if isinstance(degrees, tuple) else (-degrees, degrees)
        if not -360 <= low <= high <= 360:
            raise ValueError(f"degrees must be one number, or two, the smaller first, up to 360, found {degrees}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be two numbers above 0, the smaller first, found {scale}")
        self.degrees, self.scale = (low, high), scale

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Parameters:
        """Draw the rotation and scale of each image.

        Args:
            batch_shape: (B, C, H, W).

        Returns:
            ``angle``: degrees anticlockwise; ``scale``: factor, uniform in its logarithm. Both float32, shape (B,).
        """
        count = 1 if self.same_on_batch else batch_shape[0]
        (first, last), (low, high) = self.degrees, map(math.log, self.scale)
        angle = first + (last - first) * torch.rand(count)
        scale = (low + (high - low) * torch.rand(count)).exp()
        return {"angle": angle.expand(batch_shape[0]), "scale": scale.expand(batch_shape[0])}

    def compute_transformation(self, input: Tensor, params: Parameters, flags: dict[str, Any]) -> Tensor:
        """Compute the matrices of rotation and scale about the centre.

        Args:
            input: Images, shape (B, C, H, W); only shape, dtype and device matter.
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.

        Returns:
            Source to target pixels (x, y), dtype and device of the images, shape (B, 3, 3).
        """
        height, width = input.shape[-2:]
        angle = torch.deg2rad(params["angle"].double())
        cosine, sine = params["scale"] * angle.cos(), params["scale"] * angle.sin()
        x, y = (width - 1) / 2, (height - 1) / 2
        zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
        rows = [cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y, zero, zero, one]
        return torch.stack(rows, dim=1).reshape(-1, 3, 3).to(input)

    def apply_transform(
        self, input: Tensor, params: Parameters, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Rotate and scale images, interpolated bilinearly.

        Args:
            input: Images, shape (B, C, H, W).
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.
            transform: Not used; part of Kornia's interface.

        Returns:
            Moved images, same shape and dtype, 0 where pixels come from outside.
        """
        size = (input.shape[-2], input.shape[-1])
        matrices = self.compute_transformation(input, params, flags)
        moved: Tensor = warp_affine(input, matrices[:, :2], size, align_corners=True)
        return moved


class RandomCurve(K.IntensityAugmentationBase2D):
    """Bend values up or down, like gamma: 0 and the order of values do not change.

    Values x become (exp(b x) - 1) / b with a bend b, up to 6 standard deviations from the mean; beyond that the slope
    is 1.

    Args:
        curve: Largest bend in either direction, 0 to below 1. Each image has its own bend.
        same_on_batch: Whether all images get the same draw.
        p: Share of images that are changed.
    """

    def __init__(self, curve: float, same_on_batch: bool = False, p: float = 1.0) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch)
        self.curve = _within("curve", curve, below=1.0)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Parameters:
        """Draw the bend of each image.

        Args:
            batch_shape: (B, C, H, W).

        Returns:
            ``bend``: uniform in -curve to curve, never 0 because it divides, float32, shape (B, 1, 1, 1).
        """
        bend = _around_zero(self.curve, batch_shape, 1, same=self.same_on_batch)
        return {"bend": bend.where(bend.abs() > 1e-4, 1e-4)}

    def apply_transform(
        self, input: Tensor, params: Parameters, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Bend the values of images.

        Args:
            input: Images with mean 0 and standard deviation 1, shape (B, C, H, W).
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.
            transform: Not used; part of Kornia's interface.

        Returns:
            Changed images, same shape and dtype.
        """
        bend = params["bend"].to(input)
        limited = input.clamp(-_CURVE_LIMIT_STD, _CURVE_LIMIT_STD)
        # Linear beyond the limit, so that rare extreme values keep their order.
        return torch.expm1(bend * limited) / bend + (input - limited)


class RandomGainOffset(K.IntensityAugmentationBase2D):
    """Multiply by a gain about 1 and add an offset about 0: contrast and brightness of standardised values.

    Args:
        gain: All bands are multiplied by one factor from 1 - gain to 1 + gain; 0 to below 1.
        offset_std: One offset from -offset_std to offset_std, in standard deviations, is added to all bands; 0 or more.
        band_gain: As ``gain``, with a factor for each band.
        band_offset_std: As ``offset_std``, with an offset for each band.
        same_on_batch: Whether all images get the same draw.
        p: Share of images that are changed.
    """

    def __init__(
        self,
        gain: float = 0.0,
        offset_std: float = 0.0,
        band_gain: float = 0.0,
        band_offset_std: float = 0.0,
        same_on_batch: bool = False,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch)
        self.gain, self.band_gain = _within("gain", gain, below=1.0), _within("band_gain", band_gain, below=1.0)
        self.offset_std = _within("offset_std", offset_std)
        self.band_offset_std = _within("band_offset_std", band_offset_std)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Parameters:
        """Draw the gain and offset of each band of each image.

        Args:
            batch_shape: (B, C, H, W).

        Returns:
            ``gain``: factor; ``offset``: in standard deviations. Both float32, shape (B, C, 1, 1).
        """
        same, bands = self.same_on_batch, batch_shape[1]
        gain = 1 + _around_zero(self.gain, batch_shape, 1, same=same)
        band_gain = 1 + _around_zero(self.band_gain, batch_shape, bands, same=same)
        offset = _around_zero(self.offset_std, batch_shape, 1, same=same)
        band_offset = _around_zero(self.band_offset_std, batch_shape, bands, same=same)
        return {"gain": gain * band_gain, "offset": offset + band_offset}

    def apply_transform(
        self, input: Tensor, params: Parameters, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Multiply images by the gains and add the offsets.

        Args:
            input: Images with mean 0 and standard deviation 1, shape (B, C, H, W).
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.
            transform: Not used; part of Kornia's interface.

        Returns:
            Changed images, same shape and dtype.
        """
        return torch.addcmul(params["offset"].to(input), input, params["gain"].to(input))


class RandomNoiseLevel(K.IntensityAugmentationBase2D):
    """Add Gaussian noise of a random strength, drawn on the device of the images.

    Kornia's ``RandomGaussianNoise`` has one fixed strength and draws the noise on the CPU.

    Args:
        noise_std: Largest standard deviation of the noise, 0 or more. Each image has its own strength.
        same_on_batch: Whether all images get the same strength.
        p: Share of images that are changed.
    """

    def __init__(self, noise_std: float, same_on_batch: bool = False, p: float = 1.0) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch)
        self.noise_std = _within("noise_std", noise_std)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Parameters:
        """Draw the strength of each image.

        Args:
            batch_shape: (B, C, H, W).

        Returns:
            ``noise_std``: factor of standard normal noise, uniform in -noise_std to noise_std, float32, shape
            (B, 1, 1, 1). Its sign does not matter, because the noise is symmetric.
        """
        return {"noise_std": _around_zero(self.noise_std, batch_shape, 1, same=self.same_on_batch)}

    def apply_transform(
        self, input: Tensor, params: Parameters, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Add noise to images.

        Args:
            input: Images with mean 0 and standard deviation 1, shape (B, C, H, W).
            params: Result of `generate_parameters`.
            flags: Not used; part of Kornia's interface.
            transform: Not used; part of Kornia's interface.

        Returns:
            Images with noise, same shape and dtype.
        """
        return torch.addcmul(input, normal_like(input, params), params["noise_std"].to(input))


OPERATIONS: dict[str, type[K.RigidAffineAugmentationBase2D]] = {
    c.__name__: c for c in (RandomQuarterTurn, RandomRotationScale, RandomCurve, RandomGainOffset, RandomNoiseLevel)
}
"""Operations of this module by name."""


def _around_zero(most: float, batch_shape: tuple[int, ...], bands: int, *, same: bool) -> Tensor:
    """Draw uniform numbers in -most to most, shape (B, bands, 1, 1), on the CPU: the same for a seed on all devices."""
    drawn = (2 * torch.rand(1 if same else batch_shape[0], bands, 1, 1) - 1) * most
    return drawn.expand(batch_shape[0], bands, 1, 1)


def _within(name: str, value: float, below: float = math.inf) -> float:
    if not 0 <= value < below:
        limit = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name} must be at least 0{limit}, found {value}")
    return float(value)
