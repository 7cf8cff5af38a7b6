"""The quickstart and the commands of the repository, by their structure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers.scripts import load_script

from geocrodino.cli.app import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quickstart():
    return load_script("pipelines/quickstart.py", "quickstart")


@pytest.fixture
def commands(quickstart, monkeypatch):
    """What the quickstart runs, without running it."""
    ran = []

    def note(line, **options):
        ran.append(line)
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(quickstart, "overview", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--scene", "town", "--out", "runs/q", "--epochs", "3"])
    quickstart.main()
    return ran


def test_a_step_that_fails_ends_the_quickstart(quickstart, monkeypatch):
    ran = []

    def fail(line, **options):
        ran.append(line)
        return subprocess.CompletedProcess(line, 2)

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setattr(sys, "argv", ["quickstart.py"])
    with pytest.raises(SystemExit) as caught:
        quickstart.main()
    assert caught.value.code == 2
    assert len(ran) == 1


def test_the_quickstart_calls_commands_that_there_are(commands):
    group = typer.main.get_command(app)
    names = []
    for line in commands:
        assert line[:3] == [sys.executable, "-m", "geocrodino"]
        name, *words = line[3:]
        group.commands[name].make_context(name, words)
        names.append(name)
    assert names == ["sample", "train", "predict", "predict", "evaluate"]


def test_the_quickstart_predicts_with_each_modality_and_reports_on_test(commands):
    lines = [line[4:] for line in commands]
    assert [line[line.index("--modality") + 1] for line in lines[2:4]] == ["optical", "elevation"]
    assert lines[4][:2] == [lines[i][lines[i].index("--out") + 1] for i in (2, 3)]
    assert lines[4][-2:] == ["--split", "test"]
    assert all("--overwrite" in line for line in lines[:4])  # it can be run again


def test_make_help_lists_every_target():
    targets = {"quickstart", "test", "reliability", "test-oldest", "lint", "docs", "fix", "clean", "help"}
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in told.splitlines()} == targets
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in told.splitlines())
    plain = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert plain == told


def test_continuous_integration_runs_what_a_user_runs():
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-3:] == ["make lint", "make docs", "make test"]
    subprocess.run(["bash", "-n", str(path)], check=True)
