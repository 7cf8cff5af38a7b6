"""Which known word is suggested for an unknown one."""

from __future__ import annotations

import pytest

from geocrodino.spelling import did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("crodino-kd", ["single", "crodino", "kd"], " Did you mean crodino?"),
        ("CONFIDENSE", ["confidence", "entropy"], " Did you mean confidence?"),
        ("prob", ["probabilities"], " Did you mean probabilities?"),
        ("zzz", ["single", "crodino"], ""),
        ("", ["single"], ""),
        (3, ["single"], ""),
        ("a", [], ""),
    ],
)
def test_one_word(word, known, hint):
    assert did_you_mean(word, known) == hint


def test_no_word_is_suggested_twice():
    assert did_you_mean("resnet81", ["resnet18", "resnet18", "vgg11"], most=2) == " Did you mean resnet18?"
