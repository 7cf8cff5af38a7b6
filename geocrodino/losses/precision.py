"""Number formats inside losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32, because sums and logarithms need the digits.

    Args:
        values: Any shape and dtype.

    Returns:
        float16 and bfloat16 as float32; other dtypes unchanged.

    Examples:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorate a loss so that autocast does not apply inside: coordinates and long sums need the digits.

    Args:
        loss: A function of one or more tensors, of any shape and dtype, that returns a tensor.

    Returns:
        The same function with autocast switched off on the device of its first tensor. Its result has the shape and
        dtype that ``loss`` gives without autocast.
    """

    @wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return loss(*args, **kwargs)

    return wrapped
