"""The files of a map: their bands, tags, colours and names.

Names of classes are stored in two places. GDAL keeps category names of a GeoTIFF in a side file ``<map>.aux.xml`` and
nowhere else, and QGIS reads its legend from there, so that file is written too. The same names, values and colours
are in the tag ``CLASSES`` of the map as JSON, so a map without its side file still names its classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.drivers import raster_driver_extensions
from rasterio.io import MemoryFile

from geocrodino.errors import OutputError, RasterError
from geocrodino.geo.labels.tags import CLASSES_TAG, tagged_classes
from geocrodino.geo.rasters.place import is_placeless
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.prediction import Companion

TILE_PX = 512
"""Side of the internal tiles of a map."""


LAYER_SCALE = 1 / 254
"""Value of a layer's pixel in units of its byte: 0 to 254 stand for 0 to 1, 255 for no data."""


@dataclass(frozen=True)
class MapFile:
    """Description of one file of a map: bands of bytes, 255 where there is no data.

    Attributes:
        path: The file.
        bands: Description of each band.
        resampling: How overviews are made.
        tags: Metadata.
        scheme: Classes of the first band, which then has their colours and names.
        scale: Value of a byte of 1, where bytes stand for fractions.
    """

    path: Path
    bands: tuple[str, ...]
    resampling: Literal["MODE", "AVERAGE"]
    tags: Mapping[str, str] = field(default_factory=dict)
    scheme: ClassScheme | None = None
    scale: float = 1.0

    @property
    def virtual(self) -> bool:
        """Whether the map stays in parts under a virtual raster; each part then has overviews of its own."""
        return is_virtual(self.path)

    @property
    def parts(self) -> Path:
        """Folder of the parts of a virtual map."""
        return parts_folder(self.path)

    def encode(self, grid: GeoBox, values: NDArray[np.uint8]) -> bytes | None:
        """Encode one part of the map as the bytes of a raster file.

        Args:
            grid: Grid of the part.
            values: uint8, shape (bands, H, W).

        Returns:
            The bytes; None if all pixels are nodata.

        Raises:
            ValueError: If type or shape do not fit.
        """
        expected = (len(self.bands), *grid.shape)
        if values.dtype != np.uint8 or values.shape != expected:
            raise ValueError(f"expected uint8 {expected}, found {values.dtype} {values.shape}")
        if (values == IGNORE_INDEX).all():
            return None
        layout: dict[str, Any] = {"driver": "GTiff", "zlevel": 1, "tiled": True, "blockxsize": 256, "blockysize": 256}
        if self.virtual:
            layout = {"driver": "COG", "blocksize": TILE_PX, "overview_resampling": self.resampling}
        profile = {
            "height": expected[1],
            "width": expected[2],
            "count": expected[0],
            "dtype": "uint8",
            "crs": None if is_placeless(grid) else str(grid.crs),
            "transform": grid.affine,
            "nodata": IGNORE_INDEX,
            "compress": "deflate",
        }
        with MemoryFile() as memory:
            with memory.open(**profile, **layout) as dataset:
                self._describe(dataset)
                dataset.write(values)
            return bytes(memory.getbuffer())

    def _describe(self, dataset: rasterio.DatasetWriter) -> None:
        if self.scheme is not None:
            dataset.write_colormap(1, {c.value: (*c.rgb, 255) for c in self.scheme.classes})
        dataset.descriptions = self.bands
        if self.scale != 1:
            dataset.scales = [self.scale] * len(self.bands)
        dataset.update_tags(**self.tags)

    def mosaic(self, grid: GeoBox, parts: Iterable[tuple[Window, str]]) -> str:
        """Write the XML of a virtual raster over parts.

        Args:
            grid: Grid of the map.
            parts: Window of each part and its file, relative to the folder of the virtual raster.

        Returns:
            The XML.
        """
        height, width = grid.shape
        root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
        if not is_placeless(grid):
            ElementTree.SubElement(root, "SRS").text = str(grid.crs)
        a = grid.affine
        ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, (a.c, a.a, a.b, a.f, a.d, a.e)))
        metadata = ElementTree.SubElement(root, "Metadata")
        for name, text in self.tags.items():
            ElementTree.SubElement(metadata, "MDI", key=name).text = text
        listed = list(parts)
        for number, description in enumerate(self.bands, start=1):
            band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(number))
            self._describe_virtual(band, description, coloured=number == 1 and self.scheme is not None)
            for window, name in listed:
                _add_source(band, window, name, number)
        return ElementTree.tostring(root, encoding="unicode")

    def _describe_virtual(self, band: ElementTree.Element, description: str, *, coloured: bool) -> None:
        ElementTree.SubElement(band, "Description").text = description
        ElementTree.SubElement(band, "NoDataValue").text = str(IGNORE_INDEX)
        if self.scale != 1:
            ElementTree.SubElement(band, "Scale").text = repr(self.scale)
        if coloured and self.scheme is not None:
            colours = {c.value: c.rgb for c in self.scheme.classes}
            ElementTree.SubElement(band, "ColorInterp").text = "Palette"
            table = ElementTree.SubElement(band, "ColorTable")
            for value in range(256):
                # As GDAL fills the palette of a GeoTIFF: black, and nothing at the nodata value.
                red, green, blue = colours.get(value, (0, 0, 0))
                opaque = "0" if value == IGNORE_INDEX else "255"
                ElementTree.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=opaque)
            _add_categories(band, self.scheme)


