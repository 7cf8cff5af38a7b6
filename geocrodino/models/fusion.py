"""Networks that read several modalities, and the network that remains of one when a modality is missing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geocrodino.errors import ModelError
from geocrodino.models.branch import (
    Branch,
    FeatureNetwork,
    build_branch,
    check_counts,
    check_images,
    create_decoder,
    create_projection,
    feature_channels,
)
from geocrodino.models.decoders import conv_block, initialise
from geocrodino.models.encoders import create_encoder
from geocrodino.models.present_rows import PresentRows
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.network import FIRST_SCALE, NetworkSettings


class MiddleFusion(FeatureNetwork):
    """An encoder for each modality, whose feature maps are merged at every scale, and one decoder.

    The input holds the bands of all modalities along the channels, in the order of registration. At each scale that the
    decoder reads, the maps of all encoders are concatenated and reduced to the width of one by a 1 x 1 convolution. The
    deepest maps are projected to the same two halves as in a `Branch`, so that the features of both can be compared
    channel by channel.

    Args:
        settings: Shape of the network; all encoders use it.
        in_channels: Bands of each modality, at least two.
        num_classes: Channels of the logits.
        weights: Pretrained encoder weights by modality, see `build_branch`. A modality without an entry starts from
            random weights.

    Attributes:
        stride: Pixels of the input per deepest feature. Height and width of an input must be multiples of it.
        in_channels: Bands of the input: the sum over all modalities.
        num_classes: Channels of the logits.

    Raises:
        ModelError: If an encoder cannot be built with these settings, or ``separate_encoders`` is true.
        ValueError: If a modality is missing or unknown, or a number is below 1.

    References:
        Hazirbas et al. (2016). FuseNet: incorporating depth into semantic segmentation via fusion-based CNN
        architecture (there the maps are added). https://doi.org/10.1007/978-3-319-54181-5_14
    """

    def __init__(
        self,
        settings: NetworkSettings,
        in_channels: Mapping[Modality, int],
        num_classes: int,
        *,
        weights: Mapping[Modality, Pretrained] | None = None,
    ) -> None:
        super().__init__()
        _check_both(in_channels)
        for count in in_channels.values():
            check_counts(count, num_classes)
        if settings.separate_encoders:
            raise ModelError(
                "Middle fusion has one encoder for each modality: expected separate_encoders: false, found true.\n"
                "Leave separate_encoders out, or train a method that has a branch for each modality."
            )
        files = weights or {}
        self.settings = settings
        self.in_channels = sum(in_channels.values())
        self.num_classes = num_classes
        self.stride = settings.stride_px
        self.modalities = MODALITIES.in_order(in_channels)
        self._split = [in_channels[modality] for modality in self.modalities]
        self.encoders = nn.ModuleDict(
            {
                modality: create_encoder(
                    settings.encoder,
                    in_channels=in_channels[modality],
                    depth=settings.depth,
                    weights=files.get(modality),
                )
                for modality in self.modalities
            }
        )
        widths = [feature_channels(encoder) for encoder in self.encoders.values()]
        first, joined = widths[0], [sum(scale) for scale in zip(*widths, strict=True)]
        # Encoders with a patch stem have a map without channels at half the resolution, which cannot be merged.
        self.merge = nn.ModuleDict(
            {
                str(scale): conv_block(joined[scale], first[scale], kernel_size=1)
                for scale in range(FIRST_SCALE[settings.decoder], settings.depth)
                if first[scale]
            }
        )
        initialise(self.merge)
        halves = 2 * settings.invariant_channels
        self.projection = create_projection(joined[-1], halves)
        self.decoder = create_decoder(settings, [*first[:-1], halves], num_classes)

    def forward(self, images: Tensor, rows: Mapping[Modality, PresentRows] | None = None) -> Tensor:
        """Compute class logits.

        Args:
            images: As for `encode`.
            rows: As for `encode`.

        Returns:
            Logits, shape (B, K, H, W).

        Raises:
            ValueError: If the shape does not fit.
        """
        return super().forward(images) if rows is None else self.decoder(self.encode(images, rows))

    def encode(self, images: Tensor, rows: Mapping[Modality, PresentRows] | None = None) -> list[Tensor]:
        """Compute the merged feature maps that the decoder reads.

        Args:
            images: Normalised images, bands in the order of the modalities, shape (B, C, H, W). H and W are multiples
                of ``stride``.
            rows: The images that have a modality, by modality; one without an entry is in all. Of the others its
                encoder gives what it gives of zeros in evaluation mode, without a gradient, so its batch normalisation
                does not know them.

        Returns:
            Feature maps, from the input's resolution to the deepest. The channels of the last one hold the invariant
            half, then the specific half.

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(images, self.in_channels, self.stride)
        parts = images.split(self._split, dim=1)
        there = rows or {}
        maps = [
            _maps_of(encoder, part, there[modality]) if modality in there else list(encoder(part))
            for (modality, encoder), part in zip(self.encoders.items(), parts, strict=True)
        ]
        features = list(maps[0])
        for scale, merge in self.merge.items():
            features[int(scale)] = merge(torch.cat([each[int(scale)] for each in maps], dim=1))
        features[-1] = self.projection(torch.cat([each[-1] for each in maps], dim=1))
        return features


