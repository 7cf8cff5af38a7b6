"""Shapes that are labels: polygons, lines and points of vector files, each with a class, repaired and in order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from geocrodino.errors import AOIError, LabelError
from geocrodino.files.access import exists
from geocrodino.files.kept import kept_inside
from geocrodino.geo.areas.crs import with_crs
from geocrodino.geo.areas.sources import AreaSource, columns_by_layer, label_source, read_source
from geocrodino.geo.areas.splits import columns_of_splits
from geocrodino.geo.labels.codes import CodeTable, as_yaml
from geocrodino.geo.labels.names import MOST_CLASSES
from geocrodino.phrases import arguments, listed
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.labels import LabelRules, is_colour, plain_word
from geocrodino.spelling import did_you_mean

_KEYS = ("fid", "id", "objectid", "ogc_fid", "gid")
"""Columns that number the rows, in small letters."""


@dataclass(frozen=True)
class Shapes:
    """Shapes with a class, in the order in which they are drawn.

    Attributes:
        shapes: Valid polygons, lines and points of any number of parts, object, shape (N,).
        values: Class value of each, or position of its class in ``names``, float32, shape (N,).
        crs: CRS of the coordinates.
        names: Names of the classes; None: the values are class values.
        shown: Colour of each of these classes, or None.
        column: Column of the classes.
        source: What was read first, for advice on its place.
        notes: What was repaired or left out, in sentences.
    """

    shapes: NDArray[np.object_]
    values: NDArray[np.float32]
    crs: pyproj.CRS
    names: tuple[str, ...] | None
    shown: tuple[str | None, ...]
    column: str
    source: AreaSource
    notes: tuple[str, ...]

    @cached_property
    def tree(self) -> shapely.STRtree:
        """The boxes of the shapes, to find those near a place."""
        return shapely.STRtree(self.shapes)

    @cached_property
    def thin(self) -> NDArray[np.intp]:
        """Positions of the lines and points."""
        return np.flatnonzero(shapely.get_dimensions(self.shapes) < 2)

    @cached_property
    def polygon_bounds(self) -> NDArray[np.float64]:
        """Bounds of all polygons, minx, miny, maxx, maxy, float64, shape (4,); NaN without any."""
        return bounds_of(np.delete(self.shapes, self.thin))

    @cached_property
    def content(self) -> tuple[str, str]:
        """SHA-256, hexadecimal, of the coordinates and of the values."""
        wkb = b"".join(shapely.to_wkb(self.shapes).tolist())
        return hashlib.sha256(wkb).hexdigest(), hashlib.sha256(self.values.tobytes()).hexdigest()


def bounds_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Bounds of all shapes together.

    Args:
        shapes: Shapes, object, shape (N,).

    Returns:
        minx, miny, maxx, maxy, float64, shape (4,); NaN without any.
    """
    return np.asarray(shapely.total_bounds(shapes) if len(shapes) else np.full(4, np.nan), np.float64)


_KEPT: ContextVar[dict[str, Shapes] | None] = ContextVar("kept shapes", default=None)
_MOST_KEPT = 8  # files of shapes that are kept at a time


@contextmanager
def shapes_kept() -> Iterator[None]:
    """Keep the shapes of the last files that are read inside the block: many scenes may share one file.

    Files must not change inside the block. A block inside another one shares its shapes.

    Yields:
        Nothing.
    """
    with kept_inside(_KEPT):
        yield


