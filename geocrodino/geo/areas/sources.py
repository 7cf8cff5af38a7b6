"""Sources of an area of interest: files, archives and URLs, bounding boxes, and geometries given as text."""

from __future__ import annotations

import json
import re
import shlex
import tarfile
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import geopandas as gpd
import pandas as pd
import pyogrio
import pyproj
import rasterio
import shapely
from pyproj.exceptions import CRSError
from rasterio.errors import RasterioError

from geocrodino.errors import AccessError, AOIError, AreaWarning
from geocrodino.files.access import is_file, is_folder, look_up
from geocrodino.files.area_names import box_numbers, is_geojson, is_wkt
from geocrodino.files.names import URL_PREFIXES, gdal_name, is_url, local_archive, vsi_name
from geocrodino.geo.areas.text import box_option, read_box, read_geojson, read_wkt, swapped_text
from geocrodino.phrases import arguments, listed

EXPECTED = "Expected a file of polygons, a bounding box minx,miny,maxx,maxy, or a geometry as WKT or GeoJSON."

_SHOWN_CHARACTERS = 40
_GEOJSON = "GeoJSON without a member 'crs' is in"
_VECTOR_SUFFIXES = (".shp", ".gpkg", ".geojson", ".json", ".fgb", ".kml", ".gml", ".gpx", ".csv", ".tab", ".sqlite")
_READ_ERRORS = (RuntimeError, ValueError, OSError, shapely.errors.ShapelyError, CRSError)

Kind = Literal["box", "wkt", "geojson", "file"]


@dataclass(frozen=True)
class AreaSource:
    """What a user names as an area of interest.

    Attributes:
        text: As it was given.
        kind: A bounding box, a geometry as text, or a file.
        gdal: The name under which GDAL opens a file.
        file: The local file that is read, an archive included; None for text and URLs.
        layer: The layer that the user names, or its number; None if none is named.
        role: The argument that names it: ``aoi``, or ``labels`` for shapes that are labels.
    """

    text: str
    kind: Kind
    gdal: str = ""
    file: Path | None = None
    layer: str | int | None = None
    role: str = "aoi"

    @property
    def label(self) -> str:
        """What messages call it."""
        if self.kind == "file":
            return self.text
        if self.kind == "box":
            return f"bounding box {self.text}"
        short = " ".join(self.text.split())
        return short if len(short) <= _SHOWN_CHARACTERS else f"{short[:_SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class RawArea:
    """What a source holds.

    Attributes:
        source: What was read, a file with the layer that was chosen.
        frame: Rows as they are in the source.
        crs: CRS that the source names, None if it names none.
        crs_is: Why that is its CRS, for messages, for instance ``the file states``.
    """

    source: AreaSource
    frame: gpd.GeoDataFrame
    crs: pyproj.CRS | None
    crs_is: str


def area_source(source: str | Path) -> AreaSource:
    """Recognise what a user names: a bounding box, a geometry as text, or a file.

    Args:
        source: A path, a URL, or text, see `geocrodino.geo.areas.aoi.read_aoi`.

    Returns:
        What it is; nothing is opened.

    Raises:
        AOIError: If it is a URL of an unknown kind, or options behind a file name are unknown.
        AccessError: If the file system does not say whether there is such a file.
    """
    text = gdal_name(source) if isinstance(source, Path) else source.strip()
    if not text:
        raise AOIError(f"the area of interest is empty. {EXPECTED}")
    numbers = box_numbers(text)
    if numbers is not None and (len(numbers) == 4 or look_up(text) is None):
        return AreaSource(text, "box")
    if is_geojson(text):
        return AreaSource(text, "geojson")
    if is_wkt(text):
        return AreaSource(text, "wkt")
    return _file_source(text)


def read_source(source: AreaSource) -> RawArea:
    """Read the rows of a source.

    Args:
        source: What `area_source` recognised.

    Returns:
        Rows, CRS and where the CRS comes from.

    Raises:
        AOIError: If there is no such file, it cannot be read, or it does not say which layer is meant.
        AccessError: If it cannot be accessed.
    """
    if source.kind == "box":
        return RawArea(source, gpd.GeoDataFrame(geometry=[read_box(source.text)]), None, "")
    if source.kind == "wkt":
        frame, crs = read_wkt(source.text, source.label)
        return RawArea(source, frame, crs, "the text states")
    if source.kind == "geojson":
        frame, named = read_geojson(source.text, source.label)
        return RawArea(source, frame, frame.crs, "the text states" if named else _GEOJSON)
    return _read_file(source)


