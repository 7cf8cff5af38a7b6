"""Options of a prediction, in four groups.

Each option is described once, in its field. The help of the command line, the docstrings of the classes and the table
in ``docs/prediction.md`` use that text. This module needs neither pydantic nor a library for rasters, so that the help
of the program appears quickly.
"""

# ruff: noqa: RUF009 - `_option` makes a dataclass field

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from inspect import cleandoc
from pathlib import Path
from textwrap import fill
from typing import Any, Literal, TypeVar, get_args

from geocrodino.errors import ConfigError
from geocrodino.settings.height_words import HeightZero
from geocrodino.spelling import did_you_mean

ModalityChoice = str
"""Which modalities to use: the name of one, ``both`` (an image and a surface model) or ``auto`` (those that the rasters
hold)."""

Companion = Literal["decided", "layers"]
"""Files beside a map: which modality decided, and layers such as confidence. Their names end in these words."""

COMPANIONS: tuple[Companion, ...] = get_args(Companion)

Stitch = Literal["auto", "exact", "blend"]
"""How tiles are joined, see `Tiling`."""

BackendName = Literal["auto", "torch", "openvino"]
"""Inference backend, see `Execution`."""

Precision = Literal["auto", "full", "half", "int8"]
"""Numbers that a network computes in, see `Execution`."""

Layer = str
"""Name of a map layer in the table `geocrodino.prediction.layers.LAYERS`, see `Outputs`."""

PROCESSES = "processes"
"""Name of the scheduler that is a cluster of processes on this machine."""

_Value = TypeVar("_Value")
_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class OptionField:
    """One option of a prediction.

    Attributes:
        name: Name in Python.
        flag: Name on the command line.
        default: Value if the user gives none.
        text: Its effect, with unit and range, and the meaning of None.
        choices: Words that it accepts; empty if it accepts other values.
        least: Smallest number that it accepts; None: no lower limit, or not a number.
    """

    name: str
    flag: str
    default: Any
    text: str
    choices: tuple[str, ...]
    least: int | None


def option_fields(options: type) -> tuple[OptionField, ...]:
    """The options of one group, in the order of their definition.

    Args:
        options: `Inputs`, `Tiling`, `Execution` or `Outputs`.

    Returns:
        One entry for each field; fields without a description are left out.
    """
    return tuple(
        OptionField(
            name=each.name,
            flag=f"--{each.metadata['word'] or each.name.replace('_', '-')}",
            default=each.default,
            text=each.metadata["text"],
            choices=each.metadata["choices"],
            least=each.metadata["least"],
        )
        for each in fields(options)
        if "text" in each.metadata
    )


def _option(
    default: _Value, text: str, *, word: str | None = None, choices: Any = None, least: int | None = None
) -> _Value:
    """Create a field with its description; ``word`` if the command line has another name for it."""
    made: _Value = field(
        default=default, metadata={"text": text, "word": word, "choices": get_args(choices), "least": least}
    )
    return made


