"""``geocrodino inspect``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geocrodino.cli.area import require_area
from geocrodino.cli.data_options import DataOptions
from geocrodino.cli.datasets import dataset_values
from geocrodino.cli.options import with_options
from geocrodino.cli.precheck import check_configured, check_inspection
from geocrodino.cli.wording import Wording
from geocrodino.errors import ConfigError
from geocrodino.files.access import exists
from geocrodino.files.picture_name import check_picture_name
from geocrodino.settings.file import PROJECT_FILE
from geocrodino.settings.modality import MODALITIES

if TYPE_CHECKING:
    from geocrodino.data.inspection import Inspection
    from geocrodino.geo.rasters.reader import RasterSource
    from geocrodino.settings.config import TrainConfig
    from geocrodino.settings.scenes import SceneConfig
    from geocrodino.training.checks import CheckedInputs


_MOST_SHOWN = 3
"""Scenes whose files are described one by one."""

_OF_A_TRAINING = {
    "data.splits.by": "--split",
    "data.splits.folds": "--folds",
    "data.partial": "--partial",
    "training.seed": "--seed",
}
"""Options that only the checks of a training read."""

_NEEDS_A_TRAINING = (
    "the checks of a training need its files. Give --labels beside --optical and --elevation, or --config."
)


@with_options()
def inspect(
    ctx: typer.Context,
    data: DataOptions,
    config: Annotated[Path | None, typer.Option(help="YAML file with files and settings.")] = None,
    patch_px: Annotated[int | None, typer.Option(help="Side of a training patch, px.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the training, which splits that are drawn depend on.")
    ] = None,
    split_map: Annotated[
        Path | None, typer.Option(help="Picture of the splits to write (.png), where a training would start.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Bundle to describe, alone or before the other files.")] = None,
) -> None:
    """Describe files, check that they fit together, and show what a training would use of them.

    Any of the files may be left out; if no raster is named, those of geocrodino.yaml are used. Labels and heights are
    read whole, images on a coarse grid. If labels are named beside an image or a surface model, all checks of a
    training with the same options are made. If it would be refused, its message is shown and the exit code is 2.
    --model describes a bundle.

    Example:  geocrodino inspect --optical optical.tif --elevation dsm.tif --labels labels.tif --aoi aoi.geojson
    """
    if split_map is not None:
        check_picture_name(split_map)
    named = {"optical": data.optical, "elevation": data.elevation, "labels": data.labels, "ground": data.ground}
    if model is not None:
        _show_bundle(model)
        if config is None and data.aoi is None and data.dataset is None and not any(named.values()):
            return
    values = {**data.values(), "training.patch_px": patch_px, "training.seed": seed}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in values.items() if v is not None}
    given = dataset_values(data.dataset, data.root, given)
    training = _training(config, given, named, of_dataset=data.dataset is not None)
    console, wording = Console(highlight=False, soft_wrap=True), Wording(ctx.command)
    scenes = _scenes(training, console)
    if training is not None and scenes:
        console.print(f"Reading {len(scenes)} scenes.")
        checked = _checked(training)
        _show_scenes(training, scenes, checked, console, wording)
        problems, many = [], True
    else:
        files = _alone(given) if training is None else training.data.model_dump(exclude_none=True)
        require_area(files.get("aoi"), files.get("aoi_crs"))
        roles = _roles(files)
        if not roles:
            raise ConfigError("Nothing to inspect: give --optical, --elevation, --labels, --config or --dataset.")
        console.print(f"Reading {', '.join(roles)}.")
        report, checked = _report(files, training, patch_px), _checked(training)
        _show(_files_alone(report) if _may_start(checked) else report, console, wording)
        problems, many = list(report.problems), len(roles) > 1
    refusal = _show_training(checked, training, console, wording, split_map)
    if refusal is not None and refusal not in problems:
        problems.append(refusal)
    for problem in problems:
        console.print(f"[bold red]Problem:[/] {escape(wording(problem))}")
    if problems:
        raise typer.Exit(2)
    console.print("These files fit together." if many else "This file can be read.")


def _training(
    config: Path | None, given: dict[str, Any], named: Mapping[str, Path | None], *, of_dataset: bool = False
) -> TrainConfig | None:
    """The training whose checks are made, after the names of all files are checked.

    Args:
        config: The file named by ``--config``.
        given: Values of the command line by dotted key.
        named: Files of the command line by role.
        of_dataset: Whether a public data set names the files.

    Returns:
        Its settings; None if files are described without a training.
    """
    resolution = given.get("data.resolution_m")
    labelled = named["labels"] is not None and any(named[m] is not None for m in ("optical", "elevation"))
    alone = config is None and any(named.values()) and not labelled
    if alone:
        for key, option in _OF_A_TRAINING.items():
            if key in given:
                raise ConfigError(f"{option} {given[key]}: {_NEEDS_A_TRAINING}")
        place = {key: given.get(f"data.{key}") for key in ("crs", "pixel_m")}
        check_inspection(named, given.get("data.aoi"), given.get("data.aoi_crs"), place)
    else:
        check_configured(config, copy.deepcopy(given))
    if resolution is not None and not 0 < resolution < float("inf"):
        raise ConfigError(f"--resolution {resolution:g}: expected a pixel size in metres, above 0.")
    if alone or not (config is not None or labelled or of_dataset or exists(PROJECT_FILE)):
        return None

    from geocrodino.settings.config import load_config

    return load_config(config, given, one_modality=labelled and config is None)


def _alone(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings ``data`` of files that are described without a training."""
    data = {key.removeprefix("data."): value for key, value in given.items() if key.startswith("data.")}
    column = data.pop("label_rules.column", None)
    if column is not None:
        data["label_rules"] = {"column": column}
    coded = {key: data.pop(f"height.{key}", None) for key in ("scale", "zero")}
    heights = {key: value for key, value in coded.items() if value is not None}
    return {**data, "height": _height(heights, data.get("height_unit"))} if heights else data


