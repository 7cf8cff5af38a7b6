"""Splits by list files, which name whole scenes, or single files of a scene that is joined from several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geocrodino.data.split_lists import read_lists
from geocrodino.errors import ConfigError
from geocrodino.settings.splits import SceneSplit

_SAME_PLACE = 0.5
"""Share of the smaller of two footprints above which they are one place."""

_FIRST: tuple[SceneSplit, ...] = ("test", "val", "train", "unlabelled")
"""Splits in the order in which they keep the pixels that neighbouring files share."""


@dataclass(frozen=True)
class Member:
    """A file that a scene is joined from.

    Attributes:
        files: The file, and those of other layers at the same place.
        shape: Its footprint, in the CRS of the scene's grid.
    """

    files: tuple[str, ...]
    shape: BaseGeometry


@dataclass(frozen=True)
class ListedScene:
    """What lists may call a scene.

    Attributes:
        name: Its name.
        files: Its files.
        members: Its places, where it is joined from several files; also those that lie beyond it.
        part_of: Name of the scene that it is a part of; empty for a whole scene. Parts share their files.
        ground: Its own ground, in the CRS of its grid; None: all of it.
    """

    name: str
    files: tuple[str, ...]
    members: tuple[Member, ...] = ()
    part_of: str = ""
    ground: BaseGeometry | None = None

    @property
    def whole_name(self) -> str:
        """Name of the scene, or of the one that it is a part of."""
        return self.part_of or self.name

    def held(self, tree: shapely.STRtree) -> list[int]:
        """Find the places that lie on it, and not on other parts alone.

        Args:
            tree: Footprints of its members.

        Returns:
            Numbers of those that share more than an edge with it.
        """
        if self.ground is None:
            return list(range(len(tree.geometries)))
        near = np.sort(tree.query(self.ground, predicate="intersects"))
        shared = shapely.area(shapely.intersection(tree.geometries[near], self.ground))
        return [int(place) for place in near[shared > 0]]


@dataclass(frozen=True)
class ListedMember:
    """A place of a scene that a list names.

    Attributes:
        scene: Number of the scene.
        name: Name of its file.
        shape: Its footprint.
        split: Its split.
    """

    scene: int
    name: str
    shape: BaseGeometry
    split: SceneSplit


@dataclass(frozen=True)
class Listed:
    """The splits that lists name.

    Attributes:
        whole: Split of each scene that is named as a whole, by its number.
        members: Places of scenes that are named by files, for each scene on which they lie.
        by_members: Numbers of the scenes of which places are named, also where these lie on other parts alone.
    """

    whole: dict[int, SceneSplit]
    members: tuple[ListedMember, ...] = ()
    by_members: frozenset[int] = frozenset()


@dataclass
class _Unit:
    """What one entry of a list can name: scenes as a whole, or one place of them."""

    name: str
    files: tuple[str, ...]
    targets: list[tuple[int, BaseGeometry | None]]
    place_of: str | None = None  # name of the scene that it is a place of


def members_of(layers: Sequence[Sequence[tuple[str, BaseGeometry]]]) -> tuple[Member, ...]:
    """Join the files of several layers that lie at the same place.

    Args:
        layers: File and footprint of each part of a layer, in one CRS; a layer of one file has none.

    Returns:
        The places, those of the first layer first.
    """
    found: list[Member] = []
    for layer in layers:
        tree, added = shapely.STRtree(np.array([member.shape for member in found], object)), []
        for file, shape in layer:
            near = [int(n) for n in tree.query(shape, predicate="intersects")]
            shares = {n: _share(shape, found[n].shape) for n in near}
            best = max(shares, key=lambda n: shares[n], default=None)
            if best is None or shares[best] <= _SAME_PLACE:
                added.append(Member((file,), shape))
            else:
                found[best] = Member((*found[best].files, file), found[best].shape)
        found += added
    return tuple(found)


def _share(one: BaseGeometry, other: BaseGeometry) -> float:
    """Common share of two footprints in the larger one, 0 to 1."""
    return float(one.intersection(other).area / max(one.area, other.area))


def listed_splits(lists: Mapping[SceneSplit, Path], scenes: Sequence[ListedScene], column: str | None = None) -> Listed:
    """Read which scenes, and which files of scenes that are joined from several, belong to each split.

    Args:
        lists: File of each split, see `read_lists`.
        scenes: The scenes.
        column: Column of the names, for CSV files.

    Returns:
        The splits.

    Raises:
        ConfigError: If a list cannot be read, names nothing or something unknown, or a scene or place is in two lists.
        AccessError: If the operating system denies access to a file.
    """
    if not lists:
        return Listed({})
    units = _units(scenes)
    found = read_lists(lists, [(unit.name, unit.files) for unit in units], column)
    whole: dict[int, SceneSplit] = {}
    members: list[ListedMember] = []
    named: set[str] = set()
    for number, split in found.items():
        unit = units[number]
        if unit.place_of is not None:
            named.add(unit.place_of)
        for scene, shape in unit.targets:
            if shape is not None:
                members.append(ListedMember(scene, unit.name, shape, split))
            elif whole.setdefault(scene, split) != split:
                raise _in_two(scenes[scene].name, whole[scene], split)
    for member in members:
        if whole.get(member.scene, member.split) != member.split:
            raise _in_two(member.name, whole[member.scene], member.split)
    kept = tuple(member for member in members if member.scene not in whole)
    _require_apart(kept, scenes)
    of_named = (n for n, scene in enumerate(scenes) if scene.members and scene.whole_name in named and n not in whole)
    return Listed(whole, kept, frozenset(of_named))


def _units(scenes: Sequence[ListedScene]) -> list[_Unit]:
    """Everything that an entry can name."""
    wholes: dict[str, _Unit] = {}
    places: dict[tuple[str, tuple[str, ...]], _Unit] = {}
    own: list[_Unit] = []
    trees: dict[int, shapely.STRtree] = {}  # parts share the places of their scene
    for number, scene in enumerate(scenes):
        name = scene.whole_name
        if name not in wholes:
            joined = {file for member in scene.members for file in member.files}
            wholes[name] = _Unit(name, tuple(file for file in scene.files if file not in joined), [])
        wholes[name].targets.append((number, None))
        if scene.part_of:
            own.append(_Unit(scene.name, (), [(number, None)]))
        if id(scene.members) not in trees:
            trees[id(scene.members)] = shapely.STRtree(np.array([member.shape for member in scene.members], object))
            for member in scene.members:
                places.setdefault((name, member.files), _Unit(member.files[0], member.files, [], name))
        for place in scene.held(trees[id(scene.members)]):
            member = scene.members[place]
            places[name, member.files].targets.append((number, member.shape))
    short = Counter(PurePosixPath(unit.name).name for unit in places.values())
    taken = {*wholes, *(unit.name for unit in own)}
    for unit in places.values():
        name = PurePosixPath(unit.name).name
        unit.name = name if short[name] == 1 and name not in taken else unit.name
    return [*places.values(), *wholes.values(), *own]


def _require_apart(members: Sequence[ListedMember], scenes: Sequence[ListedScene]) -> None:
    """Refuse two files of one place in two lists."""
    once = {(scenes[m.scene].whole_name, id(m.shape)): m for m in members}  # a file may lie on several parts
    names, places = [name for name, _ in once], list(once.values())
    shapes = np.array([member.shape for member in places], object)
    pairs = shapely.STRtree(shapes).query(shapes, predicate="intersects").T
    for first, second in pairs.tolist():
        one, other = places[first], places[second]
        if first < second and names[first] == names[second] and one.split != other.split:
            least = min(one.shape.area, other.shape.area)
            if one.shape.intersection(other.shape).area > _SAME_PLACE * least:
                raise _in_two(f"{other.name}, at the place of {one.name},", one.split, other.split)


def _in_two(name: str, one: str, other: str) -> ConfigError:
    return ConfigError(
        f"data.splits.lists: {name} is in the list of {one} and in that of {other}. What is learned from must not be "
        "reported on: name each place in one list."
    )


def member_areas(members: Sequence[ListedMember], within: BaseGeometry) -> dict[SceneSplit, BaseGeometry]:
    """Join the places of a scene to one geometry for each split.

    Where neighbouring files overlap, ``test`` keeps the pixels, then ``val``.

    Args:
        members: Places of one scene.
        within: What is used of the scene, in the same CRS.

    Returns:
        Geometry of each split, without those that hold nothing.
    """
    shapes: dict[SceneSplit, BaseGeometry] = {
        split: shapely.unary_union([m.shape for m in members if m.split == split]).intersection(within)
        for split in _FIRST
    }
    for first, second in combinations(_FIRST, 2):
        shapes[second] = shapes[second].difference(shapes[first])
    return {split: shape for split, shape in shapes.items() if shape.area > 0}
