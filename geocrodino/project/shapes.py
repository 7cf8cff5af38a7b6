"""Files of polygons, lines and points: labels with a column of classes, or areas of interest."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyproj

from geocrodino.errors import AOIError, ConfigError
from geocrodino.geo.areas.sources import columns_by_layer, label_source, read_source
from geocrodino.geo.areas.splits import columns_of_splits, split_column
from geocrodino.phrases import listed
from geocrodino.project.layers import Box, FoundLayers, Layer, degrees
from geocrodino.project.words import names_an_area

_MOST_CLASSES = 64
"""More different values than this are names or numbers of shapes."""

_KEYS = ("fid", "id", "objectid", "ogc_fid", "gid")
_CLASS_WORDS = (
    "class",
    "label",
    "landuse",
    "land_use",
    "landcover",
    "land_cover",
    "category",
    "type",
    "klasse",
    "lulc",
)


@dataclass(frozen=True)
class ClassColumn:
    """The column that holds the class of each shape.

    Attributes:
        column: Its name.
        layer: Layer of the file, where it has several.
        why: How it was found, as a phrase.
    """

    column: str
    layer: str | None
    why: str


def shape_layers(names: Sequence[str]) -> FoundLayers:
    """Find out which files of shapes are labels and which are areas of interest.

    Args:
        names: The files.

    Returns:
        A layer for each file.
    """
    found = FoundLayers()
    for name in names:
        try:
            layer = _shape_layer(name)
        except AOIError as error:
            found.refused[name] = str(error)
            continue
        if isinstance(layer, str):
            found.left_out[name] = layer
        else:
            found.layers.append(layer)
    found.layers = _without_copies(found)
    return found


def named_shapes(role: str, name: str) -> Layer:
    """Take shapes that the user names.

    Args:
        role: ``labels`` or ``aoi``.
        name: The file.

    Returns:
        The layer.

    Raises:
        AOIError: If the file cannot be read.
    """
    layers = columns_by_layer(label_source(name))
    frames = _frames(name, layers) if role == "labels" else {}
    labelled = [layer for layer, frame in frames.items() if _has_classes(frame)]
    box = _box(name, labelled or [next(iter(layers), None)])
    return Layer("labels" if role == "labels" else "aoi", (name,), "as named", box=box)


def class_column(name: str, wanted: str | None) -> ClassColumn:
    """Find the column of classes of a file of shapes.

    Args:
        name: The file.
        wanted: The column that the user names, or None.

    Returns:
        The column.

    Raises:
        ConfigError: If no column can hold classes, or several can.
        AOIError: If the file cannot be read.
    """
    layers = columns_by_layer(label_source(name))
    several = len(layers) > 1
    if wanted is not None:
        layer = next((each for each, columns in layers.items() if wanted in columns), None)
        return ClassColumn(wanted, layer if several else None, "as named")
    found: list[tuple[str, str, pd.Series]] = []
    described = []
    for layer, frame in _frames(name, layers).items():
        no_classes = {frame.geometry.name, *columns_of_splits(frame.drop(columns=frame.geometry.name))}
        columns = [str(c) for c in frame.columns if c not in no_classes and str(c).lower() not in _KEYS]
        described += [f"  {column}: {_content(frame[column])}" for column in columns]
        found += [(layer, column, frame[column]) for column in columns if _may_be_classes(frame[column])]
    if not found:
        there = "\n" + "\n".join(described[:12]) if described else " none"
        raise ConfigError(
            f"{name}: expected a column with the class of each shape, 2 to {_MOST_CLASSES} different words or whole "
            f"numbers; found columns:{there}\nName the column with `label_column`."
        )
    found, why = _preferred(found)
    if len(found) > 1:
        shown = "\n".join(f"  {column}: {_content(values)}" for _, column, values in found)
        raise ConfigError(
            f"{name}: {len(found)} columns may hold the class of each shape:\n{shown}\n"
            f"Name the right one: `label_column={found[0][1]!r}`."
        )
    layer, column, _ = found[0]
    return ClassColumn(column, layer if several else None, why)


def holds_classes(name: str) -> bool:
    """Find out whether shapes with a column of splits may be drawn labels as well.

    Args:
        name: The file.

    Returns:
        Whether a column whose name speaks of classes, such as ``landuse``, holds few different values.

    Raises:
        AOIError: If the file cannot be read.
    """
    frames = _frames(name, columns_by_layer(label_source(name))).values()
    return any(
        _may_be_classes(frame[column])
        for frame in frames
        for column in frame.columns
        if any(word in str(column).lower() for word in _CLASS_WORDS)
    )


def split_column_of(frame: gpd.GeoDataFrame, name: str) -> pd.Series | None:
    """Find the splits that a file names.

    Args:
        frame: Its rows.
        name: The file.

    Returns:
        The split of each row; None if no column holds splits alone.
    """
    if frame.empty:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return split_column(frame, name)
    except AOIError:
        return None


def _frames(name: str, layers: Sequence[str] | dict[str, tuple[str, ...]]) -> dict[str, gpd.GeoDataFrame]:
    return {layer: read_source(label_source(name, layer)).frame for layer in layers}


def _has_classes(frame: gpd.GeoDataFrame) -> bool:
    return any(_may_be_classes(frame[column]) for column in frame.columns if column != frame.geometry.name)


def _shape_layer(name: str) -> Layer | str:
    """The layer of a file of shapes, or why it is none."""
    layers = columns_by_layer(label_source(name))
    if not layers:
        return "no polygon, line or point"
    frames = _frames(name, layers)
    for layer, frame in frames.items():
        splits = split_column_of(frame, name)
        if splits is not None:
            counts = splits.dropna().value_counts(sort=False)
            told = ", ".join(f"{count} {split}" for split, count in counts.items())
            return Layer(
                "aoi", (name,), f"polygons with a column of splits: {told}", box=_box(name, [layer]), word="split"
            )
    labelled = {layer: frame for layer, frame in frames.items() if _has_classes(frame)}
    if labelled and not names_an_area(name):
        spread = f" in {len(labelled)} layers" if len(labelled) > 1 else ""
        why = f"{sum(map(len, labelled.values()))} shapes with attributes{spread}"
        return Layer("labels", (name,), why, box=_box(name, labelled))
    if names_an_area(name):
        return Layer("aoi", (name,), "polygons whose name speaks of an area", box=_box(name, list(frames)[:1]))
    return "shapes without a column of classes or splits"


def _without_copies(found: FoundLayers) -> list[Layer]:
    """Areas without those that lie beside a file of the same name in another format, or beside one with splits."""
    kept: list[Layer] = []
    for layer in found.layers:
        file = Path(layer.files[0])
        beside = [
            other
            for other in found.layers
            if other is not layer and other.role == layer.role and other.folder == layer.folder
        ]
        copy = [o for o in beside if Path(o.files[0]).stem == file.stem and o.why == layer.why and o.word == layer.word]
        if any(Path(o.files[0]).suffix == ".gpkg" for o in copy) and file.suffix != ".gpkg":
            found.left_out[layer.files[0]] = f"the same in another format as {file.stem}.gpkg"
        elif layer.role == "aoi" and not layer.word and any(o.word for o in beside):
            found.left_out[layer.files[0]] = "an area without splits, beside one with splits"
        else:
            kept.append(layer)
    return kept


def _box(name: str, layers: Iterable[str | None]) -> Box | None:
    """Where the shapes of layers lie, degrees; None if none of them has shapes in a known CRS."""
    boxes = [box for layer in layers if (box := _box_of(name, layer)) is not None]
    if not boxes:
        return None
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


def _box_of(name: str, layer: str | None) -> Box | None:
    raw = read_source(label_source(name, layer))
    if raw.frame.empty:
        return None
    crs = pyproj.CRS("EPSG:4326") if raw.crs is None and Path(name).suffix.lower() in {".geojson", ".json"} else raw.crs
    return None if crs is None else degrees(tuple(raw.frame.total_bounds), crs.to_wkt())


def _may_be_classes(column: pd.Series) -> bool:
    """Whether a column holds from 2 to 64 different words or whole numbers, and fewer than rows."""
    values = column.dropna()
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return False
    if pd.api.types.is_float_dtype(values) and (values % 1 != 0).any():
        return False
    different = values.astype(str).str.strip().nunique()
    few = len(values) <= 2 * different and len(values) > 8
    return 2 <= different <= _MOST_CLASSES and not few


def _preferred(found: list[tuple[str, str, pd.Series]]) -> tuple[list[tuple[str, str, pd.Series]], str]:
    """The columns that are as good as each other: words before their codes, and those whose names speak of classes."""
    if len(found) == 1:
        return found, "the only column with few different values"
    words = [each for each in found if not pd.api.types.is_numeric_dtype(each[2])]
    if len(words) == 1 and all(_says_the_same(words[0][2], values) for _, _, values in found):
        return words, "words for the numbers of the other columns"
    called = [each for each in found if any(word in each[1].lower() for word in _CLASS_WORDS)]
    if len(called) == 1:
        return called, "the only one of the columns with few different values whose name speaks of classes"
    both = [each for each in words if each in called]
    if len(both) == 1 and all(_says_the_same(both[0][2], values) for _, _, values in called):
        return both, "words for the numbers of the other columns"
    return (called or found), ""


def _says_the_same(words: pd.Series, values: pd.Series) -> bool:
    pairs = pd.DataFrame({"w": words, "v": values}).dropna().drop_duplicates()
    return bool(pairs["w"].is_unique and pairs["v"].is_unique)


def _content(column: pd.Series) -> str:
    found = column.dropna().unique()
    if len(found) == 1:
        return f"one value, {found[0]}"
    return f"{len(found)} different values, such as {listed(found[:3])}" if len(found) else "empty"
