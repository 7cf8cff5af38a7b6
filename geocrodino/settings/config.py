"""The configuration of a training: keys of a YAML file, with units and checks.

The first of these that gives a value decides: the caller or the command line, the configuration file (the one named, or
``geocrodino.yaml`` in the working folder), the defaults here. Paths in a file are relative to that file and may hold
``${VARIABLES}``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from geocrodino.errors import ConfigError
from geocrodino.files.access import durable_file
from geocrodino.phrases import listed
from geocrodino.settings.augmentation import LIST_FORM, SHORT_FORM, AugmentationSettings
from geocrodino.settings.class_weights import ClassWeightRule
from geocrodino.settings.classes import ClassScheme, LandClass, with_colours
from geocrodino.settings.encoder_weights import IMAGENET, FirstLayer, weights_kind
from geocrodino.settings.file import PROJECT_FILE, complete_settings, read_settings
from geocrodino.settings.grid import GridOf
from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.growth import AUTO, GrowthKeys, share_or_auto, whole_number_or_auto
from geocrodino.settings.height_channels import HEIGHT_CHANNELS, HeightChannelName
from geocrodino.settings.height_words import HeightZero
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.settings.quality import QUALITIES, Quality, describe_qualities, is_quality
from geocrodino.settings.sampling import LEAST_PATCH_PX, BalanceBy
from geocrodino.settings.scene_table import SceneRows
from geocrodino.settings.scenes import ONE_MODALITY, DataConfig
from geocrodino.settings.section import Section
from geocrodino.spelling import did_you_mean

_LIGHTNING_VALUES = {
    "accelerator": ("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "precision": (
        "auto",
        "32-true",
        "16-mixed",
        "bf16-mixed",
        "16-true",
        "bf16-true",
        "64-true",
        "32",
        "16",
        "bf16",
        "64",
    ),
}  # fmt: skip
"""Values that Lightning accepts; listed here because Lightning is slow to import."""


_LATER = frozenset(("balance_by", "class_weights", "class_weight_beta", *GrowthKeys.model_fields))
"""Keys of `TrainingConfig` that are not written where they hold their default."""


def default_channels(zeros: Collection[HeightZero]) -> tuple[HeightChannelName, ...]:
    """Choose the channels of heights that count from something.

    Args:
        zeros: What the heights of the scenes count from.

    Returns:
        Those of a surface model; without the shape of the ground for heights above ground; without the ground for
        distances from a camera.

    Raises:
        ValueError: If some scenes have distances from a camera and others have not.
    """
    if set(zeros) <= {"sea"}:
        return ("height_above_ground", "slope", "topographic_position")
    if "camera" not in zeros:
        return ("height_above_ground", "slope")
    if len(set(zeros)) > 1:
        raise ValueError(
            f"expected heights that count from one thing, found {' and '.join(sorted(zeros))} as height.zero of "
            "different scenes. Name the channels that all of them have"
        )
    return ("height", "slope")


class ElevationConfig(Section):
    """Channels of the elevation branch, and the estimate of the ground."""

    channels: tuple[HeightChannelName, ...] = Field(
        default_channels(()),
        description="; ".join(f"{c.name} ({c.unit}): {c.description}" for c in HEIGHT_CHANNELS.values()),
    )
    ground: GroundFilter = Field(GroundFilter(), description="how the ground is estimated without a terrain model")


class TrainingConfig(GrowthKeys):
    """Duration, patches, optimiser and device of a training."""

    epochs: int = Field(30, ge=1, description="number of epochs; each ends with a validation")
    minutes: float | None = Field(
        None,
        gt=0,
        description="time for all steps and validations, min, instead of epochs: their number is measured at the start",
    )
    epochs_from_minutes: bool = Field(
        False, description="whether epochs was measured for minutes; the training writes it into the run folder"
    )
    steps_per_epoch: int = Field(40, ge=1, description="batches in an epoch")
    batch_size: Annotated[int | Literal["auto"], whole_number_or_auto(2)] = Field(
        8, description="patches in a batch; auto: as many as fit into the memory of the device"
    )
    patch_px: int = Field(128, ge=LEAST_PATCH_PX, description="side of a patch, px")
    unlabelled_share: float = Field(
        0.5,
        ge=0,
        description="most patches without labels for each patch with labels: of the split unlabelled, or of train",
    )
    balance: float = Field(0.5, ge=0, le=1, description="share of patches drawn around an evenly drawn class")
    balance_by: BalanceBy = Field(
        "class",
        description="where that pixel is drawn from: class, all pixels of the class; or from an evenly drawn scene, "
        "block of a patch's size, or polygon that holds the class",
    )
    class_weights: ClassWeightRule = Field(
        "power",
        description="power: a power of the inverse frequency of each class; effective: by the effective number of "
        "pixels; median: the median frequency over that of the class, in the scenes that have it",
    )
    class_weight_beta: float = Field(
        0.999999,
        ge=0,
        lt=1,
        description="for class_weights effective: classes of many more than 1 / (1 - beta) pixels have equal weights",
    )
    class_weight_power: float = Field(0.5, ge=0, le=1, description="0: equal class weights, 1: inverse frequency")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="moving average of weights, per step; 0: none")
    batch_norm_batches: int = Field(
        0,
        ge=0,
        description="training batches to measure batch-norm statistics on before each validation; 0: not measured",
    )
    patience: int = Field(
        15,
        ge=1,
        description="epochs without improvement of any branch after which training stops, in the last fifth of epochs",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="start of all random numbers")
    accelerator: str = Field("auto", description="cpu, gpu, mps or auto")
    precision: str = Field(
        "32-true",
        description="Lightning's name of the number format, for instance 16-mixed; auto: bf16-mixed where the device "
        "multiplies bfloat16 in hardware, else 32-true",
    )
    workers: Annotated[int | Literal["auto"], whole_number_or_auto(0)] = Field(
        0, description="reading processes; 0: read in the training process; auto: by a measurement"
    )
    freeze: Literal["none", "encoder"] = Field(
        "none", description="encoder: encoders that start from weights are not trained, and keep their statistics"
    )
    drop_path: Annotated[float | Literal["auto"], BeforeValidator(share_or_auto)] = Field(
        "auto",
        description="stochastic depth: share of patches that skip the encoder's last block; 0: none; auto: 0.2 if the "
        "encoder has such blocks",
    )
    optimiser: OptimiserSettings = Field(OptimiserSettings(), description="how weights are updated")

    @model_serializer(mode="wrap")
    def _without_later_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys of later versions that hold their default, so that run folders keep their bytes."""
        written: dict[str, Any] = handler(self)
        fields = TrainingConfig.model_fields
        idle = {key for key in _LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in written.items() if key not in idle}

    @model_validator(mode="after")
    def _class_weights_with_effect(self) -> TrainingConfig:
        for key, rule in (("class_weight_beta", "effective"), ("class_weight_power", "power")):
            default = TrainingConfig.model_fields[key].default
            if getattr(self, key) != default and self.class_weights != rule:
                raise ValueError(f"{key} does nothing with class_weights: {self.class_weights}. Leave it out")
        return self

    @model_validator(mode="after")
    def _balance_with_effect(self) -> TrainingConfig:
        if self.balance_by != "class" and not self.balance:
            raise ValueError(f"balance_by: {self.balance_by} does nothing with balance: 0. Leave it out")
        return self

    @model_validator(mode="after")
    def _readers_with_effect(self) -> TrainingConfig:
        if self.layers == "device" and self.workers:
            raise ValueError(f"workers: {self.workers} does nothing with layers: device. Leave one of them out")
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingConfig:
        if self.epochs_from_minutes and self.minutes is None:
            raise ValueError("epochs_from_minutes: expected minutes beside it, found none")
        if self.minutes is not None and "epochs" in self.model_fields_set and not self.epochs_from_minutes:
            raise ValueError(
                f"expected minutes or epochs, found both: minutes {self.minutes:g} and epochs {self.epochs}. Give only "
                "one of them"
            )
        return self

    @property
    def needs_measurement(self) -> bool:
        """Whether the number of epochs is still to be measured for ``minutes``."""
        return self.minutes is not None and not self.epochs_from_minutes

    @property
    def needs_batch_size(self) -> bool:
        """Whether the number of patches in a batch is still to be measured."""
        return self.batch_size == AUTO

    @property
    def patches(self) -> int:
        """Patches with labels between two changes of the weights.

        Raises:
            ValueError: If ``batch_size`` is still to be measured.
        """
        if isinstance(self.batch_size, str):
            raise ValueError("training.batch_size: auto has to be measured first")
        return self.batch_size * self.accumulate

    @field_validator("accelerator", "precision")
    @classmethod
    def _known_to_lightning(cls, word: str, info: ValidationInfo) -> str:
        known = _LIGHTNING_VALUES[str(info.field_name)]
        if word not in known:
            *first, last = map(repr, known)
            raise PydanticCustomError(
                "literal_error", "input should be {expected}", {"expected": f"{', '.join(first)} or {last}"}
            )
        return word


