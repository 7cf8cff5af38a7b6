"""All that a training reads: opened, checked, aligned, split and measured."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geocrodino.config import TrainConfig
from geocrodino.data.alignment import AlignedLayers, Progress, Sources, align, reference_grid
from geocrodino.data.few_values import few_values, few_values_note
from geocrodino.data.normalisation import ModalitySpec, Recipe, elevation_recipe, optical_recipe
from geocrodino.data.sampling import inside_mask, patch_corners, require_patches
from geocrodino.data.splits import block_splits
from geocrodino.data.statistics import class_counts, measure
from geocrodino.errors import AOIError, HeightRangeWarning, RasterError
from geocrodino.geo.aoi import AOI, read_aoi
from geocrodino.geo.aoi_place import on_grid
from geocrodino.geo.classes import IGNORE_INDEX, ClassScheme
from geocrodino.geo.files import durable_file
from geocrodino.geo.grid import describe
from geocrodino.geo.labels import LabelSource, label_classes
from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.geo.reader import RasterSource
from geocrodino.geo.units import ground_unit, height_unit
from geocrodino.training import folder as run_folder


@dataclass(frozen=True)
class Prepared:
    """All that a training reads, checked and aligned.

    Attributes:
        sources: The rasters.
        classes: The classes.
        aoi: Areas with a split, in the grid's CRS.
        layers: The rasters on one grid.
        labels: Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``.
        inside: Pixels of ``train``, ``val`` and, where there is such a split, ``unlabelled``; bool, shape (H, W).
        specs: How each modality is read and normalised.
        drawn: The splits, where they were drawn as blocks because the area names none; for `geocrodino evaluate`.
    """

    sources: Sources
    classes: ClassScheme
    aoi: AOI
    layers: AlignedLayers
    labels: NDArray[np.uint8]
    inside: dict[str, NDArray[np.bool_]]
    specs: dict[Modality, ModalitySpec]
    drawn: Path | None


def open_sources(config: TrainConfig) -> Sources:
    """Open the rasters of a configuration; see `RasterSource.open` for the errors."""
    data = config.data
    return Sources(
        optical=RasterSource.open(data.optical),
        elevation=RasterSource.open(data.elevation),
        labels=LabelSource.of(RasterSource.open(data.labels), data.ignore_values, data.label_values),
        ground=None if data.ground is None else RasterSource.open(data.ground),
        height_unit=data.height_unit,
    )


def fitted_sources(sources: Sources, recipes: dict[Modality, Recipe]) -> Sources:
    """The rasters as the recipes read them.

    Raises:
        BundleError: If a raster of heights holds an image, classes or several bands.
        HeightError: If heights are too coarse, or in a unit that is not known.
    """
    optical, elevation, unit = recipes["optical"], recipes["elevation"], sources.height_unit
    elevation.check(sources.elevation, ground_given=sources.ground is not None)
    ground = sources.ground
    if ground is not None:
        elevation.check_ground(ground)
        ground = elevation.fitted_ground(ground, unit=unit)
    return replace(
        sources,
        optical=optical.fitted(sources.optical, bands=optical.bands),
        elevation=elevation.fitted(sources.elevation, unit=unit),
        ground=ground,
    )


def prepare(config: TrainConfig, folder: Path, on_progress: Progress | None = None) -> Prepared:
    """Open, check and align the rasters, find the splits, measure the training split.

    Args:
        config: The configuration.
        folder: The run folder; gets ``aligned/``.
        on_progress: Told of every aligned block.
    """
    sources = open_sources(config)
    aoi = read_aoi(config.data.aoi, config.data.aoi_crs)
    recipes: dict[Modality, Recipe] = {
        "optical": optical_recipe(sources.optical, config.data.bands),
        "elevation": elevation_recipe(config.elevation.channels, config.elevation.ground, config.data.height_unit),
    }
    sources = fitted_sources(sources, recipes)
    grid = reference_grid(sources.optical, aoi, config.data.resolution_m)
    recipes["elevation"].halo_px(grid, ground_given=sources.ground is not None)
    classes = label_classes(sources.labels, config.class_scheme())
    layers = align(sources, recipes, classes, grid, folder / run_folder.ALIGNED_NAME, on_progress)
    _warn_of_heights(sources, layers)
    labels = layers.class_indices()
    local = on_grid(aoi, grid)
    if not local.splits:
        patch = config.training.patch_px
        seed = config.training.seed
        local = block_splits(local.polygons(), grid, labels, len(classes), patch_px=patch, seed=seed)
    missing = {"train", "val"} - set(local.splits)
    if missing:
        raise AOIError(
            f"{aoi.source}: no polygon of the split {' or '.join(sorted(missing))}. Expected train and val (and test, "
            f"to report on), found {', '.join(local.splits)}."
        )
    inside = {s: inside_mask(local.polygons(s), grid) for s in local.splits if s != "test"}
    labels = np.where(inside["train"] | inside["val"], labels, IGNORE_INDEX).astype(np.uint8)
    require_patches(
        patch_corners(inside["train"], config.training.patch_px), "train", aoi.source, config.training.patch_px, grid
    )
    given = sources.ground is not None
    specs = {m: measure(layers, recipes[m], inside["train"], ground_given=given) for m in MODALITIES}
    for m in MODALITIES:
        _require_validation(layers, recipes[m], inside["val"] & (labels != IGNORE_INDEX), aoi)
    return Prepared(
        sources, classes, local, layers, labels, inside, specs, None if aoi.splits else folder / run_folder.SPLITS_NAME
    )


def record(ready: Prepared, folder: Path, *, resume: bool) -> None:
    """Write what a training reads, ``splits.gpkg`` and ``statistics.json``, to its run folder.

    Raises:
        ConfigError: If a run is to be resumed on other data than it began with.
        OutputError: If a file cannot be written.
    """
    run_folder.keep_inputs(folder, _digest(ready.labels, ready.inside, ready.specs), resume=resume)
    _save_splits(ready.aoi, folder / run_folder.SPLITS_NAME)
    counts = class_counts(ready.labels, ready.inside["train"], len(ready.classes)).tolist()
    statistics: dict[str, Any] = {m: [c.model_dump() for c in s.channels] for m, s in ready.specs.items()}
    run_folder.save_json(
        folder / "statistics.json", {**statistics, "class_px": dict(zip(ready.classes.names, counts, strict=True))}
    )


def _save_splits(aoi: AOI, path: Path) -> None:
    with durable_file(path, RuntimeError, ValueError) as partial:  # the kinds of pyogrio's errors
        aoi.save(partial)
        found = len(gpd.read_file(partial))  # GDAL may call a file done that a full disk has cut short
        if found != len(aoi.frame):
            raise ValueError(f"{found} of {len(aoi.frame)} polygons arrived")


def _digest(
    labels: NDArray[np.uint8], inside: dict[str, NDArray[np.bool_]], specs: dict[Modality, ModalitySpec]
) -> dict[str, str]:
    """What a training reads, short: where, which classes, and the statistics of the channels there."""
    read = {
        "polygons of the splits": b"".join(
            name.encode() + np.packbits(mask).tobytes() for name, mask in inside.items()
        ),
        "labels": labels.tobytes(),
        # Rounded: the last digits of a logarithm differ between processors.
        "rasters": " ".join(
            f"{c.name} {c.low:.5g} {c.high:.5g} {c.mean:.5g} {c.std:.5g}" for s in specs.values() for c in s.channels
        ).encode(),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in read.items()}


def _warn_of_heights(sources: Sources, layers: AlignedLayers) -> None:
    """Tell of heights that were read as missing, and of a raster that seems to hold none."""
    classes = few_values(sources.elevation)
    if classes:
        warnings.warn(
            few_values_note(sources.elevation, classes),
            HeightRangeWarning,
            stacklevel=3,
        )
    rasters = {"elevation": sources.elevation, "ground": sources.ground}
    for role, found in layers.impossible.items():
        raster = rasters[role]
        if raster is not None:
            warnings.warn(found.note(raster), HeightRangeWarning, stacklevel=3)


def _require_validation(layers: AlignedLayers, recipe: Recipe, labelled: NDArray[np.bool_], aoi: AOI) -> None:
    try:
        measure(layers, recipe, labelled)
    except RasterError as error:
        raise AOIError(
            f"{aoi.source}: no labelled pixel of the split 'val' has a valid {recipe.modality} value, so the "
            f"{recipe.modality} branch could not be judged. Draw polygons of val where all rasters hold data."
        ) from error


def told(ready: Prepared) -> str:
    """What a training is going to read, in sentences."""
    sources = ready.sources
    unit = height_unit(sources.elevation, sources.height_unit)[1]
    if sources.ground is not None:
        unit += f"; ground: {ground_unit(sources.ground, sources.height_unit)[1]}"
    px = {s: int(m.sum()) for s, m in ready.inside.items()}
    drawn = f"\nSplits drawn as blocks, for --aoi of an evaluation: {ready.drawn}" if ready.drawn else ""
    return (
        f"Grid: {describe(ready.layers.grid)}\n{unit[0].upper()}{unit[1:]}\nClasses: {', '.join(ready.classes.names)}\n"
        f"Pixels: {', '.join(f'{count:,} {split}' for split, count in px.items())}{drawn}"
    )
