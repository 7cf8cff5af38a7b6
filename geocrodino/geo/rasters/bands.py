"""Bands of a raster: what a file says about each, and their names in different conventions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geocrodino.settings.height_words import HeightEncoding

_WORDS = {
    "red": "red", "r": "red", "rot": "red", "rouge": "red",
    "green": "green", "g": "green", "gruen": "green", "vert": "green",
    "blue": "blue", "b": "blue", "blau": "blue", "bleu": "blue",
    "nir": "nir", "nearinfrared": "nir", "nearir": "nir", "infrared": "nir", "ir": "nir", "pir": "nir",
    "nir08": "nir08", "nir09": "nir09", "nirnarrow": "nir08", "narrownir": "nir08", "nearinfrarednarrow": "nir08",
    "rededge": "rededge", "re": "rededge",
    "coastal": "coastal", "coastalaerosol": "coastal", "coastalblue": "coastal",
    "swir": "swir", "swir1": "swir16", "swir16": "swir16", "swir2": "swir22", "swir22": "swir22",
    "shortwaveinfrared": "swir", "shortwaveinfrared1": "swir16", "shortwaveinfrared2": "swir22",
    "midinfrared": "mwir", "midwaveinfrared": "mwir", "thermalinfrared": "tir", "longwaveinfrared": "lwir",
    "pan": "pan", "panchromatic": "pan", "gray": "gray", "grey": "gray",
    "yellow": "yellow", "tir": "tir", "thermal": "tir", "lwir": "lwir", "mwir": "mwir",
}  # fmt: skip
"""Words of band names, without spaces and signs, and the common name (STAC's) that each stands for."""

_ALONE = {"ir", "infrared"}
"""Words that name a band only as its whole name: there are several infrared bands."""

_NUMBERED = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "rededge", "b8": "nir", "b8a": "nir08",
    "b9": "nir09", "b11": "swir16", "b12": "swir22",
}  # fmt: skip
"""Sentinel-2's numbers of bands. Landsat 8 and 9 count blue, green and red alike, and near infrared as B5."""

_COLOURS = {
    ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue", ColorInterp.alpha: "alpha",
    ColorInterp.pan: "pan", ColorInterp.coastal: "coastal", ColorInterp.rededge: "rededge", ColorInterp.nir: "nir",
    ColorInterp.swir: "swir", ColorInterp.yellow: "yellow", ColorInterp.tir: "tir",
}  # fmt: skip
"""Colour interpretations that name a band; gray is what GDAL calls the first band of anything."""

_GENERIC = re.compile(r"(band|layer|channel|kanal|bande|b)?[\s_.:-]*\d+", re.IGNORECASE)
_TRANSPARENCY = {"alpha", "transparency", "mask", "opacity"}


