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
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from geocrodino.bundle.io import save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.data.alignment import Progress
from geocrodino.data.augmentation import PairAugmentation
from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
from geocrodino.data.statistics import class_counts, class_weights
from geocrodino.errors import BundleError, ConfigError
from geocrodino.files.access import durable_file, exists, writing
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.rasters.grid import crs_of, pixel_size_m
from geocrodino.modalities.registry import definition_of
from geocrodino.models.branch import receptive_field_radius_px
from geocrodino.report.figures import plot_reliability
from geocrodino.settings.config import TrainConfig, TrainingConfig, load_config
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.training import folder as run_folder
from geocrodino.training import number_format
from geocrodino.training.calibrate import Calibrated, calibrate
from geocrodino.training.callbacks import BestNetworks
from geocrodino.training.checkpoint import WholeCheckpoints, finished_epochs, load_networks
from geocrodino.training.checks import check_settings
from geocrodino.training.learners.base import Learner, Shape, state_of
from geocrodino.training.learners.build import build_learner, learner_class, network_settings
from geocrodino.training.logs import EventLog, TableLog
from geocrodino.training.prepare import Prepared, prepare, record, told
from geocrodino.training.task import TrainingTask
from geocrodino.training.teacher import check_teacher, no_teacher


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        bundle: The trained model; None for the method ``fusion``, whose network needs all modalities at once.
        val_miou: Best mIoU on ``val`` for each network, 0 to 1.
        epochs: Epochs that were run, without those of a teacher.
        seconds: Wall time of this call.
    """

    bundle: Path | None
    val_miou: dict[str, float]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class _Fitted:
    """Networks at their best epoch, ready for use."""

    networks: dict[str, nn.Module]
    best: BestNetworks
    epochs: int
    seconds: float
    data: CoregisteredDataModule


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher: str | Path | None = None,
    on_progress: Progress | None = None,
    callbacks: list[Callback] | None = None,
    tell: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train the networks of a method and write a bundle with the branch of each modality.

    Args:
        config: What to train on and how.
        out: Run folder.
        resume: Go on after the last epoch that an interrupted run has finished, from the beginning if there is none;
            the result is that of an uninterrupted one.
        overwrite: Replace an earlier run.
        teacher: Run folder of a finished training of the method ``fusion`` on the same data, for the methods that need
            a teacher; they train one first, in ``<out>/teacher``, where none is named.
        on_progress: Told of every aligned block.
        callbacks: More Lightning callbacks, a progress bar for instance.
        tell: Told, in sentences, what is being done.

    Raises:
        GeocrodinoError: One of its kinds, if the files, the area or the settings cannot be used.
    """
    started = time.monotonic()
    tell = tell or (lambda _: None)
    out, teacher = Path(out), None if teacher is None else Path(teacher)
    _check(config, teacher)
    config = _with_number_format(config)  # before it is compared with that of a run to resume
    run_folder.check(config, out, resume=resume, overwrite=overwrite)
    if teacher is not None:
        _require_same_data(config, teacher)
    with run_folder.alone(out):
        goes_on = resume and run_folder.has_progress(out)
        if resume:
            tell(_resumed_from(out, config.training.epochs))
        run_folder.tidy(out)
        with run_folder.way_out(out, resume=resume, overwrite=overwrite, begun=goes_on):
            ready = _prepare(config, out, on_progress, resume=goes_on, teacher=teacher, tell=tell)
        with run_folder.way_out(out, resume=resume, overwrite=overwrite, begun=True):
            bundle, fitted = _train(config, out, ready, callbacks or [], resume=goes_on, teacher=teacher, tell=tell)
    return TrainResult(bundle, dict(fitted.best.best), fitted.epochs, time.monotonic() - started)


def _prepare(
    config: TrainConfig,
    out: Path,
    on_progress: Progress | None,
    *,
    resume: bool,
    teacher: Path | None,
    tell: Callable[[str], None],
) -> Prepared:
    """Open and align the rasters, and start the run in its folder."""
    L.seed_everything(config.training.seed, verbose=False)
    ready = prepare(config, out, on_progress)
    tell(told(ready))
    tell(number_format.describe(config.training.precision, config.training.accelerator))
    if teacher is not None:
        _require_same_splits(ready, teacher)
    record(ready, out, resume=resume)
    run_folder.begin(config, out, resume=resume)
    return ready


