"""Names and colours that a raster gives to its values: category names, attribute tables, colour tables, a map's tag.

GDAL keeps them inside the file, or in a side file ``<raster>.aux.xml``, depending on the format. Rasterio reads colour
tables alone. GDAL's description of the raster as a virtual one lists all of them, whatever the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from geocrodino.errors import RasterError
from geocrodino.files.access import is_file
from geocrodino.files.names import gdal_name, is_url
from geocrodino.geo.labels.tags import names_file, tagged_classes

# Meaning of a column of an attribute table, as GDAL numbers it.
_NAME, _MIN, _MIN_MAX, _COLOURS = "2", "3", "5", ("6", "7", "8")
_REAL = "1"  # type of a column
# Columns that other programs leave without a meaning, by name.
_VALUE_COLUMNS = ("value", "val", "code")
_NAME_COLUMNS = ("class_name", "class_names", "classname", "name", "class", "label", "category", "description")
_COLOUR_COLUMNS = ("red", "green", "blue")
_SIDE_ENDS = (".aux.xml", ".aux", ".AUX", ".vat.dbf")  # of the files in which GDAL looks for names of values


@dataclass(frozen=True)
class Categories:
    """What a raster says about its values.

    Attributes:
        names: Name of each value that has one.
        colours: Colour of each value that has one, ``#rrggbb``.
        notes: What could not be read, in sentences.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_categories(path: Path, band: int = 1, *, palette: bool = True, tagged: bool = True) -> Categories:
    """Read the names and colours of a band's values.

    The tag of geocrodino's maps takes precedence over category names, and these over an attribute table. A colour table
    takes precedence over the colours of an attribute table.

    Args:
        path: The raster.
        band: One-based number of the band.
        palette: Whether the file may hold a table of colours.
        tagged: Whether it may have the tag of geocrodino's maps.

    Returns:
        Names and colours by value, and sentences on what could not be read.

    Raises:
        RasterError: If the raster cannot be opened.
    """
    notes: list[str] = []
    names: dict[int, str] = {}
    colours: dict[int, str] = {}
    for element in _band_elements(path, band, notes) if palette or _may_describe(path) else ():
        for found in (_category_names(element), _column(element, _NAME, _NAME_COLUMNS)):
            names = {**found, **names}
        colours = {**_table_colours(element), **_colour_table(element), **colours}
    try:
        classes = tagged_classes(path) if tagged else None
    except RasterError:  # another program's tag of the same name
        classes = None
    if classes is not None:
        names |= {c.value: c.name for c in classes.classes}
        colours |= {c.value: c.colour for c in classes.classes}
    return Categories({v: n for v, n in names.items() if n}, colours, tuple(notes))


def _may_describe(path: Path) -> bool:
    """Whether a raster without a table of colours may name its values.

    Up to GDAL 3.11 a TIFF does in a side file alone; from 3.12 on an attribute table may lie in its GDAL_METADATA tag.
    """
    name = gdal_name(path)
    if (
        _tables_lie_inside_tiffs()
        or is_url(name)
        or name.startswith("/vsi")
        or path.suffix.lower() not in {".tif", ".tiff"}
    ):
        return True
    stem = path.with_suffix("").name
    return any(is_file(path.with_name(f"{first}{end}")) for first in (path.name, stem) for end in _SIDE_ENDS)


def _tables_lie_inside_tiffs() -> bool:
    """Whether this GDAL reads attribute tables from a TIFF itself."""
    major, minor = rasterio.__gdal_version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 12)


def _band_elements(path: Path, band: int, notes: list[str]) -> Iterator[Element]:
    """The band in GDAL's description, and in the side file, whose attribute tables older versions of GDAL leave out."""
    with MemoryFile(ext=".vrt") as described:
        try:
            rasterio.shutil.copy(gdal_name(path), described.name, driver="VRT")
        except RasterioError as error:
            raise RasterError(path, f"not a raster that GDAL can open ({error}).") from error
        text = described.read()
    yield from _parsed(text).iterfind(f"VRTRasterBand[@band='{band}']")
    side = names_file(path)
    if is_url(gdal_name(path)) or not is_file(side):
        return
    try:
        yield from _parsed(side.read_bytes()).iterfind(f"PAMRasterBand[@band='{band}']")
    except (ElementTree.ParseError, ValueError, OSError) as error:
        notes.append(f"{side}: the names of classes in it cannot be read ({error})")


def _parsed(text: bytes) -> Element:
    if b"<!DOCTYPE" in text:  # GDAL writes none, and the entities of one can fill the memory
        raise ValueError("it declares a document type")
    return ElementTree.fromstring(text)  # noqa: S314 - nothing is declared in it


def _category_names(band: Element) -> dict[int, str]:
    listed = band.find("CategoryNames")
    return {} if listed is None else {value: (item.text or "").strip() for value, item in enumerate(listed)}


def _colour_table(band: Element) -> dict[int, str]:
    listed = band.find("ColorTable")
    entries = [] if listed is None else [[int(float(e.get(f"c{i}", "0"))) for i in (1, 2, 3)] for e in listed]
    return {value: _hex(entry) for value, entry in enumerate(entries)}


def _table_colours(band: Element) -> dict[int, str]:
    """Colours of an attribute table: whole numbers 0 to 255, or real ones 0 to 1."""
    parts = [_column(band, usage, (name,), as_byte=True) for usage, name in zip(_COLOURS, _COLOUR_COLUMNS, strict=True)]
    shared = set(parts[0]) & set(parts[1]) & set(parts[2])
    try:
        return {value: _hex([int(part[value]) for part in parts]) for value in shared}
    except ValueError:
        return {}


def _column(band: Element, usage: str, names: tuple[str, ...], *, as_byte: bool = False) -> dict[int, str]:
    """A column of the attribute table by value: the column of that meaning, otherwise of one of the names."""
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return {}
    fields = list(table.iterfind("FieldDefn"))
    keys, column = _find(fields, (_MIN_MAX, _MIN), _VALUE_COLUMNS), _find(fields, (usage,), names)
    if keys is None or column is None:
        return {}
    fractions = as_byte and fields[column].findtext("Type") == _REAL
    found = {}
    for row in table.iterfind("Row"):
        cells = [(cell.text or "").strip() for cell in row.iterfind("F")]
        try:
            text = cells[column]
            found[int(float(cells[keys]))] = _as_byte(text) if fractions else text
        except (ValueError, IndexError, OverflowError):
            continue  # a row without a value
    return found


def _find(fields: list[Element], usages: tuple[str, ...], names: tuple[str, ...]) -> int | None:
    for usage in usages:
        for index, each in enumerate(fields):
            if each.findtext("Usage") == usage:
                return index
    for name in names:
        for index, each in enumerate(fields):
            if (each.findtext("Name") or "").strip().lower() == name:
                return index
    return None


def _as_byte(text: str) -> str:
    value = float(text)
    return str(round(255 * value) if value <= 1 else round(value))


def _hex(parts: list[int]) -> str:
    red, green, blue = (min(max(part, 0), 255) for part in parts)
    return f"#{red:02x}{green:02x}{blue:02x}"
