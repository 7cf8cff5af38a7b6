"""A third modality, height channel, loss term and map layer: each is one registration, and nothing else changes."""

from __future__ import annotations

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
import yaml

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import BundleError, ConfigError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.elevation import ElevationModality
from geocrodino.modalities.image import ImageModality
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe import Channel, elevation_recipe
from geocrodino.modalities.registry import definition_of, register, registered
from geocrodino.prediction.combine import Prediction, class_indices, combine, decision_codes, decisions, layer_values
from geocrodino.prediction.engine import predict
from geocrodino.prediction.layers import LAYERS, OutputLayer
from geocrodino.settings.augmentation import RadiometrySettings
from geocrodino.settings.config import load_config
from geocrodino.settings.height_channels import HEIGHT_CHANNELS, HeightChannel
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES, ModalityNames
from geocrodino.settings.prediction import Outputs
from geocrodino.training.checks import check_inputs, check_settings
from geocrodino.training.learners import terms
from geocrodino.training.learners.base import Shape
from geocrodino.training.learners.build import build_learner
from geocrodino.training.run import train

RADAR = ImageModality(
    "radar",
    code=4,
    colour="#7f3fbf",
    raster="a radar image",
    radiometry=RadiometrySettings(gain=0.3, curve=0.0, blur_sigma_px=0.0),
)
BRIGHTNESS = np.array([0.2, 0.08, 0.9, 0.45, 0.02], np.float32)  # ground, road, building, tree, water


def write_radar(labels, path):
    """Amplitude of the generated town: a brightness for each class under speckle, in one band of float32."""
    with rasterio.open(labels) as source:
        classes, profile = source.read(1), source.profile
    speckle = np.random.default_rng(0).gamma(4, 1 / 4, classes.shape).astype(np.float32)
    values = np.append(BRIGHTNESS, np.float32(0.2))[np.minimum(classes, len(BRIGHTNESS))] * np.sqrt(speckle)
    profile.update(dtype="float32", nodata=float("nan"), photometric="MINISBLACK")
    with rasterio.open(path, "w", **profile) as target:
        target.write(values, 1)
        target.descriptions = ("amplitude",)
    return path


@pytest.fixture(scope="module")
def radar():
    with registered(RADAR):
        yield RADAR


@pytest.fixture(scope="module")
def run(radar, town, tiny_config, tmp_path_factory):
    """A training of three modalities with every term between branches: its folder, its radar image, what it returns."""
    folder = tmp_path_factory.mktemp("radar")
    image = write_radar(town.labels, folder / "radar.tif")
    config = tiny_config(
        {"data.rasters": {"radar": str(image)}, "method.name": "crodino", "method.agreement": 1.0,
         "method.adversary": 0.5, "method.heights_from_image": 0.5}
    )  # fmt: skip
    return folder / "run", image, train(config, folder / "run")


def test_three_modalities_are_trained_together(run):
    folder, image, result = run
    assert set(result.val_miou) == {"optical", "elevation", "radar"}
    manifest = load_bundle(result.bundle).manifest
    assert list(manifest.modalities) == ["optical", "elevation", "radar"]
    assert manifest.modalities["radar"].recipe.band_names == ("amplitude",)
    assert sum(manifest.calibration.weight.values()) == pytest.approx(1)
    assert all(0.05 <= manifest.temperature(m) <= 20 for m in MODALITIES)
    logged = (folder / "logs" / "metrics.csv").read_text()
    assert all(f"loss/{t}/radar" in logged for t in ("segmentation", "adversary", "orthogonality"))
    assert "loss/across/optical" in logged
    told = [row["loss/agreement/radar"] for row in csv.DictReader(logged.splitlines())]
    first, *_, last = (float(value) for value in told if value)
    assert first == 0 < last  # it learns from others since the first validation
    assert load_config(folder / "config.yaml", {}).data.raster_paths["radar"] == image


def test_a_map_from_the_radar_image_alone(run, tmp_path):
    _, image, result = run
    summary = predict(image, tmp_path / "map.tif", result.bundle, "radar", outputs=Outputs(layers=["confidence"]))
    assert summary.modalities == ("radar",)
    assert summary.bands == "bands by name: amplitude"
    assert summary.heights is None
    with rasterio.open(tmp_path / "map.tif") as written, rasterio.open(image) as scene:
        assert (written.transform, written.shape) == (scene.transform, scene.shape)
        assert written.tags()["MODALITY"] == "radar"
        assert set(np.unique(written.read(1))) <= {0, 1, 2, 3, 4}


