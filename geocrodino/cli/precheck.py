"""Checks of all file names of a command, before it imports libraries that take seconds to load.

The command itself makes the same checks again later, so the messages are the same.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from geocrodino.errors import AccessError, AOIError, ConfigError, OutputError, RasterError
from geocrodino.files.access import check_readable, check_text, exists, is_file, is_folder
from geocrodino.files.names import is_gdal_name, is_remote
from geocrodino.files.tile_names import Partial, has_parts, match_tiles
from geocrodino.files.vector_names import is_vector
from geocrodino.settings.encoder_weights import check_weights_file, is_weights_file
from geocrodino.settings.file import PROJECT_FILE, RASTERS, read_settings, scenes_of

if TYPE_CHECKING:
    from geocrodino.geo.rasters.place import Place

_MOST_OPENED = 50
"""Scenes whose files are opened, which takes a few milliseconds each."""


def check_training(config: Path | None, given: Mapping[str, Any], teacher: Path | None, out: Path) -> None:
    """Check the names of files of a training.

    Args:
        config: The file named by ``--config``.
        given: Values of the command line by dotted key, as for `geocrodino.settings.config.load_config`.
        teacher: The folder of a teacher.
        out: The run folder, which need not exist.

    Raises:
        GeocrodinoError: One of its kinds, if a name cannot be used.
    """
    # A run that has recorded its bundle may need it no more; the training itself decides.
    check_configured(config, given, started=exists(out / "start.json"))
    if teacher is not None and not exists(teacher):  # the training checks whether it is needed and finished
        from geocrodino.training.teacher import check_teacher

        check_teacher(teacher)
    check_text(out)
    check_folder(out)


def check_inspection(
    named: Mapping[str, Path | None], aoi: str | None, crs: str | None, place: Mapping[str, Any]
) -> None:
    """Check the names of files that are inspected without a training: rasters by role, and an area.

    One that makes the checks of a training checks its names with `check_configured`. Errors as for `check_training`.
    """
    check_rasters(*_by_kind(named), place=place)
    check_area(aoi, crs)


def _by_kind(named: Mapping[str, str | Path | None]) -> tuple[list[str | Path], list[str | Path]]:
    """Split files by role into rasters and labels, which may be shapes."""
    scenes = [path for role, path in named.items() if path is not None and role != "labels"]
    return scenes, [path for role, path in named.items() if path is not None and role == "labels"]


def check_prediction(
    scene: Sequence[str], elevation: str | None, ground: str | Path | None, asset: str | None, model: Path
) -> None:
    """Check the names of the files that a map is made from; errors as for `check_training`."""
    from geocrodino.files.bundle_name import check_bundle_name
    from geocrodino.geo.rasters.scene_files import check_scene

    check_bundle_name(model)
    check_scene(scene, asset=asset)
    for other in (elevation, ground):
        if other is not None:
            check_scene(other)


def check_evaluation(
    maps: Sequence[Path],
    labels: Path,
    aoi: str | None,
    crs: str | None,
    out: Path | None,
    labels_crs: str | None = None,
) -> None:
    """Check the names of the files of an evaluation and the folder of its results; errors as for `check_training`."""
    check_names([*maps, labels])
    check_rasters((), (), maps)
    if not is_remote(maps[0]):
        from geocrodino.geo.rasters.alike import place_beside

        place = place_beside(maps[0], labels_crs)
        check_rasters((), [labels], place={} if place is None else {"crs": place.crs, "pixel_m": place.pixel_m})
    check_area(aoi, crs)
    if out is None and (is_remote(maps[0]) or is_gdal_name(str(maps[0]))):
        raise ConfigError(f"{maps[0]}: results cannot be written beside this map. Name a folder with --out.")
    check_folder(maps[0].parent if out is None else out)


def check_rasters(
    scenes: Iterable[str | Path],
    labels: Iterable[str | Path] = (),
    files: Iterable[str | Path] = (),
    place: Mapping[str, Any] | None = None,
) -> None:
    """Check that all rasters exist, and then that they can be opened.

    Args:
        scenes: Names of rasters that may be mosaics of several files.
        labels: Names of labels, which may also be shapes; their content is checked later.
        files: Names of rasters that must be one file.
        place: Values of ``crs`` and ``pixel_m``, not yet checked.

    Raises:
        GeocrodinoError: One of its kinds, if a raster is missing or cannot be opened.
    """
    many, single, labelled = list(scenes), list(files), list(labels)
    check_names([*many, *single, *labelled])
    many += [name for name in labelled if not is_vector(name)]
    if not (many or single):
        return

    from geocrodino.geo.rasters.scene import open_raster, open_scene

    stated = _place(place or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown later, when the command itself opens the raster
        for open_it, paths in ((open_scene, many), (open_raster, single)):
            for path in paths:
                if not is_remote(path):
                    open_it(path, place=stated)


def _place(given: Mapping[str, Any]) -> Place | None:
    """The place that settings state for files without one; values of other types are refused later."""
    from geocrodino.geo.rasters.place import stated_place

    crs, pixel_m = given.get("crs"), given.get("pixel_m")
    size = float(pixel_m) if isinstance(pixel_m, int | float) and pixel_m > 0 else None
    return stated_place(str(crs) if isinstance(crs, str | int) else None, size)


def check_names(rasters: Iterable[str | Path]) -> None:
    """Check that all rasters exist; errors as for `check_rasters`."""
    from geocrodino.geo.labels.vector_files import vector_files
    from geocrodino.geo.rasters.scene_files import check_scene

    for path in rasters:
        if is_vector(path):
            vector_files(path)
        else:
            check_scene(path)


def check_area(source: str | None, crs: str | None) -> None:
    """Check an area: that its file can be read, or else that its text is a bounding box or a geometry."""
    if source is None or is_remote(source):
        return
    try:
        found = exists(source)
    except AccessError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.ENAMETOOLONG:  # a geometry as text may be long
            raise
        found = False
    if found:
        check_text(source)
        if is_file(source):
            check_readable(source)
        return
    from geocrodino.geo.areas.aoi import read_aoi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown later, when the command itself reads the area
        read_aoi(source, crs, splits="none")


def check_folder(folder: Path, option: str = "--out") -> None:
    """Check that a folder can be created and written to, without creating it.

    Args:
        folder: The folder.
        option: The option that names it.

    Raises:
        OutputError: If it cannot be created or written to.
        AccessError: If the operating system does not let it be looked up.
    """
    parent = folder
    while not exists(parent) and parent != parent.parent:
        parent = parent.parent
    problem = None
    if not is_folder(parent):
        problem = errno.EEXIST if parent == folder else errno.ENOTDIR
    elif not os.access(parent, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(parent).f_flag & os.ST_RDONLY
        problem = errno.EROFS if read_only else errno.EACCES
    if problem is not None:
        raise OutputError(f"{folder}: cannot be written ({os.strerror(problem)}). Choose another folder with {option}.")


def _check_scenes(data: Mapping[str, Any], typed: Collection[str]) -> None:
    """Check the names of the files of each scene, and open these; of more than 50 scenes, only look them up.

    Args:
        data: The section ``data``.
        typed: Keys that the command line gives: an error on their files needs no key.
    """
    scenes = scenes_of(data)
    for scene in [{**data, **scene} for scene in scenes] or [dict(data)]:
        others = scene.get("rasters")
        named = {**scene, **others} if isinstance(others, dict) else scene
        roles = (*RASTERS, *others) if isinstance(others, dict) else RASTERS
        found = {role: named[role] for role in roles if isinstance(named.get(role), str)}
        partial: Partial = next((word for word in get_args(Partial) if word == data.get("partial")), "keep")
        of_several = scene if scenes else None
        with _named_in(of_several, {role: file for role, file in found.items() if scenes or role not in typed}):
            files = _without_tiles(found, partial)
            if len(scenes) > _MOST_OPENED:
                check_names(files)
            else:
                shapes = [f for role, f in found.items() if role != "labels" and is_vector(f)]
                check_rasters([*_single_files(files, scene), *shapes], place=scene)
        crs, aoi = scene.get("aoi_crs"), scene.get("aoi")
        if isinstance(aoi, str):
            with _named_in(of_several, {"aoi": aoi} if scenes or "aoi" not in typed else {}):
                check_area(aoi, crs if isinstance(crs, str) else None)


@contextmanager
def _named_in(scene: Mapping[str, Any] | None, files: Mapping[str, str]) -> Iterator[None]:
    """Say in an error on a file of a scene which scene and which key name it; None: the only scene."""
    try:
        yield
    except (AOIError, RasterError) as error:
        file = str(error.path) if isinstance(error, RasterError) else files.get("aoi")
        role = next((role for role, name in files.items() if name == file), None)
        if role is None:
            raise
        where = f"data.{role}" if scene is None else f"data.scenes: {role}"
        where += f" of scene {scene['name']}" if scene and scene.get("name") else ""
        start = "relative ones start at the folder of the file that names them"
        text = str(error).replace("relative ones start at the working folder", start)
        raise ConfigError(f"{where}: {text}") from error


def _without_tiles(named: Mapping[str, str], partial: Partial) -> list[str]:
    """Check that tiles fit together whose names have parts in braces; gives the other names."""
    tiles = {role: name for role, name in named.items() if has_parts(name)}
    if tiles:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shown later, when the training lists its scenes
            match_tiles(tiles, partial)
    return [name for role, name in named.items() if role not in tiles]


def _single_files(names: Iterable[str], place: Mapping[str, Any]) -> list[str]:
    """Check that files exist; gives rasters of one file, because many files may be tiles of their own."""
    from geocrodino.geo.rasters.place import pictures
    from geocrodino.geo.rasters.scene_files import find_files, given_names

    check_names(names := list(names))
    shown = pictures(_place(place))
    rasters = [name for name in names if not is_vector(name)]
    return [name for name in rasters if len(find_files(given_names(name), None, shown).files) < 2]


def check_configured(config: Path | None, given: Mapping[str, Any], *, started: bool = False) -> None:
    """Check the names of files in the settings of a training.

    Args:
        config: The file named by ``--config``.
        given: Values of the command line by dotted key; they may be changed.
        started: Whether the training has a run folder that records its bundle.

    Raises:
        GeocrodinoError: One of its kinds, if a name cannot be used.
    """
    source = Path(PROJECT_FILE) if config is None else config
    if exists(source) and not (is_file(source) or is_folder(source)):
        return  # a pipe can be read only once, and the command itself must read it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown later, when the command itself reads the settings
        _, tree = read_settings(config, given)
    data, weights = (tree.get(section) for section in ("data", "encoder_weights"))
    if isinstance(data, dict):
        _check_scenes(data, {key.rpartition(".")[2] for key, value in given.items() if value is not None})
    if isinstance(tree.get("start_from"), str) and not started:
        from geocrodino.files.bundle_name import check_bundle_name

        check_bundle_name(Path(tree["start_from"]))
    for name in weights.values() if isinstance(weights, dict) else [weights]:
        if isinstance(name, str) and is_weights_file(name):
            check_weights_file(Path(name))
