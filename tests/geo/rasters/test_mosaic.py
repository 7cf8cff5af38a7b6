"""Many files as one scene: equal to the scene that they were cut from, and an identity."""

from __future__ import annotations

import os
import pickle
import shutil
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

from geocrodino.errors import LeftOutWarning, RasterError
from geocrodino.geo.rasters.identity import fingerprint, source_files
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene

UTM31 = "EPSG:32631"
LEFT, TOP = 400_000.0, 5_000_000.0
ROWS, COLS = (0, 17, 40, 71), (0, 30, 41, 60, 97)
"""Edges of 3 x 4 tiles of unequal sizes."""


@pytest.fixture(scope="module", params=[(1, 2), (0, 0)], ids=["inner tile missing", "corner tile missing"])
def files(request, tmp_path_factory):
    """Folder of a scene with a hole, and of its tiles without the one in the hole; not to be changed."""
    folder = tmp_path_factory.mktemp("cut")

    def write(name, part, row=0, col=0):
        count, height, width = part.shape
        where = Affine(1, 0, LEFT + col, 0, -1, TOP - row)
        options = {"count": count, "height": height, "width": width, "dtype": part.dtype, "crs": UTM31}
        with rasterio.open(folder / name, "w", driver="GTiff", transform=where, **options) as target:
            target.write(part)

    rng = np.random.default_rng(5)
    values = rng.normal(500, 200, (2, ROWS[-1], COLS[-1])).astype(np.float32)
    values[:, rng.random(values.shape[1:]) < 0.1] = np.nan
    (folder / "tiles").mkdir()
    for i, (r0, r1) in enumerate(pairwise(ROWS)):
        for j, (c0, c1) in enumerate(pairwise(COLS)):
            if (i, j) == request.param:
                values[:, r0:r1, c0:c1] = np.nan
            else:
                write(f"tiles/{i}-{j}.tif", values[:, r0:r1, c0:c1], r0, c0)
    write("whole.tif", values)
    return folder


@pytest.fixture
def cut(files):
    """The scene with a hole, and the same as the folder of its tiles."""
    return RasterSource.open(files / "whole.tif"), open_scene(files / "tiles")


@pytest.fixture
def own_cut(files, tmp_path):
    """The same of files that a test may change."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    return RasterSource.open(tmp_path / "whole.tif"), open_scene(tmp_path / "tiles")


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
    for name in ("count", "dtype", "band_names", "data_bands", "alpha_band", "mask", "unit"):
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

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
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
    tagged = write_tile("a.tif", np.array([[[7, 9]], [[7, 8]], [[7, 9]]], np.uint8), 0, 0, nodata=7)
    clear = write_tile("b.tif", rgba, 0, 2, colours=RGBA)
    source = open_scene([tagged, clear])
    assert (source.count, source.data_bands, source.band_names) == (3, (1, 2, 3), ("red", "green", "blue"))
    assert (source.nodata, source.alpha_band, source.mask, source.dtype) == (None, None, "dataset", "uint8")
    found, valid = source.read(source.geobox)
    assert valid.tolist() == [[False, True, True, False]]
    np.testing.assert_array_equal(found[:, 0, 1:3], np.array([[9, 8, 9], [5, 6, 4]]).T)


def test_marks_that_all_members_share_are_those_of_the_mosaic(write_tile):
    files = [write_tile(f"{i}.tif", np.ones((3, 4), np.float32), 0, 4 * i, nodata=np.nan) for i in range(2)]
    source = open_scene(files)
    assert np.isnan(source.nodata)
    assert (source.mask, len(source.headers)) == ("none", 1)


def test_ten_thousand_members_are_light(write_tile, tmp_path):
    model = RasterSource.open(write_tile("a.tif", np.ones((10, 20), np.uint8)))
    places = [(row * 10, col * 20) for row in range(100) for col in range(100)]
    grids = [GeoBox((10, 20), Affine(1, 0, LEFT + col, 0, -1, TOP - row), UTM31) for row, col in places]
    sources = [
        RasterSource(**{**vars(model), "name": str(tmp_path / f"tile_{n:05d}.tif"), "geobox": grid})
        for n, grid in enumerate(grids)
    ]
    source = MosaicSource.join(sources, str(tmp_path))
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
    own = RasterSource._read_pixels

    def watched(self, window, bands):
        read.append((self.path.name, window))
        return own(self, window, bands)

    monkeypatch.setattr(RasterSource, "_read_pixels", watched)
    tiles.read_own((35, 40, 28, 41), (1,))  # rows 18 to 22 of the second row of tiles
    assert read[0] == ("1-0.tif", (18, 23, 28, 30))
    assert {name for name, _ in read} == {"1-0.tif", "1-1.tif"}


def test_a_file_that_others_cover_is_not_read(write_tile):
    over, under = (write_tile(name, np.ones((4, 4), np.uint8)) for name in ("a.tif", "b.tif"))
    source = open_scene([over, under])
    under.unlink()
    assert source.read_own((0, 4, 0, 4), (1,))[1].all()


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
ALIKE = "\nName only files whose values mean the same."


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
        MosaicSource.join([], "nothing")


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


def test_the_identity_of_a_scene_stays_while_its_files_do(own_cut, tmp_path, monkeypatch):
    whole, tiles = own_cut
    first = fingerprint(tiles)
    assert len(first) == 64
    assert fingerprint(pickle.loads(pickle.dumps(tiles))) == first
    assert fingerprint(open_scene(tiles.path / "*.tif")) == first
    monkeypatch.chdir(tmp_path)
    assert fingerprint(open_scene("tiles")) == first
    assert fingerprint(open_scene(sorted(tiles.files)[::-1])) != first
    assert fingerprint(open_scene(sorted(tiles.files)[1:])) != first
    assert fingerprint(whole) == fingerprint(RasterSource.open("whole.tif")) != first


def test_a_member_that_is_touched_or_replaced_is_another_scene(own_cut):
    _, tiles = own_cut
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
    assert str(caught.value) == (f"{member}: part of the scene, but no longer there. Restore the file.")


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
    with pytest.raises(RasterError, match=r"a\.tif: part of the scene, but no longer there"):
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
