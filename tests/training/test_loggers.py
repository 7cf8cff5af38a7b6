"""Lightning's loggers by name: files beside the own logs, and a way out if a package is missing."""

from __future__ import annotations

import csv
from importlib.util import find_spec

import pytest

from geocrodino.errors import ConfigError
from geocrodino.training.loggers import loggers_of, require_packages
from geocrodino.training.run import train


def test_files_of_loggers(tiny_config, tmp_path, no_measurement, no_picture):
    out = tmp_path / "run"
    train(tiny_config({"training.logger": ["csv", "tensorboard"]}), out)
    with (out / "loggers" / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss/total"]]
    with (out / "logs" / "metrics.csv").open() as file:
        own = [row for row in csv.DictReader(file) if row["loss/total"]]
    assert [row["loss/total"] for row in rows] == [row["loss/total"] for row in own]
    assert list((out / "loggers" / "tensorboard").glob("events.out.tfevents.*"))
    assert (out / "loggers" / "csv" / "hparams.yaml").read_text().count("training.epochs: 2") == 1


@pytest.mark.filterwarnings("error")
def test_a_resumed_run_keeps_the_rows_of_the_csv_logger(tiny_config, tmp_path):
    for epoch in range(3):
        (logger,) = loggers_of(tiny_config({"training.logger": ["csv"]}), tmp_path)
        logger.log_metrics({"loss": 0.5}, step=epoch)
        logger.save()
    folder = tmp_path / "loggers" / "csv"
    assert [(folder / f"metrics{number}.csv").read_text().split() for number in ("-1", "-2", "")] == [
        ["loss,step", f"0.5,{epoch}"] for epoch in range(3)
    ]


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_package():
    with pytest.raises(ConfigError) as refused:
        require_packages(("csv", "wandb"))
    assert str(refused.value) == (
        "training.logger wandb: expected the package wandb, found none.\nInstall it with: pip install wandb"
    )
