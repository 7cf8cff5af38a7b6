import json

import numpy as np
import pytest
from helpers.onnx import needs_onnx

from geocrodino.errors import ConfigError
from geocrodino.export import onnx_file
from geocrodino.export.onnx_file import onnx_runner, require_onnx


def test_missing_packages_end_in_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError) as error:
        require_onnx()
    assert str(error.value) == (
        "`format='onnx'` needs the packages onnx, onnxruntime and onnxscript. Expected all three, found no onnxscript."
        '\nInstall them by pip install "geocrodino[onnx]".'
    )


@needs_onnx
def test_the_graph_as_the_plugins_expect_it(as_onnx):
    import onnx

    model = onnx.load(as_onnx["optical"].path)
    (given,), (made,) = model.graph.input, model.graph.output
    sides = [[d.dim_value or d.dim_param for d in each.type.tensor_type.shape.dim] for each in (given, made)]
    assert sides == [["batch", 3, 64, 64], ["batch", 3, 64, 64]]  # a fixed tile, from which GeoDeep takes its size
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 18)])
    found = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert found["tiles_overlap"] == 32  # 2 * 10 of 64 px are 31.25 %
    assert found["resolution"] == 50


@needs_onnx
def test_no_path_of_the_machine_is_in_the_file(as_onnx):
    for exported in as_onnx.values():
        content = exported.path.read_bytes()
        assert b"site-packages" not in content
        assert b"geocrodino/export" not in content


@needs_onnx
def test_a_batch_of_tiles(as_onnx):
    run = onnx_runner(as_onnx["optical"].path)
    tiles = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    np.testing.assert_allclose(run(tiles)[1], run(tiles[1:])[0], atol=1e-5)
