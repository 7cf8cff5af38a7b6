"""The run folder: whether a training may write there, what it finds, how it starts."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

from geocrodino.config import TrainConfig, load_config, save_config
from geocrodino.errors import ConfigError, OutputError
from geocrodino.geo.files import whole_file

BUNDLE_NAME = "bundle.safetensors"

FUSION_NAME = "fusion.safetensors"
"""The network of the method ``fusion``, which no bundle can hold: it needs both modalities."""

SPLITS_NAME = "splits.gpkg"
"""The polygons that a run was trained and judged on."""

TEACHER_NAME = "teacher"
"""The folder, within that of a run, of the fusion network that was trained for it."""


def last_checkpoint(out: Path) -> Path:
    """Where an interrupted run goes on."""
    return out / "checkpoints" / "last.ckpt"


def check(config: TrainConfig, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a training may start, or go on, in a folder; nothing in it is changed.

    Raises:
        OutputError: If the folder holds what must not be replaced, nothing to resume, or cannot be written.
        ConfigError: If a run is to be resumed with other settings.
    """
    record, finished = out / "config.yaml", any((out / n).exists() for n in (BUNDLE_NAME, FUSION_NAME))
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it: say one of them.")
    if resume and finished:
        raise OutputError(f"{out}: holds a finished run; nothing to resume. Start anew in another folder with --out.")
    if resume and not record.exists():
        raise OutputError(
            f"{out}: holds no run to resume. Name the folder of the run with --out, or leave --resume out."
        )
    if finished and not overwrite:
        raise OutputError(f"{out}: holds a finished run. Choose another folder with --out, or say --overwrite.")
    begun = any(last_checkpoint(folder).exists() for folder in (out, out / TEACHER_NAME))
    if not (resume or overwrite) and record.exists() and begun:
        raise OutputError(f"{out}: holds an interrupted run. Say --resume to go on, or --overwrite to start anew.")
    if resume:
        _require_same(load_config(record, {}), config, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}). Choose another folder with --out.") from error


def keep_inputs(out: Path, digest: dict[str, str], *, resume: bool) -> None:
    """Note what a training reads, or check that it reads what it did before it was interrupted.

    Raises:
        ConfigError: If a resumed run would read something else.
    """
    record = out / "inputs.json"
    if resume and record.exists():
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = [name for name, value in digest.items() if before.get(name) != value]
        if changed:
            raise ConfigError(
                f"{out}: a run can only be resumed on the data that it began with; changed: {', '.join(changed)}.\n"
                "Bring the files back, or start anew in another folder with --out."
            )
    save_json(record, digest)


def begin(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Write the resolved settings; where a run starts anew, remove what an earlier one left.

    Raises:
        OutputError: If the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            made = (BUNDLE_NAME, FUSION_NAME, "metrics.json", "timing.json", "reliability.png")
            for old in (*(out / name for name in made), last_checkpoint(out), *out.glob("best-*")):
                old.unlink(missing_ok=True)
            for old in (out / "logs", out / "tensorboard", out / TEACHER_NAME):
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}). Choose another folder with --out.") from error
    save_config(config, out / "config.yaml")


def csv_logger(out: Path) -> CSVLogger:
    """Losses and scores of each epoch in ``logs/metrics.csv``; a resumed run adds to those that are there."""
    path = out / "logs" / "metrics.csv"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    logger = CSVLogger(out, name="", version="logs")
    writer = logger.experiment  # removes the file
    if before:
        path.write_text(before, encoding="utf-8")
        writer.metrics_keys = next(csv.reader(before.splitlines()))
    return logger


def model_name(out: Path) -> str:
    """Name of the model that a run in a folder makes."""
    words = "".join(c if c.isalnum() or c in "_.-" else "-" for c in out.resolve().name).strip("-_.")
    return f"geocrodino-{words or 'model'}"


def save_json(path: Path, content: object) -> None:
    """Write JSON; the file appears whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2))


def _require_same(before: TrainConfig, now: TrainConfig, out: Path) -> None:
    if before != now:
        changed = _differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
        raise ConfigError(
            f"{out}: a run can only be resumed with its own settings; changed: {', '.join(changed)}.\n"
            f"{_other_number_format(before.training.precision, now.training.precision)}"
            "Take the change back, or start anew in another folder with --out."
        )


def _other_number_format(before: str, now: str) -> str:
    """A line on the number format, which differs without a change of the user's where ``auto`` was asked for."""
    if before == now:
        return ""
    return (
        f"The run began in {before}; expected the same, found {now}. What auto stands for depends on the device: "
        f"set training.precision to {before} in the YAML file to go on here.\n"
    )


def _differences(before: Any, after: Any, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(set(before) | set(after))
        return [d for k in keys for d in _differences(before.get(k), after.get(k), f"{key}.{k}".lstrip("."))]
    return [] if before == after else [key]