def test_the_command_line_takes_the_names_of_the_bundle(run, run_cli, tmp_path):
    _, image, result = run
    words = ("predict", image, "--model", result.bundle, "--out", tmp_path / "map.tif", "--preview", tmp_path / "a.png")
    code, out, err = run_cli(*words, "--modality", "radar")
    assert (code, err) == (0, "")
    assert "Bands by name: amplitude" in out
    assert (tmp_path / "a.png").exists()
    code, _, err = run_cli(*words, "--modality", "rader")
    assert code == 2
    assert "Did you mean radar?" in err


def test_one_band_can_be_radar_or_heights(run, tmp_path):
    _, image, result = run
    with pytest.raises(ConfigError) as caught:
        predict(image, tmp_path / "map.tif", result.bundle)
    assert str(caught.value) == (
        f"{image}: 1 band of float32 can be heights or a radar image, and the bundle reads both.\n"
        "Say which: `modality='elevation'` or `modality='radar'`."
    )


def test_an_image_and_a_surface_model_still_make_one_map(run, town, tmp_path):
    summary = predict(town.optical, tmp_path / "map.tif", run[2].bundle, elevation=town.elevation)
    assert summary.modalities == ("optical", "elevation")
    assert set(summary.decided) == {"optical", "elevation", "both"}


def test_any_two_modalities_make_a_training(run, town, tmp_path):
    """Elevation and radar without an image: the grid is that of the first of them."""
    files = {"elevation": town.elevation, "labels": town.labels, "aoi": town.aoi}
    content = {"data": {**{role: str(path) for role, path in files.items()}, "rasters": {"radar": "../radar.tif"}}}
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "two.yaml"
    shutil.copy(run[1], tmp_path / "radar.tif")
    file.write_text(yaml.safe_dump(content))
    config = load_config(file, {"training.patch_px": 32})
    found = check_inputs(config)
    (scene,) = found.scenes
    assert list(scene.sources.rasters) == list(found.recipes) == ["elevation", "radar"]
    assert scene.sources.rasters["radar"].path == tmp_path / "radar.tif"
    assert scene.grid.resolution.x == 1.0  # of the surface model; the radar image has 0.5 m
    for changes, told in (
        ({"rasters": {}}, "data.optical: is needed, found nothing"),
        ({"elevation": None}, "expected the rasters of at least two modalities, found radar"),
        ({"rasters": {"optical": "a.tif"}}, "the raster of optical has a key of its own"),
        ({"rasters": {"rader": "a.tif"}}, "found 'rader'. Did you mean radar?"),
    ):
        file.write_text(yaml.safe_dump({"data": {**content["data"], **changes}}))
        with pytest.raises(ConfigError) as caught:
            load_config(file, {})
        assert told in str(caught.value)


def test_its_values_are_compared_with_those_of_the_training(run, tmp_path):
    _, image, result = run
    with rasterio.open(image) as source:
        values, profile = source.read(), source.profile
    with rasterio.open(tmp_path / "decibel.tif", "w", **profile) as target:
        target.write(20 * np.log10(values) - 60)
        target.descriptions = ("amplitude",)
    with pytest.raises(BundleError, match=r"decibel\.tif: the values are on another scale .* Expected amplitude 0\."):
        predict(tmp_path / "decibel.tif", tmp_path / "map.tif", result.bundle, "radar")


def test_a_bundle_of_a_modality_that_is_not_registered(run, monkeypatch):
    monkeypatch.setattr(MODALITIES, "_names", ["optical", "elevation"])
    with pytest.raises(BundleError, match="Input should be 'optical' or 'elevation'"):
        load_bundle(run[2].bundle)


def test_names_and_codes_belong_to_one_modality(radar):
    assert definition_of("radar") is radar
    for name, code in (("radar", 8), ("lidar", 4), ("lidar", 3), ("lidar", 128), ("both", 8), ("a b", 8)):
        with pytest.raises(ValueError, match=r"there is already radar|expected a code of 1, 2, 4|expected a name"):
            register(ImageModality(name, code=code, colour="#000000", raster="an image"))
    with pytest.raises(ConfigError, match=r"^rader: .*Did you mean radar\?"):
        definition_of("rader")


def test_another_package_registers_by_an_entry_point(monkeypatch):
    names, asked = ModalityNames("optical"), []

    def found(group):
        asked.append(group)
        return [SimpleNamespace(load=lambda: names.add("lidar"))]

    monkeypatch.setattr("geocrodino.settings.modality.entry_points", found)
    assert names.knows("optical")
    assert not asked  # nothing is loaded for a known name
    assert names.knows("lidar")
    assert not names.knows("sonar")
    assert asked == ["geocrodino.modalities"]
    assert names.in_order(["lidar", "optical"]) == names[:] == ("optical", "lidar")


