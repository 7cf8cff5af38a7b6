"""An image and a surface model of one place, through `predict`."""

import json
import math
import shutil

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from helpers.rounding import rounding
from helpers.small_scenes import (
    SCHEME,
    UTM,
    PixelByPixel,
    bands_of,
    classes_of,
    decided_in,
    grouped,
    heights,
    image,
    make_bundle,
    names_in,
    write_raster,
)

from geocrodino.bundle.io import load_bundle
from geocrodino.bundle.manifest import Calibration
from geocrodino.errors import BundleError, ConfigError, OutputError, OverlapError, RasterError
from geocrodino.prediction.engine import predict
from geocrodino.settings.prediction import Execution, Outputs, Tiling

pytestmark = pytest.mark.usefixtures("kept_networks")

GRASS, ROOF = 2, 5  # file values
OPTICAL, ELEVATION, BOTH, NOTHING = 1, 2, 3, 255  # who decided
CALIBRATION = Calibration(temperature={"optical": 1.0, "elevation": 0.5}, weight={"optical": 0.25, "elevation": 0.75})

# Layers hold shares in steps of 1 / 254. Where rounding decides which of two steps is nearer, either may be stored.
HALF_A_STEP = 0.5 + rounding(254, terms=16)


@pytest.fixture(scope="module")
def opposed(tmp_path_factory):
    """Optical says grass everywhere and elevation roof, to which the calibration gives more weight."""
    return make_bundle(
        tmp_path_factory.mktemp("b") / "opposed",
        constant={"optical": 1, "elevation": 2},
        calibration=CALIBRATION,
    )


def inside(transform, crs, shape, scene_shape, margin_px):
    """Pixels of the 1 m scene whose centre lies in another raster, by at least so many of its pixels."""
    rows, cols = np.mgrid[: scene_shape[0], : scene_shape[1]] + 0.5
    x, y = pyproj.Transformer.from_crs("EPSG:32610", crs, always_xy=True).transform(*(UTM @ (cols, rows)))
    c, r = ~transform @ (x, y)
    return (r >= margin_px) & (r <= shape[0] - margin_px) & (c >= margin_px) & (c <= shape[1] - margin_px)


def corner_in(crs, row, col):
    """Place of a pixel corner of the scene in another CRS."""
    return pyproj.Transformer.from_crs("EPSG:32610", crs, always_xy=True).transform(*(UTM @ (col, row)))


def test_a_surface_model_on_another_grid(opposed, tmp_path):
    values = image(40, 50)
    values[:, :10, :20] = 0
    write_raster(tmp_path / "image.tif", values, nodata=0)
    # 2 m pixels, of which those that hold data cover rows 4 to 24 and columns 6 to 46 of the scene, but for a hole.
    dsm = np.full((12, 22), 7, np.float32)
    dsm[[0, -1]] = dsm[:, [0, -1]] = dsm[5:7, 10:15] = -9999
    write_raster(tmp_path / "dsm.tif", dsm, transform=UTM @ Affine.translation(4, 2) @ Affine.scale(2), nodata=-9999)
    summary = predict(
        tmp_path / "image.tif",
        tmp_path / "m.tif",
        opposed,
        elevation=tmp_path / "dsm.tif",
        tiling=Tiling(core_px=32),
        execution=Execution(backend="torch"),
    )
    optical, elevation = np.ones((40, 50), bool), np.zeros((40, 50), bool)
    optical[:10, :20] = False
    elevation[4:24, 6:46] = True
    elevation[12:16, 24:34] = False
    classes, decided = classes_of(tmp_path / "m.tif"), decided_in(tmp_path / "m.tif")
    np.testing.assert_array_equal(classes, np.where(elevation, ROOF, np.where(optical, GRASS, NOTHING)))
    expected = optical * OPTICAL + elevation * ELEVATION
    np.testing.assert_array_equal(decided, np.where(expected == 0, NOTHING, expected))
    assert summary.modalities == ("optical", "elevation")
    assert summary.reason == "an image and a surface model were given"
    # Of 2000 pixels: 20 x 40 - 4 x 10 have heights, 84 of them (6 rows, 14 columns) lie in the hole of the image.
    assert summary.pixels == {"water": 0, "grass": 2000 - 200 - 676, "roof": 760}
    assert summary.nodata_share == (200 - 84) / 2000
    mapped = 2000 - 116
    assert summary.decided == {"optical": 1124 / mapped, "elevation": 84 / mapped, "both": 676 / mapped}


