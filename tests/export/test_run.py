import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import torch
from helpers.onnx import needs_onnx
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geocrodino.errors import BundleError, ConfigError, ModelError, OutputError
from geocrodino.export import run as run_module
from geocrodino.export.check import BOUND
from geocrodino.export.run import export_bundle
from geocrodino.export.torch_file import program_runner

FORMATS = [pytest.param("as_onnx", marks=needs_onnx), "as_program"]


def item_of(exported):
    content = json.loads(exported.item.read_text(encoding="utf-8"))
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, content["stac_version"])
    return content


@pytest.mark.parametrize("kind", FORMATS)
def test_every_branch_agrees_with_the_bundle(kind, request):
    exported = request.getfixturevalue(kind)
    assert list(exported) == ["optical", "elevation"]
    for each in exported.values():
        assert each.agreement.difference <= BOUND
        assert sorted(each.path.parent.iterdir()) == sorted(
            path for e in exported.values() for path in (e.path, e.item)
        )


@needs_onnx
def test_an_onnx_file_in_a_catalogue(as_onnx, two_branches):
    item = item_of(as_onnx["optical"])
    assert item["properties"]["mlm:framework"] == "ONNX"
    assert item["properties"]["geocrodino:bundle_sha256"] == two_branches.sha256
    assert item["properties"]["mlm:input"][0]["value_scaling"] == [{"type": "min-max", "minimum": 0, "maximum": 255}]
    asset = item["assets"]["model"]
    assert (asset["href"], asset["mlm:artifact_type"]) == ("test-model-optical.onnx", "onnx")
    assert asset["file:size"] == as_onnx["optical"].path.stat().st_size
    heights = item_of(as_onnx["elevation"])["properties"]["mlm:input"][0]
    assert heights["value_scaling"] is None
    assert heights["description"] == (
        "Values of the channels in their units, NaN where there is no data: height_above_ground (m)."
    )


def test_a_torch_program_in_a_catalogue(as_program):
    item = item_of(as_program["elevation"])
    asset = item["assets"]["model"]
    assert (asset["href"], asset["mlm:artifact_type"]) == ("test-model-elevation.pt2", "torch.export")
    assert "mlm:model" in asset["roles"]
    assert item["properties"]["mlm:framework"] == "pytorch"
    assert item["properties"]["mlm:output"][0]["result"]["shape"] == [-1, 3, 64, 64]


def test_a_file_that_differs_is_not_written(two_branches, tmp_path, monkeypatch):
    """The last file differs; the first, which is right, does not take its name either."""

    def opened(path):
        right = program_runner(path)
        return right if "optical" in Path(path).name else lambda values: right(values) + np.float32(0.01)

    monkeypatch.setattr(run_module, "program_runner", opened)
    with pytest.raises(ModelError, match=r"differ by at most 0\.001, found 0\.01\.\nThe file was not written"):
        export_bundle(two_branches, tmp_path, format="torch", tile_px=64)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_difference(two_branches, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "program_runner", lambda path: lambda values: np.full((1, 3, 64, 64), np.nan, "f4"))
    with pytest.raises(ModelError, match="found nan"):
        export_bundle(two_branches, tmp_path, format="torch", tile_px=64, modalities=["optical"])


def test_a_network_that_cannot_be_exported(two_branches, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise torch.jit.Error("no such operator\nand more")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(ModelError) as error:
        export_bundle(two_branches, tmp_path, format="torch", tile_px=64, modalities=["optical"])
    encoder = two_branches.manifest.network.encoder
    assert str(error.value) == (
        f"{tmp_path}/test-model-optical.pt2: the optical branch (encoder {encoder}) cannot be exported. Expected a "
        "network that torch.export can express, found Error: no such operator\nThe file was not written. Try "
        "`format='onnx'`, or predict with the bundle."
    )
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_only_on_request(two_branches, tmp_path):
    (tmp_path / "test-model-optical.pt2.json").write_text("mine")
    with pytest.raises(OutputError, match=r"test-model-optical\.pt2\.json: the file exists"):
        export_bundle(two_branches, tmp_path, format="torch", tile_px=64)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"tile_px": 100}, ConfigError, "found 100 px"),
        ({"tile_px": 0}, ConfigError, "found 0 px"),
        ({"overlap_percent": 91}, ConfigError, "0 to 90 percent, found 91"),
        ({"modalities": ["radar"]}, BundleError, "no branch for radar"),
        ({"format": "onxx"}, ValueError, "must be one of onnx, torch, found 'onxx'"),
    ],
)
def test_wrong_options(two_branches, tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        export_bundle(two_branches, tmp_path, **{"format": "torch", "tile_px": 64, **options})


def test_a_checkpoint_is_never_opened(tmp_path):
    torch.save({"a": 1}, tmp_path / "last.ckpt")
    with pytest.raises(BundleError, match="zip with pickle"):
        export_bundle(tmp_path / "last.ckpt", format="torch")
