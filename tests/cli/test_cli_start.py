"""``train --from`` and ``--freeze``, and a bundle that ``inspect`` describes."""

from __future__ import annotations

import typer

from geocrodino.bundle.describe import describe_manifest
from geocrodino.bundle.io import load_bundle
from geocrodino.cli.app import app
from geocrodino.cli.train import MethodOptions
from geocrodino.cli.wording import Wording

train = typer.main.get_command(app).commands["train"]


def test_options_are_keys_of_the_configuration():
    values = MethodOptions(start_from="a.safetensors", freeze="encoder").values()
    assert values["start_from"] == "a.safetensors"
    assert values["training.freeze"] == "encoder"


def test_messages_name_the_options():
    assert Wording(train)("Leave `start_from` out, or `training.freeze`.") == "Leave --from out, or --freeze."


def test_a_missing_bundle_is_refused_before_anything_is_read(run_cli, town, tmp_path):
    missing = tmp_path / "no.safetensors"
    code, _, err = run_cli("train", "--config", town.config, "--from", missing)
    assert (code, err) == (
        2,
        f"Error: {missing}: no such bundle. Check the path; training writes one into its run folder.\n",
    )


def test_another_treatment_of_encoders_is_refused(run_cli, town):
    code, _, err = run_cli("train", "--config", town.config, "--freeze", "decoder")
    assert code == 2
    assert "training.freeze: input should be 'none' or 'encoder', found 'decoder' (not from the file)" in err


def test_inspect_describes_a_bundle(run_cli, trained):
    manifest = load_bundle(trained / "bundle.safetensors").manifest
    code, out, err = run_cli("inspect", "--model", trained / "bundle.safetensors")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert f"model {manifest.name}, sha256" in words
    assert manifest.sha256 in words
    assert "network encoder tu-test_efficientnet, decoder fpn, depth 3" in words
    assert "started from" not in words


def test_a_bundle_names_the_one_that_it_started_from(trained):
    manifest = load_bundle(trained / "bundle.safetensors").manifest
    facts = {"method": {"name": "single"}, "epochs": 3, "seed": 1, "val_miou": {"optical": 0.5}}
    facts["started_from"] = {"name": "geocrodino-old", "sha256": "abc"}
    rows = dict(describe_manifest(manifest.model_copy(update={"training": facts})))
    assert rows["started from"] == "geocrodino-old, sha256 abc"
    assert rows["training"] == "method single, 3 epochs, seed 1"
    assert rows["optical"].endswith("blue (digital number); best mIoU on val 50.0 %")
    assert rows["elevation"] == "height_above_ground (m)"
    assert "training" not in dict(describe_manifest(manifest.model_copy(update={"training": {}})))
