"""Options for labels, which `inspect`, `train` and `evaluate` share."""

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


LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column of the classes, numbers or words, where labels are polygons, lines or points."),
]
"""``--label-column COLUMN``"""

LABELS_HELP = "Class raster of values 0 to 254 or of colours, or polygons with a column of classes"


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
