"""Depthwise convolutions of a bfloat16 training, computed in float32 on a CPU.

PyTorch multiplies with oneDNN on a CPU. In bfloat16, the gradient of a depthwise convolution is up to 20 times slower
there than in float32: of its input where the stride is 2, of its weights where the kernel has 5 pixels. Other
convolutions are faster in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CONVOLUTION: Callable[..., Any] = torch.conv2d

_GROUPS = 6
"""Position of ``groups`` among the arguments of `torch.conv2d`."""


class DepthwiseInFloat32(TorchFunctionMode):
    """Within this context, depthwise convolutions under bfloat16 autocast on a CPU are computed in float32.

    Their outputs are bfloat16 again, so that the layers after them are computed as before. On other devices, and
    without autocast, nothing changes.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, a depthwise convolution in float32.

        Args:
            func: The function.
            types: Not used.
            args: Its positional arguments.
            kwargs: Its other arguments.

        Returns:
            What the function returns; a depthwise convolution as bfloat16, (B, C, H, W).
        """
        others = dict(kwargs or {})
        if func is _CONVOLUTION and _is_depthwise(args, others) and _in_bfloat16_on_a_cpu(args[0]):
            with torch.autocast("cpu", enabled=False):
                exact = (value.float() if isinstance(value, torch.Tensor) else value for value in args)
                return func(*exact, **others).to(torch.bfloat16)
        return func(*args, **others)


def _is_depthwise(args: Sequence[Any], others: Mapping[str, Any]) -> bool:
    groups: int = args[_GROUPS] if len(args) > _GROUPS else others.get("groups", 1)
    return 1 < groups == int(args[0].shape[-3])


def _in_bfloat16_on_a_cpu(image: torch.Tensor) -> bool:
    is_cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return image.device.type == "cpu" and is_cast
