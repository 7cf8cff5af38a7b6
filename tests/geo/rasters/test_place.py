"""The place of files that state none: a CRS for coordinates, or a pixel size alone."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo import CRS

from geocrodino.errors import AreaWarning, ConfigError, MissingCRSError, RasterError
from geocrodino.geo.rasters.alike import place_beside, require_one_size
from geocrodino.geo.rasters.grid import describe, pixel_size_m, share_ground, working_grid
from geocrodino.geo.rasters.place import Place, is_placeless, place_of, placeless_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_raster, open_scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
HALF = Place(pixel_m=0.5)


def picture(path, shape=(4, 5), world=None):
    """A PNG without a CRS, with a world file if it is to have coordinates."""
    with rasterio.open(path, "w", driver="PNG", count=1, height=shape[0], width=shape[1], dtype="uint8") as file:
        file.write(np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(1, *shape))
    if world is not None:
        path.with_suffix(".pgw").write_text("\n".join(map(str, world)))
    return path


def test_a_grid_without_a_place():
    grid = placeless_grid((4, 5), 0.5)
    assert tuple(grid.boundingbox) == (0, -2, 2.5, 0)
    assert pixel_size_m(grid) == (0.5, 0.5)
    assert describe(grid) == "4 rows x 5 columns at 0.5 m, no place, metres"
    assert working_grid(grid) is grid
    assert working_grid(grid, 1.0).shape == (2, 3)
    assert (place_of(grid), is_placeless(grid)) == (HALF, True)
    on_earth = placeless_grid((4, 5), 1)
    assert not share_ground(grid, type(grid)((4, 5), on_earth.affine, "EPSG:32631"))
    assert place_of(type(grid)((4, 5), on_earth.affine, "EPSG:32631")) is None


def test_a_picture_needs_a_pixel_size(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(RasterError, match=r"If only its pixel size is known, state that in metres.*`pixel_m=0\.5`"):
        open_scene(path)
    assert open_scene(path, place=HALF).geobox == placeless_grid((4, 5), 0.5)
    assert open_raster(path, place=HALF).geobox == placeless_grid((4, 5), 0.5)


def test_coordinates_of_a_world_file_in_the_stated_crs(tmp_path):
    path = picture(tmp_path / "a.png", world=(0.05, 0, 0, -0.05, 367_000.025, 5_808_000 - 0.025))
    with pytest.raises(MissingCRSError, match=r"Or state it, for instance: `crs='EPSG:32631'`"):
        open_scene(path)
    found = open_scene(path, place=Place(crs="EPSG:32633")).geobox
    assert found.crs == CRS("EPSG:32633")
    np.testing.assert_allclose(tuple(found.affine)[:6], (0.05, 0, 367_000, 0, -0.05, 5_808_000), rtol=1e-12)
    with pytest.warns(AreaWarning, match=r"the file has coordinates, which are not used: only the stated pixel size"):
        assert is_placeless(open_scene(path, place=HALF).geobox)


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (Affine(1, 0, 20, 0, -1, 95), "longitudes 20 to 25 and latitudes 91 to 95"),
        (Affine(200, 0, 20, 0, -1, 10), "longitudes 20 to 1020 and latitudes 6 to 10"),
    ],
    ids=["beyond the pole", "more than a turn"],
)
def test_degrees_that_are_no_place(write_raster, transform, found):
    path = write_raster("a.tif", np.ones((4, 5), np.uint8), transform=transform, crs="EPSG:4326")
    with pytest.raises(RasterError) as error:
        open_scene(path)
    assert str(error.value) == (
        f"{path}: expected longitudes of at most a whole turn and latitudes of -90 to 90, found {found}.\n"
        "Is its CRS another one, or are the two exchanged? Write the right CRS and geotransform into it."
    )


def test_the_place_of_a_file_stays(write_raster, tmp_path):
    path = write_raster("a.tif", np.ones((4, 5), np.uint8))
    own = RasterSource.open(path).geobox
    assert open_scene(path, place=Place("EPSG:32631", 0.1)).geobox == own
    with pytest.warns(
        AreaWarning, match=r"a\.tif: the file has its own CRS \(EPSG:32631\), and the stated one \(EPSG:25831"
    ):
        assert open_scene(path, place=Place(crs="EPSG:25831")).geobox == own
    message = r"a\.tif: the file has a place of its own, and the stated pixel size \(0\.5 m\) is not used for it\."
    with pytest.warns(AreaWarning, match=message):
        assert open_scene(path, place=HALF).geobox == own


def test_a_word_that_is_no_crs(tmp_path):
    path = picture(tmp_path / "a.png", world=(1, 0, 0, -1, 0.5, -0.5))
    with pytest.raises(ConfigError, match=r"^`crs='EPSG:1'`: expected a CRS such as EPSG:32631 or WKT, found none"):
        open_scene(path, place=Place(crs="EPSG:1"))


def test_pictures_of_a_folder(tmp_path):
    for number in range(2):
        picture(tmp_path / f"{number}.png", world=(1, 0, 0, -1, 5 * number + 0.5, -0.5))
    with pytest.raises(RasterError, match="no raster to read"):
        open_scene(tmp_path)
    assert open_scene(tmp_path, place=Place(crs="EPSG:32633")).geobox.shape == (4, 10)
    with pytest.raises(
        RasterError, match=r"found 2 files, of which 2 do not \(0\.png, 1\.png\)\.\nMake each of them a sc"
    ):
        open_scene(tmp_path, place=HALF)


def test_files_without_a_place_have_one_size(tmp_path):
    first = RasterSource.open(picture(tmp_path / "a.png", (400, 500)), HALF)
    nearly = RasterSource.open(picture(tmp_path / "b.png", (400, 499)), HALF)
    require_one_size({"optical": first, "elevation": nearly})
    half = RasterSource.open(picture(tmp_path / "c.png", (200, 250)), HALF)
    with pytest.raises(RasterError, match=r"c\.png: expected 400 x 500 px for the label raster, found 200 x 250\."):
        require_one_size({"optical": first, "elevation": nearly, "label": half})


def test_labels_beside_a_map_without_a_place(tmp_path, write_raster):
    path = tmp_path / "map.tif"
    size = {"count": 1, "height": 4, "width": 5, "dtype": "uint8", "transform": Affine(0.5, 0, 0, 0, -0.5, 0)}
    with rasterio.open(path, "w", driver="GTiff", **size) as file:
        file.update_tags(PIXEL_M="0.5")
    assert RasterSource.open(path).geobox == placeless_grid((4, 5), 0.5)
    assert place_beside(path) == HALF
    assert place_beside(path, "EPSG:32633") == Place("EPSG:32633", 0.5)
    assert place_beside(write_raster("b.tif", np.ones((4, 5), np.uint8))) is None


def test_a_file_without_a_place_beside_one_with_a_place(tmp_path, write_raster):
    """Labels as PNG beside a GeoTIFF; the command that is named copies its place."""
    image = open_raster(write_raster("image.tif", np.ones((4, 5), np.uint8)))
    labels = open_raster(picture(tmp_path / "labels.png"), place=HALF)
    with pytest.raises(RasterError) as caught:
        require_one_size({"optical": image, "label": labels})
    command = f"rio edit-info --like {image.name} --crs like --transform like {labels.name}"
    assert str(caught.value) == (
        f"{labels.name}: expected a label raster that says where it lies, as the optical raster {image.name} does, "
        f"found one with a pixel size alone.\nIf both show the same pixels, copy the place, for instance: {command}"
    )
    with rasterio.open(labels.name, "r+") as file:  # as the command does
        file.crs, file.transform = image.geobox.crs.wkt, image.geobox.affine
    assert open_raster(labels.name).geobox == image.geobox
