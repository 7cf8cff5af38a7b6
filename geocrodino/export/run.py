"""Export the branches of a bundle: trace, write, compare with the bundle, and only then take the final name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.errors import ConfigError, ModelError
from geocrodino.export.check import Agreement, compare
from geocrodino.export.classifier import Classifier, traced
from geocrodino.export.description import ARTIFACTS, SUFFIXES, mlm_properties
from geocrodino.export.onnx_file import onnx_runner, require_onnx, write_onnx
from geocrodino.export.plugins import choose_overlap, input_divisor, plugin_metadata
from geocrodino.export.torch_file import program_runner, write_program
from geocrodino.files.access import durable_file
from geocrodino.maps.stac import write_model_item
from geocrodino.maps.writer import check_output
from geocrodino.settings.export import FORMATS, TILE_PX, ExportFormat
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.spelling import did_you_mean

_MOST_PERCENT = 90


@dataclass(frozen=True)
class ExportedBranch:
    """One exported branch.

    Attributes:
        modality: The branch.
        path: The file with the network.
        item: Its STAC item.
        tile_px: Height and width of a tile, px.
        overlap_percent: Overlap of neighbouring tiles in the metadata, percent; None for a format without.
        input_divisor: What the network expects the values of the channels to be divided by.
        agreement: How the file compares with the bundle.
    """

    modality: Modality
    path: Path
    item: Path
    tile_px: int
    overlap_percent: int | None
    input_divisor: int
    agreement: Agreement


def export_bundle(
    bundle: Bundle | str | Path,
    out: str | Path | None = None,
    *,
    format: ExportFormat = "onnx",
    modalities: Sequence[Modality] | None = None,
    tile_px: int = TILE_PX,
    overlap_percent: int | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[ExportedBranch, ...]:
    """Write the branches of a bundle as files that run without geocrodino, each with a STAC item beside it.

    The graph clips and standardises the values of the channels, computes the network, and gives calibrated
    probabilities, shape (B, K, tile_px, tile_px). Bands of an image come divided by 255 into an ONNX file, as deepness
    and GeoDeep give them; everything else comes in the units of the channels. Heights above ground and other computed
    channels are computed outside.

    Each file is run on a random tile after it was written and compared with the bundle. If a probability differs by
    more than `geocrodino.export.check.BOUND`, no file takes its name.

    Args:
        bundle: The trained networks, or their file.
        out: Folder to write to, by default that of the bundle. The files are called ``NAME-MODALITY.onnx`` or ``.pt2``
            after the model, their items ``.onnx.json`` or ``.pt2.json``.
        format: ``onnx``, with the metadata of deepness and GeoDeep, or ``torch``, a program of ``torch.export``.
        modalities: The branches, by default all of the bundle.
        tile_px: Height and width of a tile, px, a multiple of the stride of the network.
        overlap_percent: Overlap of neighbouring tiles in the metadata of ONNX files, 0 to 90 percent; by default what
            the receptive field asks for, at most 50.
        overwrite: Whether existing files may be replaced.
        tell: Called with a line on each step.

    Returns:
        What was written, one entry for each branch.

    Raises:
        BundleError: If the bundle cannot be read or has no such branch.
        ConfigError: If a package is missing, or an option has a wrong value.
        ModelError: If the network cannot be exported, or the file gives other probabilities than the bundle.
        OutputError: If a file exists or cannot be written.
        ValueError: If the format is unknown.
    """
    if format not in FORMATS:
        raise ValueError(
            f"format must be one of {', '.join(FORMATS)}, found {format!r}.{did_you_mean(format, FORMATS)}"
        )
    if format == "onnx":
        require_onnx()
    opened = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    _check_tiles(opened, tile_px, overlap_percent)
    chosen = MODALITIES.in_order(opened.manifest.modalities) if modalities is None else dict.fromkeys(modalities)
    folder = opened.path.parent if out is None else Path(out)
    names = {m: folder / f"{opened.manifest.name}-{m}{SUFFIXES[format]}" for m in chosen}
    for modality, path in names.items():
        opened.require(modality)
        check_output(path, overwrite=overwrite)
        check_output(_item(path), overwrite=overwrite)
    exported = []
    # All files take their names at the end, or none does.
    with ExitStack() as files:
        for modality, path in names.items():
            tell(f"{modality}: tracing the network and writing {path.name}")
            partial = files.enter_context(durable_file(path))
            exported.append(_export(opened, modality, format, path, partial, tile_px, overlap_percent))
    for each in exported:
        properties = mlm_properties(opened.manifest, each.modality, format, tile_px=tile_px, divisor=each.input_divisor)
        write_model_item(
            each.path,
            each.item,
            manifest=opened.manifest,
            modality=each.modality,
            artifact=ARTIFACTS[format],
            properties=properties,
            overwrite=overwrite,
        )
    return tuple(exported)


def _item(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _check_tiles(bundle: Bundle, tile_px: int, overlap_percent: int | None) -> None:
    stride = bundle.manifest.network.stride_px
    if tile_px < 2 * stride or tile_px % stride:
        nearest = max(2, round(tile_px / stride)) * stride
        raise ConfigError(
            f"`tile_px={tile_px}`: the network needs tiles of whole strides. Expected a multiple of {stride} px, at "
            f"least {2 * stride} px, found {tile_px} px.\nUse `tile_px={nearest}`."
        )
    if overlap_percent is not None and not 0 <= overlap_percent <= _MOST_PERCENT:
        raise ConfigError(
            f"`overlap_percent={overlap_percent}`: expected the share of a tile that its neighbour repeats, 0 to "
            f"{_MOST_PERCENT} percent, found {overlap_percent}.\nLeave it out: it then follows the network."
        )


def _export(
    bundle: Bundle,
    modality: Modality,
    export_format: ExportFormat,
    path: Path,
    partial: Path,
    tile_px: int,
    overlap_percent: int | None,
) -> ExportedBranch:
    """Write one branch under a preliminary name and compare it with the bundle."""
    manifest = bundle.manifest
    spec = manifest.modalities[modality]
    divisor = input_divisor(spec) if export_format == "onnx" else 1
    overlap = None
    if export_format == "onnx":
        chosen = choose_overlap(manifest.receptive_field_px, tile_px)
        overlap = chosen if overlap_percent is None else overlap_percent
    classifier = Classifier(
        bundle.branch(modality), spec, temperature=manifest.temperature(modality), divisor=divisor
    ).eval()
    with _told_as_model_error(path, manifest, modality, export_format):
        program = traced(classifier, len(spec.channels), tile_px)
        run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
        if overlap is not None:
            write_onnx(program, partial, plugin_metadata(manifest, modality, tile_px=tile_px, overlap_percent=overlap))
            run = onnx_runner(partial)
        else:
            properties = mlm_properties(manifest, modality, export_format, tile_px=tile_px, divisor=divisor)
            write_program(program, partial, properties)
            run = program_runner(partial)
        agreement = compare(run, bundle, modality, tile_px=tile_px, divisor=divisor, path=path)
    return ExportedBranch(modality, path, _item(path), tile_px, overlap, divisor, agreement)


@contextmanager
def _told_as_model_error(
    path: Path, manifest: Manifest, modality: Modality, export_format: ExportFormat
) -> Iterator[None]:
    """Turn what torch and ONNX Runtime raise at networks that they cannot export into one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on its own functions
            yield
    except (OSError, ModelError, MemoryError):
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        other = next(name for name in FORMATS if name != export_format)
        means = "ONNX" if export_format == "onnx" else "torch.export"
        raise ModelError(
            f"{path}: the {modality} branch (encoder {manifest.network.encoder}) cannot be exported. Expected a "
            f"network that {means} can express, found {type(error).__name__}: {first}\n"
            f"The file was not written. Try `format={other!r}`, or predict with the bundle."
        ) from error
