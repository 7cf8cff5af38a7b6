"""A limit of memory makes fewer tiles at once, and never another map."""

import platform
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_scenes import grouped, image, names_in, write_raster
from hypothesis import given
from hypothesis import strategies as st

from geocrodino.errors import ConfigError
from geocrodino.prediction import engine
from geocrodino.prediction.engine import predict
from geocrodino.prediction.memory import parse_memory, peak_growth, workers_within
from geocrodino.settings.prediction import Execution, Outputs, Tiling

MIB = 2**20


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("2GB", 2_000_000_000),
        ("2 GB", 2_000_000_000),
        ("1500MB", 1_500_000_000),
        ("2GiB", 2 * 2**30),
        ("0.5GiB", 2**29),
        ("2gb", 2_000_000_000),
        ("4096", 4096),
        (4096, 4096),
    ],
)
def test_sizes(size, expected):
    assert parse_memory(size) == expected


@pytest.mark.parametrize("size", ["much", "2 XB", "2,5GB", "GB2"])
def test_what_is_no_size(size):
    with pytest.raises(ConfigError) as error:
        parse_memory(size)
    assert str(error.value) == f"memory {size!r} is no size.\nExpected something like 2GB, 1500MB or 2GiB."


def test_tiles_that_fit():
    """Of 1000 MiB 229 are held: 771 remain for tiles of 100, with a tenth to spare for each."""
    assert workers_within(1000 * MIB, 8, 100 * MIB, 229 * MIB) == 7
    assert workers_within(1000 * MIB, 8, 100 * MIB, 231 * MIB) == 6
    assert workers_within(1000 * MIB, 4, 100 * MIB, 229 * MIB) == 4


def test_not_even_one_tile():
    assert workers_within(341 * MIB, 8, 100 * MIB, 230 * MIB) == 1
    with pytest.raises(ConfigError) as error:
        workers_within(339 * MIB, 8, 100 * MIB, 230 * MIB)
    # 230 and 110, and one hundredth so that what is told is enough though it is rounded.
    assert str(error.value) == (
        "memory 339.00 MiB is too little. Expected at least 343.40 MiB, of which 230.00 MiB are the program itself, "
        "its networks and what neighbours share."
    )


@given(st.integers(2**20, 2**36), st.integers(0, 2**36))
def test_the_least_that_is_told_is_enough(each, held):
    with pytest.raises(ConfigError) as error:
        workers_within(held, 1, each, held)
    told = re.search(r"at least ([\d.]+ \w+), of which", str(error.value))[1]
    assert workers_within(parse_memory(told), 1, each, held) == 1


def test_growth_is_that_of_what_runs():
    def take():
        held = np.ones(64 * MIB, np.uint8)
        time.sleep(0.1)
        return len(held)

    assert 60 * MIB < peak_growth(take) < 100 * MIB
    assert peak_growth(lambda: None) < 16 * MIB


def test_the_watch_ends_where_the_work_fails():
    def fail():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        peak_growth(fail)


@pytest.fixture
def measured(monkeypatch):
    """A process of 1000 MiB, a tile of 100 MiB; gives the workers that were taken."""
    taken = []
    run = engine.run_threads
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=1000 * MIB))
    monkeypatch.setattr("geocrodino.prediction.memory.psutil.Process", lambda: process)
    monkeypatch.setattr(engine, "peak_growth", lambda compute: 100 * MIB)
    monkeypatch.setattr(
        engine,
        "run_threads",
        lambda predict, todo, workers, take: taken.append(workers) or run(predict, todo, workers, take),
    )
    return taken


def test_a_limit_takes_workers_and_leaves_the_bytes(bundle, kept_networks, measured, tmp_path):
    scene = write_raster(tmp_path / "s.tif", image(70, 90))
    found = set()
    # Beside the process 64 MiB are GDAL's; the tiles of 32 px that are kept take less than 1 MiB.
    for memory, workers in ((None, 4), ("2GiB", 4), ("1400MiB", 3), (1200 * MIB, 1)):
        predict(
            scene,
            tmp_path / "m.tif",
            bundle,
            "optical",
            tiling=Tiling(core_px=32, block_px=32),
            execution=Execution(workers=4, memory=memory, backend="torch"),
            outputs=Outputs(overwrite=True),
        )
        assert measured[-1] == workers
        found.add((tmp_path / "m.tif").read_bytes())
    assert len(found) == 1