@dataclass(frozen=True)
class MapFiles:
    """The files of one map.

    Attributes:
        classes: The class map itself.
        decided: Which modality decided at each pixel, None for a map of one modality.
        layers: Layers such as confidence, None if none were requested.
    """

    classes: MapFile
    decided: MapFile | None = None
    layers: MapFile | None = None

    @property
    def present(self) -> tuple[MapFile, ...]:
        """The files that are written, the class map first."""
        return tuple(file for file in (self.classes, self.decided, self.layers) if file is not None)


def is_virtual(path: Path) -> bool:
    """Whether a map of this name consists of parts under a virtual raster.

    Args:
        path: The map.

    Returns:
        True for a name in ``.vrt``.
    """
    return path.suffix.lower() == ".vrt"


def check_map_name(path: Path) -> None:
    """Check that a map may have this name.

    Args:
        path: The map to write.

    Raises:
        OutputError: If the name ends as that of another format than GeoTIFF or VRT.
    """
    other = raster_driver_extensions().get(path.suffix.lower().removeprefix("."), "GTiff")
    if other not in {"GTiff", "COG", "VRT"}:
        raise OutputError(
            f"{path}: expected a name in .tif (one GeoTIFF) or .vrt (parts under a virtual raster), found one for the "
            f"format {other}.\nTake {path.with_suffix('.tif')}."
        )


def parts_folder(path: Path) -> Path:
    """Folder of the parts of a virtual map.

    Args:
        path: The map.

    Returns:
        A folder beside it.
    """
    return path.with_suffix(".parts")


def companion_path(path: Path, kind: Companion) -> Path:
    """Name of a companion file of a map.

    Args:
        path: The map.
        kind: Which companion file.

    Returns:
        A name in the same folder, for instance ``map.layers.tif``.
    """
    return path.with_name(f"{path.stem}.{kind}{path.suffix}")


def class_map(
    path: Path, scheme: ClassScheme, *, tags: Mapping[str, str] | None = None, band: str = "land cover"
) -> MapFile:
    """Describe the file of a class map.

    Args:
        path: The file.
        scheme: Its classes; pixel values are the classes' file values.
        tags: Metadata, for instance the hash of the bundle.
        band: Description of its band.

    Returns:
        The description.
    """
    return MapFile(path, (band,), "MODE", {**(tags or {}), CLASSES_TAG: _classes_json(scheme)}, scheme)


def layer_file(path: Path, bands: tuple[str, ...], *, tags: Mapping[str, str] | None = None) -> MapFile:
    """A file of fractions: bytes 0 to 254 stand for 0 to 1, with the scale 1/254 in its bands.

    Args:
        path: The file.
        bands: Description of each band.
        tags: Metadata.

    Returns:
        The description of the file.
    """
    return MapFile(path, bands, "AVERAGE", tags or {}, scale=LAYER_SCALE)


def encode_fractions(fractions: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Convert fractions to the bytes of a layer.

    Args:
        fractions: 0 to 1, shape (..., H, W).
        valid: Where they mean anything, shape (H, W).

    Returns:
        uint8, shape (..., H, W): 0 to 254, and 255 where not valid.
    """
    found: NDArray[np.uint8] = np.rint(np.where(valid, fractions, 0) / LAYER_SCALE).clip(0, 254).astype(np.uint8)
    found[..., ~valid] = IGNORE_INDEX
    return found


def side_file(scheme: ClassScheme) -> str:
    """Write GDAL's side file of a class map.

    The position in the list is the pixel value; values without a class have no name.

    Args:
        scheme: The classes.

    Returns:
        The XML.
    """
    root = ElementTree.Element("PAMDataset")
    _add_categories(ElementTree.SubElement(root, "PAMRasterBand", band="1"), scheme)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_categories(band: ElementTree.Element, scheme: ClassScheme) -> None:
    names = {c.value: c.name for c in scheme.classes}
    listed = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(names) + 1):
        ElementTree.SubElement(listed, "Category").text = names.get(value, "")


def _add_source(band: ElementTree.Element, window: Window, name: str, number: int) -> None:
    rows, cols = map(str, window.shape)
    size = {"xSize": cols, "ySize": rows}
    source = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = name
    ElementTree.SubElement(source, "SourceBand").text = str(number)
    # With these GDAL need not open each file to open the virtual raster.
    properties = {"RasterXSize": cols, "RasterYSize": rows, "DataType": "Byte"}
    ElementTree.SubElement(source, "SourceProperties", properties)
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(window.col_start), "yOff": str(window.row_start), **size})


def _classes_json(scheme: ClassScheme) -> str:
    return json.dumps([c.model_dump(mode="json") for c in scheme.classes], ensure_ascii=False, separators=(",", ":"))


def read_classes(path: str | Path) -> ClassScheme:
    """Read the classes that a map lists in its tags.

    Args:
        path: The map.

    Returns:
        The classes.

    Raises:
        RasterError: If it lists none, or not as class maps do.
    """
    scheme = tagged_classes(path)
    if scheme is None:
        raise RasterError(
            path,
            f"names no classes: expected a tag {CLASSES_TAG}, found none.\n"
            "Give a map as `geocrodino predict` wrote it: some programs drop the tags when they save a raster.",
        )
    return scheme
