"""``geocrodino predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geocrodino.errors import BundleError, ConfigError


class ModalityName(StrEnum):
    """What the scene is."""

    optical = "optical"
    elevation = "elevation"


class StitchName(StrEnum):
    """How tiles are joined."""

    auto = "auto"
    exact = "exact"
    blend = "blend"


def predict(
    scene: Annotated[Path, typer.Argument(help="Image or surface model to map.")],
    modality: Annotated[ModalityName, typer.Option(help="What the scene is.")],
    model: Annotated[Path | None, typer.Option(help="Bundle; by default the newest one under ./runs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Map to write; SCENE.classes.tif beside the scene.")] = None,
    ground: Annotated[Path | None, typer.Option(help="Terrain model, for heights above ground.")] = None,
    height_unit: Annotated[str | None, typer.Option(help="Unit of heights: m, ft, us-ft ...; the file's own.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Tiles at once; one per processor by default.")] = None,
    block_px: Annotated[int | None, typer.Option(min=1, help="Side of a unit of work; no effect on the map.")] = None,
    stitch: Annotated[StitchName, typer.Option(help="exact: as in one pass; blend: mix neighbouring tiles.")] = (
        StitchName.auto
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    preview: Annotated[Path | None, typer.Option(help="Also write a PNG to look at.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing map.")] = False,
) -> None:
    """Write a class map of a scene of any size as a GeoTIFF, on the scene's own grid.

    Example:  geocrodino predict scene.tif --modality optical
    """
    from geocrodino.bundle.io import load_bundle
    from geocrodino.cli.progress import duration, progress
    from geocrodino.prediction.engine import predict_scene

    if modality == "optical" and (ground is not None or height_unit is not None):
        raise ConfigError("--ground and --height-unit speak of heights: leave them out with --modality optical.")
    console = Console(highlight=False, soft_wrap=True)
    path = model or newest_bundle(Path("runs"))
    if model is None:
        console.print(f"Bundle: {path}, the newest under ./runs", markup=False)
    target = out or scene.with_name(f"{scene.stem}.classes.tif")
    with progress(console, f"Predicting from {modality}") as advance:
        summary = predict_scene(
            scene,
            target,
            load_bundle(path),
            modality.value,
            ground=ground,
            height_unit=height_unit,
            workers=workers,
            block_px=block_px,
            stitch=stitch.value,
            overwrite=overwrite,
            on_progress=advance,
            device=_device(device),
        )
    table = Table(title=escape(str(summary.path)), title_justify="left")
    table.add_column("class")
    table.add_column("ha", justify="right")
    table.add_column("share", justify="right")
    total = sum(summary.area_m2.values())
    for name, area in summary.area_m2.items():
        table.add_row(escape(name), f"{area / 1e4:,.2f}", f"{100 * area / total:.1f} %")
    console.print(table)
    console.print(f"No data: {100 * summary.nodata_share:.1f} % of the scene. Took {duration(summary.seconds)}.")
    if preview:
        from geocrodino.evaluation.report import map_preview

        map_preview(target, preview, optical=scene if modality == "optical" else None)
        console.print(f"Picture: {preview}", markup=False)


def newest_bundle(folder: Path) -> Path:
    """The bundle that was written last.

    Raises:
        BundleError: If there is none.
    """
    # A process that was killed while it wrote leaves a half bundle in a folder *.part.
    whole = (p for p in folder.rglob("bundle.safetensors") if p.parent.suffix != ".part")
    found = sorted(whole, key=lambda p: p.stat().st_mtime)
    if not found:
        raise BundleError(
            f"no bundle under {folder.resolve()}. Expected one that `geocrodino train` wrote.\n"
            "Name one with --model, or train first."
        )
    return found[-1]


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"--device {name} cannot be used here: {first}\nTake --device cpu, or auto.") from error
    return name
