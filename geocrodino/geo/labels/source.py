"""Rasters of labels: one band with few, whole class values, and names if the file has any.

`inspect`, `train` and `evaluate` use the functions here, so they accept and refuse the same files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Compression

from geocrodino.errors import LabelError, LabelWarning
from geocrodino.geo.labels.advice import MOST_LISTED, reading_advice, values_as_table, values_listed
from geocrodino.geo.labels.bands import check_one_band, quoted
from geocrodino.geo.labels.categories import Categories, read_categories
from geocrodino.geo.labels.names import Legend, classes_by_name, indices_by_name, require_same_names
from geocrodino.geo.labels.rules import check_rules, recoded, without_nodata
from geocrodino.geo.rasters.headers import read_many
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.opening import open_pixels
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.values import ValueCounts, count_values
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import arguments, listed
from geocrodino.settings.classes import ClassScheme, number, unnamed
from geocrodino.settings.labels import LabelRules

_WHOLE_WITHIN = 1e-3  # real numbers are taken as whole within this: warping leaves such errors
_RARE = 0.01  # share of the labelled pixels below which a value is rare
# Numbers of values from which JPEG compression, interpolation or object numbers are assumed, where many are rare. In
# trials on land cover of 5 to 8 classes, these left 25 values or more unless class values were close to each other, a
# third of them rare or more. Land-cover products of a region hold up to some 20 classes, about half of them rare.
_SUSPICIOUS_FROM, _REFUSED_FROM = 12, 25


@dataclass(frozen=True)
class LabelSource(RasterSource):
    """A raster of labels, read with the user's rules for its values.

    Rules are applied to the pixels of the file, before pixels are combined to coarser ones.

    Attributes:
        ignore_values: Values that are no label.
        label_values: Pairs of a value in the file and the class value that it stands for.
        pixels: Raster that the pixels are read from, where that is not one band of one file: a mosaic, or colours.
        names: Names of the classes, where a table or a column of words gives them: values are then positions in it, and
            classes are matched by name; None: values are class values.
        shown: Colour of each of these classes, ``#rrggbb``, or None.
        rules: What determined the names and values, for the identity of the labels.
    """

    ignore_values: tuple[int, ...] = ()
    label_values: tuple[tuple[int, int], ...] = ()
    pixels: RasterSource | None = None
    names: tuple[str, ...] | None = None
    shown: tuple[str | None, ...] = ()
    rules: LabelRules | None = None

    @classmethod
    def of(
        cls, source: RasterSource, ignore_values: Collection[int] = (), label_values: Mapping[int, int] | None = None
    ) -> LabelSource:
        """Take a raster as labels.

        Args:
            source: The raster.
            ignore_values: Values of the file that are no label.
            label_values: Class value, 0 to 254, of values of the file; other values stay as they are.

        Returns:
            The raster with the rules for its values.

        Raises:
            LabelError: If the rules contradict each other or the file.
        """
        rules = dict(label_values or {})
        check_rules(source, set(ignore_values), rules)
        return cls(
            **header_of(source),
            ignore_values=tuple(sorted(set(ignore_values))),
            label_values=tuple(sorted(rules.items())),
            pixels=source if isinstance(source, MosaicSource) else None,
        )

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that hold the pixels, as GDAL opens them."""
        return super().file_names if self.pixels is None else self.pixels.file_names

    @property
    def covered(self) -> NDArray[np.int64]:
        """Rows and columns ``(row_start, row_stop, col_start, col_stop)`` that each of its files covers, (files, 4)."""
        return super().covered if self.pixels is None else self.pixels.covered

    @property
    def layout_key(self) -> list[object]:
        """What else identifies the labels: the members of a mosaic, and the rules for codes."""
        members = [] if self.pixels is None else self.pixels.layout_key
        return members if self.rules is None else [*members, self.rules.model_dump_json()]

    @property
    def has_pixels(self) -> bool:
        """Whether the labels are pixels with a size of their own; shapes are none."""
        return True

    @property
    def origin(self) -> str:
        """Where names of classes come from, for people; empty if classes are matched by value."""
        return "" if self.names is None else "named in label_rules.table"

    def describe(self) -> str:
        """Describe the labels in one line.

        Returns:
            Number of files where there are several, bands, type and grid.
        """
        return super().describe() if self.pixels is None else self.pixels.describe()

    def count_labels(self) -> ValueCounts:
        """Count the labels of each value.

        Returns:
            Pixels by value.

        Raises:
            RasterError: If a file cannot be read.
        """
        return count_values(self, self.data_bands[0])

    @property
    def checked_as(self) -> object:
        """What `check` looks at: labels of which it is equal need one check."""
        return id(self)

    def check(self) -> tuple[str, ...]:
        """Check that the files hold labels as the rules say, reading them whole where codes are listed in a table.

        Returns:
            What deserves attention, in sentences.

        Raises:
            LabelError: If a raster has several bands, or a code stands in no class of the table.
            RasterError: If a file cannot be read.
        """
        check_one_band(self)
        return lossy_notes(self)

    def categories(self) -> Categories:
        """Read the names and colours that the files give to values.

        Returns:
            Those of the first file.

        Raises:
            RasterError: If it cannot be opened.
        """
        if self.pixels is not None:
            return read_categories(Path(self.pixels.file_names[0]), self.data_bands[0])
        return read_categories(self.path, self.data_bands[0], palette=self.has_palette, tagged=self.is_map)

    def _read_stored(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid as it is; arguments and result as for `read_own`."""
        return super().read_own(window, bands) if self.pixels is None else self.pixels.read_own(window, bands)

    def _read_whole(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window as `_read_stored` does, real numbers that are nearly whole as whole ones."""
        values, valid = self._read_stored(window, bands)
        if "float" in self.dtype or self.bands[bands[0] - 1].is_scaled:
            near = np.rint(values)
            values = np.where(np.abs(values - near) <= _WHOLE_WITHIN, near, values)
        return values, valid

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid, with the rules applied.

        Args:
            window: Pixels of the file; it may reach outside.
            bands: One-based band numbers; rules are applied if there is one band.

        Returns:
            Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W).

        Raises:
            RasterError: If the file cannot be read there.
        """
        values, valid = self._read_whole(window, bands)
        if len(bands) > 1:  # no labels; only looked at for a message
            return values, valid
        if self.ignore_values:
            dropped = np.isin(values[0], self.ignore_values)
            valid &= ~dropped
            values[:, dropped] = np.nan
        return recoded(values, self.label_values), valid

    def _check_targets(self, scheme: ClassScheme, values: NDArray[np.number], valid: NDArray[np.bool_]) -> None:
        """Refuse a rule that makes a value that is of no class, where it does."""
        wrong = {value: target for value, target in self.label_values if target not in scheme.values}
        if wrong and np.isin(values[valid], list(wrong.values())).any():
            known = ", ".join(f"{c.value} {c.name}" for c in scheme.classes)
            raise LabelError(
                f"{self.name}: {arguments(label_values=wrong)}: expected the value of a class behind the value of the "
                f"file, found {listed(wrong.values(), most=8)}. Classes: {known}."
            )

    def indices(
        self,
        scheme: ClassScheme,
        window: Window,
        grid: GeoBox | None = None,
        unchecked: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.uint8]:
        """Read class indices.

        Args:
            scheme: The classes.
            window: Part of the grid.
            grid: Grid of the result; the file's own by default.
            unchecked: Pixels whose value may be of no class, bool, shape (H, W); they become ``UNKNOWN_INDEX`` then.

        Returns:
            Class indices, uint8, shape (H, W), 255 where there is no label.

        Raises:
            LabelError: If another pixel holds a value of no class.
        """
        band = self.data_bands[:1]
        values, valid = (
            self.read_own(window, band) if grid is None else self.read(grid, window, bands=band, kind="categorical")
        )
        if self.names is None:
            self._check_targets(scheme, values[0], valid)
            return scheme.to_indices(values[0], valid, self.name, unchecked=unchecked)
        return indices_by_name(scheme, self.names, values[0], valid, self.name, unchecked)


def header_of(source: RasterSource) -> dict[str, Any]:
    """Take the header of a raster, to make labels of it.

    Args:
        source: The raster.

    Returns:
        The attributes of `RasterSource` by name.
    """
    return {f.name: getattr(source, f.name) for f in fields(RasterSource)}


@dataclass(frozen=True)
class FoundClasses:
    """The classes of a raster of labels.

    Attributes:
        scheme: The classes.
        shares: Share of the labelled pixels of each value, 0 to 1.
        notes: What deserves attention, in sentences.
    """

    scheme: ClassScheme
    shares: Mapping[float, float]
    notes: tuple[str, ...]


def label_classes(labels: Sequence[LabelSource], named: ClassScheme | None) -> ClassScheme:
    """Check that rasters and shapes hold labels, and find their classes.

    Args:
        labels: The labels of all scenes, at least one.
        named: The classes, where the user names them.

    Returns:
        The classes that are named; otherwise those that a table or a column of words names; otherwise the values that
        `find_classes` finds, of all rasters together.

    Raises:
        LabelError: If a raster has several bands, a code stands in no class of a table, some labels name classes and
            others do not, or no classes are named and the rasters do not seem to hold any or name a value differently.

    Warns:
        LabelWarning: Of what deserves attention.
    """
    by_name = [source for source in labels if source.names is not None]
    by_value = [source for source in labels if source.names is None]
    checked: set[object] = set()
    noted: dict[str, list[str]] = {}
    # `find_classes` makes the checks of rasters whose values are the classes, but not those of shapes.
    for source in labels if named is not None else [s for s in labels if s.names is not None or not s.has_pixels]:
        if source.checked_as not in checked:
            checked.add(source.checked_as)
            for note in source.check():
                noted.setdefault(note, []).append(str(source.name))
    for note, names in noted.items():
        one = names[0] if len(names) == 1 else f"{len(names)} files of labels ({listed(names, most=2)})"
        warnings.warn(f"{one}: {note}.", LabelWarning, stacklevel=2)
    if named is not None:
        return named
    if by_name and by_value:
        raise LabelError(
            f"{by_value[0].name}: expected names of classes as in {by_name[0].name}, found class values.\n"
            "List value and name of each class under `classes`."
        )
    if by_name:
        return classes_by_name([(s.names or (), s.shown, bool(s.rules and s.rules.table)) for s in by_name])
    found = find_classes(by_value)
    for note in found.notes:
        warnings.warn(f"{by_value[0].name}: {note}.", LabelWarning, stacklevel=2)
    return found.scheme


def lossy_notes(labels: RasterSource) -> tuple[str, ...]:
    """Note that a file's compression changes values.

    Args:
        labels: The labels.

    Returns:
        One sentence if the file is compressed with loss, nothing otherwise.
    """
    if isinstance(labels, LabelSource) and not labels.has_pixels:
        return ()
    with open_pixels(labels.file_names[0], alone=True) as dataset:
        jpeg = dataset.driver == "JPEG" or dataset.compression == Compression.jpeg
    return ("JPEG compression may have changed class values",) if jpeg else ()


def find_classes(labels: LabelSource | Sequence[LabelSource], counts: ValueCounts | None = None) -> FoundClasses:
    """Take the values that labels hold as their classes, with the names and colours that the files give them.

    Args:
        labels: The labels; several are judged together, so one of them may hold a single value.
        counts: The values of a single raster, where they have been counted already.

    Returns:
        The classes and what deserves attention.

    Raises:
        LabelError: If a raster has several bands, or all together hold fewer than two values, values that a map cannot
            hold, or so many rare values that they are more likely to be artefacts; or if two files give a value
            different names.
    """
    sources = [labels] if isinstance(labels, LabelSource) else list(labels)
    for source in sources:
        check_one_band(source)
    joined, values = ValueCounts(), []
    for counted in (counts,) if counts is not None else read_many(lambda source: source.count_labels(), sources):
        joined.join(counted)
        values.append({int(v) for v in counted.pixels()})
    found = list(read_many(recoded_categories, sources))
    categories, shares = _joined_categories(found), joined.shares()
    notes = _check_values(sources[0], shares, categories, more=joined.more)
    legends = zip(sources, found, values, strict=True)
    require_same_names([Legend(s.name, each.names, own, dict(s.label_values)) for s, each, own in legends])
    scheme, repeated = _scheme([int(v) for v in shares], categories)
    return FoundClasses(scheme, shares, (*notes, *categories.notes, *repeated))


def _joined_categories(found: Sequence[Categories]) -> Categories:
    """Names and colours of values; those of the first labels that give one."""
    names = {value: name for each in reversed(found) for value, name in each.names.items()}
    colours = {value: colour for each in reversed(found) for value, colour in each.colours.items()}
    return Categories(names, colours, tuple(dict.fromkeys(note for each in found for note in each.notes)))


def recoded_categories(labels: LabelSource) -> Categories:
    """Read the names and colours of class values.

    Args:
        labels: The labels.

    Returns:
        Those of the file, after the rules for its values; none where classes are matched by name.
    """
    if labels.names is not None:
        return Categories()
    found = labels.categories()
    rules = dict(labels.label_values)

    def moved(by_value: Mapping[int, str]) -> dict[int, str]:
        taken = {rules[v]: text for v, text in by_value.items() if v in rules}
        return taken | {v: text for v, text in by_value.items() if v not in rules}

    return Categories(moved(found.names), moved(found.colours), found.notes)


def _scheme(values: list[int], categories: Categories) -> tuple[ClassScheme, tuple[str, ...]]:
    """Classes with the file's names; a name that several values share is not used."""
    names = {v: categories.names.get(v, unnamed(v)) for v in values}
    repeated = {n for n in names.values() if list(names.values()).count(n) > 1}
    notes = tuple(
        f"the name {name!r} stands for the values {values_listed([v for v in values if names[v] == name])}, which are "
        "called after their value instead"
        for name in sorted(repeated)
    )
    # A name such as "class 3" may also be taken by another value.
    plain = {unnamed(v) for v in values if names[v] in repeated}
    names = {v: unnamed(v) if n in repeated | plain else n for v, n in names.items()}
    if len(set(names.values())) < len(names):
        names = {v: unnamed(v) for v in values}
    scheme = ClassScheme.from_values(values, [names[v] for v in values])
    coloured = (c.model_copy(update={"colour": categories.colours.get(c.value, c.colour)}) for c in scheme.classes)
    return ClassScheme(classes=tuple(coloured)), notes