def label_source(name: str, layer: str | None = None) -> AreaSource:
    """Name a file of shapes that are labels.

    Args:
        name: A file, an archive or a URL; a layer may be named as QGIS does.
        layer: The layer, where it is named apart.

    Returns:
        What it is; nothing is opened.

    Raises:
        AOIError: If it is a URL of an unknown kind, or options behind a file name are unknown.
        AccessError: If the file system does not say whether there is such a file.
    """
    found = _file_source(name)
    return replace(found, layer=found.layer if layer is None else layer, role="labels")


def columns_by_layer(source: AreaSource) -> dict[str, tuple[str, ...]]:
    """List the layers of a file that hold shapes.

    Args:
        source: The file.

    Returns:
        Names of the columns of each layer, without the geometry.

    Raises:
        AOIError: If there is no such file, or it cannot be read.
        AccessError: If it cannot be accessed.
    """
    if source.file is not None:
        _require_content(source.file, source.text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)
            name = _openable(source)
            layers = [str(n) for n, kind in pyogrio.list_layers(name) if kind is not None and not pd.isna(kind)]
            return {layer: tuple(pyogrio.read_info(name, layer=layer)["fields"].tolist()) for layer in layers}
    except _READ_ERRORS as error:
        raise AOIError(_why_unreadable(source, error)) from error


def swapped_option(source: AreaSource) -> str:
    """Tell a user how to exchange x and y of a source.

    Args:
        source: The source.

    Returns:
        A sentence with an option of the command line, or with a command that writes another file.
    """
    if source.kind == "box":
        x0, y0, x1, y1 = box_numbers(source.text) or []
        return f"Exchange them: {box_option(y0, x0, y1, x1)}"
    if source.kind != "file":
        text = swapped_text(source.text)
        return "Exchange them in the text." if text is None else f"Exchange them: {arguments(aoi=text)}"
    layer = "" if source.layer is None else f", layer={json.dumps(source.layer)}"
    code = (
        f"import geopandas, shapely; a = geopandas.read_file({json.dumps(source.gdal)}{layer}); "
        'a.set_geometry(shapely.transform(a.geometry.values, lambda c: c[:, ::-1]), crs=a.crs).to_file("areas-xy.gpkg")'
    )
    what = "area" if source.role == "aoi" else source.role
    return f"Exchange them in a copy, and take areas-xy.gpkg as the {what}: python -c {shlex.quote(code)}"


def _file_source(text: str) -> AreaSource:
    name, layer = text, None
    if "|" in text and (is_url(text) or text.startswith("/vsi") or look_up(text) is None):
        name, layer = _named_layer(text)
    if is_url(name):
        found = vsi_name(name)
        if found is None:
            raise AOIError(
                f"{text}: not a URL that can be read. Expected one of {', '.join(URL_PREFIXES)}.\n"
                "Download the file, and name the copy."
            )
        if found.startswith(tuple(URL_PREFIXES.values())):
            return AreaSource(
                text, "file", f"/vsizip/{found}" if found.lower().endswith(".zip") else found, None, layer
            )
        name = found
    if not name.startswith("/vsi"):
        packed = name.lower().endswith(".gz") and not name.lower().endswith(".tar.gz")
        return AreaSource(text, "file", f"/vsigzip/{name}" if packed else name, Path(name), layer)
    return AreaSource(text, "file", name, local_archive(name), layer)