# --- combination of three ---------------------------------------------------------------------------------------------


def test_codes_of_three_modalities(radar):
    codes = decision_codes(("radar", "optical", "elevation"))
    assert codes == {
        "optical": 1, "elevation": 2, "radar": 4, "optical and elevation": 3, "optical and radar": 5,
        "elevation and radar": 6, "all": 7,
    }  # fmt: skip
    assert decision_codes(("optical", "elevation")) == {"optical": 1, "elevation": 2, "both": 3}
    scheme = decisions(("optical", "radar"))
    assert [(c.value, c.name, c.colour) for c in scheme.classes] == [
        (1, "optical", "#4c9ed9"), (4, "radar", "#7f3fbf"), (5, "both", "#8a8f98"),
    ]  # fmt: skip


def test_an_average_of_those_that_have_data(radar):
    rng = np.random.default_rng(0)
    valid = np.array([[bool(i & bit) for i in range(8)] for bit in (1, 2, 4)])[:, None]
    answers = {
        m: Prediction(rng.dirichlet(np.ones(3), (1, 8)).transpose(2, 0, 1).astype(np.float32), valid[i])
        for i, m in enumerate(("optical", "elevation", "radar"))
    }
    weight = {"optical": 0.5, "elevation": 0.3, "radar": 0.2}
    verdict = combine(answers, weight)
    assert verdict.decided.tolist() == [[255, 1, 2, 3, 4, 5, 6, 7]]
    assert verdict.compared.tolist() == [[False, False, False, True, False, True, True, True]]
    for pixel in range(1, 8):
        there = [m for i, m in enumerate(answers) if valid[i, 0, pixel]]
        shares = np.array([weight[m] for m in there])
        values = np.stack([answers[m].probabilities[:, 0, pixel] for m in there])
        np.testing.assert_allclose(verdict.probabilities[:, 0, pixel], shares @ values / shares.sum(), rtol=1e-5)
        apart = max(0.5 * np.abs(a - b).sum() for a in values for b in values)
        if len(there) > 1:
            assert verdict.disagreement[0, pixel] == pytest.approx(apart)
    assert class_indices(verdict)[0, 0] == 255


# --- one entry --------------------------------------------------------------------------------------------------------


@pytest.fixture
def roughness():
    """Range of the surface among a pixel and its four neighbours, metres."""

    def values(heights):
        s = heights.surface
        five = np.stack([s[1:-1, 1:-1], s[:-2, 1:-1], s[2:, 1:-1], s[1:-1, :-2], s[1:-1, 2:]])
        return five.max(axis=0) - five.min(axis=0)

    yield HEIGHT_CHANNELS.register(HeightChannel("roughness", "m", "range of the surface", values, margin_px=1))
    HEIGHT_CHANNELS.remove("roughness")


def test_a_height_channel_by_one_entry(roughness, write_raster, tiny_config):
    surface = np.zeros((8, 8), np.float32)
    surface[3, 4] = 5
    raster = RasterSource.open(write_raster("dsm.tif", surface, units="m"))
    assert tiny_config({"elevation.channels": ["roughness", "height"]}).elevation.channels == ("roughness", "height")
    recipe = elevation_recipe(("height", "roughness"))
    assert recipe.halo_px(raster.geobox) == 1
    found, valid = recipe.read(raster, raster.geobox, (2, 6, 3, 7))
    assert found[1].tolist() == [[0, 5, 0, 0], [5, 5, 5, 0], [0, 5, 0, 0], [0, 0, 0, 0]]
    assert valid.all()
    assert Channel.measure("roughness", found[1].ravel()).unit == "m"
    with pytest.raises(ValueError, match="'roughness' already"):
        HEIGHT_CHANNELS.register(HeightChannel("roughness", "m", "another", roughness.values))


def test_a_height_channel_of_another_shape_is_refused(write_raster, monkeypatch):
    wrong = HeightChannel("wrong", "m", "with its margin", lambda heights: heights.surface, margin_px=2)
    monkeypatch.setitem(HEIGHT_CHANNELS._channels, "wrong", wrong)
    raster = RasterSource.open(write_raster("dsm.tif", np.zeros((8, 8), np.float32), units="m"))
    with pytest.raises(ValueError, match=r"height channel wrong: expected values of shape \(3, 3\), found \(7, 7\)"):
        elevation_recipe(("wrong",)).read(raster, raster.geobox, (2, 5, 2, 5))


class Smoothness(terms.LossTerm):
    """Mean absolute difference of neighbouring invariant features."""

    name = "smoothness"

    def of_branch(self, seen, modality):
        loss = seen.outputs[modality].invariant.diff(dim=-1).abs().mean()
        return {f"smoothness/{modality}": self.weight(seen.method) * loss}


