"""From a configuration to a run folder with a bundle."""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import lightning as L
import numpy as np
import shapely
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from geocrodino.bundle.io import save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.config import TrainConfig, TrainingConfig
from geocrodino.data.alignment import AlignedLayers, Progress, Sources, align, discover_classes, reference_grid
from geocrodino.data.augmentation import PairAugmentation
from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
from geocrodino.data.normalisation import ModalitySpec, Recipe, elevation_recipe, optical_recipe
from geocrodino.data.sampling import inside_mask, patch_corners, require_patches
from geocrodino.data.splits import block_splits
from geocrodino.data.statistics import class_counts, class_weights, measure
from geocrodino.errors import AOIError, ConfigError, RasterError
from geocrodino.geo.aoi import AOI, read_aoi
from geocrodino.geo.classes import IGNORE_INDEX, ClassScheme
from geocrodino.geo.grid import crs_of, describe, pixel_size_m
from geocrodino.geo.heights import height_unit
from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.geo.reader import RasterSource
from geocrodino.models.branch import receptive_field_radius_px
from geocrodino.models.crodino import CroDiNo
from geocrodino.training import folder as run_folder
from geocrodino.training.callbacks import BestBranches, weight_average
from geocrodino.training.task import JointTask


@dataclass(frozen=True)
class Prepared:
    """All that a training reads, checked and aligned."""

    sources: Sources
    classes: ClassScheme
    aoi: AOI
    layers: AlignedLayers
    labels: NDArray[np.uint8]
    inside: dict[str, NDArray[np.bool_]]
    specs: dict[Modality, ModalitySpec]


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        bundle: The trained model.
        val_miou: Best mIoU on ``val`` for each branch, 0 to 1.
        epochs: Epochs that were run.
        seconds: Wall time of this call.
    """

    bundle: Path
    val_miou: dict[Modality, float]
    epochs: int
    seconds: float


def open_sources(config: TrainConfig) -> Sources:
    """Open the rasters of a configuration; see `RasterSource.open` for the errors."""
    data = config.data
    return Sources(
        optical=RasterSource.open(data.optical),
        elevation=RasterSource.open(data.elevation),
        labels=RasterSource.open(data.labels),
        ground=None if data.ground is None else RasterSource.open(data.ground),
        height_unit=data.height_unit,
        ignore_values=data.ignore_values,
    )


def prepare(config: TrainConfig, folder: Path, on_progress: Progress | None = None) -> Prepared:
    """Open, check and align the rasters, find the splits, measure the training split.

    Args:
        config: The configuration.
        folder: The run folder; gets ``aligned/``, ``splits.gpkg`` and ``statistics.json``.
        on_progress: Told of every aligned block.
    """
    sources = open_sources(config)
    aoi = read_aoi(config.data.aoi, config.data.aoi_crs)
    recipes: dict[Modality, Recipe] = {
        "optical": optical_recipe(sources.optical, config.data.bands),
        "elevation": elevation_recipe(config.elevation.channels, config.elevation.ground),
    }
    recipes["elevation"].check(sources.elevation, ground_given=sources.ground is not None)
    grid = reference_grid(sources.optical, aoi, config.data.resolution_m)
    recipes["elevation"].halo_px(grid, ground_given=sources.ground is not None)
    classes = config.class_scheme() or discover_classes(sources.labels, sources.ignore_values)
    layers = align(sources, recipes, classes, grid, folder / "aligned", on_progress)
    labels = layers.class_indices()
    local = aoi.to_crs(crs_of(grid).wkt)
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
    local.save(folder / "splits.gpkg")
    inside = {s: inside_mask(local.polygons(s), grid) for s in ("train", "val")}
    require_patches(
        patch_corners(inside["train"], config.training.patch_px), "train", aoi.source, config.training.patch_px, grid
    )
    given = sources.ground is not None
    specs = {m: measure(layers, recipes[m], inside["train"], ground_given=given) for m in MODALITIES}
    for m in MODALITIES:
        _require_validation(layers, recipes[m], inside["val"] & (labels != IGNORE_INDEX), aoi)
    counts = class_counts(labels, inside["train"], len(classes)).tolist()
    statistics: dict[str, Any] = {m: [c.model_dump() for c in s.channels] for m, s in specs.items()}
    run_folder.save_json(
        folder / "statistics.json", {**statistics, "class_px": dict(zip(classes.names, counts, strict=True))}
    )
    return Prepared(sources, classes, local, layers, labels, inside, specs)


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
    callbacks: list[Callback] | None = None,
    tell: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train both branches and write a bundle.

    Args:
        config: What to train on and how.
        out: Run folder.
        resume: Go on where an interrupted run stopped; the result is that of an uninterrupted one.
        overwrite: Replace an earlier run.
        on_progress: Told of every aligned block.
        callbacks: More Lightning callbacks, a progress bar for instance.
        tell: Told, in sentences, what is being done.

    Raises:
        GeocrodinoError: One of its kinds, if the files, the area or the settings cannot be used.
    """
    started = time.monotonic()
    tell = tell or (lambda _: None)
    if config.training.patch_px % config.network.stride_px:
        raise ConfigError(
            f"training.patch_px: expected a multiple of the network's stride of {config.network.stride_px} px, "
            f"found {config.training.patch_px}."
        )
    run_folder.check(config, out, resume=resume, overwrite=overwrite)
    L.seed_everything(config.training.seed, verbose=False)
    ready = prepare(config, out, on_progress)
    tell(_told(ready))
    model = CroDiNo(
        config.network,
        {m: len(s.channels) for m, s in ready.specs.items()},
        len(ready.classes),
        auxiliary=config.method.auxiliary > 0,
        weights=config.encoder_weights,
    )
    run_folder.begin(config, out, resume=resume)
    best = BestBranches(out, config.training.patience)
    last = _fit(config, out, ready, model, [best, *(callbacks or [])], resume=resume)
    best.load(model)
    bundle = _save(config, out, ready, model, best, last)
    return TrainResult(bundle, dict(best.best), last + 1, time.monotonic() - started)


