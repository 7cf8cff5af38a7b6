"""Pictures as files that are written completely or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geocrodino.errors import OutputError
from geocrodino.files.access import whole_file


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file. The file appears complete or not at all.

    Args:
        figure: The figure.
        path: The file.

    Raises:
        OutputError: If it cannot be written.
    """
    FigureCanvasAgg(figure)
    write_whole(path, lambda p: figure.savefig(p, dpi=110, format="png"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all.

    Args:
        path: The file.
        write: Function that writes to the path that it gets.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        with whole_file(path) as partial:
            write(partial)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}).\n"
            "Expected a folder with write permission and space."
        ) from error
