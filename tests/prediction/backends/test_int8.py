"""Int8 networks: what is refused, and that their classes are those of the float32 network except for rounding."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from helpers.int8 import needs_nncf
from helpers.random_branches import make_bundle, random_branch, tile
from scipy.special import softmax

from geocrodino.bundle.io import add_int8, load_bundle
from geocrodino.bundle.manifest import Int8Network
from geocrodino.errors import BundleError, ConfigError
from geocrodino.prediction.backends import int8 as int8_module
from geocrodino.prediction.backends.int8 import quantise_graph, require_nncf, tensors_of
from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.openvino import OpenVinoBackend, convert
from geocrodino.prediction.backends.trimming import Trimmed

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
FACTS = Int8Network(
    unused_px=0,
    trim_px=0,
    val_miou={"float32": 0.5, "int8": 0.5},
    same_class=1.0,
    calibration_tiles=1,
    versions={"nncf": "3.4.0"},
)


@pytest.fixture(scope="module")
def branch():
    return random_branch()


@pytest.fixture
def bundle(branch, tmp_path):
    return make_bundle(tmp_path / "b.safetensors", branch)


@pytest.fixture(scope="module")
def graphs(branch):
    """The float32 and the int8 network for tiles whose outer 32 px are not needed."""
    full = convert(Trimmed(branch, 32).eval())
    return full, quantise_graph(full, [tile(160, 160, seed=seed) for seed in range(1, 5)])


def with_int8(bundle, graph, **changes):
    facts = FACTS.model_copy(update={"trim_px": graph.trim_px, **changes})
    add_int8(bundle, {"optical": (facts, tensors_of(graph))})
    return load_bundle(bundle.path)


def refusal(error, bundle, **options):
    with pytest.raises(error) as found:
        open_backend(bundle, "optical", precision="int8", **options)
    return str(found.value)


def test_pytorch_has_no_int8(bundle):
    assert refusal(ConfigError, bundle, name="torch") == (
        "`precision='int8'` needs OpenVINO. Expected backend openvino or auto, found torch.\n"
        "Use `backend='openvino'`, or `precision='full'`."
    )


def test_int8_is_for_the_cpu(bundle):
    assert refusal(ConfigError, bundle, device="cuda:1") == (
        "`precision='int8'` is computed on the CPU. Expected device cpu, found cuda:1.\n"
        "Use `device='cpu'`, or `precision='half'`."
    )


def test_without_openvino(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert refusal(ConfigError, bundle) == (
        "`precision='int8'` needs OpenVINO. Expected the package openvino, found none.\n"
        "Install it by pip install \"geocrodino[openvino]\", or use `precision='full'`."
    )


def test_without_nncf(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError) as error:
        require_nncf()
    assert str(error.value) == (
        "int8 networks are made by NNCF. Expected the packages nncf and openvino, found no nncf.\n"
        'Install them by pip install "geocrodino[int8]".'
    )


def test_nncf_that_does_not_fit_openvino(monkeypatch):
    def refuse(name):
        raise AttributeError("type object 'openvino._pyopenvino.Type' has no attribute 'u2'")

    monkeypatch.setattr(int8_module, "require_nncf", lambda: None)
    monkeypatch.setattr(int8_module, "import_quietly", refuse)
    monkeypatch.setattr(int8_module, "import_openvino", lambda: None)
    monkeypatch.setattr(int8_module, "version", {"nncf": "3.4.0", "openvino": "2025.0.0"}.get)
    with pytest.raises(ConfigError) as error:
        quantise_graph(None, [])
    assert str(error.value) == (
        "nncf 3.4.0 and openvino 2025.0.0 do not work together: type object 'openvino._pyopenvino.Type' has no "
        "attribute 'u2'.\nInstall versions that do by pip install --upgrade \"geocrodino[int8]\"."
    )


@needs_openvino
def test_a_bundle_without_int8_network(bundle):
    assert refusal(BundleError, bundle) == (
        f"{bundle.path}: expected an int8 network of the optical branch, found none.\n"
        f"Use `precision='full'`, or add one by `geocrodino quantise {bundle.path.parent}`, which needs the run folder "
        "of the training and adds none that loses much accuracy."
    )


@needs_openvino
def test_a_margin_too_narrow_for_the_network(bundle, branch):
    graph = convert(Trimmed(branch, 32).eval())
    made = with_int8(bundle, graph, unused_px=32)
    assert refusal(BundleError, made, unused_px=16) == (
        f"{bundle.path}: the int8 network of the optical branch was made for tiles with a margin of at least 32 px, "
        "found 16 px.\nUse `stitch='auto'`, or `precision='full'`."
    )
    assert open_backend(made, "optical", precision="int8", unused_px=32).trim_px == graph.trim_px


@needs_openvino
def test_a_network_that_computes_something_else_here(bundle, branch):
    graph = convert(Trimmed(branch).eval())
    made = with_int8(bundle, graph._replace(logits=-graph.logits))
    text = refusal(BundleError, made)
    assert text.startswith(f"{bundle.path}: the int8 network of the optical branch cannot be used here: its prob")
    assert f"Make it again here by `geocrodino quantise {bundle.path.parent}`" in text


@needs_openvino
def test_a_damaged_network(bundle, branch):
    graph = convert(Trimmed(branch).eval())
    made = with_int8(bundle, graph._replace(xml=b"<net"))
    assert "the int8 network of the optical branch cannot be used here: it fails with " in refusal(BundleError, made)


@needs_nncf
def test_weights_are_whole_numbers_of_8_bits(graphs):
    full, int8 = graphs
    assert b'element_type="i8"' in int8.xml
    assert len(int8.weights) < len(full.weights) / 3


@needs_nncf
def test_most_pixels_keep_their_class(graphs):
    full, int8 = graphs
    values = tile(160, 192)
    found, expected = OpenVinoBackend(int8, int8=True).classes(values), OpenVinoBackend(full).classes(values)
    assert found.shape == expected.shape == (160 - 2 * full.trim_px, 192 - 2 * full.trim_px)
    assert (found == expected).mean() > 0.5  # three classes: a third by chance


@needs_nncf
def test_probabilities_are_tempered_and_repeatable(bundle, graphs):
    made = with_int8(bundle, graphs[1], unused_px=32)
    opened = open_backend(made, "optical", precision="int8", temperature=2.0, unused_px=32)
    assert (opened.name, opened.number) == ("openvino", "int8")
    plain = open_backend(made, "optical", precision="int8", unused_px=32)
    values = tile(160, 192)
    np.testing.assert_array_equal(plain(values), plain(values))
    np.testing.assert_allclose(opened(values), softmax(np.log(plain(values)) / 2, axis=0), rtol=0, atol=1e-5)


@needs_nncf
def test_the_same_tiles_give_the_same_network(branch, graphs):
    full, int8 = graphs
    again = quantise_graph(full, [tile(160, 160, seed=seed) for seed in range(1, 5)])
    assert again.weights == int8.weights
