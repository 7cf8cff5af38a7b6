"""A training accepts the files of each data set: recipes fit, grids are found, all classes have labelled pixels."""

from __future__ import annotations

import warnings

import pytest

from geocrodino.presets.catalogue import PRESETS
from geocrodino.presets.contents import dataset_settings
from geocrodino.settings.config import config_of
from geocrodino.training.checks import check_inputs
from tests.helpers.data_sets import WRITERS

ABOVE_GROUND = ("height_above_ground", "slope")
SURFACE = (*ABOVE_GROUND, "topographic_position")
CAMERA = ("height", "slope")

CHANNELS = {
    "potsdam-ndsm": ABOVE_GROUND,
    "vaihingen-ndsm": ABOVE_GROUND,
    "geonrw": SURFACE,
    "dfc2022": ("height", "slope", "topographic_position"),
    "us3d": ABOVE_GROUND,
    "flair": ABOVE_GROUND,
    "flair-hub": SURFACE,
    "gamus": ABOVE_GROUND,
    "nyu": CAMERA,
    "nyu-13": CAMERA,
    "nyu-raw": CAMERA,
    "mid-air": CAMERA,
}
"""Channels of the elevation branch; Potsdam is trained in ``tests/integration``, and Vaihingen is alike."""


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", CHANNELS)
def test_a_training_accepts_the_files(name, tmp_path):
    WRITERS[name](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tiles that lack a file, and of colours that are not exact
        settings = dataset_settings(PRESETS[name], tmp_path)
        found = check_inputs(config_of({**settings, "training.patch_px": 32}))
    assert found.recipes["elevation"].channels == CHANNELS[name]
    assert [scene.name for scene in found.scenes] == [scene["name"] for scene in settings["data"]["scenes"]]
    assert found.classes.names == tuple(PRESETS[name].classes or [f"class {value}" for value in range(5)])
