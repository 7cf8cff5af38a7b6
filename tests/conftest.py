"""Fixtures for all tests: small rasters, real scenes, a generated scene, a finished run, the command line."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import settings

if TYPE_CHECKING:
    from geocrodino.settings.config import TrainConfig
    from geocrodino.town.write import ScenePaths

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GDAL_CACHEMAX", "64")  # MB; by default, blocks fill a twentieth of the machine's memory
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="geocrodino-tests-")  # for converted networks; removed at exit
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

settings.register_profile("any processor", deadline=None)  # a slow or busy processor is not a failure
settings.load_profile("any processor")

UTM31 = "EPSG:32631"
WriteRaster = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Copy kind and outcome of a reliability test to its report, which reaches the process that prints the table.

    Args:
        items: The collected tests; changed in place.
    """
    for item in items:
        marker = item.get_closest_marker("reliability")
        if marker is not None:
            item.user_properties.append(("reliability", (marker.kwargs["kind"], marker.kwargs["outcome"])))


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of later searches for garbage: with torch, each takes a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """After each file, collect the networks of its trainings, and give free pages back to the system."""
    yield
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries than glibc lack it
        if trim is not None:
            trim(0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """After `make reliability`, print the number of inputs of each kind and what happened to them.

    Args:
        terminalreporter: Holds the reports of all tests and prints lines.
        config: Options of the command line.
    """
    if config.getoption("markexpr") != "reliability":
        return
    outcomes = ("right", "refused", "warned")
    counts: dict[str, Counter[str]] = {}
    for status in ("passed", "failed"):
        for report in terminalreporter.getreports(status):
            for kind, outcome in (tuple(v) for name, v in report.user_properties if name == "reliability"):
                if report.when == "call":
                    counts.setdefault(kind, Counter())[outcome if status == "passed" else "failed"] += 1
    terminalreporter.write_line("| kind | inputs tried | read right | refused | warned of | went wrong |")
    terminalreporter.write_line("|---|---|---|---|---|---|")
    for kind, found in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        numbers = [found.total(), *(found[o] for o in outcomes), found["failed"]]
        terminalreporter.write_line(f"| {kind} | {' | '.join(map(str, numbers))} |")


@pytest.fixture
def write_raster(tmp_path: Path) -> WriteRaster:
    """Write an array, (H, W) or (B, H, W), to a file. Default: north up, corner at (400 km, 5000 km) in UTM zone 31.

    Returns:
        Function of a file name, values and options that returns the path. ``pixel`` and ``origin`` are in units of the
        CRS; ``mask`` is written as an internal mask; other options go to ``rasterio.open``.
    """

    def write(
        name: str,
        values: Any,
        *,
        pixel: float = 1.0,
        origin: tuple[float, float] = (400_000.0, 5_000_000.0),
        transform: Affine | None = None,
        crs: Any = UTM31,
        mask: Any = None,
        colours: Any = None,
        units: str | None = None,
        **options: Any,
    ) -> Path:
        values = np.asarray(values)
        bands = values[None] if values.ndim == 2 else values
        where = transform or Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
        size = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
        path = tmp_path / name
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver="GTiff", crs=crs, transform=where, **size, **options) as target,
        ):
            target.write(bands)
            if mask is not None:
                target.write_mask(np.asarray(mask))
            if colours is not None:
                target.colorinterp = colours
            if units is not None:
                target.units = (units,) * bands.shape[0]
        return path

    return write


@pytest.fixture
def real_data() -> Path:
    """Folder of the real scenes; skips the test if there is none.

    Returns:
        The folder that the variable ``GEOCRODINO_REAL_DATA`` of the environment names.
    """
    folder = os.environ.get("GEOCRODINO_REAL_DATA")
    if not folder:
        pytest.skip("GEOCRODINO_REAL_DATA is not set: tests on real scenes are skipped")
    return Path(folder)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one thread: small networks are slower with several."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> dict[str, dict[str, Any]]:
    """Sections of a configuration whose training takes a second.

    Returns:
        Settings by section and name.
    """
    return {
        "network": {
            "encoder": "tu-test_efficientnet",
            "decoder": "fpn",
            "depth": 3,
            "invariant_channels": 8,
            "decoder_channels": [16],
        },
        "elevation": {"channels": ["height_above_ground"], "ground": {"radii_m": [2.0, 5.0]}},
        "encoder_weights": {},  # random weights
        "training": {"patch_px": 32, "epochs": 2, "steps_per_epoch": 2, "batch_size": 2, "accelerator": "cpu"},
    }


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> ScenePaths:
    """A generated scene, 160 m wide. Tests must not change it.

    Returns:
        Its files.
    """
    from geocrodino.settings.town import SceneSettings
    from geocrodino.town.write import write_scene

    return write_scene(tmp_path_factory.mktemp("town"), SceneSettings(size_m=160))


@pytest.fixture(scope="session")
def tiny_config(town: ScenePaths, tiny: dict[str, dict[str, Any]]) -> Callable[..., TrainConfig]:
    """Configurations whose training takes a second, with changes by dotted key.

    Returns:
        Function from changes to a configuration for the generated scene.
    """
    from geocrodino.settings.config import load_config

    sections = {f"{section}.{k}": v for section, keys in tiny.items() for k, v in keys.items()}

    def make(changes: dict[str, Any] | None = None) -> TrainConfig:
        return load_config(town.config, {**sections, "encoder_weights": {}, **(changes or {})})

    return make


@pytest.fixture(scope="session")
def trained(tiny_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run. Tests must not change it.

    Returns:
        The run folder.
    """
    from geocrodino.training.run import train

    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_config(), out)
    return out


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write bytes in place of the picture of calibration, which takes a tenth of a small training."""
    monkeypatch.setattr(
        "geocrodino.training.run.plot_reliability", lambda curves, path: path.write_bytes(b"\x89PNG" * len(curves))
    )


@pytest.fixture
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a pace in place of measuring it, which takes a third of a small training."""
    from geocrodino.training.pace import Pace

    pace = Pace(step_s=0.1, preparation_s=0.1, batch_s=0.1, steps=2, val_batches=1, final_batches=1)
    monkeypatch.setattr("geocrodino.training.run.measure", lambda *_: pace)


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the program in this process.

    Returns:
        Function from the words of a command to exit code, standard output and standard error.
    """
    from geocrodino.cli.app import main

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geocrodino", *map(str, words)])
        monkeypatch.setenv("GEOCRODINO_DEBUG", "")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run
