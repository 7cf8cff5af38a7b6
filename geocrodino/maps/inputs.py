"""Refuse a map that would replace one of its inputs."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import OutputError
from geocrodino.files.access import exists, same_file
from geocrodino.geo.rasters.identity import source_files
from geocrodino.geo.rasters.reader import RasterSource


def require_distinct_output(out: Path, **inputs: str | Path | RasterSource | None) -> None:
    """Check that an output is none of the files that it is made from.

    Args:
        out: The file to write.
        **inputs: The inputs by role, as the message names them; underscores stand for spaces.

    Raises:
        OutputError: If the output is one of them.
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