def _weights_name(name: str) -> str:
    weights_kind(name)
    return name


WeightsName = Annotated[
    str, BeforeValidator(lambda name: str(name) if isinstance(name, Path) else name), AfterValidator(_weights_name)
]
"""Name of encoder weights, see `geocrodino.settings.encoder_weights`."""

EncoderWeights = Annotated[
    Annotated[WeightsName, Tag(SHORT_FORM)] | Annotated[dict[Modality, WeightsName], Tag(LIST_FORM)],
    Discriminator(lambda given: LIST_FORM if isinstance(given, Mapping) else SHORT_FORM),
]
"""One name for all modalities, or names by modality."""


class TrainConfig(Section):
    """Everything that a training depends on; its resolved copy lies in the run folder."""

    data: DataConfig = Field(description="the files of the training, and how they are read")
    classes: tuple[LandClass, ...] | None = Field(
        None, description="value, name and colour of each; by default from the label file"
    )
    elevation: ElevationConfig = Field(
        ElevationConfig(), validate_default=True, description="channels of the elevation branch"
    )
    quality: Quality | None = Field(
        None, description=f"network by name, {describe_qualities()}; keys of network take precedence"
    )
    network: NetworkSettings = Field(NetworkSettings(), description="shape of the network, the same for all branches")
    encoder_weights: EncoderWeights = Field(
        IMAGENET,
        description="what encoders start from: imagenet, random, a file, a name of the Hugging Face hub or of "
        "torchgeo; or one of these for each modality, those left out random",
    )
    first_layer: dict[Modality, FirstLayer] = Field(
        {}, description="how the first layer of pretrained weights is adapted to the bands; repeat by default"
    )
    start_from: Path | None = Field(
        None, description="bundle whose branches the training starts from; its network is the default"
    )
    method: MethodSettings = Field(MethodSettings(), description="the method and its loss terms")
    augmentation: AugmentationSettings = Field(AugmentationSettings(), description="random changes of training patches")
    training: TrainingConfig = Field(TrainingConfig(), description="duration, patches, optimiser and device")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_network(cls, given: Any) -> Any:
        """Fill the keys of ``quality`` into ``network``, beside those that are given there."""
        if not isinstance(given, Mapping) or not is_quality(given.get("quality")):
            return given  # the field `quality` reports another name
        network = given.get("network", {})
        if isinstance(network, NetworkSettings):
            network = network.model_dump(exclude_unset=True)
        if not isinstance(network, Mapping):
            return given  # the field `network` reports it
        return {**given, "network": {**QUALITIES[given["quality"]].keys, **network}}

    @field_validator("elevation")
    @classmethod
    def _channels_of_the_zero(cls, elevation: ElevationConfig, info: ValidationInfo) -> ElevationConfig:
        """Choose the channels that heights have, by what they count from, where none are named."""
        data: DataConfig | None = info.data.get("data")
        zeros = set() if data is None else data.height_zeros()
        if "channels" in elevation.model_fields_set or zeros <= {"sea"}:
            return elevation
        return elevation.model_copy(update={"channels": default_channels(zeros)})

    @field_validator("classes")
    @classmethod
    def _form_a_scheme(cls, classes: tuple[LandClass, ...] | None) -> tuple[LandClass, ...] | None:
        if classes is None:
            return None
        try:
            return ClassScheme(classes=with_colours(classes)).classes
        except ValidationError as error:
            raise ValueError("; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())) from None

    def class_scheme(self) -> ClassScheme | None:
        """Create the class scheme of the configured classes.

        Returns:
            The scheme; None if the configuration names no classes.
        """
        return None if self.classes is None else ClassScheme(classes=self.classes)

    @property
    def learns_from_unlabelled(self) -> bool:
        """Whether patches without labels are drawn: the method has a use for them, and their share is above 0."""
        return self.method.learns_without_labels and self.training.unlabelled_share > 0

    def with_grid(self, resolution_m: float | None, grid_of: GridOf) -> TrainConfig:
        """Name the working grid.

        Args:
            resolution_m: Pixel size, m; None: that of the raster that ``grid_of`` names.
            grid_of: Raster whose pixel edges the grid keeps.

        Returns:
            The configuration with this grid.
        """
        grid = {"resolution_m": resolution_m, "grid_of": grid_of}
        return self.model_copy(update={"data": self.data.model_copy(update=grid)})


def load_config(
    file: str | Path | None = None, overrides: Mapping[str, Any] | None = None, *, one_modality: bool = False
) -> TrainConfig:
    """Read a configuration and check it.

    Args:
        file: YAML file; None: ``geocrodino.yaml`` of the working folder if there is one.
        overrides: Values by dotted key that replace those of the file, for instance ``{"training.seed": 1}``. A value
            of None replaces nothing.
        one_modality: Whether the rasters of a single modality are enough, to check them before there are others.

    Returns:
        The configuration, with paths relative to the file resolved.

    Raises:
        ConfigError: If the file is missing or not YAML, a key is unknown or missing, or a value is not accepted.
        AccessError: If the operating system denies access to a file.
    """
    overrides = overrides or {}
    source, tree = read_settings(None if file is None else Path(file), overrides)
    _keep_one_budget(tree, overrides)
    return _validated(tree, source, overrides, one_modality=one_modality)


def config_of(values: Mapping[str, Any]) -> TrainConfig:
    """Create a configuration without a file.

    Args:
        values: Values by dotted key, for instance ``{"training.seed": 1}``; keys with None keep their default.

    Returns:
        The configuration, with absolute paths.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is not accepted.
    """
    return _validated(complete_settings({}, values, None), None, values)


def _keep_one_budget(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Drop the epochs of a file if the caller gives minutes, and the other way round."""
    minutes, epochs = (overrides.get(f"training.{key}") is not None for key in ("minutes", "epochs"))
    training = tree.get("training")
    if minutes != epochs and isinstance(training, dict):
        training.pop("epochs" if minutes else "minutes", None)
        training.pop("epochs_from_minutes", None)


def _validated(
    tree: dict[str, Any], source: Path | None, overrides: Mapping[str, Any], *, one_modality: bool = False
) -> TrainConfig:
    try:
        return TrainConfig.model_validate(tree, context={ONE_MODALITY: one_modality})
    except ValidationError as error:
        data = tree.get("data")
        scenes = data.get("scenes") if isinstance(data, dict) else None
        table = scenes if isinstance(scenes, SceneRows) else None
        given = {k for k, v in overrides.items() if v is not None}
        raise ConfigError(_error_text(error, source, given, table)) from error


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved configuration as YAML.

    Args:
        config: The configuration.
        path: The YAML file; it appears complete or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    with durable_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _error_text(error: ValidationError, source: Path | None, overridden: set[str], table: SceneRows | None) -> str:
    keys_by_text: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        place = _place(item)
        pattern = ".".join("*" if isinstance(part, int) else part for part in place)  # the same for all items of a list
        key = ".".join(map(str, place))
        text = _key_error(item, " (not from the file)" if source and key in overridden else "")
        keys_by_text.setdefault((pattern, text), []).append(table.cell(place) or key if table else key)
    lines = [f"  {listed(keys)}: {text}" for (_, text), keys in keys_by_text.items()]
    what = f"{source}: the configuration" if source else "the given configuration"
    what += "" if table is None else f" with the scenes of {table.path}"
    return f"{what} cannot be used:\n" + "\n".join(lines) + _missing_files_advice(error)


def _place(item: ErrorDetails) -> tuple[int | str, ...]:
    """Keys that lead to a value in the file, without pydantic's tags for one of two forms and for a key itself."""
    return tuple(part for part in item["loc"] if part not in (SHORT_FORM, LIST_FORM, "[key]"))


def _key_error(item: ErrorDetails, origin: str) -> str:
    """Describe the error of one key: what was expected, what was found and where it came from."""
    kind, found = item["type"], item["input"]
    if kind == "missing":
        return "is needed, found nothing"
    if kind == "extra_forbidden":
        return f"is not a known key{origin}.{_expected_keys(_place(item))}"
    text = item["msg"].removeprefix("Value error, ")
    if kind in {"tuple_type", "list_type"}:
        text = "expected a list in square brackets, such as [1, 2, 3]"
    text = text[:1].lower() + text[1:]
    text, _, hint = text.partition(". Did you mean")
    text = text.removesuffix(".")
    if not isinstance(found, dict):  # a whole section would be too long
        text += f", found {found!r}{origin}"
    if hint:
        return f"{text}. Did you mean{hint}"
    if kind == "string_type" and isinstance(found, bool | int | float | date):
        text += ". Put it in quotes"
    if kind in {"literal_error", "enum"} and isinstance(found, str):
        hint = did_you_mean(found, re.findall(r"'([^']*)'", item.get("ctx", {}).get("expected", "")))
        text += f".{hint}" if hint else ""
    return text


def _missing_files_advice(error: ValidationError) -> str:
    """Advise how to name the required files that are missing."""
    absent = {item["loc"] for item in error.errors() if item["type"] == "missing"}
    if ("data",) in absent:
        return (
            f"\nName `data.optical`, `data.elevation` and `data.labels`, or write them under `data:` in {PROJECT_FILE}."
        )
    needed = [f"`data.{k}`" for k in ("optical", "elevation", "labels") if ("data", k) in absent]
    return f"\nName {', '.join(needed)}, or write them under `data:` in {PROJECT_FILE}." if needed else ""


def _expected_keys(place: tuple[int | str, ...]) -> str:
    """List the keys known beside an unknown one, or only a similar one if there is one."""
    model: Any = TrainConfig
    for key in place[:-1]:
        if isinstance(key, str):
            field = getattr(model, "model_fields", {}).get(key)
            model = None if field is None else _model_in(field.annotation)
    known = sorted(getattr(model, "model_fields", {}))
    hint = did_you_mean(place[-1], known)
    return hint or (f" Expected one of {', '.join(known)}." if known else "")


def _model_in(annotation: Any) -> Any:
    """Find the model in an annotation: LandClass in ``tuple[LandClass, ...] | None``."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)
