"""How a raster of heights is read, where that differs from what its file says."""

from __future__ import annotations

from dataclasses import dataclass

from geocrodino.settings.height_words import HeightZero


@dataclass(frozen=True)
class HeightCoding:
    """The meaning of the values of a raster of heights.

    Attributes:
        zero: Where heights are 0.
        unit_known_by: How the length of a stored unit is known, in words; None: as the file says. Values are then in
            metres.
        alone: Whether other bands of the file hold something else, so that they do not decide which pixels are missing.
    """

    zero: HeightZero = "sea"
    unit_known_by: str | None = None
    alone: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What of it determines values and validity."""
        return (self.zero, self.alone)

    def words(self, unit: str) -> str:
        """Add where heights are 0 to a sentence about their unit.

        Args:
            unit: The sentence, which begins with ``heights``.

        Returns:
            The sentence.
        """
        kinds = {"sea": "heights", "ground": "heights above ground", "camera": "distances from the camera"}
        return f"{kinds[self.zero]}{unit.removeprefix('heights')}"
