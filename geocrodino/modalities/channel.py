"""Statistics of an input channel, and the scaling of its values by them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from geocrodino.settings.height_channels import HEIGHT_CHANNELS


class Channel(BaseModel):
    """One input channel: its unit, its range in the training split, and the mean and deviation that scale it.

    A value is clipped to ``low`` to ``high``, compressed if ``compress`` is set, and standardised by ``mean`` and
    ``std``, which belong to the compressed value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    low: Annotated[float, Field(description="0.1 % quantile in the training split, in the unit")]
    high: Annotated[float, Field(description="99.9 % quantile in the training split, in the unit")]
    mean: float
    std: Annotated[float, Field(gt=0)]
    compress: Annotated[bool, Field(description="sign(x) * log(1 + |x|) before scaling")] = False

    @classmethod
    def measure(cls, name: str, values: NDArray[np.float32]) -> Channel:
        """Compute the statistics of a channel.

        Args:
            name: Name of the channel. The table of height channels gives its unit and whether it is compressed; any
                other name is a band of an image, in digital numbers.
            values: Valid training values in the channel's unit, float32, shape (N,), N > 0.

        Returns:
            The channel. The standard deviation of a constant channel is set to 1.
        """
        low, high = (float(q) for q in np.quantile(values.astype(np.float64), (0.001, 0.999)))
        known = HEIGHT_CHANNELS.get(name)
        compress = known is not None and known.compress
        scaled = np.clip(values.astype(np.float64), low, high)
        scaled = np.sign(scaled) * np.log1p(np.abs(scaled)) if compress else scaled
        # A constant channel carries nothing: scale by one rather than by zero.
        std = float(scaled.std())
        return cls(
            name=name,
            unit="digital number" if known is None else known.unit,
            low=low,
            high=high,
            mean=float(scaled.mean()),
            std=std if std > 1e-12 * max(1.0, abs(high)) else 1.0,
            compress=compress,
        )

    def apply(self, values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Scale values for the network; NaN stays NaN.

        Args:
            values: Values in the channel's unit, float32, any shape.
            out: Receives the scaled values, without unit, float32, same shape; may be ``values`` itself.
        """
        np.clip(values, np.float32(self.low), np.float32(self.high), out=out)
        if self.compress:
            size = np.abs(out)
            np.copysign(np.log1p(size, out=size), out, out=out)
        out -= np.float32(self.mean)
        out /= np.float32(self.std)
