"""Advice for rasters of several bands where one band of class values is expected."""

from __future__ import annotations

import shlex
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geocrodino.errors import LabelError
from geocrodino.geo.labels.codes import as_yaml
from geocrodino.geo.rasters.opening import opened
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.values import count_values, file_blocks

_MOST_COLOURS = 64  # an image has thousands
_IN_A_COMMAND = 16
_SUM_WITHIN = 0.02  # of the probabilities of a pixel, stored in bytes or half precision

Role = Literal["labels", "map"]


def check_one_band(source: RasterSource, role: Role = "labels") -> None:
    """Check that a raster holds one band of data; a band of transparency may be beside it.

    Args:
        source: The raster.
        role: What it is used as.

    Raises:
        LabelError: If there are several bands, with what they look like.
    """
    described = not source.band_names[0].startswith("band ")
    if source.path.stem.endswith(".layers") and described:
        own = source.path.with_name(f"{source.path.stem.removesuffix('.layers')}{source.path.suffix}")
        what = "a class map" if role == "map" else "labels"
        raise LabelError(
            f"{source.name}: expected {what}, found the layers that lie beside a class map.\nThe map itself is {own}"
        )
    count = len(source.data_bands)
    if count == 1:
        return
    looks, advice = _two_bands(source) if count == 2 else _several_bands(source)
    raise LabelError(f"{source.name}: expected one band of class values, found {count} bands. {looks}\n{advice}")


def _two_bands(source: RasterSource) -> tuple[str, str]:
    first, second = (count_values(source, band) for band in source.data_bands)
    extract = _extract(source)
    if first.others or second.more or any(v % 1 for v in second.others):
        return "This looks like an image or measurements.", f"Give the raster of class values, or {extract}"
    if set(second.shares()) <= {0, 1} or set(second.shares()) <= {0, 255}:
        mask = f"rio edit-info --colorinterp gray,alpha {quoted(source)}"
        return (
            "This looks like a band of classes and a mask.",
            f"Mark the mask as transparency: {mask}\nOr leave it out: {extract}",
        )
    return "This looks like a band of classes and one of instances.", f"Use the classes alone: {extract}"


def _several_bands(source: RasterSource) -> tuple[str, str]:
    extract = f"If one band holds class values, {_extract(source)}"
    colours = _colours(source) if source.dtype == "uint8" else None
    if colours is not None and (colours == colours[:, :1]).all():
        return "The first three of them are equal.", f"Use one of them: {_extract(source)}"
    if _shares_of_one(source):
        expression = "(argmax (read 1) 0)"
        return (
            "This looks like probabilities of classes, one band for each.",
            f"Write the number of the most probable band, from 0, into one band: {_calc(source, expression)}",
        )
    if colours is None:
        return "This looks like an image.", f"Give the raster of class values as labels. {extract}"
    some = " and ".join(_triple(c) for c in colours[::-1][:2])
    looks = f"This looks like a colour-coded label image: {len(colours)} colours, such as {some}."
    return looks, _convert(source, colours)


def _colours(source: RasterSource) -> NDArray[np.uint8] | None:
    """The different colours of the first three bands, uint8, shape (colours, 3); None if there are many.

    A nodata value is a colour like others: white or black often carries the tag.
    """
    seen = np.zeros(2**24, bool)
    with opened(source.path) as dataset:
        for window in file_blocks(source):
            try:
                bands = dataset.read(source.data_bands[:3], window=RasterioWindow.from_slices(*window.slices))
            except RasterioError:
                return None  # the damage is reported when the pixels are read
            red, green, blue = bands.astype(np.int32)
            seen[(red * 256 + green) * 256 + blue] = True
            if np.count_nonzero(seen) > _MOST_COLOURS:
                return None
    codes = np.flatnonzero(seen)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)


def _shares_of_one(source: RasterSource) -> bool:
    """Whether the bands of a pixel lie in 0 to 1 and sum to 1, in the first blocks."""
    looked_at = False
    for window in islice(file_blocks(source), 4):
        values, valid = source.read_own(window, source.data_bands)
        pixels = values[:, valid]
        looked_at |= pixels.size > 0
        if ((pixels < 0) | (pixels > 1)).any() or (np.abs(pixels.sum(axis=0) - 1) > _SUM_WITHIN).any():
            return False
    return looked_at


def _convert(source: RasterSource, colours: NDArray[np.uint8]) -> str:
    shown = colours[:_IN_A_COMMAND]
    terms = (
        f"(* {value} (== (read 1 1) {red}) (== (read 1 2) {green}) (== (read 1 3) {blue}))"
        for value, (red, green, blue) in enumerate(shown.tolist(), start=1)
    )
    order = ", ".join(f"{_triple(colour)} becomes {value}" for value, colour in enumerate(shown, start=1))
    more = "" if len(shown) == len(colours) else " (add the other colours in the same way)"
    command = _calc(source, f"(+ 0 {' '.join(terms)})")
    names = [(f"class {value}", "#{:02x}{:02x}{:02x}".format(*c)) for value, c in enumerate(colours.tolist(), start=1)]
    return (
        f"Name the classes of the colours in the configuration:\n{as_yaml(names)}\n"
        f"Or convert the colours to class values first; {order}{more}:\n{command}"
    )


def _triple(colour: NDArray[np.uint8]) -> str:
    return ",".join(map(str, colour.tolist()))


def _extract(source: RasterSource) -> str:
    return f"extract it, for instance: rio stack {quoted(source)} --bidx {source.data_bands[0]} -o {_result(source)}"


def _calc(source: RasterSource, expression: str) -> str:
    return f'rio calc "{expression}" {quoted(source)} {_result(source)} --dtype uint8 --not-masked'


def quoted(source: RasterSource) -> str:
    """Quote the name of a file for a shell.

    Args:
        source: The raster.

    Returns:
        Its path, quoted where that is necessary.
    """
    return shlex.quote(str(source.path))


def _result(source: RasterSource) -> str:
    return shlex.quote(str(source.path.with_name(f"{source.path.stem}-classes.tif")))