def _documented(options: _Class) -> _Class:
    """List the options of a group in its docstring, after the first paragraph."""
    summary, _, rest = cleandoc(options.__doc__ or "").partition("\n\n")
    entries = [
        fill(f"{each.name}: {each.text}", 100, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for each in option_fields(options)
    ]
    options.__doc__ = "\n\n".join(filter(None, [summary, "\n".join(["Attributes:", *entries]), rest]))
    return options


class _Checked:
    """Refuse words and numbers that an option does not accept."""

    def __post_init__(self) -> None:
        for each in option_fields(type(self)):
            value = getattr(self, each.name)
            if each.choices and value not in (*each.choices, each.default):
                hint = did_you_mean(str(value), each.choices)
                raise ValueError(f"{each.name} must be one of {', '.join(each.choices)}, found {value!r}.{hint}")
            if each.least is not None and value is not None and value < each.least:
                raise ValueError(f"{each.name} must be at least {each.least}, found {value}")


@_documented
@dataclass(frozen=True, kw_only=True)
class Inputs(_Checked):
    """How the rasters of a scene are read."""

    ground: str | Path | None = _option(
        None,
        "Terrain model: heights of the bare ground, for heights above ground; only with elevation. By default the "
        "ground is estimated from the surface model.",
    )
    height_unit: str | None = _option(
        None,
        "Unit of heights, such as m, ft or us-ft, or none; only with elevation. By default the unit that the file "
        "names, then the one given for the training, then m.",
    )
    height_scale: float | None = _option(
        None,
        "Metres in a stored unit of the heights, above 0, for instance 0.1 for decimetres; only with elevation. By "
        "default what the file says, then what was given for the training.",
    )
    height_zero: HeightZero | None = _option(
        None,
        "Where heights are 0: sea, a surface model; ground, heights above ground; camera, distances from the camera. "
        "By default as in the training.",
        choices=HeightZero,
    )
    crs: str | None = _option(None, "CRS of files that have coordinates but state none, for instance EPSG:32631.")
    pixel_m: float | None = _option(
        None, "Pixel size of files without any place, m, above 0. Their map has no place either.", word="pixel-size"
    )
    bands: Sequence[int] | None = _option(
        None,
        "Numbers of the image's bands in the order of the training, counted from 1, for instance 3,2,1. By default "
        "bands are matched by name if both sides name them, otherwise by number.",
    )
    rescale: float | None = _option(
        None,
        "Factor above 0 for the values of the image, for instance 1/257 to turn 16-bit values into the 8-bit values "
        "of the training. By default values stay as they are.",
    )
    asset: str | None = _option(
        None, "Key of the asset that is the scene, needed only if STAC items have several assets with data."
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Tiling(_Checked):
    """How a scene is cut into tiles and blocks, and how tiles are joined."""

    core_px: int | None = _option(
        None,
        "Side of a tile without its margin, in px of the training's pixel size, at least 1, rounded up to a multiple "
        "of the network's stride. By default 1024 for classes alone on the scene's own pixels, otherwise 832, or 512 "
        "if tiles are blended, and less where tiles at the edge would be nearly empty. Larger tiles need more memory "
        "and save time in large scenes.",
        word="tile-px",
        least=1,
    )
    stitch: Stitch = _option(
        "auto",
        "How tiles are joined. exact: as in one pass over the whole scene; blend: neighbouring tiles are mixed; auto: "
        "exact if the receptive field of the network is at most 256 px to each side, otherwise blend.",
        choices=Stitch,
    )
    block_px: int | None = _option(
        None,
        "Side of a block, the unit of work, in px of the scene, at least 1. By default about one tile. It does not "
        "change the map.",
        least=1,
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Execution(_Checked):
    """What computes a map: backend, device, workers and memory.

    Raises:
        ConfigError: If both ``memory`` and ``scheduler`` are given.
        ValueError: If a number or a word is out of its range.
    """

    backend: BackendName = _option(
        "auto",
        "Inference backend. auto: OpenVINO on the CPU if it is installed, otherwise PyTorch.",
        choices=BackendName,
    )
    precision: Precision = _option(
        "auto",
        "Numbers that the networks compute in. full: float32; half: bfloat16 on CPUs that support it, float16 on CUDA "
        "GPUs of capability 7.0 or newer, which saves time and changes a few pixels in a thousand; int8: whole numbers "
        "of 8 bits, with OpenVINO on the CPU, for bundles to which quantise has added int8 networks; auto: float16 on "
        "such a GPU if the probabilities of a small tile differ by at most 0.02, otherwise full.",
        choices=Precision,
    )
    device: str = _option("cpu", "Torch device: cpu, cuda or mps; on the command line also auto, which is the default.")
    batch: int | None = _option(
        None,
        "Tiles in one call of the network, at least 1; more than 1 needs a GPU. By default 4 on CUDA GPUs without a "
        "scheduler, otherwise 1. It changes the last digits of probabilities.",
        least=1,
    )
    workers: int | None = _option(
        None,
        "Blocks worked on at the same time, at least 1. By default one for each processor, at most 8; at least twice "
        "the batch.",
        least=1,
    )
    memory: int | str | None = _option(
        None,
        "Most memory to use, in bytes or with a unit, for instance 2GB. Fewer tiles are then computed at the same "
        "time. Without a limit by default; not with a scheduler.",
    )
    scheduler: str | None = _option(
        None,
        "Where blocks are computed: processes for a cluster of processes on this machine, or the address of a Dask "
        "scheduler (tcp://...) whose workers see the same files. By default threads of this process.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheduler is not None and self.memory is not None:
            raise ConfigError("memory limits only the threads of this process: leave it out with a scheduler.")


@_documented
@dataclass(frozen=True, kw_only=True)
class Outputs(_Checked):
    """What is written beside the map, and what happens to files that exist."""

    layers: Sequence[Layer] = _option(
        (),
        "Layers to write to MAP.layers.tif, each 0 to 1: probabilities of each class; confidence, the probability of "
        "the most likely class; entropy, 1 if all classes are equally likely; disagreement of the two modalities, half "
        "the sum of absolute differences. On the command line the option may be repeated.",
        word="layer",
    )
    overwrite: bool = _option(False, "Replace an existing map.")
    resume: bool = _option(
        False, "Continue an interrupted run with the same inputs and options; finished blocks are reused."
    )


GROUPS: tuple[type, ...] = (Inputs, Tiling, Execution, Outputs)
"""All groups of options."""
