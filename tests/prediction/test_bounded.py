"""What a prediction holds in memory is bounded by the number of workers, not by the size of the scene: counted."""

import weakref

import numpy as np
import pytest
from affine import Affine
from helpers.small_scenes import UTM, image, make_bundle, write_raster

from geocrodino import Execution, Tiling, predict
from geocrodino.geo.rasters import warp
from geocrodino.geo.rasters.grid import working_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.prediction.job import Job
from geocrodino.prediction.tiles.predictor import CachedTiles

WORKERS = 2


@pytest.fixture
def alive(monkeypatch):
    """After each computed tile: the number of tile results in memory."""
    original, held, counts = CachedTiles._compute, {}, []

    def compute(self, index):
        values = original(self, index)
        key = object()
        held[key] = weakref.ref(values, lambda _: held.pop(key))
        counts.append(len(held))
        return values

    monkeypatch.setattr(CachedTiles, "_compute", compute)
    return counts


@pytest.mark.parametrize("turned_deg", [0, 30])
@pytest.mark.parametrize("shape", [(150, 201), (330, 450)])
def test_tiles_in_memory_are_those_being_computed(by_pixel, alive, tmp_path, shape, turned_deg):
    bundle = make_bundle(tmp_path / "b", resolution_m=0.7)
    write_raster(tmp_path / "s.tif", image(*shape), transform=UTM @ Affine.rotation(turned_deg))
    predict(
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        bundle,
        "optical",
        tiling=Tiling(core_px=64),
        execution=Execution(workers=WORKERS),
    )
    assert len(alive) >= 12
    assert max(alive) <= WORKERS


@pytest.mark.parametrize("turned_deg", [0, 30])
def test_a_map_has_the_same_bytes_wherever_its_tiles_wait(by_pixel, monkeypatch, tmp_path, turned_deg):
    bundle = make_bundle(tmp_path / "b", resolution_m=0.7)
    write_raster(tmp_path / "s.tif", image(150, 201), transform=UTM @ Affine.rotation(turned_deg))
    for name, in_file in (("file", True), ("memory", False)):
        monkeypatch.setattr(Job, "stores_tiles", in_file)
        predict(tmp_path / "s.tif", tmp_path / f"{name}.tif", bundle, "optical", tiling=Tiling(core_px=64))
    assert (tmp_path / "file.tif").read_bytes() == (tmp_path / "memory.tif").read_bytes()


@pytest.mark.parametrize("resolution_m", [0.7, 1.3, 2.0, 9.0])
def test_pixels_interpolated_at_once_are_bounded(tmp_path, monkeypatch, resolution_m):
    """In any window, with the same values as in one piece."""
    raster = RasterSource.open(write_raster(tmp_path / "s.tif", image(150, 201)))
    grid = working_grid(raster.geobox, resolution_m)
    whole, valid = raster.read(grid)
    original, counts = warp.bilinear, []

    def counted(values, ok, window, positions):
        counts.append(np.broadcast(*positions).size)
        return original(values, ok, window, positions)

    monkeypatch.setattr(warp, "bilinear", counted)
    monkeypatch.setattr(warp, "_SUB_PIXELS", 2000)
    parts, ok = raster.read(grid)
    assert len(counts) > 4
    assert max(counts) <= 2000
    assert parts.tobytes() == whole.tobytes()
    np.testing.assert_array_equal(ok, valid)


def test_classes_alone_wait_in_memory(by_pixel, monkeypatch, tmp_path):
    """A tile of them takes one byte for each pixel, and blocks that are no whole tiles need each tile again."""
    bundle = make_bundle(tmp_path / "b", resolution_m=1.0)
    write_raster(tmp_path / "s.tif", image(150, 201))
    stored = []
    monkeypatch.setattr("geocrodino.prediction.job.TileStore", lambda: stored.append("a file"))
    tiling = Tiling(core_px=64, block_px=40)
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=tiling)
    assert stored == []