def _roles(data: Mapping[str, Any]) -> dict[str, Any]:
    """The rasters that settings of data name, by role."""
    named = {**data, **(data.get("rasters") or {})}
    return {role: named[role] for role in (*MODALITIES, "labels", "ground") if role in named}


def _report(data: Mapping[str, Any], training: TrainConfig | None, patch_px: int | None = None) -> Inspection:
    """Inspect the files of one scene."""
    # These libraries take a second to import.
    from geocrodino.data.inspection import inspect_files, read_heights
    from geocrodino.geo.areas.aoi import read_aoi
    from geocrodino.settings.config import TrainingConfig, default_channels
    from geocrodino.settings.heights import HeightSettings

    height = HeightSettings(**data["height"]) if "height" in data else None
    zero = "sea" if height is None else height.zero
    return inspect_files(
        read_heights(_opened(data), height, data.get("height_unit")),
        read_aoi(data["aoi"], data.get("aoi_crs")) if "aoi" in data else None,
        resolution_m=data.get("resolution_m"),
        grid_of=data.get("grid_of"),
        patch_px=training.training.patch_px if training is not None else patch_px or TrainingConfig().patch_px,
        unit=data.get("height_unit"),
        channels=default_channels({zero}) if training is None else training.elevation.channels,
        classes=None if training is None else training.class_scheme(),
        bands=data.get("bands"),
    )


def _height(given: Mapping[str, Any], unit: str | None) -> dict[str, Any]:
    """Check the coding of heights that options give, outside a configuration."""
    from geocrodino.errors import ConfigError

    scale = given.get("scale")
    if scale is not None and unit is not None:
        raise ConfigError("--height-unit and --height-scale both say how long a stored unit is. Give only one of them.")
    if scale is not None and not 0 < scale < float("inf"):
        raise ConfigError(f"--height-scale {scale:g}: expected metres in a stored unit, above 0, such as 0.1.")
    return dict(given)


def _scenes(training: TrainConfig | None, console: Console) -> tuple[SceneConfig, ...]:
    """The scenes of a training that lists several, or whose files are tiles of their own; none of one scene."""
    if training is None:
        return ()
    from geocrodino.training.scenes import list_scenes

    scenes = list_scenes(training.data, lambda line: console.print(line, markup=False))
    return scenes if training.data.scenes or len(scenes) > 1 else ()


def _show_scenes(
    training: TrainConfig,
    scenes: Sequence[SceneConfig],
    checked: CheckedInputs | str | None,
    console: Console,
    wording: Wording,
) -> None:
    """Describe the files of a few scenes; what a training would refuse is found by its own checks."""
    if len(scenes) > _MOST_SHOWN:
        console.print(f"Files are described for up to {_MOST_SHOWN} scenes; here they are only checked.")
        return
    from geocrodino.data.grid_choice import describe_work

    common = checked.scenes[0].choice.resolution_m if _may_start(checked) else training.data.resolution_m
    for scene in scenes:
        console.print(f"[bold]Scene {escape(scene.name)}[/]")
        # All scenes work at one pixel size, and the reason for it is none of a single scene.
        data = {**scene.model_dump(exclude_none=True), "resolution_m": common}
        report = replace(_report(data, training), pixels=None)
        if _may_start(checked):
            own = next((each for each in checked.scenes if each.name == scene.name), None)
            work = report.grid if own is None else describe_work(own.grid, training.training.patch_px)
            report = replace(report, grid=work, splits={})
        _show(report, console, wording)


