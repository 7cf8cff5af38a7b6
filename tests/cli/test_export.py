"""``geocrodino export``."""

import re

import pytest
from helpers.onnx import needs_onnx
from helpers.small_scenes import make_bundle

from geocrodino.export import onnx_file


def refused(result, text):
    code, _, err = result
    assert code == 2
    assert text in re.sub(r"\s+", " ", err)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle.safetensors").path


def test_a_torch_program(run_cli, bundle, tmp_path):
    words = ["--format", "torch", "--modality", "elevation", "--tile-px", "64", "--out", str(tmp_path)]
    code, out, err = run_cli("export", bundle, *words)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "test-model-elevation.pt2",
        "test-model-elevation.pt2.json",
    ]
    assert re.search(r"against the bundle: probabilities differ by at most \S+ \(allowed 0\.001\)", out)
    assert "input: height (m), which are to be computed outside" in out
    assert "tiles: 64 px of 1 m\n" in out
    refused(run_cli("export", bundle, *words), "replace it with --overwrite")


@needs_onnx
@pytest.mark.slow
def test_an_onnx_file(run_cli, bundle, tmp_path):
    words = ["--modality", "optical", "--tile-px", "64", "--overlap", "10", "--out", str(tmp_path)]
    code, out, err = run_cli("export", bundle, *words)
    assert code == 0, err
    assert (tmp_path / "test-model-optical.onnx").is_file()
    assert "each divided by 255\n  tiles: 64 px of 1 m, overlap 10 %" in out


def test_refusals_in_words_of_the_command_line(run_cli, bundle, tmp_path, monkeypatch):
    here = ("export", bundle, "--out", tmp_path)
    refused(run_cli(*here, "--format", "torch", "--tile-px", "100"), "--tile-px 100: the network needs tiles")
    refused(run_cli(*here, "--format", "torch", "--overlap", "5"), "Leave it out with --format torch.")
    refused(run_cli(*here, "--modality", "optica"), "--modality optica: expected optical or elevation, found optica.")
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    refused(run_cli(*here), "--format onnx needs the packages onnx, onnxruntime and onnxscript.")
    refused(run_cli(*here), 'Install them by pip install "geocrodino[onnx]".')
    assert list(tmp_path.iterdir()) == []
