"""A small bundle of both modalities, and what was exported from it; not to be changed."""

from importlib.util import find_spec

import pytest
import torch
from helpers.small_scenes import make_manifest, make_specs

from geocrodino.bundle.io import load_bundle, save_bundle
from geocrodino.bundle.manifest import Calibration
from geocrodino.export.run import export_bundle
from geocrodino.modalities.recipe import Channel, ModalitySpec
from geocrodino.models.branch import build_branch

TILE_PX = 64


@pytest.fixture(scope="session")
def two_branches(tmp_path_factory):
    """Random networks; the heights are compressed, both branches are calibrated."""
    specs = make_specs(heights=("height_above_ground",))
    height = Channel(name="height_above_ground", unit="m", low=-0.5, high=30, mean=0.6, std=0.8, compress=True)
    specs["elevation"] = ModalitySpec(recipe=specs["elevation"].recipe, channels=(height,))
    calibration = Calibration(
        temperature={"optical": 0.5, "elevation": 2.0}, weight={"optical": 0.75, "elevation": 0.25}
    )
    manifest = make_manifest(specs, resolution_m=0.5, receptive_field_px=10, calibration=calibration)
    torch.manual_seed(0)
    networks = {m: build_branch(manifest.network, len(s.channels), len(manifest.classes)) for m, s in specs.items()}
    path = tmp_path_factory.mktemp("b") / "bundle.safetensors"
    save_bundle(path, manifest, networks)
    return load_bundle(path)


@pytest.fixture(scope="session")
def as_onnx(two_branches, tmp_path_factory):
    if find_spec("onnxscript") is None or find_spec("onnxruntime") is None:
        pytest.skip("the packages of the extra onnx are not installed")
    folder = tmp_path_factory.mktemp("onnx")
    return {e.modality: e for e in export_bundle(two_branches, folder, tile_px=TILE_PX)}


@pytest.fixture(scope="session")
def as_program(two_branches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    return {e.modality: e for e in export_bundle(two_branches, folder, format="torch", tile_px=TILE_PX)}
