"""Factors as they are written."""

from __future__ import annotations

import pytest

from geocrodino.errors import ConfigError
from geocrodino.settings.config import load_config
from geocrodino.settings.factors import factor_text, parse_factor


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (257.0, "257"),
        (0.0001, "0.0001"),
        (1 / 257, "1/257"),
        (2.55, "2.55"),
        (1 / 3.3, "1/3.3"),
        (0.123456789, "0.123456789"),
    ],
)
def test_a_factor_is_written_as_it_is_read(factor, text):
    assert factor_text(factor) == text
    assert parse_factor(text) == factor


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1/0", "1/x", "nan", "inf", "1/2/3"])
def test_other_text_is_no_factor(text):
    with pytest.raises(ValueError, match=r"^expected a number above 0, such as 257 or 1/257$"):
        parse_factor(text)


def test_a_fraction_in_yaml_and_in_a_table(tmp_path):
    (tmp_path / "one.yaml").write_text("data: {optical: a.tif, elevation: b.tif, labels: c.tif, rescale: 1/257}")
    assert load_config(tmp_path / "one.yaml").data.rescale == 1 / 257
    (tmp_path / "scenes.csv").write_text(
        "name,optical,elevation,labels,rescale\nn,a.tif,b.tif,c.tif,1/257\ns,d,e,f,4\n"
    )
    (tmp_path / "many.yaml").write_text("data: {scenes: scenes.csv}")
    scenes = load_config(tmp_path / "many.yaml").data.resolved()
    assert [scene.rescale for scene in scenes] == [1 / 257, 4.0]


def test_a_word_in_yaml_is_refused(tmp_path):
    (tmp_path / "one.yaml").write_text("data: {optical: a.tif, elevation: b.tif, labels: c.tif, rescale: 1/x}")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "one.yaml")
    assert str(error.value).splitlines()[1] == (
        "  data.rescale: expected a number above 0, such as 257 or 1/257, found '1/x'"
    )
