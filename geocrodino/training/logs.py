"""Losses and scores of every epoch, as a table and for TensorBoard.

Lightning's own loggers write from another thread, or leave half a file on a full disk.
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
    """What Lightning asks of a log that keeps numbers alone."""

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
        """They are in ``config.yaml``."""


class TableLog(_Log):
    """Losses and scores in ``metrics.csv``, a row for each call; the file is whole at any time.

    Args:
        folder: Where the file goes.
        finished: Epochs that an earlier run has finished: its rows are kept, those of later epochs are written again.
    """

    def __init__(self, folder: Path, finished: int = 0) -> None:
        super().__init__(folder)
        self.path = folder / "metrics.csv"
        self._rows = [row for row in _rows(self.path) if int(row["epoch"]) < finished] if finished else []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row.

        Raises:
            OutputError: If the disk does not take it.
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
    """Losses and scores as an event file of TensorBoard, one for each process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the numbers of a step.

        Raises:
            OutputError: If the disk does not take them.
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
    """Rows of an earlier table; a row that was cut short has no number of an epoch and is left out."""
    if not path.exists():
        return []
    with writing(path):  # a table that cannot be read must not be replaced either
        text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    return [{k: v for k, v in row.items() if k and v} for row in rows if (row.get("epoch") or "").isdigit()]
