"""The table of height channels: quantities computed from a surface model, with name, unit and formula.

A new channel is one more entry here, or one call of ``HEIGHT_CHANNELS.register`` from other code. The table imports no
heavy library: formulas work on the arrays and methods of `Heights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Reach(Protocol):
    """Sizes of the neighbourhoods that formulas use, on one grid."""

    @property
    def position_px(self) -> int:
        """Margin of the topographic position on each side of a window, px."""


class Heights(Protocol):
    """Heights of a window of H x W px with ``margin_px`` pixels around it, in m, NaN where invalid."""

    @property
    def surface(self) -> NDArray[np.float32]:
        """Surface heights, float32, shape (H + 2 * margin_px, W + 2 * margin_px)."""

    @property
    def ground(self) -> NDArray[np.float32]:
        """Ground heights, float32, shape as `surface`; only for channels that need the ground."""

    @property
    def pixel_m(self) -> tuple[float, float]:
        """Pixel width and height, m."""

    def inner(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut the margin off.

        Args:
            values: Values with the margin, float32, shape (H + 2 * margin_px, W + 2 * margin_px).

        Returns:
            Values of the window, float32, shape (H, W).
        """

    def slope_deg(self) -> NDArray[np.float32]:
        """Compute the steepest slope of the surface.

        Returns:
            Slope in degrees, 0 to 90, float32, shape (H, W).
        """

    def topographic_position(self) -> NDArray[np.float32]:
        """Compute the height of the ground above the weighted mean of the ground around it.

        Returns:
            Topographic position in m, negative in hollows, float32, shape (H, W).
        """


@dataclass(frozen=True)
class HeightChannel:
    """One quantity computed from heights.

    Attributes:
        name: Name in settings and bundles.
        unit: Unit of the values.
        description: Its meaning, for the documentation of the settings.
        values: The formula; its result is float32, shape (H, W), NaN where invalid. A pixel may depend only on pixels
            within the margin, so that it has the same value in every window.
        margin_px: Pixels that the formula reads on each side of a window, or a function that computes their number on
            a grid.
        needs_ground: Whether the formula reads the ground.
        compress: Whether values are compressed, sign(x) * log(1 + |x|), before they are scaled.
        compared: Whether a prediction compares the values with those of the training, to detect wrong units.
    """

    name: str
    unit: str
    description: str
    values: Callable[[Heights], NDArray[np.float32]]
    margin_px: int | Callable[[Reach], int] = 0
    needs_ground: bool = False
    compress: bool = False
    compared: bool = True

    def margin_on(self, reach: Reach) -> int:
        """Compute the margin of the formula on a grid.

        Args:
            reach: Neighbourhoods on the grid.

        Returns:
            Pixels that the formula reads on each side of a window.
        """
        return self.margin_px if isinstance(self.margin_px, int) else self.margin_px(reach)


class HeightChannels(Mapping[str, HeightChannel]):
    """Height channels by name."""

    def __init__(self, *channels: HeightChannel) -> None:
        self._channels = {channel.name: channel for channel in channels}

    def __getitem__(self, name: str) -> HeightChannel:
        return self._channels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)

    def register(self, channel: HeightChannel) -> HeightChannel:
        """Add a channel; adding the same channel again has no effect.

        Args:
            channel: The channel.

        Returns:
            The channel.

        Raises:
            ValueError: If another channel has its name.
        """
        if self._channels.setdefault(channel.name, channel) is not channel:
            raise ValueError(f"there is a height channel {channel.name!r} already: choose another name")
        return channel

    def remove(self, name: str) -> None:
        """Remove a channel.

        Args:
            name: Its name.

        Raises:
            KeyError: If there is no channel of this name.
        """
        del self._channels[name]


HEIGHT_CHANNELS = HeightChannels(
    HeightChannel(
        "height_above_ground",
        "m",
        "height of the surface above the ground",
        lambda heights: heights.surface - heights.ground,
        needs_ground=True,
        compress=True,
    ),
    HeightChannel(
        "topographic_position",
        "m",
        "height of the ground above the mean of the ground around it; water and hollows are negative",
        lambda heights: heights.topographic_position(),
        margin_px=lambda reach: reach.position_px,
        needs_ground=True,
        compress=True,
        compared=False,  # changes near the edge of a scene
    ),
    HeightChannel("height", "m", "absolute height", lambda heights: heights.surface),
    HeightChannel(
        "slope",
        "deg",
        "steepest slope of the surface",
        lambda heights: heights.slope_deg(),
        margin_px=1,
        compared=False,  # changes near the edge of a scene
    ),
)
"""All height channels."""


class _Registered:
    """Make pydantic accept only names in the table; pydantic_core is imported when a model is built."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def check(name: str) -> str:
            if name in HEIGHT_CHANNELS:
                return name
            *first, last = map(repr, HEIGHT_CHANNELS)
            expected = f"{', '.join(first)} or {last}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})

        return core_schema.no_info_after_validator_function(check, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), "enum": list(HEIGHT_CHANNELS)}


HeightChannelName = Annotated[str, _Registered()]
"""Name of a registered height channel."""
