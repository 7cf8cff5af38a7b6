"""What can go wrong in a user's hands, one class for each kind.

Every message names the thing, what was expected with its unit, what was found, and a way out.
The command line prints the message alone and exits with 2.
"""

from __future__ import annotations

from pathlib import Path


class GeocrodinoError(Exception):
    """Base of every error that a user can mend. The command line shows it without a traceback."""


class AccessError(GeocrodinoError):
    """The operating system refuses to look up a name, or to read the file."""

    @classmethod
    def because(cls, path: str | Path, error: OSError) -> AccessError:
        """The error for a name that the operating system refused to look at or to open."""
        reason = error.strerror or str(error)
        return cls(
            f"{path}: cannot be accessed ({reason}).\n"
            "Check the name, and the permissions of the file and of the folders that lead to it."
        )


class ConfigError(GeocrodinoError):
    """A configuration file or a command-line value cannot be used."""


class RasterError(GeocrodinoError):
    """A raster is missing, unreadable, empty or not what its role asks for.

    Attributes:
        path: The file that the message speaks of.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        self.path = Path(path)
        self._parts = (str(path), message)
        super().__init__(f"{path}: {message}")

    def __reduce__(self) -> tuple[type[RasterError], tuple[str, str]]:
        """How it crosses to another process, which an exception of two arguments cannot by itself."""
        return type(self), self._parts


class MissingCRSError(RasterError):
    """A file does not say which coordinate reference system it is in."""


class OverlapError(GeocrodinoError):
    """Layers, or a layer and an area of interest, do not meet."""


class GridError(GeocrodinoError):
    """Two grids that must be one are not, or a grid cannot be built."""


class AOIError(GeocrodinoError):
    """An area of interest cannot be used: empty, without CRS, smaller than a patch."""


class LabelError(GeocrodinoError):
    """Label values and classes do not agree."""


class HeightError(GeocrodinoError):
    """Heights cannot be turned into what the model reads."""


class ModelError(GeocrodinoError):
    """A network cannot be built as asked, or its weights do not fit."""


class BundleError(GeocrodinoError):
    """A bundle is missing, damaged, or does not fit the scene."""


class CheckpointError(GeocrodinoError):
    """The checkpoint of an interrupted training is damaged, or of another version."""


class OutputError(GeocrodinoError):
    """A result cannot be written where it was asked for."""


class ResolutionWarning(UserWarning):
    """The pixels of a scene are much larger than those that the model was trained on."""


class HeightRangeWarning(UserWarning):
    """The heights of a scene lie outside what the model was trained on."""


class ValueRangeWarning(UserWarning):
    """The values of an image are unlike those that the model was trained on."""


class BandWarning(UserWarning):
    """A band is read in another role than its tag says."""


class BackendWarning(UserWarning):
    """The quicker way to run a network cannot be used, and the plain one takes its place."""


class LabelWarning(UserWarning):
    """Values or names of labels are used, and may not be what was meant."""


class LeftOutWarning(UserWarning):
    """Something that stands where a scene was named is not read as part of it."""


class AreaWarning(UserWarning):
    """An area of interest is read in a way that its file alone does not say, or not all of its rows count."""
