"""The files of a teacher. This module imports no training library, so that the command line can check them quickly."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import ConfigError
from geocrodino.files.access import exists

FUSION_NAME = "fusion.safetensors"
"""File of the trained network in the run folder of the method ``fusion``."""

SETTINGS_NAME = "config.yaml"
"""File of the settings in every run folder."""

TRAIN_ONE = "Leave `teacher` out, and one is trained first."
"""What to do without a usable teacher."""


def check_teacher(folder: Path) -> None:
    """Check that a folder holds a finished run of the method ``fusion``.

    Args:
        folder: Run folder of the teacher.

    Raises:
        ConfigError: If its network or its settings are missing.
        AccessError: If the operating system does not let them be looked up.
    """
    for name in (FUSION_NAME, SETTINGS_NAME):
        if not exists(folder / name):
            raise ConfigError(unusable_teacher(folder / name, "no such file"))


def unusable_teacher(path: Path, found: str, *, own: bool = False) -> str:
    """Compose the message for a teacher that cannot be used.

    Args:
        path: The file that was expected.
        found: What was found instead.
        own: Whether the run trained this teacher itself.

    Returns:
        What was expected, what was found, and what to do.
    """
    advice = "Start anew with `overwrite=True` instead of `resume=True`." if own else TRAIN_ONE
    return (
        f"{path}: expected the fusion network of a finished training with the same bands, classes and network, found "
        f"{found}.\n{advice}"
    )
