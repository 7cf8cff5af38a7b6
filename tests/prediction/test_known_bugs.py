"""Mistakes that whole-scene prediction is known to make elsewhere, each named by a test that would find it here.

Those that other files test already:

======================================================  ==============================================================
mistake                                                 test
======================================================  ==============================================================
weights are 0 at the edge: the outer ring is nodata     test_blending::test_the_outer_ring_of_a_scene_has_full_weight,
                                                        test_engine::test_a_constant_network_gives_a_constant_map_...
nodata is classified                                    test_engine::test_invalid_pixels_are_nodata_and_class_zero_...
an input's nodata 0 is inherited: class 0 is missing    test_engine::test_invalid_pixels_are_nodata_and_class_zero_...
0 m is nodata                                           test_engine::test_nan_heights_are_nodata_and_zero_metres_...
nodata NaN never equals itself                          test_engine::test_nan_heights_are_nodata_and_zero_metres_...,
                                                        geo/test_reader::test_nan_and_infinity_are_invalid_...
a scene smaller than a tile gives nothing               test_engine::test_a_constant_network_gives_a_constant_map_...,
                                                        test_places::test_any_size_has_every_pixel
an area smaller than a tile gives nothing               test_area::test_an_area_of_one_pixel
the border that fills no tile is dropped                test_places::test_any_size_has_every_pixel
the last tile is snapped, which shifts it               test_engine::test_exact_tiles_give_the_result_of_one_pass
the result depends on how tiles lie                     test_engine::test_bytes_do_not_depend_on_workers_or_blocks
the scene must fit into memory                          benchmarks/prediction.py measures it
nothing is written, and nothing is said                 test_engine::test_scene_without_a_valid_pixel,
                                                        test_both::test_neither_has_a_valid_pixel
a failed run ends with 0                                cli/test_cli_errors::test_predicting_from_a_broken_raster
weights that do not fit are made anew                   bundle/test_io::test_wrong_shape_and_type,
                                                        bundle/test_io::test_missing_and_extra_tensors
training and prediction read heights differently        data/test_normalisation::test_prediction_reads_what_...
resolutions are compared with their sign                geo/test_mosaic::test_files_that_are_not_of_one_scene
two modalities become one nameless image                below, and test_both
======================================================  ==============================================================
"""

import numpy as np
import pytest
import rasterio
from affine import Affine
from helpers.small_scenes import (
    UTM,
    PixelByPixel,
    brightest,
    classes_of,
    decided_in,
    heights,
    image,
    make_bundle,
    write_raster,
)

from geocrodino.errors import RasterError
from geocrodino.prediction.engine import predict
from geocrodino.settings.prediction import Execution, Outputs, Tiling

pytestmark = pytest.mark.usefixtures("kept_networks")

FIELD_PX = 52  # how far the networks of these tests see
SHAPE = (70, 90)


def test_values_are_not_scaled_by_the_extremes_of_a_tile_or_scene(bundle, tmp_path):
    """What lies beyond the field of view of a pixel never changes it, however bright it is."""
    values = image(64, 400)
    other = values.copy()
    other[:, :, 200:] = 255
    other[:, :, 300:] = 1
    for name, scene in (("a", values), ("b", other)):
        write_raster(tmp_path / name, scene)
        predict(
            tmp_path / name,
            tmp_path / f"{name}.tif",
            bundle,
            "optical",
            tiling=Tiling(core_px=64),
            execution=Execution(backend="torch"),
        )
    first, second = (classes_of(tmp_path / f"{name}.tif") for name in "ab")
    np.testing.assert_array_equal(first[:, : 200 - FIELD_PX], second[:, : 200 - FIELD_PX])
    assert (first[:, 200:] != second[:, 200:]).any()


@pytest.mark.parametrize("resolution_m", [1.0, 0.8])
def test_the_mark_of_nodata_is_never_a_height(bundle, tmp_path, resolution_m):
    """-9999, NaN or any other mark: the map is the same around the hole, and the hole is no deep well."""
    used = bundle if resolution_m == 1 else make_bundle(tmp_path / "b", resolution_m=resolution_m)
    found = set()
    for mark in (-9999.0, float("nan"), 1e20, -3.4028234663852886e38):
        metres = heights(*SHAPE)
        metres[30:40, 30:60] = mark
        write_raster(tmp_path / "s.tif", metres, nodata=mark)
        predict(
            tmp_path / "s.tif",
            tmp_path / "m.tif",
            used,
            "elevation",
            tiling=Tiling(core_px=64),
            execution=Execution(backend="torch"),
            outputs=Outputs(overwrite=True),
        )
        found.add((tmp_path / "m.tif").read_bytes())
    assert len(found) == 1
    hole = classes_of(tmp_path / "m.tif") == 255
    assert hole[30:40, 30:60].all()
    assert hole.sum() == 300


@pytest.mark.parametrize("dtype", ["int16", "int32", "float64"])
def test_whole_numbers_of_metres_are_interpolated_and_their_nodata_is_not(bundle, by_pixel, tmp_path, dtype):
    """Water at 0 m beside roofs at 20 m: with a working grid of other pixels nothing of -9999 enters."""
    metres = np.zeros((40, 40), dtype)
    metres[:, 20:] = 20
    metres[10:20] = -9999
    write_raster(tmp_path / "s.tif", metres, nodata=-9999, transform=Affine(0.5, 0, 5e5, 0, -0.5, 4e6))
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "elevation")
    found = classes_of(tmp_path / "m.tif")
    assert (found[10:20] == 255).all()
    kept = np.r_[0:10, 20:40]
    assert (found[kept, :18] == 0).all()
    assert (found[kept, 22:] == 5).all()