def read_shapes(
    files: Sequence[str],
    rules: LabelRules,
    *,
    crs: str | None,
    ignored: frozenset[int] = frozenset(),
    recoded: dict[int, int] | None = None,
) -> Shapes:
    """Read the shapes of vector files, or take those that `shapes_kept` keeps.

    Args:
        files: Files, archives or URLs; several are read as one, in the CRS of the first.
        rules: Column, layer, table and order.
        crs: CRS of files that state none; None: not given.
        ignored: Numbers that are no label, where no table is given.
        recoded: Class value of numbers, where no table is given.

    Returns:
        The shapes.

    Raises:
        LabelError: If a file cannot be read, has no such column or layer, or holds no shape with a class; or a code
            stands in no class of the table.
        AccessError: If a file cannot be accessed.
    """
    kept = _KEPT.get()
    if kept is None:
        return _read_shapes(files, rules, crs, ignored, recoded or {})
    key = repr((tuple(files), rules.model_dump_json(), crs, sorted(ignored), sorted((recoded or {}).items())))
    if key not in kept:
        found = _read_shapes(files, rules, crs, ignored, recoded or {})
        for oldest in list(kept)[: max(0, len(kept) + 1 - _MOST_KEPT)]:
            del kept[oldest]
        kept[key] = found
    return kept[key]


def _read_shapes(
    files: Sequence[str], rules: LabelRules, crs: str | None, ignored: frozenset[int], recoded: dict[int, int]
) -> Shapes:
    try:
        read = [_read(file, rules, crs) for file in files]
    except AOIError as error:
        raise LabelError(str(error)) from error
    source, column = read[0][1], read[0][2]
    frames = [frame.rename(columns={other: column}) for frame, _, other in read]
    frames = [frames[0], *(frame.to_crs(frames[0].crs) for frame in frames[1:])]
    frame = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=frames[0].crs) if len(frames) > 1 else frames[0]
    name = source.text if len(files) == 1 else f"{source.text} and {len(files) - 1} more"
    rank = _rank(frame, rules, name)
    classes = _classes(frame[column], rules, ignored, recoded, f"{name}: column {column}")
    shapes, notes = _repaired(np.asarray(frame.geometry.values, object), name)
    return _ordered(frame, shapes, classes, rank, column, source, name, notes)


@dataclass(frozen=True)
class _Classes:
    values: NDArray[np.float32]  # NaN without a label
    unlabelled: int  # rows without a class
    names: tuple[str, ...] | None
    shown: tuple[str | None, ...]


def _ordered(
    frame: gpd.GeoDataFrame,
    shapes: NDArray[np.object_],
    classes: _Classes,
    rank: NDArray[np.float64] | None,
    column: str,
    source: AreaSource,
    name: str,
    notes: list[str],
) -> Shapes:
    """Put repaired shapes in the order in which they are drawn: the smaller, or the higher rank, later."""
    there = ~shapely.is_missing(shapes)
    if not there.any():
        raise LabelError(
            f"{name}: holds no polygon, line or point that can be drawn.{_sentences(notes)}\n"
            "Repair the shapes, for instance with Fix geometries in QGIS, or export them again with their geometries."
        )
    kept = there & np.isfinite(classes.values)
    if not kept.any():
        raise LabelError(f"{name}: no shape has a class: column {column} holds none, or only codes that are ignored.")
    if classes.unlabelled:
        notes.append(f"{_rows(classes.unlabelled, len(frame))} have no class in column {column}, and label nothing")
    shapes = shapes[kept]
    height = -shapely.area(shapes) if rank is None else np.nan_to_num(rank[kept], nan=-np.inf)
    order = np.argsort(height, kind="stable")
    return Shapes(
        shapes[order],
        classes.values[kept][order],
        cast("pyproj.CRS", frame.crs),
        classes.names,
        classes.shown,
        column,
        source,
        tuple(notes),
    )


def _read(file: str, rules: LabelRules, crs: str | None) -> tuple[gpd.GeoDataFrame, AreaSource, str]:
    """Rows of a file with their CRS, what was read, and the column of classes."""
    source = label_source(file, rules.layer)
    layers = columns_by_layer(source)
    layer = _layer(source, layers, rules.column)
    raw = read_source(label_source(file, layer))
    frame = with_crs(raw, crs if raw.crs is None else None)
    column = _column(frame, rules.column, source.text)
    return frame, raw.source, column


