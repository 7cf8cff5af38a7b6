"""Previews of class maps with their legend, beside the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from geocrodino.errors import RasterError
from geocrodino.files.names import gdal_name
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import read_classes
from geocrodino.maps.picture import save_figure
from geocrodino.settings.classes import ClassScheme


def map_preview(
    map_path: str | Path,
    out_png: str | Path,
    *,
    optical: str | Path | None = None,
    classes: ClassScheme | None = None,
    max_px: int = 1200,
) -> None:
    """Write a small picture of a class map with its legend, beside the image it was made from if that is given.

    Args:
        map_path: Class map.
        out_png: The PNG file; it appears complete or not at all.
        optical: Image to show beside the map. Its first three bands are read on the map's grid and stretched.
        classes: Names and colours; None: those in the map's tags.
        max_px: Longest side that is read, in px. Larger maps are read at a lower resolution.

    Raises:
        RasterError: If a raster cannot be read, or no classes are given and the map has none in its tags.
        OutputError: If the picture cannot be written.
    """
    source = RasterSource.open(map_path)
    scheme = classes if classes is not None else read_classes(map_path)
    grid = source.geobox.zoom_out(max(1.0, max(source.geobox.shape) / max_px))
    height, width = grid.shape
    try:
        with rasterio.open(gdal_name(map_path)) as dataset:
            values = dataset.read(1, out_shape=grid.shape, resampling=Resampling.nearest, masked=True)
    except RasterioError as error:
        raise RasterError(map_path, f"the map is damaged or cut short ({error}). Create it again.") from error
    indices = scheme.to_indices(values.data, ~np.ma.getmaskarray(values), str(map_path), "map")
    panels = 1 if optical is None else 2
    scale = 7 / max(height, width)
    figure = Figure(figsize=(max(width * scale, 2) * panels, max(height * scale, 2) + 0.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if optical is not None:
        axes[0].imshow(_scaled_image(RasterSource.open(optical), grid))
        axes[0].set_title(Path(optical).name, fontsize=9)
    colours = ListedColormap([c.colour for c in scheme.classes])
    shown = np.ma.masked_greater_equal(indices, len(scheme))
    axes[-1].imshow(shown, cmap=colours, vmin=-0.5, vmax=len(scheme) - 0.5, interpolation="nearest")
    axes[-1].set_title(Path(map_path).name, fontsize=9)
    for each in axes:
        each.set_axis_off()
    handles = [Patch(color=c.colour, label=c.name) for c in scheme.classes]
    # About ten characters of the legend fit in an inch.
    widest = max(len(c.name) for c in scheme.classes) + 6
    columns = max(1, min(len(handles), int(10 * figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    save_figure(figure, Path(out_png))


def _scaled_image(image: RasterSource, grid: GeoBox) -> NDArray[np.float32]:
    """Three bands of an image on a grid, scaled to 0 to 1, white where it has no data, shape (H, W, 3)."""
    bands = image.data_bands[:3] if len(image.data_bands) >= 3 else image.data_bands[:1] * 3
    height, width = grid.shape
    strips = (Window(r, min(r + 16, height), 0, width) for r in range(0, height, 16))
    rows = [image.read(grid, strip, bands=bands) for strip in strips]
    values, valid = (np.concatenate(parts, axis=-2) for parts in zip(*rows, strict=True))
    if not valid.any():
        return np.ones((height, width, 3), np.float32)
    low, high = np.percentile(values[:, valid], (1, 99), axis=1)[..., None, None]
    values = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(valid[..., None], values.transpose(1, 2, 0), 1).astype(np.float32)
