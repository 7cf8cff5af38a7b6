"""How values, colours and attributes of label files become classes."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from geocrodino.settings.section import Section

_COLOUR = re.compile("#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")


def _as_list(codes: object) -> object:
    """Accept one code without brackets."""
    return [codes] if isinstance(codes, int | float | str) else codes


def _no_truth_value(code: object) -> object:
    if isinstance(code, bool):  # YAML reads yes and no as these
        raise ValueError("a code is a number or a text. Put it in quotes")
    return code


def plain_word(text: str) -> str:
    """Write a word as words are compared: without regard to capitals, underscores, blanks and how accents are coded.

    Args:
        text: A name of a class, or a word of an attribute.

    Returns:
        The word in small letters, with one blank between its parts.
    """
    return " ".join(unicodedata.normalize("NFC", text).casefold().replace("_", " ").split())


def _compared(text: str) -> str:
    """A word or colour as it is compared: ``#rgb`` is ``#rrggbb``."""
    word = plain_word(text)
    return "#" + "".join(2 * digit for digit in word[1:]) if is_colour(word) and len(word) == 4 else word


def is_colour(code: int | str) -> bool:
    """Find out whether a code is a colour.

    Args:
        code: A code of a label file.

    Returns:
        Whether it is written as ``#rrggbb`` or ``#rgb``.
    """
    return isinstance(code, str) and _COLOUR.fullmatch(code.strip()) is not None


Code = Annotated[int | str, BeforeValidator(_no_truth_value)]
"""What stands for a class in a label file: a number, a colour ``"#rrggbb"`` or a word of an attribute."""

Codes = Annotated[tuple[Code, ...], BeforeValidator(_as_list)]
"""One code or a list of codes."""


class LabelRules(Section):
    """Rules by which labels of any kind become classes: polygons, colours, or values of a raster."""

    column: str | None = Field(None, description="column of a vector file that holds the class")
    layer: str | None = Field(None, description="layer of a vector file with several")
    colours: bool | None = Field(
        None, description="whether three bands are colours; by default guessed from their values"
    )
    table: dict[str, Codes] = Field({}, description="codes of each class by its name: numbers, colours, words")
    ignore: Codes = Field((), description="codes that are no label")
    tolerance: int = Field(
        0, ge=0, le=255, description="largest distance, in any channel, of a pixel from the colour of its class"
    )
    touched: Literal["centre", "all"] = Field(
        "centre", description="pixels that a polygon labels: those whose centre it holds, or all that it touches"
    )
    order: str = Field(
        "area",
        description="which polygon is on top where several overlap: area (the smaller), file (the later), or a column "
        "(the higher value)",
    )
    width_m: float = Field(1.0, gt=0, description="width of points and lines, m")

    @model_validator(mode="after")
    def _each_code_once(self) -> LabelRules:
        words: dict[str, str] = {}
        for name in self.table:
            if (first := words.setdefault(plain_word(name), name)) != name:
                raise ValueError(
                    f"table: {first} and {name} name one class: capitals, underscores and blanks make no other one. "
                    f"Write their codes in one list under {first}"
                )
        taken: dict[Any, str] = {}
        for name, codes in (*self.table.items(), ("ignore", self.ignore)):
            for code in codes:
                key = _compared(code) if isinstance(code, str) else code
                if taken.setdefault(key, name) != name:
                    raise ValueError(
                        f"expected each code under one class or under ignore, found {code!r} under {taken[key]} and "
                        f"{name}"
                    )
        return self
