"""Less work in the margins of tiles: a decoder sees less far than the whole network, so it need not see all of them."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.models.branch import Branch
from geocrodino.prediction.tiling import round_up


class Trimmed(nn.Module):
    """A network that answers for the inside of a tile alone: where the answer is wanted, as for the whole tile.

    The encoder sees the whole tile; what lies too far outside for the wanted answer is cut from its feature maps.

    Args:
        network: Any branch, left as it is.
        unused_px: Margin of a tile whose answer is not wanted.

    Attributes:
        in_channels: Bands of the input.
        stride: Height and width of a tile must be multiples of it, in px.
        trim_px: By how much the answer is smaller on each side, a multiple of the stride; 0 where the decoder has no
            bounded receptive field, or feature maps that do not halve from scale to scale.
    """

    def __init__(self, network: Branch, unused_px: int = 0) -> None:
        super().__init__()
        self.network = network
        self.in_channels, self.stride = network.in_channels, network.stride
        reach = decoder_reach_px(network, unused_px) if unused_px else None
        self.trim_px = 0 if reach is None else (unused_px - reach) // self.stride * self.stride

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of the inside of tiles.

        Args:
            images: Normalised images, shape (B, C, H, W), H and W multiples of ``stride`` above ``2 * trim_px``.

        Returns:
            Logits, shape (B, K, H - 2 * trim_px, W - 2 * trim_px).
        """
        features = [_inside(f, self.trim_px >> scale) for scale, f in enumerate(self.network.encode(images))]
        logits: Tensor = self.network.decoder(features)
        return logits


@torch.no_grad()
def decoder_reach_px(network: Branch, limit_px: int) -> int | None:
    """How far into a square the logits depend on features outside of it, whatever the weights.

    Args:
        network: A branch; left as it is.
        limit_px: Largest distance of interest.

    Returns:
        Distance from the edge of a square of whole strides, in px; None beyond ``limit_px``, and where feature maps do
        not halve from scale to scale, so that they cannot all be cut at one place.
    """
    probe = copy.deepcopy(network).eval()
    small = 4 * network.stride
    like = probe.encode(torch.zeros(1, network.in_channels, small, small))
    if any(feature.shape[-2:] != (small >> scale, small >> scale) for scale, feature in enumerate(like)):
        return None
    frame = round_up(limit_px, network.stride)
    side = 4 * frame + network.stride
    picture = torch.full((1, 1, side, side), torch.nan)
    picture[..., frame:-frame, frame:-frame] = 0
    # NaN spreads to all that depends on it.
    features = [F.avg_pool2d(picture, 1 << scale).repeat(1, f.shape[1], 1, 1) for scale, f in enumerate(like)]
    known = probe.decoder(features).isnan().logical_not()[0].all(dim=0).nonzero()
    if not len(known):
        return None
    reach = max(int(known.min()), side - 1 - int(known.max())) - frame
    return reach if reach <= limit_px else None


def _inside(features: Tensor, trim: int) -> Tensor:
    return features[..., trim:-trim, trim:-trim] if trim else features
