"""Who works on the blocks makes no difference to the map."""

import builtins
import os
import pickle
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from threading import Lock, get_ident
from types import SimpleNamespace

import pytest
import torch
from affine import Affine
from helpers.small_scenes import UTM, grouped, heights, image, make_bundle, names_in, write_raster

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import BundleError, ConfigError, MissingCRSError, RasterError
from geocrodino.prediction.engine import predict
from geocrodino.prediction.job import BlockPredictor
from geocrodino.prediction.schedule import run_threads, same_bundle

distributed = pytest.importorskip("distributed")

ALONE = {"dashboard": False, "dashboard_address": ":0"}
SHAPE = (90, 130)
BLOCKS = {"core_px": 32, "block_px": 32, "backend": "torch"}  # 15


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_raster(folder / "i.tif", image(*SHAPE))
    metres = heights(*SHAPE)
    metres[20:40, 20:70] = float("nan")  # nodata that does not equal itself
    write_raster(folder / "d.tif", metres, nodata=float("nan"))
    return folder


@pytest.fixture(scope="module")
def by_threads(bundle, scenes):
    out = scenes / "threads.tif"
    predict(scenes / "i.tif", out, bundle, elevation=scenes / "d.tif", **grouped(layers=["entropy"], **BLOCKS))
    return contents(out)


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, scheduler_kwargs=ALONE) as found:
        yield found


def contents(out):
    return [out.with_name(f"{out.stem}{what}.tif").read_bytes() for what in ("", ".decided", ".layers")]


def test_processes_make_the_map_of_threads(bundle, scenes, by_threads, tmp_path):
    steps = []
    summary = predict(
        scenes / "i.tif",
        tmp_path / "m.tif",
        bundle,
        elevation=scenes / "d.tif",
        on_progress=lambda *step: steps.append(step),
        **grouped(layers=["entropy"], workers=1, scheduler="processes", **BLOCKS),
    )
    assert contents(tmp_path / "m.tif") == by_threads
    assert steps == [(done, 15) for done in range(1, 16)]
    assert summary.resumed == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_block(bundle, scenes, by_threads, cluster, tmp_path):
    killed = []

    def kill(finished, _):
        if finished == 3:
            worker = next(iter(cluster.workers.values()))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    predict(
        scenes / "i.tif",
        tmp_path / "m.tif",
        bundle,
        elevation=scenes / "d.tif",
        on_progress=kill,
        **grouped(layers=["entropy"], scheduler=cluster.scheduler_address, **BLOCKS),
    )
    assert len(killed) == 1
    assert contents(tmp_path / "m.tif") == by_threads


def test_what_was_stopped_in_threads_goes_on_in_a_cluster(bundle, scenes, by_threads, cluster, tmp_path):
    def stop(finished, _):
        if finished == 4:
            raise KeyboardInterrupt

    options = {"elevation": scenes / "d.tif", "layers": ["entropy"], **BLOCKS}
    with pytest.raises(KeyboardInterrupt):
        predict(scenes / "i.tif", tmp_path / "m.tif", bundle, on_progress=stop, **grouped(workers=1, **options))
    summary = predict(
        scenes / "i.tif",
        tmp_path / "m.tif",
        bundle,
        **grouped(scheduler=cluster.scheduler_address, resume=True, **options),
    )
    assert summary.resumed == 4
    assert contents(tmp_path / "m.tif") == by_threads


