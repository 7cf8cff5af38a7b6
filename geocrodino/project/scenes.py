"""Scenes of a project: layers that show the same place, or tiles that are joined by their names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import shapely

from geocrodino.errors import ConfigError
from geocrodino.files.tile_names import guess_patterns, match_tiles
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.place import Place
from geocrodino.phrases import listed
from geocrodino.project.heights import is_surface_of
from geocrodino.project.layers import (
    Layer,
    Role,
    alone,
    bands_and_type,
    box_of,
    by_role,
    covers,
    share_place,
    shows_same,
)

_OPTIONS: Mapping[Role, str] = {
    "optical": "the image",
    "elevation": "the heights",
    "ground": "the terrain model",
    "labels": "the labels",
    "aoi": "the area of interest",
}
_LAST_PART = re.compile(r"(?<=.)[ _.-][A-Za-z]+$")
_NUMBER = re.compile(r"\d+")
_LARGER = 2.0  # times the largest tile: a larger file is a layer of its own
_MOST_ODD = 5
_MOST_LISTED = 50
"""Tiles that are listed one by one as scenes, where their names do not join them."""


@dataclass(frozen=True)
class SceneGuess:
    """A scene, or tiles that are scenes of their own.

    Attributes:
        name: Its name; empty where there is one.
        layers: The layer of each role that it has.
        patterns: Patterns with named parts of the roles whose files are joined by name.
        tiles: Number of tiles of the patterns, 1 without.
        incomplete: Number of tiles that lack a file.
    """

    name: str
    layers: Mapping[Role, Layer]
    patterns: Mapping[Role, str] = field(default_factory=dict)
    tiles: int = 1
    incomplete: int = 0


@dataclass
class Arranged:
    """The scenes, and why layers are in none.

    Attributes:
        scenes: The scenes.
        left_out: The reason for each layer, by what messages call it.
    """

    scenes: list[SceneGuess] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def arrange(layers: Sequence[Layer], place: Place | None) -> Arranged:
    """Put layers together to scenes. Call it inside `headers_kept`.

    Args:
        layers: The layers, at least one image and one of heights.
        place: CRS and pixel size of files that state none.

    Returns:
        The scenes.

    Raises:
        ConfigError: If two layers may be the same layer of a scene, or no image has heights.
    """
    tiles = _by_name(layers)
    if tiles is not None:
        return Arranged([tiles])
    single = [
        each
        for layer in layers
        for each in (alone(layer, place) if layer.first is not None and layer.raster is None else [layer])
    ]
    roles = by_role(single)
    images = roles.get("optical", [])
    if len(images) > _MOST_LISTED:
        raise ConfigError(
            f"{images[0].files[0]} and {len(images) - 1} more images form no common raster, and their names do not "
            "join them to heights and labels.\nGive patterns with named parts, such as `optical='ortho/{tile}.tif'`, "
            "in geocrodino.yaml: see docs/files.md."
        )
    found = Arranged()
    picked: list[tuple[Layer, dict[Role, Layer]]] = []
    alone_labelled: list[tuple[Layer, dict[Role, Layer]]] = []
    for image in images:
        own: dict[Role, Layer] = {"optical": image}
        own |= _heights_of(image, roles)
        for role in ("labels", "aoi"):
            if layer := _picked(role, image, roles.get(role, [])):
                own[role] = layer
        if "elevation" in own:
            picked.append((image, own))
        elif "labels" in own:
            alone_labelled.append((image, own))
        else:
            found.left_out[image.shown] = "neither heights nor labels show this place"
    if not picked:
        heights = listed(layer.shown for layer in (*roles.get("elevation", ()), *roles.get("ground", ())))
        raise ConfigError(
            f"{images[0].shown}: no heights show the place of this image; found {heights}.\n"
            "Name those that do with `elevation`."
        )
    # Other scenes have heights: these train the image alone. Their order is that of the images.
    picked = [each for image in images for each in (*picked, *alone_labelled) if each[0] is image]
    _refuse_images_of_one_place(picked)
    names = _names([image for image, _ in picked])
    found.scenes = [SceneGuess(name, own) for name, (_, own) in zip(names, picked, strict=True)]
    used = {layer.files for _, own in picked for layer in own.values()}
    for layer in single:
        if layer.files not in used and layer.shown not in found.left_out:
            found.left_out[layer.shown] = f"{layer.role}: of no place that an image and heights show"
    return found


# --- tiles by name --------------------------------------------------------------------------------------------------


def _by_name(layers: Sequence[Layer]) -> SceneGuess | None:
    """Tiles without a common raster, whose names say which belong together; None if there are none."""
    roles = by_role(layers)
    loose = [layer for layer in layers if layer.first is not None and layer.raster is None]
    if not loose or any(len(same) > 1 for role, same in roles.items() if role != "aoi"):
        return None
    own = {role: same[0] for role, same in roles.items() if len(same) == 1}
    if "elevation" not in own and "ground" in own:
        own = _terrain_alone(own)
    files: dict[str, list[str]] = {
        role: list(layer.files) for role, layer in own.items() if layer.first is not None and len(layer.files) > 1
    }
    if "optical" not in files or "elevation" not in own:
        return None
    shared = [layer for role, layer in own.items() if role not in files and layer.first is not None]
    if not all(covers(layer, own["optical"]) for layer in shared):
        return None
    patterns = guess_patterns(files)
    if patterns is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiles = match_tiles(patterns, "keep", among=files)
    lacking = sum(len(tile.files) < len(files) for tile in tiles)
    if lacking == len(tiles):
        return None
    return SceneGuess("", own, {role: patterns[role] for role in own if role in patterns}, len(tiles), lacking)


def _terrain_alone(own: Mapping[Role, Layer]) -> dict[Role, Layer]:
    terrain = replace(own["ground"], why=f"{own['ground'].why}; a terrain model, because there is no surface")
    return {**{role: layer for role, layer in own.items() if role != "ground"}, "elevation": terrain}


# --- layers of one place --------------------------------------------------------------------------------------------


def _heights_of(image: Layer, roles: Mapping[Role, Sequence[Layer]]) -> dict[Role, Layer]:
    """The surface and the ground of an image."""
    surfaces = _nearest(image, roles.get("elevation", ()))
    grounds = _nearest(image, roles.get("ground", ()))
    if len(surfaces) == 2 and not grounds:
        for surface, ground in (surfaces, surfaces[::-1]):
            if why := is_surface_of(surface, ground):
                lower = replace(ground, role="ground", why=f"{ground.why}; the lower of two models")
                return {"elevation": replace(surface, why=f"{surface.why}; {why}"), "ground": lower}
    if not surfaces and len(grounds) == 1:
        return _terrain_alone({"ground": grounds[0]})
    found: dict[Role, Layer] = {}
    if (chosen := _one("elevation", image, surfaces)) is not None:
        found["elevation"] = chosen
    bands = 1 if not surfaces or surfaces[0].first is None else len(surfaces[0].first.data_bands)
    has_ground = bands > 1 or "elevation" not in found or found["elevation"].above
    ground_below = None if has_ground else _one("ground", image, grounds)
    if ground_below is not None:
        found["ground"] = ground_below
    return found


def _picked(role: Role, image: Layer, candidates: Sequence[Layer]) -> Layer | None:
    return _one(role, image, _nearest(image, candidates))


def _nearest(image: Layer, candidates: Sequence[Layer]) -> list[Layer]:
    """Candidates of the place of an image; of several those that show most of it, in the nearest folder."""
    there = [layer for layer in candidates if share_place(image, layer)]
    if len(there) > 1:
        there = [layer for layer in there if shows_same(image, layer)] or there
    if len(there) > 1:
        near = {layer.files: _common_parts(image.folder, layer.folder) for layer in there}
        there = [layer for layer in there if near[layer.files] == max(near.values())]
    return there


def _one(role: Role, image: Layer, candidates: Sequence[Layer]) -> Layer | None:
    """The only candidate; an error that asks which one is meant, where there are several."""
    if len(candidates) > 1:
        raise _question(role, f"{len(candidates)} files may be {_OPTIONS[role]} of {image.shown}", candidates)
    return candidates[0] if candidates else None


def _common_parts(first: Path, second: Path) -> int:
    count = 0
    for one, other in zip(first.parts, second.parts, strict=False):
        if one != other:
            break
        count += 1
    return count


def _refuse_images_of_one_place(picked: Sequence[tuple[Layer, Mapping[Role, Layer]]]) -> None:
    """Ask which image is meant where two of them have the same heights and labels."""
    for number, (image, own) in enumerate(picked):
        for other, others in picked[number + 1 :]:
            shared = all(own.get(role) == others.get(role) for role in ("elevation", "labels"))
            if shared and (shows_same(image, other) or image.box is None or other.box is None):
                beside = [each for each, _ in picked if each.folder == image.folder]
                if image.folder == other.folder and (told := _odd_files("optical", beside)):
                    raise ConfigError(told)
                raise _question("optical", "2 files may be the image of one place", (image, other))


def _question(role: Role, what: str, candidates: Sequence[Layer]) -> ConfigError:
    """The error that asks which of several layers is meant, or names the files that make several layers of one."""
    if told := _odd_files(role, candidates):
        return ConfigError(told)
    shown = "\n".join(f"  {layer.shown}: {layer.why}" for layer in candidates)
    pattern = _pattern_of(candidates[0], candidates[1:])
    option = f"`{role}`" if pattern is None else f"`{role}={pattern!r}`"
    return ConfigError(f"{what}:\n{shown}\nName the right one: {option}.")


def _pattern_of(layer: Layer, others: Sequence[Layer]) -> str | None:
    """The file of a layer, or a pattern of its files alone; None if none is known."""
    if len(layer.files) == 1:
        return layer.files[0]
    pattern, *more = {str(Path(file).with_name(_NUMBER.sub("*", Path(file).name))) for file in layer.files}
    also = any(fnmatch(file, pattern) for other in others for file in other.files)
    return None if more or also else pattern


def _odd_files(role: Role, candidates: Sequence[Layer]) -> str:
    """Tell which files of a folder are no tiles beside the others; empty where these are several whole layers.

    One tile of another type, or a copy of one, makes two layers of a folder. To name one of them would leave out the
    other tiles.
    """
    if any(layer.first is None or layer.folder != candidates[0].folder for layer in candidates):
        return ""
    ordered = sorted(candidates, key=lambda layer: -len(layer.files))
    kind = _kind(ordered[0])
    tiles: list[Layer] = []
    odd: list[str] = []
    for layer in ordered:
        for tile in _tiles_of(layer):
            name, twin = Path(tile.files[0]).name, next((each for each in tiles if shows_same(each, tile)), None)
            if _kind(layer) != kind:
                odd.append(f"  {name}: {_kind(layer)}. Convert it to {kind}, or remove it.")
            elif twin is not None:
                odd.append(f"  {name}: shows the same place as {Path(twin.files[0]).name}. Remove one of the two.")
            else:
                tiles.append(tile)
                continue
            if _area(tile) > _LARGER * max(map(_area, tiles)):  # it shows what all the tiles show
                return ""
    if not odd or len(tiles) < 2 or len(odd) >= len(tiles):
        return ""
    more = [f"  and {len(odd) - _MOST_ODD} more"] if len(odd) > _MOST_ODD else []
    return "\n".join(
        [
            f"{candidates[0].folder}: expected files of one kind, each of another place, for {_OPTIONS[role]}. "
            f"Beside {len(tiles)} such files ({kind}) there are:",
            *odd[:_MOST_ODD],
            *more,
        ]
    )


def _tiles_of(layer: Layer) -> list[Layer]:
    """The files of a layer, each as a layer."""
    if not isinstance(layer.raster, MosaicSource):
        return [layer]
    found = []
    for number, file in enumerate(layer.raster.files):
        member = layer.raster.member(number)
        found.append(replace(layer, files=(file,), raster=member, first=member, box=box_of(member)))
    return found


def _kind(layer: Layer) -> str:
    return "" if layer.first is None else bands_and_type(layer.first)


def _area(layer: Layer) -> float:
    return 0.0 if layer.box is None else float(shapely.box(*layer.box).area)


def _names(images: Sequence[Layer]) -> list[str]:
    """A name for each scene: what differs in the paths of the images."""
    if len(images) == 1:
        return [""]
    stems = [Path(image.files[0]).stem for image in images]
    if len(set(stems)) == len(stems) and all(len(image.files) == 1 for image in images):
        return _without_common_end(stems)
    paths = [image.folder.parts for image in images]
    for place in range(min(map(len, paths))):
        parts = [path[place] for path in paths]
        if len(set(parts)) == len(parts):
            return parts
    return [f"scene-{number}" for number in range(1, len(images) + 1)]


def _without_common_end(stems: Sequence[str]) -> list[str]:
    """Names without a last part that all of them have, as ``_ortho`` of ``P01_ortho``: lists name the place alone."""
    ends = {_LAST_PART.sub("", stem) for stem in stems}
    last = {stem[len(_LAST_PART.sub("", stem)) :] for stem in stems}
    return [_LAST_PART.sub("", stem) for stem in stems] if len(last) == 1 and len(ends) == len(stems) else list(stems)
