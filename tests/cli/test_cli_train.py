"""``train --quality`` and the line that announces a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from geocrodino.cli.app import app
from geocrodino.cli.train import MethodOptions, _announcement
from geocrodino.settings.quality import QUALITIES, NamedNetwork, describe_qualities

FOLDER = Path("run")
FILES = "optical.tif, dsm.tif, labels.tif"


@pytest.fixture
def announced(town, monkeypatch):
    from geocrodino.settings.config import load_config

    monkeypatch.setitem(QUALITIES, "fast", NamedNetwork({"encoder": "resnet18", "decoder": "fpn", "depth": 3}))

    def announce(**changes):
        given = {key.replace("__", "."): value for key, value in changes.items()}
        return _announcement(load_config(town.config, given), FOLDER, resume=False)

    return announce


def test_the_option_is_a_key_of_the_configuration():
    assert MethodOptions(quality="fast").values()["quality"] == "fast"
    assert MethodOptions(learning_rate=0.01).values()["training.optimiser.learning_rate"] == 0.01


def test_the_line_names_the_quality_only_if_it_is_given(announced):
    assert announced() == f"Starting a training in run: method crodino; {FILES}"
    assert announced(quality="fast") == f"Starting a training in run: method crodino; quality fast; {FILES}"


def test_the_line_names_the_keys_that_take_precedence(announced):
    assert announced(quality="fast", network__depth=4) == (
        f"Starting a training in run: method crodino; quality fast, but network.depth is 4 as given, not 3; {FILES}"
    )
    assert announced(quality="fast", network__depth=4, network__encoder="resnet34", network__invariant_channels=8) == (
        "Starting a training in run: method crodino; quality fast, but network.encoder is resnet34 as given, not "
        f"resnet18 and network.depth is 4 as given, not 3; {FILES}"
    )


def test_the_help_names_the_default_and_what_a_quality_needs():
    plain = {"COLUMNS": "300", "TERMINAL_WIDTH": "300", "NO_COLOR": "1", "TERM": "dumb"}
    text = CliRunner().invoke(app, ["train", "--help"], env=plain).output
    assert f"Network by name: {describe_qualities()}. See docs/choosing.md." in text


def test_an_unknown_quality_is_refused(run_cli, town):
    code, _, err = run_cli("train", "--config", town.config, "--quality", "good")
    assert code == 2
    assert "quality: input should be 'fast', 'balanced' or 'best', found 'good' (not from the file)" in err