def _layer(source: AreaSource, layers: dict[str, tuple[str, ...]], column: str | None) -> str:
    """The layer that is named, the only one, or the only one with the column."""
    if isinstance(source.layer, int):
        if source.layer >= len(layers):
            raise LabelError(f"{source.text}: no such layer. Expected one of {', '.join(layers)}.")
        return tuple(layers)[source.layer]
    if source.layer is not None:
        if source.layer not in layers:
            raise LabelError(
                f"{source.text}: data.label_rules.layer: no layer {source.layer!r}. Expected one of "
                f"{', '.join(layers)}.{did_you_mean(source.layer, layers)}"
            )
        return source.layer
    asked = len(layers) > 1 and column is not None
    fitting = [layer for layer, columns in layers.items() if column in columns] if asked else list(layers)
    if len(fitting) == 1:
        return fitting[0]
    if not layers:
        raise LabelError(f"{source.text}: holds no polygon, line or point.")
    with_it = "" if column is None else f" with a column {column!r}"
    raise LabelError(
        f"{source.text}: expected one layer{with_it}, found {len(fitting)} of {len(layers)}: {', '.join(layers)}.\n"
        f"Name one, for instance: {arguments(labels=f'{source.text}|layername={next(iter(layers))}')}"
    )


def _column(frame: gpd.GeoDataFrame, wanted: str | None, name: str) -> str:
    """The column of classes: the one that is named, or the only one."""
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    if wanted is not None:
        if wanted in columns:
            return wanted
        known = listed(columns, most=12) or "none"
        hint = did_you_mean(wanted, columns)
        raise LabelError(f"{name}: data.label_rules.column: no column {wanted!r}. Expected one of {known}.{hint}")
    of_splits = set(columns_of_splits(frame.drop(columns=frame.geometry.name)))
    attributes = [column for column in columns if column.lower() not in _KEYS and column not in of_splits]
    if len(attributes) == 1:
        return attributes[0]
    if not columns:
        plain = Path(name)
        if plain.suffix.lower() == ".shp" and exists(plain) and not exists(plain.with_suffix(".dbf")):
            raise LabelError(f"{name}: expected its columns in {plain.with_suffix('.dbf').name}, found no such file.")
        raise LabelError(f"{name}: expected a column of classes, found no column. Give each shape a class first.")
    shown = attributes or columns
    described = "\n".join(f"  {column}: {_content(frame[column])}" for column in shown[:12])
    example = next((c for c in shown if any(word in c.lower() for word in ("class", "label", "land"))), shown[0])
    raise LabelError(
        f"{name}: expected the name of the column that holds the class of each shape, found {len(shown)} columns:\n"
        f"{described}\nName one, for instance: {arguments(label_column=example)}"
    )


def _content(column: pd.Series) -> str:
    found = column.dropna().unique()
    if len(found) == 1:
        return f"one value, {found[0]}"
    return f"{len(found)} different values, such as {listed(found[:3])}" if len(found) else "empty"


def _classes(
    column: pd.Series, rules: LabelRules, ignored: frozenset[int], recoded: dict[int, int], where: str
) -> _Classes:
    """The class of each row."""
    numbers = _numbers(column)
    missing = _missing(column)
    if rules.table:
        return _by_table(column, numbers, missing, rules, where)
    left_out = {c for c in rules.ignore if isinstance(c, int)} | ignored
    if numbers is not None:
        values = numbers.copy()
        values[np.isin(numbers, list(left_out))] = np.nan
        for before, after in recoded.items():
            values[numbers == before] = after
        _require_class_values(values, where)
        return _Classes(values.astype(np.float32), int(missing.sum()), None, ())
    if ignored or recoded:
        raise LabelError(
            f"{where}: expected numbers for `ignore_values` and `label_values`, found words such as "
            f"{listed(column.dropna().unique()[:3])}.\nUse `data.label_rules.ignore` and `data.label_rules.table`."
        )
    return _by_words(column, missing, {plain_word(c) for c in rules.ignore if isinstance(c, str)}, where)


