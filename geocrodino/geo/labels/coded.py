"""Label rasters whose numbers or colours become classes by a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import LabelError
from geocrodino.geo.labels.bands import check_one_band
from geocrodino.geo.labels.codes import CodeTable, Rgb, as_yaml, hexadecimal
from geocrodino.geo.labels.source import LabelSource, header_of
from geocrodino.geo.rasters.bands import Band
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.values import file_blocks
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import listed
from geocrodino.settings.classes import IGNORE_INDEX, number
from geocrodino.settings.labels import LabelRules, plain_word

_COLOURS = 2**24
_FAR = 2**16  # more than any distance of two colours
_FARTHEST = 128
"""Distance of a colour above which it is no inexact colour of the nearest class, but one of its own."""

_LOSSY = 10  # colours of no class, from which on a lossy codec may have made them

_MOST_IN_A_TABLE = 24


@dataclass(frozen=True)
class NumberLabels(LabelSource):
    """A raster of one band whose numbers become classes by a table.

    Attributes:
        class_of: Pairs of a number in the file and its class, 255 for those that are no label.
    """

    class_of: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read_with(cls, source: RasterSource, rules: LabelRules) -> NumberLabels:
        """Take a raster of numbers as labels.

        Args:
            source: The raster.
            rules: The rules, with a table. Words of the table are looked up among the names that the file gives to its
                values.

        Returns:
            The labels.

        Raises:
            LabelError: If it has several bands.
        """
        plain = LabelSource.of(source)
        check_one_band(plain)
        table = CodeTable.of(rules)
        named = {v: table.words[w] for v, n in plain.categories().names.items() if (w := plain_word(n)) in table.words}
        return cls(
            **header_of(source),
            pixels=plain.pixels,
            names=table.names,
            shown=table.shown,
            rules=rules,
            class_of=tuple(sorted({**named, **table.numbers}.items())),
        )

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid as positions of classes.

        Args:
            window: Pixels of the file; it may reach outside.
            bands: One-based band numbers.

        Returns:
            Positions, float32, shape (bands, H, W), NaN where there is no label; validity, bool, shape (H, W).

        Raises:
            RasterError: If the file cannot be read there.
        """
        codes, valid = self._read_whole(window, bands)
        found = np.full(codes.shape, np.nan, np.float32)
        for code, index in self.class_of:
            if index != IGNORE_INDEX:
                found[codes == code] = index
        return found, valid & np.isfinite(found).all(axis=0)

    def check(self) -> tuple[str, ...]:
        """Check that every number of the files stands in the table.

        Returns:
            What deserves attention, in sentences.

        Raises:
            LabelError: If one does not.
            RasterError: If a file cannot be read.
        """
        counts = LabelSource.of(self.pixels or RasterSource(**header_of(self))).count_labels()
        shares, known = counts.shares(), dict(self.class_of)
        unknown = [value for value in shares if value not in known]
        if unknown or counts.more:
            whole = [int(value) for value in unknown if value % 1 == 0]
            count = f"more than {len(unknown)}" if counts.more else f"{len(unknown)}"
            expected = f"one of {listed(known, most=12)}" if known else "colours, because it names no number"
            names, pixels = self.categories().names, {} if counts.more else counts.pixels()
            stand = "value stands" if len(unknown) == 1 else "values stand"
            raise LabelError(
                f"{self.name}: {count} {stand} in no class of `data.label_rules.table`: "
                f"{listed((_described(v, names, pixels) for v in unknown), most=8)}. Expected {expected}.\n"
                "Write them under a class, or under `data.label_rules.ignore`: "
                f"ignore: [{', '.join(map(str, whole[:_MOST_IN_A_TABLE]))}]"
            )
        return super().check()


def _described(value: float, names: Mapping[int, str], pixels: Mapping[float, int]) -> str:
    """A value with its name where the file gives one, and its pixels where all were counted."""
    name = names.get(int(value)) if value % 1 == 0 else None
    count = f" ({pixels[value]:,} px)" if value in pixels else ""
    return f"{number(value)}{f' {name}' if name else ''}{count}"


