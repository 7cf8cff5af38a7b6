"""The section ``height``: what codings of several scenes share, and the channels that heights have."""

from __future__ import annotations

import pytest

from geocrodino.errors import ConfigError
from geocrodino.settings.config import config_of
from geocrodino.settings.heights import HeightSettings, agreed_heights

FILES = {"data.optical": "a.tif", "data.elevation": "b.tif", "data.labels": "c.tif", "data.aoi": "0,0,1,1"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        ([None, None], None),
        ([{"scale": 0.1}, {"scale": 0.1}], {"scale": 0.1}),
        ([{"scale": 0.1, "zero": "ground"}, {"zero": "ground"}], {"zero": "ground"}),
        ([{"scale": 0.1}, None], None),
    ],
)
def test_what_scenes_share(given, expected):
    settings = [each and HeightSettings(**each) for each in given]
    assert agreed_heights(settings) == (expected and HeightSettings(**expected))


@pytest.mark.parametrize(
    ("zero", "channels"),
    [
        ("sea", ("height_above_ground", "slope", "topographic_position")),
        ("ground", ("height_above_ground", "slope")),
        ("camera", ("height", "slope")),
    ],
)
def test_default_channels(zero, channels):
    config = config_of({**FILES, "data.height.zero": zero})
    assert config.elevation.channels == channels
    again = type(config).model_validate(config.model_dump(mode="json"))  # as the run folder keeps it
    assert again == config


def test_channels_that_are_named_stay():
    config = config_of({**FILES, "data.height.zero": "ground", "elevation.channels": ["height"]})
    assert config.elevation.channels == ("height",)


def test_distances_beside_heights():
    scenes = [{"optical": "a.tif", "elevation": "b.tif", "height": {"zero": zero}} for zero in ("camera", "ground")]
    with pytest.raises(
        ConfigError, match=r"count from one thing, found camera and ground as height\.zero of different"
    ):
        config_of({"data.scenes": scenes})


def test_contradictions():
    with pytest.raises(ConfigError, match=r"height_unit ft and height\.scale 0\.1 both say how long a stored unit is"):
        config_of({**FILES, "data.height_unit": "ft", "data.height.scale": 0.1})
    with pytest.raises(ConfigError, match="ground_band applies to heights above sea level alone, found zero: ground"):
        config_of({**FILES, "data.height.zero": "ground", "data.height.ground_band": 2})
