"""The table of height channels: what a network can read of a surface model, by name, unit and formula.

Another channel is one more entry here, or one call of ``HEIGHT_CHANNELS.register`` from other code. The table needs no
heavy library: what a formula needs beyond arrays it asks of `Heights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Reach(Protocol):
    """How far the neighbourhoods of a formula reach on a grid."""

    @property
    def position_px(self) -> int:
        """Pixels around a window that its topographic position depends on."""


class Heights(Protocol):
    """Heights of a window and of ``margin_px`` pixels around it, in metres, NaN where there are none."""

    @property
    def surface(self) -> NDArray[np.float32]:
        """Surface heights, float32, shape (H + 2 * margin_px, W + 2 * margin_px)."""

    @property
    def ground(self) -> NDArray[np.float32]:
        """Ground heights, float32, same shape; only for channels that need the ground."""

    @property
    def pixel_m(self) -> tuple[float, float]:
        """Pixel width and height, metres."""

    def inner(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of the window alone, shape (H, W), from those with the margin."""

    def slope_deg(self) -> NDArray[np.float32]:
        """Steepest slope of the surface in degrees, shape (H, W)."""

    def topographic_position(self) -> NDArray[np.float32]:
        """Height of the ground above the weighted mean of the ground around it, metres, shape (H, W)."""


@dataclass(frozen=True)
class HeightChannel:
    """One quantity that is computed from heights.

    Attributes:
        name: Name in settings and bundles.
        unit: Unit of the values.
        description: What it is, for the documentation of the settings.
        values: Its formula: float32, shape (H, W), NaN where there is none. A pixel must depend on nothing beyond the
            margin, so that it is the same in every window.
        margin_px: Pixels around a window that the formula reads, or how many there are on a grid.
        needs_ground: Whether the formula reads the ground.
        compress: Whether values are compressed, sign(x) * log(1 + |x|), before they are scaled.
        compared: Whether a prediction compares the values with those of the training, to find wrong units.
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
        """Pixels around a window that the formula reads on a grid."""
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
        """Add a channel.

        Raises:
            ValueError: If another channel has its name.
        """
        if self._channels.setdefault(channel.name, channel) is not channel:
            raise ValueError(f"there is a height channel {channel.name!r} already: choose another name")
        return channel

    def remove(self, name: str) -> None:
        """Remove a channel."""
        del self._channels[name]


HEIGHT_CHANNELS = HeightChannels(
    HeightChannel(
        "height_above_ground",
        "m",
        "surface above the ground",
        lambda heights: heights.surface - heights.ground,
        needs_ground=True,
        compress=True,
    ),
    HeightChannel(
        "topographic_position",
        "m",
        "ground against the ground around it: water and hollows are negative",
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
    """Lets pydantic accept names in the table alone; pydantic is loaded where a model asks."""

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
"""Name of a height channel."""