@dataclass(frozen=True)
class ColourLabels(LabelSource):
    """A raster of three bands whose colours become classes by a table.

    Colours are decoded before pixels are combined to coarser ones.

    Attributes:
        class_of: Pairs of a colour and its class, 255 for those that are no label.
        tolerance: Largest distance of a pixel from a colour in any channel; the nearest colour counts.
    """

    class_of: tuple[tuple[Rgb, int], ...] = ()
    tolerance: int = 0

    @classmethod
    def read_with(cls, source: RasterSource, rules: LabelRules) -> ColourLabels:
        """Take a raster of colours as labels.

        Args:
            source: The raster; its first three data bands are red, green and blue.
            rules: The rules, with colours in their table.

        Returns:
            The labels, with one band. A nodata tag on a colour of the table does not hide its pixels.

        Raises:
            LabelError: If the raster has fewer than three bands or not 8 bits, or the table names no colour.
        """
        table = CodeTable.of(rules)
        if len(source.data_bands) < 3 or source.dtype != "uint8":
            raise LabelError(
                f"{source.name}: expected three bands of 8 bits for `data.label_rules.colours`, found "
                f"{source.describe()}.\nLeave colours out of `data.label_rules` for rasters of class values."
            )
        if not table.colours:
            raise LabelError(
                f"{source.name}: expected the colour of each class in `data.label_rules.table`, found none.\n"
                + colours_as_yaml(source)
            )
        pixels = _without_hidden_colours(source.with_bands(source.data_bands[:3]), table.colours)
        header = {**header_of(pixels), "bands": (Band("uint8", nodata=IGNORE_INDEX),), "data_bands": (1,)}
        return cls(
            **{**header, "alpha_band": None, "nodata_values": None},
            pixels=pixels,
            names=table.names,
            shown=table.shown,
            rules=rules,
            class_of=tuple(table.colours.items()),
            tolerance=rules.tolerance,
        )

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid as positions of classes.

        Args:
            window: Pixels of the file; it may reach outside.
            bands: Not used: there is one band.

        Returns:
            Positions, float32, shape (1, H, W), NaN where there is no label; validity, bool, shape (H, W).

        Raises:
            RasterError: If the file cannot be read there.
        """
        colours, valid = self._colours(window)
        nearest, distance = _nearest(colours, [colour for colour, _ in self.class_of])
        classes = np.array([index for _, index in self.class_of], np.float32)
        found = classes[nearest]
        valid &= (distance <= self.tolerance) & (found != IGNORE_INDEX)
        found[~valid] = np.nan
        return found[None], valid

    def _colours(self, window: Window) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Red, green and blue, int16, shape (3, H, W), 0 where invalid; validity, bool, shape (H, W)."""
        assert self.pixels is not None  # noqa: S101 - given by `read_with`
        values, valid = self.pixels.read_own(window, self.pixels.data_bands)
        return np.where(valid, values, 0).astype(np.int16), valid

    def check(self) -> tuple[str, ...]:
        """Check that every colour of the files is that of a class, within the tolerance.

        Returns:
            How many pixels have the colour of no class exactly.

        Raises:
            LabelError: If a pixel is further from every colour than the tolerance.
            RasterError: If a file cannot be read.
        """
        counts = np.zeros(_COLOURS, np.uint32)
        for window in self._windows():
            (red, green, blue), valid = self._colours(window)
            packed = (red.astype(np.int32) << 16 | green.astype(np.int32) << 8 | blue)[valid]
            codes, number_of = np.unique(packed, return_counts=True)
            counts[codes] += number_of.astype(np.uint32)
        packed = np.flatnonzero(counts)
        colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255]).astype(np.int16)
        nearest, distance = _nearest(colours, [colour for colour, _ in self.class_of])
        far = distance > self.tolerance
        if far.any():
            raise LabelError(self._of_no_class(colours[:, far].T, counts[packed[far]], nearest[far], distance[far]))
        inexact = counts[packed[distance > 0]]
        if not inexact.size:
            return ()
        px, share = int(inexact.sum()), 100 * float(inexact.sum()) / max(1, int(counts.sum()))
        kind = "colour" if len(inexact) == 1 else "colours"
        return (
            f"{px:,} px ({share:.3g} %) of {len(inexact):,} {kind} are read as the class of the nearest colour, at "
            f"most {int(distance.max())} away",
        )

    def _windows(self) -> Iterator[Window]:
        assert self.pixels is not None  # noqa: S101 - given by `read_with`
        return file_blocks(self.pixels)

    def _of_no_class(
        self,
        colours: NDArray[np.int16],
        counts: NDArray[np.uint32],
        nearest: NDArray[np.intp],
        distance: NDArray[np.integer],
    ) -> str:
        """Describe colours that belong to no class: (N, 3), and for each its pixels and the nearest of the table."""
        most = int(np.argmax(counts))
        near, index = self.class_of[int(nearest[most])]
        name = "ignore" if index == IGNORE_INDEX else (self.names or ())[index]
        frequent = np.argsort(counts, kind="stable")[::-1][:_MOST_IN_A_TABLE]
        found = [(f"class {i}", hexadecimal(_rgb(colours[place]))) for i, place in enumerate(frequent, start=1)]
        in_yaml = "" if len(colours) > _MOST_IN_A_TABLE else f"dd colours:\n{as_yaml(found)}"
        farthest = int(distance.max())
        if farthest > _FARTHEST:
            way = f"A{in_yaml}" if in_yaml else "Add their colours to `data.label_rules.table`."
            if len(colours) >= _LOSSY:
                way += f"\nIf none is a class, `data.label_rules.tolerance` {farthest} takes each for the nearest one."
        else:
            way = f"Set `data.label_rules.tolerance` to {farthest} to read each as the nearest class"
            way += f", or a{in_yaml}" if in_yaml else "."
        what = "colour matches" if len(colours) == 1 else "colours match"
        return (
            f"{self.name}: {int(counts.sum()):,} px of {len(colours):,} {what} no class within tolerance "
            f"{self.tolerance}; most frequent {_triple(_rgb(colours[most]))} ({int(counts[most]):,} px), nearest "
            f"{name} {_triple(near)} at {int(distance[most])}.\n"
            f"{way}"
        )


