"""Scenes of several files: parts of one raster, joined by place, or tiles of their own, joined by name."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from geocrodino.errors import ConfigError, RasterError
from geocrodino.files.tile_names import Partial, Tile, guess_patterns, has_parts, match_tiles
from geocrodino.files.vector_names import is_vector
from geocrodino.geo.rasters.headers import header, headers_kept, read_ahead
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.place import Place, pictures, stated_place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.scene_files import find_files, given_names, phrase
from geocrodino.settings.scenes import RasterName, SceneConfig

_OTHER = "rasters."
"""What precedes the name of a modality that has no key of its own."""


def tile_scenes(
    scene: SceneConfig, partial: Partial = "refuse", tell: Callable[[str], None] = lambda _: None
) -> tuple[SceneConfig, ...]:
    """Divide a scene whose files are tiles without a common raster into a scene for each tile.

    Names with parts in braces are joined by these. Other names that lead to several files stay one scene if the files
    of each role join to one raster; if those of a role do not, patterns are guessed from the names of all.

    Args:
        scene: The scene, its defaults filled in.
        partial: What happens to tiles that lack a file, see `match_tiles`. One that keeps no raster is left out.
        tell: Called with the patterns, where they are guessed.

    Returns:
        The scene as it is, or one for each tile, called after it; files that all tiles share are named in each.

    Raises:
        ConfigError: If tiles do not fit together, see `match_tiles`, or a folder holds two kinds of tiles.
        RasterError: If the files of a role are no raster together, and names do not join them either.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    names = _names_by_role(scene)
    patterns = {role: str(name) for role, name in names.items() if isinstance(name, Path) and has_parts(name)}
    if patterns:
        return _scenes(scene, match_tiles(patterns, partial), patterns)
    place = stated_place(scene.crs, scene.pixel_m)
    with headers_kept():
        files = {role: found for role, name in names.items() if len(found := _files(name, place)) > 1}
        read_ahead(itertools.chain.from_iterable(files.values()), place)
        problem = _not_one_raster({role: names[role] for role in files}, place)
        if problem is None:
            return (scene,)
        for role, found in files.items():
            _refuse_two_kinds(role, names[role], found, place)
    guessed = guess_patterns(files)
    if guessed is None:
        raise problem
    tiles = _scenes(scene, match_tiles(guessed, partial, among=files), guessed)
    shown = "".join(f"\n  {role}: {pattern}" for role, pattern in guessed.items())
    tell(f"Tiles without a common raster, joined by name to {len(tiles)} scenes:{shown}\nOther patterns can be named.")
    return tiles


