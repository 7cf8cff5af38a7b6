"""What files say about their values, in every role of a training and an inspection."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from geocrodino.errors import BandWarning, HeightRangeWarning
from geocrodino.training.prepare import prepare
from reliability.kinds import case, marked

PLACE = "half a georeference"
UNITS = "scale, offset and unit of heights"
IMPOSSIBLE = "impossible heights"
ROLE = "rasters that are no heights"
VALIDITY = "sources of validity"
ALPHA = "transparency and near infrared"
NAMES = "names of bands"
COMPLEX = "complex numbers"

ROLES = ("optical", "elevation", "ground", "labels")
HEIGHTS = ("elevation", "ground")


@pytest.fixture
def commands(run_cli: Callable[..., Any], town: Any, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """What `train` and `inspect` say where one raster of the town is replaced; both must refuse."""

    def run(role: str, path: Path) -> tuple[str, str]:
        files = {"optical": town.optical, "elevation": town.elevation, "labels": town.labels, role: path}
        words = [word for name, file in files.items() for word in (f"--{name}", file)]
        code, _, err = run_cli("train", *words, "--aoi", town.aoi, "--patch-px", 32, "--out", tmp_path / "run")
        assert code == 2
        assert not (tmp_path / "run" / "bundle.safetensors").exists()
        code, out, said = run_cli("inspect", *words, "--aoi", town.aoi, "--patch-px", 32)
        assert code == 2
        return err.removeprefix("Error: "), out + said

    return run


def raster_of(sample: Any, role: str) -> Any:
    return {"optical": sample.image, "labels": sample.labels}.get(role, sample.heights)


def profile_of(role: str) -> str:
    return "elevation" if role == "ground" else role


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("role", [case(PLACE, "refused", role, id=f"train, {role}") for role in ROLES])
def test_no_geotransform_in_any_role(commands, write, sample, role):
    path = write("nowhere.tif", raster_of(sample, role), profile_of(role), transform=Affine.identity())
    told, shown = commands(role, path)
    assert told.startswith(f"{path}: does not say where it lies. Expected a geotransform")
    assert told.strip() in shown


@pytest.mark.parametrize("role", [case(COMPLEX, "refused", role, id=f"train, {role}") for role in ROLES])
def test_complex_numbers_in_any_role(commands, write, sample, role):
    path = write("complex.tif", raster_of(sample, role).astype(np.complex64), profile_of(role), nodata=None)
    told, shown = commands(role, path)
    assert told.startswith(f"{path}: expected real numbers, found complex64")
    assert told.strip() in shown


@pytest.mark.parametrize("role", [case(ROLE, "refused", role, id=f"train, palette as {role}") for role in ROLES[:3]])
def test_a_palette_in_place_of_measured_values(commands, write, sample, role):
    path = write("palette.tif", sample.image[0], "optical")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
        dataset.colorinterp = (ColorInterp.palette,)
    told, shown = commands(role, path)
    assert told.startswith(f"{path}: expected {'brightness' if role == 'optical' else 'heights'}")
    assert "found a table of colours" in told
    assert told.strip() in shown


@pytest.mark.parametrize(
    "role", [case(UNITS, "refused", role, id=f"train, {role}") for role in ("elevation", "ground")]
)
def test_a_unit_that_is_not_known(commands, write, sample, role):
    told, shown = commands(role, write("ell.tif", sample.heights, "elevation", tags={"units": ("ell",)}))
    assert "ell.tif: unknown unit of height 'ell'" in told
    assert told.strip() in shown


def statistics(ready: Any) -> np.ndarray:
    return np.array([(c.low, c.high, c.mean, c.std) for c in ready.specs["elevation"].channels])


@pytest.mark.parametrize("role", HEIGHTS)
@pytest.mark.parametrize(
    ("scale", "offset", "unit", "metres"),
    [
        case(UNITS, "right", 0.01, 100.0, "m", 1.0, id="train, scale and offset"),
        case(UNITS, "right", 1.0, 0.0, "ftUS", 1200 / 3937, id="train, ftUS"),
        case(UNITS, "right", 0.05, 10.0, "Foot_US", 1200 / 3937, id="train, scaled Foot_US"),
    ],
)
def test_heights_in_other_words_train_the_same(
    tiny_config, town, write, sample, tmp_path, role, scale, offset, unit, metres
):
    ground = {"data.ground": str(town.ground)} if role == "ground" else {}
    plain = prepare(tiny_config(ground), tmp_path / "plain")
    with rasterio.open(getattr(town, role)) as dataset:
        values, missing = dataset.read(1).astype(np.float64), dataset.read_masks(1) == 0
    stored = np.where(missing, -32768, (np.where(missing, 0, values / metres) - offset) / scale)
    stored = np.rint(stored).astype(np.int16) if scale != 1 else stored.astype(np.float32)
    tags = {"scales": (scale,), "offsets": (offset,), "units": (unit,)}
    with rasterio.open(getattr(town, role)) as dataset:
        where = dataset.transform
    path = write("other.tif", stored, "elevation", nodata=-32768, transform=where, tags=tags)
    ready = prepare(tiny_config({**ground, f"data.{role}": str(path)}), tmp_path / "other")
    np.testing.assert_allclose(statistics(ready), statistics(plain), atol=0.02)  # half a step of 5 cm in feet


@pytest.mark.parametrize(
    "role", [case(IMPOSSIBLE, "warned", r, id=f"train and inspect, {r}") for r in ("elevation", "ground")]
)
def test_impossible_heights_are_counted(tiny_config, run_cli, town, write, sample, tmp_path, role):
    with rasterio.open(getattr(town, role)) as dataset:
        values, where = dataset.read(1), dataset.transform
    missing = values == -9999
    values = np.where(missing, values[~missing].mean(), values)
    tagged = values.copy()
    values[60, 60:63], tagged[60, 60:63] = (-9999, 1e6, 9000), np.nan
    ground = {"data.ground": str(town.ground)} if role == "ground" else {}
    pits = write("pits.tif", values, "elevation", transform=where, nodata=None, tags={"units": ("metre",)})
    told = f"{pits}: 3 impossible heights (-9999 to 1e+06 metre), read as missing"
    for _ in range(2):  # layers that are there already are told of again
        with pytest.warns(HeightRangeWarning) as caught:
            ready = prepare(tiny_config({**ground, f"data.{role}": str(pits)}), tmp_path / "pits")
        assert any(str(w.message).startswith(told) for w in caught)
    holes = write("holes.tif", tagged, "elevation", transform=where, nodata=None, tags={"units": ("metre",)})
    expected = prepare(tiny_config({**ground, f"data.{role}": str(holes)}), tmp_path / "holes")
    np.testing.assert_array_equal(
        ready.scenes[0].layers.channels("elevation"), expected.scenes[0].layers.channels("elevation")
    )
    code, out, _ = run_cli("inspect", f"--{role}", pits)
    assert code == 0
    assert told.split(":", 1)[1].split(",", maxsplit=1)[0].strip() in " ".join(out.split())


@marked(VALIDITY, "right")
def test_a_collar_by_metadata_enters_no_statistics(tiny_config, write, sample, tmp_path):
    values = sample.image.copy()
    values[:, :, :40] = 0
    path = write("collar.tif", values, tags={"tags": {"NODATA_VALUES": "0 0 0"}})
    ready = prepare(tiny_config({"data.optical": str(path)}), tmp_path / "run")
    optical = ready.scenes[0].layers.channels("optical")
    assert np.isnan(optical).any()
    assert min(c.low for c in ready.specs["optical"].channels) > 0


@marked(ALPHA, "warned")
def test_near_infrared_that_is_tagged_as_transparency_is_trained_on(tiny_config, write, sample, tmp_path):
    four = np.concatenate([sample.image, 255 - sample.image[:1]])
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = write("nir.tif", four, tags={"colorinterp": colours})
    with pytest.warns(BandWarning, match="band 4 is tagged as transparency, but its values look like those of an"):
        ready = prepare(tiny_config({"data.optical": str(path)}), tmp_path / "run")
    assert ready.specs["optical"].recipe.bands == (1, 2, 3, 4)


@marked(NAMES, "right")
def test_names_and_type_travel_with_the_training(tiny_config, write, sample, tmp_path):
    path = write("bgr.tif", sample.image[::-1].astype(np.uint16), tags={"descriptions": ("Blue", "Green", "B04")})
    with warnings.catch_warnings():
        warnings.simplefilter("error", BandWarning)
        ready = prepare(tiny_config({"data.optical": str(path)}), tmp_path / "run")
    recipe = ready.specs["optical"].recipe
    assert (recipe.band_names, recipe.dtype) == (("Blue", "Green", "B04"), "uint16")
