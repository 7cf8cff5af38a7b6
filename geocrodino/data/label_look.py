"""Inspect labels: their values, and reasons why a training would refuse them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import check_labels
from geocrodino.errors import LabelError, RasterError
from geocrodino.geo.labels.bands import check_one_band
from geocrodino.geo.labels.source import LabelSource, find_classes, label_classes, lossy_notes
from geocrodino.phrases import listed
from geocrodino.settings.classes import ClassScheme, number, unnamed

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
    if labels.names is not None or not labels.has_pixels:
        return _look_by_name(labels, classes, grid)
    counts = labels.count_labels()
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


def _look_by_name(labels: LabelSource, classes: ClassScheme | None, grid: GeoBox | None) -> LabelLook:
    """Inspect labels that name their classes, and shapes."""
    values: str = ""
    notes: tuple[str, ...] = ()
    try:
        notes = labels.check()
        shares = labels.count_labels().shares()
        named = dict(enumerate(labels.names or ()))
        values = listed((_share(named.get(int(v), number(v)), share) for v, share in shares.items()), most=_LISTED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these are the notes
            scheme = label_classes([labels], classes)
        if grid is not None:
            check_labels(labels, scheme, grid, every_block=True)
    except (LabelError, RasterError) as error:
        return LabelLook(values, notes, (str(error),))
    return LabelLook(values, notes)


def _share(name: str, share: float) -> str:
    return f"{name} {100 * share:.2g} %"


def _unknown_values(values: list[float]) -> str:
    return (
        f"values that belong to no class: {listed(map(number, values), most=8)}; a training refuses them in its area. "
        "Name them under `classes`, or leave them out with `ignore_values`"
    )


def _value_shares(shares: Mapping[float, float], names: Mapping[int, str]) -> str:
    known = {float(v): name for v, name in names.items() if name != unnamed(v)}
    entries = [
        " ".join((number(value), *([known[value]] if value in known else []), f"{100 * share:.2g} %"))
        for value, share in shares.items()
    ]
    return listed(entries, most=_LISTED) or "none"
