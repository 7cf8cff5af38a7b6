"""Checks of the name of a bundle. No heavy library is imported."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import BundleError
from geocrodino.files.access import check_readable, exists, is_file, is_folder


def check_bundle_name(path: Path) -> None:
    """Check that a bundle is there, without reading it.

    Args:
        path: The bundle.

    Raises:
        BundleError: If there is no such file.
        AccessError: If the operating system does not let it be looked up or read.
    """
    if not exists(path):
        raise BundleError(f"{path}: no such bundle. Check the path; training writes one into its run folder.")
    if not is_file(path):
        found = "a folder" if is_folder(path) else "a pipe or a device"
        raise BundleError(f"{path}: expected a bundle (one .safetensors file), found {found}.\nName the file in it.")
    check_readable(path)
