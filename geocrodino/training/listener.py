"""What a training tells while it runs: lines, the stage that has begun, and how far the stage is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(*_: object) -> None:
    """Take no notice."""


@dataclass(frozen=True)
class Listener:
    """Follows a training. Called with a line, it passes the line on.

    Attributes:
        tell: Called with lines for the user.
        stage: Called with the name of each stage when it begins, for instance ``Aligning rasters``.
        progress: Called with the numbers of finished and of all parts of the stage, if it has parts.
    """

    tell: Callable[[str], None] = _ignore
    stage: Callable[[str], None] = _ignore
    progress: Callable[[int, int], None] = _ignore

    @classmethod
    def of(
        cls,
        tell: Callable[[str], None] | None,
        stage: Callable[[str], None] | None,
        progress: Callable[[int, int], None] | None,
    ) -> Listener:
        """Create a listener from functions, of which any may be missing.

        Args:
            tell: See the attributes.
            stage: See the attributes.
            progress: See the attributes.

        Returns:
            The listener.
        """
        return cls(tell or _ignore, stage or _ignore, progress or _ignore)

    def __call__(self, line: str) -> None:
        """Pass on a line.

        Args:
            line: The line.
        """
        self.tell(line)

    @property
    def listens(self) -> bool:
        """Whether lines reach anybody."""
        return self.tell is not _ignore
