"""Options of a prediction: which go together, and what they stand for."""

from __future__ import annotations

import math
import os

from geocrodino.errors import ConfigError
from geocrodino.geo.rasters.place import Place, stated_place
from geocrodino.modalities.registry import definition_of
from geocrodino.phrases import arguments
from geocrodino.prediction.layers import LAYERS
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import PROCESSES, Execution, Inputs, Layer
from geocrodino.spelling import did_you_mean

GPU_BATCH = 4
"""Tiles in one call of a network on a GPU: seven million pixels, which occupy it fully and need some 2 GB."""
_MAX_WORKERS = 8  # by default, because each holds the activations of a tile


def check_options(
    modalities: tuple[Modality, ...], layers: tuple[Layer, ...], inputs: Inputs, height: HeightSettings | None = None
) -> None:
    """Check that options belong to the modalities of a map.

    Args:
        modalities: The modalities.
        layers: Layers of the layers file.
        inputs: How the rasters are read.
        height: The whole coding of the heights; None: not given.

    Raises:
        ConfigError: If an option would do nothing, or a layer is unknown.
    """
    ground, height_unit, rescale = inputs.ground, inputs.height_unit, inputs.rescale
    of_heights = [definition_of(m).holds_heights for m in modalities]
    alone = f"found {' and '.join(modalities)} alone"
    if all(of_heights) and (inputs.bands is not None or rescale is not None):
        option = "bands" if inputs.bands is not None else "rescale"
        raise ConfigError(f"`{option}` applies only to an image, {alone}.\nLeave it out.")
    if rescale is not None and not (math.isfinite(rescale) and rescale > 0):
        raise ConfigError(f"`rescale={rescale:g}`: expected a number above 0, for instance 1/257.")
    if not any(of_heights) and ground is not None:
        raise ConfigError(f"{ground}: `ground` applies only to elevation, {alone}.\nLeave it out.")
    options = {"height_unit": height_unit, "height_scale": inputs.height_scale, "height_zero": inputs.height_zero}
    given = {name: value for name, value in options.items() if value is not None}
    if not any(of_heights) and given:
        raise ConfigError(f"{arguments(**given)} applies only to elevation, {alone}.\nLeave it out.")
    if not any(of_heights) and height is not None:
        raise ConfigError(f"`height` applies only to elevation, {alone}.\nLeave it out.")
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown:
        hint = did_you_mean(unknown[0], list(LAYERS))
        raise ConfigError(f"layer {unknown[0]!r} is unknown. Expected some of {', '.join(LAYERS)}.{hint}")
    comparing = [layer for layer in layers if LAYERS[layer].compares]
    if comparing and len(modalities) == 1:
        raise ConfigError(
            f"the layer {comparing[0]} compares two modalities, {alone}.\n"
            "Give an image and a surface model, or leave the layer out."
        )


def place_given(inputs: Inputs) -> Place | None:
    """What the user states of the place of files that do not.

    Args:
        inputs: How the rasters are read.

    Returns:
        The place; None if nothing is stated.

    Raises:
        ConfigError: If the pixel size is none.
    """
    if inputs.pixel_m is not None and not (math.isfinite(inputs.pixel_m) and inputs.pixel_m > 0):
        raise ConfigError(f"`pixel_m={inputs.pixel_m:g}`: expected a pixel size in metres, above 0.")
    return stated_place(inputs.crs, inputs.pixel_m)


def batch_of(execution: Execution, tiles: int) -> int:
    """Tiles in one call of a network.

    Args:
        execution: What computes.
        tiles: Tiles of the scene.

    Returns:
        Their number.

    Raises:
        ConfigError: If batches cannot be formed there.
    """
    batch, device = execution.batch, execution.device
    if batch is None:
        return min(GPU_BATCH, tiles) if device.startswith("cuda") and execution.scheduler is None else 1
    if batch > 1 and device.partition(":")[0] == "cpu":
        raise ConfigError(f"`batch={batch}`: batching needs a GPU, found cpu.\nLeave it out.")
    if batch > 1 and execution.scheduler == PROCESSES:
        raise ConfigError(
            f"`batch={batch}`: batches are gathered from threads. Expected threads of this process or of Dask workers, "
            "found processes with one each.\nLeave `batch` or `scheduler` out."
        )
    return batch


def default_workers() -> int:
    """Choose how many blocks are worked on at the same time.

    Returns:
        The processors that this process may use, at most 8.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(available or 1, _MAX_WORKERS)
