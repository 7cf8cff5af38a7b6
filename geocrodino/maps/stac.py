"""A class map in a STAC catalogue: an item for the map, and one for each model that made it.

The Machine Learning Model (MLM) extension describes models: an item that declares it stands for a model, lies where
that was trained, and holds its weights. What a model made is an item of its own that points back by a link
``derived_from``, names the model there and has the processing level L4. Both kinds are written here.

References:
    https://github.com/stac-extensions/mlm (sections Relation Types and Best Practices, Processing Extension)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyproj
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from pydantic_core import to_json
from shapely.geometry.base import BaseGeometry

from geocrodino.bundle.manifest import Manifest
from geocrodino.errors import BundleError, OutputError, RasterError
from geocrodino.files.access import is_file, whole_file
from geocrodino.files.names import gdal_name
from geocrodino.geo.rasters.grid import crs_of, window_grid
from geocrodino.geo.rasters.place import is_placeless
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.maps.files import read_classes
from geocrodino.maps.footprint import footprint, on_globe
from geocrodino.maps.inputs import require_distinct_output
from geocrodino.maps.polygons import map_grid
from geocrodino.maps.writer import check_output, map_parts
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import MODALITIES, Modality

if TYPE_CHECKING:
    import pystac

PROCESSING_SCHEMA = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"

_SHA256_MULTIHASH = "1220"  # kind of hash and its length in bytes, as the file extension has them before the hash


@dataclass(frozen=True)
class CompanionFile:
    """A file that belongs to a map: a layer of it, its polygons, a preview.

    Attributes:
        path: The file.
        title: What it is, for people.
        roles: What it is, for programs, as STAC names them: ``data``, ``visual``, ``metadata``.
    """

    path: Path
    title: str
    roles: tuple[str, ...] = ("data",)


@dataclass(frozen=True)
class Artifact:
    """A kind of file that holds the network of a branch.

    Attributes:
        title: What it is, for people.
        kind: The extension's ``mlm:artifact_type``.
        media_type: Media type of the file.
        roles: Roles of the asset, as the extension names them.
    """

    title: str
    kind: str
    media_type: str
    roles: tuple[str, ...]


BUNDLE_ARTIFACT = Artifact(
    "Weights and manifest",
    "safetensors.torch.save_file",
    "application/octet-stream; framework=safetensors",
    ("mlm:model", "mlm:weights", "data"),
)
"""The bundle itself."""


def write_item(
    class_map: str | Path,
    out: str | Path,
    *,
    manifest: Manifest,
    models: Mapping[Modality, Path],
    acquired: datetime | tuple[datetime, datetime] | None = None,
    files: Mapping[str, CompanionFile] | None = None,
    properties: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the STAC item (version 1.1) of a class map.

    Its geometry is the outline of the map in longitude and latitude (EPSG:4326; on another celestial body in degrees
    of its own; none where a CRS has no place on one), cut at the antimeridian. The asset ``map`` has the classes, the
    grid and the nodata value; references to files are relative to the item.

    Args:
        class_map: A class map.
        out: The file to write, ``*.json``.
        manifest: Of the bundle that made the map.
        models: Item of each branch that made it, written by :func:`write_model_item`.
        acquired: When the scene was taken, or from when to when, with time zone. Where that is not known, the item's
            time is that at which the map was written, which ``created`` of its asset always is.
        files: Companion files, by the name of their asset.
        properties: More properties; they replace those of the same name.
        overwrite: Whether an existing file may be replaced.

    Raises:
        RasterError: If the map is missing, no class map, or cannot be placed on the globe.
        BundleError: If another bundle or branch made the map, or an item is not that of a branch.
        OutputError: If the file exists or cannot be written, or a companion file is missing.
        ValueError: If there is no model, a time has no time zone, or an asset is to be called ``map``.
    """
    class_map, out, files = Path(class_map), Path(out), files or {}
    if "map" in files:
        raise ValueError(f"expected no companion file called map, found {list(files)}")
    check_output(out, overwrite=overwrite)
    inputs = {f"item of {modality}": path for modality, path in models.items()}
    require_distinct_output(out, map=class_map, **inputs, **{name: file.path for name, file in files.items()})
    _require_files(files)
    described = _Map.read(class_map, out, manifest, models, acquired)
    item = described.item(class_map.stem, described.raster)
    item.properties |= properties or {}
    for name, file in files.items():
        _add_asset(item, name, file, _href(file.path, out))
    _write(_as_dict(item), out)


