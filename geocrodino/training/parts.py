"""A batch that is computed in parts, by several processes or one after the other: the weight of each part.

A loss term is a quotient, ``sum / amount``: over labelled pixels, for instance. The mean of the quotients of the parts
is not the quotient of the whole batch, because parts hold different amounts. ``sum(amount_p / amount * term_p)`` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from geocrodino.data.shares import BatchShare


@dataclass(frozen=True)
class Processes:
    """The processes that share each batch.

    Attributes:
        number: Number of this process, from 0. The first validates and writes all files.
        count: How many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process validates and writes."""
        return self.number == 0


def split(batch: Mapping[str, Any], share: BatchShare) -> list[dict[str, Any]]:
    """Divide a batch into parts.

    Args:
        batch: Tensors by name whose first axis is the patch, and dicts of such tensors.
        share: The parts.

    Returns:
        The parts, with the same names.
    """
    return [_rows_of(batch, share.rows(part)) for part in range(share.count)]


def _rows_of(batch: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    return {
        key: _rows_of(value, rows) if isinstance(value, Mapping) else value[rows.to(value.device)]
        for key, value in batch.items()
    }


def tell_all(parts: Sequence[dict[str, Any]], processes: Processes) -> None:
    """Let all processes know which patches lack a modality; does nothing where no scene lacks one.

    Args:
        parts: The parts of this process, see `split`. To those with ``<m>_there``, bool, (B,), is added
            ``<m>_there_of_all``, the same of the patches of all processes.
        processes: This process and how many there are; all call this function at once.
    """
    keys = [key for key in parts[0] if key.endswith("_there")]
    if not keys or processes.count == 1:
        return
    own = torch.stack([torch.stack([part[key] for key in keys]) for part in parts]).to(torch.uint8)
    table = own.new_zeros((processes.count, *own.shape))
    table[processes.number] = own
    torch.distributed.all_reduce(table)
    for number, part in enumerate(parts):
        for place, key in enumerate(keys):
            part[f"{key}_of_all"] = table[:, number, place].flatten().bool()


def part_weights(amounts: Sequence[Mapping[str, Tensor]], count: int = 1) -> list[dict[str, Tensor]]:
    """Compute the weights with which the loss terms of parts add up to those of the whole batch.

    Args:
        amounts: For each part of this process, what each loss term divides by; at least 0, shape (), the same
            names.
        count: Number of processes; all call this function at once. Their gradients are averaged, so the weights of a
            process are ``count`` times as large.

    Returns:
        For each part, a factor by name: float64 scalars at least 0, float32 on Apple's GPUs. A term of no amount in
        the whole batch has 0.

    Examples:
        Three of four labelled pixels are in the second part.

        >>> part_weights([{"x": torch.tensor(1.0)}, {"x": torch.tensor(3.0)}])
        [{'x': tensor(0.2500, dtype=torch.float64)}, {'x': tensor(0.7500, dtype=torch.float64)}]
    """
    names = list(amounts[0])
    if not names:
        return [{} for _ in amounts]
    # Counts of pixels need more digits than float32 has, which Apple's GPUs compute with.
    wide = torch.float32 if amounts[0][names[0]].device.type == "mps" else torch.float64
    table = torch.stack([torch.stack([part[name].to(wide) for name in names]) for part in amounts])
    whole = table.sum(dim=0)
    if count > 1:
        torch.distributed.all_reduce(whole)
    shares = count * table / whole.where(whole > 0, torch.ones_like(whole))
    return [dict(zip(names, row.unbind(), strict=True)) for row in shares]
