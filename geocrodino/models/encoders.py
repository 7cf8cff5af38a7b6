"""Encoders by name: built offline, with weights from a local file, and without stages that are never used."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geocrodino.errors import ModelError
from geocrodino.models.encoder_facts import EncoderFacts, attach_facts
from geocrodino.phrases import listed
from geocrodino.settings.encoder_weights import check_weights_file
from geocrodino.spelling import did_you_mean

_BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_TIMM_PREFIX = "tu-"
_HEAD_PREFIXES = ("fc.", "classifier.", "head.")
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
    name: str, *, in_channels: int, depth: int, weights: Path | None = None, drop_path: float = 0.0
) -> nn.Module:
    """Create an encoder that returns ``depth + 1`` feature maps, from the input's resolution to the deepest.

    Nothing is downloaded. Stages beyond ``depth`` are removed.

    Args:
        name: See `resolve_encoder`.
        in_channels: Bands of the input.
        depth: Number of halvings of the resolution, 3 to 5.
        weights: State dict of the encoder with three input channels, ``.safetensors`` or ``.pth``, with the tensor
            names of the library that builds the encoder. The first convolution is adapted to ``in_channels`` by timm's
            rule: the channels are repeated and rescaled; for one channel they are summed. None: random weights.
        drop_path: Rate of stochastic depth, see `geocrodino.models.stochastic_depth`; 0: none.

    Returns:
        The encoder. Its attribute ``out_channels`` lists the channels of the feature maps.

    Raises:
        ModelError: If the encoder is unknown, cannot be cut to ``depth``, or the weights do not fit.
    """
    resolved = resolve_encoder(name)
    state = None if weights is None else _checked_state(weights, resolved)
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
            # timm loads into the whole model before it cuts and renames stages for feature extraction.
            encoder = smp.encoders.get_encoder(
                resolved,
                in_channels=in_channels,
                depth=depth,
                weights=True,
                pretrained_cfg_overlay={"state_dict": dict(state)},
            )
        else:
            encoder = smp.encoders.get_encoder(resolved, in_channels=3, depth=depth, weights=None)
            encoder.load_state_dict(dict(state))
            encoder.set_in_channels(in_channels, pretrained=True)  # type: ignore[operator]
    return encoder


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


def _checked_state(path: Path, resolved: str) -> dict[str, Tensor]:
    """Read the encoder weights of a file without the classifier, and check that all names and shapes fit."""
    state = _read_state(path)
    expected = _expected_shapes(resolved)
    heads = _head_prefixes(resolved)
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    expected = {key: shape for key, shape in expected.items() if not key.startswith(heads)}
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        raise ModelError(
            f"{path} does not hold weights of encoder '{resolved}': expected {len(expected)} tensors, found "
            f"{len(state)}; missing {listed(missing) or 'none'}; not expected {listed(unexpected) or 'none'}.\n"
            "Give the weights of exactly this encoder, or name the encoder of the file with `network.encoder`."
        )
    wrong = [key for key, value in state.items() if tuple(value.shape) != expected[key]]
    if wrong:
        shapes = "; ".join(f"{k} expected {expected[k]}, found {tuple(state[k].shape)}" for k in wrong[:_LISTED_KEYS])
        raise ModelError(
            f"{path} does not fit encoder '{resolved}' with 3 input channels, {len(wrong)} tensors differ in shape: "
            f"{shapes}.\nGive the weights of exactly this encoder, trained on three bands."
        )
    return state


def _read_state(path: Path) -> dict[str, Tensor]:
    check_weights_file(path)
    try:
        state = load_file(path) if path.suffix.lower() == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} cannot be read as a state dict of tensors: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(
            f"{path}: expected a state dict (names to tensors), found {type(state).__name__} with other content."
        )
    return dict(state)


def _expected_shapes(resolved: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        if resolved.startswith(_TIMM_PREFIX):
            whole = timm.create_model(resolved.removeprefix(_TIMM_PREFIX), pretrained=False)
        else:
            whole = smp.encoders.get_encoder(resolved, in_channels=3, depth=5, weights=None)
    return {key: tuple(value.shape) for key, value in whole.state_dict().items()}


def _head_prefixes(resolved: str) -> tuple[str, ...]:
    if not resolved.startswith(_TIMM_PREFIX):
        return _HEAD_PREFIXES
    named = timm.get_pretrained_cfg_value(resolved.removeprefix(_TIMM_PREFIX), "classifier") or ()
    layers = (named,) if isinstance(named, str) else tuple(named)
    # Some encoders have feature layers under `head.`: a file that lacks those must stay an error.
    return tuple(f"{name}." for name in layers) or _HEAD_PREFIXES
