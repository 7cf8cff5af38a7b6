"""What a file says about its values, in maps made of variants of one scene that mean the same, or do not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from reliability.kinds import case, marked

SCALE = "values on another scale than the training's"
NAMES = "names of bands"
SATURATED = "one band at the nodata value"
VALIDITY = "sources of validity"
ALPHA = "transparency and near infrared"
PLACE = "half a georeference"
UNITS = "scale, offset and unit of heights"
IMPOSSIBLE = "impossible heights"
SENTINEL = "nodata values that lost digits"
ROLE = "rasters that are no heights"
MEMBERS = "tiles whose values mean different things"

RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


@pytest.fixture
def predict(run_cli: Callable[..., Any], sample: Any, tmp_path: Path) -> Callable[..., Any]:
    """Predict with the model of the town; gives exit code, standard error and the map or None."""

    def run(scene: Path, *options: object, modality: str = "optical") -> tuple[int, str, Any]:
        target = tmp_path / "map.tif"
        target.unlink(missing_ok=True)
        words = ("--modality", modality, "--model", sample.bundle, "--out", target, "--overwrite", "--backend", "torch")
        code, out, err = run_cli("predict", scene, *words, *options)
        assert "Traceback" not in err
        assert (code == 0) == target.exists()
        if code:
            return code, err, None
        with rasterio.open(target) as dataset:
            return code, out + err, dataset.read(1)

    return run


@pytest.fixture(scope="module")
def kept_maps() -> dict[str, Any]:
    """Maps that the first test makes for all."""
    return {}


@pytest.fixture
def plain(
    predict: Callable[..., Any], write: Callable[..., Path], sample: Any, kept_maps: dict[str, Any]
) -> dict[str, Any]:
    """Maps of the image and of the heights as they are; not to be changed."""
    if not kept_maps:
        image = predict(write("plain.tif", sample.image))[2]
        heights = predict(write("heights.tif", sample.heights, "elevation"), modality="elevation")[2]
        assert min(np.unique(image).size, np.unique(heights).size) >= 3, "a map of one class tells nothing"
        kept_maps |= {"optical": image, "elevation": heights}
    return kept_maps


def refused(result: tuple[int, str, Any], *words: str) -> None:
    assert result[0] == 2
    for word in words:
        assert word in result[1]


# --- values of an image ---------------------------------------------------------------------------------------------

VARIANTS = {
    "16 bits in full": (lambda v: v.astype(np.uint16) * 257, "1/257"),
    "fractions": (lambda v: (v / 255).astype(np.float32), "255"),
    "fractions in double precision": (lambda v: v / 255, "255"),
}


@pytest.mark.parametrize("variant", [case(SCALE, "refused", name, id=name) for name in VARIANTS])
def test_another_scale_is_refused_and_the_factor_named_is_right(predict, plain, write, sample, variant):
    change, factor = VARIANTS[variant]
    path = write("scaled.tif", change(sample.image))
    refused(predict(path), "scaled.tif: the values are on another scale than in training", f"--rescale {factor} ")
    again = predict(path, "--rescale", factor)
    assert again[0] == 0
    assert (again[2] == plain["optical"]).mean() > 0.999


@pytest.mark.parametrize(
    ("change", "words"),
    [
        case(SCALE, "refused", lambda v: v.astype(np.uint16) * 39 + 400, "--rescale 255/10000", id="0 to 10000"),
        case(
            SCALE,
            "refused",
            lambda v: v.astype(np.int16) - 300,
            "is processed like that of the training",
            id="negative",
        ),
        case(SCALE, "refused", lambda v: v.astype(np.float32) * 1e6, "another scale", id="far too large"),
    ],
)
def test_another_scale_without_a_plain_factor(predict, write, sample, change, words):
    refused(predict(write("scaled.tif", change(sample.image))), words, "Expected red")


@pytest.mark.parametrize(
    "change",
    [
        case(SCALE, "warned", lambda v: (v // 6).astype(np.uint8), id="very dark"),
        case(
            SCALE, "warned", lambda v: np.where(np.arange(v.shape[2]) % 2, v, v // 9).astype(np.uint8), id="half dark"
        ),
    ],
)
def test_values_far_from_the_training_s_are_a_warning(predict, write, sample, change):
    code, said, _ = predict(write("dark.tif", change(sample.image)))
    assert code == 0
    assert "the values are unlike those of the training" in said


@pytest.mark.parametrize(
    "dtype", [case(SCALE, "right", dtype, id=dtype) for dtype in ("uint16", "int16", "float32", "float64")]
)
def test_the_same_values_in_another_type(predict, plain, write, sample, dtype):
    code, said, found = predict(write("same.tif", sample.image.astype(dtype)))
    assert code == 0
    assert "Warning" not in said
    np.testing.assert_array_equal(found, plain["optical"])


# --- bands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        case(NAMES, "right", {"descriptions": ("blue", "green", "red")}, id="descriptions"),
        case(NAMES, "right", {"descriptions": ("B2", "B3", "B4")}, id="numbers of a satellite"),
        case(NAMES, "right", {"colorinterp": RGBA[2::-1]}, id="colours"),
        case(NAMES, "right", {"descriptions": ("Blau", "GREEN ", "red band")}, id="other spellings"),
    ],
)
def test_bands_in_another_order(predict, plain, write, sample, tags):
    code, said, found = predict(write("bgr.tif", sample.image[::-1], tags=tags))
    assert code == 0
    assert "Bands by name: red, green, blue" in said
    np.testing.assert_array_equal(found, plain["optical"])


@marked(NAMES, "right")
def test_a_fourth_band_before_the_others(predict, plain, write, sample):
    four = np.concatenate([sample.image[:1] // 2, sample.image])
    path = write("nir.tif", four, tags={"descriptions": ("near infrared", "red", "green", "blue")})
    np.testing.assert_array_equal(predict(path)[2], plain["optical"])


@marked(NAMES, "right")
def test_names_in_a_stac_item(predict, plain, write, sample, tmp_path):
    path = write("bgr.tif", sample.image[::-1], photometric="MINISBLACK")
    names = [{"name": f"B{i}", "common_name": name} for i, name in enumerate(("blue", "green", "red"))]
    asset = {"href": path.name, "roles": ["data"], "eo:bands": names}
    item = tmp_path / "item.json"
    item.write_text(json.dumps({"type": "Feature", "id": "a", "assets": {"image": asset}}))
    np.testing.assert_array_equal(predict(item)[2], plain["optical"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        case(NAMES, "refused", ("nir", "red", "green"), "found none named blue", id="another band"),
        case(NAMES, "refused", ("Red", "red", "blue"), "none named green", id="a name twice"),
    ],
)
def test_names_that_cannot_be_matched(predict, plain, write, sample, names, words):
    path = write("other.tif", sample.image, tags={"descriptions": names})
    refused(predict(path), "other.tif: the bands do not match those of the training by name", words, "--bands 1,2,3")
    np.testing.assert_array_equal(predict(path, "--bands", "1,2,3")[2], plain["optical"])


@marked(NAMES, "right")
def test_an_image_without_names_goes_by_number(predict, plain, write, sample):
    path = write("none.tif", sample.image, photometric="MINISBLACK")
    _, said, found = predict(path)
    assert "Bands by number: 1, 2, 3 (the image names no bands)" in said
    np.testing.assert_array_equal(found, plain["optical"])


# --- validity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [case(SATURATED, "right", d, n, id=f"{d}, {n}") for d, n in (("uint8", 255), ("uint16", 255), ("float32", 255))],
)
def test_a_roof_with_one_saturated_band_is_mapped(predict, write, sample, dtype, nodata):
    values = sample.image.astype(dtype)
    values[0, 40:60, 40:60], values[1:, 40:60, 40:60] = nodata, 90
    values[:, 80:90, 80:90] = nodata
    found = predict(write("roof.tif", values, nodata=nodata))[2]
    assert (found[40:60, 40:60] != 255).all()
    assert (found[80:90, 80:90] == 255).all()


def collar(sample: Any) -> np.ndarray:
    values = sample.image.copy()
    values[:, :, :50] = 0
    return values


@pytest.mark.parametrize(
    ("profile", "tags"),
    [
        case(VALIDITY, "right", {"nodata": 0}, {}, id="nodata"),
        case(VALIDITY, "right", {}, {"tags": {"NODATA_VALUES": "0 0 0"}}, id="NODATA_VALUES"),
        case(VALIDITY, "right", {"nodata": 7}, {"tags": {"NODATA_VALUES": "0 0 0"}}, id="NODATA_VALUES beside nodata"),
    ],
)
def test_a_black_collar_is_not_mapped(predict, write, sample, profile, tags):
    found = predict(write("collar.tif", collar(sample), tags=tags, **profile))[2]
    assert (found[:, :50] == 255).all()
    assert (found[:, 50:] != 255).mean() > 0.99


@pytest.mark.parametrize("external", [case(VALIDITY, "right", e, id=f"mask, external {e}") for e in (False, True)])
def test_a_mask_beside_the_bands(predict, write, sample, external):
    path = write("masked.tif", collar(sample))
    mask = np.full(sample.image.shape[1:], 255, np.uint8)
    mask[:, :50] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=not external), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert (predict(path)[2][:, :50] == 255).all()


@pytest.mark.parametrize(
    "edge",
    [case(ALPHA, "right", edge, id=f"edge of {edge} px") for edge in (0, 40, 200)],
)
def test_transparency_with_soft_edges(predict, plain, write, sample, edge):
    height, width = sample.image.shape[1:]
    ramp = np.clip((np.arange(width) - 50) * 255 / max(edge, 1) + (edge == 0) * 255, 0, 255)
    alpha = np.broadcast_to(np.where(np.arange(width) < 50, 0, np.maximum(ramp, 1)), (height, width)).astype(np.uint8)
    path = write("rgba.tif", np.concatenate([sample.image, alpha[None]]), tags={"colorinterp": RGBA})
    code, _, found = predict(path)
    assert code == 0
    assert (found[:, :50] == 255).all()
    # Beside what is missing the network sees less; far from it nothing changes.
    np.testing.assert_array_equal(found[:, 200:], plain["optical"][:, 200:])


# --- where a raster lies --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("role", [case(PLACE, "refused", role, id=role) for role in ("optical", "elevation")])
def test_no_geotransform(predict, write, sample, role):
    values = sample.image if role == "optical" else sample.heights
    path = write("nowhere.tif", values, role, transform=Affine.identity())
    refused(predict(path, modality=role), "nowhere.tif: does not say where it lies. Expected a geotransform")
    where = sample.profiles[role]["transform"]
    command = ["edit-info", "--transform", json.dumps([where.a, where.b, where.c, where.d, where.e, where.f]), path]
    subprocess.run([Path(sys.executable).with_name("rio"), *map(str, command)], check=True)
    assert predict(path, modality=role)[0] == 0


@marked(PLACE, "refused")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_alone(predict, sample, tmp_path):
    count, height, width = sample.image.shape
    corners = [(r, c) for r in (0, height) for c in (0, width)]
    points = [GroundControlPoint(r, c, 400_000 + c, 5_000_000 - r) for r, c in corners]
    path = tmp_path / "points.tif"
    size = {"count": count, "height": height, "width": width, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", gcps=points, crs="EPSG:32631", **size) as target:
        target.write(sample.image)
    refused(predict(path), "points.tif: is located by 4 ground control points alone", f"gdalwarp {path} warped.tif")


# --- heights --------------------------------------------------------------------------------------------------------

US_FOOT = 1200 / 3937


@pytest.mark.parametrize(
    ("change", "tags"),
    [
        case(
            UNITS, "right", lambda h: np.rint((h - 100) / 0.01).astype(np.int16),
            {"scales": (0.01,), "offsets": (100.0,)}, id="scale and offset",
        ),
        case(UNITS, "right", lambda h: np.rint(h * 100).astype(np.uint16), {"scales": (0.01,)}, id="scale"),
        *(
            case(UNITS, "right", lambda h: h / US_FOOT, {"units": (unit,)}, id=unit)
            for unit in ("ftUS", "US survey foot", "Foot_US", "feet (US)", "us-ft")
        ),
        case(UNITS, "right", lambda h: h / 0.3048, {"units": ("Foot_Intl",)}, id="Foot_Intl"),
        case(UNITS, "right", lambda h: h * 10, {"units": ("decimeter",)}, id="decimeter"),
    ],
)  # fmt: skip
def test_heights_in_other_words(predict, plain, write, sample, change, tags):
    missing = sample.heights == sample.profiles["elevation"]["nodata"]
    changed = change(np.where(missing, sample.heights[~missing].mean(), sample.heights).astype(np.float64))
    nodata = 0 if changed.dtype == np.uint16 else -9999
    stored = np.where(missing, nodata, changed).astype(changed.dtype if changed.dtype.kind in "iu" else np.float32)
    path = write("other.tif", stored, "elevation", nodata=nodata, tags={"units": ("metre",), **tags})
    code, _, found = predict(path, modality="elevation")
    assert code == 0
    assert (found == plain["elevation"]).mean() > 0.995  # heights differ by half a centimetre


@marked(UNITS, "refused")
def test_a_unit_that_is_not_known_is_asked_for(predict, plain, write, sample):
    path = write("furlong.tif", sample.heights, "elevation", tags={"units": ("furlong",)})
    refused(predict(path, modality="elevation"), "furlong.tif: unknown unit of height 'furlong'", "--height-unit m")
    found = predict(path, "--height-unit", "m", modality="elevation")[2]
    np.testing.assert_array_equal(found, plain["elevation"])


@marked(UNITS, "right")
def test_kilometres_across(predict, plain, write, sample):
    crs = "+proj=utm +zone=31 +datum=WGS84 +units=km +no_defs"
    where = Affine.scale(0.001) @ sample.profiles["elevation"]["transform"]
    path = write("km.tif", sample.heights, "elevation", crs=crs, transform=where)
    code, said, found = predict(path, modality="elevation")
    assert code == 0
    assert "Heights taken as metres" in said
    assert (found == plain["elevation"]).mean() > 0.99


@pytest.mark.parametrize(
    ("value", "pixels"),
    [
        case(IMPOSSIBLE, "warned", value, pixels, id=f"{value:g}, {pixels} px")
        for value, pixels in ((-9999, 1), (-32768, 1), (1e38, 1), (1e6, 5), (4000, 1), (-9999, 100), (-500, 2))
    ],
)
def test_impossible_heights_are_missing_and_counted(predict, write, sample, value, pixels):
    heights, tagged = sample.heights.copy(), sample.heights.copy()
    side = range(30, 30 + pixels) if pixels < 100 else range(10)
    places = [(30 + 4 * i, 30 + 9 * (i % 10)) for i in range(len(side))] if pixels < 100 else [
        (40 + i, 40 + j) for i in range(10) for j in range(10)
    ]  # fmt: skip
    for row, col in places:
        heights[row, col], tagged[row, col] = value, -9999
    count = len(places)
    code, said, found = predict(write("pits.tif", heights, "elevation", nodata=-9999.5), modality="elevation")
    expected = predict(write("tagged.tif", tagged, "elevation"), modality="elevation")[2]
    holes = int((sample.heights == -9999).sum())  # of the scene itself, whose tag is another number here
    assert code == 0
    low, high = min(value, -9999), max(value, -9999)
    values = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    assert f"pits.tif: {count + holes:,} impossible heights ({values})" in said
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("role", [case(SENTINEL, "right", role, id=role) for role in ("elevation", "optical")])
def test_a_sentinel_written_as_text(predict, write, sample, tmp_path, role):
    values = (sample.heights[None] if role == "elevation" else sample.image).astype(np.float32)
    values[:, 30:50, 30:50] = np.finfo(np.float32).min
    path = write("low.tif", values, role, nodata=None)
    bands = "".join(
        f"<VRTRasterBand dataType='Float32' band='{i}'><NoDataValue>-3.40282e+38</NoDataValue><SimpleSource>"
        f"<SourceFilename relativeToVRT='1'>low.tif</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>"
        "</VRTRasterBand>"
        for i in range(1, len(values) + 1)
    )
    t = sample.profiles[role]["transform"]
    virtual = tmp_path / "low.vrt"
    virtual.write_text(
        f"<VRTDataset rasterXSize='{values.shape[2]}' rasterYSize='{values.shape[1]}'><SRS>EPSG:32631</SRS>"
        f"<GeoTransform>{t.c},{t.a},0,{t.f},0,{t.e}</GeoTransform>{bands}</VRTDataset>"
    )
    del path
    code, said, found = predict(virtual, modality=role)
    assert code == 0
    holes = int((values == -9999).sum())  # of the scene itself, which this file does not tag
    assert (f"{holes:,} impossible heights (-9999)" in said) == (role == "elevation")
    assert (found[32:48, 32:48] == 255).all()


# --- what is taken for heights --------------------------------------------------------------------------------------


def palette(path: Path) -> None:
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
        dataset.colorinterp = (ColorInterp.palette,)


@pytest.mark.parametrize("modality", [case(ROLE, "refused", m, id=f"palette, {m}") for m in ("auto", "elevation")])
def test_a_palette_image(predict, write, sample, modality):
    path = write("palette.tif", sample.image[0])
    palette(path)
    refused(predict(path, modality=modality), "palette.tif", "found a table of colours", "gdal_translate -expand rgb")


@marked(ROLE, "refused")
def test_a_palette_image_with_numbers_of_bands(predict, write, sample):
    path = write("palette.tif", sample.image[0])
    palette(path)
    refused(predict(path, "--bands", "1,1,1"), "palette.tif", "found a table of colours")


@marked(ROLE, "refused")
def test_labels_are_not_taken_for_heights_unasked(predict, write, sample):
    path = write("labels.tif", sample.labels, "labels")
    refused(predict(path, modality="auto"), "labels.tif: expected heights or an image, found", "--modality elevation")


@pytest.mark.parametrize("modality", [case(ROLE, "refused", m, id=f"map, {m}") for m in ("auto", "elevation")])
def test_a_map_of_ours(predict, write, sample, tmp_path, modality):
    assert predict(write("scene.tif", sample.image))[0] == 0
    shutil.copy(tmp_path / "map.tif", tmp_path / "earlier.tif")
    refused(predict(tmp_path / "earlier.tif", modality=modality), "earlier.tif", "found a map that geocrodino wrote")


@pytest.mark.parametrize("modality", [case(ROLE, "refused", m, id=f"complex, {m}") for m in ("auto", "elevation")])
def test_complex_numbers(predict, write, sample, modality):
    path = write("complex.tif", sample.heights.astype(np.complex64), "elevation")
    refused(predict(path, modality=modality), "complex.tif: expected real numbers, found complex64")


# --- members of one scene -------------------------------------------------------------------------------------------


@pytest.fixture
def halves(write: Callable[..., Path], sample: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write the two halves of a raster as a folder of tiles."""

    def make(left: Any, right: Any, role: str = "optical", left_options: Any = None, right_options: Any = None) -> Path:
        (tmp_path / "tiles").mkdir(exist_ok=True)
        width = left.shape[-1]
        where = sample.profiles[role]["transform"]
        write("tiles/a.tif", left, role, **(left_options or {}))
        write("tiles/b.tif", right, role, transform=where @ Affine.translation(width, 0), **(right_options or {}))
        return tmp_path / "tiles"

    return make


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        case(
            MEMBERS, "refused", lambda v: v.astype(np.uint16) * 257, {},
            "expected values of type uint8, found values of type uint16", id="types",
        ),
        case(
            MEMBERS, "refused", lambda v: v[::-1], {"tags": {"descriptions": ("blue", "green", "red")}},
            "expected bands named red, green, blue, found bands named blue, green, red", id="names",
        ),
        case(
            MEMBERS, "refused", lambda v: v, {"tags": {"scales": (0.5,) * 3}},
            "expected values of type uint8, found values of type uint8 with scale 0.5 and offset 0", id="scale",
        ),
    ],
)  # fmt: skip
def test_tiles_that_do_not_fit_together(predict, halves, sample, change, options, words):
    folder = halves(sample.image[:, :, :150], change(sample.image[:, :, 150:]), right_options=options)
    refused(predict(folder), "not of one scene with", words, "Name only files whose values mean the same.")


@marked(MEMBERS, "right")
def test_scaled_and_plain_tiles_of_heights(predict, plain, halves, sample):
    heights = sample.heights
    right = heights[:, 70:]
    missing = right == -9999
    stored = np.where(missing, -32768, np.rint((np.where(missing, 0, right) - 100) / 0.01)).astype(np.int16)
    options = {"nodata": -32768, "tags": {"scales": (0.01,), "offsets": (100.0,), "units": ("m",)}}
    folder = halves(heights[:, :70], stored, "elevation", {"tags": {"units": ("metre",)}}, options)
    code, _, found = predict(folder, modality="elevation")
    assert code == 0
    assert (found == plain["elevation"]).mean() > 0.995