@pytest.mark.parametrize(
    ("crs", "pixel"),
    [("EPSG:3310", 1.7), ("EPSG:2992", 4.0), ("EPSG:4326", 1.3e-5), ("EPSG:32611", 0.8)],
    ids=["metres", "feet", "degrees", "the next zone"],
)
def test_a_surface_model_in_another_crs(opposed, tmp_path, crs, pixel):
    write_raster(tmp_path / "image.tif", image(40, 50))
    left, top = corner_in(crs, 8, 12)
    where, shape = Affine(pixel, 0, left, 0, -pixel, top), (9, 14)
    write_raster(tmp_path / "dsm.tif", np.zeros(shape, np.float32), transform=where, crs=crs)
    predict(
        tmp_path / "image.tif",
        tmp_path / "m.tif",
        opposed,
        "both",
        elevation=tmp_path / "dsm.tif",
        execution=Execution(backend="torch"),
    )
    classes, decided = classes_of(tmp_path / "m.tif"), decided_in(tmp_path / "m.tif")
    surely, perhaps = (inside(where, crs, shape, (40, 50), margin) for margin in (1, -1))
    assert surely.any()
    assert not perhaps.all()
    assert (decided[surely] == BOTH).all()
    assert (decided[~perhaps] == OPTICAL).all()
    np.testing.assert_array_equal(classes, np.where(decided == BOTH, ROOF, GRASS))


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    """An image and heights on one grid, each with a hole, which overlap."""
    folder = tmp_path_factory.mktemp("holes")
    values, metres = image(70, 90), heights(70, 90)
    values[:, 5:40, 10:50] = 0
    metres[30:60, 30:80] = np.nan
    write_raster(folder / "image.tif", values, nodata=0)
    write_raster(folder / "dsm.tif", metres, nodata=math.nan)
    return folder


def test_where_one_is_missing_the_map_is_that_of_the_other(bundle, holes, tmp_path):
    options = {"core_px": 32, "backend": "torch", "layers": ["probabilities"]}
    predict(holes / "image.tif", tmp_path / "o.tif", bundle, "optical", **grouped(**options))
    predict(holes / "dsm.tif", tmp_path / "e.tif", bundle, "elevation", **grouped(**options))
    predict(holes / "image.tif", tmp_path / "b.tif", bundle, elevation=holes / "dsm.tif", **grouped(**options))
    classes, decided = classes_of(tmp_path / "b.tif"), decided_in(tmp_path / "b.tif")
    layers = bands_of(tmp_path / "b.layers.tif")
    for name, code in (("o", OPTICAL), ("e", ELEVATION)):
        alone = decided == code
        assert alone.sum() > 500
        assert len(np.unique(layers[:, alone])) > 3
        np.testing.assert_array_equal(classes[alone], classes_of(tmp_path / f"{name}.tif")[alone])
        np.testing.assert_array_equal(layers[:, alone], bands_of(tmp_path / f"{name}.layers.tif")[:, alone])
    neither = np.zeros((70, 90), bool)
    neither[30:40, 30:50] = True
    np.testing.assert_array_equal(classes == NOTHING, neither)
    np.testing.assert_array_equal(decided == NOTHING, neither)
    # Where both are there, the stored probabilities are the mean of the stored ones, each rounded.
    both = decided == BOTH
    mean = sum(bands_of(tmp_path / f"{name}.layers.tif")[:, both].astype(float) for name in "oe") / 2
    assert np.abs(layers[:, both] - mean).max() <= 1


@pytest.mark.parametrize("stitch", ["exact", "blend"])
def test_bytes_do_not_depend_on_workers_or_blocks(bundle, holes, tmp_path, stitch):
    found = set()
    for i, options in enumerate(({"workers": 1}, {"workers": 2, "block_px": 31}, {"workers": 3, "block_px": 64})):
        out = tmp_path / f"{i}.tif"
        predict(
            holes / "image.tif",
            out,
            bundle,
            elevation=holes / "dsm.tif",
            **grouped(core_px=32, stitch=stitch, backend="torch", layers=["confidence", "disagreement"], **options),
        )
        found.add((out.read_bytes(), (tmp_path / f"{i}.layers.tif").read_bytes()))
    assert len(found) == 1
    assert len(np.unique(classes_of(tmp_path / "0.tif"))) > 2


