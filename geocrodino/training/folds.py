"""Cross-validation: one training for each fold, and the scores of all folds together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning.pytorch.callbacks import Callback

from geocrodino.bundle.io import load_bundle
from geocrodino.data.alignment import Progress
from geocrodino.errors import ConfigError
from geocrodino.evaluation.scenes import SceneEvaluation, evaluate_scenes, sum_evaluations
from geocrodino.files.access import exists
from geocrodino.phrases import listed
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import Modality
from geocrodino.training import folder as run_folder
from geocrodino.training import number_format
from geocrodino.training.devices import with_devices
from geocrodino.training.learners.build import learner_class
from geocrodino.training.run import train
from geocrodino.training.scene_maps import predict_scenes, scene_maps, scenes_of_split, with_modality
from geocrodino.training.scenes import held_out
from geocrodino.training.start import find_start, with_network

RECORD = "folds.json"
"""The scores of all folds, in the folder of the folds."""


@dataclass(frozen=True)
class FoldScores:
    """Scores of a cross-validation with one modality.

    Attributes:
        all: Scores of the summed confusion matrix; each row is a fold.
        folds: The evaluation of each fold whose test scenes have the modality, with a row for each of these scenes.
    """

    all: SceneEvaluation
    folds: tuple[SceneEvaluation, ...]

    @property
    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the mIoU of the folds, 0 to 1; NaN for the deviation of a single fold."""
        each = [fold.total.scores.mean_iou for fold in self.folds]
        return fmean(each), stdev(each) if len(each) > 1 else math.nan


def train_folds(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
    callbacks: Callable[[], list[Callback]] = list,
    tell: Callable[[str], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Mapping[Modality, FoldScores]:
    """Train once for each fold, and score each training on the fold that it did not see.

    Fold ``k`` is the split ``test`` of the training in ``<out>/fold-<k>``. Its scenes are predicted with each modality
    into ``<out>/fold-<k>/maps/<modality>/`` and compared with their labels. Every labelled pixel is tested once, so the
    summed confusion matrix is that of the whole data.

    Args:
        config: Settings with ``data.splits.folds``, and without ``fold``.
        out: Folder of the folds; gets ``folds.json``.
        resume: Continue an interrupted cross-validation: finished folds are kept.
        overwrite: Replace earlier folds.
        on_progress: As for `geocrodino.train`.
        callbacks: Makes more Lightning callbacks for each training.
        tell: Called with lines for the user.
        on_stage: As for `geocrodino.train`.

    Returns:
        The scores by modality.

    Raises:
        ConfigError: If there is no number of folds, the method writes no bundle, or a finished fold has other settings.
        GeocrodinoError: As for `geocrodino.train` and `geocrodino.predict`.
    """
    out, tell = Path(out), tell or (lambda _: None)
    number = number_of_folds(config)
    found: dict[Modality, dict[int, SceneEvaluation]] = {m: {} for m in config.data.modalities()}
    for fold in range(number):
        own, folder = held_out(config, fold), out / f"fold-{fold}"
        tell(f"Fold {fold + 1} of {number}, in {folder}")
        if resume and exists(folder / run_folder.BUNDLE_NAME):
            _require_same(own, folder)
            tell("It is finished already.")
        else:
            train(
                own,
                folder,
                resume=resume and exists(folder / run_folder.SETTINGS_NAME),
                overwrite=overwrite,
                on_progress=on_progress,
                callbacks=callbacks(),
                tell=tell,
                on_stage=on_stage,
            )
        for modality, scores in _scored(own, folder, on_stage, tell).items():
            found[modality][fold] = scores
            tell(f"Fold {fold + 1}: mIoU on test {100 * scores.total.scores.mean_iou:.1f} % with {modality}.")
    joined = {m: FoldScores(_joined(each), tuple(each.values())) for m, each in found.items() if each}
    run_folder.save_json(out / RECORD, _as_dict(joined))
    return joined


def number_of_folds(config: TrainConfig) -> int:
    """Get the number of folds of a cross-validation, and check that its trainings can be scored.

    Args:
        config: Settings with ``data.splits.folds``, and without ``fold``.

    Returns:
        The number.

    Raises:
        ConfigError: If there is none, a single fold is named, or the method writes no bundle.
    """
    splits = config.data.splits
    if splits is None or splits.folds is None:
        raise ConfigError("data.splits.folds: expected a number of folds, found none. Give one, such as 5.")
    if splits.fold is not None:
        raise ConfigError(
            f"data.splits.fold: {splits.fold} is held out in a single training. Leave fold out to train all folds."
        )
    if learner_class(config.method).deploys != "bundle":
        raise ConfigError(
            f"method.name {config.method.name}: folds are scored with the branches of a bundle, which this method does "
            "not write. Use crodino, mutual or single."
        )
    return splits.folds


def _require_same(config: TrainConfig, folder: Path) -> None:
    """Check that a finished fold was trained with the same settings."""
    before = run_folder.recorded_settings(folder)
    config = with_network(config, find_start(config, folder, resume=True))
    precision = number_format.resolve(config.training.precision, config.training.accelerator)
    config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    config = with_devices(config)
    now = run_folder.on_recorded_grid(run_folder.with_recorded_epochs(config, folder), before)
    run_folder.require_same(before, now, folder)


def _scored(
    config: TrainConfig, folder: Path, on_stage: Callable[[str], None] | None, tell: Callable[[str], None]
) -> dict[Modality, SceneEvaluation]:
    """Predict the scenes that a fold has not seen, and compare the maps with their labels."""
    bundle = load_bundle(folder / run_folder.BUNDLE_NAME)
    parts = scenes_of_split(config, "test")
    found = {}
    for modality in bundle.manifest.modalities:
        if on_stage is not None:
            on_stage(f"Predicting the test scenes with {modality}")
        maps = folder / "maps" / modality
        there, without = with_modality(parts, modality)
        if without:
            tell(f"Scenes of test without a raster of {modality}, not scored with it: {listed(without)}.")
        if not any(part.labels is not None for part in there):
            continue
        for _ in predict_scenes(there, bundle, modality, maps, overwrite=True):
            pass
        found[modality] = evaluate_scenes(scene_maps(there, maps)[0], split="test")
    return found


def _joined(folds: Mapping[int, SceneEvaluation]) -> SceneEvaluation:
    totals = {f"fold-{number}": fold.total for number, fold in folds.items()}
    return SceneEvaluation(sum_evaluations(totals), totals)


def _as_dict(scores: Mapping[Modality, FoldScores]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for modality, each in scores.items():
        mean, spread = each.spread
        total = each.all.as_dict()
        found[modality] = {
            **{key: total[key] for key in ("classes", "scores", "confusion", "missed")},
            "fold_mean_iou": {
                "mean": None if math.isnan(mean) else mean,
                "standard_deviation": None if math.isnan(spread) else spread,
            },
            "folds": [fold.as_dict() for fold in each.folds],
        }
    return found
