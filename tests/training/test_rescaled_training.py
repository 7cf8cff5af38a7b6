"""A training that multiplies the values of its image: a prediction has to do the same."""

from __future__ import annotations

import yaml

from geocrodino.bundle.describe import describe_manifest
from geocrodino.bundle.io import load_bundle
from geocrodino.cli.train import _next_command


def test_the_factor_of_a_training_is_named_for_predictions(run_cli, town, tiny, tmp_path):
    content = yaml.safe_load(town.config.read_text())
    files = {key: str(town.config.parent / name) for key, name in content["data"].items()}
    content |= {**tiny, "encoder_weights": {}, "data": {**files, "rescale": 1 / 257}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    code, told, err = run_cli("train", "--config", tmp_path / "config.yaml", "--epochs", 1, "--out", tmp_path / "run")
    assert code == 0, err
    bundle = tmp_path / "run" / "bundle.safetensors"
    assert told.splitlines()[-1] == (
        f"Next: geocrodino predict SCENE.tif --modality optical --rescale 1/257 --model {bundle}"
    )
    manifest = load_bundle(bundle).manifest
    assert manifest.training["rescale"] == 1 / 257
    assert dict(describe_manifest(manifest))["optical"].endswith("; values multiplied by 1/257")

    words = ("predict", town.optical, "--modality", "optical", "--model", bundle, "--out", tmp_path / "map.tif")
    code, _, err = run_cli(*words)
    assert code == 2
    advice = "The training multiplied the values of its images by 1/257: --rescale 1/257 does the same here.\n"
    assert err.endswith(advice)
    assert run_cli(*words, "--rescale", "1/257")[::2] == (0, "")


def test_a_training_without_a_factor_records_none(tiny_config, town):
    assert tiny_config().data.common_rescale() is None
    assert _next_command(tiny_config(), town.config) == (
        f"Next: geocrodino predict SCENE.tif --modality optical --model {town.config}"
    )


def test_scenes_with_several_factors_have_none_in_common(tiny_config):
    data = tiny_config().data
    scenes = [{"name": name, "optical": data.optical, "elevation": data.elevation} for name in "ab"]
    make = type(data).model_validate
    assert make({"scenes": scenes, "rescale": 0.5}).common_rescale() == 0.5
    assert make({"scenes": [scenes[0], {**scenes[1], "rescale": 0.5}]}).common_rescale() is None
