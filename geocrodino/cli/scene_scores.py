"""Maps and scores of several scenes: ``predict --config``, ``evaluate --config``, and ``train --folds``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from geocrodino.errors import ConfigError

if TYPE_CHECKING:
    from geocrodino.evaluation.scenes import SceneEvaluation
    from geocrodino.prediction.dry_run import MapPlan
    from geocrodino.settings.prediction import Execution
    from geocrodino.training.folds import FoldScores


def evaluate_scenes_of(
    config: Path | None,
    maps: list[Path],
    split: str | None,
    given: Mapping[str, object],
    rules: Mapping[str, Any],
    *,
    out: Path | None,
) -> None:
    """Compare the maps of the scenes of a configuration with their labels.

    Args:
        config: The YAML file.
        maps: One folder, which holds ``NAME.tif`` of each scene; or the map of the only scene.
        split: Split to compare in; None: all areas.
        given: Other options by flag, which do not go together with ``--config``.
        rules: Which pixels and classes count: arguments of `evaluate_scenes` by name.
        out: Folder of the results; None: that of the maps.

    Raises:
        GeocrodinoError: One of its kinds, if options, files or classes do not fit.
    """
    if config is None:
        raise ConfigError("evaluate: expected labels to compare with. Give --labels, or --config of a training.")
    if len(maps) != 1:
        raise ConfigError(f"--config: expected one folder of maps, found {len(maps)} names.")
    for flag, value in given.items():
        if value:
            raise ConfigError(f"{flag}: --config says it for each scene. Leave {flag} out, or name --labels.")
    from geocrodino.cli.precheck import check_folder, check_training

    check_training(config, {}, None, maps[0].parent if out is None else out)

    from geocrodino.errors import OutputError
    from geocrodino.evaluation.scenes import evaluate_scenes
    from geocrodino.files.access import is_folder
    from geocrodino.geo.areas.splits import split_name
    from geocrodino.report.figures import write_figure
    from geocrodino.report.tables import evaluation_table, scenes_table, write_json
    from geocrodino.settings.config import load_config
    from geocrodino.training.scene_maps import scene_maps, scenes_of_split, without_map

    chosen = None if split is None else split_name(split)
    source = maps[0]
    folder = out or (source if is_folder(source) else source.parent)
    check_folder(folder)
    parts = scenes_of_split(load_config(config, {}), chosen, file=config)
    found, bare = scene_maps(parts, source)
    unmapped = without_map(parts, source)
    result = evaluate_scenes(found, split=chosen, **rules)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error}). Choose another folder with --out.") from error
    stem = folder / "-".join(("scenes", *([chosen] if chosen else [])))
    write_json(result, Path(f"{stem}.scores.json"))
    write_figure(result.total, Path(f"{stem}.scores.png"))
    console = Console(highlight=False, soft_wrap=True)
    for path in (f"{stem}.scores.json", f"{stem}.scores.png"):
        console.print(path, markup=False)
    console.print(evaluation_table(result.total))
    _print_whole(scenes_table(result), console)
    _tell_bare((*bare, *result.without_labels), console)
    _tell_skipped("Without a map, because they lack a modality; not counted", unmapped, console)
    if result.total.reliability is not None:
        console.print(f"Expected calibration error {100 * result.total.reliability.expected_calibration_error:.1f} %")


def predict_scenes_of(
    config: Path | None,
    split: str | None,
    modality: str,
    model: Path,
    out: Path | None,
    execution: Execution,
    *,
    preview: Path | None = None,
    overwrite: bool,
    dry_run: bool = False,
) -> None:
    """Map the scenes of a configuration, each into ``<out>/NAME.tif``.

    Args:
        config: The YAML file.
        split: Split to map; None: all areas.
        modality: Name of the modality, or both: an image and heights, or the one of the two that a scene has.
        model: File of the bundle.
        out: Folder of the maps.
        execution: Backend, device, workers and memory.
        preview: Folder for a picture of each map, ``NAME.png``; None: no pictures.
        overwrite: Whether maps are replaced that exist.
        dry_run: Whether to tell what each map needs, and to write nothing.

    Raises:
        GeocrodinoError: One of its kinds, if options or files do not fit.
    """
    from geocrodino.settings.modality import MODALITIES

    if config is None:
        raise AssertionError("checked by the command")
    if out is None:
        raise ConfigError("--config: expected a folder for the maps of the scenes. Name it with --out.")
    if modality != "both" and not MODALITIES.knows(modality):
        raise ConfigError(
            f"--modality {modality}: with --config expected {', '.join(MODALITIES)} or both. With both, a scene that "
            "lacks an image or heights is mapped from the other one."
        )
    from geocrodino.cli.precheck import check_folder, check_training
    from geocrodino.files.bundle_name import check_bundle_name

    check_bundle_name(model)
    check_training(config, {}, None, out)
    if preview is not None:
        if preview.suffix.lower() == ".png":
            raise ConfigError(f"--preview {preview}: with --config expected a folder, for a picture of each map.")
        check_folder(preview, "--preview")

    from geocrodino.bundle.io import load_bundle
    from geocrodino.geo.areas.splits import split_name
    from geocrodino.prediction.memory import share_freed_memory
    from geocrodino.settings.config import load_config
    from geocrodino.training.scene_maps import plan_scene_maps, predict_scenes, scenes_of_split, with_modality

    chosen = None if split is None else split_name(split)
    parts = scenes_of_split(load_config(config, {}), chosen, file=config, run=model.parent)
    console, without = Console(highlight=False, soft_wrap=True), with_modality(parts, modality)[1]
    given = (parts, load_bundle(model), modality, out)
    if dry_run:
        plans = list(plan_scene_maps(*given, execution=execution, pictures=preview, overwrite=overwrite))
        for line in _plan_lines(plans):
            console.print(line, markup=False)
    else:
        share_freed_memory()
        for path in predict_scenes(*given, execution=execution, pictures=preview, overwrite=overwrite):
            console.print(str(path), markup=False)
    _tell_skipped(f"Without a raster of {modality}, not mapped", without, console)


def _plan_lines(plans: Sequence[MapPlan]) -> Iterator[str]:
    """Describe the maps of several scenes: the first in full, what all need together."""
    from dask.utils import format_bytes

    from geocrodino.phrases import duration

    yield f"Dry run: {len(plans)} map{'s' * (len(plans) != 1)}"
    for plan in plans:
        yield f"{plan.writes[0]}: about {plan.tiles:,} tiles, {duration(plan.seconds)}; {plan.scene}"
    if len(plans) == 1:
        yield from plans[0].lines()
    disk, seconds = sum(plan.map_bytes for plan in plans), sum(plan.seconds for plan in plans)
    memory = format_bytes(max(plan.memory_bytes for plan in plans))
    yield (
        f"Together: at most {format_bytes(disk)} of maps before compression, about {memory} of memory, about "
        f"{duration(seconds)} from one tile computed with PyTorch"
    )
    yield "Nothing was written."


def _tell_bare(names: tuple[str, ...], console: Console) -> None:
    _tell_skipped("Without labels there, not counted", names, console)


def _tell_skipped(why: str, names: tuple[str, ...], console: Console) -> None:
    from geocrodino.phrases import listed

    if names:
        console.print(f"{why}: {listed(names)}", markup=False)


def show_folds(found: Mapping[str, FoldScores], console: Console, folder: Path) -> None:
    """Print the scores of a cross-validation.

    Args:
        found: Scores by modality.
        console: Where to print.
        folder: Folder of the folds.
    """
    from geocrodino.report.tables import evaluation_table, scenes_table
    from geocrodino.training.folds import RECORD

    for modality, scores in found.items():
        every: SceneEvaluation = scores.all
        console.print(f"Scores of all folds with {modality}")
        console.print(evaluation_table(every.total))
        _print_whole(scenes_table(every), console)
        mean, spread = scores.spread
        deviation = "" if math.isnan(spread) else f" ± {100 * spread:.1f}"
        console.print(f"mIoU of the folds: {100 * mean:.1f}{deviation} %")
    console.print(f"Scores: {folder / RECORD}", markup=False)


def _print_whole(table: Table, console: Console) -> None:
    """Print a table with a column for each class; in a pipe or a file it is as wide as it needs."""
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        console = Console(file=console.file, highlight=False, width=max(console.width, needed))
    console.print(table)