def _resumed_from(out: Path, epochs: int) -> str:
    """What there is to resume, in a sentence.

    Raises:
        CheckpointError: If it is damaged.
    """
    own, teacher = run_folder.last_checkpoint(out), out / run_folder.TEACHER_NAME
    if exists(own):
        return f"Resuming after epoch {finished_epochs(own)} of {epochs}."
    if exists(teacher / run_folder.FUSION_NAME):
        return "Resuming after the training of the teacher; no epoch of its students was finished."
    if exists(run_folder.last_checkpoint(teacher)):
        done = finished_epochs(run_folder.last_checkpoint(teacher))
        return f"Resuming the training of the teacher after epoch {done} of {epochs}."
    return f"{out}: no epoch was finished, so the training starts from the beginning."


def _train(
    config: TrainConfig,
    out: Path,
    ready: Prepared,
    callbacks: list[Callback],
    *,
    resume: bool,
    teacher: Path | None,
    tell: Callable[[str], None],
) -> tuple[Path | None, _Fitted]:
    """Train the teacher where one is needed, then the networks, and write what they leave."""
    students_begun = resume and exists(run_folder.last_checkpoint(out))  # their teacher is in there
    if learner_class(config.method).needs_teacher and teacher is None and not students_begun:
        own = out / run_folder.TEACHER_NAME
        teacher = _train_teacher(config, own, ready, callbacks, resume=resume, tell=tell)
    fitted = _fit(config, config.method, out, ready, callbacks, resume=resume, teacher=teacher, tell=tell)
    if learner_class(config.method).deploys == "bundle":
        return _save(config, out, ready, fitted), fitted
    _summarise(config, out, fitted, None)
    _save_network(out, fitted)
    return None, fitted


def _save_network(out: Path, fitted: _Fitted) -> None:
    """Write the only network of a training as a file of its own."""
    (network,) = fitted.networks.values()
    with durable_file(out / run_folder.FUSION_NAME) as partial:
        partial.write_bytes(save(state_of(network)))


def _check(config: TrainConfig, teacher: Path | None) -> None:
    check_settings(config)
    if teacher is not None and not learner_class(config.method).needs_teacher:
        raise ConfigError(
            f"`teacher`: the method {config.method.name} learns without a teacher. Leave `teacher` out, or take "
            "`method.name='kd'`, protokd or maskedkd."
        )
    if teacher is not None:
        check_teacher(teacher)


def _with_number_format(config: TrainConfig) -> TrainConfig:
    """The configuration with the number format that ``auto`` stands for on this device."""
    precision = number_format.resolve(config.training.precision, config.training.accelerator)
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def _train_teacher(
    config: TrainConfig,
    out: Path,
    ready: Prepared,
    callbacks: list[Callback],
    *,
    resume: bool,
    tell: Callable[[str], None],
) -> Path:
    """Train the network that a method learns from; a finished one is not trained again."""
    if resume and exists(out / run_folder.FUSION_NAME):
        return out
    method = learner_class(config.method).teacher_method(config.method)
    tell(f"Training the teacher, of the method {method.name} ({method.fusion}), first.")
    run_folder.begin(config.model_copy(update={"method": method}), out, resume=resume)
    fitted = _fit(config, method, out, ready, callbacks, resume=resume, teacher=None, tell=tell)
    _save_network(out, fitted)
    (score,) = fitted.best.best.values()
    tell(f"Teacher: best mIoU on val {100 * score:.1f} %. Training its students.")
    return out


