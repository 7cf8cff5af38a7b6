"""Open the networks of a checked prediction, and record all that its map depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from odc.geo.geobox import GeoBox

from geocrodino import __version__
from geocrodino.bundle.io import Bundle
from geocrodino.geo.rasters.identity import fingerprint
from geocrodino.geo.rasters.place import PIXEL_TAG, is_placeless
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.choose import ChosenModalities
from geocrodino.prediction.draft import Draft, check_files, map_files
from geocrodino.prediction.job import Job
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import Outputs, Precision


@dataclass(frozen=True)
class PredictionPlan:
    """A prediction that can start.

    Attributes:
        scene: Raster whose grid is the grid of the map.
        grid: Working grid of the networks.
        job: Everything that determines the pixels.
        backends: The backend of each modality, ready to compute.
        blocks: Blocks to predict, in order.
        key: Everything that the map depends on, by name.
        chosen: Modalities of the map, and the reason.
        stitch: How tiles are joined.
        notes: Warnings for the user.
    """

    scene: RasterSource
    grid: GeoBox
    job: Job
    backends: dict[Modality, Backend]
    blocks: list[Window]
    key: dict[str, str]
    chosen: ChosenModalities
    stitch: Literal["exact", "blend"]
    notes: tuple[str, ...]


def plan_prediction(
    draft: Draft, bundle: Bundle, out: Path, *, block_px: int | None, outputs: Outputs
) -> PredictionPlan:
    """Open the networks of a checked prediction.

    Args:
        draft: The prediction, see `draft_prediction`.
        bundle: The trained networks.
        out: The map to write.
        block_px: Side of the blocks, as in `Tiling`.
        outputs: What is written.

    Returns:
        A plan; its backends are open.

    Raises:
        GeocrodinoError: One of its kinds, if the map cannot be written, or no backend can compute the networks.
    """
    job, raster, chosen = draft.job, draft.rasters.raster, draft.chosen
    check_files(job, outputs)  # before networks are converted, which may take minutes
    backends = job.backends(bundle)
    if len({b.name for b in backends.values()}) > 1:  # only one of the two branches can be converted
        backends = replace(job, backend="torch").backends(bundle)
    name = next(iter(backends.values())).name
    numbers = _unique(backend.number for backend in backends.values())
    tags = {
        **_tags(bundle, chosen.modalities, raster),
        "STITCH": draft.stitch,
        "BACKEND": name,
        "PRECISION": ", ".join(numbers),
    }
    # Other processes and a resumed run then use the same backend and precision, even if `auto` chose them.
    job = replace(
        job,
        backend=name,
        precision=_settled(job.precision, numbers),
        files=map_files(out, job.classes, chosen.modalities, job.layers, tags),
    )
    key = _key(job, backends, block_px, draft.rasters.ground)
    return PredictionPlan(raster, draft.grid, job, backends, draft.blocks, key, chosen, draft.stitch, draft.notes)


def _settled(precision: Precision, numbers: tuple[str, ...]) -> Precision:
    """The precision that the open backends compute in; as it was given if they differ."""
    if len(numbers) > 1:
        return precision
    if numbers == ("int8",):
        return "int8"
    return "full" if numbers == ("float32",) else "half"


def _tags(bundle: Bundle, modalities: tuple[Modality, ...], scene: RasterSource) -> dict[str, str]:
    return {
        "TIFFTAG_SOFTWARE": f"geocrodino {__version__}",
        "BUNDLE_NAME": bundle.manifest.name,
        "BUNDLE_SHA256": bundle.sha256,
        "MODALITY": "both" if len(modalities) > 1 else modalities[0],
        "SCENE": scene.path.name or scene.path.resolve().name,
        **({PIXEL_TAG: repr(scene.geobox.affine.a)} if is_placeless(scene.geobox) else {}),
    }


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    """Each different word once, in order."""
    return tuple(dict.fromkeys(words))


def _computed_by(job: Job, numbers: Iterable[str]) -> str:
    """Everything about the computation that changes the last digits."""
    device = job.device
    if device.startswith("cuda"):
        import torch

        device = torch.cuda.get_device_name(device)
    together = f", {job.batch} tiles at once" if job.batch > 1 else ""
    return f"{job.backend} {version(job.backend)} on {device} in {', '.join(numbers)}{together}"


_SOFTWARE = ("geocrodino", "torch", "numpy", "scipy", "pyproj", "rasterio")
"""Libraries whose version affects the bytes of a map."""


def _key(
    job: Job, backends: Mapping[Modality, Backend], block_px: int | None, ground: RasterSource | None
) -> dict[str, str]:
    """Everything that the bytes of a map depend on, by name; workers and memory do not belong to it."""
    lattice = job.lattice
    rasters: dict[str, str] = {m: fingerprint(source.raster) for m, source in job.inputs.items()}
    units = {source.unit for source in job.inputs.values() if source.unit}
    # Of one raster the grid follows from the raster and the bundle; heights beside an image may change it.
    grid = {"grid": f"{tuple(job.grid.shape)} {tuple(job.grid.affine)[:6]}"} if len(job.inputs) > 1 else {}
    return {
        **rasters,
        **grid,
        "ground": fingerprint(ground) if ground else "none",
        "height unit": ", ".join(units) or "of the files",
        "bundle": job.bundle[1],
        "software": ", ".join(f"{name} {__version__ if name == 'geocrodino' else version(name)}" for name in _SOFTWARE),
        "backend": _computed_by(job, _unique(backend.number for backend in backends.values())),
        "tiles": f"{lattice.core_px} px, margin {lattice.margin_px} px, ramp {lattice.ramp_px} px",
        "margin that is not decoded": ", ".join(_unique(f"{backend.trim_px} px" for backend in backends.values())),
        "block": "about one tile" if block_px is None else f"{block_px} px",
        "layers": ", ".join(job.layers) or "none",
        "area": "all" if job.area is None else hashlib.sha256(job.area.wkb).hexdigest(),
    }