def read_headers(scenes: Iterable[SceneConfig]) -> None:
    """Read the headers of the files of many scenes at once, inside a block of `headers_kept`.

    Args:
        scenes: The scenes.

    Raises:
        RasterError: If a name leads to no file.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    names: dict[Place | None, dict[RasterName, None]] = {}
    for scene in scenes:
        there = names.setdefault(stated_place(scene.crs, scene.pixel_m), {})
        there.update(dict.fromkeys(_names_by_role(scene).values()))
    for place, named in names.items():
        read_ahead(itertools.chain.from_iterable(_files(name, place) for name in named), place)


def _names_by_role(scene: SceneConfig) -> dict[str, RasterName]:
    """What a scene names, by the key under ``data`` that names it."""
    own = {"optical": scene.optical, "elevation": scene.elevation}
    others = {f"{_OTHER}{m}": name for m, name in scene.rasters.items()}
    found = {**own, **others, "ground": scene.ground, "labels": scene.labels}
    return {role: name for role, name in found.items() if name is not None}


def _files(name: RasterName, place: Place | None) -> list[str]:
    """The raster files of a name; of STAC items none, because their assets are no tiles by name."""
    if is_vector(name):
        return []
    found = find_files(given_names(name), None, pictures(place))
    return [] if found.has_items else found.files


def _not_one_raster(names: Mapping[str, RasterName], place: Place | None) -> RasterError | None:
    """The error of the first role whose files do not join, None if all do."""
    for role, name in names.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # told when the raster is opened to be read
                joined = open_scene(name, place=place)
        except RasterError as error:
            return error
        if isinstance(joined, MosaicSource):
            _refuse_one_place(role, joined)
    return None


def _refuse_one_place(role: str, mosaic: MosaicSource) -> None:
    """Refuse two files of the same pixels: one of them would never be read."""
    _, first, counts = np.unique(mosaic.boxes, axis=1, return_index=True, return_counts=True)
    if (counts == 1).all():
        return
    box = mosaic.boxes[:, int(first[counts > 1].min())]
    one, other = np.flatnonzero((mosaic.boxes == box[:, None]).all(axis=0))[:2]
    height, width = box[1] - box[0], box[3] - box[2]
    raise ConfigError(
        f"data.{role}: {mosaic.files[one]} and {mosaic.files[other]} cover the same {height} x {width} px.\n"
        "Name one file for each place with a pattern or a list, or make tiles of their own of them by named parts: "
        "{tile}.tif."
    )


def _refuse_two_kinds(role: str, name: RasterName, files: Iterable[str], place: Place | None) -> None:
    """Refuse files that differ in their bands or types; those that cannot be opened are judged later."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        try:
            kinds.setdefault(_kind(header(file, place)), []).append(file)
        except RasterError:
            continue
    if len(kinds) < 2:
        return
    shown = "; ".join(f"{phrase(_file_names(each), 'file')[0]} of {kind}" for kind, each in kinds.items())
    several = [each for each in kinds.values() if len(each) > 1]
    pattern = _shared_end(several[0]) if several else None
    others = [file for each in kinds.values() for file in each if not several or file not in several[0]]
    if pattern is not None and any(fnmatch(file, pattern) for file in others):
        pattern = None
    where = name if isinstance(name, Path) else Path(next(iter(kinds.values()))[0]).parent
    raise ConfigError(
        f"data.{role}: {where}: expected tiles of one kind, found {len(kinds)}: {shown}.\n"
        + (
            f"Name those of one kind with a pattern, for instance {pattern}."
            if pattern
            else f"Move the others elsewhere, or name those of one kind in a list: {role}: [FILE, FILE]. If all are "
            "right, make each tile a scene of its own, by patterns with a part in braces for all layers: "
            f"{role}: {where.name}/{{tile}}.tif."
        )
    )


def _kind(raster: RasterSource) -> str:
    count, dtype = len(raster.data_bands), raster.dtype
    coding = dtype if dtype.startswith(("uint", "int")) else "real numbers"
    return f"{count} band{'' if count == 1 else 's'} {coding}"


def _file_names(files: Iterable[str]) -> list[str]:
    return [Path(file).name for file in files]


def _shared_end(files: list[str]) -> str | None:
    """A pattern of the files of one kind: what follows the parts in which their names differ."""
    guessed = guess_patterns({"": files})
    return None if guessed is None else guessed[""].replace("{folder}", "*").replace("{tile}", "*")


def _scenes(scene: SceneConfig, tiles: Iterable[Tile], roles: Iterable[str]) -> tuple[SceneConfig, ...]:
    found = [_scene_of(scene, tile, roles) for tile in tiles]
    return tuple(each for each in found if each.raster_paths)


def _scene_of(scene: SceneConfig, tile: Tile, roles: Iterable[str]) -> SceneConfig:
    """The scene of a tile, without the roles of which it has no file."""
    own = {role: Path(tile.files[role]) if role in tile.files else None for role in roles}
    others = {role.removeprefix(_OTHER): file for role, file in own.items() if role.startswith(_OTHER)}
    rasters = {m: file for m, file in {**scene.rasters, **others}.items() if file is not None}
    values = {role: file for role, file in own.items() if not role.startswith(_OTHER)}
    name = f"{scene.name}-{tile.name}" if scene.name else tile.name
    return scene.model_copy(update={**values, "rasters": rasters, "name": name})
