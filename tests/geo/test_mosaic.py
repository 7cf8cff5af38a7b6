"""Many files as one scene: equal to the scene that they were cut from, nothing lost without a word, and an identity."""

from __future__ import annotations

import json
import os
import pickle
import threading
import warnings
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from geocrodino.errors import BandWarning, LeftOutWarning, MissingCRSError, RasterError
from geocrodino.geo import mosaic
from geocrodino.geo.mosaic import MosaicSource, fingerprint, open_scene, source_files
from geocrodino.geo.reader import RasterSource

UTM31 = "EPSG:32631"
LEFT, TOP = 400_000.0, 5_000_000.0
ROWS, COLS = (0, 17, 40, 71), (0, 30, 41, 60, 97)
"""Edges of 3 x 4 tiles of unequal sizes."""


@pytest.fixture
def write_tile(write_raster):
    """Write a raster whose upper left corner lies at a row and a column of the scene, pixels of 1 m."""

    def write(name, values, row=0, col=0, **options):
        return write_raster(name, values, origin=(LEFT + col, TOP - row), **options)

    return write


@pytest.fixture(params=[(1, 2), (0, 0)], ids=["inner tile missing", "corner tile missing"])
def cut(request, write_tile, tmp_path):
    """A scene with a hole, and the same as the folder of its tiles without the one in the hole."""
    rng = np.random.default_rng(5)
    values = rng.normal(500, 200, (2, ROWS[-1], COLS[-1])).astype(np.float32)
    values[:, rng.random(values.shape[1:]) < 0.1] = np.nan
    (tmp_path / "tiles").mkdir()
    for i, (r0, r1) in enumerate(pairwise(ROWS)):
        for j, (c0, c1) in enumerate(pairwise(COLS)):
            if (i, j) == request.param:
                values[:, r0:r1, c0:c1] = np.nan
            else:
                write_tile(f"tiles/{i}-{j}.tif", values[:, r0:r1, c0:c1], r0, c0)
    return RasterSource.open(write_tile("whole.tif", values)), open_scene(tmp_path / "tiles")


def _degrees() -> GeoBox:
    lon, lat = pyproj.Transformer.from_crs(32631, 4326, always_xy=True).transform(LEFT - 3, TOP + 2)
    return GeoBox((70, 80), Affine(1.3e-5, 0, lon, 0, -1.1e-5, lat), "EPSG:4326")


TURNED = Affine.translation(LEFT + 40, TOP + 10) @ Affine.rotation(-40) @ Affine.scale(0.9, -1.2)
GRIDS = {
    "own": GeoBox((75, 101), Affine(1, 0, LEFT - 2, 0, -1, TOP + 1), UTM31),
    "shifted": GeoBox((80, 90), Affine(1, 0, LEFT + 0.31, 0, -1, TOP + 0.44), UTM31),
    "finer": GeoBox((100, 120), Affine(0.6, 0, LEFT - 5.2, 0, -0.6, TOP - 3), UTM31),
    "mean of 3.3": GeoBox((22, 30), Affine(3.3, 0, LEFT, 0, -3.3, TOP), UTM31),
    "rotated": GeoBox((70, 80), TURNED, UTM31),
    "degrees": _degrees(),
}


# --- one scene ------------------------------------------------------------------------------------------------------


def test_the_tiles_of_a_scene_have_its_grid_and_header(cut):
    whole, tiles = cut
    assert isinstance(tiles, MosaicSource)
    assert tiles.geobox == whole.geobox
    assert tiles.path.name == "tiles"
    assert tiles.describe() == "11 files, 2 bands float32, 71 rows x 97 columns at 1 m, EPSG:32631"
    for name in ("count", "dtype", "band_names", "data_bands", "alpha_band", "has_mask", "unit"):
        assert getattr(tiles, name) == getattr(whole, name)


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
@pytest.mark.parametrize("name", GRIDS)
def test_on_any_grid_the_tiles_read_as_the_scene(cut, name, kind):
    whole, tiles = cut
    bands = (1,) if kind == "categorical" else None
    expected, valid = whole.read(GRIDS[name], bands=bands, kind=kind)
    found, ok = tiles.read(GRIDS[name], bands=bands, kind=kind)
    assert valid.any()
    assert found.tobytes() == expected.tobytes()
    assert ok.tobytes() == valid.tobytes()


