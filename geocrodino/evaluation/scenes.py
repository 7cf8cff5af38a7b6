"""Comparison of the maps of several scenes with their labels: one score of all, and one of each scene."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geocrodino.errors import LabelError, NoLabelError
from geocrodino.evaluation.evaluate import evaluate_map
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.evaluation.results import Evaluation
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.labels.source import LabelSource
from geocrodino.phrases import listed
from geocrodino.settings.classes import ClassScheme


@dataclass(frozen=True)
class SceneMap:
    """The map of a scene and what it is compared with.

    Attributes:
        name: Name of the scene.
        map_path: Its class map.
        labels: Its labels, a file or opened with the rules of the scene.
        aoi: Areas to compare in; None: the whole raster.
    """

    name: str
    map_path: Path
    labels: str | Path | LabelSource
    aoi: AOI | None = None


@dataclass(frozen=True)
class SceneEvaluation:
    """The maps of several scenes, compared with their labels.

    Attributes:
        total: Scores of the summed confusion matrix of all scenes. Its map is the folder of the maps.
        scenes: The evaluation of each scene by name.
        without_labels: Names of scenes without a labelled pixel in their areas; they do not count.
    """

    total: Evaluation
    scenes: Mapping[str, Evaluation]
    without_labels: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON.

        Returns:
            The values of all scenes together, and those of each scene under ``scenes``. Undefined scores are None.
        """
        total = self.total.as_dict()
        shared = ("classes", "split", "missed_count_as_wrong", "boundary_px", "classes_in_no_mean")
        own = {name: found.as_dict() for name, found in self.scenes.items()}
        return {
            **{key: value for key, value in total.items() if key not in ("labels", "aoi")},
            "scenes": {name: {k: v for k, v in each.items() if k not in shared} for name, each in own.items()},
            "without_labels": list(self.without_labels),
        }


def evaluate_scenes(
    maps: Sequence[SceneMap],
    *,
    split: str | None = None,
    classes: ClassScheme | None = None,
    count_missed: bool = False,
    boundary_px: int = 0,
    exclude: Collection[str] = (),
    block_px: int = 1024,
) -> SceneEvaluation:
    """Compare the maps of several scenes with their labels.

    Every labelled pixel of all scenes counts once: confusion matrices are summed, so the scores are those of one mosaic
    of the scenes, and no means of the scores of scenes.

    Args:
        maps: Map, labels and areas of each scene.
        split: Split of the areas to use; None: all areas.
        classes: Classes; None: those in the maps' tags.
        count_missed: Whether labelled pixels without a class in a map count as wrong.
        boundary_px: Leave out labelled pixels at most this far from another class, px of the labels.
        exclude: Names of classes that are in no mean.
        block_px: Side of the blocks that are read at once, in px.

    Returns:
        The scores of all scenes together and of each.

    Raises:
        ValueError: If there is no map, or ``split`` is given for a scene without areas.
        NoLabelError: If no scene has a labelled pixel.
        LabelError: If the maps have different classes.
        GeocrodinoError: As for `evaluate_map`.
    """
    if not maps:
        raise ValueError("expected the maps of one or more scenes, found none")
    found: dict[str, Evaluation] = {}
    bare = []
    for each in maps:
        try:
            found[each.name] = evaluate_map(
                each.map_path,
                each.labels,
                aoi=each.aoi,
                split=split,
                classes=classes,
                count_missed=count_missed,
                boundary_px=boundary_px,
                exclude=exclude,
                block_px=block_px,
            )
        except NoLabelError:
            bare.append(each.name)
    if not found:
        where = f" in areas of the split {split}" if split else ""
        raise NoLabelError(f"no labelled pixel{where} in any of the {len(maps)} scenes: {listed(bare)}.")
    return SceneEvaluation(sum_evaluations(found), found, tuple(bare))


def sum_evaluations(found: Mapping[str, Evaluation]) -> Evaluation:
    """Sum the confusion matrices of evaluations with the same classes.

    Args:
        found: One or more evaluations by name.

    Returns:
        The evaluation of all pixels together.

    Raises:
        LabelError: If classes differ.
    """
    (first_name, first), *others = found.items()
    matrix = ConfusionMatrix(len(first.scheme))
    reliability = None
    for name, each in found.items():
        if each.scheme.by_value != first.scheme.by_value:
            raise LabelError(
                f"{each.map_path} (scene {name}) has other classes than {first.map_path} (scene {first_name}). "
                "Expected maps of one bundle: evaluate the others by themselves."
            )
        matrix.counts += each.confusion
        matrix.missed += each.missed
        if each.reliability is not None:
            reliability = each.reliability if reliability is None else reliability.add(each.reliability)
    if not others:
        return first
    return replace(
        first,
        map_path=first.map_path.parent,
        labels_path=Path(f"{len(found)} scenes"),
        aoi=None,
        confusion=matrix.counts,
        missed=matrix.missed,
        scores=first.scores_of(matrix),
        reliability=reliability,
    )
