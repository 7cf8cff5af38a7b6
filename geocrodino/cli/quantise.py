"""``geocrodino quantise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def quantise(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished training.", show_default=False)],
) -> None:
    """Add int8 networks to the bundle of a training, for faster prediction on CPUs.

    They are calibrated and measured on the split val, which is read from the files of the training. A network that
    loses more than 0.2 points of mIoU is not kept. Predict with --precision int8.

    Example:  geocrodino quantise runs/mine
    """
    from geocrodino.prediction.backends.int8 import require_nncf

    require_nncf()

    # PyTorch and Lightning take seconds to import.
    from geocrodino.cli.progress import progress
    from geocrodino.training.quantise import quantise as add

    console = Console(highlight=False, soft_wrap=True)
    with progress(console, "Aligning rasters") as aligned:
        result = add(run, on_progress=aligned, tell=lambda line: console.print(line, markup=False))
    if not result.kept:
        console.print(f"{result.bundle}: holds no int8 network", markup=False)
        return
    kept = " and ".join(result.kept)
    console.print(f"Bundle: {result.bundle}, with int8 networks for {kept}", markup=False)
    console.print(
        f"Next: geocrodino predict SCENE.tif --modality {result.kept[0]} --precision int8 --model {result.bundle}",
        markup=False,
    )
