"""Int8 networks for the bundle of a finished training, calibrated and measured on its validation split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocrodino.bundle.io import Bundle, add_int8, load_bundle
from geocrodino.bundle.manifest import Int8Network
from geocrodino.data.alignment import Progress
from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule, ValidationWindows
from geocrodino.errors import BundleError, ConfigError
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.files.access import exists
from geocrodino.prediction.backends.int8 import quantise_graph, require_nncf, tensors_of
from geocrodino.prediction.backends.openvino import Graph, OpenVinoBackend, UnusableError, convert_branch
from geocrodino.prediction.tiles.choose import choose_lattice
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import Tiling
from geocrodino.training import folder as run_folder
from geocrodino.training.checks import SCENES
from geocrodino.training.prepare import Prepared, changed_inputs, prepare
from geocrodino.training.scenes import of_earlier_run

MOST_LOST_POINTS = 0.2
"""Largest loss of mIoU on ``val``, in percentage points, with which an int8 network is kept."""

CALIBRATION_TILES = 64
"""Most validation windows from which the ranges of activations are measured."""


@dataclass(frozen=True)
class QuantiseResult:
    """Result of a quantisation.

    Attributes:
        bundle: The bundle.
        measured: Facts about the int8 network of each branch.
        kept: The branches whose int8 network the bundle holds now.
    """

    bundle: Path
    measured: dict[Modality, Int8Network]
    kept: tuple[Modality, ...]


def quantise(
    run: str | Path, *, on_progress: Progress | None = None, tell: Callable[[str], None] | None = None
) -> QuantiseResult:
    """Add int8 networks to the bundle of a finished training, for ``precision='int8'`` of a prediction.

    The ranges of activations are measured on windows of the validation split, read through the files of the training.
    An int8 network is kept if its mIoU on ``val`` is at most 0.2 percentage points below that of the float32 network.
    The bundle is written anew: it gets another hash, and loses the int8 networks that it had.

    Args:
        run: Run folder of the training.
        on_progress: Called with the numbers of finished and of all blocks, if the rasters have to be aligned again.
        tell: Called with a line for each branch.

    Returns:
        What was measured and kept.

    Raises:
        BundleError: If the folder holds no bundle, or a network cannot be quantised.
        ConfigError: If NNCF is not installed, or the files of the training have changed.
        GeocrodinoError: One of its kinds, if they cannot be read.
    """
    require_nncf()
    run, tell = Path(run), tell or (lambda _: None)
    path = run / run_folder.BUNDLE_NAME
    _require_bundle(run)
    bundle = load_bundle(path)
    config = run_folder.recorded_settings(run)  # with the grid that it was trained on, also of version 0.1
    with run_folder.alone(run):
        ready = prepare(of_earlier_run(config), run, on_progress)
        _require_unchanged(ready, run)
        data = _data(config, ready)
        unused_px = choose_lattice(ready.grid, bundle, Tiling(), keeps_probabilities=False)[0].unused_px
        measured: dict[Modality, Int8Network] = {}
        kept: dict[Modality, tuple[Int8Network, dict[str, NDArray[np.generic]]]] = {}
        for modality in bundle.manifest.modalities:
            facts, graph = _quantise_branch(bundle, modality, unused_px, data)
            measured[modality] = facts
            if _lost_points(facts) <= MOST_LOST_POINTS:
                kept[modality] = (facts, tensors_of(graph))
            tell(_describe(modality, facts, kept=modality in kept))
        if kept or bundle.manifest.int8:
            add_int8(bundle, kept)
    return QuantiseResult(path, measured, tuple(kept))


def _require_bundle(run: Path) -> None:
    if exists(run / run_folder.BUNDLE_NAME):
        return
    if exists(run / run_folder.FUSION_NAME):
        raise BundleError(
            f"{run}: expected a run with {run_folder.BUNDLE_NAME}, found one of the method fusion, which has none.\n"
            "Name a run of another method."
        )
    raise BundleError(
        f"{run}: expected the run folder of a finished training with {run_folder.BUNDLE_NAME}, found none.\n"
        "Name the folder that `geocrodino train` wrote."
    )


def _lost_points(facts: Int8Network) -> float:
    """Loss of mIoU in percentage points, rounded as it is printed."""
    return round(100 * (facts.val_miou["float32"] - facts.val_miou["int8"]), 2)


def _describe(modality: Modality, facts: Int8Network, *, kept: bool) -> str:
    full, int8 = (100 * facts.val_miou[kind] for kind in ("float32", "int8"))
    fate = (
        "kept"
        if kept
        else f"not kept: it loses {_lost_points(facts):.2f} points, expected at most {MOST_LOST_POINTS:g}"
    )
    return (
        f"{modality}: mIoU on val {full:.2f} % in float32, {int8:.2f} % in int8; {100 * facts.same_class:.2f} % of the "
        f"pixels have the same class; {fate}"
    )


def _require_unchanged(ready: Prepared, run: Path) -> None:
    changed = changed_inputs(ready, run)
    if changed:
        raise ConfigError(
            f"{run}: expected the files that the training read; changed since then: {', '.join(changed)}.\n"
            "Restore them, or train again."
        )


def _data(config: TrainConfig, ready: Prepared) -> CoregisteredDataModule:
    settings = config.training
    plan = BatchPlan(settings.patch_px, settings.patches, settings.steps_per_epoch, seed=settings.seed)
    return CoregisteredDataModule(ready.scenes, ready.specs, plan, config.data.aoi or SCENES)


def _quantise_branch(
    bundle: Bundle, modality: Modality, unused_px: int, data: CoregisteredDataModule
) -> tuple[Int8Network, Graph]:
    """The int8 network of a branch, and what is measured with it."""
    try:
        graph = convert_branch(bundle, modality, unused_px)
        windows = data.val_tiles(graph.trim_px)
        tiles = _calibration_tiles(windows, modality)
        made = quantise_graph(graph, tiles)
    except UnusableError as error:
        raise BundleError(
            f"{bundle.path}: the {modality} branch cannot be quantised: {error}.\nUse `precision='full'`."
        ) from error
    miou, same = _compare(graph, made, windows, modality, len(bundle.manifest.classes))
    facts = Int8Network(
        unused_px=unused_px,
        trim_px=graph.trim_px,
        val_miou=miou,
        same_class=same,
        calibration_tiles=len(tiles),
        versions={name: version(name) for name in ("nncf", "openvino")},
    )
    return facts, made


def _calibration_tiles(windows: ValidationWindows, modality: Modality) -> list[NDArray[np.float32]]:
    """Channels of validation windows, spread evenly over the split; those without any valid pixel are left out."""
    scenes = windows.dataset.scenes
    there = [i for i, place in enumerate(windows.windows) if modality in scenes[place.scene].layers.modalities]
    places = np.unique(np.linspace(0, len(there) - 1, min(len(there), CALIBRATION_TILES)).round().astype(int))
    samples = [windows[there[place]] for place in places.tolist()]
    seen = [sample for sample in samples if sample[f"{modality}_valid"].any()]
    return [sample[modality].numpy() for sample in seen or samples]


def _compare(
    full: Graph, int8: Graph, windows: ValidationWindows, modality: Modality, classes: int
) -> tuple[dict[str, float], float]:
    """The mIoU of the float32 and the int8 network on ``val``, and the share of valid pixels with the same class."""
    backends = {"float32": OpenVinoBackend(full), "int8": OpenVinoBackend(int8, int8=True)}
    counts = {kind: ConfusionMatrix(classes) for kind in backends}
    same = seen = 0
    for index in range(len(windows)):
        sample, trim = windows[index], full.trim_px
        inside = tuple(slice(trim, side - trim) for side in sample["labels"].shape)
        valid = sample[f"{modality}_valid"].numpy()[inside]
        labels = np.where(valid, sample["labels"].numpy()[inside], IGNORE_INDEX)
        found = {kind: backend.classes(sample[modality].numpy()) for kind, backend in backends.items()}
        for kind, indices in found.items():
            counts[kind].update(labels, indices)
        same += int((found["float32"] == found["int8"])[valid].sum())
        seen += int(valid.sum())
    return {kind: counted.scores().mean_iou for kind, counted in counts.items()}, same / seen
