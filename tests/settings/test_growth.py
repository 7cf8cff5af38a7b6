"""Keys that say how a batch is computed: what is accepted, and that they are written only if they are used."""

from __future__ import annotations

import pytest

from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainingConfig, config_of

FILES = {"data.optical": "o.tif", "data.elevation": "e.tif", "data.labels": "l.tif"}


def test_defaults_are_not_written():
    written = TrainingConfig().model_dump(mode="json")
    assert not written.keys() & {"devices", "accumulate", "logger", "batch_size_measured"}
    assert (written["batch_size"], written["workers"]) == (8, 0)


def test_other_values_are_written():
    given = TrainingConfig(devices="auto", accumulate=2, logger="csv,tensorboard")
    written = given.model_dump(mode="json")
    assert written["devices"] == "auto"
    assert written["accumulate"] == 2
    assert written["logger"] == ["csv", "tensorboard"]
    assert TrainingConfig.model_validate(written) == given


def test_words_of_a_command_line_are_numbers():
    given = config_of({**FILES, "training.devices": "2", "training.batch_size": "16", "training.logger": ["csv"]})
    assert (given.training.devices, given.training.batch_size) == (2, 16)
    assert given.training.logger == ("csv",)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("devices", "0", "training.devices: input should be a whole number of at least 1 or auto, found '0'"),
        ("devices", "all", "training.devices: input should be a whole number of at least 1 or auto, found 'all'"),
        ("batch_size", 1, "training.batch_size: input should be a whole number of at least 2 or auto, found 1"),
        ("batch_size", 2.5, "training.batch_size: input should be a whole number of at least 2 or auto, found 2.5"),
        ("drop_path", 1, "training.drop_path: input should be a number from 0 to below 1, or auto, found 1"),
        ("drop_path", "some", "training.drop_path: input should be a number from 0 to below 1, or auto, found 'some'"),
        ("workers", -1, "training.workers: input should be a whole number of at least 0 or auto, found -1"),
        ("accumulate", 0, "training.accumulate: input should be greater than or equal to 1, found 0"),
        (
            "logger",
            "tensorbord",
            "training.logger: expected some of csv, tensorboard, mlflow, wandb, found 'tensorbord'. Did you mean "
            "tensorboard?",
        ),
    ],
)
def test_other_values_are_refused(key, value, text):
    with pytest.raises(ConfigError) as refused:
        config_of({**FILES, f"training.{key}": value})
    assert text in str(refused.value)


def test_patches_between_two_changes_of_the_weights():
    assert TrainingConfig(batch_size=4, accumulate=3).patches == 12
    with pytest.raises(ValueError, match="has to be measured first"):
        _ = TrainingConfig(batch_size="auto").patches


def test_a_way_to_balance_that_is_never_used():
    with pytest.raises(ConfigError, match="balance_by: polygon does nothing with balance: 0"):
        config_of({**FILES, "training.balance": 0, "training.balance_by": "polygon"})
    assert config_of({**FILES, "training.balance": 0}).training.balance_by == "class"
