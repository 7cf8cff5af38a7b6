"""The configuration of a training: what a YAML file may say, checked, with units.

Values come, the first found wins, from the command line, the file named by ``--config``, ``geocrodino.yaml`` in the
working folder, and the defaults here. Paths in a file are relative to that file and may hold ``${VARIABLES}``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from geocrodino.data.augmentation import AugmentationSettings
from geocrodino.data.normalisation import HeightChannel
from geocrodino.errors import ConfigError, OutputError
from geocrodino.geo.classes import ClassScheme, LandClass
from geocrodino.geo.files import whole_file
from geocrodino.geo.heights import GroundFilter
from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.models.settings import NetworkSettings
from geocrodino.training.method import MethodSettings
from geocrodino.training.task import OptimiserSettings

PROJECT_FILE = "geocrodino.yaml"
"""Looked for in the working folder."""

_PATHS = ("optical", "elevation", "labels", "ground", "aoi")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """Which files, and how they are read."""

    optical: Path = Field(description="image, any bands, CRS and resolution")
    elevation: Path = Field(description="surface model, any CRS and resolution")
    labels: Path = Field(description="class values, 0 to 254")
    aoi: str = Field(description="polygons with a column split, or minx,miny,maxx,maxy")
    ground: Path | None = Field(None, description="terrain model, if there is one; else the ground is estimated")
    aoi_crs: str | None = Field(None, description="CRS of a bounding box, for instance EPSG:4326")
    resolution_m: float | None = Field(None, gt=0, description="pixel size to work at, m; the optical's by default")
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="optical bands to use, counted from 1; all by default"
    )
    height_unit: str | None = Field(None, description="m, ft, us-ft, none ...; by the file where it says so")
    ignore_values: tuple[int, ...] = Field((), description="label values to leave out")


class ElevationConfig(_Section):
    """What the elevation branch reads."""

    channels: tuple[HeightChannel, ...] = Field(
        ("height_above_ground", "slope", "topographic_position"),
        description="height_above_ground (m), slope (degrees), topographic_position (m), height (m, absolute)",
    )
    ground: GroundFilter = Field(GroundFilter(), description="how the ground is estimated without a terrain model")


class TrainingConfig(_Section):
    """How long, how much at a time, on what."""

    epochs: int = Field(30, ge=1, description="passes; each ends with a validation")
    steps_per_epoch: int = Field(40, ge=1, description="batches in an epoch")
    batch_size: int = Field(8, ge=2, description="patches in a batch")
    patch_px: int = Field(128, ge=32, description="side of a patch, px")
    unlabelled_share: float = Field(
        0.5,
        ge=0,
        description="most patches without labels for each patch with labels: of the split unlabelled, or of train",
    )
    balance: float = Field(0.5, ge=0, le=1, description="share of patches drawn around an evenly drawn class")
    class_weight_power: float = Field(0.5, ge=0, le=1, description="0: equal class weights, 1: inverse frequency")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="moving average of weights, per step; 0: none")
    batch_norm_batches: int = Field(
        0,
        ge=0,
        description="training batches from which batch-norm statistics are measured anew before a validation; 0: not",
    )
    patience: int = Field(15, ge=1, description="epochs without a gain of either branch until training stops")
    seed: int = Field(0, ge=0, lt=2**32, description="start of all random numbers")
    accelerator: str = Field("auto", description="cpu, gpu, mps or auto")
    precision: str = Field(
        "32-true",
        description="Lightning's name of the number format, for instance 16-mixed; auto: bf16-mixed where the device "
        "multiplies bfloat16 in hardware, else 32-true",
    )
    workers: int = Field(0, ge=0, description="reading processes; 0: read in the training process")
    optimiser: OptimiserSettings = Field(OptimiserSettings(), description="how weights are updated")


class TrainConfig(_Section):
    """Everything that a training depends on; its resolved copy lies in the run folder."""

    data: DataConfig = Field(description="which files, and how they are read")
    classes: tuple[LandClass, ...] | None = Field(None, description="value, name and colour; by the file otherwise")
    elevation: ElevationConfig = Field(ElevationConfig(), description="what the elevation branch reads")
    network: NetworkSettings = Field(NetworkSettings(), description="the same for both branches")
    encoder_weights: dict[Modality, Path] = Field({}, description="local encoder weights; nothing is fetched")
    method: MethodSettings = Field(MethodSettings(), description="what is learned, and how")
    augmentation: AugmentationSettings = Field(AugmentationSettings(), description="random changes of patches")
    training: TrainingConfig = Field(TrainingConfig(), description="how long, how much at a time, on what")

    @field_validator("classes")
    @classmethod
    def _make_a_scheme(cls, classes: tuple[LandClass, ...] | None) -> tuple[LandClass, ...] | None:
        if classes is not None:
            try:
                ClassScheme(classes=classes)
            except ValidationError as error:
                raise ValueError("; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())) from None
        return classes

    def class_scheme(self) -> ClassScheme | None:
        """The classes, if they are named."""
        return None if self.classes is None else ClassScheme(classes=self.classes)


def load_config(file: Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
    """Resolve a configuration.

    Args:
        file: YAML file; None takes ``geocrodino.yaml`` of the working folder where there is one.
        overrides: Values of the command line by dotted key, for instance ``{"training.seed": 1}``; None is no value.

    Raises:
        ConfigError: If the file is missing or not YAML, or a key or value is not what is expected.
    """
    project = Path(PROJECT_FILE)
    source = file if file is not None else (project if project.exists() else None)
    tree = {} if source is None else _read(source)
    for key, value in overrides.items():
        if value is not None:
            *sections, last = key.split(".")
            place = tree
            for section in sections:
                inner = place.get(section)
                if inner is None:  # a section that is left out, or a heading with nothing under it
                    inner = place[section] = {}
                if not isinstance(inner, dict):
                    raise ConfigError(f"{source}: {section}: expected keys and values, found {inner!r}.")
                place = inner
            place[last] = value
    _make_absolute(tree)
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_told(error, source, {k for k, v in overrides.items() if v is not None})) from error


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved configuration as YAML.

    Raises:
        OutputError: If it cannot be written.
    """
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    try:
        with whole_file(path) as partial:
            partial.write_text(text)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}).") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: no such configuration file.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error}).") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `data:`, found {type(tree).__name__}.")
    data = tree.get("data")
    if isinstance(data, dict):
        for key in _PATHS:
            if isinstance(data.get(key), str):
                data[key] = _resolved(data[key], path)
    weights = tree.get("encoder_weights")
    if isinstance(weights, dict):
        tree["encoder_weights"] = {k: _resolved(v, path) if isinstance(v, str) else v for k, v in weights.items()}
    return tree