def _check_values(
    labels: LabelSource, shares: Mapping[float, float], categories: Categories, *, more: bool
) -> tuple[str, ...]:
    """Refuse values that are no classes; what is only suspicious comes back as notes."""
    wrong = [v for v in shares if v % 1 or not 0 <= v <= 254]
    if more or len(wrong) > MOST_LISTED or any(v % 1 for v in wrong):
        raise _refusal(labels, values_listed(list(shares), more=more), _not_classes(labels, shares, more=more))
    rare = [v for v, share in shares.items() if share < _RARE]
    many = f"{len(shares)} values ({values_listed(list(shares))}); {_rare(shares, rare)}"
    named = not labels.has_pixels or all(int(v) in categories.names for v in shares)
    if len(shares) >= _REFUSED_FROM and 3 * len(rare) >= len(shares) and not named:
        raise _refusal(labels, many, _ARTEFACTS)
    if len(shares) < 2:
        found = f"the value {values_listed(list(shares))} alone" if shares else "no labelled pixel"
        raise _refusal(labels, found, _too_few(labels, list(shares)))
    if wrong:
        advice = reading_advice(list(shares), wrong) + values_as_table(shares)
        raise _refusal(labels, f"the values {values_listed(list(shares))}", advice)
    notes = list(lossy_notes(labels))
    if notes and rare:
        raise _refusal(labels, f"{many}, in a file with JPEG compression", _ARTEFACTS)
    if len(shares) >= _SUSPICIOUS_FROM and 2 * len(rare) >= len(shares) and not named:
        notes.append(f"{many}. JPEG compression and interpolation leave such values")
    return tuple(notes)


