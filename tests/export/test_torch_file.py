import zipfile

import numpy as np
import torch
import yaml

from geocrodino.export.torch_file import METADATA_FILE, program_runner


def test_the_file_holds_properties_of_the_extension(as_program):
    extra = {METADATA_FILE: ""}
    torch.export.load(as_program["elevation"].path, extra_files=extra)
    found = yaml.safe_load(extra[METADATA_FILE])["properties"]
    assert found["mlm:name"] == "test-model-elevation"
    assert found["mlm:input"][0]["input"]["shape"] == [-1, 1, 64, 64]
    assert found["mlm:input"][0]["value_scaling"] is None  # the graph scales


def test_the_preliminary_name_is_not_in_the_file(as_program):
    with zipfile.ZipFile(as_program["optical"].path) as archive:
        assert not [name for name in archive.namelist() if "partial" in name]


def test_a_batch_of_tiles(as_program):
    run = program_runner(as_program["optical"].path)
    tiles = 255 * np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    np.testing.assert_allclose(run(tiles)[1], run(tiles[1:])[0], atol=1e-5)
