"""A map must not replace a file that it is made from."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import OutputError
from geocrodino.files.access import exists, same_file
from geocrodino.geo.rasters.identity import source_files
from geocrodino.geo.rasters.reader import RasterSource


def keep_inputs(out: Path, **inputs: str | Path | RasterSource | None) -> None:
    """Check that an output would not replace a file that it is made from.

    Args:
        out: The file to write.
        **inputs: Rasters and files by role; roles appear in the message, None is left out.

    Raises:
        OutputError: If it would replace one of them.
        AccessError: If a file cannot be looked up.
    """
    if not exists(out):
        return
    for role, given in inputs.items():
        for path in _paths(given):
            if same_file(out, path):
                what = role.replace("_", " ")
                raise OutputError(f"{out}: the map would replace the {what} itself.\nChoose another name.")


def _paths(given: str | Path | RasterSource | None) -> list[Path]:
    if isinstance(given, RasterSource):
        return [Path(name) for name in source_files(given)]
    return [] if given is None else [Path(given)]
