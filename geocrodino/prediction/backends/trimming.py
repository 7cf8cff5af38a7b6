"""Less work in the margins of tiles: later parts of a network have a smaller receptive field than the whole.

Between the stages of the encoder, and before the decoder, the rim of the feature maps is cut off that does not affect
the needed part of the result.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.geo.rasters.grid import round_up
from geocrodino.models.branch import Branch
from geocrodino.prediction.backends.strips import in_strips

_LEAST_CUT = 2  # strides; a cut copies the map, so it must save more than it costs
_SAME = 1e-4  # largest difference from the whole network by rounding, as a share of the largest logit


class Trimmed(nn.Module):
    """A network whose result covers only the inside of a tile, with the same values there as the whole network.

    Args:
        network: Any branch; not changed.
        unused_px: Width of the margin of a tile whose result is not needed.

    Attributes:
        in_channels: Channels of the input.
        stride: Height and width of a tile must be multiples of it, px.
        trim_px: Pixels on each side that the result leaves out, a multiple of the stride; 0 if the decoder has no
            bounded receptive field, or feature maps that do not halve from scale to scale.
        trims_px: Pixels cut off on each side after each stage with a cut, in the order of computation.
    """

    def __init__(self, network: Branch, unused_px: int = 0) -> None:
        super().__init__()
        self.network = network
        self.in_channels, self.stride = network.in_channels, network.stride
        reach = decoder_reach_px(network, unused_px) if unused_px else None
        self.trim_px = 0 if reach is None else (unused_px - reach) // self.stride * self.stride
        self.trims_px: tuple[int, ...] = ()
        if self.trim_px:
            self._cut_between_stages(unused_px)
        self._compute_wide_blocks_in_strips()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the class logits of the inside of tiles.

        Args:
            images: Normalised images, shape (B, C, H, W), H and W multiples of ``stride`` above ``2 * trim_px``.

        Returns:
            Logits, shape (B, K, H - 2 * trim_px, W - 2 * trim_px).
        """
        height, width = (side - 2 * self.trim_px for side in images.shape[-2:])
        features = [_middle(f, height >> scale, width >> scale) for scale, f in enumerate(self.network.encode(images))]
        logits: Tensor = self.network.decoder(features)
        return logits

    @torch.no_grad()
    def _cut_between_stages(self, unused_px: int) -> None:
        whole, cut = self.network, copy.deepcopy(self.network).eval()
        encoders = [e for e in (cut.encoder, cut.specific_encoder) if e is not None]
        reaches = [[(stage, _reach_px(cut, stage, unused_px)) for stage in _stages(e, cut)] for e in encoders]
        trims: list[int] = []
        for stages in reaches:
            before = 0
            for stage, reach in stages:
                trim = 0 if reach is None else (unused_px - reach) // self.stride * self.stride
                if trim >= before + _LEAST_CUT * self.stride:
                    setattr(*stage.place, nn.Sequential(stage.module, _Crop((trim - before) >> stage.scale)))
                    trims.append(trim)
                    before = trim
        self.network = cut
        if trims and self._same_as(whole, unused_px):
            self.trims_px = tuple(trims)
        else:
            self.network = whole

    @torch.no_grad()
    def _compute_wide_blocks_in_strips(self) -> None:
        whole, changed = self.network, copy.deepcopy(self.network).eval()
        encoders = [e for e in (changed.encoder, changed.specific_encoder) if e is not None]
        side = 2 * self.trim_px + 8 * self.stride
        changes = [in_strips(encoder, self.in_channels, side) for encoder in encoders]
        if not any(changes):
            return
        values = np.random.default_rng(0).standard_normal((1, self.in_channels, side, side), np.float32)
        expected = self(torch.from_numpy(values))
        self.network = changed
        found = self(torch.from_numpy(values))
        if not torch.allclose(found, expected, rtol=0, atol=_SAME * float(expected.abs().max())):
            self.network = whole

    def _same_as(self, whole: Branch, unused_px: int) -> bool:
        """Whether the result equals that of the whole network; it does not if a stage has a second use."""
        side, left = 2 * round_up(unused_px, self.stride) + 2 * self.stride, unused_px - self.trim_px
        values = np.random.default_rng(0).standard_normal((1, self.in_channels, side, side), np.float32)
        images = torch.from_numpy(values)
        expected = copy.deepcopy(whole).eval()(images)[..., unused_px:-unused_px, unused_px:-unused_px]
        try:
            found = self(images)
        except RuntimeError:  # sizes that do not fit each other
            return False
        found = found[..., left:-left, left:-left] if left else found
        return found.shape == expected.shape and torch.allclose(
            found, expected, rtol=0, atol=_SAME * float(expected.abs().max())
        )


