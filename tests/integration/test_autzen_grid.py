"""The working grid of Autzen: an image of 1 ft, heights and labels of 3 ft."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geocrodino.data.alignment import align
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import pixel_offset, window_grid
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.config import load_config
from geocrodino.training.checks import check_inputs

CONFIG = Path(__file__).parents[2] / "configs" / "autzen.yaml"

pytestmark = pytest.mark.slow


def test_labels_and_heights_are_read_as_they_are(real_data, tmp_path):
    found = check_inputs(load_config(CONFIG))
    (scene,) = found.scenes
    assert scene.choice.note == (
        "Image 0.305 m, heights 0.914 m, labels 0.914 m: works at 0.914 m, the pixel size of the labels. "
        "`data.resolution_m=0.3048` keeps that of the image, with 9 times the pixels."
    )
    assert scene.choice.resolution_m == pytest.approx(0.9144, rel=1e-9)
    labels = scene.sources.labels
    assert pixel_offset(scene.grid, labels.geobox, tolerance_px=1e-9) == (58, 12)
    part = Window.at(300, 300, (200, 250))
    layers = align(scene.sources, found.recipes, found.classes, window_grid(scene.grid, part), tmp_path / "aligned")
    assert isinstance(labels, LabelSource)
    np.testing.assert_array_equal(layers.class_indices(), labels.indices(found.classes, part.shift(58, 12)))


def test_a_given_size_keeps_the_corner_of_the_image(real_data):
    """The studies in the documentation were measured on this grid; it is 0.45 and 0.19 px off that of the labels."""
    (scene,) = check_inputs(load_config(CONFIG, {"data.resolution_m": 0.9144})).scenes
    assert scene.choice.note == "Image 0.305 m, heights 0.914 m, labels 0.914 m: works at 0.914 m, as set."
    assert pixel_offset(scene.grid, scene.sources.labels.geobox) is None
    column, row = ~scene.sources.labels.geobox.affine @ (scene.grid.affine.c, scene.grid.affine.f)
    assert (row % 1, column % 1) == (pytest.approx(0.452, abs=1e-3), pytest.approx(0.809, abs=1e-3))