def _maps_of(encoder: nn.Module, images: Tensor, rows: PresentRows) -> list[Tensor]:
    """Feature maps of the images that are there, and in the places of the others those of zeros."""
    mode = encoder.training
    with torch.no_grad():
        blank = list(encoder.eval()(torch.zeros_like(images[:1])))
    encoder.train(mode)
    maps = [each.expand(len(images), *each.shape[1:]) for each in blank]
    if not rows.total:
        return maps
    found, numbers = encoder(images[rows.passed]), rows.numbers
    return [every.to(own).index_copy(0, numbers, own[: len(numbers)]) for every, own in zip(maps, found, strict=True)]


def modality_branch(network: Branch, modality: Modality, in_channels: Mapping[Modality, int]) -> Branch:
    """Cut a network on several modalities down to one.

    A normalised band of zeros adds nothing to a convolution. The result therefore computes what the whole network
    computes with zeros in place of the missing modalities; only the kernel of the first convolution is cut.

    Args:
        network: Reads all modalities along the channels, in the order of registration. It is not changed.
        modality: The modality to keep.
        in_channels: Bands of each modality, at least two.

    Returns:
        A network with its own copy of the weights, on the device and in the number format and mode of ``network``.

    Raises:
        ModelError: If the encoder's shape depends on the bands in more than one tensor, or in one that is not a plain
            convolution kernel.
        ValueError: If a modality is missing or unknown, or the bands do not add up to those of ``network``.
    """
    _check_both(in_channels)
    order = MODALITIES.in_order(in_channels)
    if modality not in order:
        raise ValueError(f"expected one of {', '.join(order)}, found {modality}")
    total = sum(in_channels.values())
    if total != network.in_channels:
        raise ValueError(f"expected bands that add up to {network.in_channels}, found {dict(in_channels)}")
    own = in_channels[modality]
    start = sum(in_channels[earlier] for earlier in order[: order.index(modality)])
    # Building draws initial weights, which are replaced below; fork, so that the caller's random state stays the same.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        alone = build_branch(network.settings, own, network.num_classes).train(network.training)
        alone = alone.to(next(network.parameters()))
    state, expected = network.state_dict(), alone.state_dict()
    differing = [
        name
        for name in {**state, **expected}
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    ]
    if len(differing) != 1:
        raise ModelError(
            f"Encoder '{network.settings.encoder}' cannot be cut down to {modality}: expected one tensor whose shape "
            f"depends on the number of bands, found {len(differing)} ({', '.join(differing[:3]) or 'none'}).\n"
            "Choose an encoder that starts with one convolution, such as tu-resnet18, and one encoder for both halves."
        )
    name, kernel = differing[0], state[differing[0]]
    if kernel.ndim != 4 or kernel.shape[1] != total:
        raise ModelError(
            f"Encoder '{network.settings.encoder}' cannot be cut down to {modality}: expected a kernel (out, {total}, "
            f"height, width), found {name} of {tuple(kernel.shape)}.\n"
            "Choose an encoder that starts with a plain convolution, such as tu-resnet18."
        )
    alone.load_state_dict({**state, name: kernel[:, start : start + own]})
    return alone


def _check_both(in_channels: Mapping[Modality, int]) -> None:
    if len(in_channels) < 2 or not set(in_channels) <= set(MODALITIES):
        found = ", ".join(str(m) for m in in_channels) or "none"
        raise ValueError(f"expected bands of both {' and '.join(MODALITIES)}, found {found}")