def _fit(
    config: TrainConfig, out: Path, ready: Prepared, model: CroDiNo, callbacks: list[Callback], *, resume: bool
) -> int:
    """Run the loop; the number of the last epoch."""
    settings = config.training
    plan = BatchPlan(
        settings.patch_px,
        settings.batch_size,
        settings.steps_per_epoch,
        settings.balance,
        settings.seed,
        settings.workers,
    )
    data = CoregisteredDataModule(ready.layers, ready.specs, ready.inside, ready.labels, plan, config.data.aoi)
    counts = class_counts(ready.labels, ready.inside["train"], len(ready.classes))
    weights = torch.from_numpy(class_weights(counts, settings.class_weight_power))
    augmentation = PairAugmentation(config.augmentation)
    task = JointTask(model, augmentation, config.method, settings.optimiser, weights, settings.seed)
    # Written after each epoch under one name; `save_last` alone would write at the end of the training only.
    checkpoint = ModelCheckpoint(out / "checkpoints", "last", save_top_k=1, enable_version_counter=False)
    average = [weight_average(settings.ema_decay)] if settings.ema_decay else []
    with warnings.catch_warnings():
        # Lightning's advice on reading processes does not hold here: windows are read faster than they are used.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # A resumed run goes on in its own folder, and the batch is augmented by the module on purpose.
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*overridden `on_after_batch_transfer`.*")
        trainer = _trainer(settings, out, [*callbacks, *average, checkpoint])
        last = run_folder.last_checkpoint(out)
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            # The checkpoint is this run's own; numbers and names are all that it holds.
            trainer.fit(task, data, ckpt_path=last if resume and last.exists() else None, weights_only=True)
        except SystemExit as error:  # so Lightning ends after Ctrl-C, and the process is deaf to further ones
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from error
    return int(trainer.current_epoch) - 1


def _trainer(settings: TrainingConfig, out: Path, callbacks: list[Callback]) -> L.Trainer:
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.precision,  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            gradient_clip_val=1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.steps_per_epoch,
            enable_model_summary=False,
            enable_progress_bar=any("Progress" in type(c).__name__ for c in callbacks),
            logger=[run_folder.csv_logger(out), TensorBoardLogger(out, name="", version="tensorboard")],
            callbacks=callbacks,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise ConfigError(
            f"training.accelerator {settings.accelerator!r} with training.precision {settings.precision!r} cannot be "
            f"used here: {error}\nTake accelerator auto and precision 32-true."
        ) from error


def _save(config: TrainConfig, out: Path, ready: Prepared, model: CroDiNo, best: BestBranches, last: int) -> Path:
    grid = ready.layers.grid
    polygons = gpd.GeoSeries([ready.aoi.polygons("train")], crs=crs_of(grid).wkt).to_crs("EPSG:4326")
    radii = [receptive_field_radius_px(model.branch(m), len(ready.specs[m].channels)) for m in MODALITIES]
    summary: dict[str, Any] = {
        "method": config.method.model_dump(),
        "seed": config.training.seed,
        "epochs": last + 1,
        "patch_px": config.training.patch_px,
        "val_miou": {m: best.best[m] for m in MODALITIES},
        "best_epoch": {m: best.epoch[m] for m in MODALITIES},
    }
    manifest = Manifest(
        name=run_folder.model_name(out),
        classes=ready.classes,
        network=config.network,
        modalities=ready.specs,
        resolution_m=float(np.sqrt(np.prod(pixel_size_m(grid)))),
        crs=f"EPSG:{crs_of(grid).epsg}" if crs_of(grid).epsg else crs_of(grid).wkt,
        footprint=json.loads(shapely.to_geojson(polygons.iloc[0])),
        receptive_field_px=None if None in radii else max(r for r in radii if r is not None),
        training=summary,
    )
    bundle = out / run_folder.BUNDLE_NAME
    run_folder.save_json(out / "metrics.json", summary)
    save_bundle(bundle, manifest, {m: model.branch(m) for m in MODALITIES})
    for modality in MODALITIES:
        best.path(modality).unlink()
    return bundle


def _require_validation(layers: AlignedLayers, recipe: Recipe, labelled: NDArray[np.bool_], aoi: AOI) -> None:
    try:
        measure(layers, recipe, labelled)
    except RasterError as error:
        raise AOIError(
            f"{aoi.source}: no labelled pixel of the split 'val' has a valid {recipe.modality} value, so the "
            f"{recipe.modality} branch could not be judged. Draw polygons of val where all rasters hold data."
        ) from error


def _told(ready: Prepared) -> str:
    unit = height_unit(ready.sources.elevation, ready.sources.height_unit)[1]
    px = {s: int(m.sum()) for s, m in ready.inside.items()}
    return (
        f"Grid: {describe(ready.layers.grid)}\n{unit[0].upper()}{unit[1:]}\nClasses: {', '.join(ready.classes.names)}\n"
        f"Pixels: {px['train']:,} train, {px['val']:,} val"
    )
