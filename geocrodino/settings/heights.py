"""How numbers in a file of heights become metres, and from where they are counted."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from geocrodino.settings.height_words import HeightEncoding, HeightZero
from geocrodino.settings.section import Section


class HeightSettings(Section):
    """The coding of heights, for files that do not state it."""

    scale: float | None = Field(None, gt=0, description="metres for a stored unit; by default what the file states")
    offset: float = Field(0.0, description="height of the stored value 0, m")
    encoding: HeightEncoding | None = Field(
        None, description="float16: whole numbers of 16 bits hold the bits of a half-precision number"
    )
    band: int | None = Field(
        None, ge=1, description="band of the heights, counted from 1; by default the only one beside ground_band"
    )
    ground_band: int | None = Field(None, ge=1, description="band of the same file that holds the bare ground")
    zero: HeightZero = Field(
        "sea", description="where heights are 0: sea (surface model), ground (heights above ground), camera (range)"
    )

    @model_validator(mode="after")
    def _one_meaning(self) -> HeightSettings:
        if self.ground_band is not None and self.ground_band == self.band:
            raise ValueError(f"expected two different bands, found {self.band} as band and as ground_band")
        if self.ground_band is not None and self.zero != "sea":
            raise ValueError(
                f"ground_band applies to heights above sea level alone, found zero: {self.zero}. Leave one of them out"
            )
        return self

    @property
    def is_default(self) -> bool:
        """Whether it says nothing."""
        return self == HeightSettings()


def agreed_heights(all_settings: Sequence[HeightSettings | None]) -> HeightSettings | None:
    """Find what the codings of several scenes share.

    Args:
        all_settings: The coding of each scene; None: the scene gives none.

    Returns:
        The keys on which all scenes agree, the others at their defaults; None if nothing is left.
    """
    given = [settings or HeightSettings() for settings in all_settings]
    found = given[0] if given else HeightSettings()
    defaults = HeightSettings()
    for key in HeightSettings.model_fields:
        if any(getattr(settings, key) != getattr(found, key) for settings in given):
            found = found.model_copy(update={key: getattr(defaults, key)})
    return None if found.is_default else found
