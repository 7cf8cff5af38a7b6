"""Layers of a project: files of one folder that hold the same, and what they seem to be."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import ProjError

from geocrodino.errors import GeocrodinoError, RasterError
from geocrodino.files.access import full_path
from geocrodino.geo.labels.categories import read_categories
from geocrodino.geo.rasters.grid import crs_of, describe
from geocrodino.geo.rasters.headers import header, read_ahead
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.opening import opened
from geocrodino.geo.rasters.place import Place, is_placeless
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.window import Window, spread_windows
from geocrodino.modalities.few_values import few_values
from geocrodino.phrases import listed
from geocrodino.project.words import word_of

Box = tuple[float, float, float, float]
"""West, south, east and north, degrees."""

Role = Literal["optical", "elevation", "ground", "labels", "aoi"]

_LOOK_PX = 256
_FEW_COLOURS = 32
_SAME_PLACE = 0.5  # share of the smaller one from which two files show the same place
_COMMON_PLACE = 0.1  # share of the smaller one from which two layers may belong to one scene
_MANY_FOLDERS = 8  # layers of one kind in as many folders are one layer in folders
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Layer:
    """Files that hold the same layer of one place, or tiles of it.

    Attributes:
        role: What they seem to be.
        files: Their names; one for shapes.
        why: How that is known, as a phrase.
        raster: The raster that they form; None for shapes, and for tiles without a common raster.
        first: The first file of rasters; None for shapes.
        box: West, south, east and north in degrees; None where there is no place.
        above: Whether heights count from the ground.
        word: What of the name says the role; empty where it says nothing.
    """

    role: Role
    files: tuple[str, ...]
    why: str
    raster: RasterSource | None = None
    first: RasterSource | None = None
    box: Box | None = None
    above: bool = False
    word: str = ""

    @property
    def shown(self) -> str:
        """A name for messages."""
        if len(self.files) == 1:
            return self.files[0]
        return f"{Path(self.files[0]).parent} ({len(self.files)} files such as {Path(self.files[0]).name})"

    @property
    def folder(self) -> Path:
        """The folder of the first file."""
        return Path(self.files[0]).parent


@dataclass
class FoundLayers:
    """Layers, and files that are none.

    Attributes:
        layers: The layers.
        refused: Why a raster cannot be read, by its name.
        left_out: Why a file that can be read is no layer, by its name.
    """

    layers: list[Layer] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def raster_layers(names: Sequence[str], place: Place | None) -> FoundLayers:
    """Find out what rasters are, and which of them belong together. Call it inside `headers_kept`.

    Args:
        names: The files.
        place: CRS and pixel size of files that state none.

    Returns:
        A layer for the files of each folder that are alike, and show no place twice.
    """
    found, read = FoundLayers(), set[str]()
    for name, inside in _read_through(names).items():
        more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
        found.left_out[f"{inside[0]}{more}"] = f"read through {Path(name).name}"
        read.update(inside)
    names = [name for name in names if name not in read]
    read_ahead(names, place)
    groups: dict[tuple[str, ...], list[RasterSource]] = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                raster = header(name, place)
        except RasterError as error:
            found.refused[name] = str(error)
            continue
        if raster.is_map:
            found.left_out[name] = "a map that geocrodino made"
            continue
        folder, stem = str(Path(name).parent), _DIGITS.sub("#", Path(name).stem.lower())
        groups.setdefault(
            (folder, stem, str(len(raster.data_bands)), raster.dtype, str(raster.has_palette)), []
        ).append(raster)
    alike: dict[tuple[object, ...], list[tuple[Layer, list[RasterSource]]]] = {}
    for (folder, *_), rasters in groups.items():
        bands, dtype = len(rasters[0].data_bands), rasters[0].dtype
        try:
            told = _role(rasters)
        except GeocrodinoError as error:
            found.refused[rasters[0].name] = str(error)
            continue
        if told.role is None:
            found.left_out.update({raster.name: told.why for raster in rasters})
            continue
        layer = Layer(told.role, (), told.why, above=told.above, word=told.word)
        alike.setdefault((folder, told.role, told.above, bands, dtype), []).append((layer, rasters))
    for parts in alike.values():
        found.layers += [_joined(layer, rasters, place) for layer, rasters in _separated(parts)]
    found.layers = _over_folders(found.layers, place)
    return found


def _read_through(names: Sequence[str]) -> dict[str, list[str]]:
    """Find the named files that each named VRT reads: they are its tiles or its bands, and no layers of their own."""
    virtual = [name for name in names if name.lower().endswith(".vrt")]
    places = {full_path(name): name for name in names} if virtual else {}
    found = {}
    for name in virtual:
        try:
            with opened(name) as dataset:
                parts = {places.get(full_path(file), name) for file in dataset.files[1:]}
        except RasterError:  # told when its header is read
            continue
        if inside := sorted(parts - {name}):
            found[name] = inside
    return found


def named_layer(role: Role, name: str | Path, place: Place | None) -> Layer:
    """Open a raster that the user names for a role.

    Args:
        role: The role.
        name: A file, folder, pattern or list, as `open_scene` takes it.
        place: CRS and pixel size of files that state none.

    Returns:
        The layer, with the name as its only file.

    Raises:
        RasterError: If it cannot be opened.
        AccessError: If the operating system does not let it be looked up or read.
    """
    raster = open_scene(name, place=place)
    first = raster.member(0) if isinstance(raster, MosaicSource) else raster
    said = word_of(first.name) if role == "elevation" else None
    above = said is not None and said[0] == "above"
    return Layer(role, (str(name),), "as named", raster, first, box_of(raster), above=above)


def box_of(raster: RasterSource) -> Box | None:
    """Compute where a raster lies.

    Args:
        raster: The raster.

    Returns:
        West, south, east and north, degrees, of its celestial body; None without a place.
    """
    if is_placeless(raster.geobox):
        return None
    return degrees(raster.geobox.boundingbox.bbox, crs_of(raster.geobox).wkt)


def degrees(bounds: Sequence[float], crs: str) -> Box | None:
    """Transform a box to degrees.

    Args:
        bounds: Left, bottom, right and top.
        crs: Their CRS.

    Returns:
        West, south, east and north; None where the CRS has no position on the ellipsoid.
    """
    own = pyproj.CRS.from_user_input(crs)
    if own.geodetic_crs is None:
        return None
    try:
        to_degrees = pyproj.Transformer.from_crs(own, own.geodetic_crs, always_xy=True)
        left, bottom, right, top = bounds
        west, south, east, north = to_degrees.transform_bounds(left, bottom, right, top, densify_pts=21)
    except ProjError:
        return None
    return float(west), float(south), float(east), float(north)


def share_place(first: Layer, second: Layer) -> bool:
    """Find out whether two layers show a common place.

    Args:
        first: A layer.
        second: Another one.

    Returns:
        Whether their boxes share a tenth of the smaller one; True where one of them has no place. Neighbours touch,
        and overlap a little in degrees.
    """
    return first.box is None or second.box is None or _overlap(first.box, second.box) >= _COMMON_PLACE


def covers(wide: Layer, layer: Layer) -> bool:
    """Find out whether a layer shows most of the box of another one.

    Args:
        wide: The layer that may cover the other one.
        layer: The other one.

    Returns:
        Whether half of the box is covered; True where one of them has no place.
    """
    if wide.box is None or layer.box is None:
        return True
    box = shapely.box(*layer.box)
    return bool(shapely.box(*wide.box).intersection(box).area >= _SAME_PLACE * box.area)


def shows_same(first: Layer, second: Layer) -> bool:
    """Find out whether two layers show mostly the same place.

    Args:
        first: A layer.
        second: Another one.

    Returns:
        Whether their boxes share half of the smaller one; False where one of them has no place.
    """
    return first.box is not None and second.box is not None and _overlap(first.box, second.box) > _SAME_PLACE


def _overlap(first: Box, second: Box) -> float:
    """Share of the smaller of two boxes that the other one covers."""
    one, other = shapely.box(*first), shapely.box(*second)
    least = min(one.area, other.area)
    return float(one.intersection(other).area / least) if least else 0.0


# --- the role of a file ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Told:
    role: Role | None
    why: str
    above: bool = False
    word: str = ""


def bands_and_type(raster: RasterSource) -> str:
    """Describe the values of a raster in few words.

    Args:
        raster: The raster.

    Returns:
        Number of bands that hold data, and their type.
    """
    bands = len(raster.data_bands)
    return f"{bands} band{'' if bands == 1 else 's'} of {raster.dtype}"


def _role(rasters: Sequence[RasterSource]) -> _Told:
    """What files of one form are, from the bands and values of the first, and the names of all."""
    raster = rasters[0]
    said = word_of(raster.name)
    word, text = said if said is not None else (None, "")
    bands = len(raster.data_bands)
    kind = bands_and_type(raster)
    called = f", called {text}" if text else ""
    if bands >= 3:
        if word == "labels" and bands == 3 and raster.dtype == "uint8":
            return _Told("labels", f"colours{called}", word=text)
        if bands == 3 and raster.dtype == "uint8" and all(few_colours(each) for each in rasters[:3]):
            return _Told("labels", f"colours: at most {_FEW_COLOURS} different ones")
        return _Told("optical", kind + (called if word == "optical" else ""), word=text if word == "optical" else "")
    if bands == 2:
        if raster.dtype.startswith("float") or word in {"above", "ground", "surface", "heights"}:
            return _Told("elevation", f"two bands of heights{called}", word=text)
        return _Told(None, f"{kind}, which no layer has")
    return _role_of_one_band(rasters, kind, called, word, text)


def _role_of_one_band(rasters: Sequence[RasterSource], kind: str, called: str, word: str | None, text: str) -> _Told:
    raster = rasters[0]
    whole = not raster.dtype.startswith("float")
    if word in {"above", "ground", "surface", "heights"}:
        return _Told("ground" if word == "ground" else "elevation", kind + called, above=word == "above", word=text)
    if word == "labels":
        return _Told("labels", kind + called, word=text)
    if whole and (raster.has_palette or read_categories(raster.path, raster.data_bands[0]).names):
        return _Told("labels", f"{kind} with {'a table of colours' if raster.has_palette else 'names of its values'}")
    counts = [few_values(each) for each in rasters[:3]]
    if whole and max(counts) and min(counts):
        return _Told("labels", f"{kind}, {max(counts)} different values")
    if word == "optical" and whole:
        return _Told("optical", kind + called, word=text)
    return _Told("elevation", f"{kind}, values that are no classes")


def few_colours(raster: RasterSource) -> bool:
    """Find out whether three bands hold as few colours as pictures of classes do.

    Args:
        raster: A raster with three data bands of 8 bits.

    Returns:
        Whether nine windows of at most 256 x 256 px, spread over it, hold at most 32 different colours.

    Raises:
        RasterError: If it cannot be read.
    """
    seen: set[int] = set()
    for window in look_windows(raster):
        values, valid = raster.read_own(window, raster.data_bands[:3])
        red, green, blue = np.where(valid, values, 0).astype(np.int64)
        seen |= set(np.unique(red << 16 | green << 8 | blue).tolist())
        if len(seen) > _FEW_COLOURS:
            return False
    return True


def look_windows(raster: RasterSource) -> list[Window]:
    """Choose windows to look at.

    Args:
        raster: A raster.

    Returns:
        At most nine windows of at most 256 x 256 px, spread over it.
    """
    return spread_windows(raster.geobox.shape, _LOOK_PX)


# --- files that belong together -------------------------------------------------------------------------------------


def _separated(parts: list[tuple[Layer, list[RasterSource]]]) -> list[tuple[Layer, list[RasterSource]]]:
    """Files of one folder and kind as one layer, or as several where some of them show the same place."""
    first = parts[0][0]
    everything = [raster for _, rasters in parts for raster in rasters]
    if len(everything) == 1 or not _show_twice(everything):
        return [(first, everything)]
    if len(parts) > 1 and not any(_show_twice(rasters) for _, rasters in parts):
        return parts
    if len(everything) <= _MANY_FOLDERS:
        return [(layer, [raster]) for layer, rasters in parts for raster in rasters]
    return parts  # many images of one place: their names may still say which tile each is of


def _show_twice(rasters: Sequence[RasterSource]) -> bool:
    """Whether two of several files with a place show the same one."""
    boxes = [shapely.box(*box) for raster in rasters if (box := box_of(raster)) is not None]
    if len(boxes) < 2:
        return False
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    for i, k in zip(one.tolist(), other.tolist(), strict=True):
        if i < k and boxes[i].intersection(boxes[k]).area > _SAME_PLACE * min(boxes[i].area, boxes[k].area):
            return True
    return False


def _joined(layer: Layer, rasters: Sequence[RasterSource], place: Place | None) -> Layer:
    """A layer of its files, with the raster that they form if they form one."""
    names = tuple(raster.name for raster in rasters)
    raster: RasterSource | None = rasters[0]
    if len(names) > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                raster = open_scene(names, place=place)
        except RasterError:
            raster = None
    boxes = [box for each in rasters if (box := box_of(each)) is not None]
    box = None
    if boxes:
        west, south, east, north = zip(*boxes, strict=True)
        box = (min(west), min(south), max(east), max(north))
    return replace(layer, files=names, raster=raster, first=rasters[0], box=box)


def _over_folders(layers: list[Layer], place: Place | None) -> list[Layer]:
    """Join layers of one kind that lie in many folders, as tiles often do."""
    kinds: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        form = None if layer.first is None else (len(layer.first.data_bands), layer.first.dtype)
        kinds.setdefault((layer.role, layer.above, form, layer.folder.name), []).append(layer)
    found: list[Layer] = []
    for same in kinds.values():
        folders = {layer.folder for layer in same}
        if len(folders) < _MANY_FOLDERS or len(folders) < len(same):
            found += same
        else:
            rasters = [header(file, place) for layer in same for file in layer.files]
            found.append(_joined(replace(same[0], files=()), rasters, place))
    return found


def alone(layer: Layer, place: Place | None) -> list[Layer]:
    """Take each file of a layer as a layer of its own.

    Args:
        layer: A layer of rasters.
        place: CRS and pixel size of files that state none.

    Returns:
        A layer for each file.
    """
    return [_joined(replace(layer, files=()), [header(file, place)], place) for file in layer.files]


def describe_layer(layer: Layer) -> str:
    """Describe the rasters of a layer.

    Args:
        layer: A layer of rasters.

    Returns:
        Number of files, bands, names of bands and grid, in one phrase.
    """
    first = layer.first
    if first is None:
        return layer.why
    names = [band.name for band in (first.bands[n - 1] for n in first.data_bands) if band.name]
    named = f" ({listed(names, 8)})" if len(names) == len(first.data_bands) and len(names) > 1 else ""
    count = f"{len(layer.files)} files, " if len(layer.files) > 1 else ""
    bands = f"{len(first.data_bands)} band{'' if len(first.data_bands) == 1 else 's'} {first.dtype}{named}"
    return f"{count}{bands}, {describe(first.geobox if layer.raster is None else layer.raster.geobox)}"


def by_role(layers: Iterable[Layer]) -> Mapping[Role, list[Layer]]:
    """Sort layers by role.

    Args:
        layers: The layers.

    Returns:
        Those of each role that has any, in their order.
    """
    found: dict[Role, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.role, []).append(layer)
    return found
