"""What a preset says of a data set: names of files, classes, place, heights and splits."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from geocrodino.presets.packed import Packed
from geocrodino.settings.height_channels import HeightChannelName
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.splits import SceneSplit

Layer = Literal["optical", "elevation", "ground", "labels"]
"""What a file of a scene is."""

Codes = tuple[int | str, ...]
"""What stands for a class in the files: numbers, colours ``#rrggbb``. The first colour is that of the class."""


@dataclass(frozen=True)
class Preset:
    """A public data set.

    Attributes:
        name: Its name in commands.
        title: Its full name, and what it holds.
        source: Where to get or ask for the data.
        licence: The terms of use, as far as they are known.
        layers: Patterns of the files of each layer, below any folder; the first pattern that matches files counts.
            Parts in braces name the tile, see `geocrodino.files.tile_names`.
        classes: Codes of each class in the label files; empty: the classes are the values of the files.
        ignore: Codes that are no label.
        tolerance: Largest distance of a pixel from the colour of its class, see `LabelRules`.
        pixel_m: Pixel size of files without a place, m.
        crs: CRS of files of which all have a world file and none states a CRS.
        height: Coding of the heights; None: metres above the sea.
        bands: Bands of the image, counted from 1; None: all.
        channels: Channels of the elevation branch; None: those of all trainings.
        splits: Names of the tiles of each split, with ``*`` for any text. A tile is of the first split that names it;
            one that none names is left out. Empty: all tiles are of train.
        lists: Name of the file that lists the tiles of each split, with ``*``, below any folder. Where it is there, it
            decides instead of ``splits``.
        official: Where the splits are from.
        group: Regular expression of the part of a tile's name whose tiles stay together in a split.
        val_every: Every such group of train becomes val, where no tile of val is named or there.
        skipped: Why a tile is left out, by its name.
        boundary_px: Labels at most this far from another class do not count in the usual scores of the data set, px.
        uncounted: Classes that are in no mean of those scores.
        packed: Finds files of the data set that are unpacked before they are read, among all files of its folder; None:
            it has none.
        notes: What else to know.
        assumed: What neither files nor documents of the data set state, and how to replace it.
    """

    name: str
    title: str
    source: str
    licence: str
    layers: Mapping[Layer, tuple[str, ...]]
    classes: Mapping[str, Codes]
    ignore: Codes = ()
    tolerance: int = 0
    pixel_m: float | None = None
    crs: str | None = None
    height: HeightSettings | None = None
    bands: tuple[int, ...] | None = None
    channels: tuple[HeightChannelName, ...] | None = None
    splits: Mapping[SceneSplit, tuple[str, ...]] = field(default_factory=dict)
    lists: Mapping[SceneSplit, str] = field(default_factory=dict)
    official: str = "none"
    group: str = ".*"
    val_every: int = 8
    skipped: Mapping[str, str] = field(default_factory=dict)
    boundary_px: int = 0
    uncounted: tuple[str, ...] = ()
    packed: Callable[[Sequence[str]], Packed | None] | None = None
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def colours(self) -> dict[str, str]:
        """Colour of each class as ``#rrggbb``: that of the data set, otherwise colours spread evenly."""
        own = {name: next((c for c in codes if isinstance(c, str)), None) for name, codes in self.classes.items()}
        return {
            name: colour.lower() if colour is not None else _spread(position, len(own))
            for position, (name, colour) in enumerate(own.items())
        }

    @property
    def has_own_colours(self) -> bool:
        """Whether the data set names the colours of its classes."""
        return bool(self.classes) and all(any(isinstance(c, str) for c in codes) for codes in self.classes.values())

    def settings(self) -> dict[str, Any]:
        """What the preset says of all scenes.

        Returns:
            Values by dotted key of the configuration, see `geocrodino.settings.config.load_config`.
        """
        rules: dict[str, Any] = {"table": {name: list(codes) for name, codes in self.classes.items()}}
        if self.ignore:
            rules["ignore"] = list(self.ignore)
        if self.tolerance:
            rules["tolerance"] = self.tolerance
        data: dict[str, Any] = {}
        if self.classes:
            data["label_rules"] = rules
        if self.bands is not None:
            data["bands"] = list(self.bands)
        if self.height is not None:
            data["height"] = self.height.model_dump(mode="json", exclude_defaults=True)
        values: dict[str, Any] = {"data": data}
        if self.classes:
            values["classes"] = [
                {"value": value, "name": name, "colour": colour}
                for value, (name, colour) in enumerate(self.colours.items())
            ]
        if self.channels is not None:
            values["elevation.channels"] = list(self.channels)
        return values


def _spread(position: int, count: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb(position / count, 0.45 + 0.2 * (position % 2), 0.6 + 0.15 * (position % 3))
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
