"""The file of a teacher. It is apart from the code that loads it, so that looking for it needs no training library."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import ConfigError
from geocrodino.files.access import exists

FUSION_NAME = "fusion.safetensors"
"""File of the trained network in the run folder of the method ``fusion``."""


def check_teacher(folder: Path) -> None:
    """Check that a folder holds a finished run of the method ``fusion``.

    Args:
        folder: Run folder of the teacher.

    Raises:
        ConfigError: If there is no such network in it.
        AccessError: If the operating system refuses to look it up.
    """
    path = folder / FUSION_NAME
    if not exists(path):
        raise ConfigError(no_teacher(path, "no such file"))


def no_teacher(path: Path, found: str, *, own: bool = False) -> str:
    """Compose the message for a teacher that cannot be used.

    Args:
        path: The file that was expected.
        found: What was found instead.
        own: Whether the run trained this teacher itself.

    Returns:
        What was expected, what was found, and the way out.
    """
    way_out = (
        "Start anew with `overwrite=True` instead of `resume=True`."
        if own
        else "Leave `teacher` out, and one is trained first."
    )
    return (
        f"{path}: expected the fusion network of a finished training with the same bands, classes and network, found "
        f"{found}.\n{way_out}"
    )
