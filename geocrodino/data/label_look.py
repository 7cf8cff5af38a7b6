"""What an inspection finds in labels: their values, and all that a training would refuse."""

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
    """What was found.

    Attributes:
        values: The label values with their names and shares; empty if the raster has several bands.
        notes: What deserves attention.
        problems: Why a training would refuse the labels.
    """

    values: str
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def look_at_labels(labels: LabelSource, classes: ClassScheme | None, grid: GeoBox | None) -> LabelLook:
    """Look at labels as a training does.

    Args:
        labels: The labels.
        classes: Classes, if they are named.
        grid: The grid that a training would read them on, if it is known.
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
        strange = [v for v in shares if v not in classes.values]
        if grid is not None:
            check_labels(labels, classes, grid, every_block=bool(strange or counts.more))
        elif strange:
            notes += (_strange(strange),)
    except (LabelError, RasterError) as error:
        return LabelLook(_told(shares, names), notes, (str(error),))
    return LabelLook(_told(shares, names), notes)


def _strange(values: list[float]) -> str:
    return (
        f"values of no class: {listed(map(number, values), most=8)}; a training refuses them in its area. Name them "
        "under `classes`, or leave them out with `ignore_values`"
    )


def _told(shares: Mapping[float, float], names: Mapping[int, str]) -> str:
    known = {float(v): name for v, name in names.items() if name != f"class {v}"}
    told = [" ".join((number(v), *([known[v]] if v in known else []), f"{100 * s:.2g} %")) for v, s in shares.items()]
    return listed(told, most=_LISTED) or "none"
