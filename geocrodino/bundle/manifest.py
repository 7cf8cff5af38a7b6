"""The manifest of a bundle: everything but the weights that a prediction needs."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from geocrodino import __version__
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.network import NetworkSettings

FORMAT_VERSION = 1
"""Version of the bundle's layout. A reader refuses any other."""


def _versions() -> dict[str, str]:
    return {"geocrodino": __version__, "torch": version("torch")}


class Calibration(BaseModel):
    """Calibration of the branches, fitted on validation pixels.

    Attributes:
        temperature: Divisor of the logits of each branch, above 0.
        weight: Weight of each branch in the average of probabilities where several modalities have data, 0 to
            1; the weights of all add up to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: dict[Modality, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    weight: dict[Modality, Annotated[float, Field(ge=0, le=1)]]

    @model_validator(mode="after")
    def _whole(self) -> Calibration:
        expected = MODALITIES.in_order(self.temperature.keys() | self.weight.keys())
        for what, found in (("temperature", self.temperature), ("weight", self.weight)):
            if found.keys() != set(expected):
                raise ValueError(f"expected a {what} of {' and '.join(expected)}, found {', '.join(found) or 'none'}")
        if abs(sum(self.weight.values()) - 1) > 1e-3:
            raise ValueError(f"expected weights that add up to 1, found {sum(self.weight.values()):g}")
        return self


class Int8Network(BaseModel):
    """Facts about the int8 network of a branch, measured on validation pixels when it was made.

    Attributes:
        unused_px: Least width of the margin of a tile whose result is not needed; with a narrower margin the network
            leaves out needed pixels, px.
        trim_px: Pixels on each side of a tile that its result leaves out, at most ``unused_px``.
        val_miou: mIoU on ``val`` of the float32 network and of the int8 network, 0 to 1.
        same_class: Share of the validation pixels with the class of the float32 network, 0 to 1.
        calibration_tiles: Number of tiles from which the ranges of activations were measured.
        versions: Versions of the software that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unused_px: Annotated[int, Field(ge=0)]
    trim_px: Annotated[int, Field(ge=0)]
    val_miou: dict[Literal["float32", "int8"], Annotated[float, Field(ge=0, le=1)]]
    same_class: Annotated[float, Field(ge=0, le=1)]
    calibration_tiles: Annotated[int, Field(ge=1)]
    versions: dict[str, str]