_ARTEFACTS = (
    "JPEG compression and interpolation leave such values, and so does a number for each object. Use class values that "
    "were compressed without loss and resampled with the nearest pixel. If all of them are classes, list them under "
    "`classes`."
)


def _refusal(labels: RasterSource, found: str, advice: str) -> LabelError:
    return LabelError(
        f"{labels.name}: expected two or more classes with whole values from 0 to 254, found {found}.\n{advice}"
    )


def _rare(shares: Mapping[float, float], rare: list[float]) -> str:
    together = 100 * sum(shares[v] for v in rare)
    return (
        f"{len(rare)} of them hold less than {100 * _RARE:g} % of the labelled pixels each, {together:.2g} % together"
    )


def _not_classes(labels: LabelSource, shares: Mapping[float, float], *, more: bool) -> str:
    """Describe a raster whose values are no classes."""
    fractions = sum(share for v, share in shares.items() if v % 1)
    if not more and 0 < fractions < 0.5:
        return (
            f"{100 * fractions:.2g} % of the pixels hold fractions: these look like classes that were interpolated. "
            "Resample the original with the nearest pixel, for instance: "
            f"rio warp ORIGINAL.tif {quoted(labels)} --like OPTICAL.tif --resampling nearest --overwrite"
        )
    low, high = min(shares), max(shares)
    if low >= 0 and high <= 1:
        looks = "probabilities or an image"
    elif not fractions:
        looks = "heights, an image, or a number for each object"
    else:
        looks = "heights or an image"
    return f"This looks like {looks}. Give the raster of class values as labels."


def _too_few(labels: LabelSource, values: list[float]) -> str:
    if not labels.has_pixels:
        return "Draw shapes of every class, or name another column."
    nodata = labels.nodata
    if nodata is not None and not math.isnan(nodata):
        unlabelled = f"The file's nodata value {number(nodata)} marks pixels without a label. {without_nodata(labels)}"
        wrong = [v for v in (*values, nodata) if not 0 <= v <= 254]
        return f"{unlabelled}\n{reading_advice([*values, nodata], wrong)}" if wrong and values else unlabelled
    if labels.ignore_values or labels.label_values or labels.mask != "none" or labels.alpha_band:
        return (
            "Check the file's mask, the values left out with `ignore_values`, and those read as others with "
            "`label_values`."
        )
    return "Give a raster that holds every class."
