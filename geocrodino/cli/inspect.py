"""``geocrodino inspect``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geocrodino.cli.area import AREA_HELP, CRS_HELP, require_area
from geocrodino.cli.heights import HeightScale, HeightZeroOption, PixelSize
from geocrodino.cli.labels import LABELS_HELP, Ignore, LabelColumn, LabelValue, parse_label_values
from geocrodino.cli.precheck import check_inspection
from geocrodino.cli.wording import Wording
from geocrodino.errors import ConfigError
from geocrodino.files.access import exists
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


def inspect(
    ctx: typer.Context,
    optical: Annotated[Path | None, typer.Option(help="Image.")] = None,
    elevation: Annotated[Path | None, typer.Option(help="Surface model.")] = None,
    labels: Annotated[Path | None, typer.Option(help=f"{LABELS_HELP}.")] = None,
    ground: Annotated[Path | None, typer.Option(help="Terrain model.")] = None,
    aoi: Annotated[str | None, typer.Option(help=f"{AREA_HELP}.")] = None,
    aoi_crs: Annotated[str | None, typer.Option(help=CRS_HELP)] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with files and settings.")] = None,
    ignore: Ignore = None,
    label_column: LabelColumn = None,
    label_value: LabelValue = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size of the training, metres; see train.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of files that have coordinates but state none.")] = None,
    pixel_m: PixelSize = None,
    height_scale: HeightScale = None,
    height_zero: HeightZeroOption = None,
    height_unit: Annotated[str | None, typer.Option(help="Unit of heights: m, ft, us-ft ...")] = None,
    patch_px: Annotated[int | None, typer.Option(help="Side of a training patch, px.")] = None,
    split_map: Annotated[
        Path | None, typer.Option(help="Picture of the splits to write (.png), where a training would start.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Bundle to describe, alone or before the other files.")] = None,
) -> None:
    """Describe files, check that they fit together, and show what a training would use of them.

    Any of the files may be left out; if no raster is named, those of geocrodino.yaml are used. Labels and heights are
    read whole, images on a coarse grid. If image, surface model, labels and area are all named, all checks of a
    training are made. If a training would be refused, its message is shown and the exit code is 2. --model describes a
    bundle.

    Example:  geocrodino inspect --optical optical.tif --elevation dsm.tif --labels labels.tif --aoi aoi.geojson
    """
    named = {"optical": optical, "elevation": elevation, "labels": labels, "ground": ground}
    if model is not None:
        _show_bundle(model)
        if config is None and aoi is None and not any(named.values()):
            return
    check_inspection(config, named, aoi, aoi_crs, {"crs": crs, "pixel_m": pixel_m})

    from geocrodino.settings.config import config_of, load_config

    if resolution is not None and not 0 < resolution < float("inf"):
        raise ConfigError(f"--resolution {resolution:g}: expected a pixel size in metres, above 0.")
    given: dict[str, Any] = {
        **{role: None if path is None else str(path) for role, path in named.items()},
        "aoi": aoi,
        "aoi_crs": aoi_crs,
        "resolution_m": resolution,
        "crs": crs,
        "pixel_m": pixel_m,
        "height_unit": height_unit,
        "ignore_values": ignore or None,  # without the option, what the file says counts
        "label_rules": None if label_column is None else {"column": label_column},
        "label_values": parse_label_values(label_value) or None,
    }
    given = {key: value for key, value in given.items() if value is not None}
    heights = {key: value for key, value in {"scale": height_scale, "zero": height_zero}.items() if value is not None}
    settings = {**{f"data.{key}": value for key, value in given.items()}, "training.patch_px": patch_px}
    if label_column is not None:  # beside the other rules of a file
        settings["data.label_rules.column"] = settings.pop("data.label_rules")["column"]
    settings.update({f"data.height.{key}": value for key, value in heights.items()})
    training: TrainConfig | None = None
    if config is not None or (not any(named.values()) and exists(PROJECT_FILE)):
        training = load_config(config, settings)
    elif {"optical", "elevation", "labels", "aoi"} <= given.keys():
        training = config_of(settings)
    console, wording = Console(highlight=False, soft_wrap=True), Wording(ctx.command)
    scenes = _scenes(training, console)
    if training is not None and scenes:
        console.print(f"Reading {len(scenes)} scenes.")
        checked = _checked(training)
        _show_scenes(training, scenes, checked, console, wording)
        problems, many = [], True
    else:
        alone = {**given, "height": _height(heights, height_unit)} if heights else given
        data = alone if training is None else training.data.model_dump(exclude_none=True)
        require_area(data.get("aoi"), data.get("aoi_crs"))
        roles = _roles(data)
        if not roles:
            raise ConfigError("Nothing to inspect: give --optical, --elevation, --labels or --config.")
        console.print(f"Reading {', '.join(roles)}.")
        report = _report(data, training, patch_px)
        _show(report, console, wording)
        problems, many = list(report.problems), len(roles) > 1
        checked = _checked(training)
    refusal = _show_training(checked, console, split_map)
    if refusal is not None and refusal not in problems:
        problems.append(refusal)
    for problem in problems:
        console.print(f"[bold red]Problem:[/] {escape(wording(problem))}")
    if problems:
        raise typer.Exit(2)
    console.print("These files fit together." if many else "This file can be read.")


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
    common, note = training.data.resolution_m, None
    if checked is not None and not isinstance(checked, str):
        common, note = checked.scenes[0].choice.resolution_m, checked.scenes[0].choice.note
    for scene in scenes:
        console.print(f"[bold]Scene {escape(scene.name)}[/]")
        # All scenes work at one pixel size, and the reason for it is none of a single scene.
        data = {**scene.model_dump(exclude_none=True), "resolution_m": common}
        _show(replace(_report(data, training), pixels=None), console, wording)
    if note is not None:
        console.print(wording(note), markup=False)


def _opened(data: Mapping[str, Any]) -> dict[str, RasterSource]:
    """The rasters and labels of an inspection by role."""
    from geocrodino.geo.labels.opening import open_labels
    from geocrodino.geo.rasters.place import stated_place
    from geocrodino.geo.rasters.scene import open_scene
    from geocrodino.settings.labels import LabelRules

    names, place = _roles(data), stated_place(data.get("crs"), data.get("pixel_m"))
    rasters = {role: open_scene(name, place=place) for role, name in names.items() if role != "labels"}
    if "labels" not in names:
        return rasters
    labels = open_labels(
        names["labels"],
        next((rasters[role] for role in rasters if role in MODALITIES), None),
        rules=LabelRules.model_validate(data.get("label_rules") or {}),
        ignore_values=data.get("ignore_values") or (),
        label_values=data.get("label_values"),
        place=place,
    )
    return {role: labels if role == "labels" else rasters[role] for role in names}


def _checked(training: TrainConfig | None) -> CheckedInputs | str | None:
    """The checks of a training, or its refusal; its warnings are not shown a second time."""
    if training is None:
        return None
    from geocrodino.training.checks import inputs_or_refusal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inputs_or_refusal(training)


def _show_training(checked: CheckedInputs | str | None, console: Console, picture: Path | None) -> str | None:
    """Show the splits of a training, or return its refusal."""
    if isinstance(checked, str):
        return checked
    if checked is not None:
        _show_splits(checked, console, picture)
    elif picture is not None:
        raise ConfigError(
            "--split-map: the splits of a training need all of its files. Give --optical, --elevation, --labels and "
            "--aoi, or --config."
        )
    return None


def _show_splits(found: CheckedInputs, console: Console, picture: Path | None) -> None:
    """Tell what the splits share and lack, and draw them where a picture is asked for."""
    for line in (*found.notes, *found.leaks.facts):
        console.print(line, markup=False)
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
