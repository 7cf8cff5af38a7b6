"""Losses and scores of every epoch, as a CSV table and for TensorBoard.

Lightning's own loggers are not used: they write from another thread, or leave half a file on a full disk.
"""

from __future__ import annotations

import csv
import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from geocrodino.files.access import durable_file, writing


class _Log(Logger):
    """The methods that Lightning requires of a logger, for logs of numbers only."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the settings are in ``config.yaml``."""


class TableLog(_Log):
    """Losses and scores in ``metrics.csv``, one row per call. The file is complete at any time.

    Args:
        folder: Where the file goes; created if it does not exist.
        finished: Epochs that a resumed run has finished. Rows of these are kept; those of later epochs are written
            again.

    Attributes:
        path: The file.
    """

    def __init__(self, folder: Path, finished: int = 0) -> None:
        super().__init__(folder)
        self.path = folder / "metrics.csv"
        self._rows = [row for row in _rows(self.path) if int(row["epoch"]) < finished] if finished else []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row.

        Args:
            metrics: Values by name.
            step: Number of the training step.

        Raises:
            OutputError: If the file cannot be written.
        """
        self._rows.append({name: str(value) for name, value in {**metrics, "step": step}.items()})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, sorted({name for row in self._rows for name in row}))
        writer.writeheader()
        writer.writerows(self._rows)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with durable_file(self.path) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8", newline="")


class EventLog(_Log):
    """Losses and scores as event files of TensorBoard, one for each process.

    Args:
        folder: Where the file goes; created if it does not exist.

    Attributes:
        path: The file of this process.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the values of a step.

        Args:
            metrics: Values by name.
            step: Number of the training step.

        Raises:
            OutputError: If the file cannot be written.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        with writing(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                records = RecordWriter(file)
                if file.tell() == 0:
                    records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
                event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
                records.write(event.SerializeToString())


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows of an earlier table. A row that was cut short has no epoch and is ignored."""
    if not path.exists():
        return []
    with writing(path):  # a table that cannot be read must not be replaced: raise
        text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    return [{k: v for k, v in row.items() if k and v} for row in rows if (row.get("epoch") or "").isdigit()]