def test_bytes_on_a_working_grid_do_not_depend_on_blocks(tmp_path, holes):
    bundle = make_bundle(tmp_path / "b", resolution_m=1.3)
    for name, options in (("1.tif", {"workers": 1}), ("2.tif", {"workers": 2, "block_px": 37})):
        predict(
            holes / "image.tif",
            tmp_path / name,
            bundle,
            elevation=holes / "dsm.tif",
            **grouped(core_px=32, backend="torch", **options),
        )
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes()
    classes, decided = classes_of(tmp_path / "1.tif"), decided_in(tmp_path / "1.tif")
    # Validity is that of the scene's own pixels: no hole grows or shrinks with the working grid.
    np.testing.assert_array_equal(np.argwhere(decided == NOTHING).min(axis=0), (30, 30))
    assert (decided == NOTHING).sum() == 10 * 20
    np.testing.assert_array_equal(classes == NOTHING, decided == NOTHING)


def softmax_of(index, temperature):
    values = [math.exp((i == index) / temperature) for i in range(3)]
    return [v / sum(values) for v in values]


def test_layers_use_the_temperatures_and_weights_of_the_bundle(opposed, tmp_path):
    values, metres = image(8, 8), np.full((8, 8), 3, np.float32)
    values[:, :4, :4] = 0
    metres[:2, :] = -1
    write_raster(tmp_path / "image.tif", values, nodata=0)
    write_raster(tmp_path / "dsm.tif", metres, nodata=-1)
    names = ("probabilities", "confidence", "entropy", "disagreement")
    summary = predict(
        tmp_path / "image.tif",
        tmp_path / "m.tif",
        opposed,
        elevation=tmp_path / "dsm.tif",
        execution=Execution(backend="torch"),
        outputs=Outputs(layers=names),
    )
    optical, elevation = softmax_of(1, 1.0), softmax_of(2, 0.5)
    assert optical == pytest.approx([0.211942, 0.576117, 0.211942], abs=1e-6)
    assert elevation == pytest.approx([0.106507, 0.106507, 0.786986], abs=1e-6)
    pooled = [0.25 * o + 0.75 * e for o, e in zip(optical, elevation, strict=True)]
    assert pooled == pytest.approx([0.132866, 0.223909, 0.643225], abs=1e-6)
    apart = sum(abs(o - e) for o, e in zip(optical, elevation, strict=True)) / 2

    def of(probabilities, disagreement):
        shares = [*probabilities, max(probabilities), -sum(p * math.log(p) for p in probabilities) / math.log(3)]
        return [*(254 * share for share in shares), disagreement]

    with rasterio.open(tmp_path / "m.layers.tif") as found:
        assert summary.layers_path == tmp_path / "m.layers.tif"
        assert found.descriptions == (
            "probability of water", "probability of grass", "probability of roof", "confidence", "entropy",
            "disagreement",
        )  # fmt: skip
        assert found.scales == (1 / 254,) * 6
        assert found.nodata == 255
        assert (found.tags()["MODALITY"], found.tags()["BUNDLE_SHA256"]) == ("both", opposed.sha256)
        layers = found.read()
    expected = {
        (7, 7): of(pooled, 254 * apart),
        (0, 7): of(optical, 255),
        (3, 0): of(elevation, 255),
        (0, 0): [255] * 6,
    }
    for (row, col), values in expected.items():
        np.testing.assert_allclose(layers[:, row, col], values, rtol=0, atol=HALF_A_STEP)
    classes, decided = classes_of(tmp_path / "m.tif"), decided_in(tmp_path / "m.tif")
    assert [decided[place] for place in expected] == [BOTH, OPTICAL, ELEVATION, NOTHING]
    assert [classes[place] for place in expected] == [ROOF, GRASS, ROOF, NOTHING]


def test_without_a_calibration_both_count_alike(tmp_path):
    plain = make_bundle(tmp_path / "b", constant={"optical": 1, "elevation": 2})
    write_raster(tmp_path / "image.tif", image(4, 4))
    write_raster(tmp_path / "dsm.tif", np.zeros((4, 4), np.float32))
    predict(
        tmp_path / "image.tif",
        tmp_path / "m.tif",
        plain,
        elevation=tmp_path / "dsm.tif",
        execution=Execution(backend="torch"),
        outputs=Outputs(layers=["probabilities"]),
    )
    even = (0.211942 + 0.576117) / 2
    np.testing.assert_allclose(
        bands_of(tmp_path / "m.layers.tif")[:, 2, 2], [254 * 0.211942, 254 * even, 254 * even], rtol=0, atol=HALF_A_STEP
    )