def _fit(
    config: TrainConfig,
    method: MethodSettings,
    out: Path,
    ready: Prepared,
    callbacks: list[Callback],
    *,
    resume: bool,
    teacher: Path | None,
    tell: Callable[[str], None],
) -> _Fitted:
    """Run the loop of one method."""
    settings = config.training
    L.seed_everything(settings.seed, verbose=False)
    data = _batches(config, method, ready, tell)
    shape = Shape(
        network_settings(method, config.network),
        {m: len(s.channels) for m, s in ready.specs.items()},
        len(ready.classes),
    )
    counts = class_counts(ready.labels, ready.inside["train"], len(ready.classes))
    weights = torch.from_numpy(class_weights(counts, settings.class_weight_power))
    learner = build_learner(method, shape, weights, config.encoder_weights)
    if teacher is not None and learner.needs_teacher:
        _load_teacher(learner, teacher, own=teacher == out / run_folder.TEACHER_NAME)
    decoupled = config.augmentation.decoupled and not learner.coupled
    radiometry = config.augmentation.with_defaults({m: definition_of(m).radiometry for m in ready.specs})
    augmentation = PairAugmentation(radiometry.model_copy(update={"decoupled": decoupled}))
    task = TrainingTask(
        learner,
        augmentation,
        settings.optimiser,
        ema_decay=settings.ema_decay,
        batch_norm_batches=settings.batch_norm_batches,
        seed=settings.seed,
    )
    best = BestNetworks(settings.patience, learner.network_names)
    timer = Timer()  # goes on counting in a resumed run
    last = _run_loop(settings, out, task, data, [best, timer, *callbacks], resume=resume)
    networks = {name: best.load(name, task.kept.network(name)) for name in learner.network_names}
    return _Fitted(networks, best, last + 1, timer.time_elapsed("train"), data)


def _batches(
    config: TrainConfig, method: MethodSettings, ready: Prepared, tell: Callable[[str], None]
) -> CoregisteredDataModule:
    settings = config.training
    most = round(settings.unlabelled_share * settings.batch_size) if method.learns_without_labels else 0
    if "unlabelled" in ready.inside and not method.learns_without_labels:
        tell(f"The split unlabelled is not used: the method {method.name} learns from labels alone.")
    plan = BatchPlan(
        settings.patch_px,
        settings.batch_size,
        settings.steps_per_epoch,
        settings.balance,
        settings.seed,
        settings.workers,
        most,
    )
    data = CoregisteredDataModule(ready.layers, ready.specs, ready.inside, ready.labels, plan, config.data.aoi)
    if data.unlabelled:
        tell(f"A batch holds {settings.batch_size} patches with labels and {data.unlabelled} without.")
    return data


def _require_same_data(config: TrainConfig, teacher: Path) -> None:
    """Check that a teacher learnt the same thing from the same places."""
    path = teacher / "config.yaml"
    if not path.exists():
        raise ConfigError(no_teacher(path, "no such file"))
    other = load_config(path, {})
    keys = ("data", "classes", "elevation", "network")
    differing = [key for key in keys if getattr(other, key) != getattr(config, key)]
    if other.method.fusion != config.method.fusion:
        differing.append("method.fusion")
    if differing:
        raise ConfigError(
            f"{teacher}: the teacher was trained with other settings: {', '.join(differing)}.\n"
            "Leave `teacher` out, and one is trained first."
        )


def _require_same_splits(ready: Prepared, teacher: Path) -> None:
    """Check that a teacher learnt from nothing that its students are judged on, wherever its splits came from."""
    path = teacher / run_folder.SPLITS_NAME
    if teacher.name == run_folder.TEACHER_NAME and not path.exists():
        path = teacher.parent / run_folder.SPLITS_NAME  # of the run that the teacher was trained for
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file. Expected the splits that the teacher learnt from, as a run leaves them."
        )
    grid = ready.layers.grid
    theirs = AOI(gpd.read_file(path), str(path)).to_crs(crs_of(grid).wkt)
    for learnt, judged in (("train", "val"), ("train", "test"), ("val", "test")):
        if learnt not in theirs.splits or judged not in ready.aoi.splits:
            continue
        # In whole pixels: an edge that both share is a sliver after its way through a file.
        if (inside_mask(theirs.polygons(learnt), grid) & inside_mask(ready.aoi.polygons(judged), grid)).any():
            raise ConfigError(
                f"{teacher}: the teacher's split {learnt!r} reaches into {judged!r} here: what it learnt from must not "
                "be what its students are judged on.\nLeave `teacher` out, and one is trained first."
            )


