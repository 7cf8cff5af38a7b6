"""Exported files in words of the STAC extension for models (MLM)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from geocrodino.bundle.manifest import Manifest
from geocrodino.maps.stac import Artifact
from geocrodino.settings.export import ExportFormat
from geocrodino.settings.modality import Modality

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch": ".pt2"}

_ROLES = ("mlm:model", "mlm:compiled", "data")

ARTIFACTS: dict[ExportFormat, Artifact] = {
    # The extension's table of artifact types has torch.export; it has none for ONNX and permits other names.
    "onnx": Artifact("Network as ONNX", "onnx", "application/octet-stream; framework=onnx", _ROLES),
    "torch": Artifact("Network as torch.export", "torch.export", "application/octet-stream; framework=pytorch", _ROLES),
}
"""What kind of file each format is; ``mlm:compiled``: it runs without the code of the network."""


def mlm_properties(
    manifest: Manifest, modality: Modality, export_format: ExportFormat, *, tile_px: int, divisor: int
) -> dict[str, Any]:
    """Properties of the MLM extension for an exported branch.

    Args:
        manifest: Manifest of the bundle.
        modality: The branch.
        export_format: Format of the file.
        tile_px: Height and width of a tile, px.
        divisor: What the caller divides the values of the channels by.

    Returns:
        Values that JSON can hold, but for scores that are NaN. The graph standardises, so only the division by
        ``divisor`` is left as scaling.

    Raises:
        KeyError: If the bundle has no such branch.
    """
    described = manifest.to_mlm(modality)
    given, made = described["mlm:input"][0], described["mlm:output"][0]
    given["input"]["shape"][2:] = made["result"]["shape"][2:] = [tile_px, tile_px]
    scaling = [{"type": "min-max", "minimum": 0, "maximum": divisor}]
    given["value_scaling"] = None if divisor == 1 else scaling
    units = ", ".join(f"{c.name} ({c.unit})" for c in manifest.modalities[modality].channels)
    given["description"] = f"Values of the channels in their units, NaN where there is no data: {units}."
    made["description"] = "Probabilities of the classes, in the order of the list, 0 to 1."
    if export_format == "onnx":
        described |= {"mlm:framework": "ONNX", "mlm:framework_version": version("onnx")}
    else:
        described["mlm:framework_version"] = version("torch")
    return described
