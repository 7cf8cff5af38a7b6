"""Shapes as labels: polygons, lines and points that are burnt into windows of any grid when these are read."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from geocrodino.errors import LabelError, OverlapError
from geocrodino.files.vector_names import without_layer
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.crs import crs_name
from geocrodino.geo.areas.place import bounds_on_grid, placement_advice
from geocrodino.geo.labels.burning import Burner, Layers
from geocrodino.geo.labels.categories import Categories
from geocrodino.geo.labels.shapes import Shapes, bounds_of
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.bands import Band
from geocrodino.geo.rasters.grid import crs_of, pixel_size_m, window_grid
from geocrodino.geo.rasters.protocol import Kind
from geocrodino.geo.rasters.values import ValueCounts
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import span
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.labels import LabelRules

_EDGE_PARTS = 200  # of the longer side of a grid: straight edges are curves in another CRS
_KEPT_GRIDS = 2  # a training reads the labels on its own grid and on a part of it
_SHOWN_PX = 1024  # longer side of the grid of shapes that are looked at without a raster
_HALF_PX = 1e-3 - 0.5  # a polygon as wide as a pixel is not narrower, whatever the last digits of its coordinates
_QUARTERS = 4  # segments of a quarter of the circle around a point


class _OnGrids:
    """The shapes in the pixels of the grids that they were read on last; threads may share it."""

    def __init__(self, shapes: Shapes, rules: LabelRules) -> None:
        self._shapes, self._rules = shapes, rules
        self._lock = threading.Lock()
        self._found: dict[GeoBox, Burner] = {}

    def __call__(self, grid: GeoBox) -> Burner:
        with self._lock:
            if grid not in self._found:
                burner = Burner(pixels_of(self._shapes, self._rules, grid, near=True))
                kept = list(self._found.items())[1 - _KEPT_GRIDS :]
                self._found = {**dict(kept), grid: burner}
            return self._found[grid]

    def __getstate__(self) -> dict[str, Any]:
        return {"_shapes": self._shapes, "_rules": self._rules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _found={})


@dataclass(frozen=True)
class VectorLabels(LabelSource):
    """Shapes with a class, read like a raster of labels.

    The grid is the part of the image's, or of a map's, that the shapes reach. On any other grid they are burnt
    directly, and not resampled.

    Attributes:
        shapes: The shapes, in the order in which they are drawn.
    """

    shapes: Shapes = field(kw_only=True, compare=False, repr=False)
    _burner: _OnGrids = field(kw_only=True, compare=False, repr=False)

    @classmethod
    def over(cls, name: str, shapes: Shapes, rules: LabelRules, like: GeoBox | None) -> VectorLabels:
        """Lay shapes over a grid.

        Args:
            name: What the user named.
            shapes: The shapes.
            rules: How they become pixels.
            like: Grid of the raster that they belong to; None: one of at most 1024 px in their own CRS.

        Returns:
            The labels.

        Raises:
            OverlapError: If the shapes do not meet the grid.
        """
        burner = _OnGrids(shapes, rules)
        grid = _own_grid(shapes) if like is None else _reached(name, shapes, rules, like)
        return cls(
            name=name,
            geobox=grid,
            bands=(Band("uint8", nodata=IGNORE_INDEX),),
            data_bands=(1,),
            names=shapes.names,
            shown=shapes.shown,
            rules=rules,
            shapes=shapes,
            _burner=burner,
        )

    @property
    def path(self) -> Path:
        """The file, without the name of a layer."""
        return Path(without_layer(self.name))

    @property
    def file_names(self) -> tuple[str, ...]:
        """The local file that the shapes come from; none for a URL."""
        return () if self.shapes.source.file is None else (str(self.shapes.source.file),)

    @property
    def layout_key(self) -> list[object]:
        """What else identifies the labels: shapes, classes and rules."""
        content = (*self.shapes.content, self.shapes.names, self.shapes.crs.to_wkt())
        return [*super().layout_key, content]

    @property
    def has_pixels(self) -> bool:
        """Whether the labels are pixels with a size of their own: no."""
        return False

    @property
    def origin(self) -> str:
        """Where the classes come from, for people."""
        if self.rules is not None and self.rules.table:
            return super().origin
        where = f"found in column {self.shapes.column} of {self.path.name}"
        return where if self.names is None else f"{where}, in alphabetical order"

    @property
    def checked_as(self) -> object:
        """What `check` looks at: scenes that share shapes need one check."""
        return id(self.shapes)

    def describe(self) -> str:
        """Describe the shapes in one line.

        Returns:
            Numbers of polygons, lines and points, the column of classes, and the CRS.
        """
        kinds = np.bincount(np.maximum(shapely.get_dimensions(self.shapes.shapes), 0), minlength=3)
        counts = zip(kinds.tolist()[::-1], ("polygon", "line", "point"), strict=True)
        listed = ", ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for count, kind in counts if count)
        return f"{listed}, column {self.shapes.column}, {crs_name(self.shapes.crs)}"

    def categories(self) -> Categories:
        """Look up the names and colours of class values.

        Returns:
            None of them: files of shapes give none.
        """
        return Categories()

    def check(self) -> tuple[str, ...]:
        """Tell what was repaired or left out when the shapes were read.

        Returns:
            Sentences with numbers of shapes, among them that of polygons that are narrower than a pixel.
        """
        narrow = _narrower(self.shapes, self.geobox)
        size = max(pixel_size_m(self.geobox))
        which = "1 polygon is" if narrow == 1 else f"{narrow:,} polygons are"
        note = f"{which} narrower than a pixel of {size:.3g} m, and may label none"
        return (*self.shapes.notes, note) if narrow else self.shapes.notes

    def count_labels(self) -> ValueCounts:
        """Count the labels of each value, by the areas of the shapes; each shape counts as one pixel at least.

        Returns:
            Pixels of the grid by value.
        """
        layers = pixels_of(self.shapes, self.rules or LabelRules(), self.geobox)
        px = np.maximum(1, np.rint(shapely.area(layers.areas))).astype(np.int64)
        counts = ValueCounts()
        np.add.at(counts.whole, layers.values.astype(np.int64), px)
        return counts

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the own grid.

        Args:
            window: Pixels of the grid; it may reach outside.
            bands: Not used: there is one band.

        Returns:
            Values, float32, shape (1, H, W), NaN where there is no label; validity, bool, shape (H, W).
        """
        values, valid = self._burner(self.geobox).read(Window(*window))
        return values[None], valid

    def read(
        self,
        grid: GeoBox,
        window: Window | None = None,
        *,
        bands: tuple[int, ...] | None = None,
        kind: Kind = "continuous",
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Burn the shapes into a window of any grid.

        Args:
            grid: Grid of the result.
            window: Part of it, all by default.
            bands: Not used: there is one band.
            kind: Not used: nothing is resampled.

        Returns:
            Values, float32, shape (1, H, W), NaN where there is no label; validity, bool, shape (H, W).
        """
        window = Window.of(grid.shape) if window is None else Window(*window)
        values, valid = self._burner(grid).read(window)
        return values[None], valid


def pixels_of(shapes: Shapes, rules: LabelRules, grid: GeoBox, *, near: bool = False) -> Layers:
    """Put shapes into the pixels of a grid, lines and points with their width.

    Args:
        shapes: The shapes, in any CRS.
        rules: The width, and whether touched pixels count.
        grid: The grid, with any affine transform.
        near: Whether polygons may be left out that are farther from the grid than its longer side. Those in another CRS
            always are.

    Returns:
        The shapes, in their order.

    Raises:
        LabelError: If there is no transformation to the CRS of the grid.
    """
    moved, kept = _in_crs_of(shapes, grid, near=near)
    to_px = ~grid.affine
    in_px = shapely.transform(moved, lambda xy: _applied(to_px, xy))
    thin = shapely.get_dimensions(in_px) < 2
    areas, marks = in_px.copy(), np.full(len(in_px), None, object)
    areas[thin], marks[thin] = _widened(in_px[thin], rules.width_m, grid), in_px[thin]
    return Layers(areas, marks, shapes.values[kept], rules.touched == "all")


def _applied(affine: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = xy.T
    return np.stack([affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f], axis=1)


def _widened(thin: NDArray[np.object_], width_m: float, grid: GeoBox) -> NDArray[np.object_]:
    """Lines and points in pixels with their width on the ground; pixels need not be square."""
    wide, high = pixel_size_m(grid)
    in_metres = shapely.transform(thin, lambda xy: xy * (wide, high))
    around = shapely.buffer(in_metres, width_m / 2, quad_segs=_QUARTERS)
    return np.asarray(shapely.transform(around, lambda xy: xy / (wide, high)), object)


def _in_crs_of(shapes: Shapes, grid: GeoBox, *, near: bool) -> tuple[NDArray[np.object_], NDArray[np.intp]]:
    """Shapes near a grid in its CRS, and their positions among all."""
    crs = pyproj.CRS.from_user_input(crs_of(grid).wkt)
    everything = np.arange(len(shapes.shapes))
    if _have_crs(shapes, crs):
        chosen = _near(shapes, grid) if near else everything
        return shapes.shapes[chosen], chosen
    try:
        around = _surroundings(grid, shapes.crs)
        if around is None:
            found, kept = shapes.shapes, everything
        else:
            box, step = around
            kept = np.sort(shapes.tree.query(box, predicate="intersects"))
            found = shapes.shapes[kept].copy()
            far = ~shapely.covers(box, found)
            cut = zip(shapely.intersection(found[far], box), found[far], strict=True)
            found[far] = [_alike(part, whole) for part, whole in cut]
            found = shapely.segmentize(found, step)
        moved = np.asarray(gpd.GeoSeries(found, crs=shapes.crs).to_crs(crs).values, object)
    except ProjError as error:
        raise LabelError(
            f"{shapes.source.text}: cannot be put in the CRS of the raster ({error}).\n"
            "Check that both show the same place and carry the right CRS."
        ) from error
    placed = np.array([bool(np.isfinite(shapely.get_coordinates(s)).all()) and not s.is_empty for s in moved], bool)
    return moved[placed], kept[placed]


def _have_crs(shapes: Shapes, crs: pyproj.CRS) -> bool:
    return bool(shapes.crs.equals(crs, ignore_axis_order=True))


def _near(shapes: Shapes, grid: GeoBox) -> NDArray[np.intp]:
    """Positions of polygons that may meet a grid of their CRS or its surroundings; and of all lines and points."""
    left, bottom, right, top = grid.boundingbox.bbox
    side = max(right - left, top - bottom)
    found = shapes.tree.query(shapely.box(left - side, bottom - side, right + side, top + side))
    return np.unique(np.concatenate([found, shapes.thin]))


def _surroundings(grid: GeoBox, crs: pyproj.CRS) -> tuple[Any, float] | None:
    """The grid with as much again on each side, in another CRS, and a step in which edges stay straight there."""
    to_shapes = pyproj.Transformer.from_crs(crs_of(grid).wkt, crs, always_xy=True)
    left, bottom, right, top = to_shapes.transform_bounds(*grid.boundingbox.bbox, densify_pts=21)
    side = max(right - left, top - bottom)
    if not (left < right and math.isfinite(side) and side > 0):  # across the date line, or without an image there
        return None
    return shapely.box(left - side, bottom - side, right + side, top + side), side / _EDGE_PARTS


def _alike(part: Any, whole: Any) -> Any:
    """The pieces of a part of a shape that have the dimension of the shape, as one geometry."""
    dimension = shapely.get_dimensions(whole)
    pieces = [p for p in shapely.get_parts(part) if shapely.get_dimensions(p) == dimension]
    return pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)


def _reached(name: str, shapes: Shapes, rules: LabelRules, grid: GeoBox) -> GeoBox:
    """The part of a grid that shapes reach."""
    whole = Window.of(grid.shape)
    bounds = _bounds_px(shapes, rules, grid)
    if np.isfinite(bounds).all():
        left, top, right, bottom = bounds
        found = Window(math.floor(top), math.ceil(bottom), math.floor(left), math.ceil(right)).intersect(whole)
        if found.pixels:
            return window_grid(grid, found)
    box = grid.boundingbox
    area = AOI(gpd.GeoDataFrame(geometry=shapes.shapes, crs=shapes.crs), name, shapes.source)
    raise OverlapError(
        f"{name} (labels): does not meet the raster that it belongs to: expected shapes within "
        f"{span(box.left, box.bottom, box.right, box.top)}, found {bounds_on_grid(area, grid)} (in the CRS of the "
        f"raster).\n{placement_advice(area, grid)}"
    )


def _bounds_px(shapes: Shapes, rules: LabelRules, grid: GeoBox) -> NDArray[np.float64]:
    """Bounds of shapes in pixels of a grid: left, top, right, bottom, float64, shape (4,); NaN without any."""
    crs, affine = pyproj.CRS.from_user_input(crs_of(grid).wkt), ~grid.affine
    if not (_have_crs(shapes, crs) and affine.b == 0 and affine.d == 0):
        return bounds_of(pixels_of(shapes, rules, grid).areas)
    # The corners of the bounds are those of the polygons in pixels: rows and columns keep the order of coordinates.
    corners = _applied(affine, shapes.polygon_bounds.reshape(2, 2))
    thin = shapely.transform(shapes.shapes[shapes.thin], lambda xy: _applied(affine, xy))
    around = bounds_of(_widened(thin, rules.width_m, grid)).reshape(2, 2)
    low, high = np.fmin.reduce([*corners, *around]), np.fmax.reduce([*corners, *around])
    return np.concatenate([low, high])


def _own_grid(shapes: Shapes) -> GeoBox:
    left, bottom, right, top = shapely.total_bounds(shapes.shapes)
    step = max(right - left, top - bottom) / _SHOWN_PX or 1.0
    return GeoBox.from_bbox((left, bottom, right + step, top + step), CRS(shapes.crs.to_wkt()), resolution=step)


def _narrower(shapes: Shapes, grid: GeoBox) -> int:
    """Number of polygons without room for a circle of half a pixel anywhere."""
    areas = pixels_of(shapes, LabelRules(), grid)
    drawn = areas.areas[shapely.is_missing(areas.marks)]
    # The area of a polygon is at most the radius of the largest circle in it times the length of its edges.
    thin = drawn[shapely.area(drawn) < 0.5 * shapely.length(drawn)]
    return int(shapely.is_empty(shapely.buffer(thin, _HALF_PX, quad_segs=1)).sum()) if len(thin) else 0
