"""The map of splits: every split is drawn in its colour, near, far apart and without a place."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from geocrodino.geo.areas.aoi import from_polygons
from geocrodino.report.figures import SPLIT_COLOURS, plot_splits

NO_PLACE = 'ENGCRS["no place",EDATUM["none"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'


def areas(places, crs="EPSG:32631", side=100):
    shapes = [shapely.box(400_000 + x, 5_000_000 + y, 400_000 + x + side, 5_000_000 + y + side) for x, y in places]
    splits = ("train", "val", "test", "unlabelled")
    return [(f"s{n}", from_polygons({splits[n % 4]: shape}, crs, "")) for n, shape in enumerate(shapes)]


def share(path, split):
    """Share of the picture that has the colour of a split."""
    pixels = imread(path)[..., :3]
    return float((np.abs(pixels - to_rgb(SPLIT_COLOURS[split])).max(axis=-1) < 0.01).mean())


@pytest.mark.parametrize(
    ("named", "sheets"),
    [
        (areas([(0, 0), (100, 0), (0, 100), (100, 100)]), 1),
        (areas([(0, 0), (9_000, 0), (0, 9_000), (9_000, 9_000)]), 4),  # 0.05 % of the common map
        (areas([(0, 0)] * 4, NO_PLACE), 4),
        (areas([(n * 20_000, 0) for n in range(16)]), 1),  # too many for maps of their own: dots
        ([*areas([(n * 150, 0) for n in range(16)]), ("far", areas([(0, 0)], "EPSG:32632")[0][1])], 1),
    ],
)
def test_every_split_is_drawn(tmp_path, named, sheets):
    plot_splits(named, tmp_path / "splits.png")
    for split in SPLIT_COLOURS:
        assert share(tmp_path / "splits.png", split) > 0
    height, width = imread(tmp_path / "splits.png").shape[:2]
    assert (width, height) == ((770, 836) if sheets == 1 else (748, 814))


def test_scenes_without_a_split_are_left_out(tmp_path):
    named = [*areas([(0, 0)]), ("unused", from_polygons({}, "EPSG:32631", ""))]
    plot_splits(named, tmp_path / "splits.png")
    assert share(tmp_path / "splits.png", "train") > 0.3  # the square fills the map
    assert share(tmp_path / "splits.png", "val") == 0
