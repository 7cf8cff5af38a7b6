"""A table of codes: which numbers, colours and words of label files stand for which class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.labels import LabelRules, is_colour, plain_word

_LISTED = 24  # codes that are written out in a message

_PLAIN = re.compile(r"[^\W\d_]([\w-]| (?! ))*(?<! )")  # letters first; YAML reads nothing else into these

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class CodeTable:
    """Class of each code.

    Classes are numbered from 0 in the order of the table; 255 stands for codes that are no label.

    Attributes:
        names: Names of the classes.
        shown: Colour of each class as ``#rrggbb``, where the table names one.
        numbers: Class of each number.
        colours: Class of each colour.
        words: Class of each word, which is written as `plain_word` writes it; a name of a class is a word too.
    """

    names: tuple[str, ...]
    shown: tuple[str | None, ...]
    numbers: Mapping[int, int]
    colours: Mapping[Rgb, int]
    words: Mapping[str, int]

    @classmethod
    def of(cls, rules: LabelRules) -> Self:
        """Make the table of label rules.

        Args:
            rules: The rules; their table must not be empty.

        Returns:
            The table.
        """
        numbers: dict[int, int] = {}
        colours: dict[Rgb, int] = {}
        words: dict[str, int] = {}
        for index, codes in [*enumerate(rules.table.values()), (IGNORE_INDEX, rules.ignore)]:
            for code in codes:
                if isinstance(code, int):
                    numbers[code] = index
                elif is_colour(code):
                    colours[rgb_of(code)] = index
                else:
                    words[plain_word(code)] = index
        for index, name in enumerate(rules.table):
            words.setdefault(plain_word(name), index)
        first = {index: hexadecimal(colour) for colour, index in reversed(colours.items())}
        return cls(tuple(rules.table), tuple(map(first.get, range(len(rules.table)))), numbers, colours, words)


def rgb_of(code: str) -> Rgb:
    """Read a colour.

    Args:
        code: ``#rrggbb`` or ``#rgb``.

    Returns:
        Red, green and blue, 0 to 255.
    """
    digits = code.strip().removeprefix("#")
    red, green, blue = bytes.fromhex(digits if len(digits) == 6 else "".join(2 * digit for digit in digits))
    return red, green, blue


def hexadecimal(colour: Rgb) -> str:
    """Write a colour.

    Args:
        colour: Red, green and blue, 0 to 255.

    Returns:
        ``#rrggbb``.
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)


def as_yaml(codes: Iterable[tuple[str, int | str]], *, ignore: bool = False) -> str:
    """Write codes that were found as the section of a configuration that names their classes.

    Args:
        codes: A name of a class and its code, for each code.
        ignore: Whether to write an empty list of codes that are no label beside it.

    Returns:
        Lines of YAML from ``data:`` on, of at most 24 codes.
    """
    found = list(codes)
    lines = [f"      {_quoted(name)}: [{_quoted(code)}]" for name, code in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"      # and {len(found) - _LISTED} more")
    return "\n".join(["data:", "  label_rules:", "    table:", *lines, *(["    ignore: []"] if ignore else [])])


def _quoted(value: int | str) -> str:
    """A value that YAML reads as it is meant."""
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.casefold() not in {"yes", "no", "on", "off", "true", "false", "null"}:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
