"""Reading from many files in threads."""

from __future__ import annotations

import threading

import pytest

from geocrodino.errors import RasterError
from geocrodino.geo.rasters import headers
from geocrodino.geo.rasters.headers import read_many


@pytest.mark.parametrize("count", [3, 100])
def test_results_come_in_the_order_of_the_files(count):
    assert list(read_many(lambda number: 2 * number, range(count))) == [2 * number for number in range(count)]


@pytest.mark.parametrize("count", [3, 100])
def test_the_error_of_the_first_file_is_raised(count):
    def read(number):
        if number in {2, 50}:
            raise RasterError(f"{number}.tif", "cut short")
        return number

    with pytest.raises(RasterError, match=r"2\.tif"):
        list(read_many(read, range(count)))


def test_threads_read_many_files_that_take_long_and_none_read_few(monkeypatch):
    here = threading.get_ident()
    monkeypatch.setattr(headers, "_WORTH_S", 0.0)
    assert {*read_many(lambda _: threading.get_ident(), range(32))} == {here}
    assert here not in list(read_many(lambda _: threading.get_ident(), range(40)))[32:]


def test_small_files_are_read_without_threads(monkeypatch):
    monkeypatch.setattr(headers, "_WORTH_S", 1e6)
    assert {*read_many(lambda _: threading.get_ident(), range(100))} == {threading.get_ident()}
