"""Preparation of a training: open and check its files, align the rasters, measure the training split."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geocrodino.data.alignment import AlignedLayers, Progress, align
from geocrodino.data.grid_choice import GridChoice, describe_work
from geocrodino.data.sources import Sources
from geocrodino.data.statistics import class_counts, measure
from geocrodino.errors import HeightRangeWarning
from geocrodino.files.access import durable_file
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.rasters.units import ground_unit, height_unit
from geocrodino.modalities.few_values import few_values, few_values_note
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import Modality
from geocrodino.training import folder as run_folder
from geocrodino.training.checks import CheckedInputs, check_inputs
from geocrodino.training.start import Start


@dataclass(frozen=True)
class Prepared:
    """Inputs of a training, checked and aligned.

    Attributes:
        sources: The rasters.
        choice: The whole working grid and the reason for it.
        classes: The classes.
        aoi: Areas with a split, in the grid's CRS.
        layers: The rasters on one grid.
        labels: Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``.
        inside: Pixels of ``train``, ``val`` and, where there is such a split, ``unlabelled``; bool, shape (H, W).
        specs: How each modality is read and normalised.
        drawn: The splits, where they were drawn as blocks because the area names none; for `geocrodino evaluate`.
        start: The bundle that the training starts from, if any.
        encoder_weights: What the encoders start from; a modality without an entry starts from random weights. Branches
            that start from a bundle have no entry.
        teacher_weights: The same for a teacher that this training trains, which starts without the bundle.
    """

    sources: Sources
    choice: GridChoice
    classes: ClassScheme
    aoi: AOI
    layers: AlignedLayers
    labels: NDArray[np.uint8]
    inside: dict[str, NDArray[np.bool_]]
    specs: dict[Modality, ModalitySpec]
    drawn: Path | None
    start: Start | None = None
    encoder_weights: Mapping[Modality, Pretrained] = field(default_factory=dict)
    teacher_weights: Mapping[Modality, Pretrained] = field(default_factory=dict)

    def of_teacher(self) -> Prepared:
        """Give the inputs of the teacher.

        Returns:
            The same inputs with the teacher's encoder weights, and without the bundle, which holds no fusion network.
        """
        return replace(self, start=None, encoder_weights=self.teacher_weights)


def prepare(
    config: TrainConfig,
    folder: Path,
    on_progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
    check: Callable[[CheckedInputs], None] = lambda _: None,
) -> Prepared:
    """Check all files, align the rasters and measure the training split.

    Args:
        config: The configuration.
        folder: The run folder; gets ``aligned/``.
        on_progress: Called with the numbers of finished and of all blocks, after each aligned block.
        tell: Called with a summary of the inputs before the rasters are aligned, which may take long.
        on_stage: Called with the name of each stage when it begins.
        check: Called with the checked inputs before the rasters are aligned; its errors are passed on.

    Returns:
        The aligned layers, the splits and the statistics of the channels.

    Raises:
        GeocrodinoError: One of its kinds, see `check_inputs` and `align`.
    """
    on_stage("Opening and checking rasters")
    found = check_inputs(config)
    sources, recipes = found.sources, found.recipes
    drawn = folder / run_folder.SPLITS_NAME if found.drawn else None
    if tell is not None:
        tell(summarise_inputs(found, config.training.patch_px, drawn))
    check(found)
    on_stage("Aligning rasters")
    layers = align(sources, recipes, found.classes, found.grid, folder / run_folder.ALIGNED_NAME, on_progress)
    _warn_of_heights(sources, layers)
    on_stage("Measuring the channels")
    given = sources.ground is not None
    specs = {m: measure(layers, recipes[m], found.inside["train"], ground_given=given) for m in recipes}
    return Prepared(sources, found.choice, found.classes, found.aoi, layers, found.labels, found.inside, specs, drawn)


def record(ready: Prepared, folder: Path, *, resume: bool) -> None:
    """Write ``splits.gpkg``, ``statistics.json`` and the hashes of the inputs into the run folder.

    Args:
        ready: Inputs of the training.
        folder: The run folder.
        resume: Whether the run is resumed; then the inputs must be those with which it began.

    Raises:
        ConfigError: If a resumed run would read other data than it began with.
        OutputError: If a file cannot be written.
    """
    run_folder.keep_inputs(folder, _digest(ready.labels, ready.inside, ready.specs), resume=resume)
    _save_splits(ready.aoi, folder / run_folder.SPLITS_NAME)
    counts = class_counts(ready.labels, ready.inside["train"], len(ready.classes)).tolist()
    statistics: dict[str, Any] = {m: [c.model_dump() for c in s.channels] for m, s in ready.specs.items()}
    run_folder.save_json(
        folder / "statistics.json", {**statistics, "class_px": dict(zip(ready.classes.names, counts, strict=True))}
    )


def changed_inputs(ready: Prepared, folder: Path) -> list[str]:
    """Compare prepared inputs with those of a run.

    Args:
        ready: Inputs of the training.
        folder: The run folder.

    Returns:
        Names of the inputs that have changed since the run began.

    Raises:
        ConfigError: If the folder has no record of its inputs.
    """
    return run_folder.changed_inputs(folder, _digest(ready.labels, ready.inside, ready.specs))


def _save_splits(aoi: AOI, path: Path) -> None:
    with durable_file(path, RuntimeError, ValueError) as partial:  # the kinds of pyogrio's errors
        aoi.save(partial)
        found = len(gpd.read_file(partial))  # GDAL may report success although a full disk has cut the file short
        if found != len(aoi.frame):
            raise ValueError(f"{found} of {len(aoi.frame)} polygons were written")


def _digest(
    labels: NDArray[np.uint8], inside: dict[str, NDArray[np.bool_]], specs: dict[Modality, ModalitySpec]
) -> dict[str, str]:
    """Hashes of the inputs of a training: places of the splits, labels, and statistics of the channels."""
    inputs = {
        "polygons of the splits": b"".join(
            name.encode() + np.packbits(mask).tobytes() for name, mask in inside.items()
        ),
        "labels": labels.tobytes(),
        # Rounded, because the last digits of a logarithm differ between processors.
        "rasters": " ".join(
            f"{c.name} {c.low:.5g} {c.high:.5g} {c.mean:.5g} {c.std:.5g}" for s in specs.values() for c in s.channels
        ).encode(),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in inputs.items()}


def _warn_of_heights(sources: Sources, layers: AlignedLayers) -> None:
    """Warn of impossible heights that were read as missing, and of rasters whose values look like classes."""
    for role, raster in sources.heights.items():
        classes = few_values(raster) if role != "ground" else 0
        if classes:
            warnings.warn(few_values_note(raster, classes), HeightRangeWarning, stacklevel=3)
    for role, found in layers.impossible.items():
        warnings.warn(found.note(sources.heights[role]), HeightRangeWarning, stacklevel=3)


def _origin(found: CheckedInputs) -> str:
    """Where the names of the classes come from, where the labels themselves name them."""
    labels = found.sources.labels
    return "" if labels is None or not labels.origin else f" ({labels.origin})"


def summarise_inputs(found: CheckedInputs, patch_px: int, drawn: Path | None) -> str:
    """Describe the inputs of a training for the user.

    Args:
        found: Inputs of the training.
        patch_px: Side of a training patch, px.
        drawn: File of the splits, where they are drawn as blocks.

    Returns:
        Lines: the grid, its pixel size and the reason for it, the unit of heights and where it is known from, the
        classes, the pixels of each split, and the file of the splits if they are drawn as blocks.
    """
    sources = found.sources
    units = {
        role: (ground_unit if role == "ground" else height_unit)(raster, sources.height_unit)[1]
        for role, raster in sources.heights.items()
    }
    unit = "; ".join(f"ground: {known}" if role == "ground" else known for role, known in units.items())
    line = "\n" if unit else ""
    px = {s: int(m.sum()) for s, m in found.inside.items()}
    blocks = f"\nSplits drawn as blocks, for `aoi` of an evaluation: {drawn}" if drawn else ""
    return (
        f"Grid: {describe_work(found.grid, patch_px)}\n{found.choice.note}\n{unit[:1].upper()}{unit[1:]}{line}"
        f"Classes: {', '.join(found.classes.names)}{_origin(found)}\n"
        f"Pixels: {', '.join(f'{count:,} {split}' for split, count in px.items())}{blocks}"
    )
