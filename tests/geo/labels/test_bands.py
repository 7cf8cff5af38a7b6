"""What rasters of several bands look like where labels or a class map are expected."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.errors import LabelError
from geocrodino.geo.labels.bands import check_one_band
from geocrodino.geo.rasters.reader import RasterSource

RNG = np.random.default_rng(0)


def _told(path) -> str:
    with pytest.raises(LabelError) as caught:
        check_one_band(RasterSource.open(path))
    return str(caught.value)


def test_one_band_is_enough(write_raster):
    check_one_band(RasterSource.open(write_raster("a.tif", np.ones((9, 9), np.uint8))))
    check_one_band(RasterSource.open(write_raster("a.layers.tif", np.ones((9, 9), np.uint8))))


def test_two_colours_and_their_command(write_raster):
    bands = np.zeros((3, 9, 9), np.uint8)
    bands[0, :4] = 200
    path = write_raster("a b.tif", bands)
    assert _told(path) == (
        f"{path}: expected one band of class values, found 3 bands. This looks like a colour-coded label image: "
        "2 colours, such as 200,0,0 and 0,0,0.\n"
        "Name the classes of the colours in the configuration:\n"
        'data:\n  label_rules:\n    table:\n      class 1: ["#000000"]\n      class 2: ["#c80000"]\n'
        "Or convert the colours to class values first; 0,0,0 becomes 1, 200,0,0 becomes 2:\n"
        'rio calc "(+ 0 (* 1 (== (read 1 1) 0) (== (read 1 2) 0) (== (read 1 3) 0)) '
        '(* 2 (== (read 1 1) 200) (== (read 1 2) 0) (== (read 1 3) 0)))" '
        f"'{path}' '{path.with_name('a b-classes.tif')}' --dtype uint8 --not-masked"
    )


@pytest.mark.parametrize("nodata", [0, 255])
def test_a_nodata_tag_hides_no_colour(write_raster, nodata):
    bands = np.zeros((3, 9, 9), np.uint8)
    bands[0, :4] = bands[2, :, :4] = 255
    assert "4 colours, such as 255,0,255 and 255,0,0." in _told(write_raster("a.tif", bands, nodata=nodata))


def test_more_colours_than_fit_into_a_command(write_raster):
    reds = np.arange(81).reshape(9, 9) % 40
    told = _told(write_raster("a.tif", np.stack([reds, 0 * reds, 0 * reds]).astype(np.uint8)))
    assert "40 colours, such as 39,0,0 and 38,0,0." in told
    assert "15,0,0 becomes 16 (add the other colours in the same way):" in told


@pytest.mark.parametrize(
    ("bands", "looks"),
    [
        (RNG.integers(0, 255, (3, 30, 30)).astype(np.uint8), "This looks like an image."),
        (RNG.integers(0, 9999, (4, 30, 30)).astype(np.uint16), "This looks like an image."),
        (np.repeat(RNG.integers(0, 5, (1, 30, 30)), 3, axis=0).astype(np.uint8), "The first three of them are equal."),
        (np.stack([np.full((9, 9), 0.25)] * 4).astype(np.float32), "This looks like probabilities of classes"),
        (np.stack([np.eye(9), 1 - np.eye(9), np.zeros((9, 9))]).astype(np.uint8), "This looks like probabilities of"),
        (np.stack([np.eye(9), np.arange(81).reshape(9, 9)]).astype(np.int32), "a band of classes and one of instances"),
        (np.stack([np.eye(9), np.eye(9)]).astype(np.uint8), "This looks like a band of classes and a mask."),
        (RNG.random((2, 30, 30)).astype(np.float32), "This looks like an image or measurements."),
    ],
)  # fmt: skip
def test_what_bands_look_like(write_raster, bands, looks):
    path = write_raster("a.tif", bands)
    told = _told(path)
    assert told.startswith(f"{path}: expected one band of class values, found {len(bands)} bands. ")
    assert looks in told
    assert "rio " in told


def test_an_image_is_not_read_whole(write_raster, monkeypatch):
    from geocrodino.geo.labels import bands as label_bands
    from geocrodino.geo.rasters import values

    path = write_raster("a.tif", RNG.integers(0, 255, (3, 64, 64)).astype(np.uint8))
    monkeypatch.setattr(values, "_BLOCK_PX", 16)
    windows = []
    blocks = values.file_blocks
    monkeypatch.setattr(label_bands, "file_blocks", lambda s: (windows.append(w) or w for w in blocks(s)))
    assert "This looks like an image." in _told(path)
    assert windows == [(0, 4, 0, 64)] * 2  # one for the colours, one for probabilities
