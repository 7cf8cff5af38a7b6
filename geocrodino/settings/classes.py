"""The classes of a map: values in files, names and colours for people, indices for networks."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from geocrodino.errors import LabelError
from geocrodino.phrases import listed
from geocrodino.spelling import did_you_mean

IGNORE_INDEX = 255
"""Index of a pixel without a label, in label tensors; also the nodata value of class maps."""

UNKNOWN_INDEX = 254
"""Index of a pixel whose label is of no class, while classes are being read; no tensor and no map holds it."""

_LONG_COLOUR, _SHORT_COLOUR = re.compile("#[0-9a-fA-F]{6}"), re.compile("#[0-9a-fA-F]{3}")

_PALETTE = (
    "#b8a88a", "#2e8b3d", "#d1493f", "#2f6fb7", "#8e6bb0", "#e0b13c", "#7fc97f", "#5fb8b8",
    "#a0522d", "#f08fb0", "#607d8b", "#c0ca33",
)  # fmt: skip


def number(value: float) -> str:
    """Format a raster value for people.

    Args:
        value: The value.

    Returns:
        Whole numbers up to 2 ** 24 in full, others to six significant digits.
    """
    # Beyond 2 ** 24 single precision does not hold every whole number.
    return f"{value:.0f}" if value % 1 == 0 and abs(value) <= 2**24 else f"{value:.6g}"


def unnamed(value: int) -> str:
    """Name a class of which only the value is known.

    Args:
        value: The value.

    Returns:
        Its name, which fits every class of this value.
    """
    return f"class {value}"


def ignore_advice(values: Iterable[float]) -> str:
    """Write the setting that leaves label values out.

    Args:
        values: The label values.

    Returns:
        Text in backticks, for instance ``ignore_values=[0, 255]``.
    """
    return f"`ignore_values=[{', '.join(map(number, values))}]`"


def recode_advice(rules: Mapping[float, int] | Mapping[int, int]) -> str:
    """Write the setting that reads label values as classes.

    Args:
        rules: Class value, 0 to 254, of each label value.

    Returns:
        Text in backticks, for instance ``label_values={255: 1}``.
    """
    pairs = ", ".join(f"{number(value)}: {as_class}" for value, as_class in rules.items())
    return f"`label_values={{{pairs}}}`"


def _hexadecimal(colour: object) -> str:
    """Convert a colour to ``#rrggbb``; ``ValueError`` if it is not a colour."""
    if colour is None:
        raise ValueError('expected a colour such as "#c8b68c" or red; in YAML a # starts a comment: put it in quotes')
    text = str(colour).strip()
    if _LONG_COLOUR.fullmatch(text):
        return text
    if _SHORT_COLOUR.fullmatch(text):
        return "#" + "".join(2 * digit for digit in text[1:])
    from matplotlib.colors import CSS4_COLORS  # slow to import and seldom needed

    text = text.lower()
    if text not in CSS4_COLORS:
        raise ValueError(f"expected #rrggbb, #rgb or the CSS name of a colour.{did_you_mean(text, CSS4_COLORS)}")
    return str(CSS4_COLORS[text]).lower()


def _spread(position: int, count: int) -> str:
    """One of ``count`` colours of evenly spread hue; every other one is darker, so that neighbours differ."""
    parts = colorsys.hsv_to_rgb(position / count, 0.65, 0.85 if position % 2 == 0 else 0.6)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def with_colours(classes: Sequence[LandClass]) -> tuple[LandClass, ...]:
    """Give classes for which no colour was stated hues that are spread evenly over all classes.

    Args:
        classes: The classes.

    Returns:
        The classes in the same order; stated colours stay.
    """
    return tuple(
        land if "colour" in land.model_fields_set else land.model_copy(update={"colour": _spread(i, len(classes))})
        for i, land in enumerate(classes)
    )