@pytest.mark.parametrize("tiles", [False, True])
def test_relative_names_mean_the_folder_of_the_caller(bundle, scenes, cluster, tmp_path, monkeypatch, tiles):
    """The workers were started in another one."""
    name = "i.tif"
    if tiles:
        name = "tiles"
        (tmp_path / name).mkdir()
        for col in (0, 50):
            where = UTM @ Affine.translation(col, 0)
            write_raster(
                tmp_path / name / f"{col}.tif", image(*SHAPE)[:, :, col : col + (80 if col else 50)], transform=where
            )
    else:
        shutil.copy(scenes / "i.tif", tmp_path)
    shutil.copy(bundle.path, tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    predict(name, "1.tif", "b", "optical", **grouped(scheduler=cluster.scheduler_address, **BLOCKS))
    predict(name, "2.tif", "b", "optical", **grouped(**BLOCKS))
    assert Path("1.tif").read_bytes() == Path("2.tif").read_bytes()


def test_what_goes_wrong_on_a_worker_is_told_as_here(bundle, cluster, tmp_path, monkeypatch):
    # The check of values would find the damage first.
    monkeypatch.setattr("geocrodino.prediction.draft.unusual_values", lambda *_: ())
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": "pixel"}
    path = write_raster(tmp_path / "s.tif", image(256, 64), **tiles)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    said = []
    for scheduler in (None, cluster.scheduler_address):
        with pytest.raises(RasterError) as error:
            predict(path, tmp_path / "m.tif", bundle, "optical", **grouped(workers=1, scheduler=scheduler, **BLOCKS))
        assert error.value.path == path
        said.append(str(error.value).partition("(")[0])
        assert "blocks are finished and kept: go on with `resume=True`." in error.value.__notes__[0]
    assert said[0].startswith(f"{path}: cannot be read at rows ")
    # Which of two damaged places is met first is up to the workers.
    assert said[0].partition(" at rows ")[0] == said[1].partition(" at rows ")[0]


def test_a_block_at_which_every_worker_dies(bundle, scenes, cluster, tmp_path, monkeypatch):
    def died(self, timeout=None):
        raise distributed.KilledWorker("block", SimpleNamespace(address="tcp://there"), 3)

    monkeypatch.setattr(distributed.Future, "result", died)
    with pytest.raises(ConfigError, match=r"^scheduler: several workers in turn died at the same block, most likely"):
        predict(
            scenes / "i.tif",
            tmp_path / "m.tif",
            bundle,
            "optical",
            **grouped(scheduler=cluster.scheduler_address, **BLOCKS),
        )


def test_a_worker_opens_the_networks_once(bundle, kept_networks, scenes, by_threads, tmp_path, monkeypatch):
    """Though a nodata of NaN makes copies of the work differ."""
    opened, start = [], BlockPredictor.__init__
    monkeypatch.setattr(BlockPredictor, "__init__", lambda self, *given: opened.append(1) or start(self, *given))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=False, scheduler_kwargs=ALONE) as both:
        for name in ("1.tif", "2.tif"):
            predict(
                scenes / "i.tif",
                tmp_path / name,
                bundle,
                elevation=scenes / "d.tif",
                **grouped(layers=["entropy"], scheduler=both.scheduler_address, **BLOCKS),
            )
    assert len(opened) == 2  # one for each prediction: the two workers are one process here
    assert contents(tmp_path / "1.tif") == contents(tmp_path / "2.tif") == by_threads


def test_a_bundle_that_is_another_one_on_the_worker(scenes, cluster, tmp_path):
    bundle = make_bundle(tmp_path / "b")
    other = make_bundle(tmp_path / "b", constant=1)
    with pytest.raises(BundleError) as error:
        predict(
            scenes / "i.tif",
            tmp_path / "m.tif",
            bundle,
            "optical",
            **grouped(scheduler=cluster.scheduler_address, **BLOCKS),
        )
    assert str(error.value) == (
        f"{tmp_path / 'b'}: the bundle is another one here. Expected sha256 {bundle.sha256}, found {other.sha256}.\n"
        "Put it where this program and all workers see the same file, and leave it until the work is done."
    )
    assert names_in(tmp_path) == ["b"]


def test_the_same_bundle(bundle, tmp_path):
    assert same_bundle(bundle.path, bundle.sha256).manifest == load_bundle(bundle.path).manifest
    with pytest.raises(BundleError, match="no such bundle"):
        same_bundle(tmp_path / "gone", bundle.sha256)