def test_each_branch_reads_its_own_modality(bundle, kept_networks, tmp_path, monkeypatch):
    """Three bands to one, one band to the other, whatever the order in which files are named."""
    asked = {}

    def opened(_, modality, *, temperature, **__):
        return PixelByPixel(asked.setdefault(modality, []), temperature)

    monkeypatch.setattr("geocrodino.prediction.job.open_backend", opened)
    write_raster(tmp_path / "i.tif", image(*SHAPE))
    write_raster(tmp_path / "d.tif", heights(*SHAPE))
    predict(tmp_path / "i.tif", tmp_path / "m.tif", bundle, elevation=tmp_path / "d.tif")
    assert {modality: {shape[0] for shape in shapes} for modality, shapes in asked.items()} == {
        "optical": {3},
        "elevation": {1},
    }
    assert (decided_in(tmp_path / "m.tif") == 3).all()


def test_a_file_that_cannot_be_read_is_never_left_out(bundle, by_pixel, tmp_path):
    (tmp_path / "t").mkdir()
    for row in (0, 35):
        where = UTM @ Affine.translation(0, row)
        write_raster(tmp_path / "t" / f"{row}.tif", image(*SHAPE)[:, row : row + 35], transform=where)
    (tmp_path / "t" / "35.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(RasterError, match=r"35\.tif: not a raster that GDAL can open"):
        predict(tmp_path / "t", tmp_path / "m.tif", bundle, "optical")
    assert not (tmp_path / "m.tif").exists()


@pytest.mark.parametrize("stitch", ["exact", "blend"])
def test_many_votes_do_not_overflow_a_byte(bundle, by_pixel, tmp_path, stitch):
    """More than 255 tiles and pixels of one class."""
    values = np.full((3, 136, 136), 100, np.uint8)
    values[1] = 200
    write_raster(tmp_path / "s.tif", values)
    summary = predict(
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        bundle,
        "optical",
        tiling=Tiling(core_px=8, stitch=stitch),
        outputs=Outputs(layers=["confidence"]),
    )
    assert len(by_pixel) == 17 * 17
    assert (classes_of(tmp_path / "m.tif") == 2).all()
    assert summary.pixels == {"water": 0, "grass": 136 * 136, "roof": 0}
    # Scores 72 / 60 and twice -28 / 60 make 0.725822 of one class, also where the ramps of four tiles meet.
    assert (classes_of(tmp_path / "m.layers.tif") == 184).all()


def test_pixels_of_other_sizes_are_never_taken_for_one_lattice(bundle, by_pixel, tmp_path):
    """10 m and 20 m, counted downwards: heights of pixels twice as large lie where they lie."""
    metres = np.zeros((20, 20), np.float32)
    metres[:, 10:] = 20  # the right half
    write_raster(tmp_path / "d.tif", metres, transform=Affine(2, 0, 500000, 0, -2, 4000000))
    dark = np.full((3, 40, 40), 128, np.uint8)  # nothing to say: 1/3 for each class
    write_raster(tmp_path / "i.tif", dark)
    predict(tmp_path / "i.tif", tmp_path / "m.tif", bundle, elevation=tmp_path / "d.tif")
    found = classes_of(tmp_path / "m.tif")
    assert (found[:, :19] == 0).all()
    assert (found[:, 21:] == 5).all()


@pytest.mark.parametrize("pixel", [0.5, 2.0])
def test_pixels_of_another_size_are_brought_to_that_of_the_training(bundle, by_pixel, tmp_path, pixel):
    write_raster(tmp_path / "s.tif", image(40, 60), transform=Affine(pixel, 0, 5e5, 0, -pixel, 4e6))
    summary = predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=Tiling(core_px=16))
    assert summary.working_resolution_m == pytest.approx(1)
    # 20 x 30 m or 80 x 120 m, with a margin of 56 px on each side, in tiles of 16 px.
    tiles = {0.5: 2 * 2, 2.0: 5 * 8}[pixel]
    assert len(by_pixel) == tiles


def test_a_tile_that_is_cut_off_is_not_moved_back_into_the_scene(bundle, by_pixel, tmp_path):
    """Each pixel of a scene that is no multiple of anything is computed from itself."""
    values = image(53, 71, seed=4)
    write_raster(tmp_path / "s.tif", values)
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=Tiling(core_px=24, block_px=17))
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), brightest(values))


@pytest.mark.parametrize("ending", ["tif", "vrt"])
def test_overviews_are_not_empty(bundle, by_pixel, tmp_path, ending):
    """Those of a map that was put together from parts, and what is seen of one that stays in parts."""
    values = np.zeros((3, 520, 530), np.uint8)
    values[0, :, :260], values[2, :, 260:] = 200, 200
    write_raster(tmp_path / "s.tif", values)
    predict(
        tmp_path / "s.tif",
        tmp_path / f"m.{ending}",
        bundle,
        "optical",
        tiling=Tiling(block_px=256),
        outputs=Outputs(layers=["confidence"]),
    )
    with rasterio.open(tmp_path / f"m.{ending}") as found:
        half = found.read(1, out_shape=(260, 265))
        assert found.overviews(1) == ([2] if ending == "tif" else [])
    assert (half[:, :129] == 0).all()
    assert (half[:, 131:] == 5).all()
    with rasterio.open(tmp_path / f"m.layers.{ending}") as found:
        assert found.read(1, out_shape=(260, 265)).min() > 100
