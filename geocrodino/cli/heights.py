"""Options for heights and for files without a place, which several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from geocrodino.settings.height_words import HeightZero

HeightScale = Annotated[
    float | None,
    typer.Option(help="Metres in a stored unit of the heights, such as 0.1 for decimetres; not with --height-unit."),
]
"""The option ``--height-scale``."""

HeightZeroOption = Annotated[
    HeightZero | None,
    typer.Option(
        help="Where heights are 0: sea (surface model, the default), ground (heights above ground) or camera."
    ),
]
"""The option ``--height-zero``."""

PixelSize = Annotated[
    float | None, typer.Option("--pixel-size", help="Pixel size of files without any place (PNG, JPG ...), metres.")
]
"""The option ``--pixel-size``."""
