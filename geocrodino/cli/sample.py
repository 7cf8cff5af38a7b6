"""``geocrodino sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("sample"),
    size_m: Annotated[float, typer.Option(min=96, max=4096, help="Side of the scene, metres.")] = 512.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scene.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Generate a small town to try everything on: image, surface model, ground, labels, area, settings.

    Example:  geocrodino sample town && cd town && geocrodino train --aoi aoi.geojson
    """
    from geocrodino.settings.town import SceneSettings
    from geocrodino.town.write import write_scene

    console = Console(highlight=False, soft_wrap=True)
    paths = write_scene(folder, SceneSettings(size_m=size_m, seed=seed), overwrite=overwrite)
    for path in paths.all():
        console.print(str(path), markup=False)
