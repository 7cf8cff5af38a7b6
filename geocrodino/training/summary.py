"""What a training tells of its inputs before it reads them; ``inspect`` tells the same, without a training library."""

from __future__ import annotations

import math
from pathlib import Path

from geocrodino.data.grid_choice import describe_work
from geocrodino.phrases import listed
from geocrodino.training.checked import CheckedInputs
from geocrodino.training.scene_notes import unit_lines


def summarise_inputs(found: CheckedInputs, patch_px: int, drawn: Path | None) -> str:
    """Describe the inputs of a training for the user.

    Args:
        found: Inputs of the training.
        patch_px: Side of a training patch, px.
        drawn: File of the splits, where they are drawn.

    Returns:
        Lines: the grid, its pixel size and the reason for it, the unit of heights and where it is known from, the
        classes, the pixels of each split and how many of them have a label, the file of the splits if they are drawn,
        and what splits lack.
    """
    first = found.scenes[0]
    units = "".join(f"{line}\n" for line in unit_lines([(scene.name, scene.sources) for scene in found.scenes]))
    px, labelled = found.split_px(), found.labelled_px()
    what = " and ".join("whole scenes" if how == "scenes" else how for how in found.drawn)
    splits = f"\nSplits drawn as {what}, for `aoi` of an evaluation: {drawn}" if drawn else ""
    if len(found.scenes) == 1:
        grids = f"Grid: {describe_work(first.grid, patch_px)}"
    else:
        total = sum(math.prod(scene.grid.shape) for scene in found.scenes)
        names = listed(scene.name for scene in found.scenes)
        grids = f"Scenes: {len(found.scenes)} ({names}), {total:,} px; the first: {describe_work(first.grid, patch_px)}"
        for modality in found.recipes:
            without = [scene.name for scene in found.scenes if modality not in scene.sources.rasters]
            grids += f"\nWithout {modality}: {listed(without)}" if without else ""
    return (
        f"{grids}\n{first.choice.note}\n{units}"
        f"Classes: {', '.join(found.classes.names)}{_origin(found)}\n"
        f"Pixels: {', '.join(_counted(split, count, labelled.get(split)) for split, count in px.items())}{splits}"
        + "".join(f"\n{line}" for line in (*found.notes, *found.leaks.facts))
    )


def _origin(found: CheckedInputs) -> str:
    """Where the names of the classes come from, where the labels themselves name them."""
    origins = dict.fromkeys(s.sources.labels.origin for s in found.scenes if s.sources.labels is not None)
    named = [origin for origin in origins if origin]
    return f" ({'; '.join(named)})" if named else ""


def _counted(split: str, pixels: int, labelled: int | None) -> str:
    """The pixels of a split, and how many of them have a label where some have none."""
    bare = labelled is None or labelled == pixels
    return f"{pixels:,} {split}" + ("" if bare else f" ({labelled:,} with a label)")
