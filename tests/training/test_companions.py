"""Two processes train as one does, and no error leaves one of them waiting."""

from __future__ import annotations

import csv
from datetime import timedelta

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from geocrodino.errors import GeocrodinoError
from geocrodino.training import companions as companions_module
from geocrodino.training import processes as processes_module
from geocrodino.training.companions import _Pickler, companions
from geocrodino.training.run import train

pytestmark = pytest.mark.usefixtures("no_picture", "no_measurement")


def curve(out):
    with (out / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss/total"]]
    return {key: [float(row[key]) for row in rows] for key in rows[0] if key.startswith("loss/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        {"method.name": "single"},
        {"method.contrast": "none", "training.unlabelled_share": 1},  # agreement, auxiliary decoder, orthogonality
        {"method.name": "kd"},
    ],
)
def test_two_processes_have_the_loss_curve_of_one(tiny_config, tmp_path, method):
    """In float64, where Adam does not blow differences of rounding up to the size of a step."""
    shared = {"training.batch_size": 4, "training.epochs": 3, "training.precision": "64-true", **method}
    one = train(tiny_config(shared), tmp_path / "one")
    two = train(tiny_config({**shared, "training.devices": 2}), tmp_path / "two")
    expected, found = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-6, err_msg=key)
    assert two.val_miou == pytest.approx(one.val_miou, abs=1e-3)

    def names(out):
        found = {str(p.relative_to(out)) for p in out.rglob("*") if "tfevents" not in p.name}
        return found, len(list((out / "tensorboard").iterdir()))

    assert names(tmp_path / "two") == names(tmp_path / "one")
    assert "devices: 2" in (tmp_path / "two" / "config.yaml").read_text()
    assert "devices" not in (tmp_path / "one" / "config.yaml").read_text()


class Broken(Callback):
    """Fails in the second step, as a full disk or a bug would."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            raise RuntimeError("power cut")


@pytest.mark.slow
def test_an_error_of_the_first_process_ends_the_others(tiny_config, tmp_path):
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny_config({"training.devices": 2}), tmp_path / "run", callbacks=[Broken()])
    assert not torch.distributed.is_initialized()
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_an_error_of_another_process_is_told_by_the_first():
    with pytest.raises(GeocrodinoError) as failed, companions({"nothing": 1}, 2, "cpu"):
        torch.distributed.barrier()
    assert str(failed.value).startswith("training.devices: process 2 of 2 ended: ")
    assert "unexpected keyword argument 'nothing'" in str(failed.value)


@pytest.mark.slow
def test_a_process_that_dies_while_all_connect_is_not_waited_for(monkeypatch):
    """It is killed after it is ready and before the first connects, which waits for two seconds and ends the other."""
    ready = companions_module._wait_until_ready

    def kill_the_last(folder, others):
        ready(folder, others)
        others[-1].kill()
        others[-1].wait()

    monkeypatch.setattr(companions_module, "_wait_until_ready", kill_the_last)
    monkeypatch.setattr(processes_module, "_TO_CONNECT", timedelta(seconds=2))
    with pytest.raises(GeocrodinoError) as failed, companions({}, 3, "cpu"):
        pytest.fail("all processes have connected")
    assert str(failed.value).startswith("training.devices: process 3 of 3 ended: signal 9")
    assert not torch.distributed.is_initialized()


def test_mapped_arrays_are_passed_on_as_the_place_of_their_file(tmp_path):
    import io
    import pickle

    np.arange(1_000_000, dtype=np.uint8).tofile(tmp_path / "values")
    mapped = np.memmap(tmp_path / "values", np.uint8, "r", shape=(1000, 1000))
    written = io.BytesIO()
    _Pickler(written).dump({"whole": mapped, "part": np.asarray(mapped[2:4, :3])})
    assert len(written.getvalue()) < 2000
    found = pickle.loads(written.getvalue())
    assert np.array_equal(found["whole"], mapped)
    assert np.array_equal(found["part"], mapped[2:4, :3])


def test_arrays_that_repeat_a_value_are_passed_on_as_the_value():
    import io
    import pickle

    whole = np.broadcast_to(np.True_, (3000, 3000))
    written = io.BytesIO()
    _Pickler(written).dump({"whole": whole, "own": np.ones((2, 2), bool)})
    assert len(written.getvalue()) < 2000
    found = pickle.loads(written.getvalue())
    assert found["whole"].strides == (0, 0)
    assert found["whole"].dtype == bool
    assert np.array_equal(found["whole"], whole)
    assert found["own"].flags.writeable
