"""``geocrodino train``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from geocrodino.cli.data_options import DataOptions
from geocrodino.cli.datasets import dataset_values
from geocrodino.cli.options import with_options
from geocrodino.cli.precheck import check_training
from geocrodino.cli.scene_scores import show_folds
from geocrodino.cli.wording import Wording
from geocrodino.errors import ConfigError
from geocrodino.settings.factors import factor_text
from geocrodino.settings.quality import DEFAULT_QUALITY, QUALITIES, describe_qualities

if TYPE_CHECKING:
    from geocrodino.settings.config import TrainConfig


@dataclass(frozen=True)
class MethodOptions:
    """Options of the sections ``training``, ``network`` and ``method``; None leaves the configured value."""

    method: Annotated[
        str | None, typer.Option(help="single, crodino, mutual, or another method: fusion, dropout, kd, protokd, ...")
    ] = None
    patch_px: Annotated[int | None, typer.Option(help="Side of a training patch, px.")] = None
    minutes: Annotated[
        float | None, typer.Option(help="Time for the training, min; sets the number of epochs by a measurement.")
    ] = None
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; each ends with a validation.")] = None
    steps: Annotated[int | None, typer.Option(help="Batches in an epoch.")] = None
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate; 0.002 by default.")] = None
    batch_size: Annotated[
        str | None, typer.Option(help="Patches in a batch; auto: as many as the memory of the device holds.")
    ] = None
    accumulate: Annotated[
        int | None, typer.Option(help="Batches whose gradients are added before the weights change.")
    ] = None
    devices: Annotated[
        str | None, typer.Option(help="GPUs that share each batch, or processes of the CPU; auto: all GPUs.")
    ] = None
    logger: Annotated[
        list[str] | None, typer.Option(help="Lightning's logger beside the own logs: csv, tensorboard, mlflow, wandb.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="Bundle to start from: its branches, as far as channels and classes fit."),
    ] = None
    freeze: Annotated[
        str | None, typer.Option(help="encoder: leave encoders as they are that start from weights; none.")
    ] = None
    quality: Annotated[
        str | None, typer.Option(help=f"Network by name: {describe_qualities()}. See docs/choosing.md.")
    ] = None
    encoder: Annotated[
        str | None,
        typer.Option(help=f"Encoder by its name in timm; {QUALITIES[DEFAULT_QUALITY].keys['encoder']} by default."),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="What encoders start from: imagenet (the default), random, a file, or a name of the Hugging Face hub "
            "or of torchgeo."
        ),
    ] = None
    accelerator: Annotated[str | None, typer.Option(help="cpu, gpu, mps or auto.")] = None
    precision: Annotated[
        str | None,
        typer.Option(help="Number format: 32-true by default; auto takes bfloat16 where the device has it."),
    ] = None

    def values(self) -> dict[str, Any]:
        """Values by dotted key of the configuration."""
        return {
            "training.patch_px": self.patch_px,
            "training.minutes": self.minutes,
            "training.epochs": self.epochs,
            "training.steps_per_epoch": self.steps,
            "training.optimiser.learning_rate": self.learning_rate,
            "training.batch_size": self.batch_size,
            "training.accumulate": self.accumulate,
            "training.devices": self.devices,
            "training.logger": self.logger or None,
            "training.seed": self.seed,
            "training.accelerator": self.accelerator,
            "training.precision": self.precision,
            "training.freeze": self.freeze,
            "start_from": self.start_from,
            "quality": self.quality,
            "network.encoder": self.encoder,
            "encoder_weights": self.weights,
            "method.name": self.method,
        }


@with_options()
def train(
    ctx: typer.Context,
    data: DataOptions,
    learning: MethodOptions,
    cache: Annotated[
        str | None,
        typer.Option(help="copy: write rasters to the training's grid; in_place: read them from their files; auto."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file; geocrodino.yaml of this folder is read by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<date> by default.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Finished run of --method fusion, for kd, protokd and maskedkd.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Make all checks, tell what would be read and written, memory, disk and time, and write nothing.",
        ),
    ] = False,
) -> None:
    """Train an optical and an elevation network together and write one bundle.

    Files, classes and settings come from the options, then --config, then geocrodino.yaml in this folder.

    Example:  geocrodino train --aoi aoi.geojson --optical optical.tif --elevation dsm.tif --labels labels.tif

    Check first:  geocrodino train --config geocrodino.yaml --dry-run
    """
    values = {**data.values(), "data.cache": cache, **learning.values()}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    given = dataset_values(data.dataset, data.root, given, unpack=not dry_run)
    folder = out or Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    check_training(config, copy.deepcopy(given), teacher, folder)

    from geocrodino.settings.config import load_config

    console = Console(highlight=False, soft_wrap=True)
    settings = load_config(config, given)

    wording = Wording(ctx.command)

    def show(line: str) -> None:
        console.print(wording(line), markup=False)

    if dry_run:
        if resume:
            raise ConfigError("--dry-run: tells what a new training needs. Leave --resume out.")
        _show_plan(settings, folder, teacher, show, console, overwrite=overwrite)
        return
    show(_announcement(settings, folder, resume=resume))

    from geocrodino.cli.progress import duration, stages

    with stages(console) as shown:
        # PyTorch and Lightning take seconds to import.
        shown.stage("Loading PyTorch")
        from geocrodino.cli.epochs import EpochLines
        from geocrodino.training.run import train as run

        # Lightning's hints are for developers. Its import resets the log level, so it is set here.
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        splits = settings.data.splits
        if splits is not None and splits.folds is not None and splits.fold is None:
            if teacher is not None:
                raise ConfigError("--teacher: a teacher is trained for each fold. Leave --teacher out.")
            from geocrodino.training.folds import train_folds

            found = train_folds(
                settings,
                folder,
                resume=resume,
                overwrite=overwrite,
                on_progress=shown.advance,
                callbacks=lambda: [EpochLines(show, shown)],
                tell=show,
                on_stage=shown.stage,
            )
            show_folds(found, console, folder)
            return
        result = run(
            settings,
            folder,
            resume=resume,
            overwrite=overwrite,
            teacher=teacher,
            on_progress=shown.advance,
            callbacks=[EpochLines(show, shown)],
            tell=show,
            on_stage=shown.stage,
        )
    scores = ", ".join(f"{m} {100 * v:.1f} %" for m, v in result.val_miou.items())
    epochs = "epoch" if result.epochs == 1 else "epochs"
    show(f"Best mIoU on val: {scores}. {result.epochs} {epochs} in {duration(result.seconds)}.")
    if result.bundle is None:
        show("No bundle: a fusion network needs both rasters at once. Other trainings can use it: --teacher.")
        return
    show(f"Bundle: {result.bundle}")
    show(_next_command(settings, result.bundle))


def _next_command(settings: TrainConfig, bundle: Path) -> str:
    """How to predict with a bundle: an image needs the factor that the images of the training were multiplied by."""
    rescale = settings.data.common_rescale()
    given = "" if rescale is None else f" --rescale {factor_text(rescale)}"
    return f"Next: geocrodino predict SCENE.tif --modality optical{given} --model {bundle}"


def _show_plan(
    settings: TrainConfig,
    folder: Path,
    teacher: Path | None,
    show: Callable[[str], None],
    console: Console,
    *,
    overwrite: bool,
) -> None:
    """Tell what a training would do, without doing it."""
    from geocrodino.cli.progress import stages

    with stages(console) as shown:
        shown.stage("Loading PyTorch")
        from geocrodino.training.dry_run import plan_training

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        plan = plan_training(settings, folder, teacher=teacher, overwrite=overwrite, on_stage=shown.stage, tell=show)
    show(f"Dry run of a training in {folder}: method {settings.method.name}")
    for line in plan.lines():
        show(line)
    show("Nothing was written. Without --dry-run, the training starts.")


def _announcement(settings: TrainConfig, folder: Path, *, resume: bool) -> str:
    """One line on the training that is about to start: its folder, method, files, and a network by name."""
    data = settings.data
    names = [name for name in (*data.raster_paths.values(), data.labels) if name is not None]
    read = ", ".join(name.name if isinstance(name, Path) else f"{len(name)} files" for name in names)
    if data.scenes:
        read = data.scenes.name if isinstance(data.scenes, Path) else f"scenes: {len(data.scenes)}"
    action = "Resuming" if resume else "Starting"
    return f"{action} a training in {folder}: method {settings.method.name}; {_named_network(settings)}{read}"


def _named_network(settings: TrainConfig) -> str:
    """The quality of a training, and the keys of its network that differ, because the settings name them."""
    if settings.quality is None:
        return ""
    network, keys = settings.network, QUALITIES[settings.quality].keys
    differing = [
        f"network.{key} is {getattr(network, key)} as given, not {value}"
        for key, value in keys.items()
        if getattr(network, key) != value
    ]
    exception = f", but {' and '.join(differing)}" if differing else ""
    return f"quality {settings.quality}{exception}; "