class LandClass(BaseModel):
    """One class: the value in label and map files, the name, the colour as ``#rrggbb``.

    A colour may also be given as ``#rgb`` or by its CSS name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[int, Field(ge=0, le=254, description="value in label and map files")]
    name: Annotated[str, Field(min_length=1)]
    colour: Annotated[str, BeforeValidator(_hexadecimal)] = "#808080"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as three numbers in 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


class ClassScheme(BaseModel):
    """The ordered classes of a model: the position of a class is its index in the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[tuple[LandClass, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _unique(self) -> ClassScheme:
        for what in ("value", "name"):
            seen = [getattr(c, what) for c in self.classes]
            if len(set(seen)) != len(seen):
                raise ValueError(f"two classes share a {what}: {seen}")
        return self

    @classmethod
    def from_values(cls, values: Iterable[int], names: Iterable[str] | None = None) -> ClassScheme:
        """Create classes with default colours, for label files that name no classes.

        Args:
            values: Class values of the file, 0 to 254; duplicates are allowed.
            names: One name for each distinct value in ascending order; None: ``class <value>``.

        Returns:
            Classes in ascending order of their values.

        Raises:
            ValueError: If the number of names differs from that of the values.
            ValidationError: If there are fewer than two values, one is out of range, or two names are equal.
        """
        ordered = sorted(set(values))
        labels = list(names) if names is not None else [unnamed(v) for v in ordered]
        return cls(
            classes=tuple(
                LandClass(value=v, name=n, colour=_PALETTE[i % len(_PALETTE)])
                for i, (v, n) in enumerate(zip(ordered, labels, strict=True))
            )
        )

    @classmethod
    def from_names(cls, names: Iterable[str], colours: Iterable[str | None] = ()) -> ClassScheme:
        """Create classes for labels that name them.

        Args:
            names: The names, in order.
            colours: Colour of each, ``#rrggbb``, or None; classes without one get hues that are spread evenly.

        Returns:
            Classes with the values 0, 1 and so on.

        Raises:
            ValidationError: If there are fewer than two names or more than 255, or two are equal.
        """
        listed_names, given = list(names), list(colours)
        given += [None] * (len(listed_names) - len(given))
        return cls(
            classes=tuple(
                LandClass(value=i, name=name, colour=colour or _spread(i, len(listed_names)))
                for i, (name, colour) in enumerate(zip(listed_names, given, strict=True))
            )
        )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in index order."""
        return tuple(c.name for c in self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """File values, in index order."""
        return tuple(c.value for c in self.classes)

    @property
    def by_value(self) -> dict[int, str]:
        """Name of each file value."""
        return dict(zip(self.values, self.names, strict=True))

    def to_indices(
        self,
        values: NDArray[np.number],
        valid: NDArray[np.bool_],
        source: str,
        role: Literal["labels", "map"] = "labels",
        unchecked: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.uint8]:
        """Convert file values to class indices.

        Args:
            values: File values, any number type, shape (H, W).
            valid: False where there is no value, bool, shape (H, W); such pixels become ``IGNORE_INDEX``.
            source: Name of the file, for the message.
            role: Whether the file holds labels or a class map, for the message.
            unchecked: Pixels whose value may belong to no class, bool, shape (H, W); they become ``UNKNOWN_INDEX``
                then. None: no pixel.

        Returns:
            Class indices, uint8, shape (H, W), 0 to ``len(self) - 1``, ``UNKNOWN_INDEX`` or ``IGNORE_INDEX``.

        Raises:
            LabelError: If another valid pixel holds a value that belongs to no class.
        """
        indices = np.full(values.shape, IGNORE_INDEX, np.uint8)
        for index, value in enumerate(self.values):
            indices[valid & (values == value)] = index
        if unchecked is not None:
            indices[valid & unchecked & (indices == IGNORE_INDEX)] = UNKNOWN_INDEX
        unknown = np.unique(values[valid & (indices == IGNORE_INDEX)])
        if unknown.size:
            raise LabelError(self._unknown_values(unknown.tolist(), source, role))
        return indices

    def _unknown_values(self, values: list[float], source: str, role: str) -> str:
        known = ", ".join(f"{c.value} {c.name}" for c in self.classes)
        what = "label values" if role == "labels" else "values"
        found = (
            f"{source} holds {what} outside the classes: {listed(map(number, values), most=8)}. Expected: {known}.\n"
        )
        if role == "map":
            return found + "Give a class map that holds the values of its classes."
        if len(values) > 8 or any(v != int(v) for v in values):
            return found + (
                "Are these labels? JPEG compression and interpolation change class values: use a raster that was "
                "compressed without loss and resampled with the nearest pixel."
            )
        if all(0 <= v < IGNORE_INDEX for v in values):
            return found + (
                f"Name every value under `classes`; or leave values out with {ignore_advice(values)}; or read a value "
                f"as a class, for instance with {recode_advice({values[0]: self.values[-1]})}."
            )
        last = self.values[-len(values) :]
        as_classes = {value: last[min(n, len(last) - 1)] for n, value in enumerate(values)}
        return found + (
            f"A class has a value from 0 to 254. Read values as classes, for instance with "
            f"{recode_advice(as_classes)}; or leave them out with {ignore_advice(values)}."
        )

    def to_values(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert class indices to file values.

        Args:
            indices: Class indices or ``IGNORE_INDEX``, uint8, any shape.

        Returns:
            File values, uint8, same shape; ``IGNORE_INDEX`` does not change.
        """
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[: len(self)] = self.values
        return table[indices]
