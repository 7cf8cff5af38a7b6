"""Inspect labels: their values, and reasons why a training would refuse them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import check_labels
from geocrodino.errors import LabelError, RasterError
from geocrodino.geo.labels.bands import check_one_band
from geocrodino.geo.labels.source import LabelSource, find_classes, lossy_notes
from geocrodino.geo.rasters.values import count_values
from geocrodino.phrases import listed
from geocrodino.settings.classes import ClassScheme, number

_LISTED = 20


@dataclass(frozen=True)
class LabelLook:
    """Result of the inspection of labels.

    Attributes:
        values: The label values with their names and shares in percent; empty if the raster has several bands.
        notes: Facts that the user should check.
        problems: Reasons why a training would refuse the labels.
    """

    values: str
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def look_at_labels(labels: LabelSource, classes: ClassScheme | None, grid: GeoBox | None) -> LabelLook:
    """Inspect labels with the checks of a training.

    Args:
        labels: The labels.
        classes: Classes of the labels; None: those found in the file.
        grid: The working grid of the training; None if it is unknown, then the values of the whole file are checked.

    Returns:
        Values, notes and problems. Errors of the checks become problems.

    Raises:
        RasterError: If the values of the file cannot be counted.
    """
    try:
        check_one_band(labels)
    except LabelError as error:
        return LabelLook("", problems=(str(error),))
    counts = count_values(labels, labels.data_bands[0])
    shares, notes = counts.shares(), lossy_notes(labels)
    names = {} if classes is None else classes.by_value
    try:
        if classes is None:
            found = find_classes(labels, counts)
            classes, names, notes = found.scheme, found.scheme.by_value, found.notes
        unknown = [v for v in shares if v not in classes.values]
        if grid is not None:
            check_labels(labels, classes, grid, every_block=bool(unknown or counts.more))
        elif unknown:
            notes += (_unknown_values(unknown),)
    except (LabelError, RasterError) as error:
        return LabelLook(_value_shares(shares, names), notes, (str(error),))
    return LabelLook(_value_shares(shares, names), notes)


def _unknown_values(values: list[float]) -> str:
    return (
        f"values that belong to no class: {listed(map(number, values), most=8)}; a training refuses them in its area. "
        "Name them under `classes`, or leave them out with `ignore_values`"
    )


def _value_shares(shares: Mapping[float, float], names: Mapping[int, str]) -> str:
    known = {float(v): name for v, name in names.items() if name != f"class {v}"}
    entries = [
        " ".join((number(value), *([known[value]] if value in known else []), f"{100 * share:.2g} %"))
        for value, share in shares.items()
    ]
    return listed(entries, most=_LISTED) or "none"
