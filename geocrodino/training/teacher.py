"""The file of a teacher, apart from its reading: to look a name up needs no training library."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import ConfigError
from geocrodino.files.access import exists

FUSION_NAME = "fusion.safetensors"
"""The network of the method ``fusion`` in the folder of its run."""


def check_teacher(folder: Path) -> None:
    """Check that a folder holds a finished run that can teach others.

    Raises:
        ConfigError: If there is no such network in it.
        AccessError: If the operating system does not let it be looked up.
    """
    path = folder / FUSION_NAME
    if not exists(path):
        raise ConfigError(no_teacher(path, "no such file"))


def no_teacher(path: Path, found: str, *, own: bool = False) -> str:
    """The message where a teacher cannot be used.

    Args:
        path: The file that was expected.
        found: What was found instead.
        own: Whether the run trained this teacher itself.
    """
    way_out = (
        "Start anew with --overwrite in place of --resume." if own else "Leave --teacher out, and one is trained first."
    )
    return (
        f"{path}: expected the fusion network of a finished training with the same bands, classes and network, found "
        f"{found}.\n{way_out}"
    )