def test_any_window_of_the_tiles_is_that_of_the_scene(cut):
    whole, tiles = cut

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(-20, 80), st.integers(-20, 110), st.integers(1, 60), st.integers(1, 60), st.permutations((1, 2)))
    def check(row, col, height, width, bands):
        window = (row, row + height, col, col + width)
        for band_set in (tuple(bands), tuple(bands[:1])):
            expected, valid = whole.read_own(window, band_set)
            found, ok = tiles.read_own(window, band_set)
            assert found.tobytes() == expected.tobytes()
            assert ok.tobytes() == valid.tobytes()

    check()


def test_a_turned_scene(write_raster, tmp_path):
    values = np.random.default_rng(6).normal(size=(20, 30)).astype(np.float32)
    whole = RasterSource.open(write_raster("whole.tif", values, transform=TURNED))
    (tmp_path / "tiles").mkdir()
    for col in (0, 13):
        part = values[:, col : 13 if col == 0 else 30]
        write_raster(f"tiles/{col}.tif", part, transform=TURNED @ Affine.translation(col, 0))
    found, ok = open_scene(tmp_path / "tiles").read(GRIDS["shifted"])
    expected, valid = whole.read(GRIDS["shifted"])
    assert valid.sum() > 300
    np.testing.assert_array_equal(ok, valid)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_corner_file_says_to_the_last_bit_where_the_scene_begins(write_raster):
    # 700000.7 less 3 pixels of 0.1 m is not 700000.4 in double precision.
    assert 700_000.7 - 3 * 0.1 != 700_000.4
    ones = np.ones((3, 3), np.uint8)
    right = write_raster("a.tif", ones, pixel=0.1, origin=(700_000.7, TOP))
    left = write_raster("b.tif", ones, pixel=0.1, origin=(700_000.4, TOP))
    assert open_scene([right, left]).geobox.affine.c == 700_000.4


def test_where_files_overlap_the_first_valid_one_decides(write_tile):
    one = write_tile("b.tif", np.array([[1, -1, 1, -1]], np.float32), 0, 0, nodata=-1)
    two = write_tile("a.tif", np.array([[2, 2, -9, -9]], np.float32), 0, 1, nodata=-9)
    for files, expected in (([one, two], [1, 2, 1, np.nan, np.nan]), ([two, one], [1, 2, 2, np.nan, np.nan])):
        found, valid = open_scene(files).read_own((0, 1, 0, 5), (1,))
        np.testing.assert_array_equal(found[0, 0], expected)
        np.testing.assert_array_equal(valid[0], ~np.isnan(expected))
    # A folder is read in the order of names.
    np.testing.assert_array_equal(open_scene(one.parent).read_own((0, 1, 1, 3), (1,))[0][0, 0], [2, 2])


def test_members_keep_their_own_marks_of_validity(write_tile):
    rgba = np.array([[[5, 5]], [[6, 6]], [[4, 4]], [[255, 0]]], np.uint8)
    tagged = write_tile("a.tif", np.array([[[7, 9]], [[7, 8]], [[7, 9]]], np.uint16), 0, 0, nodata=7)
    clear = write_tile("b.tif", rgba, 0, 2, colours=RGBA)
    source = open_scene([tagged, clear])
    assert (source.count, source.data_bands, source.band_names) == (3, (1, 2, 3), ("band 1", "band 2", "band 3"))
    assert (source.nodata, source.alpha_band, source.has_mask, source.dtype) == (None, None, True, "uint16")
    found, valid = source.read(source.geobox)
    assert valid.tolist() == [[False, True, True, False]]
    np.testing.assert_array_equal(found[:, 0, 1:3], np.array([[9, 8, 9], [5, 6, 4]]).T)


def test_marks_that_all_members_share_are_those_of_the_mosaic(write_tile):
    files = [write_tile(f"{i}.tif", np.ones((3, 4), np.float32), 0, 4 * i, nodata=np.nan) for i in range(2)]
    source = open_scene(files)
    assert np.isnan(source.nodata)
    assert (source.has_mask, len(source.headers)) == (False, 1)