class Manifest(BaseModel):
    """The contents of a bundle, checked when written and when read.

    :meth:`to_mlm` gives the same facts under the names of the STAC Machine Learning Model extension. The manifest has
    names of its own because the extension describes one model with all its inputs, and a bundle holds two models that
    are used one at a time, with the same classes.

    Attributes:
        format_version: Version of the layout, ``FORMAT_VERSION``.
        name: Name of the model, for people and catalogues.
        classes: The classes of its maps, in the order of the network's outputs.
        network: How to build a branch.
        modalities: Channels of each branch and their normalisation.
        resolution_m: True size of a pixel in training, metres.
        crs: Coordinate reference system of the training data, authority code or WKT.
        footprint: Area of the training: GeoJSON geometry in longitude and latitude (EPSG:4326; on another celestial
            body in degrees of that body).
        receptive_field_px: Largest distance, to each side, of an input pixel that can change an output pixel, px;
            None if every pixel can.
        calibration: Temperatures and weights of the branches, None if they were not measured.
        created: Time of writing, with time zone.
        versions: Versions of the software that wrote it.
        training: Facts about the training: method, seed, epochs, scores of each branch.
        int8: Facts about the int8 networks that the bundle also holds, empty without any.
        sha256: Hash of weights and manifest (without this field), filled in when the bundle is saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Annotated[int, Field(ge=1)] = FORMAT_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]$")]
    classes: ClassScheme
    network: NetworkSettings
    modalities: Annotated[dict[Modality, ModalitySpec], Field(min_length=1)]
    resolution_m: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    crs: str
    footprint: dict[str, Any]
    receptive_field_px: Annotated[int, Field(ge=0)] | None
    calibration: Calibration | None = None
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    versions: dict[str, str] = Field(default_factory=_versions)
    training: dict[str, Any] = Field(default_factory=dict)
    int8: dict[Modality, Int8Network] = Field(default_factory=dict)
    sha256: str = ""

    @field_validator("network", mode="before")
    @classmethod
    def _encoder_of_old_bundles(cls, network: Any) -> Any:
        """A network without an encoder's name has the default of version 0.1."""
        return {"encoder": "tu-resnet18", **network} if isinstance(network, dict) else network

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        for modality, spec in self.modalities.items():
            if spec.modality != modality:
                raise ValueError(f"the description under {modality!r} speaks of {spec.modality!r}")
        uncalibrated = [m for m in self.modalities if self.calibration and m not in self.calibration.temperature]
        if uncalibrated:
            raise ValueError(f"expected a calibration of {', '.join(self.modalities)}, found none of {uncalibrated[0]}")
        strange = [m for m in self.int8 if m not in self.modalities]
        if strange:
            raise ValueError(f"expected int8 networks of {', '.join(self.modalities)}, found one of {strange[0]}")
        if {"type", "coordinates"} - set(self.footprint):
            raise ValueError("the footprint is not a GeoJSON geometry: it needs `type` and `coordinates`")
        return self

    @property
    def rescale(self) -> float | None:
        """What the values of all images of the training were multiplied by; None where nothing is recorded."""
        found = self.training.get("rescale")
        return float(found) if isinstance(found, int | float) and found > 0 else None

    def temperature(self, modality: Modality) -> float:
        """The divisor of the logits of a branch.

        Args:
            modality: The modality of the branch.

        Returns:
            The temperature, above 0; 1 if it was not measured.
        """
        return self.calibration.temperature[modality] if self.calibration else 1.0

    def weight(self, modality: Modality) -> float:
        """The weight of a branch in the average of several.

        Args:
            modality: The modality of the branch.

        Returns:
            A number from 0 to 1; 0.5 for each branch if it was not measured.
        """
        return self.calibration.weight[modality] if self.calibration else 0.5

    def pretrained_source(self, modality: Modality) -> str | None:
        """What the encoder of a branch started from in training.

        Args:
            modality: The modality of the branch.

        Returns:
            Name and source of the weights, or the bundle that the whole branch started from; None for random weights,
            and for bundles of version 0.1, which do not say.
        """
        recorded = self.training.get("encoder_weights", {})
        bundle = self.training.get("started_from")
        if bundle is not None and modality not in recorded:
            return f"bundle {bundle['name']} (sha256 {bundle['sha256']})"
        start = recorded.get(modality, {})
        name, source = start.get("weights"), start.get("source")
        if source is None:
            return None
        return str(source) if name == source else f"{name} ({source})"

    def to_mlm(self, modality: Modality) -> dict[str, Any]:
        """Properties of a STAC item for one branch, after the MLM extension, version 1.4.

        Args:
            modality: The branch to describe; each is a model of its own in a catalogue.

        Returns:
            Values that JSON can hold, keyed ``mlm:name``, ``mlm:input`` and so on.

        Raises:
            KeyError: If the bundle has no such branch.

        References:
            https://github.com/stac-extensions/mlm
        """
        channels = self.modalities[modality].channels
        image = ["batch", "channel", "height", "width"]
        source = self.pretrained_source(modality)
        return {
            "mlm:name": f"{self.name}-{modality}",
            "mlm:architecture": str(self.network.model_dump(mode="json")),
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "pytorch",
            "mlm:framework_version": self.versions.get("torch", "unknown"),
            "mlm:pretrained": source is not None,
            "mlm:pretrained_source": source,
            "mlm:hyperparameters": {"resolution_m": self.resolution_m, **self.training},
            "mlm:input": [
                {
                    "name": modality,
                    "bands": [{"name": c.name} for c in channels],
                    "input": {"shape": [-1, len(channels), -1, -1], "dim_order": image, "data_type": "float32"},
                    "value_scaling": [{"type": "z-score", "mean": c.mean, "stddev": c.std} for c in channels],
                    "resize_type": None,
                }
            ],
            "mlm:output": [
                {
                    "name": "land cover",
                    "tasks": ["semantic-segmentation"],
                    "result": {"shape": [-1, len(self.classes), -1, -1], "dim_order": image, "data_type": "float32"},
                    "classification:classes": [
                        {"value": c.value, "name": c.name, "color_hint": c.colour[1:].upper()}
                        for c in self.classes.classes
                    ]
                    + [{"value": IGNORE_INDEX, "name": "nodata", "nodata": True}],
                }
            ],
        }
