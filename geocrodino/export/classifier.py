"""A branch as one graph: from the values of its channels to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geocrodino.modalities.recipe import ModalitySpec


class Classifier(nn.Module):
    """A branch with the scaling of its channels before it, and with the calibrated probabilities after it.

    The graph does what `ModalitySpec.normalise` and a prediction do: it clips and standardises, reads pixels with a
    channel that is NaN or infinite as no data, and divides the logits by the temperature.

    Args:
        network: The branch, in evaluation mode.
        spec: Statistics of its channels.
        temperature: Divisor of the logits, above 0.
        divisor: What the caller divides the values of the channels by, see `input_divisor`.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor
    compressed: Tensor

    def __init__(self, network: nn.Module, spec: ModalitySpec, *, temperature: float, divisor: float) -> None:
        super().__init__()
        self.network, self.temperature, self.divisor = network, temperature, divisor
        self.compresses = any(channel.compress for channel in spec.channels)
        for name in ("low", "high", "mean", "std"):
            values = torch.tensor([getattr(channel, name) for channel in spec.channels], dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])
        compressed = torch.tensor([channel.compress for channel in spec.channels])
        self.register_buffer("compressed", compressed[:, None, None])

    def forward(self, values: Tensor) -> Tensor:
        """Compute the probabilities of classes.

        Args:
            values: Values of the channels in their units, divided by ``divisor``, float32, shape (B, C, H, W), H and W
                multiples of the stride of the network.

        Returns:
            Probabilities, float32, shape (B, K, H, W).
        """
        valid = torch.isfinite(values).all(dim=1, keepdim=True)
        zero = torch.zeros((), dtype=values.dtype)
        known = torch.where(valid, values * self.divisor, zero)
        scaled = torch.minimum(torch.maximum(known, self.low), self.high)
        if self.compresses:
            small = torch.sign(scaled) * torch.log1p(torch.abs(scaled))
            scaled = torch.where(self.compressed, small, scaled)
        images = torch.where(valid, (scaled - self.mean) / self.std, zero)
        return torch.softmax(self.network(images) / self.temperature, dim=1)


def traced(classifier: Classifier, channels: int, tile_px: int) -> torch.export.ExportedProgram:
    """Trace a classifier for tiles of one size, in batches of any size.

    Args:
        classifier: The classifier, in evaluation mode.
        channels: Channels of its input.
        tile_px: Height and width of a tile, px.

    Returns:
        The program. It holds no paths of the machine that traced it.
    """
    # A batch of one would be traced as a constant.
    example = torch.zeros(2, channels, tile_px, tile_px)
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        program = torch.export.export(classifier, (example,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
