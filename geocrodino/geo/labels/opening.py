"""The one door for labels that a user names: rasters of values or colours, and shapes with a class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from geocrodino.errors import LabelError
from geocrodino.files.vector_names import is_vector
from geocrodino.geo.labels.bands import check_one_band
from geocrodino.geo.labels.coded import ColourLabels, NumberLabels
from geocrodino.geo.labels.shapes import read_shapes
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.labels.vector import VectorLabels
from geocrodino.geo.labels.vector_files import vector_files
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.place import Place, pictures
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_raster, open_scene
from geocrodino.geo.rasters.scene_files import find_files, given_names
from geocrodino.settings.labels import LabelRules, is_colour

LabelName = str | Path | Sequence[str | Path]
"""What names labels: a file, folder, pattern or URL, or several of them that are read as one."""

_RASTER_ONLY = {"colours": None, "tolerance": 0}
_SHAPES_ONLY = {"column": None, "layer": None, "touched": "centre", "order": "area", "width_m": 1.0}


def open_labels(
    name: LabelName,
    like: RasterSource | None,
    *,
    rules: LabelRules | None = None,
    ignore_values: Collection[int] = (),
    label_values: Mapping[int, int] | None = None,
    place: Place | None = None,
) -> LabelSource:
    """Open labels.

    Args:
        name: One of

            - rasters, in all the ways of `geocrodino.geo.rasters.scene.open_scene`: one band of numbers, or three of
              colours;
            - vector files of polygons, lines and points: a file, folder, pattern, archive or URL, a layer as QGIS names
              it, ``parcels.gpkg|layername=2024``; or several of these, whose shapes are read as one.
        like: The raster that the labels belong to. Shapes are burnt on its grid where no other is given; None: they are
            only looked at.
        rules: How values, colours and attributes become classes.
        ignore_values: Values of the file that are no label.
        label_values: Class value, 0 to 254, of values of the file; other values stay as they are.
        place: CRS and pixel size for files that state none; None: not given.

    Returns:
        The labels, with the rules for their values.

    Raises:
        RasterError: If nothing is there, or a file cannot be read.
        MissingCRSError: If a raster has no coordinate reference system.
        LabelError: If the rules contradict each other or the file, or a file of shapes cannot be used.
        OverlapError: If shapes do not meet the raster.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    rules = rules or LabelRules()
    shown = str(name) if isinstance(name, str | Path) else str(name[0])
    if rules.table and (ignore_values or label_values):
        raise LabelError(
            f"{shown}: `data.label_rules.table` names all codes of the labels: expected no `ignore_values` and "
            "`label_values` beside it.\nWrite them into the table and `data.label_rules.ignore`."
        )
    if is_vector(name):
        _refuse_keys(shown, rules, _RASTER_ONLY, "shapes")
        recoded, ignored = dict(label_values or {}), frozenset(ignore_values)
        files = vector_files(name)
        crs = None if place is None else place.crs
        shapes = read_shapes(files, rules, crs=crs, ignored=ignored, recoded=recoded)
        return VectorLabels.over(shown, shapes, rules, None if like is None else like.geobox)
    _refuse_keys(shown, rules, _SHAPES_ONLY, "rasters")
    source = _open_raster(name, place)
    if _has_colours(source, rules):
        return ColourLabels.read_with(source, rules)
    if isinstance(source, MosaicSource) and len(source.data_bands) > 1:
        check_one_band(source.member(0))
    if rules.table:
        return NumberLabels.read_with(source, rules)
    return LabelSource.of(source, {*ignore_values, *_numbers(shown, rules)}, label_values)


def _open_raster(name: LabelName, place: Place | None) -> RasterSource:
    if len(find_files(given_names(name), None, pictures(place)).files) > 1:
        return open_scene(name, place=place)
    return open_raster(name if isinstance(name, str | Path) else name[0], place=place)


def _has_colours(source: RasterSource, rules: LabelRules) -> bool:
    """Whether bands are colours: as the rules say, otherwise where there are three of 8 bits and a table of colours."""
    if rules.colours is not None:
        return rules.colours
    named = any(is_colour(code) for codes in (*rules.table.values(), rules.ignore) for code in codes)
    return named and len(source.data_bands) >= 3 and source.dtype == "uint8"


def _numbers(name: str, rules: LabelRules) -> list[int]:
    """The numbers that are no label, where there is no table."""
    other = [code for code in rules.ignore if not isinstance(code, int)]
    if other:
        raise LabelError(
            f"{name}: data.label_rules.ignore: expected numbers for a raster without a table, found {other[0]!r}.\n"
            "Name the classes of the codes in `data.label_rules.table`."
        )
    return [code for code in rules.ignore if isinstance(code, int)]


def _refuse_keys(name: str, rules: LabelRules, keys: Mapping[str, object], kind: str) -> None:
    """Refuse rules that would do nothing for labels of this kind."""
    given = [key for key, default in keys.items() if getattr(rules, key) != default]
    if given:
        option = f"`data.label_rules.{given[0]}`"
        other = "a raster" if kind == "rasters" else "a vector file"
        raise LabelError(
            f"{name}: {option}: does not apply to {other}, found {getattr(rules, given[0])!r}. Leave it out."
        )
