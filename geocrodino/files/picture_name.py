"""Names of pictures. This module imports no plotting library, so that the command line can check them quickly."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import OutputError


def check_picture_name(path: str | Path) -> None:
    """Check that the name of a picture has the ending of what is written.

    Args:
        path: The picture.

    Raises:
        OutputError: If it does not end in ``.png``.
    """
    if Path(path).suffix.lower() != ".png":
        raise OutputError(f"{path}: the picture is written as a PNG. Let the name end in .png.")