def test_a_large_tile_is_reckoned_from_a_small_one(bundle, by_pixel, measured, tmp_path, monkeypatch):
    """The trial itself must not take more than it may."""
    monkeypatch.setattr(engine, "peak_growth", lambda compute: (compute(), 100 * MIB)[1])
    scene = write_raster(tmp_path / "s.tif", image(100, 3000))
    margin = 2 * 56
    with pytest.raises(ConfigError, match="too little"):  # 1.1 x 100 MiB x 3112 / 1536 beside the process
        predict(
            scene,
            tmp_path / "m.tif",
            bundle,
            "optical",
            tiling=Tiling(core_px=8192, block_px=1024),
            execution=Execution(memory="1200MiB"),
        )
    assert by_pixel == [(3, 104 + margin, 1536)]
    predict(
        scene,
        tmp_path / "m.tif",
        bundle,
        "optical",
        tiling=Tiling(core_px=8192, block_px=1024),
        execution=Execution(memory="1400MiB"),
    )
    assert by_pixel[2:] == [(3, 104 + margin, 3000 + margin)]


def test_the_block_of_each_worker_counts(bundle, by_pixel, measured, tmp_path):
    """Three probabilities of 4 MiB of pixels are 12 MiB more, and as much while they are encoded.

    Classes alone have a tile of 4 MiB, not of four times four, and no band of 4 MiB more that is encoded.
    """
    scene = write_raster(tmp_path / "s.tif", image(2048, 2048))

    def least(*layers):
        with pytest.raises(ConfigError, match="too little") as error:
            predict(
                scene,
                tmp_path / "m.tif",
                bundle,
                "optical",
                tiling=Tiling(core_px=2048),
                execution=Execution(memory="1GiB"),
                outputs=Outputs(layers=layers),
            )
        return float(re.search(r"at least (\d\.\d\d) GiB", str(error.value))[1])

    assert least("confidence", "probabilities") - least("confidence") == pytest.approx(1.1 * 24 / 1024, abs=0.011)
    assert least("confidence") - least() == pytest.approx(1.1 * (60 + 8) / 1024, abs=0.011)


def test_no_more_workers_than_blocks(bundle, by_pixel, measured, tmp_path):
    scene = write_raster(tmp_path / "s.tif", image(20, 20))
    predict(scene, tmp_path / "m.tif", bundle, "optical", execution=Execution(workers=8, memory="8GiB"))
    assert measured == [1]


def test_too_little_memory_leaves_nothing(bundle, by_pixel, measured, tmp_path):
    scene = write_raster(tmp_path / "s.tif", image(70, 90))
    with pytest.raises(ConfigError, match=r"^memory 1\.00 GiB is too little\. Expected at least 1\.\d\d GiB, of which"):
        predict(scene, tmp_path / "m.tif", bundle, "optical", execution=Execution(memory="1GiB"))
    with pytest.raises(ConfigError, match="memory 'a lot' is no size"):
        predict(scene, tmp_path / "m.tif", bundle, "optical", execution=Execution(memory="a lot"))
    assert measured == []
    assert names_in(tmp_path) == ["s.tif"]


def test_too_little_memory_to_go_on_keeps_what_there_is(bundle, by_pixel, measured, tmp_path):
    scene = write_raster(tmp_path / "s.tif", image(70, 90))

    def stop(finished, _):
        raise KeyboardInterrupt

    options = {"core_px": 32, "block_px": 32}
    with pytest.raises(KeyboardInterrupt):
        predict(scene, tmp_path / "m.tif", bundle, "optical", on_progress=stop, **grouped(workers=1, **options))
    with pytest.raises(ConfigError, match="too little") as error:
        predict(scene, tmp_path / "m.tif", bundle, "optical", **grouped(resume=True, memory="1GiB", **options))
    assert error.value.__notes__ == ["1 of 9 blocks are finished and kept: go on with `resume=True`."]
    assert (
        predict(scene, tmp_path / "m.tif", bundle, "optical", **grouped(resume=True, memory="2GiB", **options)).resumed
        == 1
    )


def test_real_memory_is_measured(bundle, kept_networks, tmp_path):
    """With the process as it is: the limit that is told to be the least is enough."""
    scene = write_raster(tmp_path / "s.tif", image(40, 40))
    options = {"core_px": 64, "backend": "torch"}
    with pytest.raises(ConfigError, match="too little"):
        predict(scene, tmp_path / "m.tif", bundle, "optical", **grouped(memory="100MB", **options))
    assert predict(scene, tmp_path / "m.tif", bundle, "optical", **grouped(memory="64GB", **options)).resumed == 0


def test_a_cluster_has_limits_of_its_own(bundle, tmp_path):
    scene = write_raster(tmp_path / "s.tif", image(20, 20))
    with pytest.raises(ConfigError) as error:
        predict(scene, tmp_path / "m.tif", bundle, "optical", execution=Execution(memory="2GB", scheduler="processes"))
    assert str(error.value) == "memory limits only the threads of this process: leave it out with a scheduler."


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize(("call", "shared"), [("", False), ("share_freed_memory()", True)])
def test_threads_share_two_heaps(call, shared):
    script = f"""
import ctypes, threading
from geocrodino.prediction.memory import share_freed_memory
{call}
libc, together = ctypes.CDLL(None), threading.Barrier(8)
libc.malloc.restype = ctypes.c_void_p
def work():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.count("<heap ") <= 2) == shared
