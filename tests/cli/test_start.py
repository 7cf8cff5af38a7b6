"""What commands load before their first line, and for their work."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "lightning", "kornia", "torchgeo", "timm")
SCRIPT = f"""
import json, sys
from geocrodino.cli.app import main

class Watched:
    def __init__(self, stream):
        self.stream, self.first = stream, None
    def write(self, text):
        if self.first is None and text.strip():
            self.first = [text.strip(), [name for name in {HEAVY!r} if name in sys.modules]]
        return self.stream.write(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stdout = watched = Watched(sys.stdout)
sys.argv = ["geocrodino", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print(json.dumps([ended.code, watched.first, loaded]), file=sys.stderr)
"""


@pytest.fixture
def start(town):
    """Run a command beside the generated town: its code, its first text and what was loaded then, and at the end."""

    def run(*words):
        line = [sys.executable, "-c", SCRIPT, *map(str, words)]
        ended = subprocess.run(line, cwd=town.config.parent, capture_output=True, text=True, check=False)
        return json.loads(ended.stderr.splitlines()[-1])

    return run


def test_inspect_needs_no_training_library(start):
    code, (first, _), loaded = start("inspect", "--patch-px", 32)
    assert (code, loaded) == (0, [])
    assert first == "Reading optical, elevation, labels."


def test_inspect_of_one_file(start):
    code, (first, _), loaded = start("inspect", "--optical", "optical.tif")
    assert (code, loaded) == (0, [])
    assert first == "Reading optical."


def test_train_says_what_it_is_about_to_do_before_pytorch_is_loaded(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("an earlier run")  # is refused once the training is loaded
    code, (first, before), loaded = start("train", "--out", tmp_path / "run")
    assert code == 2
    assert first == f"Starting a training in {tmp_path / 'run'}: method crodino; optical.tif, dsm.tif, labels.tif"
    assert before == []
    assert "torch" in loaded
