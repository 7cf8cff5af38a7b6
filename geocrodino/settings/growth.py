"""Keys of ``training`` that say how a batch is computed and where its numbers go, not what is learnt.

A training that leaves them alone writes none of them (see `TrainingConfig`), so its ``config.yaml`` is that of earlier
versions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from geocrodino.settings.section import Section
from geocrodino.spelling import did_you_mean

LOGGERS = {"csv": None, "tensorboard": None, "mlflow": "mlflow", "wandb": "wandb"}
"""Lightning's loggers by name, each with the package that it needs beside those of geocrodino."""

AUTO = "auto"

LayerPlace = Literal["auto", "disk", "device"]
"""Where training patches come from: files that are read for each of them, or the memory of the device."""


def whole_number_or_auto(least: int) -> BeforeValidator:
    """Make a key accept a whole number or the word ``auto``, with one message for both.

    Args:
        least: The smallest number.

    Returns:
        A validator for the annotation ``int | Literal["auto"]``.
    """

    def check(given: Any) -> Any:
        number = int(given) if isinstance(given, str) and given.strip().lstrip("-").isdigit() else given
        if number == AUTO or (isinstance(number, int) and not isinstance(number, bool) and number >= least):
            return number
        raise PydanticCustomError(
            "number_or_auto", "Input should be a whole number of at least {least} or auto", {"least": least}
        )

    return BeforeValidator(check)


def share_or_auto(given: Any) -> Any:
    """Accept a number from 0 to below 1 or the word ``auto``, with one message for both.

    Args:
        given: What the user gave for a key of the type ``float | Literal["auto"]``.

    Returns:
        The number or the word.

    Raises:
        PydanticCustomError: If it is anything else.
    """
    if given == AUTO:
        return given
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(given, bool) or not 0 <= number < 1:
        raise PydanticCustomError("share_or_auto", "Input should be a number from 0 to below 1, or auto")
    return number


class GrowthKeys(Section):
    """Devices, parts of a batch and loggers of a training."""

    devices: Annotated[int | Literal["auto"], whole_number_or_auto(1)] = Field(
        1,
        description="processes that share each batch, one for each GPU; without a GPU, processes of the CPU; auto: all "
        "GPUs, or one process",
    )
    accumulate: int = Field(
        1, ge=1, description="batches whose gradients are added before the weights change, so that memory holds one"
    )
    layers: LayerPlace = Field(
        "auto",
        description="disk: patches are read from files; device: scenes are loaded once into the memory of the device, "
        "where patches are cut out; auto: device on a GPU whose free memory is four times as large as the layers",
    )
    logger: tuple[str, ...] = Field(
        (), description=f"Lightning's loggers beside the own logs, one or a list: {', '.join(LOGGERS)}"
    )
    batch_size_measured: bool = Field(
        False, description="whether batch_size was measured for auto; the training writes it into the run folder"
    )

    @field_validator("logger", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return tuple(dict.fromkeys(word for word in given.split(",") if word)) if isinstance(given, str) else given

    @field_validator("logger")
    @classmethod
    def _known_loggers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in LOGGERS:
                raise PydanticCustomError(
                    "logger",
                    "Expected some of {known}.{hint}",
                    {"known": ", ".join(LOGGERS), "hint": did_you_mean(name, LOGGERS)},
                )
        return names
