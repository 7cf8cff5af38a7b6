"""Which finished teachers fit the settings of their students."""

from __future__ import annotations

import pytest

from geocrodino.errors import ConfigError
from geocrodino.settings.config import save_config
from geocrodino.training.teacher import SETTINGS_NAME
from geocrodino.training.teacher_checks import require_same_data


def with_network(config, **network):
    return config.model_copy(update={"network": config.network.model_copy(update=network)})


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ({"encoder": "tu-resnet18"}, {"encoder": "resnet18"}, True),
        ({"encoder": "resnet18"}, {"encoder": "test_efficientnet"}, False),
        ({"decoder_channels": None}, {"decoder_channels": (96,)}, True),
        ({"decoder_channels": (96,)}, {"decoder_channels": None}, True),
        ({"decoder_channels": (96,)}, {"decoder_channels": (64,)}, False),
        ({"invariant_channels": 8}, {"invariant_channels": 16}, False),
    ],
)
def test_the_network_of_a_teacher_may_be_spelt_otherwise(tiny_config, tmp_path, theirs, ours, same):
    students = tiny_config({"method.name": "kd"})
    save_config(with_network(tiny_config({"method.name": "fusion"}), **theirs), tmp_path / SETTINGS_NAME)
    if same:
        require_same_data(with_network(students, **ours), tmp_path)
        return
    with pytest.raises(ConfigError) as refused:
        require_same_data(with_network(students, **ours), tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: the teacher was trained with other settings: network.\n"
        "Leave `teacher` out, and one is trained first."
    )