def count_colours(source: RasterSource) -> NDArray[np.uint32]:
    """Count the pixels of each colour.

    Args:
        source: A raster, with three data bands of 8 bits; a nodata tag does not hide its pixels.

    Returns:
        Pixels of each colour ``red << 16 | green << 8 | blue``, uint32, shape (2**24,).

    Raises:
        RasterError: If the raster cannot be read.
    """
    counts = np.zeros(_COLOURS, np.uint32)
    plain = _unmarked(source)
    for window in file_blocks(source):
        values, valid = plain.read_own(window, source.data_bands[:3])
        red, green, blue = np.where(valid, values, 0).astype(np.int32)
        codes, number_of = np.unique((red << 16 | green << 8 | blue)[valid], return_counts=True)
        counts[codes] += number_of.astype(np.uint32)
    return counts


def colours_as_yaml(source: RasterSource) -> str:
    """Offer the colours of a raster as a table.

    Args:
        source: The raster, with three data bands of 8 bits.

    Returns:
        Lines of YAML with the most frequent colours, and a sentence before them.
    """
    counts = count_colours(source)
    packed = np.argsort(counts, kind="stable")[::-1][: min(_MOST_IN_A_TABLE, int(np.count_nonzero(counts)))]
    names = [(f"class {i}", f"#{code:06x}") for i, code in enumerate(packed.tolist(), start=1)]
    return f"Name the classes of the colours in the configuration:\n{as_yaml(names)}"


def _nearest(colours: NDArray[np.int16], table: list[Rgb]) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Position of the nearest colour of a table, and its distance in the channel that differs most.

    Of several at that distance, the one with the smallest sum over the channels counts, then the first.

    Args:
        colours: Red, green and blue, int16, shape (3, ...).
        table: The colours of the table.

    Returns:
        Position and distance, each of shape (...).
    """
    shape = colours.shape[1:]
    nearest, least = np.zeros(shape, np.intp), np.full(shape, _FAR * 1024, np.int32)
    for position, colour in enumerate(table):
        apart = np.abs(colours - np.array(colour, np.int16).reshape(3, *([1] * len(shape))))
        measure = apart.max(axis=0).astype(np.int32) * 1024 + apart.sum(axis=0, dtype=np.int32)
        closer = measure < least
        nearest[closer], least[closer] = position, measure[closer]
    return nearest, least // 1024


def _without_hidden_colours(source: RasterSource, colours: Mapping[Rgb, int]) -> RasterSource:
    """The raster without a nodata tag where that would hide a colour of the table, as white or black often is."""
    marks = [source.bands[band - 1].nodata for band in source.data_bands]
    if tuple(marks) not in colours:
        return source
    return _unmarked(source)


def _unmarked(source: RasterSource) -> RasterSource:
    """The raster, or each file of a mosaic, without its nodata tags."""
    plain = replace(source, bands=tuple(replace(band, nodata=None) for band in source.bands))
    if not isinstance(plain, MosaicSource):
        return plain
    return replace(plain, headers=tuple(_unmarked(header) for header in plain.headers))


def _rgb(colour: NDArray[np.int16]) -> Rgb:
    red, green, blue = colour.tolist()
    return red, green, blue


def _triple(colour: Rgb) -> str:
    return ",".join(map(str, colour))
