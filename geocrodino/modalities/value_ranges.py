"""Whether the values of an image are those that a network was trained on, and which factor would make them so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.modalities.channel import Channel

_ALL = 0.99  # share of pixels outside from which all of them are: a few dark ones lie inside by chance
_MANY = 0.2
_NARROW = 0.05  # values of another type within this share of the training's range, from below, are on another scale
_FAR_STD = 3.0

_FULL_RANGE = {"uint8": 255.0, "uint16": 65535.0}
_UNIT_RANGE_UP_TO = 1.5  # floating-point brightness from 0 to 1, with some glare
_FULL_FROM = 20_000.0  # 16 bits that reach so far are used in full: reflectance times 10,000 stays below


@dataclass(frozen=True)
class ChannelValues:
    """Sampled values of one band beside those of the training.

    Attributes:
        channel: Statistics of the training.
        low: 1 % quantile of the sampled values.
        high: 99 % quantile.
        mean: Their mean.
        outside: Share outside the training's range, 0 to 1.
    """

    channel: Channel
    low: float
    high: float
    mean: float
    outside: float

    @classmethod
    def of(cls, channel: Channel, values: NDArray[np.float32]) -> ChannelValues:
        """Compare sampled values of a band with the statistics of its channel.

        Args:
            channel: Statistics of the training.
            values: Valid values in the unit of the channel, float32, shape (N,), N > 0.

        Returns:
            The comparison.
        """
        low, high = (float(q) for q in np.quantile(values, (0.01, 0.99)))
        outside = float(((values < channel.low) | (values > channel.high)).mean())
        return cls(channel, low, high, float(values.mean(dtype=np.float64)), outside)

    @property
    def is_far(self) -> bool:
        """Whether the band deserves a warning."""
        return self.outside > _MANY or abs(self.mean - self.channel.mean) > _FAR_STD * self.channel.std

    @property
    def is_narrow(self) -> bool:
        """Whether all values crowd at the lower end of the training's range, or below it."""
        return self.high < self.channel.low + _NARROW * (self.channel.high - self.channel.low)

    def words(self) -> str:
        """Describe both ranges for a message.

        Returns:
            The band's name, the range and mean of the training, and the range of the scene.
        """
        c = self.channel
        return f"{c.name} {c.low:.4g} to {c.high:.4g} (mean {c.mean:.4g}), found {self.low:.4g} to {self.high:.4g}"


def is_other_scale(bands: Sequence[ChannelValues], trained: str | None, dtype: str) -> bool:
    """Find out whether all bands of an image hold values on another scale than the training's.

    Args:
        bands: The bands.
        trained: Type of the training's numbers, None where it is not known.
        dtype: Type of the image's.

    Returns:
        True if, in every band, at least 99 % of the values lie outside the training's range, or the types differ and
        nearly all values lie in the lowest 5 % of that range or below it.
    """
    other_type = trained is not None and trained != dtype
    return all(band.outside >= _ALL or (other_type and band.is_narrow) for band in bands)


def likely_factor(bands: Sequence[ChannelValues], trained: str | None, dtype: str) -> str | None:
    """Find the factor that takes the values of an image to the scale of the training, judging by the types.

    Args:
        bands: The bands.
        trained: Type of the training's numbers, None where it is not known.
        dtype: Type of the image's.

    Returns:
        The quotient of the types' full ranges as text, such as ``257`` or ``1/257``; None if they are equal or one of
        them is unclear.
    """
    before = _full_range(trained, max(band.channel.high for band in bands))
    found = _full_range(dtype, max(band.high for band in bands))
    if before is None or found is None or before == found:
        return None
    if before > found:
        return f"{before / found:g}"
    return f"1/{found / before:g}"


def _full_range(dtype: str | None, high: float) -> float | None:
    """The largest value of a type that is used in full, 1 for fractions; None where that is not plain."""
    if dtype is None:
        dtype = "uint8" if _UNIT_RANGE_UP_TO < high <= 255 else "uint16"
    if dtype.startswith("float"):
        return 1.0 if high <= _UNIT_RANGE_UP_TO else None
    return None if dtype == "uint16" and high < _FULL_FROM else _FULL_RANGE.get(dtype)
