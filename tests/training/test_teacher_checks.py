"""Which finished teachers fit the settings of their students."""

from __future__ import annotations

from hashlib import sha256

import pytest

from geocrodino.errors import ConfigError
from geocrodino.settings.config import save_config
from geocrodino.training.teacher import FUSION_NAME, SETTINGS_NAME
from geocrodino.training.teacher_checks import (
    record_teacher,
    recorded_teacher,
    require_recorded_teacher,
    require_same_data,
)


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


def test_a_run_goes_on_with_its_own_teacher(tmp_path):
    out, first, second = tmp_path / "run", tmp_path / "first", tmp_path / "second"
    for folder in (out, first, second):
        folder.mkdir()
        (folder / FUSION_NAME).write_bytes(folder.name.encode())
    hashes = [sha256(name).hexdigest() for name in (b"first", b"second")]
    assert recorded_teacher(out) is None
    with pytest.raises(ConfigError, match=r"began with \(a teacher of its own\), found another"):
        require_recorded_teacher(out, first)
    record_teacher(out, first)
    assert recorded_teacher(out) == {"run": "first", "sha256": hashes[0]}
    require_recorded_teacher(out, first)
    with pytest.raises(ConfigError) as error:
        require_recorded_teacher(out, second)
    assert str(error.value) == (
        f"{second}: expected the teacher that the run in {out} began with (sha256 {hashes[0]}), found another (sha256 "
        f"{hashes[1]}).\nLeave `teacher` out to continue with the teacher of the run."
    )
    (out / "teacher.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"teacher\.json: expected the record of a teacher, found 'run'"):
        recorded_teacher(out)
