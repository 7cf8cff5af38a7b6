"""Lightning's loop for a training: its trainer, its hints, its checkpoint, and an interruption by the user."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainingConfig
from geocrodino.training import folder as run_folder
from geocrodino.training.checkpoint import WholeCheckpoints, load_networks
from geocrodino.training.learners.base import Learner
from geocrodino.training.logs import EventLog, TableLog
from geocrodino.training.parts import Processes
from geocrodino.training.processes import Together, strategy_of


def run_loop(
    settings: TrainingConfig,
    out: Path,
    task: Any,
    data: CoregisteredDataModule,
    callbacks: list[Callback],
    finished: int,
    processes: Processes | None = None,
    loggers: Sequence[Logger] = (),
) -> int:
    """Train, and write a checkpoint and the logs after each epoch.

    Args:
        settings: Duration and device.
        out: Run folder.
        task: The training task.
        data: Its batches.
        callbacks: Lightning callbacks.
        finished: Epochs that a resumed run has finished; 0 starts from the beginning.
        processes: The processes that share each batch, connected; None: this one alone.
        loggers: Loggers beside the own logs.

    Returns:
        Number of the last epoch, counted from 0.

    Raises:
        ConfigError: If the device or the number format cannot be used.
        CheckpointError: If the checkpoint of a resumed run is damaged or of another training.
        OutputError: If a file cannot be written.
    """
    # Written after each epoch under one name; `save_last` alone would write at the end of the training only.
    checkpoint = ModelCheckpoint(out / "checkpoints", "last", save_top_k=1, enable_version_counter=False)
    processes = processes or Processes()
    task.processes, data.process = processes, (processes.number, processes.count)
    own = [TableLog(out / "logs", finished), EventLog(out / "tensorboard"), *loggers]
    trainer = trainer_of(
        settings,
        processes,
        task.learner,
        some_lack=data.dataset.some_lack,
        max_epochs=settings.epochs,
        log_every_n_steps=settings.steps_per_epoch,
        enable_progress_bar=any("Progress" in type(c).__name__ for c in callbacks),
        logger=own if processes.is_first else False,
        callbacks=[*callbacks, *([Together()] if processes.count > 1 else []), checkpoint],
        plugins=[WholeCheckpoints()],
    )
    last = run_folder.last_checkpoint(out) if finished else None
    if last is not None:
        load_networks(task, last)
        # Reading processes draw patches in advance, before Lightning sets the epoch of the sampler.
        data.sampler.set_epoch(finished)
    fit(trainer, task, data, last)
    return int(trainer.current_epoch) - 1


def trainer_of(
    settings: TrainingConfig,
    processes: Processes | None = None,
    learner: Learner | None = None,
    *,
    some_lack: bool = False,
    **arguments: Any,
) -> L.Trainer:
    """Create a trainer for the device and the number format of the settings.

    Args:
        settings: Device and number format.
        processes: The processes that share each batch, connected; None: this one alone.
        learner: What is trained in several processes.
        some_lack: Whether scenes lack a modality.
        **arguments: Lightning's other arguments.

    Returns:
        The trainer.

    Raises:
        ConfigError: If the device or the number format cannot be used.
    """
    processes = processes or Processes()
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=processes.count,
            strategy=strategy_of(processes, learner, some_lack=some_lack),
            use_distributed_sampler=False,  # each process reads its own rows of the batches already
            precision=settings.precision,  # type: ignore[arg-type]
            num_sanity_val_steps=0,
            enable_model_summary=False,
            **arguments,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise ConfigError(
            f"training.accelerator {settings.accelerator!r} with training.precision {settings.precision!r} cannot be "
            f"used here: {error}\nUse accelerator auto and precision 32-true."
        ) from error


def fit(
    trainer: L.Trainer, task: L.LightningModule, data: CoregisteredDataModule, checkpoint: Path | None = None
) -> None:
    """Run a trainer without Lightning's hints for developers.

    Args:
        trainer: The trainer.
        task: The training task.
        data: Its batches.
        checkpoint: The checkpoint to continue from.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning advises more reading processes, but patches are read faster than the networks use them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        # A resumed run continues in its own folder, and the task augments batches on purpose.
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*overridden `on_after_batch_transfer`.*")
        # DDP copies gradients in another memory layout.
        warnings.filterwarnings("ignore", message=".*Grad strides do not match bucket view strides.*")
        warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated.*")
        # Only the first process validates.
        warnings.filterwarnings("ignore", message=".*recommended to use .self.log.*sync_dist=True.*")
        # Teachers and averages are always in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        try:
            # weights_only: the checkpoint holds numbers and names alone, so no pickled code need run.
            trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as error:  # Lightning raises it after Ctrl-C, and leaves a handler that ignores further ones
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from error