def _named_layer(text: str) -> tuple[str, str | int]:
    """A file and its layer, written as QGIS does: ``file.gpkg|layername=areas`` or ``file.gpkg|layerid=0``."""
    name, _, options = text.partition("|")
    values = dict(o.partition("=")[::2] for o in options.split("|"))
    unknown = sorted(k for k in values if k.lower() not in {"layername", "layerid", "geometrytype"})
    chosen = {k.lower(): v for k, v in values.items()}
    if unknown or not {"layername", "layerid"} & chosen.keys():
        raise AOIError(f"{text}: expected the layer of a file as FILE|layername=NAME, found |{options}.")
    if "layername" in chosen:
        return name, chosen["layername"]
    if not chosen["layerid"].isdigit():
        raise AOIError(f"{text}: expected a number of a layer from 0, found layerid={chosen['layerid']}.")
    return name, int(chosen["layerid"])


def _read_file(source: AreaSource) -> RawArea:
    if source.file is not None:
        _require_content(source.file, source.text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # GDAL's advice for developers
            warnings.simplefilter("ignore", UserWarning)
            name = _openable(source)
            layer, note = _chosen_layer(source, name)
            info = pyogrio.read_info(name, layer=layer)
            frame = pyogrio.read_dataframe(name, layer=layer)
    except _READ_ERRORS as error:
        raise AOIError(_why_unreadable(source, error)) from error
    rows = int(info["features"])
    if len(frame) < rows:  # GDAL 3.12 reads no row of a FlatGeobuf in a tar archive
        raise AOIError(
            f"{source.text}: holds {rows} rows, but GDAL reads {len(frame)} of them. Unpack or copy the file."
        )
    if note:
        warnings.warn(note, AreaWarning, stacklevel=4)
    frame = _with_geometry(frame, source)
    read = replace(source, gdal=name, layer=layer)
    return RawArea(read, frame, _stated(frame.crs), _crs_is(source, str(info.get("driver", ""))))


def _require_content(path: Path, text: str) -> None:
    found = look_up(path)
    if found is None:
        raise AOIError(f"{text}: no such file. {EXPECTED}")
    if is_folder(path):
        return
    if found.st_size == 0:
        raise AOIError(f"{text}: the file is empty (0 bytes). Copy or download it again.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise AccessError.because(path, error) from error


def _openable(source: AreaSource) -> str:
    """The name that GDAL opens; of an archive, that of the only file of polygons in its folders."""
    try:
        pyogrio.list_layers(source.gdal)
    except _READ_ERRORS:
        inside = _archived(source)
        if not inside:
            raise
        if len(inside) == 1:
            return inside[0]
        some = listed(n.partition(f"{source.file}/")[2] for n in inside)
        raise AOIError(
            f"{source.text}: expected one file of polygons in the archive, found {len(inside)}: {some}.\n"
            f"Name one, for instance: {arguments(**{source.role: inside[0]})}"
        ) from None
    return source.gdal


def _archived(source: AreaSource) -> list[str]:
    """Files of polygons in the folders of a local archive, as GDAL names them; none if a file in it is named."""
    if source.file is None or _is_project(source.file):
        return []
    prefix, names = _contents(source.file)
    if source.gdal.rstrip("/") not in {str(source.file), f"{prefix}{source.file}"}:
        return []
    names = [n for n in names if not n.startswith("__MACOSX/")]
    files = [n for n in names if n.lower().endswith(_VECTOR_SUFFIXES) and ".gdb/" not in n]
    folders = sorted({n[: n.index(".gdb/") + 4] for n in names if ".gdb/" in n})
    return [f"{prefix}{source.file}/{n}" for n in (*files, *folders)]


def _contents(path: Path) -> tuple[str, list[str]]:
    """How GDAL names a local archive, and what it holds; nothing if it is none, or damaged."""
    if not is_file(path):
        return "", []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return "/vsizip/", archive.namelist()
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as packed:
                return "/vsitar/", packed.getnames()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError):
        pass
    return "", []


def _chosen_layer(source: AreaSource, name: str) -> tuple[str | int | None, str]:
    """The layer to read, and what the user should know about the choice."""
    listed = [(str(n), None if t is None or pd.isna(t) else str(t)) for n, t in pyogrio.list_layers(name)]
    names = [n for n, _ in listed]
    if source.layer is not None:
        known = source.layer < len(names) if isinstance(source.layer, int) else source.layer in names
        if not known:
            raise AOIError(f"{source.text}: no such layer. Expected one of {', '.join(names)}.")
        return source.layer, ""
    drawn = [(n, t) for n, t in listed if t is not None]
    if len(drawn) < 2:
        return (drawn or listed or [(None, None)])[0][0], ""
    held = [n for n, t in drawn if _holds_polygons(name, n, t)]
    if len(held) == 1:
        others = ", ".join(n for n, _ in drawn if n != held[0])
        return held[0], f"{source.text}: the layer {held[0]} is read, the only one with polygons (others: {others})."
    if not held:
        found = ", ".join(f"{n} ({t})" for n, t in drawn)
        raise AOIError(f"{source.text}: expected a layer of polygons, found {found}.")
    # A file that was found in the folders of an archive has another name than the archive.
    named = source.text if name == source.gdal else name
    raise AOIError(
        f"{source.text}: expected one layer of polygons, found {len(held)}: {', '.join(held)}.\n"
        f"Name one, for instance: {arguments(aoi=f'{named}|layername={held[0]}')}"
    )


def _holds_polygons(name: str, layer: str, geometry_type: str | None) -> bool:
    kind = geometry_type or ""
    if "Polygon" in kind or "Surface" in kind:
        return int(pyogrio.read_info(name, layer=layer, force_feature_count=True)["features"]) > 0
    if not any(mixed in kind for mixed in ("Unknown", "GeometryCollection")):
        return False
    frame = pyogrio.read_dataframe(name, layer=layer, columns=[])
    types = shapely.get_type_id(shapely.get_parts(frame.geometry.values))
    return bool(set(types.tolist()) & {shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON})


def _with_geometry(frame: pd.DataFrame, source: AreaSource) -> gpd.GeoDataFrame:
    if not isinstance(frame, gpd.GeoDataFrame):
        hint = "\nA table needs a column WKT with the polygons." if source.gdal.lower().endswith(".csv") else ""
        raise AOIError(f"{source.label}: holds no polygon.{hint}")
    return frame


def _stated(crs: pyproj.CRS | None) -> pyproj.CRS | None:
    """A CRS, or None where a file writes down that it is undefined."""
    return None if crs is None or crs.type_name == "Engineering CRS" or crs.name.startswith("Undefined") else crs


def _crs_is(source: AreaSource, driver: str) -> str:
    if driver in {"GeoJSON", "GeoJSONSeq", "TopoJSON"} and not _has_crs_member(source.file):
        return _GEOJSON
    return "KML is always in" if driver in {"KML", "LIBKML"} else "the file states"


def _has_crs_member(path: Path | None) -> bool:
    """Whether a GeoJSON file names a CRS; only the text of messages depends on it."""
    if path is None or path.suffix.lower() not in {".geojson", ".json"}:
        return False
    return re.search(rb'"crs"\s*:\s*\{', path.read_bytes()) is not None


def _why_unreadable(source: AreaSource, error: BaseException) -> str:
    path = source.file
    if path is not None and _is_project(path):
        return (
            f"{source.text}: a QGIS project, which names files of polygons and holds none.\n"
            "Name the file of the layer itself: its place is in the layer's properties, under Information."
        )
    if path is not None and _is_raster(source.gdal):
        return f"{source.text}: expected polygons, found a raster. {EXPECTED}"
    names = [] if path is None else _contents(path)[1]
    if names:
        return f"{source.text}: no file of polygons of that name in the archive. It holds {listed(names)}."
    if path is None:
        return f"{source.text}: not a file of polygons that GDAL can read there ({_reason(error)}).\nCheck the address."
    found = "a folder" if path.is_dir() else _reason(error)
    return (
        f"{source.text}: not a file of polygons that GDAL can read ({found}).\n"
        "Name a file such as areas.gpkg, or leave the area out."
    )


def _is_project(path: Path) -> bool:
    return path.suffix.lower() in {".qgz", ".qgs"}


def _is_raster(name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(name) as dataset:
                return bool(dataset.count or dataset.subdatasets)
    except (RasterioError, ValueError):
        return False


def _reason(error: BaseException) -> str:
    """The first sentence of a library's error, in one line."""
    return " ".join(str(error).partition("; It might help")[0].split()).rstrip(".")