def _may_start(checked: CheckedInputs | str | None) -> TypeGuard[CheckedInputs]:
    """Whether a training was checked and not refused."""
    return checked is not None and not isinstance(checked, str)


def _files_alone(report: Inspection) -> Inspection:
    """A report without the grid and the area, which the checks of a training tell more exactly."""
    return replace(report, grid=None, pixels=None, splits={})


def _opened(data: Mapping[str, Any]) -> dict[str, RasterSource]:
    """The rasters and labels of an inspection by role."""
    from geocrodino.data.sources import open_rasters
    from geocrodino.geo.labels.opening import open_labels
    from geocrodino.geo.rasters.place import stated_place
    from geocrodino.geo.rasters.scene import open_scene
    from geocrodino.settings.labels import LabelRules

    names, place = _roles(data), stated_place(data.get("crs"), data.get("pixel_m"))
    of_modalities = {role: name for role, name in names.items() if role in MODALITIES}
    rasters = open_rasters(of_modalities, place, data.get("rescale"))
    found = dict(rasters)
    if "labels" in names:
        found["labels"] = open_labels(
            names["labels"],
            next(iter(rasters.values()), None),
            rules=LabelRules.model_validate(data.get("label_rules") or {}),
            ignore_values=data.get("ignore_values") or (),
            label_values=data.get("label_values"),
            place=place,
        )
    if "ground" in names:
        found["ground"] = open_scene(names["ground"], place=place)
    return found


def _checked(training: TrainConfig | None) -> CheckedInputs | str | None:
    """The checks of a training, or its refusal; its warnings are not shown a second time."""
    if training is None:
        return None
    from geocrodino.training.checks import inputs_or_refusal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inputs_or_refusal(training)


def _show_training(
    checked: CheckedInputs | str | None,
    training: TrainConfig | None,
    console: Console,
    wording: Wording,
    picture: Path | None,
) -> str | None:
    """Show what a training tells of its inputs, and its splits, or return its refusal."""
    if isinstance(checked, str):
        return checked
    if _may_start(checked) and training is not None:
        from geocrodino.training.summary import summarise_inputs

        console.print(wording(summarise_inputs(checked, training.training.patch_px, None)), markup=False)
        _show_splits(checked, console, picture)
    elif picture is not None:
        raise ConfigError(f"--split-map {picture}: {_NEEDS_A_TRAINING}")
    return None


def _show_splits(found: CheckedInputs, console: Console, picture: Path | None) -> None:
    """Tell the size of ``test`` and what the splits share, and draw them where a picture is asked for."""
    from geocrodino.geo.areas.masks import inside_mask

    tested = [scene for scene in found.scenes if "test" in scene.aoi.splits]
    if tested:
        px = sum(int(inside_mask(scene.aoi.polygons("test"), scene.grid).sum()) for scene in tested)
        console.print(f"Pixels of test: {px:,}", markup=False)
    for leak in found.leaks.leaks:
        console.print(f"[bold yellow]Leak:[/] {escape(leak)}")
    if picture is not None:
        from geocrodino.report.figures import plot_splits

        plot_splits([(scene.name, scene.aoi) for scene in found.scenes], picture)
        console.print(f"Picture of the splits: {picture}", markup=False)


def _show_bundle(path: Path) -> None:
    from geocrodino.bundle.describe import describe_manifest
    from geocrodino.bundle.io import load_bundle

    table = Table(title=escape(f"model: {path}"), title_justify="left", show_header=False, box=None)
    for title, text in describe_manifest(load_bundle(path).manifest):
        table.add_row(title, escape(text))
    Console(highlight=False, soft_wrap=True).print(table)


def _show(report: Inspection, console: Console, wording: Wording) -> None:
    for layer in report.layers:
        table = Table(title=escape(f"{layer.role}: {layer.path}"), title_justify="left", show_header=False, box=None)
        table.add_row("is", escape(layer.what))
        table.add_row("values", escape(layer.values))
        table.add_row("valid", f"{100 * layer.valid:.1f} % of the pixels")
        if layer.covers is not None:
            table.add_row("covers", f"{100 * layer.covers:.1f} % of the area of interest")
        for note in layer.notes:
            table.add_row("note", escape(wording(note)))
        console.print(table)
    if report.grid:
        console.print(f"Working grid: {report.grid}")
    if report.pixels:
        console.print(wording(report.pixels), markup=False)
    for split, px in report.splits.items():
        console.print(f"Area {split}: {px:,} px")
