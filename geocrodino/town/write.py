"""Writes a generated scene to files like those a user would have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import yaml
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geocrodino.errors import OutputError
from geocrodino.files.access import check_text, exists, whole_file
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.town import CLASSES, ELEVATION_NODATA, SceneSettings
from geocrodino.town.scene import Scene, generate_scene


@dataclass(frozen=True)
class ScenePaths:
    """Files of a written scene.

    Attributes:
        optical: Image, RGB, uint8.
        elevation: Surface heights in metres, with holes.
        ground: Ground heights in metres.
        labels: Class values, with a colour table.
        aoi: Areas with a column ``split``.
        config: Configuration with the files above and the classes.
    """

    optical: Path
    elevation: Path
    ground: Path
    labels: Path
    aoi: Path
    config: Path

    @classmethod
    def within(cls, folder: Path) -> ScenePaths:
        """Name the files of a scene in a folder.

        Args:
            folder: The folder.

        Returns:
            The paths, whether the files exist or not.
        """
        names = ("optical.tif", "dsm.tif", "dtm.tif", "labels.tif", "aoi.geojson", "geocrodino.yaml")
        return cls(*(folder / name for name in names))

    def all(self) -> tuple[Path, ...]:
        """List the files.

        Returns:
            Every file, in the order of writing.
        """
        return tuple(getattr(self, f.name) for f in fields(self))


def write_scene(folder: str | Path, settings: SceneSettings | None = None, *, overwrite: bool = False) -> ScenePaths:
    """Generate a scene and write it. The same settings give the same bytes.

    Args:
        folder: Where to write; created if it does not exist.
        settings: Settings; None: the defaults.
        overwrite: Whether to replace existing files.

    Returns:
        The files. Each appears complete or not at all.

    Raises:
        AccessError: If the operating system refuses to look up the folder.
        OutputError: If a file exists and ``overwrite`` is False, or the folder cannot be written.
    """
    folder = Path(folder)
    check_text(folder)
    paths = ScenePaths.within(folder)
    there = [p.name for p in paths.all() if exists(p)]
    if there and not overwrite:
        raise OutputError(
            f"{folder} already holds {', '.join(there)}.\nChoose another folder, or overwrite these files."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}). Choose another place.") from error
    scene = generate_scene(settings)
    try:
        for path, write in _writers(scene, paths).items():
            with whole_file(path) as partial:
                write(partial)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the scene ({error}). Check space and permissions.") from error
    return paths


def _writers(scene: Scene, paths: ScenePaths) -> dict[Path, Callable[[Path], None]]:
    return {
        paths.optical: lambda p: _write_optical(p, scene),
        paths.elevation: lambda p: _write_heights(p, scene, scene.dsm, ELEVATION_NODATA, "surface"),
        paths.ground: lambda p: _write_heights(p, scene, scene.dtm, None, "ground"),
        paths.labels: lambda p: _write_labels(p, scene),
        paths.aoi: lambda p: _write_areas(p, scene),
        paths.config: lambda p: _write_config(p, paths),
    }


def _open(path: Path, scene: Scene, transform: Affine, values: NDArray[Any], **options: Any) -> Any:
    return rasterio.open(
        path, "w", driver="GTiff", crs=scene.crs, transform=transform, dtype=values.dtype, compress="deflate",
        height=values.shape[-2], width=values.shape[-1], tiled=True, blockxsize=256, blockysize=256, **options,
    )  # fmt: skip


def _write_optical(path: Path, scene: Scene) -> None:
    with _open(path, scene, scene.optical_transform, scene.optical, count=3, photometric="RGB") as target:
        target.write(scene.optical)
        target.descriptions = ("red", "green", "blue")


def _write_heights(path: Path, scene: Scene, values: NDArray[np.float32], nodata: float | None, name: str) -> None:
    with _open(path, scene, scene.elevation_transform, values, count=1, nodata=nodata, predictor=3) as target:
        target.write(values, 1)
        target.descriptions = (name,)
        target.units = ("metre",)


def _write_labels(path: Path, scene: Scene) -> None:
    with _open(path, scene, scene.optical_transform, scene.labels, count=1, nodata=IGNORE_INDEX) as target:
        target.write(scene.labels, 1)
        target.write_colormap(1, {c.value: (*c.rgb, 255) for c in CLASSES.classes} | {IGNORE_INDEX: (0, 0, 0, 0)})
        target.colorinterp = [ColorInterp.palette]


def _write_areas(path: Path, scene: Scene) -> None:
    splits, polygons = zip(*scene.areas, strict=True)
    frame = gpd.GeoDataFrame({"split": splits}, geometry=list(polygons), crs=scene.crs)
    frame.to_crs("EPSG:4326").to_file(path, driver="GeoJSON", layer="aoi", COORDINATE_PRECISION=8)


def _write_config(path: Path, paths: ScenePaths) -> None:
    content = {
        "data": {
            "optical": paths.optical.name,
            "elevation": paths.elevation.name,
            "labels": paths.labels.name,
            "aoi": paths.aoi.name,
        },
        "classes": [c.model_dump() for c in CLASSES.classes],
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
