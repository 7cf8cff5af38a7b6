"""Words in the names of files and folders that say which layer a file is."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Literal

Word = Literal["labels", "above", "ground", "surface", "heights", "optical"]
"""What a name says: labels; heights above the ground; the bare ground; a surface; heights of any kind; an image."""

_LISTS: dict[Word, str] = {
    "labels": "label labels mask masks msk cls class classes classification gt gts groundtruth truth seg segmentation "
    "landcover lulc lc annotation annotations reference nlcd corine cosia",
    "above": "ndsm ndom agl chm nheight normalized normalised normalisation normalization",
    "ground": "dtm dgm mnt terrain ground bare bareearth mdt",
    "surface": "dsm dom mns surface mds",
    "heights": "dem elevation elevations elev height heights altitude alti rgealti srtm depth hoehe hoehen",
    "optical": "optical rgb rgbi rgbn rgbir rgbnir irrg cir ortho orthos orthophoto orthophotos top image images img "
    "imgs aerial ms msi naip sentinel landsat photo photos picture pictures bdortho",
}
_WORDS = {word: frozenset(text.split()) for word, text in _LISTS.items()}
"""In this order one word decides where a name holds several: ``ground_truth_rgb`` are labels."""

_TOKEN = re.compile(r"[a-z]+")
_ABOVE = 2  # folders above a file whose names count


def word_of(path: str | Path, *, folders: int = _ABOVE) -> tuple[Word, str] | None:
    """Find out which layer the name of a file speaks of.

    Args:
        path: The file.
        folders: Number of folders above it whose names count, where its own says nothing.

    Returns:
        What the name says, and the part of it that does; None if it says nothing.
    """
    pure = PurePath(path)
    for text in (pure.stem, *(parent.name for parent in list(pure.parents)[:folders])):
        tokens = _TOKEN.findall(text.lower())  # of ground_truth, truth comes first in the table
        for word, known in _WORDS.items():
            if said := next((token for token in tokens if token in known), None):
                return word, said
    return None


_AREA_WORDS = "aoi aois area areas split splits extent footprint boundary region study perimeter outline"


def names_an_area(path: str | Path) -> bool:
    """Find out whether the name of a file of polygons speaks of an area of interest.

    Args:
        path: The file.

    Returns:
        Whether it does.
    """
    return bool(set(_AREA_WORDS.split()) & set(_TOKEN.findall(PurePath(path).stem.lower())))