def _resolved(text: str, config: Path) -> str:
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)\}?", expanded)
    if missing:
        raise ConfigError(
            f"{config}: {text} needs the environment variable {missing.group(1)}, which is not set.\n"
            f"Set it, for instance: export {missing.group(1)}=/path/to/data"
        )
    if expanded.count(",") == 3:  # a bounding box
        return expanded
    place = Path(expanded).expanduser()
    return str(place if place.is_absolute() else config.parent / place)


def _make_absolute(tree: dict[str, Any]) -> None:
    """The resolved copy must mean the same files wherever it lies and from wherever a run is resumed."""
    for section, keys in (("data", _PATHS), ("encoder_weights", MODALITIES)):
        place = tree.get(section)
        if not isinstance(place, dict):
            continue
        for key in keys:
            value = place.get(key)
            if isinstance(value, str) and value.count(",") != 3:
                place[key] = os.path.abspath(value)  # noqa: PTH100 - links stay as they were named


def _told(error: ValidationError, source: Path | None, overridden: set[str]) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(p) for p in item["loc"])
        whole_section = isinstance(item["input"], dict)  # says nothing that the file does not say
        silent = whole_section or item["type"] in {"missing", "extra_forbidden"}
        found = "" if silent else f", found {item['input']!r}"
        said = {
            "missing": "is needed, found nothing",
            "extra_forbidden": "is not a known key",
        }.get(item["type"], _lowered(item["msg"].removeprefix("Value error, ")))
        if item["type"] == "extra_forbidden":
            said += _expected_keys(item["loc"])
        if source and key in overridden:
            found += " (from an option, not from the file)"
        lines.append(f"  {key}: {said}{found}")
    where = str(source) if source else "the command line"
    absent = {item["loc"] for item in error.errors() if item["type"] == "missing"}
    needed = [f"--{k}" for k in ("optical", "elevation", "labels", "aoi") if ("data", k) in absent]
    hint = f"\nName {', '.join(needed)}, or write them under `data:` in {PROJECT_FILE}." if needed else ""
    if ("data",) in absent:
        hint = f"\nName --optical, --elevation, --labels and --aoi, or write them under `data:` in {PROJECT_FILE}."
    return f"{where}: the configuration cannot be used:\n" + "\n".join(lines) + hint


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _expected_keys(place: tuple[int | str, ...]) -> str:
    """The keys that there are beside an unknown one, a likely one alone if there is such."""
    model: Any = TrainConfig
    for key in place[:-1]:
        field = getattr(model, "model_fields", {}).get(key)
        model = None if field is None else field.annotation
    known = sorted(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    if close:
        return f"; expected {close[0]}, perhaps"
    return f"; expected one of {', '.join(known)}" if known else ""
