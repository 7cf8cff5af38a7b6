"""The splits of scenes: as they, lists or their areas name them, otherwise drawn as whole scenes or spatial blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.data.balance import ranked_draws, splits_of_fold
from geocrodino.data.block_splits import DRAWN, SHARES, block_splits
from geocrodino.data.footprints import planes_of
from geocrodino.data.held_labels import HeldLabels, part_of, unpacked
from geocrodino.data.listed import ListedMember, ListedScene, Member, listed_splits, member_areas
from geocrodino.errors import AOIError, ConfigError
from geocrodino.geo.areas.aoi import AOI, from_polygons
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.areas.splits import SPLITS, Split
from geocrodino.geo.rasters.grid import crs_of, window_grid
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import listed
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality
from geocrodino.settings.splits import SceneSplit, SplitSettings

__all__ = ["DecidedSplits", "SceneView", "block_splits", "require_splits", "split_scenes"]

_FEWEST_DRAWN = 6
"""Scenes without a split from which whole scenes are drawn, where nothing says how they are divided."""


@dataclass(frozen=True)
class SceneView:
    """What is known of a scene when its splits are decided.

    Attributes:
        name: Name of the scene; empty in a training on one scene.
        files: Names of its files.
        grid: Its grid, H x W px.
        area: Its area of interest in the CRS of the grid; None: the whole scene.
        split: The split of the whole scene, where it is named.
        labels: Class indices, uint8, shape (H, W), 255 without a label.
        members: The files that the scene is joined from, where there are several: lists can name each of them.
        part_of: Name of the scene that this is a part of; empty for a whole scene.
        modalities: The modalities that it has.
        extent: The ground of a whole scene whose grid is larger, in the CRS of the grid; None: that of the grid.
    """

    name: str
    files: tuple[str, ...]
    grid: GeoBox
    area: AOI | None
    split: SceneSplit | None
    labels: HeldLabels
    members: tuple[Member, ...] = ()
    part_of: str = ""
    modalities: tuple[Modality, ...] = ()
    extent: BaseGeometry | None = None

    def whole(self) -> BaseGeometry:
        """Join the ground of the scene to one geometry.

        Returns:
            All polygons of the area, or the extent, or the box of the grid; in the CRS of the grid.
        """
        if self.area is not None:
            return self.area.polygons()
        return shapely.box(*self.grid.boundingbox) if self.extent is None else self.extent

    @property
    def names_splits(self) -> bool:
        """Whether the polygons of the area name their splits."""
        return self.area is not None and bool(self.area.splits)


@dataclass(frozen=True)
class DecidedSplits:
    """The splits of all scenes.

    Attributes:
        areas: Area of each scene with a column ``split``, in the CRS of its grid; without rows where a scene is not
            used.
        drawn: Names of what was drawn: ``blocks``, ``scenes``, both or nothing.
        notes: Sentences on what was decided without being asked for.
    """

    areas: tuple[AOI, ...]
    drawn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def split_scenes(
    views: Sequence[SceneView],
    settings: SplitSettings | None,
    num_classes: int,
    *,
    patch_px: int,
    seed: int,
    parts_of_one: bool = False,
) -> DecidedSplits:
    """Decide the splits of scenes.

    The first of these decides for a scene: the split that it names, a list, the column ``split`` of its area,
    ``settings.by``. Where none does, a single scene is cut into blocks, see `block_splits`, and six or more scenes, or
    parts of one, are drawn whole. Fewer parts of one scene are cut into blocks; a part that is too small for that is
    ``train``. A scene that is in no list, where there are lists and nothing else decides, is not used.

    Args:
        views: The scenes.
        settings: How scenes are divided that do not name their splits.
        num_classes: Number of classes.
        patch_px: Side of a patch, px.
        seed: Seed of the random numbers.
        parts_of_one: Whether the scenes are parts of a single one.

    Returns:
        The areas with their splits.

    Raises:
        AOIError: If the area is too small for three splits, or ``train`` or ``val`` is missing.
        ConfigError: If scenes do not say what their splits are, or the settings do not fit them.
    """
    rules = settings or SplitSettings()
    _check_folds(views, rules)
    named = _named(views, rules)
    notes, members = _val_from_train(views, named.in_lists, named.members, named.whole, rules, num_classes, seed)
    named = replace(named, members=members)
    left = [n for n, view in enumerate(views) if not (n in named.whole or n in named.in_members or view.names_splits)]
    by = _way(views, left, rules, parts_of_one=parts_of_one)
    drawn = [by] if by is not None and left else []
    if notes:
        drawn.append("scenes")
    if by == "scenes":
        of_areas = {s for view in views if view.area is not None for s in view.area.splits}
        elsewhere = {*named.whole.values(), *(m.split for m in members), *of_areas}
        more = _drawn_scenes([(n, views[n]) for n in left], elsewhere, rules, num_classes, seed)
        named = replace(named, whole={**named.whole, **more})
    cut = partial(
        _in_blocks, rules=rules, num_classes=num_classes, patch_px=patch_px, seed=seed, of_several=not parts_of_one
    )
    may_be_small = parts_of_one and len(left) > 1 and rules.by is None
    areas, small = _areas(views, named, cut if by == "blocks" else None, may_be_small=may_be_small)
    if small:
        notes = (*notes, _note_on_small([views[n].name for n in small], len(left)))
    require_splits(*areas)
    return DecidedSplits(tuple(areas), tuple(dict.fromkeys(drawn)), notes)


@dataclass(frozen=True)
class _Named:
    """What scenes and lists say of splits. Scenes are known by their numbers.

    Attributes:
        whole: Split of each scene that is of one split.
        in_lists: Split of each scene that a list names.
        members: The files of scenes that lists name.
        in_members: The scenes of which lists name files; only these files are used of them.
    """

    whole: dict[int, SceneSplit]
    in_lists: Mapping[int, SceneSplit]
    members: Sequence[ListedMember]
    in_members: Collection[int]


def _named(views: Sequence[SceneView], rules: SplitSettings) -> _Named:
    """What scenes and lists say of splits, before anything is drawn."""
    whole = {number: view.split for number, view in enumerate(views) if view.split is not None}
    listed_views = [
        ListedScene(view.name, view.files, view.members, view.part_of, shapely.box(*view.grid.boundingbox))
        for view in views
    ]
    found = listed_splits(rules.lists, listed_views, rules.column)
    members = [m for m in found.members if whole.get(m.scene) in (None, "unlabelled")]
    # A part is not used if lists name places beyond it alone.
    in_members = {number for number in found.by_members if whole.get(number) in (None, "unlabelled")}
    # Images to test on often come without labels: they must not be learnt from.
    tested = {n: split for n, split in found.whole.items() if split == "test" and whole.get(n) == "unlabelled"}
    return _Named({**found.whole, **whole, **tested}, found.whole, members, in_members)


def _areas(
    views: Sequence[SceneView], named: _Named, cut: Callable[[SceneView], AOI] | None, *, may_be_small: bool
) -> tuple[list[AOI], list[int]]:
    """The area of each scene with its splits, and which scenes are ``train`` because they are too small to be cut.

    Args:
        views: The scenes.
        named: The splits that are named or drawn.
        cut: Cuts a scene into blocks; None: a scene without a split is not used.
        may_be_small: Whether a scene may be too small for blocks.

    Returns:
        The areas, and the numbers of the scenes that are too small.

    Raises:
        AOIError: If a scene is too small and must not be.
    """
    areas, small = [], []
    for number, view in enumerate(views):
        if number in named.in_members:
            own = [member for member in named.members if member.scene == number]
            areas.append(_in_listed_places(view, own, named.whole.get(number)))
        elif number in named.whole:
            areas.append(_in_one_split(view, named.whole[number]))
        elif view.area is not None and view.names_splits:
            areas.append(view.area)
        elif cut is None:
            areas.append(_in_one_split(view, None))
        else:
            try:
                areas.append(cut(view))
            except AOIError:
                if not may_be_small:
                    raise
                small.append(number)
                areas.append(_in_one_split(view, "train"))
    return areas, small


def _note_on_small(small: Sequence[str], left: int) -> str:
    """The note on parts that are too small for blocks; an error if all parts are."""
    if len(small) == left:
        raise ConfigError(
            f"data.splits: none of {left} parts of the scene has room for three splits. Expected polygons with a "
            "column split under the key aoi, or smaller patches (`patch_px`)."
        )
    return f"Too small for three splits, so the whole part is train: {listed(small)}"


def _check_folds(views: Sequence[SceneView], rules: SplitSettings) -> None:
    if rules.folds is None:
        return
    if rules.fold is None:
        raise ConfigError(
            f"data.splits.fold: expected the number of the fold that is held out, 0 to {rules.folds - 1}, found none. "
            "Give it, or train all folds with the function geocrodino.training.folds.train_folds."
        )
    for view in views:
        if view.split in ("train", "val", "test") or view.names_splits:
            source = f"scene {view.name}" if view.area is None else view.area.source
            raise ConfigError(
                f"{source}: names splits, so it cannot be divided into folds. Leave out the key split of the "
                "scene, or the column split of its area, or the key folds under data.splits."
            )


def _way(views: Sequence[SceneView], left: Sequence[int], rules: SplitSettings, *, parts_of_one: bool) -> str | None:
    """How the scenes that are left are divided; None if they are not used, or none is left."""
    if not left:
        return None
    if rules.by == "scenes" and len(views) == 1:
        raise ConfigError("data.splits.by: scenes: expected several scenes, found one. Use blocks.")
    if rules.by is not None:
        return rules.by
    if rules.lists:
        return None
    if len(views) == 1:
        return "blocks"
    if len(left) >= _FEWEST_DRAWN or rules.folds is not None:
        return "scenes"
    if parts_of_one:
        return "blocks"
    raise ConfigError(
        f"data.scenes: scene {views[left[0]].name} has no split. Expected the key split (train, val, test or "
        "unlabelled), polygons with a column split under the key aoi, or rules for all scenes under data.splits."
    )


def _in_one_split(view: SceneView, split: SceneSplit | None) -> AOI:
    source = (f"scene {view.name}" if view.name else "the scene") if view.area is None else view.area.source
    polygons: dict[Split, BaseGeometry] = {} if split is None else {split: view.whole()}
    return from_polygons(polygons, crs_of(view.grid).wkt, source)


def _in_listed_places(view: SceneView, members: Sequence[ListedMember], split: SceneSplit | None) -> AOI:
    """The places that lists name. Of a scene without labels, those for ``test`` are left out, and others unlabelled."""
    found = member_areas(members, view.whole())
    if split is not None:
        found = {split: view.whole().difference(found.get("test", shapely.Polygon()))}
    polygons: dict[Split, BaseGeometry] = {**found}
    return from_polygons(polygons, crs_of(view.grid).wkt, f"scene {view.name}" if view.name else "data.splits.lists")


def _in_blocks(
    view: SceneView, rules: SplitSettings, num_classes: int, patch_px: int, seed: int, *, of_several: bool
) -> AOI:
    try:
        return block_splits(
            view.whole(), view.grid, unpacked(view.labels), num_classes, patch_px=patch_px, seed=seed, rules=rules
        )
    except AOIError as error:
        if not view.name:
            raise
        whole = "\nOr give the whole scene one split, with the key split of the scene." if of_several else ""
        raise AOIError(f"Scene {view.name}: {error}{whole}") from None


def _val_from_train(
    views: Sequence[SceneView],
    in_lists: Mapping[int, SceneSplit],
    members: Sequence[ListedMember],
    whole: dict[int, SceneSplit],
    rules: SplitSettings,
    num_classes: int,
    seed: int,
) -> tuple[tuple[str, ...], list[ListedMember]]:
    """Move listed scenes and places from ``train`` to ``val`` where nothing names ``val``; the note that says so."""
    has_val = (
        "val" in whole.values()
        or any(member.split == "val" for member in members)
        or any(view.area is not None and "val" in view.area.splits for view in views)
    )
    listed_train = [n for n, split in sorted(in_lists.items()) if split == "train" and whole[n] == "train"]
    places = [m for m in members if m.split == "train" and m.scene not in whole]
    by_name: dict[str, list[ListedMember]] = {}  # a file may lie on several parts of its scene
    for member in places:
        by_name.setdefault(member.name, []).append(member)
    if has_val or rules.by is not None or len(listed_train) + len(by_name) < 2:
        return (), list(members)
    train, val, _ = rules.shares or SHARES
    drawn_from = [[views[n]] for n in listed_train]
    drawn_from += [[_place_view(views[m.scene], m) for m in each] for each in by_name.values()]
    amounts = [_amounts(each, num_classes) for each in drawn_from]
    counts, area = np.stack([c.sum(axis=0) for c, _ in amounts]), np.array([a.sum() for _, a in amounts])
    shares = (train / (train + val), val / (train + val))
    draw = ranked_draws(counts, area, shares, np.random.default_rng(seed), even=True)[0]
    moved = [n for n, number in zip(listed_train, draw, strict=False) if number == 1]
    whole |= dict.fromkeys(moved, "val")
    moved_files = {name for name, number in zip(by_name, draw[len(listed_train) :], strict=True) if number == 1}
    names = [*(views[n].name for n in moved), *(name for name in by_name if name in moved_files)]
    what = "scenes" if not by_name else "scenes and files" if listed_train else "files"
    note = f"No list names val: {len(names)} of the {len(draw)} {what} of train are drawn as val ({listed(names)})"
    now_val = {id(member) for name in moved_files for member in by_name[name]}
    return (note,), [replace(m, split="val") if id(m) in now_val else m for m in members]


def _place_view(view: SceneView, member: ListedMember) -> SceneView:
    """The part of a scene that a file covers."""
    affine = ~view.grid.affine
    left, bottom, right, top = member.shape.bounds
    xs, ys = zip(
        *(affine * corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))), strict=True
    )
    box = Window(math.floor(min(ys)), math.ceil(max(ys)), math.floor(min(xs)), math.ceil(max(xs)))
    window = box.intersect(Window.of(view.grid.shape))
    return replace(view, grid=window_grid(view.grid, window), labels=part_of(view.labels, window))


def _drawn_scenes(
    left: Sequence[tuple[int, SceneView]],
    elsewhere: Iterable[str],
    rules: SplitSettings,
    num_classes: int,
    seed: int,
) -> dict[int, SceneSplit]:
    """Draw a split for each scene. Scenes that overlap get the same one."""
    groups = _groups([view for _, view in left])
    counts, area = _amounts([view for _, view in left], num_classes)
    counts = np.stack([counts[group].sum(axis=0) for group in groups])
    area = np.array([area[group].sum() for group in groups])
    rng = np.random.default_rng(seed)
    if rules.folds is not None:
        _require_groups(len(groups), len(left), max(rules.folds, 3), f"{rules.folds} folds")
        folds = ranked_draws(counts, area, [1 / rules.folds] * rules.folds, rng, even=True)[0]
        numbers, names = splits_of_fold(folds, rules.folds, rules.fold or 0, counts, area, seed), list(DRAWN)
    else:
        wanted = {split: s for split, s in zip(DRAWN, rules.shares or SHARES, strict=True) if s > 0}
        wanted = {split: s for split, s in wanted.items() if split == "train" or split not in elsewhere}
        names, total = list(wanted), sum(wanted.values())
        _require_groups(len(groups), len(left), len(wanted), " and ".join(names) if len(names) < 3 else "three splits")
        numbers = ranked_draws(counts, area, [s / total for s in wanted.values()], rng, even=True)[0]
    found: dict[int, SceneSplit] = {}
    for group, number in zip(groups, numbers, strict=True):
        found |= {left[member][0]: names[number] for member in group}
    return found


def _require_groups(groups: int, scenes: int, needed: int, what: str) -> None:
    if groups < needed:
        alone = "" if groups == scenes else f" ({scenes} scenes, of which some overlap and go together)"
        raise ConfigError(
            f"data.splits: expected at least {needed} scenes that do not overlap for {what}, found {groups}{alone}. "
            "Name the split of each scene under the key split, or use by: blocks."
        )


def _amounts(views: Sequence[SceneView], num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labelled pixels of each class (N, K), and pixels (N,), of scenes.

    Where scenes differ in their modalities, each class counts once for each modality, so that every split gets its
    share of each.
    """
    counts, area = np.zeros((len(views), num_classes), np.int64), np.zeros(len(views))
    for row, view in enumerate(views):
        labels = unpacked(view.labels)
        area[row] = labels.size
        if view.area is not None:
            within = AreaMask.on(view.area.polygons(), view.grid).read(Window.of(view.grid.shape))
            labels, area[row] = labels[within], max(1, int(within.sum()))
        counts[row] = np.bincount(labels[labels != IGNORE_INDEX], minlength=num_classes)
    if len({view.modalities for view in views}) > 1:
        there = dict.fromkeys(m for view in views for m in view.modalities)
        has = np.array([[m in view.modalities for m in there] for view in views])
        counts = (has[:, :, None] * counts[:, None]).reshape(len(views), -1)
    return counts, area