@dataclass(frozen=True)
class Band:
    """What a file says about one band.

    Attributes:
        dtype: Type of the stored numbers.
        name: Description of the band, or the name of its colour; None where the file gives none.
        nodata: Stored number that marks missing data, NaN included, or None.
        scale: A value is the stored number times the scale, plus the offset.
        offset: See ``scale``.
        unit: Unit tag, or None.
        is_alpha: Whether the band is tagged as transparency.
        encoding: How stored numbers hold values, before scale and offset; None: they are numbers.
    """

    dtype: str
    name: str | None = None
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    is_alpha: bool = False
    encoding: HeightEncoding | None = field(default=None, repr=False)  # the text of older headers stays the same

    @property
    def is_scaled(self) -> bool:
        """Whether values differ from the stored numbers."""
        return (self.scale, self.offset) != (1.0, 0.0) or self.encoding is not None

    def values(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn stored numbers into values.

        Args:
            stored: Numbers of the file, of its type, any shape.

        Returns:
            Values, float64 where they differ from the stored numbers, same shape.
        """
        if not self.is_scaled:
            return stored
        numbers = stored if self.encoding is None else np.ascontiguousarray(stored).view(np.float16)
        values: NDArray[np.generic] = numbers.astype(np.float64) * self.scale + self.offset
        return values

    @property
    def is_named_data(self) -> bool:
        """Whether its name says that it holds data, whatever its colour interpretation."""
        return self.name is not None and self.name.strip().lower() not in _TRANSPARENCY


def bands_of(dataset: rasterio.DatasetReader) -> tuple[Band, ...]:
    """Read what an open raster says about its bands.

    Args:
        dataset: The raster.

    Returns:
        One entry for each band, transparency included.
    """
    described = _described(dataset.descriptions)
    found = []
    for i, colour in enumerate(dataset.colorinterp):
        name = described[i] or (_COLOURS.get(colour) if colour != ColorInterp.alpha else None)
        found.append(
            Band(
                dtype=str(dataset.dtypes[i]),
                name=name,
                nodata=dataset.nodatavals[i],
                scale=float(dataset.scales[i]),
                offset=float(dataset.offsets[i]),
                unit=(dataset.units[i] or None) if dataset.units else None,
                is_alpha=colour == ColorInterp.alpha and dataset.count > 1,
            )
        )
    return tuple(found)


def with_names(bands: tuple[Band, ...], names: Sequence[str | None]) -> tuple[Band, ...]:
    """Name the bands that have no name.

    Args:
        bands: The bands.
        names: A name for each band; None and names that only count are left out.

    Returns:
        The bands; names that they have already stay.
    """
    given = _described(names)
    return tuple(replace(band, name=band.name or name) for band, name in zip(bands, given, strict=True))


def common_names(names: Sequence[str | None]) -> tuple[str | None, ...]:
    """The common names of bands, by which bands of different files are compared.

    ``Red``, ``r``, ``red_B4`` and ``B04`` are all ``red``; ``near infrared`` is ``nir``. A name that is not known
    stands for itself in lower case, without spaces and signs. None and names such as ``band 1`` give None.

    Args:
        names: Names of all bands of one raster, in order: what ``B5`` means depends on the others.

    Returns:
        The common name of each band, None where there is none.
    """
    plain = [None if name is None else _plain(name) for name in _described(names)]
    landsat = "b5" in plain and not {"b8", "b8a", "b11", "b12"} & set(plain)
    return tuple(None if name is None else _common(name, landsat=landsat) for name in plain)


def _described(names: Sequence[str | None]) -> list[str | None]:
    """Names, None for those that only count: ``B1, B2, B3`` in this order are numbers, ``B4, B3, B2`` are not."""
    stripped = [name.strip() if name and name.strip() else None for name in names]
    in_order = all(
        name is None or re.fullmatch(rf"(band|b)?[\s_-]*0*{i}", name, re.IGNORECASE)
        for i, name in enumerate(stripped, start=1)
    )
    return [None if name is None or _only_counts(name, in_order=in_order) else name for name in stripped]


def _only_counts(name: str, *, in_order: bool) -> bool:
    if re.fullmatch(r"b[\s_-]*\d+a?", name, re.IGNORECASE):
        return in_order
    return _GENERIC.fullmatch(name) is not None


def _plain(name: str) -> str:
    """Lower case, parts that are words of their own joined by ``_``."""
    return "_".join(re.findall(r"[^\W_]+", name.lower()))


def _common(name: str, *, landsat: bool) -> str:
    parts = name.split("_")
    joined = "".join(parts)
    numbers = [re.sub(r"^(b|band)0*(?=\d)", "b", part) for part in parts]
    for word in _phrases(parts):
        if word in _WORDS and (len(parts) == 1 or (len(word) > 1 and word not in _ALONE)):
            return _numbered_edge(_WORDS[word], parts)
    for number in numbers:
        if landsat and number in {"b5", "b6", "b7"}:
            return {"b5": "nir", "b6": "swir16", "b7": "swir22"}[number]
        if number in _NUMBERED:
            return _NUMBERED[number]
    return next((n for n in numbers if re.fullmatch(r"b\d+a?", n)), joined)


def _phrases(parts: Sequence[str]) -> Iterator[str]:
    """The words that follow each other in a name, written as one, the longest first."""
    for length in range(len(parts), 0, -1):
        for start in range(len(parts) - length + 1):
            yield "".join(parts[start : start + length])


def _numbered_edge(name: str, parts: Sequence[str]) -> str:
    """``rededge2`` for the second of several red edges."""
    if name != "rededge":
        return name
    return name + next((digits for part in parts for digits in re.findall(r"^(?:rededge|edge|re)?(\d)$", part)), "")
