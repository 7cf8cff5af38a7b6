"""Batches from what many threads ask for."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from geocrodino.prediction.backends.batching import Batches


def tiles(count, shape=(2, 2)):
    return [np.full(shape, i, np.float32) for i in range(count)]


def test_each_gets_its_own_answer():
    batches = Batches(lambda found: [tile.sum() for tile in found], 3)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(batches, tiles(50))) == [4 * i for i in range(50)]


def test_tiles_that_wait_are_taken_together():
    sizes, begun, free = [], Event(), Event()

    def compute(found):
        sizes.append(len(found))
        begun.set()
        free.wait(10)
        return found

    batches = Batches(compute, 4)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(batches, tiles(1)[0])
        begun.wait(10)  # alone, as nobody came
        later = [pool.submit(batches, tile) for tile in tiles(8)]
        while len(batches._waiting) < 8:
            pass
        free.set()
        assert [int(f.result()[0, 0]) for f in later] == list(range(8))
        first.result()
    assert sizes == [1, 4, 4]


def test_only_tiles_of_one_shape_go_together():
    seen = []
    batches = Batches(lambda found: seen.append({tile.shape for tile in found}) or found, 3)
    mixed = [np.zeros((2, 2 + i % 3), np.float32) for i in range(30)]
    with ThreadPoolExecutor(9) as pool:
        assert [found.shape for found in pool.map(batches, mixed)] == [tile.shape for tile in mixed]
    assert all(len(shapes) == 1 for shapes in seen)


def test_what_goes_wrong_is_told_to_all_of_the_batch_and_to_nobody_else():
    sizes, begun, free = [], Event(), Event()

    def compute(found):
        sizes.append(len(found))
        begun.set()
        free.wait(10)
        if any(tile[0, 0] == 1 for tile in found):
            raise ValueError("one")
        return found

    batches = Batches(compute, 2)
    with ThreadPoolExecutor(3) as pool:
        before = pool.submit(batches, np.full((2, 2), 9, np.float32))
        begun.wait(10)
        pair = [pool.submit(batches, tile) for tile in tiles(2)]
        while len(batches._waiting) < 2:
            pass
        free.set()
        assert [str(future.exception()) for future in pair] == ["one", "one"]
        assert before.result()[0, 0] == 9
    assert sizes == [1, 2]
    assert batches(np.full((2, 2), 5, np.float32))[0, 0] == 5


@pytest.mark.parametrize("threads", [1, 4])
def test_without_batches_threads_do_not_wait_for_each_other(threads):
    inside, most = [], []

    def compute(found):
        inside.append(1)
        most.append(len(inside))
        if threads > 1:
            both.wait(0.2)
        inside.pop()
        return found

    both = Event()
    batches = Batches(compute, 1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(batches, tiles(8)))
    assert max(most) == threads
