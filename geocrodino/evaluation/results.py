"""Results of the comparison of class maps with labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.metrics import ConfusionMatrix, Scores
from geocrodino.settings.classes import ClassScheme


@dataclass(frozen=True)
class Evaluation:
    """A map, the labels it was compared with, and the result.

    Attributes:
        map_path: The class map.
        labels_path: The labels. Pixels are compared on their grid.
        aoi: Source of the areas; None: the whole raster.
        split: The split of the areas; None: all areas.
        scheme: The classes, K of them.
        confusion: Counts of labelled pixels, rows are the labels, columns the map, int64, shape (K, K).
        missed: Labelled pixels of each class without a class in the map, int64, shape (K,).
        scores: Scores of all pixels together.
        count_missed: Whether labelled pixels without a class in the map count as wrong in the scores.
        reliability: Confidence and accuracy, if the map has a layer of confidence (``NAME.layers.tif`` beside it).
        boundary_px: Pixels of the labels at most this far from another class are left out, px of the labels.
        excluded: Names of classes that are in no mean.
    """

    map_path: Path
    labels_path: Path
    aoi: str | None
    split: str | None
    scheme: ClassScheme
    confusion: NDArray[np.int64]
    missed: NDArray[np.int64]
    scores: Scores
    count_missed: bool = False
    reliability: Reliability | None = None
    boundary_px: int = 0
    excluded: tuple[str, ...] = ()

    def scores_of(self, matrix: ConfusionMatrix) -> Scores:
        """Compute scores of other pixels by the rules of this evaluation.

        Args:
            matrix: Counts of the same classes.

        Returns:
            The scores.
        """
        excluded = {index for index, c in enumerate(self.scheme.classes) if c.name in self.excluded}
        return matrix.scores(count_missed=self.count_missed, excluded=excluded)

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON.

        Returns:
            The attributes by name. Undefined scores are None.
        """
        plain = {
            name: [_number(v) for v in value] if isinstance(value, tuple) else _number(value)
            for name, value in asdict(self.scores).items()
        }
        return {
            "map": str(self.map_path),
            "labels": str(self.labels_path),
            "aoi": self.aoi,
            "split": self.split,
            "classes": [c.model_dump() for c in self.scheme.classes],
            "scores": plain,
            "confusion": self.confusion.tolist(),
            "missed": self.missed.tolist(),
            "missed_count_as_wrong": self.count_missed,
            "boundary_px": self.boundary_px,
            "classes_in_no_mean": list(self.excluded),
            "calibration_error": None if self.reliability is None else self.reliability.expected_calibration_error,
        }


@dataclass(frozen=True)
class Comparison:
    """Several maps compared with the same labels.

    Attributes:
        evaluations: The evaluation of each map by name, on all labelled pixels that it covers.
        common: The evaluation of each map by name, on the labelled pixels where every map has a class. If pixels
            without a class count as wrong, on all labelled pixels.
        left_out: Labelled pixels with a class in this map but not in every map, by name of the map.
    """

    evaluations: Mapping[str, Evaluation]
    common: Mapping[str, Evaluation]
    left_out: Mapping[str, int]

    @property
    def pixels(self) -> int:
        """Number of labelled pixels on which the maps are compared."""
        return next(iter(self.common.values())).scores.pixels

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON.

        Returns:
            Shared values, and the scores of each map under ``maps``. Undefined scores are None.
        """
        shared = (
            "labels", "aoi", "split", "classes", "missed_count_as_wrong", "boundary_px", "classes_in_no_mean",
        )  # fmt: skip
        maps = {name: evaluation.as_dict() for name, evaluation in self.common.items()}
        first = next(iter(maps.values()))
        own = ("map", "scores", "confusion", "missed")
        return {
            **{key: first[key] for key in shared},
            "pixels": self.pixels,
            "maps": {
                name: {**{key: found[key] for key in own}, "pixels_left_out": self.left_out[name]}
                for name, found in maps.items()
            },
        }


def _number(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