def test_a_map_of_its_own_says_which_modality_decided(opposed, holes, tmp_path):
    summary = predict(
        holes / "image.tif",
        tmp_path / "m.tif",
        opposed,
        elevation=holes / "dsm.tif",
        execution=Execution(backend="torch"),
    )
    assert summary.decided_path == tmp_path / "m.decided.tif"
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.descriptions == ("land cover",)
        assert [c["value"] for c in json.loads(found.tags()["CLASSES"])] == list(SCHEME.values)
        tags = found.tags()
        assert (tags["MODALITY"], tags["SCENE"]) == ("both", "image.tif")
        assert (tags["BACKEND"], tags["PRECISION"]) == ("torch", "float32")
    with rasterio.open(tmp_path / "m.decided.tif") as found:
        assert (found.descriptions, found.dtypes, found.nodata) == (("decided by",), ("uint8",), 255)
        named = {c["value"]: c["name"] for c in json.loads(found.tags()["CLASSES"])}
        assert named == {1: "optical", 2: "elevation", 3: "both"}
        assert len({found.colormap(1)[value] for value in named}) == 3
        assert set(np.unique(found.read(1))) == {1, 2, 3, 255}
        tags = found.tags()
        assert (tags["MODALITY"], tags["BUNDLE_SHA256"]) == ("both", opposed.sha256)
    assert names_in(tmp_path) == ["m.decided.tif", "m.decided.tif.aux.xml", "m.tif", "m.tif.aux.xml"]


def test_one_modality_has_no_such_map(opposed, holes, tmp_path):
    summary = predict(holes / "image.tif", tmp_path / "m.tif", opposed, "optical", execution=Execution(backend="torch"))
    assert names_in(tmp_path) == ["m.tif", "m.tif.aux.xml"]
    assert (summary.decided, summary.decided_path, summary.layers_path) == ({}, None, None)


def test_one_pixel(opposed, tmp_path):
    write_raster(tmp_path / "image.tif", image(1, 1))
    write_raster(tmp_path / "dsm.tif", np.zeros((1, 1), np.float32))
    summary = predict(
        tmp_path / "image.tif",
        tmp_path / "m.tif",
        opposed,
        elevation=tmp_path / "dsm.tif",
        execution=Execution(backend="torch"),
    )
    assert classes_of(tmp_path / "m.tif").tolist() == [[ROOF]]
    assert decided_in(tmp_path / "m.tif").tolist() == [[BOTH]]
    assert summary.decided == {"optical": 0, "elevation": 0, "both": 1}
    assert summary.area_m2 == {"water": 0, "grass": 0, "roof": 1}


def test_one_height_for_the_whole_scene(opposed, tmp_path):
    """A pixel of the surface model as large as the scene: it is interpolated, never refused."""
    write_raster(tmp_path / "image.tif", image(20, 20))
    write_raster(tmp_path / "dsm.tif", np.zeros((1, 1), np.float32), transform=UTM @ Affine.scale(20))
    predict(
        tmp_path / "image.tif",
        tmp_path / "m.tif",
        opposed,
        elevation=tmp_path / "dsm.tif",
        execution=Execution(backend="torch"),
    )
    decided = decided_in(tmp_path / "m.tif")
    # The bilinear weight of a single pixel is the product of two ramps, at least half of it within a rounded diamond.
    along = 1 - np.abs((np.arange(20) + 0.5) / 20 - 0.5)
    np.testing.assert_array_equal(decided == BOTH, np.outer(along, along) >= 0.5)


def test_a_surface_model_elsewhere(opposed, tmp_path):
    write_raster(tmp_path / "image.tif", image(20, 20))
    far = write_raster(tmp_path / "dsm.tif", np.zeros((5, 5), np.float32), transform=UTM @ Affine.translation(900, 0))
    with pytest.raises(OverlapError) as error:
        predict(tmp_path / "image.tif", tmp_path / "m.tif", opposed, elevation=far)
    assert str(error.value) == (
        f"{far}: the elevation raster does not meet the reference grid.\n"
        "Expected some part of x 500000 to 500020, y 3999980 to 4000000; "
        "found x 500900 to 500905, y 3999995 to 4000000 (in the CRS of the reference).\n"
        "Check that the files show the same place and carry the right CRS."
    )
    assert names_in(tmp_path) == ["dsm.tif", "image.tif"]


def test_neither_has_a_valid_pixel(opposed, tmp_path):
    scene = write_raster(tmp_path / "image.tif", np.zeros((3, 9, 9), np.uint8), nodata=0)
    write_raster(tmp_path / "dsm.tif", np.full((9, 9), -1, np.float32), nodata=-1)
    with pytest.raises(RasterError) as error:
        predict(
            scene, tmp_path / "m.tif", opposed, elevation=tmp_path / "dsm.tif", execution=Execution(backend="torch")
        )
    assert str(error.value) == (
        f"{scene}: no pixel is valid for optical or elevation: all are nodata, masked or NaN.\n"
        "Expected at least one valid pixel. Check the nodata tag: it may name the value of the data."
    )
    assert names_in(tmp_path) == ["dsm.tif", "image.tif"]


