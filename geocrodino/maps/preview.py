"""Previews of class maps with their legend, beside the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from geocrodino.errors import RasterError
from geocrodino.files.access import is_file
from geocrodino.files.names import gdal_name
from geocrodino.files.picture_name import check_picture_name
from geocrodino.geo.rasters.place import Place, place_of
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.maps.files import read_classes
from geocrodino.maps.picture import save_figure
from geocrodino.modalities.registry import definition_of
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.modality import Modality


def single_file(names: Sequence[str | Path], place: Place | None) -> RasterSource | None:
    """Open the raster of a scene to show it beside its map.

    Args:
        names: What the user names as the scene.
        place: What is stated of the place of files that do not; None: nothing.

    Returns:
        The raster; None if it consists of several files, all of which a picture would have to read.

    Raises:
        RasterError: If it cannot be opened.
    """
    if len(names) != 1 or not is_file(names[0]):
        return None
    source = open_scene(names[0], place=place)
    return source if len(source.file_names) == 1 else None


def map_preview(
    map_path: str | Path,
    out_png: str | Path,
    *,
    scene: str | Path | RasterSource | None = None,
    modality: Modality = "optical",
    classes: ClassScheme | None = None,
    max_px: int = 1200,
) -> None:
    """Write a small picture of a class map with its legend, beside the raster it was made from if that is given.

    Args:
        map_path: Class map.
        out_png: The PNG file; it appears complete or not at all.
        scene: Raster to show beside the map, read on the map's grid; opened, or its file.
        modality: Its modality; the definition of the modality draws it.
        classes: Names and colours; None: those in the map's tags.
        max_px: Longest side that is read, in px. Larger maps are read at a lower resolution.

    Raises:
        RasterError: If a raster cannot be read, or no classes are given and the map has none in its tags.
        OutputError: If the picture cannot be written, or its name does not end in ``.png``.
        ValueError: If ``max_px`` is below 1.
    """
    if max_px < 1:
        raise ValueError(f"max_px must be at least 1, found {max_px}")
    check_picture_name(out_png)
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
    panels = 1 if scene is None else 2
    scale = 7 / max(height, width)
    figure = Figure(figsize=(max(width * scale, 2) * panels, max(height * scale, 2) + 0.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if scene is not None:
        shown = scene if isinstance(scene, RasterSource) else RasterSource.open(scene, place_of(source.geobox))
        axes[0].imshow(definition_of(modality).picture(shown, grid))
        axes[0].set_title(Path(shown.path).name, fontsize=9)
    colours = ListedColormap([c.colour for c in scheme.classes])
    mapped = np.ma.masked_greater_equal(indices, len(scheme))
    axes[-1].imshow(mapped, cmap=colours, vmin=-0.5, vmax=len(scheme) - 0.5, interpolation="nearest")
    axes[-1].set_title(Path(map_path).name, fontsize=9)
    for each in axes:
        each.set_axis_off()
    handles = [Patch(color=c.colour, label=c.name) for c in scheme.classes]
    # About ten characters of the legend fit in an inch.
    widest = max(len(c.name) for c in scheme.classes) + 6
    columns = max(1, min(len(handles), int(10 * figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    save_figure(figure, Path(out_png))