def _groups(views: Sequence[SceneView]) -> list[list[int]]:
    """Numbers of the scenes that overlap, together; in the order of the first of each."""
    lead = list(range(len(views)))

    def first_of(number: int) -> int:
        while lead[number] != number:
            number = lead[number]
        return number

    shapes = [(number, "", view.whole()) for number, view in enumerate(views)]
    for plane in planes_of([view.grid for view in views], shapes):
        for one, other, _ in plane.overlaps():
            a, b = sorted((first_of(one.scene), first_of(other.scene)))
            lead[b] = a
    groups: dict[int, list[int]] = {}
    for number in range(len(views)):
        groups.setdefault(first_of(number), []).append(number)
    return list(groups.values())


def require_splits(*areas: AOI) -> None:
    """Check that areas with splits have those that a training needs.

    Args:
        *areas: The areas of interest of all scenes; without any split they pass.

    Raises:
        AOIError: If ``train`` or ``val`` is missing in all of them.
    """
    there = tuple(split for split in SPLITS if any(split in aoi.splits for aoi in areas))
    missing = {"train", "val"} - set(there)
    if there and missing:
        source, what, way = areas[0].source, "polygon", ""
        if len(areas) > 1:
            source, what = f"The {len(areas)} scenes", "scene"
            way = "\nName it for some, with the key split of a scene, in a list file, or in the column split of areas."
        raise AOIError(
            f"{source}: no {what} of the split {' or '.join(sorted(missing))}. Expected train and val (and test, "
            f"to report on), found {', '.join(there)}.{way}"
        )
