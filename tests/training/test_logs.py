"""Losses and scores on disk: rows, resumed tables, event files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geocrodino.errors import OutputError
from geocrodino.training.logs import EventLog, TableLog


def table(folder):
    return (folder / "metrics.csv").read_text()


def test_a_table_has_a_column_for_each_number(tmp_path):
    log = TableLog(tmp_path / "logs")
    log.log_metrics({"epoch": 0, "val_miou/optical": 0.5}, 1)
    assert table(log.folder) == "epoch,step,val_miou/optical\n0,1,0.5\n"
    log.log_metrics({"epoch": 0, "loss/total": 2.25}, 1)
    assert table(log.folder) == "epoch,loss/total,step,val_miou/optical\n0,,1,0.5\n0,2.25,1,\n"
    assert [p.name for p in log.folder.iterdir()] == ["metrics.csv"]


def test_a_resumed_table_keeps_the_finished_epochs(tmp_path):
    first = TableLog(tmp_path)
    for epoch in range(3):
        first.log_metrics({"epoch": epoch, "loss/total": 3.0 - epoch}, 2 * epoch)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4")  # cut short
    resumed = TableLog(tmp_path, finished=2)
    resumed.log_metrics({"epoch": 2, "loss/total": 0.125}, 4)
    assert table(tmp_path) == "epoch,loss/total,step\n0,3.0,0\n1,2.0,2\n2,0.125,4\n"


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\xff\xfe", b"epoch", b"loss/total,step\n1.0,2\n"])
def test_a_damaged_table_starts_anew(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    TableLog(tmp_path, finished=5).log_metrics({"epoch": 5}, 0)
    assert table(tmp_path) == "epoch,step\n5,0\n"


def test_a_table_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    log = TableLog(tmp_path)
    log.log_metrics({"epoch": 0}, 0)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError) as refused:
        log.log_metrics({"epoch": 1}, 1)
    assert str(refused.value) == f"{tmp_path}/metrics.csv: cannot be written (No space left on device)."
    assert table(tmp_path) == "epoch,step\n0,0\n"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_tensorboard_reads_the_events(tmp_path):
    log = EventLog(tmp_path / "tensorboard")
    assert not log.folder.exists()
    log.log_metrics({"epoch": 0, "loss/total": 0.5}, 3)
    log.log_metrics({"epoch": 1, "loss/total": 0.25}, 7)
    read = EventAccumulator(str(log.folder)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss/total")] == [(3, 0.5), (7, 0.25)]
    assert [e.value for e in read.Scalars("epoch")] == [0, 1]