def test_ten_thousand_members_are_light(write_tile, tmp_path):
    model = RasterSource.open(write_tile("a.tif", np.ones((10, 20), np.uint8)))
    places = [(row * 10, col * 20) for row in range(100) for col in range(100)]
    grids = [GeoBox((10, 20), Affine(1, 0, LEFT + col, 0, -1, TOP - row), UTM31) for row, col in places]
    sources = [
        RasterSource(**{**vars(model), "path": tmp_path / f"tile_{n:05d}.tif", "geobox": grid})
        for n, grid in enumerate(grids)
    ]
    source = MosaicSource.join(sources, tmp_path)
    assert source.geobox.shape == (1000, 2000)
    assert [source.member(n) for n in (0, 4321, 9999)] == [sources[n] for n in (0, 4321, 9999)]
    packed = pickle.dumps(source)
    assert len(packed) < 150_000
    copy = pickle.loads(packed)
    assert (copy, hash(copy)) == (source, hash(source))
    np.testing.assert_array_equal(copy.boxes, source.boxes)


def test_only_the_files_in_the_window_are_opened(cut, monkeypatch):
    _, tiles = cut
    read = []
    own = RasterSource.read_own

    def watched(self, window, bands):
        read.append((self.path.name, window))
        return own(self, window, bands)

    monkeypatch.setattr(RasterSource, "read_own", watched)
    tiles.read_own((35, 40, 28, 41), (1,))  # rows 18 to 22 of the second row of tiles
    assert read[0] == ("1-0.tif", (18, 23, 28, 30))
    assert {name for name, _ in read} == {"1-0.tif", "1-1.tif"}


def test_a_file_that_others_cover_is_not_read(write_tile):
    over, under = (write_tile(name, np.ones((4, 4), np.uint8)) for name in ("a.tif", "b.tif"))
    source = open_scene([over, under])
    under.unlink()
    assert source.read_own((0, 4, 0, 4), (1,))[1].all()


def test_every_header_is_read_once(write_tile, monkeypatch):
    files = [write_tile(f"{i}.tif", np.ones((4, 4), np.uint8), 0, 4 * i) for i in range(3)]
    opened = []
    real = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda name, *a, **k: (opened.append(name), real(name, *a, **k))[1])
    open_scene(files)
    assert opened == [str(file) for file in files]