def write_part_items(
    class_map: str | Path,
    out: str | Path,
    *,
    manifest: Manifest,
    models: Mapping[Modality, Path],
    acquired: datetime | tuple[datetime, datetime] | None = None,
    overwrite: bool = False,
) -> int:
    """Write the STAC items of the parts of a virtual map, as one item collection.

    Each part is a Cloud Optimized GeoTIFF of its own; its item says what that of a whole map says, and what can go
    wrong is the same, see :func:`write_item`.

    Args:
        class_map: A class map ``*.vrt`` with its folder ``*.parts``.
        out: The file to write, ``*.json``, a GeoJSON feature collection.
        manifest: Of the bundle that made the map.
        models: Item of each branch that made it.
        acquired: When the scene was taken.
        overwrite: Whether an existing file may be replaced.

    Returns:
        Number of items; blocks without any class have no part.

    Raises:
        RasterError: If the map has no parts.
    """
    class_map, out = Path(class_map), Path(out)
    check_output(out, overwrite=overwrite)
    require_distinct_output(out, map=class_map, **{f"item of {modality}": path for modality, path in models.items()})
    described = _Map.read(class_map, out, manifest, models, acquired)
    parts = map_parts(class_map)
    if not parts:
        raise RasterError(class_map, "no parts beside it. Expected a map that was written with a name in .vrt.")
    items = [
        _as_dict(
            described.item(
                f"{class_map.stem}-{path.stem}",
                replace(described.raster, name=str(path), geobox=window_grid(described.raster.geobox, window)),
            )
        )
        for window, path in parts
    ]
    _write({"type": "FeatureCollection", "features": items}, out)
    return len(items)


