"""``geocrodino export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from geocrodino.errors import ConfigError
from geocrodino.settings.export import TILE_PX, ExportFormat
from geocrodino.settings.modality import MODALITIES
from geocrodino.spelling import did_you_mean

if TYPE_CHECKING:
    from geocrodino.bundle.manifest import Manifest
    from geocrodino.export.run import ExportedBranch


def export(
    bundle: Annotated[Path, typer.Argument(help="Bundle of a training.", show_default=False)],
    format: Annotated[
        ExportFormat,
        typer.Option(help="onnx: for QGIS (deepness), GeoDeep and ONNX Runtime; torch: a program of torch.export."),
    ] = "onnx",
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar=f"[{'|'.join(MODALITIES)}]", help="Branch to export; may be repeated. All by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the files; by default that of the bundle.")] = None,
    tile_px: Annotated[
        int, typer.Option(min=1, help="Side of a tile in px, a multiple of the network's stride; fixed in the file.")
    ] = TILE_PX,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Overlap of tiles that the plugins are told, 0 to 90 percent of a tile; only with onnx. By default "
            "what the receptive field asks for, at most 50.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Write the networks of a bundle as files for other programs: one for each branch, with a STAC item.

    Each file is run on a tile and compared with the bundle. A file that gives other probabilities is not written.
    Computed channels, such as heights above ground, are the input of an exported network: it does not compute them.

    Example:  geocrodino export runs/mine/bundle.safetensors --format onnx --modality optical
    """
    for name in modality or ():
        if not MODALITIES.knows(name):
            raise ConfigError(
                f"--modality {name}: expected {' or '.join(MODALITIES)}, found {name}.{did_you_mean(name, MODALITIES)}"
            )
    if format == "torch" and overlap is not None:
        raise ConfigError("--overlap is metadata of ONNX files. Leave it out with --format torch.")
    from geocrodino.export.onnx_file import require_onnx

    if format == "onnx":
        require_onnx()

    # PyTorch takes seconds to import; a wrong name of the bundle is told before.
    from geocrodino.bundle.io import load_bundle

    opened = load_bundle(bundle)

    from geocrodino.export.run import export_bundle

    console = Console(highlight=False, soft_wrap=True)
    exported = export_bundle(
        opened,
        out,
        format=format,
        modalities=modality or None,
        tile_px=tile_px,
        overlap_percent=overlap,
        overwrite=overwrite,
        tell=lambda line: console.print(line, markup=False),
    )
    for each in exported:
        for line in _summary(each, opened.manifest):
            console.print(line, markup=False)


def _summary(exported: ExportedBranch, manifest: Manifest) -> list[str]:
    """What was written, in lines."""
    from geocrodino.export.check import BOUND

    spec = manifest.modalities[exported.modality]
    found = exported.agreement
    channels = ", ".join(f"{c.name} ({c.unit})" for c in spec.channels)
    divided = f", each divided by {exported.input_divisor}" if exported.input_divisor != 1 else ""
    computed = "" if spec.recipe.bands else ", which are to be computed outside"
    overlap = "" if exported.overlap_percent is None else f", overlap {exported.overlap_percent} %"
    return [
        str(exported.path),
        str(exported.item),
        f"  against the bundle: probabilities differ by at most {found.difference:.2g} (allowed {BOUND:g}), "
        f"{found.other_class:.2%} of pixels have another class",
        f"  input: {channels}{divided}{computed}",
        f"  tiles: {exported.tile_px} px of {manifest.resolution_m:g} m{overlap}",
    ]
