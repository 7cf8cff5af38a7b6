"""The grid on which the networks read a scene."""

import pytest
from affine import Affine
from helpers.small_scenes import UTM, heights, image, make_bundle, write_raster

from geocrodino.prediction.draft import draft_prediction
from geocrodino.prediction.tiles import choose
from geocrodino.settings.prediction import Execution, Inputs, Outputs, Tiling

pytestmark = pytest.mark.usefixtures("kept_networks")


def grid_of(folder, *, image_px, heights_px, crs="EPSG:32610"):
    """Grid for networks of 2 m, heights from (5.7, 3.4) m south-east of the image's corner on; both cover 60 m."""
    write_raster(folder / "image.tif", image(60, 60), transform=UTM @ Affine.scale(image_px))
    corner = UTM @ Affine.translation(5.7, 3.4) @ Affine.scale(heights_px)
    write_raster(folder / "dsm.tif", heights(30, 30), transform=corner, crs=crs)
    bundle = make_bundle(folder / "b", resolution_m=2.0)
    draft = draft_prediction(
        folder / "image.tif", folder / "m.tif", bundle, "auto", elevation=folder / "dsm.tif", aoi=None,
        inputs=Inputs(), tiling=Tiling(), execution=Execution(), outputs=Outputs(),
    )  # fmt: skip
    return draft.grid


def test_heights_with_pixels_of_the_training_are_not_interpolated(tmp_path):
    grid = grid_of(tmp_path, image_px=1.0, heights_px=2.0)
    # The pixels of the heights, continued to the image's corner: 3 columns and 2 rows, rounded up to the stride of 8,
    # begin at 5.7 - 16 and 3.4 - 16 m. To the image's end at 60 m there are 28.3 rows and 27.15 columns more.
    left, top = ~UTM @ (grid.affine.c, grid.affine.f)
    assert (left, top) == pytest.approx((-10.3, -12.6))
    assert grid.shape == (8 + 29, 8 + 28)
    assert (grid.affine.a, grid.affine.e) == (2, -2)


@pytest.mark.parametrize(
    ("image_px", "heights_px", "crs"),
    [(2.0, 2.0, "EPSG:32610"), (1.0, 3.0, "EPSG:32610"), (1.0, 2.0, "EPSG:26910")],
    ids=["image with pixels of the training", "heights with other pixels", "heights in another CRS"],
)
def test_else_the_grid_starts_at_the_corner_of_the_image(tmp_path, image_px, heights_px, crs):
    grid = grid_of(tmp_path, image_px=image_px, heights_px=heights_px, crs=crs)
    assert ~UTM @ (grid.affine.c, grid.affine.f) == (0, 0)
    assert grid.affine.a == 2


@pytest.mark.parametrize(
    ("side", "elevation", "layers", "trained_m", "core"),
    [
        (192, False, (), 2.0, 64),
        (192, True, (), 2.0, 48),
        (192, False, ("confidence",), 2.0, 48),
        (192, False, (), 1.0, 48),
        (64, True, (), 2.0, 64),
    ],
    ids=["classes alone", "both modalities", "a layer", "other pixels", "one tile"],
)
def test_tiles_that_keep_probabilities_are_smaller(tmp_path, monkeypatch, side, elevation, layers, trained_m, core):
    monkeypatch.setattr(choose, "EXACT_CORE_PX", 64)
    monkeypatch.setattr(choose, "KEPT_CORE_PX", 48)
    where = UTM @ Affine.scale(2)
    scene = write_raster(tmp_path / "image.tif", image(side, side), transform=where)
    surface = write_raster(tmp_path / "dsm.tif", heights(side, side), transform=where) if elevation else None
    draft = draft_prediction(
        scene, tmp_path / "m.tif", make_bundle(tmp_path / "b", resolution_m=trained_m), "auto", elevation=surface,
        aoi=None, inputs=Inputs(), tiling=Tiling(), execution=Execution(), outputs=Outputs(layers=layers),
    )  # fmt: skip
    assert draft.job.lattice.core_px == core