def test_a_member_that_is_damaged_is_named_where_it_is_read(write_tile):
    files = [write_tile(f"{i}.tif", np.ones((64, 64), np.uint8), 0, 64 * i) for i in range(2)]
    source = open_scene(files)
    content = files[1].read_bytes()
    files[1].write_bytes(content[: len(content) // 2])
    assert source.read_own((0, 64, 0, 64), (1,))[1].all()
    with pytest.raises(RasterError) as caught:
        source.read_own((0, 64, 60, 70), (1,))
    assert str(caught.value).startswith(f"{files[1]}: cannot be read at rows 0 to 64, columns 0 to 6: the file is dam")


# --- what is no scene -----------------------------------------------------------------------------------------------

RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
WARP = "\nWarp it onto the pixels of the other one first, or read it as a scene of its own."
ALIKE = "\nName only files that are alike."


def _named(path, names):
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = names


@pytest.mark.parametrize(
    ("bands", "options", "problem"),
    [
        (2, {"crs": "EPSG:32632"}, f"expected the CRS EPSG:32631, found EPSG:32632.{WARP}"),
        (
            2,
            {"pixel": 2.0},
            "expected pixels with steps of (1, 0) a column and (0, -1) a row, found steps of (2, 0) a column and "
            f"(0, -2) a row, in units of the CRS.{WARP}",
        ),
        (
            2,
            {"transform": Affine(1, 0, LEFT + 4.25, 0, -1, TOP - 0.5)},
            f"expected a shift by whole pixels, found 0.5 rows and 0.25 columns more.{WARP}",
        ),
        (1, {}, f"expected 2 data bands, found 1 data band.{ALIKE}"),
        (
            4,
            {"colours": RGBA},
            f"expected 2 data bands, found 3 data bands and transparency.{ALIKE}",
        ),
        (2, {"units": "metre"}, f"expected no unit, found the unit metre.{ALIKE}"),
    ],
    ids=["crs", "size", "shift", "bands", "alpha", "unit"],
)
def test_files_that_are_not_of_one_scene(write_raster, bands, options, problem):
    first = write_raster("a.tif", np.ones((2, 4, 4), np.uint8))
    options = {"origin": (LEFT + 4, TOP), **options}
    second = write_raster("b.tif", np.ones((bands, 4, 4), np.uint8), **options)
    with pytest.raises(RasterError) as caught:
        open_scene([first, second])
    assert str(caught.value) == f"{second}: not of one scene with {first}: {problem}"
    assert caught.value.path == second


def test_bands_of_other_names(write_tile):
    first, second = (write_tile(f"{i}.tif", np.ones((2, 4, 4), np.uint8), 0, 4 * i) for i in range(2))
    _named(first, ("red", "green"))
    _named(second, ("green", "red"))
    with pytest.raises(RasterError) as caught:
        open_scene([first, second])
    assert str(caught.value) == (
        f"{second}: not of one scene with {first}: expected bands named red, green, "
        f"found bands named green, red.{ALIKE}"
    )


@pytest.mark.parametrize(("shift", "one"), [(0.009, True), (0.012, False)])
def test_a_hundredth_of_a_pixel_is_no_shift(write_tile, shift, one):
    files = [write_tile(f"{i}.tif", np.ones((4, 4), np.uint8), shift * i, 4 * i) for i in range(2)]
    if one:
        assert open_scene(files).geobox.shape == (4, 8)
    else:
        with pytest.raises(RasterError, match=r"shift by whole pixels, found 0\.012 rows and 0 columns more\."):
            open_scene(files)


def test_no_raster_to_join():
    with pytest.raises(ValueError, match="a mosaic needs at least one raster"):
        MosaicSource.join([], Path("nothing"))


# --- folders and patterns -------------------------------------------------------------------------------------------


def test_one_file_is_a_plain_raster(write_tile, tmp_path):
    path = write_tile("a.tif", np.ones((4, 4), np.uint8))
    expected = RasterSource.open(path)
    for named in (path, str(path), [path], tmp_path, tmp_path / "*.tif"):
        found = open_scene(named)
        assert (type(found), found) == (RasterSource, expected)


def test_a_folder_says_what_of_it_is_not_read(write_tile, tmp_path):
    (tmp_path / "north").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / ".map.tif.part").mkdir()
    for name in ("a.tif", "b.TIFF", "c.jp2.aux.xml", "map.classes.tif", ".d.tif", "e.png", "north/f.tif", "notes.md"):
        write_tile(name, np.ones((4, 4), np.uint8))
    write_tile(".map.tif.part/g.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(tmp_path / "map.classes.tif", "r+") as dataset:
        dataset.update_tags(CLASSES="[]")
    with pytest.warns(LeftOutWarning) as caught:
        source = open_scene(tmp_path)
    assert source.files == (str(tmp_path / "a.tif"), str(tmp_path / "b.TIFF"))
    assert [str(w.message) for w in caught] == [
        f"{tmp_path}: not read as part of the scene: 1 hidden file (.d.tif); 1 file of another kind (e.png); "
        f"1 sub-folder (north), whose rasters {tmp_path}/**/*.tif would name; 1 map made by geocrodino "
        "(map.classes.tif)."
    ]
    assert caught[0].filename == __file__


def test_many_files_left_out_are_counted(write_tile, tmp_path):
    for number in range(7):
        write_tile(f"{number}.png", np.ones((4, 4), np.uint8))
    write_tile("a.tif", np.ones((4, 4), np.uint8))
    with pytest.warns(LeftOutWarning, match=r"7 files of other kinds \(0.png, 1.png, 2.png, 3.png, 4.png and 2 more\)"):
        assert type(open_scene(tmp_path)) is RasterSource


def test_a_folder_that_cannot_be_looked_into(write_tile, tmp_path, monkeypatch):
    write_tile("a.tif", np.ones((4, 4), np.uint8))
    (tmp_path / "lost+found").mkdir()
    listed = Path.iterdir

    def locked(self):
        if self.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.warns(LeftOutWarning, match=r"1 sub-folder \(lost\+found\)"):
        open_scene(tmp_path)
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path / "lost+found")
    assert str(caught.value) == (
        f"{tmp_path / 'lost+found'}: the folder cannot be read (Permission denied). Check its permissions."
    )


def test_a_folder_without_rasters(tmp_path, write_tile):
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no raster to read. Expected files of a scene, such as *.tif, found none."
    )
    with rasterio.open(write_tile("map.tif", np.ones((4, 4), np.uint8)), "r+") as dataset:
        dataset.update_tags(BUNDLE_SHA256="0")
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no raster to read. Expected files of a scene, such as *.tif, "
        "found 1 map made by geocrodino (map.tif)."
    )


