"""Options of a prediction: one description for the command line, Python and the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

import geocrodino
from geocrodino.cli.app import app
from geocrodino.errors import ConfigError
from geocrodino.settings.prediction import GROUPS, Execution, Inputs, Outputs, Tiling, option_fields

DOCS = Path(__file__).parents[2] / "docs" / "prediction.md"
OPTIONS = [pytest.param(group, option, id=option.flag) for group in GROUPS for option in option_fields(group)]


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_has_one_description(group, option):
    assert f"{option.name}: {option.text}" in words(group.__doc__)
    command = typer.main.get_command(app).commands["predict"]
    (shown,) = (parameter for parameter in command.params if option.flag in parameter.opts)
    assert shown.help == option.text
    default = "" if option.default in {None, ()} else f"`{option.default}`"
    row = f"| `{option.flag}` | `{group.__name__}.{option.name}` | {default} | {option.text} |"
    assert row in DOCS.read_text(encoding="utf-8").splitlines()


def test_the_documentation_lists_no_other_option():
    rows = re.findall(r"^\| `(--[\w-]+)` \| `\w+\.\w+` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [option.flag for group in GROUPS for option in option_fields(group)]


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_public_values(group):
    assert getattr(geocrodino, group.__name__) is group
    assert group() == group()
    assert hash(group()) == hash(group())
    assert all(field.text.endswith(".") for field in option_fields(group))


@pytest.mark.parametrize(
    ("group", "name"),
    [(Tiling, "core_px"), (Tiling, "block_px"), (Execution, "workers"), (Execution, "batch")],
)
def test_numbers_below_one_are_refused(group, name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, found 0$"):
        group(**{name: 0})
    assert getattr(group(**{name: 1}), name) == 1


@pytest.mark.parametrize(
    ("group", "name", "word", "message"),
    [
        (Tiling, "stitch", "blended", "stitch must be one of auto, exact, blend, found 'blended'. Did you mean blend?"),
        (Execution, "backend", "onnx", "backend must be one of auto, torch, openvino, found 'onnx'."),
        (
            Execution,
            "precision",
            "ful",
            "precision must be one of auto, full, half, int8, found 'ful'. Did you mean full?",
        ),
    ],
)
def test_unknown_words_are_refused(group, name, word, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        group(**{name: word})


def test_memory_and_a_scheduler_exclude_each_other():
    with pytest.raises(ConfigError, match=r"^memory limits only the threads of this process"):
        Execution(memory="2GB", scheduler="processes")


def test_options_are_named_and_cannot_change():
    with pytest.raises(TypeError):
        Inputs("dtm.tif")
    with pytest.raises(AttributeError):
        Outputs().overwrite = True
