"""The run folder: leftovers of a killed process, one process at a time, the command that leads on."""

from __future__ import annotations

import errno
import os

import pytest
import yaml

from geocrodino.errors import ConfigError, OutputError
from geocrodino.settings.config import load_config, save_config
from geocrodino.training import folder as run_folder


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    names = (".config.partial.yaml", "checkpoints/.last.partial.ckpt", "logs/.metrics.partial.csv")
    left = [*names, *(f"teacher/{name}" for name in names), ".splits.partial.gpkg-journal"]
    kept = ["config.yaml", "checkpoints/last.ckpt", "notes.partial.txt", ".hidden", "teacher/config.yaml"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".bundle.safetensors.abc.part").mkdir()
    run_folder.tidy(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(kept)
    assert not (tmp_path / ".bundle.safetensors.abc.part").exists()


def test_a_refused_training_leaves_no_folder(tmp_path):
    kept = tmp_path / "runs"
    kept.mkdir()
    created = (kept / "a" / "b", kept / "a")
    for content, left in ((None, []), ("a/notes.txt", ["a", "a/notes.txt"])):
        created[0].mkdir(parents=True)
        if content is not None:
            (kept / content).write_text("mine")
        with pytest.raises(OutputError), run_folder.without_empty(created):
            raise OutputError("refused")
        assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*")) == left
    with run_folder.without_empty(created):
        created[0].mkdir()
    assert created[0].exists()


def test_one_process_at_a_time(tmp_path):
    with run_folder.alone(tmp_path):
        with pytest.raises(OutputError, match="another process is training in this folder"), run_folder.alone(tmp_path):
            pass
        assert [p.name for p in tmp_path.iterdir()] == [".training.lock"]
    assert not list(tmp_path.iterdir())
    with run_folder.alone(tmp_path):
        pass


ONWARDS = "it continues after the last finished epoch."
WITH_RESUME = "Make room on its disk, then run the same training with `resume=True, out='{out}'`"
ANEW = (
    "Make room on its disk, then run the same training again: no epoch was finished, so it starts from the beginning."
)


@pytest.mark.parametrize(
    ("options", "progress", "expected"),
    [
        ({}, False, ANEW),
        ({"resume": True}, False, ANEW),
        ({}, True, f"{WITH_RESUME}: {ONWARDS}"),
        ({"resume": True}, True, f"Make room on its disk, then run the same training again: {ONWARDS}"),
        (
            {"overwrite": True},
            True,
            f"{WITH_RESUME}, without `overwrite=True`: {ONWARDS}",
        ),
        ({"overwrite": True, "begun": False}, True, ANEW),  # the checkpoint is of the run that was to be replaced
    ],
)
def test_the_command_that_leads_on(tmp_path, options, progress, expected):
    if progress:
        run_folder.last_checkpoint(tmp_path).parent.mkdir()
        run_folder.last_checkpoint(tmp_path).touch()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    given = {"resume": False, "overwrite": False, "begun": True, **options}
    with pytest.raises(OutputError) as refused, run_folder.with_advice(tmp_path, **given):
        raise OutputError("metrics.json: cannot be written.") from full
    assert str(refused.value) == f"metrics.json: cannot be written.\n{expected.format(out=tmp_path)}"
    with pytest.raises(KeyboardInterrupt) as stopped, run_folder.with_advice(tmp_path, **given):
        raise KeyboardInterrupt
    note = expected.format(out=tmp_path).removeprefix("Make room on its disk, then run ")
    assert stopped.value.__notes__ == [f"Run {note}"]


def test_a_run_from_before_some_settings_has_those_of_its_time(tmp_path):
    """Without the keys it had one learning rate and left out no block; today's defaults are others."""
    record = tmp_path / run_folder.SETTINGS_NAME
    given = {"data": {"optical": "o.tif", "elevation": "e.tif", "labels": "l.tif", "aoi": "a.gpkg"}}
    given["classes"] = [{"value": 0, "name": "a", "colour": "#000000"}, {"value": 1, "name": "b", "colour": "#ffffff"}]
    save_config(load_config(None, given), record)
    now = run_folder.recorded_settings(tmp_path)
    assert (now.training.drop_path, now.training.optimiser.encoder_rate) == ("auto", 0.3)
    tree = yaml.safe_load(record.read_text())
    del tree["training"]["drop_path"], tree["training"]["optimiser"]["encoder_rate"]
    record.write_text(yaml.safe_dump(tree))
    before = run_folder.recorded_settings(tmp_path)
    assert (before.training.drop_path, before.training.optimiser.encoder_rate) == (0, 1)
    with pytest.raises(ConfigError) as refused:
        run_folder.require_same(before, now, tmp_path)
    assert "changed: training.drop_path, training.optimiser.encoder_rate.\n" in str(refused.value)
    assert "write `training: {drop_path: 0, optimiser: {encoder_rate: 1}}`." in str(refused.value)


@pytest.mark.parametrize("inside", ["bundle.safetensors", "teacher", "teacher/fusion.safetensors", ""])
def test_a_training_does_not_start_from_what_it_removes(tmp_path, inside):
    source = tmp_path / inside
    with pytest.raises(ConfigError) as error:
        run_folder.require_kept(tmp_path, {"teacher": None, "start_from": source})
    assert str(error.value) == (
        f"{source}: belongs to the run in {tmp_path}, which `overwrite=True` would remove before anything is learnt "
        "from it.\nExpected `start_from` elsewhere: choose another folder with `out`."
    )
    run_folder.require_kept(tmp_path, {"start_from": tmp_path / "kept" / "bundle.safetensors"})
