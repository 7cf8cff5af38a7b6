"""All presets by name."""

from __future__ import annotations

from geocrodino.errors import ConfigError
from geocrodino.presets.isprs import POTSDAM, POTSDAM_NDSM, VAIHINGEN, VAIHINGEN_NDSM
from geocrodino.presets.national import DFC2022, FLAIR, FLAIR_HUB, GEONRW
from geocrodino.presets.nyu import NYU, NYU_13, NYU_RAW
from geocrodino.presets.other import GAMUS, MID_AIR, US3D
from geocrodino.presets.preset import Preset
from geocrodino.spelling import did_you_mean

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        POTSDAM, POTSDAM_NDSM, VAIHINGEN, VAIHINGEN_NDSM, GEONRW, DFC2022, US3D, FLAIR, FLAIR_HUB, GAMUS, NYU,
        NYU_13, NYU_RAW, MID_AIR,
    )
}  # fmt: skip
"""All presets, by their names."""


def preset_of(name: str) -> Preset:
    """Find a preset.

    Args:
        name: Its name.

    Returns:
        The preset.

    Raises:
        ConfigError: If there is none of this name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"{name}: expected the name of a data set, one of {', '.join(PRESETS)}.{did_you_mean(name, PRESETS)}"
        )
    return PRESETS[name]