def _missing(column: pd.Series) -> NDArray[np.bool_]:
    """Rows without a code: null, or text of blanks."""
    return np.array([bool(pd.isna(code)) or not str(code).strip() for code in column], bool)


def _numbers(column: pd.Series) -> NDArray[np.float64] | None:
    """The codes as numbers, NaN where missing; None if some are words."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    text = column.dropna().astype(str).str.strip()
    if not len(text) or not text[text != ""].str.fullmatch(r"[+-]?\d+").all():
        return None
    return np.array([np.nan if gone else float(word) for gone, word in zip(_missing(column), column, strict=True)])


def _require_class_values(values: NDArray[np.float64], where: str) -> None:
    """Refuse numbers that a map cannot hold, offering them as a table."""
    found = np.unique(values[np.isfinite(values)])
    wrong = found[(found % 1 != 0) | (found < 0) | (found > MOST_CLASSES)]
    if not wrong.size:
        return
    told = f"{where}: expected whole class values from 0 to {MOST_CLASSES}, found {listed(f'{v:g}' for v in wrong)}."
    if (found % 1 != 0).any() or len(found) > MOST_CLASSES:
        raise LabelError(f"{told}\nThis looks like measurements or a number for each shape: name another column.")
    codes = [(f"class {int(v)}", int(v)) for v in found]
    raise LabelError(f"{told}\nName the class of each in the configuration:\n{as_yaml(codes)}")


def _by_table(
    column: pd.Series,
    numbers: NDArray[np.float64] | None,
    missing: NDArray[np.bool_],
    rules: LabelRules,
    where: str,
) -> _Classes:
    table = CodeTable.of(rules)
    codes: list[Any] = [
        None if gone else int(number) if number is not None and number % 1 == 0 else str(text).strip()
        for gone, number, text in zip(
            missing, [None] * len(column) if numbers is None else numbers.tolist(), column, strict=True
        )
    ]
    known: dict[Any, int | None] = {}
    for code in dict.fromkeys(codes):
        known[code] = table.numbers.get(code) if isinstance(code, int) else None
        if code is not None and known[code] is None:
            known[code] = table.words.get(plain_word(str(code)))
    unknown = [code for code in known if code is not None and known[code] is None]
    if unknown:
        rows = sum(code in set(unknown) for code in codes)
        hint = did_you_mean(unknown[0], [str(c) for codes in rules.table.values() for c in codes] + list(rules.table))
        raise LabelError(
            f"{where}: {_rows(rows, len(codes))} hold codes that stand in no class of `data.label_rules.table`: "
            f"{listed(unknown, most=8)}. Expected one of {listed(_expected(rules), most=12)}.{hint}\n"
            f"Write them under a class, or under `data.label_rules.ignore`: "
            f"ignore: [{', '.join(map(str, unknown[:24]))}]"
        )
    values = np.array([np.nan if known[c] in (None, IGNORE_INDEX) else known[c] for c in codes], np.float32)
    return _Classes(values, int(missing.sum()), table.names, table.shown)


def _expected(rules: LabelRules) -> list[int | str]:
    """The codes of a table that a column can hold."""
    codes = [code for name, codes in rules.table.items() for code in (*codes, name) if not is_colour(code)]
    return list(dict.fromkeys(codes))


def _by_words(column: pd.Series, missing: NDArray[np.bool_], ignored: set[str], where: str) -> _Classes:
    """Classes named after the words of a column, in alphabetical order; capitals and blanks make no other class."""
    words = [None if gone else plain_word(str(text)) for gone, text in zip(missing, column, strict=True)]
    spellings: dict[str, Counter[str]] = {}
    for word, text in zip(words, column, strict=True):
        if word is not None and word not in ignored:
            spellings.setdefault(word, Counter())[str(text).strip()] += 1
    # The usual spelling names the class, the first in alphabetical order of equally frequent ones.
    written = {word: max(sorted(found), key=found.__getitem__) for word, found in spellings.items()}
    order = sorted(written)
    if len(order) > MOST_CLASSES:
        raise LabelError(
            f"{where}: expected at most {MOST_CLASSES} classes, found {len(order):,} different words, such as "
            f"{listed([written[w] for w in order[:3]])}.\nThis looks like a name for each shape: name another column."
        )
    place = {word: float(position) for position, word in enumerate(order)}
    values = np.array([np.nan if word is None else place.get(word, np.nan) for word in words], np.float32)
    return _Classes(values, int(missing.sum()), tuple(written[word] for word in order), ())


def _rank(frame: gpd.GeoDataFrame, rules: LabelRules, name: str) -> NDArray[np.float64] | None:
    """Height of each shape above the others; None: by area."""
    if rules.order == "area":
        return None
    if rules.order == "file":
        return np.arange(len(frame), dtype=np.float64)
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    if rules.order not in columns:
        raise LabelError(
            f"{name}: data.label_rules.order: no column {rules.order!r}. Expected area, file, or one of "
            f"{listed(columns, most=12)}.{did_you_mean(rules.order, ['area', 'file', *columns])}"
        )
    if not pd.api.types.is_numeric_dtype(frame[rules.order]):
        raise LabelError(
            f"{name}: data.label_rules.order: expected numbers in column {rules.order!r}, found "
            f"{_content(frame[rules.order])}.\nName a column of numbers, area or file."
        )
    found: NDArray[np.float64] = frame[rules.order].to_numpy(np.float64, na_value=np.nan)
    return found


def _repaired(shapes: NDArray[np.object_], name: str) -> tuple[NDArray[np.object_], list[str]]:
    """Valid shapes, None where nothing is left, and sentences with the numbers of rows that were changed."""
    total, notes = len(shapes), []
    shapes = shapely.force_2d(shapes)
    gone = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    finite = np.array([bool(np.isfinite(shapely.get_coordinates(shape)).all()) for shape in shapes], bool)
    found = np.array(shapes, object)
    found[gone | ~finite] = None
    invalid = ~shapely.is_missing(found) & ~shapely.is_valid(found)
    # The other method of GEOS, linework, leaves a hole where parts of a shape overlap.
    found[invalid] = shapely.make_valid(found[invalid], method="structure")
    drawn = shapely.get_dimensions(shapes) == 2
    for position in np.flatnonzero(drawn & ~shapely.is_missing(found)):
        found[position] = _polygons(found[position])
    flat = drawn & ~gone & finite & shapely.is_missing(found)
    for count, one in (
        (int((invalid & ~flat).sum()), "were invalid, and are repaired"),
        (int(flat.sum()), "have no area, and are left out"),
        (int(gone.sum()), "have no geometry, and are left out"),
        (int((~gone & ~finite).sum()), "have coordinates that are no numbers, and are left out"),
    ):
        if count:
            notes.append(f"{_rows(count, total)} {one}")
    return found, notes


def _polygons(shape: Any) -> Any:
    """The polygons of a geometry with an area, one geometry; None without any."""
    if shape.geom_type == "Polygon":
        return shape if shape.area > 0 else None
    parts = [part for part in shapely.get_parts(shape) if part.area > 0]
    flat = [piece for part in parts for piece in shapely.get_parts(part) if piece.geom_type == "Polygon"]
    return shapely.MultiPolygon(flat) if flat else None


def _rows(count: int, total: int) -> str:
    return f"{count:,} of {total:,} shapes"


def _sentences(notes: Sequence[str]) -> str:
    return "".join(f" {note[:1].upper()}{note[1:]}." for note in notes)
