"""Phrases of messages, and that the library speaks of arguments, not of options of the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import geocrodino
from geocrodino.cli.app import app
from geocrodino.cli.wording import Wording
from geocrodino.phrases import arguments, listed

PACKAGE = Path(geocrodino.__file__).parent
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]
COMMANDS = typer.main.get_command(app).commands
FLAGS = {flag for command in COMMANDS.values() for option in command.params for flag in option.opts}
# Whole command lines, which say by themselves what they are: of other programs, and in the file that `init` writes.
COMMAND_LINES = re.compile(r"\b(rio (warp|edit-info|calc|stack)|pip install|python -c|geocrodino train)\b.*")

WITHOUT_OPTION = {
    "training.layers",
    "classes",  # a section of the configuration
    "coordinates",  # members of GeoJSON
    "data.bands",
    "data.height",  # keys of the configuration alone
    "data.label_rules",
    "data.label_rules.colours",
    "data.label_rules.ignore",
    "data.label_rules.table",
    "data.label_rules.tolerance",
    "data.scenes",
    "elevation.channels",
    "height",  # of predict in Python alone
    "on_after_batch_transfer",  # of Lightning
    "split",  # a column
    "type",
}
"""What messages have in backticks and no command has an option for."""


def test_a_list_that_is_cut_short():
    assert listed([]) == ""
    assert listed("abcde") == "a, b, c, d, e"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
    assert listed([1, 2, 3], most=1) == "1 and 2 more"
    assert listed(iter("ab"), most=2) == "a, b"


@pytest.mark.parametrize("values", [{"aoi": "a 'b' \"c\" `d` \\e\nf"}, {"resume": True, "out": "runs/a"}])
def test_arguments_are_read_back_by_python(values):
    written = arguments(**values)
    assert written.count("`") == 2
    assert "\n" not in written
    assert eval(f"dict({written.strip('`')})") == values


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Texts in a module with their lines; what is put into a text is shown as ``{}``."""
    for text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
        parts = text.values if isinstance(text, ast.JoinedStr) else [text]
        yield text.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)


def _texts(node: ast.AST) -> Iterator[ast.JoinedStr | ast.Constant]:
    if isinstance(node, ast.JoinedStr):
        yield node
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _texts(part.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


def test_the_library_names_no_option_of_a_command():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {flag}"
        for path in LIBRARY
        for line, text in literals(path)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", COMMAND_LINES.sub("", text))
        if flag in FLAGS
    ]
    assert found == []


def names_in_messages() -> set[str]:
    """Every argument and setting that a message of the library names in backticks."""
    found: set[str] = set()
    for path in LIBRARY:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "arguments":
                found |= {str(keyword.arg) for keyword in node.keywords if keyword.arg}
        for node in list(ast.walk(tree)):
            body = getattr(node, "body", None)
            if isinstance(body, list):  # without docstrings
                node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        for text in _texts(tree):
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            whole = "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
            for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", whole):
                found |= set(re.findall(r"(?:^|, )([a-z_][\w.]*)(?==|$)", code))
    return found


NAMES = sorted(names_in_messages())


def test_every_name_in_a_message_is_an_option_of_some_command_or_known_as_none():
    told = {name: [w for w in (Wording(c)(f"`{name}`") for c in COMMANDS.values()) if "--" in w] for name in NAMES}
    assert {name for name, words in told.items() if not words} == WITHOUT_OPTION


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_a_command_shares_becomes_its_option(command):
    """Of every name that messages hold and the command has as a parameter."""
    own = {str(option.name): option.opts[0] for option in COMMANDS[command].params if option.opts[0].startswith("--")}
    shared = {name: own[name] for name in NAMES if name in own and name != "split"}
    told = {name: Wording(COMMANDS[command])(f"Use `{name}`, or not.") for name in shared}
    assert {name: text.split()[1].rstrip(",") for name, text in told.items()} == shared
