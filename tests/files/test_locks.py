"""Only one process at a time writes into a folder."""

from __future__ import annotations

import pytest
from filelock import FileLock, Timeout

from geocrodino.files.locks import alone


def test_others_wait_until_the_block_ends(tmp_path):
    other = FileLock(tmp_path / ".lock")
    with alone(tmp_path), pytest.raises(Timeout):
        other.acquire(timeout=0)
    other.acquire(timeout=0)
    other.release()


def test_an_error_in_the_block_lets_others_in(tmp_path):
    with pytest.raises(KeyError), alone(tmp_path):
        raise KeyError
    with alone(tmp_path):
        pass


def test_without_locks_nothing_waits(tmp_path):
    with alone(tmp_path / "nowhere"):  # as on a disk that has none: the file of the lock cannot be made
        pass