def write_model_item(
    bundle: str | Path,
    out: str | Path,
    *,
    manifest: Manifest,
    modality: Modality,
    artifact: Artifact = BUNDLE_ARTIFACT,
    properties: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the STAC item of one branch of a bundle, after the MLM extension, version 1.4.

    Its geometry is where the branch was trained, its time when the bundle was written.

    Args:
        bundle: The bundle, or a file that was exported from it.
        out: The file to write, ``*.json``.
        manifest: Manifest of the bundle.
        modality: The branch; each is a model of its own.
        artifact: What kind of file it is.
        properties: Properties of the extension in place of those of the bundle.
        overwrite: Whether an existing file may be replaced.

    Raises:
        BundleError: If the bundle is missing, or has no such branch.
        OutputError: If the file exists, or cannot be written.
    """
    import pystac
    from pystac.extensions.file import FileExtension
    from pystac.extensions.mlm import MLMExtension

    bundle, out = Path(bundle), Path(out)
    if not is_file(bundle):
        raise BundleError(f"{bundle}: no such bundle. Check the path; training writes one into its run folder.")
    if modality not in manifest.modalities:
        raise BundleError(f"{bundle}: no branch for {modality}. Found {', '.join(manifest.modalities)}.")
    check_output(out, overwrite=overwrite)
    require_distinct_output(out, bundle=bundle)
    described = manifest.to_mlm(modality) | deepcopy(dict(properties or {}))
    described["mlm:output"][0]["classification:classes"] = _classes(manifest.classes)
    item = _item(described["mlm:name"], shapely.geometry.shape(manifest.footprint), manifest.created)
    # The extension looks for the bands that its inputs name in the properties, the core only where an asset has them.
    bands = {"bands": [{"name": c.name} for c in manifest.modalities[modality].channels]}
    item.properties |= {
        "title": f"{manifest.name}, {modality}",
        **bands,
        "geocrodino:bundle_sha256": manifest.sha256,
        **described,
    }
    asset = pystac.Asset(
        _href(bundle, out),
        title=artifact.title,
        media_type=artifact.media_type,
        roles=list(artifact.roles),
        extra_fields={"mlm:artifact_type": artifact.kind, **bands},
    )
    item.add_asset("model", asset)
    MLMExtension.add_to(item)
    with bundle.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    FileExtension.ext(asset, add_if_missing=True).apply(size=bundle.stat().st_size, checksum=_SHA256_MULTIHASH + digest)
    _write(_as_dict(item), out)


@dataclass(frozen=True)
class _Map:
    """Content that the items of a map and of its parts share."""

    raster: RasterSource
    scheme: ClassScheme
    tags: Mapping[str, str]
    manifest: Manifest
    origin: Mapping[Modality, tuple[str, str]]
    created: datetime
    acquired: datetime | tuple[datetime, datetime]
    out: Path

    @classmethod
    def read(
        cls,
        class_map: Path,
        out: Path,
        manifest: Manifest,
        models: Mapping[Modality, Path],
        acquired: datetime | tuple[datetime, datetime] | None,
    ) -> _Map:
        if not models:
            raise ValueError("expected the item of a model at least, found none")
        raster = replace(RasterSource.open(class_map), geobox=map_grid(class_map))
        with rasterio.open(gdal_name(class_map)) as dataset:
            tags = dataset.tags()
        _require_bundle(class_map, tags, manifest, tuple(models))
        origin = {m: (_href(path, out), _model_name(path, manifest, m)) for m, path in models.items()}
        created = datetime.fromtimestamp(class_map.stat().st_mtime, UTC).replace(microsecond=0)
        return cls(raster, read_classes(class_map), tags, manifest, origin, created, acquired or created, out)

    def item(self, name: str, raster: RasterSource) -> pystac.Item:
        item = _item(name, footprint(raster.path, raster.geobox), self.acquired)
        item.properties.update(_facts(self.tags, self.manifest, tuple(self.origin)))
        item.stac_extensions.append(PROCESSING_SCHEMA)
        _add_map(item, raster, self.scheme, _href(raster.path, self.out))
        _add_origin(item, dict(self.origin.values()), self.created)
        return item


def _require_files(files: Mapping[str, CompanionFile]) -> None:
    for name, file in files.items():
        if not is_file(file.path):
            raise OutputError(f"{file.path}: no such file, so the item cannot list it as {name!r}.\nWrite it first.")


def _require_bundle(
    class_map: Path, tags: Mapping[str, str], manifest: Manifest, modalities: tuple[Modality, ...]
) -> None:
    """Check the origin that the map's tags name, if they name one."""
    made_by = tags.get("BUNDLE_SHA256", manifest.sha256)
    if made_by != manifest.sha256:
        raise BundleError(
            f"{class_map}: another bundle made this map. Expected sha256 {manifest.sha256}, found {made_by} "
            f"({tags.get('BUNDLE_NAME', 'no name')}).\nGive the manifest of that bundle."
        )
    found = tags.get("MODALITY", "")
    made_with = tuple(m for m in MODALITIES if m == found)
    if found == "both" and (len(manifest.modalities) == 2 or len(modalities) < 2):
        made_with = tuple(manifest.modalities)  # a bundle of more branches: the tag does not say which made the map
    if made_with and set(made_with) != set(modalities):
        raise BundleError(
            f"{class_map}: other branches made this map. Expected {' and '.join(modalities)}, found "
            f"{' and '.join(made_with)}.\nGive the items of the branches that made it."
        )


def _model_name(path: Path, manifest: Manifest, modality: Modality) -> str:
    """Name of the model that an item describes, which must be that of the branch."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["properties"]
        name, digest = str(found["mlm:name"]), found["geocrodino:bundle_sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(
            f"{path}: no item of a model ({error!r}). Expected one that write_model_item wrote.\n"
            "Write it first, from the bundle that made the map."
        ) from error
    expected = f"{manifest.name}-{modality}"
    if (name, digest) != (expected, manifest.sha256):
        raise BundleError(
            f"{path}: the item of another model. Expected {expected} with sha256 {manifest.sha256}, found {name} "
            f"with {digest}.\nWrite it again, from the bundle that made the map."
        )
    return name


def _item(name: str, outline: BaseGeometry | None, when: datetime | tuple[datetime, datetime]) -> pystac.Item:
    import pystac

    start, end = when if isinstance(when, tuple) else (when, when)
    if start.tzinfo is None or end.tzinfo is None or start > end:
        raise ValueError(f"expected times with time zone, the earlier one first, found {start} and {end}")
    span = isinstance(when, tuple)
    geometry, bbox = (None, None) if outline is None or outline.is_empty else on_globe(outline)
    return pystac.Item(
        id=name,
        geometry=geometry,
        bbox=bbox,
        datetime=None if span else start,
        start_datetime=start if span else None,
        end_datetime=end if span else None,
        properties={},
    )


def _facts(tags: Mapping[str, str], manifest: Manifest, modalities: tuple[Modality, ...]) -> dict[str, Any]:
    """Properties on how the map was made."""
    scene = tags.get("SCENE", "a scene")
    used = " and ".join(modalities)
    software, _, version = tags.get("TIFFTAG_SOFTWARE", "").partition(" ")
    facts: dict[str, Any] = {
        "title": f"Land cover of {scene}",
        "description": f"Classes predicted by {manifest.name} from {used} data: {', '.join(manifest.classes.names)}.",
        "processing:level": "L4",
        "processing:lineage": f"Semantic segmentation of {scene} by the {used} branch of {manifest.name}.",
        "geocrodino:bundle_name": manifest.name,
        "geocrodino:bundle_sha256": manifest.sha256,
        "geocrodino:modalities": list(modalities),
    }
    if version:
        facts["processing:software"] = {software: version}
    if "SCENE" in tags:
        facts["geocrodino:scene"] = scene
    return facts


def _add_map(item: pystac.Item, raster: RasterSource, scheme: ClassScheme, href: str) -> None:
    import pystac
    from pystac.extensions.classification import ClassificationExtension
    from pystac.extensions.projection import ProjectionExtension

    asset = pystac.Asset(
        href,
        title="Class map",
        media_type=_media_type(raster.path),
        roles=["data"],
        extra_fields={
            "data_type": raster.dtype,
            "nodata": IGNORE_INDEX,
            "bands": [{"name": name} for name in raster.band_names],
            "classification:classes": _classes(scheme),
        },
    )
    item.add_asset("map", asset)
    ClassificationExtension.add_to(item)
    ProjectionExtension.ext(item, add_if_missing=True).apply(**_reference_system(raster.geobox))
    placed = ProjectionExtension.ext(asset)
    placed.shape, placed.transform = list(map(int, raster.geobox.shape)), list(raster.geobox.affine)[:6]


def _reference_system(grid: GeoBox) -> dict[str, Any]:
    """The CRS by its code where it has one, otherwise in words; no code without a place."""
    if is_placeless(grid):
        return {"code": None}
    crs = pyproj.CRS.from_user_input(crs_of(grid).wkt)
    authority = crs.to_authority(min_confidence=100)
    if authority is not None:
        return {"code": ":".join(authority)}
    return {"wkt2": crs.to_wkt("WKT2_2019"), "projjson": crs.to_json_dict()}


def _classes(scheme: ClassScheme) -> list[dict[str, Any]]:
    """Classes as the classification extension has them: names for programs, titles for people.

    Descriptions are there because version 1, which the MLM extension refers to, asks for them.
    """
    ascii_only = [unicodedata.normalize("NFKD", c.name).encode("ascii", "ignore").decode() for c in scheme.classes]
    short = [re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") for name in ascii_only]
    times = Counter(short)
    listed: list[dict[str, Any]] = [
        {
            "value": c.value,
            "name": name if name and times[name] == 1 else f"{name or 'class'}-{c.value}",
            "title": c.name,
            "description": c.name,
            "color_hint": c.colour[1:].upper(),
        }
        for c, name in zip(scheme.classes, short, strict=True)
    ]
    nodata = {"value": IGNORE_INDEX, "name": "nodata", "title": "no data", "description": "no data", "nodata": True}
    return [*listed, nodata]


def _add_origin(item: pystac.Item, models: Mapping[str, str], created: datetime) -> None:
    """Add the models that made the map: links to their items, and their names."""
    import pystac
    from pystac.utils import datetime_to_str

    for href, name in models.items():
        item.add_link(
            pystac.Link("derived_from", href, media_type=pystac.MediaType.GEOJSON, extra_fields={"mlm:name": name})
        )
    hrefs, names = list(models), list(models.values())
    fields = item.assets["map"].extra_fields
    fields["created"] = datetime_to_str(created)
    fields["processing:expression"] = {"format": "stac-mlm", "expression": hrefs[0] if len(hrefs) == 1 else hrefs}
    if len(names) == 1:
        fields["mlm:name"] = names[0]


def _add_asset(item: pystac.Item, name: str, file: CompanionFile, href: str) -> None:
    import pystac

    item.add_asset(name, pystac.Asset(href, file.title, media_type=_media_type(file.path), roles=list(file.roles)))


def _media_type(path: Path) -> str | None:
    from pystac import MediaType

    if path.suffix.lower() in {".tif", ".tiff"}:
        with rasterio.open(gdal_name(path)) as dataset:
            optimised = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
        return MediaType.COG if optimised else MediaType.GEOTIFF
    known: dict[str, str] = {
        ".gpkg": MediaType.GEOPACKAGE,
        ".geojson": MediaType.GEOJSON,
        ".json": MediaType.JSON,
        ".png": MediaType.PNG,
        ".vrt": MediaType.XML,
    }
    return known.get(path.suffix.lower())


def _href(path: Path, item: Path) -> str:
    return quote(Path(os.path.relpath(path, item.parent)).as_posix())


def _as_dict(item: pystac.Item) -> dict[str, Any]:
    found: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    return found


def _write(content: dict[str, Any], out: Path) -> None:
    try:
        with whole_file(out) as partial:
            # Scores that do not exist are NaN, which JSON does not have.
            partial.write_bytes(to_json(content, indent=2, inf_nan_mode="null") + b"\n")
    except OSError as error:
        raise OutputError(f"{out}: the item could not be written ({error}).\nCheck the free space.") from error
