"""Number formats of losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32: sums and logarithms need the digits. Other formats stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A loss that autocast leaves alone: products of coordinates and long sums need the digits too."""

    @wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return loss(*args, **kwargs)

    return wrapped