def test_a_map_that_is_named_itself_is_opened(write_tile):
    path = write_tile("map.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASSES="[]")
    assert open_scene(path) == RasterSource.open(path)


def test_patterns(write_tile, tmp_path):
    (tmp_path / "x").mkdir()
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(("b2.tif", "x/a1.tif"))]
    assert open_scene(tmp_path / "**" / "*[12].tif").files == tuple(map(str, files))
    assert open_scene(f"{tmp_path}/b?.tif") == RasterSource.open(files[0])
    literal = write_tile("[a]*.tif", np.ones((4, 4), np.uint8))
    assert open_scene(literal).path == literal
    with pytest.raises(RasterError) as caught:
        open_scene(f"{tmp_path}/*.img")
    assert str(caught.value) == (
        f"{tmp_path}/*.img: no file matches the pattern. Relative ones start at the working folder, ** goes into "
        "sub-folders, and a [ that is part of a name is written [[]."
    )


def test_several_things_at_once(write_tile, tmp_path):
    (tmp_path / "x").mkdir()
    names = ("x/a.tif", "x/b.tif", "c.tif")
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(names)]
    source = open_scene([files[2], tmp_path / "x"])
    assert source.files == tuple(map(str, (files[2], files[0], files[1])))
    assert source.path == tmp_path


def test_relative_and_absolute_names_together(write_tile, tmp_path, monkeypatch):
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(("a.tif", "b.tif"))]
    monkeypatch.chdir(tmp_path)
    assert open_scene(["a.tif", files[1]]).geobox.shape == (4, 8)
    with pytest.raises(RasterError) as caught:
        open_scene(["a.tif", files[1], tmp_path / ".." / tmp_path.name / "a.tif"])
    assert str(caught.value) == (
        f"{tmp_path}/../{tmp_path.name}/a.tif: named twice: it is the same file as a.tif. Name each file once."
    )


def test_an_empty_list():
    with pytest.raises(RasterError) as caught:
        open_scene([])
    assert str(caught.value) == "scene: the list of files is empty. Expected at least one raster."


