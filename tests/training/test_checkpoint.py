"""Checkpoints: whole or as before, and refused where a training cannot go on with them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from geocrodino.errors import CheckpointError, OutputError
from geocrodino.training.checkpoint import WholeCheckpoints, finished_epochs, load_networks, read_checkpoint

BEST = {"best": {"optical": 0.5}, "epoch": {"optical": 1}, "weights": {"optical": {"weight": torch.ones(2)}}}


def content(**changes):
    network = nn.Linear(2, 1)
    lists = {"optimizer_states": [], "lr_schedulers": [], "loops": {}, "global_step": 8}
    return {"epoch": 3, "state_dict": network.state_dict(), "callbacks": {"BestNetworks": BEST}, **lists, **changes}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint(content(), path)
    return path


def test_what_is_saved_is_read(path):
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    found = read_checkpoint(path)
    assert (found["epoch"], finished_epochs(path)) == (3, 4)  # the epoch counts from 0
    assert found["callbacks"]["BestNetworks"]["weights"]["optical"]["weight"].tolist() == [1, 1]
    network = nn.Linear(2, 1)
    load_networks(network, path)
    assert torch.equal(network.weight, found["state_dict"]["weight"])


@pytest.mark.parametrize("name", ["write_bytes", "replace"])
def test_the_checkpoint_before_survives(path, monkeypatch, name):
    before = path.read_bytes()
    function = getattr(Path, name)

    def half(self, *words):
        if name == "write_bytes":
            function(self, bytes(words[0])[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, name, half)
    with pytest.raises(OutputError) as refused:
        WholeCheckpoints().save_checkpoint(content(epoch=4), path)
    assert str(refused.value) == f"{path}: cannot be written (No space left on device)."
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    "changes", [{"callbacks": {}}, {"callbacks": {"BestNetworks": {"best": {}, "epoch": {}}}}, {"epoch": "3"}]
)
def test_other_content_is_refused(path, changes):
    WholeCheckpoints().save_checkpoint(content(**changes), path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: expected a checkpoint of this version of geocrodino"):
        read_checkpoint(path)


def test_networks_of_another_shape_are_refused(path):
    with pytest.raises(CheckpointError, match=r"last\.ckpt: expected the networks of this training, found others\.\n"):
        load_networks(nn.Linear(3, 1), path)


def test_code_in_a_checkpoint_is_not_run(path, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save(content(loops=Evil()), path)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)
    assert not (tmp_path / "run").exists()
