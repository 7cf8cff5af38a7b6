"""Methods by name: what each is known by, and what it refuses."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from geocrodino.settings.config import load_config, save_config
from geocrodino.settings.method import MethodName, MethodSettings

METHODS = get_args(MethodName)
TERMS = set(MethodSettings.model_fields) - {"name", "losses", "dice", "focal_gamma", "label_smoothing"}

KNOWN_BY = {
    "single": {},
    "crodino": {"auxiliary": 1.0, "orthogonality": 1.0, "contrast": "class", "contrast_weight": 1.0, "agreement": 3.0},
    "mutual": {"agreement": 3.0, "ramp": 0.3},
    "discom": {"auxiliary": 1.0, "orthogonality": 1.0, "adversary": 1.0},
    "fusion": {"fusion": "middle"},
    "dropout": {"blank": 0.5},
    "kd": {"fusion": "middle", "distillation": 1.0, "distillation_temperature": 4.0},
    "protokd": {"fusion": "middle", "distillation": 0.1, "distillation_temperature": 10.0, "prototype": 0.1},
    "maskedkd": {"fusion": "middle", "masked": 0.5, "tokens": 8},
}
OFF = {name: field.default for name, field in MethodSettings.model_fields.items()}


def refused(**given):
    with pytest.raises(ValidationError) as error:
        MethodSettings(**given)
    return [e["msg"] for e in error.value.errors()]


def test_the_default_is_the_method_of_the_paper_with_agreement():
    assert MethodSettings() == MethodSettings(name="crodino")
    assert (MethodSettings().agreement, MethodSettings().contrast) == (3.0, "class")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_terms_that_it_is_known_by_and_no_other(name):
    assert dict(MethodSettings(name=name)) == OFF | {"name": name} | KNOWN_BY[name]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_dice_and_smoothing(name):
    found = MethodSettings(name=name, dice=0.5, label_smoothing=0.1)
    assert found == MethodSettings(name=name).model_copy(update={"dice": 0.5, "label_smoothing": 0.1})


def test_a_given_term_wins_over_the_preset():
    assert dict(MethodSettings(name="crodino", contrast="pixel", auxiliary=0)) == OFF | {
        "name": "crodino", "orthogonality": 1.0, "contrast": "pixel", "agreement": 3.0,
    }  # fmt: skip
    beyond = MethodSettings(name="mutual", image_from_heights=0.5, adversary=0.1, agreement=0.5)
    assert (beyond.image_from_heights, beyond.adversary, beyond.agreement, beyond.ramp) == (0.5, 0.1, 0.5, 0.3)


OWNERS = dict.fromkeys(TERMS, "crodino, mutual, discom") | {
    "fusion": "fusion, kd, protokd, maskedkd",
    "blank": "dropout",
    "distillation": "kd, protokd",
    "distillation_temperature": "kd, protokd",
    "prototype": "protokd",
    "masked": "maskedkd",
    "tokens": "maskedkd",
}
OTHER = {"contrast": "image", "shuffled": True, "fusion": "early", "tokens": 3, "terms": {"smoothness": 0.5}}


COMPANIONS = {"shuffled": {"contrast": "pixel"}, "ramp": {"agreement": 0.5}}
"""Terms without which others do nothing."""


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("term", sorted(TERMS))
def test_a_term_without_meaning_is_an_error(name, term):
    value, owners = OTHER.get(term, 0.25), OWNERS[term]
    if name in owners.split(", "):
        given = {"name": name, **COMPANIONS.get(term, {}), term: value}
        assert getattr(MethodSettings(**given), term) == value
    else:
        told = f"Value error, {term} has no meaning for the method {name}: it belongs to {owners}"
        assert refused(**{"name": name, term: value}) == [told]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "mutual", "shuffled": True}, "shuffled does nothing without a contrast"),
        ({"contrast_weight": 0, "shuffled": True}, "shuffled does nothing without a contrast"),
        ({"name": "discom", "ramp": 0.5}, "ramp does nothing without a contrast or agreement"),
        ({"name": "maskedkd", "tokens": 0}, "masked does nothing without tokens"),
    ],
)
def test_a_term_that_does_nothing_is_an_error(given, told):
    assert refused(**given) == [f"Value error, {told}: name one, or leave it out"]


def test_other_mistakes():
    (told,) = refused(name="crodno", agreement=1)
    assert told.startswith("Input should be 'single', 'crodino', 'mutual', 'discom', ")
    (told,) = refused(name=["kd"])
    assert told.startswith("Input should be 'single', ")
    assert refused(name="single", agremeent=1) == ["Extra inputs are not permitted"]
    assert refused(name="crodino", temperature=0) == ["Input should be greater than 0"]
    assert refused(auxiliary=None) == ["Input should be a valid number"]
    with pytest.raises(ValidationError, match="valid dictionary or instance of MethodSettings"):
        MethodSettings.model_validate("kd")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("terms", [{}, {"dice": 0.5}], ids=["preset", "more"])
def test_the_saved_configuration_of_every_method_can_be_read_back(tiny_config, tmp_path, name, terms):
    config = tiny_config({"method.name": name, **{f"method.{k}": v for k, v in terms.items()}})
    assert config.method == MethodSettings(name=name, **terms)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize("name", ["crodino", "kd", "maskedkd"])
def test_a_saved_configuration_with_changed_terms_can_be_read_back(tiny_config, tmp_path, name):
    changes = {k: OTHER.get(k, 0.25) for k, owners in OWNERS.items() if name in owners.split(", ")}
    config = tiny_config({"method.name": name, **{f"method.{k}": v for k, v in changes.items()}})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize(
    ("given", "learns"),
    [
        ({"name": "single"}, False),
        ({"name": "crodino"}, True),
        ({"name": "crodino", "agreement": 0}, False),  # classes are contrasted where there are labels
        ({"name": "crodino", "agreement": 0, "contrast": "image"}, True),
        ({"name": "crodino", "agreement": 0, "contrast": "pixel"}, True),
        ({"name": "crodino", "agreement": 0, "contrast": "pixel", "contrast_weight": 0}, False),
        ({"name": "crodino", "agreement": 0, "heights_from_image": 0.1}, True),
        ({"name": "crodino", "agreement": 0, "image_from_heights": 0.1}, True),
        ({"name": "mutual"}, True),
        ({"name": "mutual", "agreement": 0, "heights_from_image": 1}, True),
        ({"name": "mutual", "agreement": 0}, False),
        ({"name": "discom"}, True),
        ({"name": "fusion"}, False),
        ({"name": "dropout"}, False),
        ({"name": "kd"}, True),
        ({"name": "protokd"}, True),
        ({"name": "protokd", "distillation": 0}, False),  # class means need labels
        ({"name": "maskedkd"}, True),
        ({"name": "maskedkd", "masked": 0}, False),
    ],
)
def test_which_methods_learn_without_labels(given, learns):
    assert MethodSettings(**given).learns_without_labels is learns


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"losses": {"dice": 1}, "dice": 0.5}, "dice: expected its weight once, found 0.5 beside losses.dice"),
        ({"losses": {"focal": 0}}, "losses: expected at least one weight above 0, such as {cross_entropy: 1}"),
        ({"focal_gamma": 1}, "focal_gamma does nothing without losses.focal: name it, or leave focal_gamma out"),
        (
            {"losses": {"dice": 1}, "label_smoothing": 0.1},
            "label_smoothing does nothing without losses.cross_entropy: name it, or leave label_smoothing out",
        ),
    ],
)
def test_losses_that_do_nothing(given, message):
    assert refused(**given) == [f"Value error, {message}"]


def test_losses_are_written_where_they_are_named():
    assert "losses" not in MethodSettings(dice=0.5).model_dump()
    named = MethodSettings(losses={"focal": 1}, focal_gamma=1)
    assert MethodSettings.model_validate(named.model_dump()) == named
    assert named.model_dump()["losses"] == {"focal": 1.0}
    assert MethodSettings(name="single", losses={"focal": 1}, dice=0.5).loss_weights == {"focal": 1, "dice": 0.5}
