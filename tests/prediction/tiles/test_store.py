import gc
import tempfile

import numpy as np
import pytest

from geocrodino.errors import MemoryUseWarning
from geocrodino.prediction.tiles.store import StoredTile, TileStore


def tile(seed, shape=(3, 8, 5), dtype=np.float32):
    return np.random.default_rng(seed).random(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_part_of_a_stored_tile_is_that_of_the_array(dtype):
    store, tiles = TileStore(), [100 * tile(seed, dtype=dtype) for seed in range(3)]
    stored = [store.put(values, values.nbytes) for values in tiles]
    for values, kept in zip(tiles, stored, strict=True):
        assert isinstance(kept, StoredTile)
        assert (kept.shape, kept.dtype) == (values.shape, values.dtype)
        for part in (
            (slice(None),) * 3,
            (slice(0, 2), slice(3, 8), slice(1, 4)),
            (slice(-1, None), slice(2), slice(5)),
        ):
            np.testing.assert_array_equal(kept[part], values[part])


def test_smaller_tiles_fit_the_places_of_larger_ones():
    store, small, large = TileStore(), tile(0, (3, 4, 2)), tile(1)
    kept = [store.put(small, large.nbytes), store.put(large, large.nbytes), store.put(small, large.nbytes)]
    for stored, values in zip(kept, (small, large, small), strict=True):
        np.testing.assert_array_equal(stored[:, :, :], values)


def test_the_place_of_a_tile_is_free_when_nobody_needs_it():
    store, values = TileStore(), tile(0)
    kept = [store.put(values, values.nbytes) for _ in range(4)]
    for seed in range(20):
        kept[seed % 4] = None  # the last reference
        kept[seed % 4] = store.put(tile(seed), values.nbytes)
    assert store.slots == 4
    np.testing.assert_array_equal(kept[3][:, :, :], tile(19))


def test_a_tile_stays_in_memory_if_the_file_cannot_be_written(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    values, store = tile(0), TileStore()
    with pytest.warns(MemoryUseWarning) as warned:
        kept = [store.put(values, values.nbytes) for _ in range(2)]
    assert all(each is values for each in kept)
    (told,) = warned
    assert str(told.message) == (
        f"{tempfile.gettempdir()}: tiles that wait for their neighbours cannot be written there (No space left on "
        "device), so they are kept in memory, which the limit `memory` does not count.\n"
        "Set the environment variable TMPDIR to a folder with space."
    )


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning", "error::ResourceWarning")
def test_the_file_is_closed_when_nobody_needs_its_tiles():
    """Python would warn of a file that nobody closed."""
    store, values = TileStore(), tile(0)
    kept, file = store.put(values, values.nbytes), store._file
    del store
    gc.collect()
    assert not file.closed
    np.testing.assert_array_equal(kept[:, :, :], values)
    del kept
    gc.collect()
    assert file.closed
