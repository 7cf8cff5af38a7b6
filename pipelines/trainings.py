"""Trainings of the pipelines: interrupted ones are continued, finished ones with the same settings are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geocrodino.errors import CheckpointError, ConfigError
from geocrodino.settings.config import TrainConfig
from geocrodino.training.folder import BUNDLE_NAME, FUSION_NAME, TEACHER_NAME, last_checkpoint
from geocrodino.training.run import train

TRAINING = 2
"""Version of the trainings. After an increase, for instance when a loss term changes, finished ones are repeated."""


def record_of(config: TrainConfig) -> dict[str, Any]:
    """Describe a training, to find out later whether it was the same one.

    Args:
        config: Its settings.

    Returns:
        Plain values for JSON.
    """
    return {"training": TRAINING, "settings": config.model_dump(mode="json")}


def is_record_of(record: Mapping[str, Any], config: TrainConfig) -> bool:
    """Find out whether a training was one with these settings, in the present version.

    Args:
        record: As from `record_of`; it may hold more.
        config: The settings.

    Returns:
        Whether it was.
    """
    return record.get("training") == TRAINING and as_now(record["settings"]) == config


def as_now(settings: dict[str, Any]) -> TrainConfig | None:
    """Read stored settings. Settings that were added since get their defaults.

    Args:
        settings: As stored by an earlier run.

    Returns:
        The settings; None if they are no longer valid, for instance because a setting was removed.
    """
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError:
        return None


def train_or_resume(config: TrainConfig, out: Path, teacher: Path | None = None) -> None:
    """Continue an interrupted training, or start one.

    Args:
        config: The settings.
        out: Run folder.
        teacher: Run folder of the teacher, see `geocrodino.train`.
    """
    begun = any(last_checkpoint(folder).exists() for folder in (out, out / TEACHER_NAME))
    if begun and not any((out / n).exists() for n in (BUNDLE_NAME, FUSION_NAME)):
        try:
            train(config, out, resume=True, teacher=teacher)
        except (CheckpointError, ConfigError) as error:
            print(f"Starting anew, because the earlier run cannot be resumed: {error}")
        else:
            return
    train(config, out, overwrite=True, teacher=teacher)


def trained_minutes(config: TrainConfig, out: Path, forget: Callable[[], object]) -> float:
    """Train, unless the folder holds a finished training with the same settings.

    Args:
        config: The settings.
        out: Run folder. Its ``trained.json`` records the settings of a finished training.
        forget: Removes what was made of an earlier training; called before a new one.

    Returns:
        Time of the training, min.
    """
    record = out / "trained.json"
    if not record.exists() or not is_record_of(json.loads(record.read_text()), config):
        forget()
        record.unlink(missing_ok=True)
        print(f"{out}: training", flush=True)
        train_or_resume(config, out)
        minutes = json.loads((out / "timing.json").read_text())["train_seconds"] / 60
        record.write_text(json.dumps({**record_of(config), "minutes": minutes}))
    found: float = json.loads(record.read_text())["minutes"]
    return found
