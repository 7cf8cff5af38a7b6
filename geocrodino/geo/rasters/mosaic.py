"""Many files as one raster: rasters on one pixel lattice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.errors import RasterError
from geocrodino.files.names import gdal_name
from geocrodino.geo.rasters.bands import common_names
from geocrodino.geo.rasters.coding import HeightCoding
from geocrodino.geo.rasters.grid import lattice_difference, pixel_offset, window_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import metres_in
from geocrodino.geo.rasters.validity import tagged_alpha
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.height_words import HeightEncoding


@dataclass(frozen=True, kw_only=True)
class MosaicSource(RasterSource):
    """Rasters on one pixel lattice, read as one raster.

    Where members overlap, the first valid one counts; where none is valid, the mosaic is not valid either.
    As for one file, nothing is held open. What the members do not share (nodata, transparency, scale) stays that of
    each member; the attributes of the mosaic then give the first member's data bands without it.

    Attributes:
        name: What the user named; ``files`` are the members.
        geobox: The union of the members' extents.
        files: The members, in the order in which they decide; paths or URLs.
        boxes: Rows and columns of the mosaic that each covers: ``(row_start, row_stop, col_start, col_stop)``,
            int64, shape (4, members).
        headers: The different headers of members; name and grid in them have no meaning.
        header_of: Which of them is each member's, unsigned, shape (members,).
    """

    files: tuple[str, ...] = field(repr=False)
    boxes: NDArray[np.int64] = field(repr=False, compare=False)
    headers: tuple[RasterSource, ...] = field(repr=False)
    header_of: NDArray[np.unsignedinteger] = field(repr=False, compare=False)

    @staticmethod
    def join(sources: Sequence[RasterSource], name: str) -> MosaicSource:
        """Join rasters to one.

        Args:
            sources: The members, in the order in which they decide where they overlap.
            name: What the user named.

        Returns:
            The mosaic.

        Raises:
            RasterError: If two of them are not of one lattice, or differ in what gives values their meaning (number,
                type and names of the data bands, unit, table of colours), naming both.
            ValueError: If there is none.
        """
        if not sources:
            raise ValueError("a mosaic needs at least one raster")
        sources = _alike_in_transparency(sources)
        corners = np.array([_offset(source, sources[0]) for source in sources], np.int64).T
        sizes = np.array([source.geobox.shape for source in sources], np.int64).T
        start, stop = corners.min(axis=1), (corners + sizes).max(axis=1)
        corners -= start[:, None]
        height, width = (stop - start).tolist()
        headers: dict[object, RasterSource] = {}
        for source in sources:
            headers.setdefault(source.header_key, replace(source, name="", geobox=sources[0].geobox))
        numbers = {key: number for number, key in enumerate(headers)}
        return MosaicSource(
            name=name,
            geobox=GeoBox((height, width), _anchor(sources, corners), sources[0].geobox.crs),
            **_shared(list(headers.values())),
            files=tuple(gdal_name(source.name) for source in sources),
            boxes=np.stack([corners[0], corners[0] + sizes[0], corners[1], corners[1] + sizes[1]]),
            headers=tuple(headers.values()),
            header_of=np.array([numbers[source.header_key] for source in sources], np.min_scalar_type(len(headers))),
        )

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that hold the pixels, as GDAL opens them."""
        return self.files

    @property
    def covered(self) -> NDArray[np.int64]:
        """Rows and columns ``(row_start, row_stop, col_start, col_stop)`` that each of its files covers, (files, 4)."""
        return self.boxes.T

    @property
    def layout_key(self) -> list[object]:
        """Place and header of every member."""
        return [self.boxes.tolist(), self.header_of.tolist(), [header.header_key for header in self.headers]]

    @property
    def is_scaled(self) -> bool:
        """Whether all values of all members differ from the stored numbers."""
        return all(header.is_scaled for header in self.headers)

    def member(self, index: int) -> RasterSource:
        """Take one of the files.

        Args:
            index: Position in ``files``, from 0.

        Returns:
            The file as a raster, on its part of the mosaic's grid.
        """
        header = self.headers[int(self.header_of[index])]
        return replace(header, name=self.files[index], geobox=window_grid(self.geobox, self._box(index)))

    def _box(self, index: int) -> Window:
        return Window(*self.boxes[:, index].tolist())

    def with_bands(self, numbers: tuple[int, ...]) -> Self:
        """Choose the data bands of every member; see `RasterSource.with_bands`.

        Args:
            numbers: One-based numbers of bands, in the order in which they are read.

        Returns:
            The mosaic with these data bands.
        """
        headers = tuple(header.with_bands(numbers) for header in self.headers)
        return replace(self, headers=headers, data_bands=numbers, alpha_band=headers[0].alpha_band)

    def rescaled(self, factor: float) -> Self:
        """Multiply all values by a number.

        Args:
            factor: The number.

        Returns:
            The mosaic whose values are multiplied.
        """
        return replace(super().rescaled(factor), headers=tuple(header.rescaled(factor) for header in self.headers))

    def recoded(
        self, *, scale: float | None, offset: float | None, encoding: HeightEncoding | None, unit: str | None
    ) -> Self:
        """Read the stored numbers of every member in another way; see `RasterSource.recoded`.

        Args:
            scale: A value is the stored number times the scale, plus the offset; None: as each file says.
            offset: See ``scale``.
            encoding: How stored numbers hold values; None: they are numbers.
            unit: Unit of the values; None: as the files say.

        Returns:
            The mosaic with these values.
        """
        own = super().recoded(scale=scale, offset=offset, encoding=encoding, unit=unit)
        headers = tuple(
            header.recoded(scale=scale, offset=offset, encoding=encoding, unit=unit) for header in self.headers
        )
        return replace(own, headers=headers)

    def with_coding(self, coding: HeightCoding | None) -> Self:
        """Note how the heights of every member are read.

        Args:
            coding: The meaning of the values.

        Returns:
            The mosaic with this note.
        """
        headers = tuple(header.with_coding(coding) for header in self.headers)
        return replace(super().with_coding(coding), headers=headers)

    def describe(self) -> str:
        """Describe the mosaic in one line.

        Returns:
            Number of files, bands, type and grid.
        """
        return f"{len(self.files)} files, {super().describe()}"

    def _read_pixels(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        # Heights are checked across the borders of members: in `read_own`, of the whole mosaic.
        values = np.full((len(bands), *window.shape), np.nan, np.float32)
        valid = np.zeros(window.shape, bool)
        for index in self._members_in(window):
            box = self._box(index)
            shared = window.intersect(box)
            part = shared.within(window).slices
            undecided = ~valid[part]
            if not undecided.any():
                continue
            found, ok = self.member(index).read_own(shared.within(box), bands)
            ok &= undecided
            np.copyto(values[:, *part], found, where=ok)
            valid[part] |= ok
        return values, valid

    def _members_in(self, window: Window) -> list[int]:
        # 15 microseconds for 10,000 members: a tree of boxes saves half of that and costs 1 MB for every worker.
        row_start, row_stop, col_start, col_stop = self.boxes
        rows = (row_start < window.row_stop) & (row_stop > window.row_start)
        cols = (col_start < window.col_stop) & (col_stop > window.col_start)
        found: list[int] = np.flatnonzero(rows & cols).tolist()
        return found

    def __getstate__(self) -> dict[str, Any]:
        # Names of tiles are similar: compressed, they are 20 times smaller for a worker.
        names = "\0".join(self.files).encode("utf-8", "surrogateescape")
        packed = {"files": zlib.compress(names, 1), "boxes": zlib.compress(self.boxes.tobytes(), 1)}
        return {**self.__dict__, **packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = zlib.decompress(state["files"]).decode("utf-8", "surrogateescape").split("\0")
        boxes = np.frombuffer(zlib.decompress(state["boxes"]), np.int64).reshape(4, -1)
        self.__dict__.update({**state, "files": tuple(files), "boxes": boxes})


# --- what members must share ----------------------------------------------------------------------------------------


def _offset(source: RasterSource, first: RasterSource) -> tuple[int, int]:
    """Rows and columns by which a raster is shifted in the lattice of the first one."""
    offset = pixel_offset(source.geobox, first.geobox)
    problem = _other_lattice(source.geobox, first.geobox) if offset is None else _other_content(source, first)
    if offset is None or problem is not None:
        raise RasterError(gdal_name(source.name), f"not of one scene with {gdal_name(first.name)}: {problem}")
    return offset


def _other_lattice(found: GeoBox, expected: GeoBox) -> str:
    """Explain why two grids are not on one lattice."""
    advice = "Warp it onto the pixels of the other one first, or read it as a scene of its own."
    return f"{lattice_difference(found, expected)}.\n{advice}"


def _alike_in_transparency(sources: Sequence[RasterSource]) -> Sequence[RasterSource]:
    """Members with the same decision on transparency: values of a single tile may look like those of an image."""
    found = {source.alpha_band for source in sources}
    tagged = {tagged_alpha(source.bands) for source in sources}
    if len(found) < 2 or len(tagged) > 1 or None in tagged:
        return sources
    return [source.with_bands(tuple(b for b in range(1, source.count + 1) if b not in tagged)) for source in sources]


def _other_content(source: RasterSource, first: RasterSource) -> str | None:
    """Explain why values of two rasters on one lattice differ in meaning; None if they do not."""
    compared = (
        (_data_bands, _bands),
        (_coding, _type),
        (_common_names, _names),
        (_length, _unit),
        (_palette, _palette),
    )
    for of, words in compared:
        if of(source) != of(first):
            return f"expected {words(first)}, found {words(source)}.\nName only files whose values mean the same."
    return None


def _data_bands(source: RasterSource) -> str:
    count = len(source.data_bands)
    return f"{count} data band{'' if count == 1 else 's'}"


def _bands(source: RasterSource) -> str:
    return _data_bands(source) + (" and transparency" if source.alpha_band else "")


def _common_names(source: RasterSource) -> tuple[str | None, ...]:
    return common_names([source.bands[band - 1].name for band in source.data_bands])


def _names(source: RasterSource) -> str:
    return f"bands named {', '.join(source.data_names)}"


def _coding(source: RasterSource) -> str:
    """Meaning of the numbers: unsigned types hold brightness up to their maximum, others physical values."""
    band = source.bands[source.data_bands[0] - 1]
    counts = band.dtype.startswith("uint") and not band.is_scaled
    return band.dtype if counts else "physical values"


def _type(source: RasterSource) -> str:
    band = source.bands[source.data_bands[0] - 1]
    scaled = f" with scale {band.scale:g} and offset {band.offset:g}" if band.is_scaled else ""
    return f"values of type {band.dtype}{scaled}"


def _length(source: RasterSource) -> float | str | None:
    tag = (source.unit or "").strip()
    return (metres_in(tag) or tag) if tag else None


def _unit(source: RasterSource) -> str:
    return f"the unit {source.unit}" if source.unit else "no unit"


def _palette(source: RasterSource) -> str:
    return "a table of colours" if source.has_palette else "no table of colours"


def _shared(headers: Sequence[RasterSource]) -> dict[str, Any]:
    """The header of a mosaic: what its members share."""
    first = headers[0]
    shared: dict[str, Any] = {"has_palette": first.has_palette, "is_map": first.is_map}
    if len({(repr([b.nodata for b in h.bands]), h.alpha_band, h.count) for h in headers}) == 1:
        masks = {header.mask for header in headers}
        marks = {name: getattr(first, name) for name in ("bands", "data_bands", "alpha_band", "nodata_values")}
        return {**shared, **marks, "mask": first.mask if len(masks) == 1 else "dataset"}
    bands = tuple(replace(first.bands[number - 1], nodata=None) for number in first.data_bands)
    return {**shared, "bands": bands, "data_bands": tuple(range(1, len(bands) + 1)), "mask": "dataset"}


def _anchor(sources: Sequence[RasterSource], corners: NDArray[np.int64]) -> Affine:
    """Transform of the mosaic: exactly that of the member in its corner, if there is one."""
    for source, corner in zip(sources, corners.T.tolist(), strict=True):
        if corner == [0, 0]:
            return source.geobox.affine
    row, col = corners[:, 0].tolist()
    return sources[0].geobox.affine @ Affine.translation(-col, -row)
