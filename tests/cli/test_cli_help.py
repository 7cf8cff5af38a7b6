"""What the program says of itself."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from geocrodino.cli.app import app
from geocrodino.cli.predict import LayerName
from geocrodino.prediction.layers import LAYERS

COMMANDS = ["sample", "init", "inspect", "datasets", "train", "quantise", "predict", "evaluate", "export"]
PLAIN = {"COLUMNS": "240", "TERMINAL_WIDTH": "240", "NO_COLOR": "1", "TERM": "dumb"}
group = typer.main.get_command(app)


def told(*words):
    result = CliRunner().invoke(app, [*words], env=PLAIN)
    assert result.exit_code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_the_commands():
    assert list(group.commands) == COMMANDS
    assert all(name in told("--help") for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_with_its_meaning(name):
    text = told(name, "--help")
    for parameter in group.commands[name].params:
        shown = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name
        assert shown in text or shown.upper() in text, shown
        assert (parameter.help or "").strip(), shown
        first_words = " ".join(parameter.help.split()[:3]).rstrip(".;,")
        assert first_words in text, shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_holds_an_example_that_would_run(name):
    example = re.search(r"Example:\s+(geocrodino .*)", told(name, "--help"))
    assert example
    for line in example.group(1).split("&&"):
        words = shlex.split(line)
        if words[0] == "geocrodino":
            command = group.commands[words[1]]
            command.make_context(words[1], words[2:])  # refuses what it does not know


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_form_of_help(name):
    assert told(name, "-h") == told(name, "--help")


def test_every_layer_can_be_asked_for():
    assert tuple(LayerName) == tuple(LAYERS)


def test_version():
    assert told("--version").strip() == f"geocrodino {version('geocrodino')}"


def test_help_needs_no_heavy_library():
    code = (
        "import sys\n"
        "from geocrodino.cli.app import main\n"
        "sys.argv = ['geocrodino', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    print('code', ended.code)\n"
        "print(sorted({'torch', 'lightning', 'rasterio', 'numpy', 'geopandas', 'pydantic'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-2:] == ["code 0", "[]"]


@pytest.mark.parametrize(
    "words",
    [
        ["trian"],
        ["train", "--epoch"],
        ["predict"],
        ["predict", "x.tif", "--modality", "radar"],
        ["sample", "--size-m", "5"],
    ],
)
def test_a_wrong_command_line_ends_with_2(run_cli, words):
    code, out, err = run_cli(*words)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("Usage: ")
