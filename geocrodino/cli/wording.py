"""Translates messages of the library for users of the command line.

The library names Python arguments in backticks, such as `overwrite=True`. Here they are replaced by the options of the
command, such as ``--overwrite``.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass

from typer.core import TyperCommand, TyperOption

_IN_BACKTICKS = re.compile(r"column `[^`\n]+`|(?<!`)`([^`\n]+)`(?!`)")
"""Arguments; a word after ``column`` is the name of a column in a user's file."""

_IN_CONFIGURATION = re.compile(r"\b[Ii]n the configuration(?=[:,])")

_RENAMED = {
    "bundle": "model",
    "count_missed": "count_missing",
    "encoder_weights": "weights",
    "ignore_values": "ignore",
    "label_values": "label_value",
    "overlap_percent": "overlap",
    "resolution_m": "resolution",
    "steps_per_epoch": "steps",
}
"""Parameters of commands whose name differs from that of the argument or setting."""

_KEYS = {
    "data.height.scale": "height_scale",
    "data.height.zero": "height_zero",
    "data.label_rules.column": "label_column",
    "data.splits.by": "split_by",
    "data.splits.folds": "folds",
    "method.name": "method",
    "network.encoder": "encoder",
    "training.optimiser.learning_rate": "learning_rate",
}
"""Options for keys of the configuration outside `_SECTIONS`."""

_SECTIONS = ("data", "training")
"""Sections of the configuration whose keys have the same names as options."""

_OF_THE_DATA = ("ignore_values", "label_values", "height_unit")
"""Settings that belong to the data. The configuration is the better place for them, so messages name its key too."""

_COLUMN = "split"
"""In messages, `split` is the column in the file of an area, never the option of `evaluate`."""


@dataclass
class Wording:
    """Translates messages into the options of a command.

    Attributes:
        command: The Typer command that runs; None before it is known, when messages stay unchanged.
    """

    command: object = None

    def __call__(self, message: str) -> str:
        """Replace each argument in backticks by the command's option.

        Args:
            message: A message of the library.

        Returns:
            The message. Words in backticks for which the command has no option stay unchanged.
        """
        known = self._known()
        if _reads_settings(known):
            message = _IN_CONFIGURATION.sub(rf"\g<0> ({known['config'].opts[0]})", message)
        return _IN_BACKTICKS.sub(lambda found: (found[1] and self._options(found[1], known)) or found[0], message)

    def _options(self, code: str, known: dict[str, TyperOption]) -> str | None:
        """The options that stand for arguments, None unless there is one for each."""
        head, equals, value = code.partition("=")
        section, dot, key = head.rpartition(".")
        if dot and not _reads_settings(known):
            return None  # the key of a file that this command does not read
        if dot:
            head = key if section in _SECTIONS else _KEYS.get(head, head)
        source = f"f({head}{equals}{value})"
        named = _arguments(source)
        options = [(known.get(_RENAMED.get(name, name)), name, node) for name, node in named]
        written = [_written(option, node, source) for option, _, node in options if option is not None]
        if not options or len(written) < len(options):
            return None
        return " ".join(written) + (self._in_file(*options[0][1:], source) if _reads_settings(known) else "")

    def _known(self) -> dict[str, TyperOption]:
        """The command's options by the name of their parameter."""
        parameters = self.command.params if isinstance(self.command, TyperCommand) else []
        return {str(p.name): p for p in parameters if isinstance(p, TyperOption) and p.name != _COLUMN}

    @staticmethod
    def _in_file(name: str, node: ast.expr | None, source: str) -> str:
        """The key of the configuration in brackets, for settings that belong to the data; else empty."""
        if name not in _OF_THE_DATA:
            return ""
        value = "" if node is None else f": {_word(node, source)}"
        return f" (`{name}{value}` under `data`)"


def _reads_settings(known: dict[str, TyperOption]) -> bool:
    """Whether a command takes settings from its configuration: others read there what the scenes of a training are."""
    return "config" in known and not known.keys().isdisjoint({"patch_px", "label_column"})


def _arguments(source: str) -> list[tuple[str, ast.expr | None]]:
    """Names and values of the arguments in a call, None as value of a bare name; empty for other text."""
    try:
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError):
        return []
    if not isinstance(call, ast.Call):
        return []
    if call.args:
        return [(name.id, None) for name in call.args if isinstance(name, ast.Name) and len(call.args) == 1]
    return [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None]


def _written(option: TyperOption, node: ast.expr | None, source: str) -> str:
    """An option with its value, as it is typed in a shell."""
    flag = option.opts[0]
    if node is None or option.is_flag:
        return flag
    if isinstance(node, ast.Dict):
        keys = [key for key in node.keys if key is not None]
        words = [f"{_word(k, source)}={_word(v, source)}" for k, v in zip(keys, node.values, strict=True)]
    elif isinstance(node, ast.List | ast.Tuple):
        words = [_word(item, source) for item in node.elts]
    else:
        words = [_word(node, source)]
    if not option.multiple:
        words = [",".join(words)]
    return " ".join(f"{flag}{'=' if _is_like_a_box(word) else ' '}{shlex.quote(word)}" for word in words)


def _is_like_a_box(word: str) -> bool:
    """Whether a value starts with a minus, as a bounding box may; without ``=`` it would be taken for an option."""
    return word.startswith("-") and "," in word


def _word(node: ast.expr, source: str) -> str:
    """A value as it is typed: a string without its quotes, numbers and expressions unchanged."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.get_source_segment(source, node) or ast.unparse(node)
