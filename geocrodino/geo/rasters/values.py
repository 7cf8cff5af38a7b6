"""Which values the bands of a raster hold, found block by block in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geocrodino.geo.rasters.opening import open_pixels
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window

MOST_VALUES = 1000
"""Different values outside 0 to 255 that are counted; no raster of classes holds more."""

_BLOCK_PX = 1024


@dataclass
class ValueCounts:
    """Pixels of each value, in bounded memory.

    Attributes:
        whole: Pixels of the values 0 to 255, int64, shape (256,).
        others: Pixels of each other value.
        more: Whether counting ended early because there were too many other values.
    """

    whole: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    others: dict[float, int] = field(default_factory=dict)
    more: bool = False

    def add(self, values: NDArray[np.float32]) -> None:
        """Add the values of pixels.

        Args:
            values: Finite values, float32, any shape.
        """
        inside = (values >= 0) & (values <= 255)
        codes = np.where(inside, values, 0).astype(np.uint8)
        inside &= codes == values
        self.whole += np.bincount(codes[inside], minlength=256)
        found, counts = np.unique(values[~inside], return_counts=True)
        for value, count in zip(found[: MOST_VALUES + 1].tolist(), counts.tolist(), strict=False):
            self.others[value] = self.others.get(value, 0) + count
        self.more = len(self.others) > MOST_VALUES

    def join(self, other: ValueCounts) -> None:
        """Add the counts of other pixels.

        Args:
            other: Their counts.
        """
        self.whole += other.whole
        for value, count in other.others.items():
            self.others[value] = self.others.get(value, 0) + count
        self.more = self.more or other.more or len(self.others) > MOST_VALUES

    def pixels(self) -> dict[float, int]:
        """List the values with their pixels.

        Returns:
            Number of pixels by value, those from 0 to 255 first.
        """
        return {float(v): int(self.whole[v]) for v in np.flatnonzero(self.whole)} | self.others

    def shares(self) -> dict[float, float]:
        """Compute the share of the pixels of each value.

        Returns:
            Shares, 0 to 1, by ascending value.
        """
        pixels = self.pixels()
        total = max(1, sum(pixels.values()))
        return {v: pixels[v] / total for v in sorted(pixels)}


def count_values(source: RasterSource, band: int) -> ValueCounts:
    """Count the pixels of each value of a band; counting ends early if there are far more values than classes.

    Args:
        source: The raster.
        band: One-based number of the band.

    Returns:
        The counts.

    Raises:
        RasterError: If the raster cannot be read.
    """
    counts = ValueCounts()
    for window in file_blocks(source):
        values, valid = source.read_own(window, (band,))
        counts.add(values[0][valid])
        if counts.more:
            break
    return counts


def file_blocks(source: RasterSource) -> Iterator[Window]:
    """Cover the files of a raster with windows that are quick to read.

    Args:
        source: The raster; of a mosaic, the space between its files is left out.

    Yields:
        Windows, row by row: strips of whole rows if a single file is stored in strips, squares otherwise.
    """
    height, width = source.geobox.shape
    strips = False
    if len(source.file_names) == 1 and max(height, width) > _BLOCK_PX:
        with open_pixels(source.file_names[0], alone=True) as dataset:
            strips = dataset.block_shapes[0][1] >= width
    rows, columns = (max(1, _BLOCK_PX**2 // width), width) if strips else (_BLOCK_PX, _BLOCK_PX)
    touched: set[tuple[int, int]] = set()
    for row_start, row_stop, col_start, col_stop in source.covered.tolist():
        across = range(col_start // columns, -(-col_stop // columns))
        touched.update(itertools.product(range(row_start // rows, -(-row_stop // rows)), across))
    for i, j in sorted(touched):
        yield Window.at(i * rows, j * columns, (rows, columns)).intersect(Window.of((height, width)))