def test_no_scheduler_answers(bundle, scenes, tmp_path, monkeypatch):
    real = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: real(address, timeout="0.3s"))
    with pytest.raises(ConfigError) as error:
        predict(
            scenes / "i.tif", tmp_path / "m.tif", bundle, "optical", **grouped(scheduler="tcp://127.0.0.1:9", **BLOCKS)
        )
    first, way_out = str(error.value).splitlines()
    assert first.startswith("scheduler tcp://127.0.0.1:9: no Dask scheduler answers (")
    assert way_out == (
        "Start one with `dask scheduler`, workers with `dask worker ADDRESS`, or take `scheduler='processes'`."
    )
    assert names_in(tmp_path) == []


def test_a_scheduler_without_workers(bundle, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.prediction.schedule._WAIT_S", 0.2)
    with distributed.LocalCluster(n_workers=0, processes=False, scheduler_kwargs=ALONE) as empty:
        address = empty.scheduler_address
        with pytest.raises(ConfigError) as error:
            predict(scenes / "i.tif", tmp_path / "m.tif", bundle, "optical", **grouped(scheduler=address, **BLOCKS))
    assert str(error.value) == (
        f"scheduler {address}: no worker has come within 0.2 s.\n"
        f"Start some where this program's files are seen: dask worker {address}"
    )
    assert names_in(tmp_path) == []


def test_without_the_distributed_scheduler(bundle, scenes, tmp_path, monkeypatch):
    found = builtins.__import__

    def missing(name, *rest):
        if name == "distributed":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError) as error:
        predict(scenes / "i.tif", tmp_path / "m.tif", bundle, "optical", **grouped(scheduler="processes", **BLOCKS))
    assert str(error.value) == (
        'scheduler: Dask\'s distributed scheduler is not installed.\nInstall it: pip install "geocrodino[cluster]"'
    )


def test_a_block_that_is_lost_is_an_error_and_no_nodata(bundle, kept_networks, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "geocrodino.prediction.engine.run_threads", lambda predict, todo, *rest: run_threads(predict, todo[1:], *rest)
    )
    with pytest.raises(ValueError, match="expected 15 finished blocks, found 14"):
        predict(scenes / "i.tif", tmp_path / "m.tif", bundle, "optical", **grouped(**BLOCKS))
    assert not (tmp_path / "m.tif").exists()


def test_threads_take_blocks_in_their_order_and_as_many_at_once_as_asked():
    windows = [(i, i + 1, 0, 1) for i in range(40)]
    taken, at_work, most, lock = [], set(), [], Lock()

    def work(window):
        with lock:
            taken.append(window)
            at_work.add(get_ident())
            most.append(len(at_work))
        assert torch.get_num_threads() == 1
        with lock:
            at_work.discard(get_ident())
        return window

    done = []
    run_threads(work, windows, 3, done.append)
    assert taken == windows
    assert sorted(done) == windows
    assert max(most) <= 3


def test_each_thread_computes_alone_whatever_torch_is_told_beside(monkeypatch):
    monkeypatch.setattr("geocrodino.prediction.schedule.one_thread_per_network", nullcontext)
    torch.set_num_threads(2)
    seen = []
    try:
        run_threads(lambda window: torch.get_num_threads(), [(0, 1, 0, 1)] * 4, 2, seen.append)
    finally:
        torch.set_num_threads(1)
    assert seen == [1] * 4


def test_a_failure_in_a_thread_ends_the_work():
    started = []

    def work(window):
        started.append(window)
        if window[0] == 5:
            raise RuntimeError("boom")
        return window

    with pytest.raises(RuntimeError, match="boom"):
        run_threads(work, [(i, i + 1, 0, 1) for i in range(400)], 2, lambda part: None)
    assert len(started) < 100


@pytest.mark.parametrize("kind", [RasterError, MissingCRSError])
def test_errors_of_rasters_cross_to_another_process(kind):
    error = kind("https://host/a b.tif", "broken.\nCopy it: again")
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), found.path) == (kind, str(error), error.path)
