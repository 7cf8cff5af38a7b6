"""Facts about scenes in few lines: scenes of which the same is true share one."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence

from geocrodino.data.sources import Sources
from geocrodino.errors import HeightRangeWarning
from geocrodino.geo.rasters.impossible_heights import WHY_IMPOSSIBLE, Impossible
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import ground_unit, height_unit
from geocrodino.modalities.few_values import few_values, few_values_note
from geocrodino.modalities.lone_zeros import lone_zeros, lone_zeros_note
from geocrodino.phrases import listed

NamedScene = tuple[str, Sources]
"""Name and rasters of a scene."""


def joined_facts(facts: Iterable[tuple[str, str]]) -> list[str]:
    """Say each fact once, with the names of its scenes.

    Args:
        facts: Name of a scene and a fact about it.

    Returns:
        A line for each fact, in the order of the first scenes.

    Examples:
        >>> joined_facts([("a", "no unit"), ("b", "in feet"), ("c", "no unit")])
        ['2 scenes (a, c): no unit', 'scene b: in feet']
    """
    scenes: dict[str, list[str]] = {}
    for name, fact in facts:
        scenes.setdefault(fact, []).append(name)
    return [f"{_named(names)}: {fact}" for fact, names in scenes.items()]


def _named(scenes: Sequence[str]) -> str:
    return f"scene {scenes[0]}" if len(scenes) == 1 else f"{len(scenes)} scenes ({listed(scenes)})"


def unit_lines(scenes: Sequence[NamedScene]) -> list[str]:
    """Say in which unit heights are, and where it is known from.

    Args:
        scenes: All scenes of a training.

    Returns:
        Lines that begin with a capital; of several scenes, with their names.
    """
    facts = [
        (name, f"ground: {text}" if role == "ground" else text)
        for name, sources in scenes
        for role, raster in sources.heights.items()
        for _, text in (_unit(role, raster, sources),)
    ]
    lines = joined_facts(facts) if len(scenes) > 1 else ["; ".join(text for _, text in facts)]
    return [line[:1].upper() + line[1:] for line in lines if line]


def warn_of_heights(scenes: Sequence[tuple[str, Sources, dict[str, Impossible]]]) -> None:
    """Warn of impossible heights that were read as missing, and of values that look like classes or missing heights.

    Args:
        scenes: Name, rasters and impossible heights by role of each scene of a training.

    Warns:
        HeightRangeWarning: For each kind once; of several scenes, with their names.
    """
    like_classes = [
        (name, raster, count)
        for name, sources, _ in scenes
        for role, raster in sources.heights.items()
        if role != "ground" and (count := few_values(raster))
    ]
    impossible = [
        (name, sources.heights[role], found) for name, sources, by_role in scenes for role, found in by_role.items()
    ]
    zeros = [
        (name, raster, share)
        for name, sources, _ in scenes
        for role, raster in sources.heights.items()
        if (share := lone_zeros(raster, _unit(role, raster, sources)[0]))
    ]
    alone = len(scenes) == 1
    doubtful = _of_classes(like_classes, alone=alone), _of_zeros(zeros, alone=alone)
    for note in itertools.chain(*doubtful, _of_impossible(impossible, alone=alone)):
        warnings.warn(note, HeightRangeWarning, stacklevel=3)


def _unit(role: str, raster: RasterSource, sources: Sources) -> tuple[float, str]:
    """Metres in one unit of the heights of a role, and how that is known."""
    return (ground_unit if role == "ground" else height_unit)(raster, sources.height_unit)


def _of_classes(found: Sequence[tuple[str, RasterSource, int]], *, alone: bool) -> list[str]:
    if len(found) < 2:
        return [("" if alone else f"scene {name}: ") + few_values_note(raster, count) for name, raster, count in found]
    few, most = min(count for _, _, count in found), max(count for _, _, count in found)
    counts = f"{most}" if few == most else f"{few} to {most}"
    return [
        f"{_named([name for name, _, _ in found])}: expected heights, found {counts} different whole numbers in each, "
        "as class rasters hold them."
    ]


def _of_zeros(found: Sequence[tuple[str, RasterSource, float]], *, alone: bool) -> list[str]:
    if not found:
        return []
    (name, raster, share), *others = found
    note = ("" if alone else f"scene {name}: ") + lone_zeros_note(raster, share)
    return [f"{note}\nSo it is in {_named([name for name, _, _ in others])}." if others else note]


def _of_impossible(found: Sequence[tuple[str, RasterSource, Impossible]], *, alone: bool) -> list[str]:
    if alone:
        return [each.note(raster) for _, raster, each in found]
    if len(found) == 1:
        ((name, raster, each),) = found
        return [f"scene {name}: {each.note(raster)}"]
    if not found:
        return []
    counts = listed(f"{name} {each.count_in(raster)}" for name, raster, each in found)
    scenes = len({name for name, _, _ in found})
    return [f"impossible heights of {scenes} scene{'s' * (scenes > 1)} ({counts}) are {WHY_IMPOSSIBLE}"]
