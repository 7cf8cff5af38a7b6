"""A bundle in words. Needs no PyTorch."""

from __future__ import annotations

from geocrodino.bundle.manifest import Manifest
from geocrodino.settings.factors import factor_text
from geocrodino.settings.modality import MODALITIES, Modality


def describe_manifest(manifest: Manifest) -> list[tuple[str, str]]:
    """Describe a bundle for people.

    Args:
        manifest: Its manifest.

    Returns:
        Pairs of a title and a text: the model, what it started from if that was another bundle, its classes, its
        network, the channels of each branch, its place and its training. Facts that are not recorded are left out.
    """
    facts, network = manifest.training, manifest.network
    method, origin, scores = (facts.get(key) or {} for key in ("method", "started_from", "val_miou"))
    rows = [("model", f"{manifest.name}, sha256 {manifest.sha256}, written {manifest.created:%Y-%m-%d %H:%M}")]
    if origin:
        rows.append(("started from", f"{origin.get('name')}, sha256 {origin.get('sha256')}"))
    rows += [
        ("classes", ", ".join(f"{c.value} {c.name}" for c in manifest.classes.classes)),
        ("network", f"encoder {network.encoder}, decoder {network.decoder}, depth {network.depth}"),
    ]
    for modality in MODALITIES.in_order(manifest.modalities):
        channels = ", ".join(f"{c.name} ({c.unit})" for c in manifest.modalities[modality].channels)
        score = f"; best mIoU on val {100 * scores[modality]:.1f} %" if modality in scores else ""
        rows.append((modality, f"{channels}{score}{_factor(manifest, modality)}{_coding(manifest, modality)}"))
    place = "no place" if manifest.crs.startswith("ENGCRS") else manifest.crs.splitlines()[0]
    rows.append(("pixel", f"{manifest.resolution_m:g} m, {place}"))
    if method:
        rows.append(
            ("training", f"method {method.get('name')}, {facts.get('epochs')} epochs, seed {facts.get('seed')}")
        )
    return rows


def _factor(manifest: Manifest, modality: Modality) -> str:
    """What the training multiplied the values of its images by, where its settings said so."""
    if modality != "optical" or manifest.rescale is None:
        return ""
    return f"; values multiplied by {factor_text(manifest.rescale)}"


def _coding(manifest: Manifest, modality: Modality) -> str:
    """How the training read the numbers of its heights, where its settings said so."""
    height = manifest.modalities[modality].recipe.height
    if height is None:
        return ""
    keys = ", ".join(f"{key} {value}" for key, value in height.model_dump(exclude_defaults=True).items())
    return f"; coding of heights: {keys}"
