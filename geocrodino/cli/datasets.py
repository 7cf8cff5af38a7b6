"""``geocrodino datasets``, and ``--dataset`` of the training."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from geocrodino.errors import ConfigError

if TYPE_CHECKING:
    from geocrodino.presets.preset import Preset
    from geocrodino.settings.splits import SceneSplit

DATASET_HELP = "Public data set whose files lie in --root; geocrodino datasets lists them."
ROOT_HELP = "Folder of the data set of --dataset."

_SPLITS: tuple[SceneSplit, ...] = ("train", "val", "test", "unlabelled")
_REPLACED = (
    "data.aoi", "data.aoi_crs", "data.optical", "data.elevation", "data.labels", "data.ground", "data.ignore_values",
    "data.label_values", "data.label_rules.column", "data.partial", "data.height_unit", "data.height.zero",
)  # fmt: skip
"""Keys that a data set decides."""


def datasets(
    name: Annotated[
        str | None, typer.Argument(help="Data set to describe; all by default.", show_default=False)
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder to look for files of the data set, and for what is missing.")
    ] = None,
    unpack: Annotated[
        bool,
        typer.Option("--unpack", help="Write the rasters in HDF5 and MATLAB files as GeoTIFF files, as train does."),
    ] = False,
) -> None:
    """List public data sets that can be trained on, and what of them is missing on this computer.

    Data are not downloaded: each data set says where to get or ask for them.

    Example:  geocrodino datasets potsdam --root data/potsdam
    """
    from geocrodino.presets.catalogue import PRESETS, preset_of

    console = Console(highlight=False, soft_wrap=True)
    if unpack:
        if name is None or root is None:
            raise ConfigError("--unpack: expected the name of a data set and its folder (--root) beside it.")
        unpack_files(console, preset_of(name), root)
    if name is not None:
        _describe(console, preset_of(name), root)
        return
    width = max(map(len, PRESETS)) + 2
    for preset in PRESETS.values():
        classes = f"{len(preset.classes)} classes" if preset.classes else "classes as found"
        found = "" if root is None else f"; {_found(preset, root)}"
        console.print(f"{preset.name:<{width}}{preset.title}", markup=False)
        console.print(f"{'':<{width}}{classes}; licence: {preset.licence}{found}", markup=False)
    console.print("Next: geocrodino datasets NAME --root DIR, then geocrodino train --dataset NAME --root DIR")


def dataset_values(
    name: str | None, root: Path | None, given: Mapping[str, Any], *, unpack: bool = False
) -> dict[str, Any]:
    """Make the settings of a training on a data set.

    Args:
        name: Name of the data set; None: no data set.
        root: Its folder.
        given: Values of other options by dotted key of the configuration; None: not given.
        unpack: Whether HDF5 and MATLAB files are unpacked first.

    Returns:
        All values by dotted key: those of the data set, and the others.

    Raises:
        ConfigError: If one of name and folder is given alone, the data set is not known or not there, or another option
            names what the data set decides, or its files are not unpacked and should not be.
    """
    if name is None and root is None:
        return dict(given)
    if name is None or root is None:
        option, other = ("--root", "--dataset") if name is None else ("--dataset", "--root")
        value = root if name is None else name
        what = "the name of the data set in it" if name is None else "the folder of the data set"
        raise ConfigError(f"{option} {value}: expected {what} beside it: {other}.")
    from geocrodino.presets.catalogue import preset_of
    from geocrodino.presets.contents import NotUnpackedError, dataset_settings

    preset = preset_of(name)
    if twice := [key for key in _REPLACED if given.get(key) is not None]:
        raise ConfigError(
            f"`{twice[0]}`: the data set {name} decides it already, found {given[twice[0]]} beside it. Leave one of "
            "them out."
        )
    if unpack:
        unpack_files(Console(highlight=False, soft_wrap=True), preset, root)
    others = {key: value for key, value in given.items() if value is not None}
    try:
        return {**dataset_settings(preset, root), **others}
    except NotUnpackedError as error:
        command = shlex.join(["geocrodino", "datasets", name, "--root", str(root), "--unpack"])
        raise ConfigError(f"{error.found} Unpack them first: {command}") from error


def unpack_files(console: Console, preset: Preset, root: Path) -> None:
    """Unpack the files of a data set that are not read as they are, and show how far it is.

    Args:
        console: Where to show it.
        preset: The data set.
        root: Its folder.

    Raises:
        GeocrodinoError: One of its kinds, see `geocrodino.presets.contents.unpack_dataset`.
    """
    if preset.packed is None:
        return
    from geocrodino.cli.progress import stages
    from geocrodino.presets.contents import unpack_dataset

    with stages(console) as shown:
        shown.stage("Unpacking")
        unpack_dataset(preset, root, lambda line: console.print(line, markup=False), shown.advance)


def _found(preset: Preset, root: Path) -> str:
    """What of a data set is there, in a few words."""
    from geocrodino.presets.contents import look

    contents = look(preset, root)
    if contents.scenes:
        return f"there: {_counts(contents.count(split) for split in _SPLITS)}"
    if contents.obstacle:
        return "there, but cannot be unpacked"
    there = [layer for layer, count in contents.files.items() if count]
    return f"there: {' and '.join(there)} alone" if there else "not there"


def _counts(counts: Iterable[int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in zip(_SPLITS, counts, strict=True) if count)


def _describe(console: Console, preset: Preset, root: Path | None) -> None:
    def show(line: str) -> None:
        console.print(line, markup=False)

    show(f"{preset.name}: {preset.title}")
    show(f"Data: {preset.source}")
    show(f"Licence: {preset.licence}")
    show("Files:")
    for layer, patterns in preset.layers.items():
        show(f"  {layer}: {' or '.join(patterns)}")
    if preset.classes:
        own = "" if preset.has_own_colours else " (colours chosen here)"
        show(f"Classes{own}:")
        for name, codes in preset.classes.items():
            numbers = ", ".join(str(code) for code in codes if isinstance(code, int))
            colour = preset.colours[name]
            console.print(f"  [{colour}]██[/] {colour}  {escape(name)}{f'  ({numbers})' if numbers else ''}")
    if preset.ignore:
        show(f"No label: {', '.join(map(str, preset.ignore))}")
    show(f"Splits: {preset.official}")
    for split, names in preset.splits.items():
        show(f"  {split}: {', '.join(names)}")
    for split, pattern in preset.lists.items():
        show(f"  {split}: {pattern}")
    if options := _scoring(preset):
        show(f"Usual scores: geocrodino evaluate MAPS --config RUN/config.yaml --split test {options}")
    for tile, reason in preset.skipped.items():
        show(f"  left out: {tile} ({reason})")
    for note in preset.notes:
        show(f"Note: {note}")
    for value in preset.assumed:
        show(f"Assumed: {value}")
    if preset.assumed:
        show("Other values: train --pixel-size and --height-scale, or config.yaml of a run, which can be trained on.")
    if root is not None:
        _describe_files(show, preset, root)


def _scoring(preset: Preset) -> str:
    """Options of ``geocrodino evaluate`` for the usual scores of a data set."""
    boundary = [f"--erode-px {preset.boundary_px}"] if preset.boundary_px else []
    return " ".join([*boundary, *(f"--exclude {shlex.quote(name)}" for name in preset.uncounted)])


def _describe_files(show: Callable[[str], None], preset: Preset, root: Path) -> None:
    """What of a data set lies in a folder, and what is missing."""
    from geocrodino.presets.contents import look, missing_text
    from geocrodino.presets.packed import UNPACKED, not_unpacked

    contents = look(preset, root)
    files = ", ".join(f"{layer} {count}" for layer, count in contents.files.items())
    show(f"In {root}: files of {files}")
    if contents.scenes:
        show(f"Scenes: {_counts(contents.count(split) for split in _SPLITS)}")
    if contents.packed is not None and contents.packed.rasters:
        todo = len(not_unpacked(contents.packed, root))
        show(f"Unpacked in {root / UNPACKED}: {len(contents.packed.rasters) - todo} of {len(contents.packed.rasters)}")
    missing = missing_text(preset, contents)
    show(f"Missing: {missing}" if missing else "Missing: nothing")
