"""Metadata that the QGIS plugin deepness and the program GeoDeep read from an ONNX file.

Both read ``metadata_props`` of the file, whose values are JSON.

References:
    https://qgis-plugin-deepness.readthedocs.io/en/latest/creators/creators_add_metadata_to_model.html
    https://github.com/PUTvision/qgis-plugin-deepness (src/deepness/processing/models/model_base.py)
    https://github.com/uav4geo/GeoDeep (geodeep/inference.py)
"""

from __future__ import annotations

import json
import math
from typing import Any

from geocrodino.bundle.manifest import Manifest
from geocrodino.modalities.image import ImageModality
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.modality import Modality

PLUGIN_DIVISOR = 255
"""Both programs divide the values of every band by it; GeoDeep only those of 8 bits."""

GEODEEP_CHANNELS = 3
"""Number of channels that GeoDeep accepts."""

LARGEST_OVERLAP = 50
"""Largest overlap that is chosen, in percent of a tile. At 50 % each pixel is computed four times."""

_OVERLAP_WITHOUT_RADIUS = 25  # percent, if every pixel can change every other one


def input_divisor(spec: ModalitySpec) -> int:
    """What an ONNX file expects the values of its channels to be divided by.

    Args:
        spec: Channels of the branch.

    Returns:
        255 for bands of an image with 8 bits, because GeoDeep divides by 255 and does not know a standardisation. 1 for
        other images, which it does not divide, and for computed channels such as heights, which it cannot read;
        deepness undoes its division by the standardisation.
    """
    eight_bits = spec.recipe.dtype in {None, "uint8"}
    return PLUGIN_DIVISOR if eight_bits and isinstance(spec.definition, ImageModality) else 1


def choose_overlap(receptive_field_px: int | None, tile_px: int) -> int:
    """Choose how much neighbouring tiles overlap.

    Both programs keep the inner part of a tile and cut half of the overlap off each side.

    Args:
        receptive_field_px: Largest distance of an input pixel that can change an output pixel, px; None if every
            pixel can.
        tile_px: Height and width of a tile, px.

    Returns:
        Overlap in whole percent of a tile: enough that no kept pixel lacks context, but at most 50; 25 without a
        receptive field.
    """
    if receptive_field_px is None:
        return _OVERLAP_WITHOUT_RADIUS
    return min(math.ceil(200 * receptive_field_px / tile_px), LARGEST_OVERLAP)


def plugin_metadata(manifest: Manifest, modality: Modality, *, tile_px: int, overlap_percent: int) -> dict[str, str]:
    """Metadata of the ONNX file of one branch.

    Args:
        manifest: Manifest of the bundle.
        modality: The branch.
        tile_px: Height and width of a tile, px.
        overlap_percent: Overlap of neighbouring tiles, percent.

    Returns:
        JSON by key. Classes are numbered as the outputs of the network; the key ``geocrodino`` also has their values in
        maps, and the channels.

    Raises:
        KeyError: If the bundle has no such branch.
    """
    spec = manifest.modalities[modality]
    count, divisor = len(spec.channels), input_divisor(spec)
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(index): name for index, name in enumerate(manifest.classes.names)},
        "resolution": round(100 * manifest.resolution_m, 6),  # cm
        "tile_size": tile_px,  # the name that deepness reads
        "tiles_size": tile_px,  # the name in its documentation
        "tiles_overlap": overlap_percent,
        # The graph standardises. What remains is to undo the division by 255 where the graph does not expect it.
        "standardization_mean": [0.0] * count,
        "standardization_std": [divisor / PLUGIN_DIVISOR] * count,
        "seg_thresh": 0.0,  # a pixel below a threshold would be given to the first class
        "seg_small_segment": 0,
        "geocrodino": _own_facts(manifest, modality, divisor),
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def _own_facts(manifest: Manifest, modality: Modality, divisor: int) -> dict[str, Any]:
    spec = manifest.modalities[modality]
    return {
        "bundle": manifest.name,
        "bundle_sha256": manifest.sha256,
        "modality": modality,
        "input": "values of the channels in their units" + (f", divided by {divisor}" if divisor != 1 else ""),
        "output": "probabilities of the classes",
        "channels": [channel.model_dump(mode="json") for channel in spec.channels],
        "classes": [c.model_dump(mode="json") for c in manifest.classes.classes],
    }
