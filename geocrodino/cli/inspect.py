"""``geocrodino inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geocrodino.cli.area import AREA_HELP, CRS_HELP, require_area
from geocrodino.cli.labels import Ignore, LabelValue, parse_label_values
from geocrodino.cli.precheck import check_inspection
from geocrodino.config_file import PROJECT_FILE
from geocrodino.geo.files import exists


def inspect(
    optical: Annotated[Path | None, typer.Option(help="Image.")] = None,
    elevation: Annotated[Path | None, typer.Option(help="Surface model.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Class raster.")] = None,
    ground: Annotated[Path | None, typer.Option(help="Terrain model.")] = None,
    aoi: Annotated[str | None, typer.Option(help=f"{AREA_HELP}.")] = None,
    aoi_crs: Annotated[str | None, typer.Option(help=CRS_HELP)] = None,
    config: Annotated[Path | None, typer.Option(help="Take files and settings from a YAML file.")] = None,
    ignore: Ignore = None,
    label_value: LabelValue = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size to work at, metres.")] = None,
    height_unit: Annotated[str | None, typer.Option(help="Unit of heights: m, ft, us-ft ...")] = None,
) -> None:
    """Say what files are, whether they fit together, and what a training would use of them.

    Any of the files may be left out; without a raster, those of geocrodino.yaml are taken. Exits with 2 where files
    would be refused. Labels are read whole, the other rasters on a coarse grid.

    Example:  geocrodino inspect --optical optical.tif --elevation dsm.tif --labels labels.tif --aoi aoi.geojson
    """
    named = {"optical": optical, "elevation": elevation, "labels": labels, "ground": ground}
    check_inspection(config, named, aoi, aoi_crs)

    from geocrodino.config import ElevationConfig, TrainConfig, load_config
    from geocrodino.data.inspection import inspect_files
    from geocrodino.errors import ConfigError
    from geocrodino.geo.aoi import read_aoi
    from geocrodino.geo.reader import RasterSource

    console = Console(highlight=False, soft_wrap=True)
    settings: TrainConfig | None = None
    if resolution is not None and not 0 < resolution < float("inf"):
        raise ConfigError(f"--resolution {resolution:g}: expected a pixel size in metres, above 0.")
    if config is not None or (not any(named.values()) and exists(PROJECT_FILE)):
        areas = {"aoi": aoi, "aoi_crs": aoi_crs}
        given = {f"data.{k}": str(v) for k, v in {**named, **areas}.items() if v is not None}
        settings = load_config(config, given)
        data = settings.data
        named = {"optical": data.optical, "elevation": data.elevation, "labels": data.labels, "ground": data.ground}
        aoi, aoi_crs = data.aoi, data.aoi_crs
        resolution, height_unit = resolution or data.resolution_m, height_unit or data.height_unit
    require_area(aoi, aoi_crs)
    sources = {role: RasterSource.open(path) for role, path in named.items() if path is not None}
    if not sources:
        raise ConfigError("Nothing to inspect: name --optical, --elevation, --labels or --config.")
    report = inspect_files(
        sources,
        None if aoi is None else read_aoi(aoi, aoi_crs),
        resolution_m=resolution,
        unit=height_unit,
        channels=ElevationConfig().channels if settings is None else settings.elevation.channels,
        classes=None if settings is None else settings.class_scheme(),
        ignore_values=tuple(ignore or ()) or (() if settings is None else settings.data.ignore_values),
        label_values=parse_label_values(label_value) or (None if settings is None else settings.data.label_values),
        bands=None if settings is None else settings.data.bands,
    )
    for layer in report.layers:
        table = Table(title=escape(f"{layer.role}: {layer.path}"), title_justify="left", show_header=False, box=None)
        table.add_row("is", escape(layer.what))
        table.add_row("values", escape(layer.values))
        table.add_row("valid", f"{100 * layer.valid:.1f} % of the pixels")
        if layer.covers is not None:
            table.add_row("covers", f"{100 * layer.covers:.1f} % of the area of interest")
        for note in layer.notes:
            table.add_row("note", escape(note))
        console.print(table)
    if report.grid:
        console.print(f"Reference grid: {report.grid}")
    for split, px in report.splits.items():
        console.print(f"Area {split}: {px:,} px")
    for problem in report.problems:
        console.print(f"[bold red]Problem:[/] {escape(problem)}")
    if report.problems:
        raise typer.Exit(2)
    console.print("These files fit together." if len(sources) > 1 else "This file can be read.")
