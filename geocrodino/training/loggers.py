"""Lightning's loggers by name, beside the logs that every training writes."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.growth import LOGGERS

FOLDER = "loggers"
"""Folder of the loggers in that of a run."""

_PROJECT = "geocrodino"


def require_packages(names: tuple[str, ...]) -> None:
    """Check that the packages of loggers are installed.

    Args:
        names: Names of loggers.

    Raises:
        ConfigError: If one is missing.
    """
    for name in names:
        package = LOGGERS[name]
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"training.logger {name}: expected the package {package}, found none.\n"
                f"Install it with: pip install {package}"
            )


def loggers_of(config: TrainConfig, out: Path) -> list[Logger]:
    """Create the loggers that a training names, and give them its settings.

    Files go to ``<out>/loggers/<name>``. The CSV logger begins its file anew; that of a run before its interruption
    becomes ``metrics-1.csv`` and so on. MLflow writes to a file there unless ``MLFLOW_TRACKING_URI`` names a server;
    Weights & Biases sends to its server as its own settings say.

    Args:
        config: The configuration; ``training.logger`` names the loggers.
        out: Run folder.

    Returns:
        The loggers.

    Raises:
        ConfigError: If one cannot be started.
    """
    settings = _flat(config.model_dump(mode="json"))
    made: list[Logger] = []
    for name in config.training.logger:
        try:
            made.append(_create(name, out))
            with warnings.catch_warnings():  # the folder of a resumed run is not empty
                warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
                made[-1].log_hyperparams(settings)
        except Exception as error:  # a server that is not reached, or no account: each logger has its own classes
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ConfigError(f"training.logger {name}: cannot be started: {reason}") from error
    return made


def _create(name: str, out: Path) -> Logger:
    own = out.absolute() / FOLDER / name
    own.mkdir(parents=True, exist_ok=True)
    if name == "csv":
        _keep_earlier(own / "metrics.csv")
        return CSVLogger(own.parent, name=name, version="")
    if name == "tensorboard":
        return TensorBoardLogger(own.parent, name=name, version="", default_hp_metric=False)
    if name == "mlflow":
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own / 'mlflow.db'}"
        return MLFlowLogger(experiment_name=_PROJECT, run_name=out.resolve().name, tracking_uri=where)
    return WandbLogger(project=_PROJECT, name=out.resolve().name, save_dir=own)


def _keep_earlier(table: Path) -> None:
    """Give the table of a run before its interruption another name: Lightning's logger would remove it."""
    if table.exists():
        names = (table.with_name(f"{table.stem}-{number}{table.suffix}") for number in count(1))
        table.rename(next(name for name in names if not name.exists()))


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted key; lists as text."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, int | float | str) else str(value)
    return found
