"""How a table shows one score over several seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Format the mean and standard deviation over seeds.

    Args:
        values: One value for each seed.
        digits: Digits after the point.

    Returns:
        Mean ± standard deviation; the value alone if there is one seed.
    """
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
