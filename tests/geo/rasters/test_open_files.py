"""Files that stay open between reads: how many, for whom, and that they are still the same."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geocrodino.errors import RasterError
from geocrodino.geo.rasters import open_files, opening
from geocrodino.geo.rasters.open_files import LOOK_S, closed_after, dataset, file_states, kept_open
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window

CORNER = Window(0, 4, 0, 4)


@pytest.fixture(autouse=True)
def none_open(monkeypatch):
    """No file is open from another test, and names of the files that are opened are noted."""
    opened = []

    class Noted(opening._Pixels):
        def __init__(self, name, *args, **options):
            opened.append(str(name))
            super().__init__(name, *args, **options)

    monkeypatch.setattr(open_files, "_open_files", open_files._OpenFiles())
    monkeypatch.setattr(opening, "_Pixels", Noted)
    return opened


@pytest.fixture
def numbered(write_raster):
    """Function of a number that writes a raster which holds it everywhere."""
    return lambda number: RasterSource.open(write_raster(f"{number}.tif", np.full((8, 8), number, np.uint8)))


def corner_of(raster):
    values, _ = raster.read_own(CORNER, (1,))
    return set(values.ravel().tolist())


def put_back_later(path):
    """Give a file a later time of change, as one that was written again has."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_500_000_000))


def test_a_file_is_opened_once(numbered, none_open):
    raster = numbered(3)
    states = file_states(raster)
    none_open.clear()
    for _ in range(3):
        with kept_open(states):
            assert corner_of(raster) == {3}
    assert none_open == [raster.name]
    for _ in range(2):
        assert corner_of(raster) == {3}
    assert len(none_open) == 3  # as everywhere else, each read opens the file


def test_only_so_many_files_stay_open(numbered, none_open, monkeypatch):
    monkeypatch.setattr(open_files, "MOST_OPEN", 2)
    rasters = [numbered(number) for number in range(4)]
    states = file_states(*rasters)
    none_open.clear()
    with kept_open(states):
        for number in (0, 1, 2, 3, 3, 2, 0):
            assert corner_of(rasters[number]) == {number}
    assert len(open_files._open_files._idle) == 2
    assert none_open == [rasters[number].name for number in (0, 1, 2, 3, 0)]


def test_each_thread_has_a_file_of_its_own(numbered):
    raster = numbered(1)
    with kept_open(file_states(raster)), dataset(raster.name) as one, dataset(raster.name) as other:
        assert one is not other


def test_a_changed_file_is_noticed_though_it_is_open(numbered):
    raster = numbered(1)
    states = file_states(raster)
    with kept_open(states):
        corner_of(raster)
        put_back_later(raster.path)
        with pytest.raises(RasterError) as caught:
            corner_of(raster)
    size = raster.path.stat().st_size
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        f"{raster.path}: changed while a training reads it in place: expected {size:,} bytes of "
    )
    assert lines[1] == (
        "Restore the file, or start the training anew. With `data.cache='copy'` a training reads a copy."
    )
    with kept_open(file_states(raster)):
        assert corner_of(raster) == {1}


def test_new_content_is_read_after_a_new_look(numbered, write_raster):
    raster = numbered(1)
    with kept_open(file_states(raster)):
        assert corner_of(raster) == {1}
    raster.path.unlink()
    write_raster("1.tif", np.full((8, 8), 7, np.uint8))
    put_back_later(raster.path)
    with kept_open(file_states(raster)):
        assert corner_of(raster) == {7}


def test_a_file_that_is_gone(numbered):
    raster = numbered(1)
    states = file_states(raster)
    raster.path.unlink()
    with kept_open(states), pytest.raises(RasterError, match=r"1\.tif: part of the scene, but no longer there"):
        corner_of(raster)


