"""The user's rules for the values of a label raster: values that are left out, or read as others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import LabelError
from geocrodino.geo.labels.bands import quoted
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.settings.classes import number


def recoded(values: NDArray[np.float32], rules: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
    """Read values as others.

    Args:
        values: Values, float32, any shape.
        rules: Pairs of a value and what it becomes.

    Returns:
        The values, same shape.
    """
    if not rules:
        return values
    out = values.copy()  # two values may change places
    for before, after in rules:
        out[values == before] = after
    return out


def check_rules(source: RasterSource, ignored: set[int], rules: dict[int, int]) -> None:
    """Check that rules for values contradict neither each other nor the file.

    Args:
        source: The raster.
        ignored: Values that are no label.
        rules: Class value of values of the file.

    Raises:
        LabelError: If they do.
    """
    wrong = sorted(v for v in rules.values() if not 0 <= v <= 254)
    if wrong:
        raise LabelError(f"{source.name}: expected class values from 0 to 254 in `label_values`, found {wrong[0]}.")
    beyond = sorted(v for v in ignored | set(rules) if float(np.float32(v)) != v)
    if beyond:
        raise LabelError(
            f"{source.name}: expected values that single precision can hold, up to 16,777,216, in `ignore_values` and "
            f"`label_values`, found {beyond[0]}.\nWrite smaller numbers into the file first."
        )
    both = sorted(ignored & set(rules))
    if both:
        raise LabelError(
            f"{source.name}: the value {both[0]} stands both in `ignore_values` and in `label_values`, there as class "
            f"{rules[both[0]]}.\nName it in one of the two."
        )
    if source.nodata in rules:
        raise LabelError(
            f"{source.name}: `label_values` reads {number(source.nodata)} as class {rules[int(source.nodata)]}, but "
            f"it is the file's nodata value, which marks pixels without a label.\n"
            f"{without_nodata(source)}"
        )


def without_nodata(source: RasterSource) -> str:
    """Tell how to make the pixels of the nodata value labels.

    Args:
        source: The raster.

    Returns:
        A sentence with a command.
    """
    return f"Remove the nodata tag if these pixels hold a class: rio edit-info --unset-nodata {quoted(source)}"