def _load_teacher(learner: Learner, folder: Path, *, own: bool) -> None:
    path = folder / run_folder.FUSION_NAME
    try:
        learner.load_teacher(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        found = "another network" if isinstance(error, RuntimeError) else str(error)
        raise ConfigError(no_teacher(path, found, own=own)) from error


def _run_loop(
    settings: TrainingConfig,
    out: Path,
    task: TrainingTask,
    data: CoregisteredDataModule,
    callbacks: list[Callback],
    *,
    resume: bool,
) -> int:
    """Let Lightning run; the number of the last epoch."""
    # Written after each epoch under one name; `save_last` alone would write at the end of the training only.
    checkpoint = ModelCheckpoint(out / "checkpoints", "last", save_top_k=1, enable_version_counter=False)
    with warnings.catch_warnings():
        # Lightning's advice on reading processes does not hold here: windows are read faster than they are used.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # A resumed run goes on in its own folder, and the batch is augmented by the module on purpose.
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*overridden `on_after_batch_transfer`.*")
        # Teachers and averages are in evaluation mode all along.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        last = run_folder.last_checkpoint(out)
        goes_on = resume and exists(last)
        finished = finished_epochs(last) if goes_on else 0
        trainer = _trainer(settings, out, [*callbacks, checkpoint], finished)
        if goes_on:
            load_networks(task, last)
            # Reading processes draw patches ahead, before Lightning tells the sampler which epoch it is.
            data.sampler.set_epoch(finished)
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            # The checkpoint is this run's own; numbers and names are all that it holds.
            trainer.fit(task, data, ckpt_path=last if goes_on else None, weights_only=True)
        except SystemExit as error:  # so Lightning ends after Ctrl-C, and the process is deaf to further ones
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from error
    return int(trainer.current_epoch) - 1


def _trainer(settings: TrainingConfig, out: Path, callbacks: list[Callback], finished: int) -> L.Trainer:
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.precision,  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.steps_per_epoch,
            enable_model_summary=False,
            enable_progress_bar=any("Progress" in type(c).__name__ for c in callbacks),
            logger=[TableLog(out / "logs", finished), EventLog(out / "tensorboard")],
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise ConfigError(
            f"training.accelerator {settings.accelerator!r} with training.precision {settings.precision!r} cannot be "
            f"used here: {error}\nTake accelerator auto and precision 32-true."
        ) from error


def _save(config: TrainConfig, out: Path, ready: Prepared, fitted: _Fitted) -> Path:
    grid = ready.layers.grid
    branches: dict[Modality, nn.Module] = fitted.networks
    radii = [receptive_field_radius_px(branches[m], len(ready.specs[m].channels)) for m in branches]
    calibrated = calibrate(branches, fitted.data)
    summary = _summarise(config, out, fitted, calibrated)
    plot_reliability(calibrated.reliability, out / "reliability.png")
    manifest = Manifest(
        name=run_folder.model_name(out),
        classes=ready.classes,
        network=network_settings(config.method, config.network),
        modalities=ready.specs,
        resolution_m=float(np.sqrt(np.prod(pixel_size_m(grid)))),
        crs=f"EPSG:{crs_of(grid).epsg}" if crs_of(grid).epsg else crs_of(grid).wkt,
        footprint=json.loads(shapely.to_geojson(ready.aoi.in_degrees("train"))),
        receptive_field_px=None if None in radii else max(r for r in radii if r is not None),
        calibration=calibrated.calibration,
        training=summary,
    )
    bundle = out / run_folder.BUNDLE_NAME
    try:
        save_bundle(bundle, manifest, branches)
    except BundleError as error:
        with writing(bundle, SafetensorError):
            raise error.__cause__ or error from None
    return bundle


def _summarise(config: TrainConfig, out: Path, fitted: _Fitted, calibrated: Calibrated | None) -> dict[str, Any]:
    """What is worth knowing of a training, for the bundle and for ``metrics.json``."""
    summary: dict[str, Any] = {
        "method": config.method.model_dump(),
        "seed": config.training.seed,
        "epochs": fitted.epochs,
        "patch_px": config.training.patch_px,
        "precision": config.training.precision,
        "val_miou": dict(fitted.best.best),
        "best_epoch": dict(fitted.best.epoch),
        "parameters": {n: sum(p.numel() for p in net.parameters()) for n, net in fitted.networks.items()},
    }
    if calibrated is not None:
        summary["val_calibration_error"] = {
            name: curve.expected_calibration_error for name, curve in calibrated.reliability.items()
        }
    run_folder.save_json(out / "metrics.json", summary)
    # Apart: everything else is the same when a training is repeated.
    run_folder.save_json(out / "timing.json", {"train_seconds": round(fitted.seconds, 1)})
    return summary