@torch.no_grad()
def decoder_reach_px(network: Branch, limit_px: int) -> int | None:
    """How far into a square the logits depend on features outside it, for any weights.

    Args:
        network: A branch; not changed.
        limit_px: Largest distance of interest.

    Returns:
        Distance from the edge of a square of whole strides, px; None beyond ``limit_px``, and if feature maps do not
        halve from scale to scale, so that they cannot all be cut at one place.
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
    # NaN spreads to everything that depends on it.
    features = [F.avg_pool2d(picture, 1 << scale).repeat(1, f.shape[1], 1, 1) for scale, f in enumerate(like)]
    known = probe.decoder(features).isnan().logical_not()[0].all(dim=0).nonzero()
    if not len(known):
        return None
    reach = max(int(known.min()), side - 1 - int(known.max())) - frame
    return reach if reach <= limit_px else None


class _Crop(nn.Module):
    def __init__(self, rim: int) -> None:
        super().__init__()
        self.rim = rim

    def forward(self, features: Tensor) -> Tensor:
        return features[..., self.rim : -self.rim, self.rim : -self.rim]


class _Stage(NamedTuple):
    """A module whose output is a whole feature map: its place, and the scale of its output in halvings."""

    place: tuple[nn.Module, str]
    module: nn.Module
    scale: int


def _stages(encoder: nn.Module, network: Branch) -> list[_Stage]:
    """The modules that make all feature maps of an encoder but the last, and parts of those that are sequences."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            made[id(output)] = (module, output)  # held, so that its id stays its own; the outermost comes last

    hooks = [module.register_forward_hook(note) for module in encoder.modules()]
    side = 4 * network.stride
    maps: list[Tensor] = list(encoder(torch.zeros(1, network.in_channels, side, side)))
    for hook in hooks:
        hook.remove()
    places = {child: (parent, name) for parent in encoder.modules() for name, child in parent.named_children()}

    def found() -> Iterator[_Stage]:
        for scale, features in enumerate(maps):
            module = made[id(features)][0] if id(features) in made else None
            if module is None:
                continue
            for part in list(module.children())[:-1] if type(module) is nn.Sequential else ():
                if any(kept is part and output.shape[-1] == side >> scale for kept, output in made.values()):
                    yield _Stage(places[part], part, scale)
            if scale < len(maps) - 1 and module in places:
                yield _Stage(places[module], module, scale)

    return list(found())


def _reach_px(network: Branch, stage: _Stage, limit_px: int) -> int | None:
    """How far into a square the logits depend on the output of a stage outside it, px; None beyond ``limit_px``."""
    frame = round_up(limit_px, network.stride)
    long, short, rim = 4 * frame + network.stride, 2 * network.stride, frame >> stage.scale
    reach = 0
    for turned in (False, True):

        def spoil(_: nn.Module, __: object, output: Tensor, turned: bool = turned) -> Tensor:
            spoilt = torch.zeros_like(output)
            along = spoilt.mT if turned else spoilt
            along[..., :rim] = along[..., -rim:] = torch.nan
            return spoilt

        strip = torch.zeros(1, network.in_channels, *((long, short) if turned else (short, long)))
        hook = stage.module.register_forward_hook(spoil)
        logits = network(strip)
        hook.remove()
        known = (logits.mT if turned else logits).isnan().flatten(0, 2).any(dim=0).logical_not().nonzero()
        if not len(known):
            return None
        reach = max(reach, int(known.min()) - frame, long - 1 - int(known.max()) - frame)
    return reach if reach <= limit_px else None


def _middle(features: Tensor, height: int, width: int) -> Tensor:
    top, left = (features.shape[-2] - height) // 2, (features.shape[-1] - width) // 2
    return features[..., top : top + height, left : left + width]