def test_a_member_that_is_no_raster(write_tile, tmp_path):
    first = write_tile("a.tif", np.ones((4, 4), np.uint8))
    (tmp_path / "b.tif").write_text("hello")
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'b.tif'}: not a raster that GDAL can open (")
    write_tile("c.tif", np.ones((4, 4), np.uint8), crs=None)
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    told = str(caught.value).split("\n")
    assert told[0] == f"{tmp_path}: 2 of 3 files cannot be used, such as"
    assert told[1].startswith(f"{tmp_path / 'b.tif'}: not a raster")
    assert told[2].startswith(f"{tmp_path / 'c.tif'}: no coordinate reference system.")
    with pytest.raises(MissingCRSError):
        open_scene([first, tmp_path / "c.tif"])


def test_bands_tagged_by_mistake_are_told_of_once(write_tile, tmp_path):
    values = np.random.default_rng(7).integers(1, 255, (4, 20, 20)).astype(np.uint8)
    files = [write_tile(f"{i}.tif", values, 0, 20 * i, colours=RGBA) for i in range(3)]
    count = np.unique(values[3]).size
    with pytest.warns(BandWarning) as caught:
        source = open_scene(tmp_path)
    assert source.data_bands == (1, 2, 3, 4)
    assert [str(w.message) for w in caught] == [
        f"{files[0]}: band 4 is tagged as transparency but holds {count} different values: it is read as data. "
        "So it is in 2 more of the files."
    ]


# --- lists ----------------------------------------------------------------------------------------------------------


def test_a_list_of_files(write_tile, tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(("x/ü 1.tif", "#b.tif"))]
    text = f"# the scene\r\n\r\n./ü 1.tif\r\n{files[1]}  \r\n"
    (tmp_path / "x" / "scene.lst").write_bytes(b"\xef\xbb\xbf" + text.encode())
    monkeypatch.chdir(tmp_path)
    source = open_scene("x/scene.lst")
    assert source.files == ("x/ü 1.tif", str(files[1]))
    assert source.path == Path("x/scene.lst")


def test_lists_that_lead_nowhere(tmp_path):
    path = tmp_path / "scene.txt"
    for content, words in (
        (b"# nothing\n", "the list names no file. Expected one path or URL a line."),
        (
            b"\nx.tif\n\n/y/z.tif\n",
            f"2 of its files are not there (line 2: {tmp_path}/x.tif, line 4: /y/z.tif). "
            "Relative paths start at the folder of this file.",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(RasterError) as caught:
            open_scene(path)
        assert str(caught.value) == f"{path}: {words}"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RasterError, match=r"scene\.txt: cannot be read as text \(.*\)\. Expected UTF-8\."):
        open_scene(path)
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path / "none.txt")
    assert str(caught.value) == (
        f"{tmp_path}/none.txt: no such file. Check the path; relative ones start at the working folder."
    )


# --- URLs -----------------------------------------------------------------------------------------------------------


class _Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, in parts as asked for."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        start, stop = 0, len(content)
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last) + 1, stop)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Address of the files in the test's folder."""
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_behind_urls(served, write_tile, tmp_path):
    files = [write_tile(f"{i}.tif", np.full((4, 4), i + 1, np.uint8), 0, 4 * i) for i in range(2)]
    (tmp_path / "scene.txt").write_text(f"{served}/0.tif\n1.tif\n")
    source = open_scene(tmp_path / "scene.txt")
    assert source.files == (f"{served}/0.tif", str(files[1]))
    np.testing.assert_array_equal(source.read_own((0, 1, 2, 6), (1,))[0][0, 0], [1, 1, 2, 2])
    assert source_files(source) == source.files
    single = open_scene(f"{served}/1.tif")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(single)).read(single.geobox)[0], np.full((1, 4, 4), 2))
    assert len(fingerprint(single)) == 64
    with pytest.raises(RasterError) as caught:
        open_scene(f"{served}/none.tif")
    assert str(caught.value).startswith(f"{served}/none.tif: not a raster that GDAL can open (HTTP response code: 404")


@pytest.mark.parametrize("url", ["https://host//a.tif", "gopher://host/a.tif"])
def test_urls_that_cannot_be_kept(url):
    with pytest.raises(RasterError) as caught:
        open_scene(url)
    assert str(caught.value) == (
        f"{url}: not a URL that can be read. Expected one of https, http, ftp, s3, gs, az and oss, without empty parts."
        "\nDownload the file, or name it in a virtual raster (VRT)."
    )


# --- STAC -----------------------------------------------------------------------------------------------------------


def _item(name, **assets):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {},
        "assets": assets,
    }


def _collection(*items, **more):
    return {"type": "FeatureCollection", "features": list(items), **more}


@pytest.fixture
def stac(tmp_path, write_tile):
    """Write a STAC file beside two rasters, a.tif and b c.tif."""
    for i, name in enumerate(("a.tif", "b c.tif")):
        write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i)

    def write(content, name="items.json"):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / name

    return write


TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def test_an_item_collection(stac, tmp_path):
    overview = {"href": "none.tif", "roles": ["overview"], "type": TIFF}
    first = _item("one", image={"href": "./a.tif", "roles": ["data", "visual"]}, preview=overview)
    second = _item("two", image={"href": "b%20c.tif", "type": TIFF}, meta={"href": "m.xml"})
    source = open_scene(stac(_collection(first, second)))
    assert source.files == (str(tmp_path / "a.tif"), str(tmp_path / "b c.tif"))
    second["assets"]["image"]["href"] = (tmp_path / "b c.tif").as_uri()
    assert open_scene(stac(_collection(first, second), "x.geojson")).files == source.files


