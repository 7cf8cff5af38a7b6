"""Names of areas of interest: files, or text that is a bounding box, WKT or GeoJSON. No heavy library is imported."""

from __future__ import annotations

import os
import re
from pathlib import Path

from geocrodino.errors import AOIError
from geocrodino.files.access import access_errors
from geocrodino.files.names import archive_prefix, is_url

_TYPES = "POINT|LINESTRING|LINEARRING|POLYGON|CURVEPOLYGON|GEOMETRYCOLLECTION|TRIANGLE|TIN|POLYHEDRALSURFACE"
WKT = re.compile(
    rf"(SRID\s*=\s*(?P<srid>\d+)\s*;)?\s*(?P<wkt>(MULTI(POINT|LINESTRING|POLYGON|SURFACE|CURVE)|{_TYPES})"
    r"\s*(ZM|Z|M)?\s*(\(|EMPTY).*)",
    re.IGNORECASE | re.DOTALL,
)


def is_wkt(text: str) -> bool:
    """Find out whether a text is meant as a geometry in WKT or EWKT.

    Args:
        text: What a user named.

    Returns:
        Whether it begins like one, with or without an SRID before it.
    """
    return WKT.fullmatch(text) is not None or text.upper().startswith("SRID=")


def is_geojson(text: str) -> bool:
    """Find out whether a text is meant as GeoJSON.

    Args:
        text: What a user named.

    Returns:
        Whether it begins like a JSON object.
    """
    return text.startswith("{")


def box_numbers(text: str) -> list[float] | None:
    """The numbers of a bounding box.

    Args:
        text: Numbers with commas, semicolons or blanks between them, in brackets or not.

    Returns:
        As many numbers as there are, at least two; None if the text is something else.
    """
    parts = [p for p in re.split(r"[\s,;]+", text.strip().strip("[]()")) if p]
    try:
        numbers = [float(p) for p in parts]
    except ValueError:
        return None
    return numbers if len(numbers) > 1 else None


def absolute_source(text: str, folder: Path) -> str:
    """Make the names of local files absolute, so that a source is found from any working folder.

    Args:
        text: An area as a user names it.
        folder: Where relative names start.

    Returns:
        The same area; bounding boxes, geometries and URLs as they are.

    Raises:
        AOIError: If the home folder in a name such as ``~user/area.gpkg`` cannot be found.
        AccessError: If the operating system cannot tell the working folder.
    """
    bare = text.strip()
    if box_numbers(bare) is not None or is_geojson(bare) or is_wkt(bare):
        return bare
    head = archive_prefix(bare)
    if not head and (is_url(bare) or bare.startswith("/vsi")):
        return bare
    try:
        rest = Path(bare[len(head) :]).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise AOIError(f"{bare}: {error} Write the whole path.") from error
    with access_errors(bare):
        return head + os.path.abspath(folder / rest)  # noqa: PTH100 - links stay as they were named