def test_an_image_as_surface_model(opposed, tmp_path):
    write_raster(tmp_path / "image.tif", image(9, 9))
    with pytest.raises(BundleError, match=r"image.tif: expected one band of heights, found 3 \(red, green, blue\)"):
        predict(tmp_path / "image.tif", tmp_path / "m.tif", opposed, elevation=tmp_path / "image.tif")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["disagreement"]}, "the layer disagreement compares two modalities, found optical alone.\n"
         "Give an image and a surface model, or leave the layer out."),
        ({"layers": ["height"]}, "layer 'height' is unknown. Expected some of probabilities, confidence, entropy, "
         "disagreement."),
        ({"height_unit": "ft"}, "`height_unit='ft'` applies only to elevation, found optical alone.\nLeave it out."),
        ({"ground": "g.tif"}, "g.tif: `ground` applies only to elevation, found optical alone.\nLeave it out."),
    ],
)  # fmt: skip
def test_options_of_another_modality(opposed, tmp_path, options, message):
    write_raster(tmp_path / "image.tif", image(9, 9))
    with pytest.raises(ConfigError) as error:
        predict(tmp_path / "image.tif", tmp_path / "m.tif", opposed, "optical", **grouped(**options))
    assert str(error.value) == message


def test_files_of_an_earlier_map_do_not_outlive_it(opposed, tmp_path):
    scene, out = write_raster(tmp_path / "s.tif", image(9, 9)), tmp_path / "map.tif"
    dsm = write_raster(tmp_path / "d.tif", np.zeros((9, 9), np.float32))
    predict(scene, out, opposed, elevation=dsm, outputs=Outputs(layers=["confidence"]))
    beside = ["map.decided.tif", "map.decided.tif.aux.xml", "map.layers.tif"]
    assert {path.name for path in tmp_path.iterdir()} >= set(beside)
    out.unlink()
    with pytest.raises(OutputError) as error:
        predict(scene, out, opposed, "optical")
    assert str(error.value) == (
        f"{tmp_path / beside[0]}: belongs to another map of this name.\n"
        "Choose another name, or let `overwrite=True` remove it."
    )
    predict(scene, out, opposed, "optical", outputs=Outputs(overwrite=True))
    assert sorted(path.name for path in tmp_path.glob("map*")) == ["map.tif", "map.tif.aux.xml"]


@pytest.mark.parametrize("role", ["scene", "surface model", "bundle", "area"])
@pytest.mark.parametrize("name", ["map.tif", "map.decided.tif", "map.layers.tif"])
def test_no_input_is_replaced(opposed, tmp_path, role, name):
    """Neither by the map nor by the files beside it."""
    target = tmp_path / name
    bundle = opposed
    if role == "bundle":
        bundle = load_bundle(shutil.copy(opposed.path, target))
    scene = write_raster(target if role == "scene" else tmp_path / "s.tif", image(9, 9))
    dsm = write_raster(target if role == "surface model" else tmp_path / "d.tif", np.zeros((9, 9), np.float32))
    area = target if role == "area" else tmp_path / "a.geojson"
    square = [[[-123.1, 36], [-122.9, 36], [-122.9, 36.3], [-123.1, 36.3], [-123.1, 36]]]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": square}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError) as error:
        predict(
            scene,
            tmp_path / "map.tif",
            bundle,
            elevation=dsm,
            aoi=area,
            outputs=Outputs(layers=["confidence"], overwrite=True),
        )
    assert str(error.value) == f"{target}: the map would replace the {role} itself.\nChoose another name."
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_both_branches_compute_with_one_backend(opposed, tmp_path, monkeypatch):
    """Where one of them cannot be converted, other processes would not know which, and a resumed run might mix them."""

    def open_one(_, modality, *, name, temperature, precision, **__):
        made = PixelByPixel(None, temperature, precision)
        made.name = "openvino" if name == "auto" and modality == "optical" else "torch"
        return made

    monkeypatch.setattr("geocrodino.prediction.job.open_backend", open_one)
    scene = write_raster(tmp_path / "s.tif", image(40, 50))
    surface = write_raster(tmp_path / "d.tif", heights(40, 50))
    for second, name in ((None, "openvino"), (surface, "torch")):
        predict(scene, tmp_path / "m.tif", opposed, elevation=second, outputs=Outputs(overwrite=True))
        with rasterio.open(tmp_path / "m.tif") as found:
            assert found.tags()["BACKEND"] == name