@pytest.fixture
def virtual(numbered, tmp_path):
    """A virtual raster over a file that holds 1 everywhere, and that file."""
    raster = numbered(1)
    path = tmp_path / "a.vrt"
    with rasterio.open(raster.path) as part:
        wkt, transform = part.crs.to_wkt(), ", ".join(map(str, part.transform.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>{wkt}</SRS><GeoTransform>{transform}</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">1.tif'
        '</SourceFilename><SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="8" ySize="8"/>'
        '<DstRect xOff="0" yOff="0" xSize="8" ySize="8"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    return RasterSource.open(path), raster.path


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the module believes to have passed, in a list."""
    now = [1000.0]
    monkeypatch.setattr(open_files, "monotonic", lambda: now[0])
    return now


def test_files_behind_a_virtual_raster_are_compared_too(virtual, clock):
    raster, part = virtual
    states = file_states(raster)
    assert [file for file, *_ in states[raster.name]] == [str(raster.path), str(part)]
    with kept_open(states):
        assert corner_of(raster) == {1}
    put_back_later(part)
    clock[0] += LOOK_S - 0.01
    with kept_open(states):
        assert corner_of(raster) == {1}  # not yet looked up again
    clock[0] += 0.02
    for _ in range(2):
        with kept_open(states), pytest.raises(RasterError, match=r"1\.tif: changed while a training reads it in place"):
            corner_of(raster)
    with kept_open(file_states(raster)):  # of another training
        assert corner_of(raster) == {1}


def test_files_behind_a_virtual_raster_are_looked_up_now_and_then(virtual, clock, monkeypatch):
    raster, part = virtual
    states, looked_up = file_states(raster), []
    look_up = open_files.look_up
    monkeypatch.setattr(open_files, "look_up", lambda file: looked_up.append(file) or look_up(file))
    with kept_open(states):
        for _ in range(3):
            corner_of(raster)
        clock[0] += LOOK_S
        corner_of(raster)
    named, behind = str(raster.path), str(part)
    assert looked_up == [named, behind, named, named, named, behind]


def test_files_are_closed_at_the_end(numbered, none_open):
    rasters = [numbered(1), numbered(2)]
    states = file_states(*rasters)
    kept = []

    def interrupted():
        with kept_open(states):
            assert [corner_of(raster) for raster in rasters] == [{1}, {2}]
        kept.extend(each for _, each in open_files._open_files._idle)
        assert [each.closed for each in kept] == [False, False]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), closed_after():
        interrupted()
    assert [each.closed for each in kept] == [True, True]
    assert open_files._open_files._idle == []
    none_open.clear()
    with kept_open(states):
        assert corner_of(rasters[0]) == {1}
    assert none_open == [rasters[0].name]


def test_a_file_without_a_place_is_opened_without_a_warning(tmp_path):
    path = tmp_path / "picture.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="PNG", width=4, height=4, count=1, dtype="uint8") as target:
            target.write(np.full((1, 4, 4), 9, np.uint8))
    states = {str(path): ((str(path), path.stat().st_size, path.stat().st_mtime_ns),)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for watched in (states, {}):
            with kept_open(watched), dataset(str(path)) as opened:
                assert set(opened.read().ravel().tolist()) == {9}


def test_files_that_are_not_watched_are_opened_for_each_read(numbered, none_open):
    raster = numbered(1)
    none_open.clear()
    with kept_open({}):
        assert corner_of(raster) == corner_of(raster) == {1}
    assert len(none_open) == 2


def test_a_damaged_file_is_closed(write_raster):
    path = write_raster("cut.tif", np.arange(10_000, dtype=np.uint16).reshape(100, 100), compress="deflate")
    raster = RasterSource.open(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with kept_open(file_states(raster)), pytest.raises(RasterError, match="the file is damaged or cut short"):
        raster.read_own(Window(0, 100, 0, 100), (1,))
    assert open_files._open_files._idle == []


def _in_a_copy(queue, raster, states):
    before = len(open_files._open_files._idle)
    with kept_open(states):
        queue.put((before, corner_of(raster)))


@pytest.mark.skipif(sys.platform == "win32", reason="no copies of processes")
def test_a_copy_of_the_process_opens_its_own_files(numbered):
    raster = numbered(5)
    states = file_states(raster)
    with kept_open(states):
        corner_of(raster)
    assert len(open_files._open_files._idle) == 1
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_in_a_copy, args=(queue, raster, states))
    process.start()
    found = queue.get()
    process.join()
    assert found == (0, {5})
    with kept_open(states):
        assert corner_of(raster) == {5}
