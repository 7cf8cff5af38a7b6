"""Errors and warnings that users meet, one class for each kind.

Every message names the thing, what was expected with its unit, what was found, and a way out.
The command line prints only the message and exits with 2.

    GeocrodinoError
    ├── AccessError         a name cannot be looked up, a file cannot be read
    ├── ConfigError         a configuration file or a command-line value
    ├── RasterError         a raster file
    │   └── MissingCRSError
    ├── OverlapError        layers or areas do not meet
    ├── GridError           grids differ, or a grid cannot be built
    ├── AOIError            an area of interest
    ├── LabelError          label values and classes
    ├── HeightError         heights
    ├── ModelError          a network or its weights
    ├── BundleError         a bundle
    ├── CheckpointError     a checkpoint of an interrupted training
    └── OutputError         a result cannot be written
"""

from __future__ import annotations

from pathlib import Path


class GeocrodinoError(Exception):
    """Base of all errors that the user can correct. The command line shows them without a traceback."""


class AccessError(GeocrodinoError):
    """The operating system refuses to look up a name or to read a file."""

    @classmethod
    def because(cls, path: str | Path, error: OSError) -> AccessError:
        """Create the error for a file that the operating system refused to look up or to open.

        Args:
            path: The file or folder.
            error: The error of the operating system.

        Returns:
            The error, with the system's reason in its message.
        """
        reason = error.strerror or str(error)
        return cls(
            f"{path}: cannot be accessed ({reason}).\n"
            "Check the name, and the permissions of the file and of the folders that lead to it."
        )


class ConfigError(GeocrodinoError):
    """A configuration file or a command-line value cannot be used."""


class RasterError(GeocrodinoError):
    """A raster is missing, unreadable, empty, or unsuitable for its role.

    Args:
        path: The file.
        message: What is wrong with it; the path is put before it.

    Attributes:
        path: The file that the message is about.
        parts: Path and message as they were given.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        self.path = Path(path)
        self.parts = (str(path), message)
        super().__init__(f"{path}: {message}")

    def __reduce__(self) -> tuple[type[RasterError], tuple[str, str]]:
        """Make the exception picklable: the default passes the message alone, but the constructor has two arguments."""
        return type(self), self.parts


class MissingCRSError(RasterError):
    """A file has no coordinate reference system."""


class OverlapError(GeocrodinoError):
    """Layers do not overlap, or an area of interest does not overlap a layer."""


class GridError(GeocrodinoError):
    """Two grids that must be equal differ, or a grid cannot be built."""


class AOIError(GeocrodinoError):
    """An area of interest cannot be used: empty, without a CRS, or smaller than a patch."""


class LabelError(GeocrodinoError):
    """Label values do not match the classes."""


class NoLabelError(LabelError):
    """No pixel that counts has a label."""


class HeightError(GeocrodinoError):
    """Heights cannot be converted to the channels that the model reads."""


class ModelError(GeocrodinoError):
    """A network cannot be built with the given settings, or its weights do not fit."""


class BundleError(GeocrodinoError):
    """A bundle is missing or damaged, or does not fit the scene."""


class CheckpointError(GeocrodinoError):
    """The checkpoint of an interrupted training is damaged or was written by another version."""


class OutputError(GeocrodinoError):
    """A result cannot be written to the given place."""


class ResolutionWarning(UserWarning):
    """The pixels of a scene are much larger than those the model was trained on."""


class HeightRangeWarning(UserWarning):
    """The heights of a scene lie outside the range the model was trained on."""


class ValueRangeWarning(UserWarning):
    """The values of an image differ from those the model was trained on."""


class MemoryUseWarning(UserWarning):
    """A prediction takes more memory than planned."""


class BandWarning(UserWarning):
    """A band is read in a role that differs from its tag."""


class BackendWarning(UserWarning):
    """The faster inference backend cannot be used, and PyTorch runs the network instead."""


class LabelWarning(UserWarning):
    """Label values or names are used, but may be a mistake."""


class LeftOutWarning(UserWarning):
    """A file in the place of a scene is not read as part of it."""


class AreaWarning(UserWarning):
    """An area of interest is read with an assumption that its file does not confirm, or some rows are ignored."""


class SplitWarning(UserWarning):
    """Splits share ground or images, so that scores may be better than they should be."""