def test_one_item_is_one_raster(stac, tmp_path):
    both = _item("one", dsm={"href": "a.tif", "roles": ["data"]}, rgb={"href": "b c.tif", "roles": ["data"]})
    path = stac(both)
    assert open_scene(path, asset="rgb") == RasterSource.open(tmp_path / "b c.tif")
    with pytest.raises(RasterError) as caught:
        open_scene(path)
    assert str(caught.value) == (
        f"{path}: item one: expected one asset with the role data, or one GeoTIFF, found 2 of them: dsm, rgb.\n"
        "Name the asset by its key."
    )
    with pytest.raises(RasterError) as caught:
        open_scene(path, asset="dtm")
    assert str(caught.value) == (
        f"{path}: item one: expected an asset 'dtm', found none among: dsm, rgb.\nName the asset by its key."
    )


def test_further_pages_of_a_search_are_told_of(stac):
    item = _item("one", image={"href": "a.tif", "type": TIFF})
    path = stac(_collection(item, links=[{"rel": "next", "href": "https://host/search?page=2"}]))
    with pytest.warns(LeftOutWarning) as caught:
        open_scene(path)
    assert str(caught[0].message) == (
        f"{path}: not read as part of the scene: the next pages of the search, which are not in this file."
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "{",
            "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)). Expected a STAC",
        ),
        (
            {"type": "Collection", "assets": {}},
            "expected a STAC Item or ItemCollection, found no assets in feature 1 of 1.",
        ),
        ([1], "expected a STAC Item or ItemCollection, found no assets in feature 1 of 1."),
        (_collection(), "expected a STAC Item or ItemCollection, found no feature."),
        (
            _collection(_item("one", image={"href": "a.tif", "type": TIFF}), {"type": "Feature", "properties": {}}),
            "expected a STAC Item or ItemCollection, found no assets in feature 2 of 2.",
        ),
        (
            _item("one", image={"type": TIFF}),
            "expected a STAC Item or ItemCollection, found no assets in feature 1 of 1.",
        ),
        (_item("one"), "item one: expected one asset with the role data, or one GeoTIFF, found none among: .\n"),
        (
            _item("one", image={"href": "none.tif", "type": TIFF}),
            "1 of its files is not there (item one: {folder}/none.tif). Relative paths start at the folder of this",
        ),
    ],
    ids=["json", "collection", "list", "empty", "feature", "no href", "no assets", "missing"],
)
def test_files_that_are_no_items(stac, tmp_path, content, words):
    path = stac(content)
    with pytest.raises(RasterError) as caught:
        open_scene(path)
    assert str(caught.value).startswith(f"{path}: " + words.replace("{folder}", str(tmp_path)))


