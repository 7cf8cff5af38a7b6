"""The network at work on single tiles."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from helpers.small_scenes import PixelByPixel, image, make_specs, write_raster

from geocrodino.errors import RasterError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.prediction.tiles.lattice import TileLattice
from geocrodino.prediction.tiles.predictor import SceneInput, TilePredictor


def predictor(tmp_path, calls, keep_tiles, values=None, backend=PixelByPixel):
    path = write_raster(tmp_path / "s.tif", image(64, 64) if values is None else values, nodata=0)
    raster = RasterSource.open(path)
    lattice = TileLattice.exact((64, 64), core_px=16, stride_px=8, receptive_field_px=8)
    scene = SceneInput(raster, make_specs()["optical"], raster.geobox, None, None)
    return TilePredictor(backend(calls), scene, lattice, num_classes=3, keep_tiles=keep_tiles)


def test_a_tile_is_probabilities_and_validity_over_its_support(tmp_path):
    values = image(64, 64)
    values[:, :4] = 0
    tile = predictor(tmp_path, [], 1, values)((0, 0))
    assert (tile.shape, tile.dtype) == ((4, 16, 16), np.float32)
    np.testing.assert_allclose(tile[:-1].sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(tile[-1], np.repeat([0.0, 1.0], [4, 12])[:, None].repeat(16, axis=1))
    np.testing.assert_array_equal(tile[:-1, 4:].argmax(axis=0), values[:, 4:16, :16].argmax(axis=0))


class Trimmed(PixelByPixel):
    """Gives no answer for the outer 3 pixels."""

    trim_px = 3

    def __call__(self, values):
        return super().__call__(values)[:, 3:-3, 3:-3]


def test_a_backend_that_leaves_out_what_is_not_wanted(tmp_path):
    for index in ((0, 0), (1, 2), (3, 3)):
        whole, trimmed = (predictor(tmp_path, [], 1, backend=kind)(index) for kind in (PixelByPixel, Trimmed))
        np.testing.assert_array_equal(trimmed, whole)


def test_a_tile_without_a_valid_pixel_is_not_computed(tmp_path):
    calls = []
    values = image(64, 64)
    values[:, :40, :40] = 0
    tile = predictor(tmp_path, calls, 1, values)((0, 0))
    assert calls == []
    np.testing.assert_array_equal(tile[:-1], np.float32(1 / 3))
    assert (tile[-1] == 0).all()


def test_tiles_are_kept_by_their_last_use(tmp_path):
    calls = []
    tiles = predictor(tmp_path, calls, keep_tiles=2)
    for index in ((0, 0), (0, 1), (0, 0), (0, 2), (0, 0)):  # the third one takes the place of the second
        tiles(index)
    assert len(calls) == 3
    tiles((0, 1))
    assert len(calls) == 4


def test_no_tile_is_kept_where_none_is_wanted_twice(tmp_path):
    calls = []
    tiles = predictor(tmp_path, calls, keep_tiles=0)
    first, second = tiles((1, 1)), tiles((1, 1))
    assert len(calls) == 2
    np.testing.assert_array_equal(first, second)
    assert not tiles._tiles


def test_threads_that_want_one_tile_compute_it_once(tmp_path):
    calls, start = [], Barrier(4)
    tiles = predictor(tmp_path, calls, keep_tiles=4)

    def ask(_):
        start.wait()
        return tiles((2, 2))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(calls) == 1
    assert all(tile is found[0] for tile in found)


def test_a_tile_that_failed_is_tried_again(tmp_path):
    """A file on a network may be there again a moment later."""
    tiles = predictor(tmp_path, [], keep_tiles=4)
    path = tmp_path / "s.tif"
    path.rename(tmp_path / "gone.tif")
    for _ in range(2):
        with pytest.raises(RasterError, match="cannot be read"):
            tiles((0, 0))
    (tmp_path / "gone.tif").rename(path)
    assert tiles((0, 0)).shape == (4, 16, 16)


def test_threads_share_the_tiles_of_neighbouring_windows(tmp_path):
    """Each begins with those that the other is not at; else the second would wait for the first at each tile."""
    calls, both, turns = [], Barrier(2), itertools.count()

    class Slow(PixelByPixel):
        def __call__(self, values):
            if next(turns) < 2:
                both.wait(10)  # fails unless two tiles are computed at once
            return super().__call__(values)

    tiles = predictor(tmp_path, calls, keep_tiles=16, backend=Slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(tiles.window, [(0, 32, 0, 32), (0, 32, 16, 48)])
    assert len(calls) == 6
    np.testing.assert_array_equal(first[:, :, 16:], second[:, :, :16])
