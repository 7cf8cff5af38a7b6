"""``geocrodino init``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from geocrodino.cli.heights import HeightScale, HeightZeroOption, PixelSize
from geocrodino.cli.labels import LabelColumn
from geocrodino.cli.options import with_options
from geocrodino.settings.file import PROJECT_FILE

_LAYERS = "What is known already"


@dataclass(frozen=True)
class KnownOptions:
    """What a user knows; None: it is found out."""

    optical: Annotated[str | None, typer.Option(help="Image: a file, folder, pattern or list.")] = None
    elevation: Annotated[str | None, typer.Option(help="Surface model.")] = None
    ground: Annotated[str | None, typer.Option(help="Terrain model.")] = None
    labels: Annotated[str | None, typer.Option(help="Raster of classes or colours, or polygons with a class.")] = None
    aoi: Annotated[str | None, typer.Option(help="File of polygons of the area of interest.")] = None
    label_column: LabelColumn = None
    crs: Annotated[str | None, typer.Option(help="CRS of files that have coordinates but state none.")] = None
    pixel_m: PixelSize = None
    height_unit: Annotated[str | None, typer.Option(help="Unit of heights: m, ft, us-ft ...")] = None
    height_scale: HeightScale = None
    height_zero: HeightZeroOption = None


@with_options()
def init(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files and folders to look through, sub-folders included; this folder by default, unless an option "
            "names files.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="YAML file to write.")] = Path(PROJECT_FILE),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    *,
    known: Annotated[KnownOptions, _LAYERS],
) -> None:
    """Look at files and folders, and write a commented geocrodino.yaml that train accepts as it is.

    It finds out which file is the image, the heights, the terrain model, the labels and the area of interest; which
    tiles and scenes belong together; units, classes, splits and the size of patches. Each guess says why; those with
    a question mark deserve a look. Where files do not decide it, one message says which option does.

    Example:  geocrodino init data/

    Two label files:  geocrodino init data/ --labels data/points.gpkg --label-column landuse
    """
    from geocrodino.cli.wording import Wording
    from geocrodino.project.text import require_new

    require_new(out, overwrite=overwrite)
    console, wording = Console(highlight=False, soft_wrap=True), Wording(ctx.command)

    from geocrodino.cli.progress import stages
    from geocrodino.project.guess import Known, guess_project

    with stages(console) as shown:
        project = guess_project([*(paths or ())], Known(**vars(known)), on_stage=shown.stage)
    project.write(out, overwrite=overwrite)
    for line in project.summary():
        console.print(wording(line), markup=False)
    console.print(f"Wrote {out}. Next: geocrodino train --config {shlex.quote(str(out))} --dry-run", markup=False)