def test_an_asset_of_what_is_no_item(write_tile):
    path = write_tile("a.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(RasterError) as caught:
        open_scene(path, asset="dsm")
    assert str(caught.value) == f"{path}: the asset 'dsm' was asked for, but this is no STAC file. Leave it out."


# --- virtual rasters ------------------------------------------------------------------------------------------------


def write_vrt(path, source, col=0):
    """A virtual raster of 4 x 4 pixels over another one."""
    path.write_text(
        f'<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>{UTM31}</SRS>'
        f"<GeoTransform>{LEFT + col}, 1, 0, {TOP}, 0, -1</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">{source}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_virtual_raster_is_a_scene_and_a_member(write_tile, tmp_path):
    first = write_tile("a.tif", np.full((4, 4), 3, np.uint8))
    second = write_vrt(tmp_path / "b.vrt", "a.tif", 4)
    assert open_scene(second) == RasterSource.open(second)
    found, _ = open_scene([first, second]).read_own((0, 1, 2, 6), (1,))
    np.testing.assert_array_equal(found[0, 0], [3, 3, 3, 3])
    with pytest.warns(LeftOutWarning, match=r"1 file of another kind \(b\.vrt\)\."):
        open_scene(tmp_path)


# --- identity -------------------------------------------------------------------------------------------------------


def touch(path, seconds=5):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def test_the_identity_of_a_scene_stays_while_its_files_do(cut, tmp_path, monkeypatch):
    whole, tiles = cut
    first = fingerprint(tiles)
    assert len(first) == 64
    assert fingerprint(pickle.loads(pickle.dumps(tiles))) == first
    assert fingerprint(open_scene(tiles.path / "*.tif")) == first
    monkeypatch.chdir(tmp_path)
    assert fingerprint(open_scene("tiles")) == first
    assert fingerprint(open_scene(sorted(tiles.files)[::-1])) != first
    assert fingerprint(open_scene(sorted(tiles.files)[1:])) != first
    assert fingerprint(whole) == fingerprint(RasterSource.open("whole.tif")) != first


def test_a_member_that_is_touched_or_replaced_is_another_scene(cut):
    _, tiles = cut
    seen = {fingerprint(tiles)}
    member = Path(tiles.files[3])
    touch(member)
    seen.add(fingerprint(tiles))
    time = member.stat().st_mtime_ns
    member.write_bytes(member.read_bytes() + b"more")
    os.utime(member, ns=(time, time))
    seen.add(fingerprint(tiles))
    assert len(seen) == 3
    member.unlink()
    with pytest.raises(RasterError) as caught:
        fingerprint(tiles)
    assert str(caught.value) == (
        f"{member}: part of the scene, and not to be reached (No such file or directory). Put it back."
    )


def test_a_header_that_changes_is_another_scene(write_tile):
    path = write_tile("a.tif", np.ones((4, 4), np.uint8))
    status = path.stat()
    first = fingerprint(open_scene(path))
    side = path.with_name("a.tif.aux.xml")
    side.write_text("<PAMDataset/>")  # as GDAL writes it for statistics
    assert fingerprint(open_scene(path)) == first
    side.write_text('<PAMDataset><PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand></PAMDataset>')
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert fingerprint(open_scene(path)) != first


def test_a_mask_beside_a_file_is_part_of_it(write_raster):
    path = write_raster("a.tif", np.ones((4, 4), np.uint8))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.eye(4, dtype=np.uint8) * 255)
    mask = path.with_name("a.tif.msk")
    source = open_scene(path)
    assert source_files(source) == (str(path), str(mask))
    first = fingerprint(source)
    touch(mask)
    assert fingerprint(source) != first


def test_files_behind_a_virtual_raster_are_part_of_it(write_tile, tmp_path, monkeypatch):
    base = write_tile("a.tif", np.ones((4, 4), np.uint8))
    inner = write_vrt(tmp_path / "inner.vrt", "a.tif")
    outer = write_vrt(tmp_path / "outer.vrt", "inner.vrt")
    monkeypatch.chdir(tmp_path)
    source = open_scene("outer.vrt")
    assert source_files(source) == tuple(map(str, (outer, inner, base)))
    first = fingerprint(source)
    touch(base)
    second = fingerprint(source)
    touch(inner)
    assert len({first, second, fingerprint(source)}) == 3
    base.unlink()
    with pytest.raises(RasterError, match=r"a\.tif: part of the scene, and not to be reached"):
        fingerprint(source)


def test_a_virtual_raster_that_names_itself(tmp_path):
    loop = write_vrt(tmp_path / "loop.vrt", "loop.vrt")
    assert source_files(open_scene(loop)) == (str(loop),)


def test_side_files_that_hold_a_rasters_header(tmp_path):
    path = tmp_path / "a.bil"
    path.write_bytes(bytes(range(16)))
    corner = f"ULXMAP {LEFT + 0.5}\nULYMAP {TOP - 0.5}"
    path.with_suffix(".hdr").write_text(f"NROWS 4\nNCOLS 4\nNBITS 8\n{corner}\nXDIM 1\nYDIM 1\n")
    path.with_suffix(".prj").write_text(pyproj.CRS(UTM31).to_wkt("WKT1_ESRI"))
    source = open_scene(path)
    assert source_files(source) == tuple(str(path.with_suffix(end)) for end in (".bil", ".hdr", ".prj"))
    first = fingerprint(source)
    touch(path.with_suffix(".hdr"))
    assert fingerprint(source) != first


def test_other_warnings_pass(write_tile, monkeypatch):
    files = [write_tile(f"{i}.tif", np.ones((4, 4), np.uint8), 0, 4 * i) for i in range(2)]
    real = mosaic._header

    def noisy(path):
        warnings.warn(f"{path.name} is odd", RuntimeWarning, stacklevel=2)
        return real(path)

    monkeypatch.setattr(mosaic, "_header", noisy)
    with pytest.warns(RuntimeWarning) as caught:
        open_scene(files)
    assert [str(w.message) for w in caught] == ["0.tif is odd", "1.tif is odd"]
