"""Batch normalisation over the patches of all processes, on any device.

PyTorch's ``SyncBatchNorm`` refuses tensors of a CPU, and takes the place of layers that belong to the networks. Here
the networks stay as they are, and the function that their layers call is replaced during a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SharedBatchNorm(TorchFunctionMode):
    """Within this context, batch normalisation in training mode uses mean and variance over all processes.

    All processes must normalise the same layers in the same order.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, a batch normalisation over all processes.

        Args:
            func: The function.
            types: Not used.
            args: Its positional arguments.
            kwargs: Its other arguments.

        Returns:
            What the function returns.
        """
        if func is F.batch_norm:
            given = signature(F.batch_norm).bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if given.arguments["training"]:
                return shared_batch_norm(**{k: v for k, v in given.arguments.items() if k != "training"})
        return func(*args, **(kwargs or {}))


def shared_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel by its mean and variance over the patches of all processes.

    Args:
        input: Shape (B, C, ...); B may differ between processes.
        running_mean: Moving mean, shape (C,), updated in place; None: not kept.
        running_var: Moving variance, shape (C,), updated in place; None: not kept.
        weight: Factor of each channel, shape (C,); None: 1.
        bias: Summand of each channel, shape (C,); None: 0.
        momentum: Share of the new statistics in the moving ones, 0 to 1.
        eps: Added to the variance.

    Returns:
        Same shape and dtype as ``input``.
    """
    normalised, mean, variance, count = _Normalised.apply(input, eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
        if running_var is not None:
            running_var.lerp_((variance * count / (count - 1).clamp(min=1)).to(running_var), momentum)
    shape = (1, -1, *[1] * (input.ndim - 2))
    if weight is not None:
        normalised = normalised * weight.to(normalised.dtype).view(shape)
    if bias is not None:
        normalised = normalised + bias.to(normalised.dtype).view(shape)
    result: Tensor = normalised.to(input.dtype)
    return result


class _Normalised(torch.autograd.Function):
    """Values minus their mean, divided by their standard deviation, over all processes; in float32 at least."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = input.float() if input.dtype != torch.float64 else input
        axes, channels = [0, *range(2, input.ndim)], input.shape[1]
        values = wide.new_tensor([wide.numel() / channels])
        sums = torch.cat([wide.sum(dim=axes), values])
        torch.distributed.all_reduce(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        shape = (1, channels, *[1] * (input.ndim - 2))
        centred = wide - mean.view(shape)
        variance = centred.square().sum(dim=axes)
        torch.distributed.all_reduce(variance)
        variance = variance / count
        inverse = (variance + eps).rsqrt()
        normalised = centred * inverse.view(shape)
        ctx.save_for_backward(normalised, inverse, count)
        ctx.axes, ctx.shape, ctx.dtype = axes, shape, input.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        normalised, inverse, count = ctx.saved_tensors
        sums = torch.stack([gradient.sum(dim=ctx.axes), (gradient * normalised).sum(dim=ctx.axes)])
        torch.distributed.all_reduce(sums)
        mean, slope = (row.view(ctx.shape) for row in sums / count)
        return ((gradient - mean - normalised * slope) * inverse.view(ctx.shape)).to(ctx.dtype), None
