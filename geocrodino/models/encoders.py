"""Encoders by name: built offline, with pretrained weights where given, and without stages that are never used."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from geocrodino.errors import ModelError
from geocrodino.models.encoder_facts import EncoderFacts, attach_facts
from geocrodino.models.first_layer import first_layer
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.phrases import listed
from geocrodino.spelling import did_you_mean

_BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_TIMM_PREFIX = "tu-"
_HEAD_PREFIXES = ("fc.", "classifier.", "head.")
_PRETRAINED = "pretrained_names"
"""Attribute of an encoder: names of its parameters that started from pretrained weights."""

_LISTED_KEYS = 5
"""Most tensor names listed in a message."""


def resolve_encoder(name: str) -> str:
    """Find the name under which segmentation-models-pytorch builds an encoder.

    Args:
        name: Name of timm, with or without ``tu-``, or of segmentation-models-pytorch. A name that both know means
            timm's encoder, which builds no stage beyond the depth asked for.

    Returns:
        The name, with ``tu-`` for encoders of timm.

    Raises:
        ModelError: If neither library knows the name.
    """
    bare = name.removeprefix(_TIMM_PREFIX)
    if timm.is_model(bare):
        return _TIMM_PREFIX + bare
    own: list[str] = smp.encoders.get_encoder_names()
    if name in own:
        return name
    # Suggest names of segmentation-models-pytorch first: its list is short and holds the well-known encoders.
    hint = did_you_mean(bare, own, most=2) or did_you_mean(bare, timm.list_models(), most=2)
    raise ModelError(
        f"Unknown encoder '{name}': expected a name of timm or of segmentation-models-pytorch, such as "
        f"tu-resnet18.{hint}"
    )


def is_of_timm(name: str) -> bool:
    """Find out which library builds an encoder.

    Args:
        name: See `resolve_encoder`.

    Returns:
        True for timm, False for segmentation-models-pytorch.

    Raises:
        ModelError: If neither library knows the name.
    """
    return resolve_encoder(name).startswith(_TIMM_PREFIX)


def create_encoder(
    name: str, *, in_channels: int, depth: int, weights: Pretrained | None = None, drop_path: float = 0.0
) -> nn.Module:
    """Create an encoder that returns ``depth + 1`` feature maps, from the input's resolution to the deepest.

    Nothing is downloaded. Stages beyond ``depth`` are removed.

    Args:
        name: See `resolve_encoder`.
        in_channels: Bands of the input.
        depth: Number of halvings of the resolution, 3 to 5.
        weights: Pretrained weights, with the tensor names of the library that builds the encoder. Their classifier is
            left out, and the first layer is adapted to ``in_channels``, see `first_layer`. None: random weights.
        drop_path: Rate of stochastic depth, see `geocrodino.models.stochastic_depth`; 0: none.

    Returns:
        The encoder. Its attribute ``out_channels`` lists the channels of the feature maps.

    Raises:
        ModelError: If the encoder is unknown, cannot be cut to ``depth``, or the weights do not fit.
    """
    resolved = resolve_encoder(name)
    state = None if weights is None else _adapted_state(weights, resolved, in_channels)
    try:
        encoder = _build(resolved, in_channels, depth, state, {"drop_path_rate": drop_path} if drop_path else {})
        _cut_unused(encoder, in_channels, 2**depth)
    except _BUILD_ERRORS as error:
        raise ModelError(
            f"Encoder '{name}' cannot be built for {in_channels} bands and depth {depth}: {error}\n"
            "Choose a convolutional encoder with one feature map per halving, such as tu-resnet18."
        ) from error
    return attach_facts(encoder, EncoderFacts(name, in_channels, depth, pretrained=state is not None))


def _build(
    resolved: str, in_channels: int, depth: int, state: Mapping[str, Tensor] | None, options: Mapping[str, float]
) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if state is None:
            encoder: nn.Module = smp.encoders.get_encoder(
                resolved, in_channels=in_channels, depth=depth, weights=None, **options
            )
        elif resolved.startswith(_TIMM_PREFIX):
            # timm loads into the whole model before it cuts and renames stages for feature extraction. Without a
            # `first_conv` it leaves the first layer alone, which is adapted already.
            with _without_log("timm.models._builder"):
                encoder = smp.encoders.get_encoder(
                    resolved,
                    in_channels=in_channels,
                    depth=depth,
                    weights=True,
                    pretrained_cfg_overlay={"state_dict": dict(state), "first_conv": None},
                )
        else:
            encoder = smp.encoders.get_encoder(resolved, in_channels=in_channels, depth=depth, weights=None)
            encoder.load_state_dict(dict(state))
    return encoder


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Silence timm's warning of weights of stages that it cuts off; all names were checked before."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cut_unused(encoder: nn.Module, in_channels: int, stride: int) -> None:
    """Remove the outermost modules whose parameters no feature map depends on.

    Some encoders keep the stages after the last one asked for, and some even run them.
    """
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    probe = torch.ones(1, in_channels, 2 * stride, 2 * stride)
    with torch.enable_grad():
        before = encoder(probe)[1:]
        parameters = list(encoder.parameters())
        total = torch.stack([f.sum() for f in before if f.requires_grad]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    if before[-1].shape[-2:] != (2, 2):
        raise ValueError(f"its deepest features have stride {2 * stride // before[-1].shape[-1]} px, not {stride} px")
    dead = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is None}
    _replace_dead(encoder, dead)
    with torch.no_grad():
        after = encoder(probe)[1:]
    if not all(torch.allclose(x, y) for x, y in zip(before, after, strict=True)):
        raise ValueError("its unused stages cannot be left out")
    for module, mode in modes.items():
        module.training = mode


class _LeftOut(nn.Module):
    """Placeholder for a removed module: returns its first argument."""

    def forward(self, features: Tensor, *_: object, **__: object) -> Tensor:
        return features


def _replace_dead(module: nn.Module, dead: set[int]) -> None:
    for name, child in list(module.named_children()):
        own = list(child.parameters())
        if own and all(id(p) in dead for p in own):
            setattr(module, name, _LeftOut())
        else:
            _replace_dead(child, dead)


def _adapted_state(weights: Pretrained, resolved: str, in_channels: int) -> dict[str, Tensor]:
    """The weights without the classifier, with a first layer for the bands of the input."""
    state = _checked_state(weights, resolved)
    whole, more = (_whole_shapes(resolved, bands) for bands in (weights.bands, weights.bands + 1))
    for key in [key for key, shape in whole.items() if more[key] != shape]:
        kernel = state[key]
        if weights.first_layer == "repeat" and in_channels == weights.bands:
            continue
        if kernel.ndim != 4 or kernel.shape[1] != weights.bands:
            raise ModelError(
                f"The first layer of encoder '{resolved}' cannot be adapted to {in_channels} bands: expected a kernel "
                f"(out, {weights.bands}, height, width), found {key} of {tuple(kernel.shape)}.\n"
                "Choose an encoder that starts with a plain convolution, such as tu-resnet18, or start from random "
                "weights: `encoder_weights='random'`."
            )
        draw = partial(_initial_tensor, resolved, in_channels, key)
        state[key] = first_layer(kernel, in_channels, weights.first_layer, draw)
    return state


def _initial_tensor(resolved: str, in_channels: int, key: str) -> Tensor:
    state: dict[str, Tensor] = _whole(resolved, in_channels).state_dict()
    return state[key]


def _checked_state(weights: Pretrained, resolved: str) -> dict[str, Tensor]:
    """The weights without the classifier; all names and shapes fit the encoder."""
    heads = _head_prefixes(resolved)
    state = {key: value for key, value in weights.tensors.items() if not key.startswith(heads)}
    expected = {k: shape for k, shape in _whole_shapes(resolved, weights.bands).items() if not k.startswith(heads)}
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        raise ModelError(
            f"{weights.label} does not hold weights of encoder '{resolved}': expected {len(expected)} tensors, found "
            f"{len(state)}; missing {listed(missing) or 'none'}; not expected {listed(unexpected) or 'none'}.\n"
            "Give the weights of exactly this encoder, or name the encoder of the file with `network.encoder`."
        )
    wrong = [key for key, value in state.items() if tuple(value.shape) != expected[key]]
    if wrong:
        shapes = "; ".join(f"{k} expected {expected[k]}, found {tuple(state[k].shape)}" for k in wrong[:_LISTED_KEYS])
        raise ModelError(
            f"{weights.label} does not fit encoder '{resolved}' with {weights.bands} input channels, {len(wrong)} "
            f"tensors differ in shape: {shapes}.\nGive the weights of exactly this encoder, trained on "
            f"{weights.bands} bands."
        )
    broken = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise ModelError(
            f"{weights.label}: expected finite weights, found NaN or infinite ones in {listed(broken)}.\n"
            "Give another file: the training that wrote this one has diverged."
        )
    return state


def _whole_shapes(resolved: str, in_channels: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        whole = _whole(resolved, in_channels)
    return {key: tuple(value.shape) for key, value in whole.state_dict().items()}


def _whole(resolved: str, in_channels: int) -> nn.Module:
    """The encoder with all stages and its classifier, as files of weights hold it."""
    whole: nn.Module
    if resolved.startswith(_TIMM_PREFIX):
        whole = timm.create_model(resolved.removeprefix(_TIMM_PREFIX), pretrained=False, in_chans=in_channels)
    else:
        whole = smp.encoders.get_encoder(resolved, in_channels=in_channels, depth=5, weights=None)
    return whole


def _head_prefixes(resolved: str) -> tuple[str, ...]:
    if not resolved.startswith(_TIMM_PREFIX):
        return _HEAD_PREFIXES
    named = timm.get_pretrained_cfg_value(resolved.removeprefix(_TIMM_PREFIX), "classifier") or ()
    layers = (named,) if isinstance(named, str) else tuple(named)
    # Some encoders have feature layers under `head.`: a file that lacks those must stay an error.
    return tuple(f"{name}." for name in layers) or _HEAD_PREFIXES
