"""Options for the values of labels, which `inspect`, `train` and `evaluate` share."""

from __future__ import annotations

from typing import Annotated

import typer

Ignore = Annotated[list[int] | None, typer.Option(help="Label value to leave out; may be repeated.")]
"""``--ignore VALUE``"""

LabelValue = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUE=CLASS", help="Read a value of the label file as a class value, such as 255=1; may be repeated."
    ),
]
"""``--label-value VALUE=CLASS``"""


def parse_label_values(texts: list[str] | None) -> dict[int, int]:
    """Parse the values of ``--label-value``.

    Raises:
        ConfigError: If one is not a pair of whole numbers, or one value is given two classes.
    """
    from geocrodino.errors import ConfigError

    found: dict[int, int] = {}
    for text in texts or []:
        try:
            before, after = (int(part) for part in text.split("="))
        except ValueError:
            raise ConfigError(
                f"--label-value {text}: expected the value in the file and the class value, such as 255=1."
            ) from None
        if found.setdefault(before, after) != after:
            raise ConfigError(f"--label-value {text}: {before} is already read as {found[before]}. Give it once.")
    return found