def test_a_loss_term_by_one_class(monkeypatch, tiny_config):
    monkeypatch.setattr(terms, "TERMS", [*terms.TERMS])
    monkeypatch.setattr("geocrodino.training.learners.joint.TERMS", [*terms.TERMS, Smoothness()])
    config = tiny_config({"method.name": "single"})
    channels = {"optical": 2, "elevation": 1}

    def build(method):
        torch.manual_seed(0)
        return build_learner(method, Shape(config.network, channels, 3), torch.ones(3))

    learner = build(MethodSettings(name="crodino", terms={"smoothness": 0.5}))
    without = build(MethodSettings(name="crodino"))
    step = step_of(channels)
    added = learner.losses(step, learner).keys() - without.losses(step, without).keys()
    assert added == {"smoothness/optical", "smoothness/elevation"}
    with pytest.raises(ConfigError, match=r"found 'smothness'\. Did you mean smoothness\?"):
        build(MethodSettings(name="crodino", terms={"smothness": 1.0}))


def step_of(channels):
    from geocrodino.data.augmentation import PairAugmentation
    from geocrodino.training.learners.base import Step

    source = {"labels": torch.zeros(2, 32, 32, dtype=torch.int64)}
    for m, count in channels.items():
        source |= {m: torch.randn(2, count, 32, 32), f"{m}_valid": torch.ones(2, 32, 32, dtype=torch.bool)}
    return Step(PairAugmentation(None)(source), source, 0.5)


def test_a_map_layer_by_one_function(run, town, monkeypatch, tmp_path):
    def lead(combined):
        ordered = np.sort(combined.probabilities, axis=0)
        return ordered[-1:] - ordered[-2:-1]

    monkeypatch.setitem(LAYERS, "lead", OutputLayer("probability above that of the second class", lead))
    only = Prediction(np.array([0.5, 0.3, 0.2], np.float32)[:, None, None], np.ones((1, 1), bool))
    assert layer_values(("lead",), combine({"optical": only}, {"optical": 1.0})).tolist() == [[[51]]]  # 0.2 of 254
    predict(town.optical, tmp_path / "map.tif", run[2].bundle, "optical", outputs=Outputs(layers=["lead"]))
    with rasterio.open(tmp_path / "map.layers.tif") as written:
        assert written.descriptions == ("lead",)


@pytest.mark.parametrize("method", ["fusion", "dropout", "kd"])
def test_methods_with_one_geometry_train_three_modalities(run, tiny_config, tmp_path, method):
    _, image, _ = run
    changes = {"data.rasters": {"radar": str(image)}, "method.name": method, "training.epochs": 1}
    result = train(tiny_config(changes), tmp_path / "run")
    assert set(result.val_miou) == ({"fusion"} if method == "fusion" else {"optical", "elevation", "radar"})


def test_two_modalities_train_together_where_a_third_is_registered(radar, tiny_config, tmp_path):
    result = train(tiny_config({"method.name": "fusion", "training.epochs": 1}), tmp_path / "run")
    assert result.epochs == 1


def test_an_item_of_a_map_of_two_modalities(radar, trained, town, run_cli, tmp_path):
    code, _, err = run_cli(
        "predict", town.optical, "--elevation", town.elevation, "--model", trained / "bundle.safetensors",
        "--out", tmp_path / "map.tif", "--stac", tmp_path / "map.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert (tmp_path / "map.json").exists()


def test_other_heights_have_a_recipe_of_their_own(town):
    lidar = ElevationModality("lidar", code=8, colour="#000000", raster="a lidar surface model")
    with registered(lidar):
        options = RecipeOptions(channels=("height",))
        recipe = definition_of("lidar").recipe(RasterSource.open(town.elevation), options)
        assert recipe.modality == "lidar"
        assert definition_of("lidar").describe(recipe) == "heights, for the lidar branch"


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.bands", [1]), ("method.heights_from_image", 0.5), ("encoder_weights", {"optical": "w.safetensors"})],
)
def test_settings_of_a_modality_that_is_not_trained_are_refused(run, tiny_config, key, value):
    _, image, _ = run
    config = tiny_config({"data.rasters": {"radar": str(image)}, "method.name": "crodino", key: value})
    without = config.model_copy(update={"data": config.data.model_copy(update={"optical": None})})
    shown = "encoder_weights.optical" if key == "encoder_weights" else key
    with pytest.raises(ConfigError) as caught:
        check_settings(without)
    assert str(caught.value) == (
        f"{shown}: applies to a modality that is not trained. Expected a setting of elevation, radar.\nLeave it out."
    )
