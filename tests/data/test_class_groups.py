"""Pixels of rare classes drawn by scene, block and polygon, counted by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.data import class_groups
from geocrodino.data.class_groups import grouped_pixels
from geocrodino.data.scenes import AlignedScene


class Grid:
    """Layers without pixels."""

    modalities = ()

    def __init__(self, shape):
        self.grid = GeoBox(shape, Affine(1, 0, 0, 0, -1, 0), "EPSG:32631")


def scene(labels, inside=True):
    labels = np.array(labels, np.uint8)
    return AlignedScene("", Grid(labels.shape), labels, {"train": np.broadcast_to(inside, labels.shape)})


@pytest.fixture
def two():
    """Class 0 all over; of class 1 a lake of 60 px and a pond of 2 px that touch at no corner, and 4 px elsewhere."""
    first = np.zeros((12, 12), np.uint8)
    first[:6, :10] = 1
    first[8:10, 11] = 1
    first[11, 0] = 255
    second = np.zeros((4, 8), np.uint8)
    second[0, 0] = second[1, 1] = second[3, 6] = second[3, 7] = 1  # two polygons: pixels that touch at a corner are one
    return [scene(first), scene(second)]


def grouped(scenes, by, index=1, block_px=4):
    return grouped_pixels(scenes, "train", by, block_px, np.random.default_rng(0))[index]


def groups_of(pixels):
    """The pixels of each group as the scene and its set of rows and columns."""
    found = []
    for group, scene_number in enumerate(pixels.scenes):
        places = pixels.places[pixels.starts[group] : pixels.starts[group + 1]]
        found.append((int(scene_number), {divmod(int(place), pixels.widths[scene_number]) for place in places}))
    return found


def test_a_scene_is_a_group(two):
    (first, some), (second, few) = groups_of(grouped(two, "scene"))
    assert (first, second) == (0, 1)
    assert len(some) == 62
    assert few == {(0, 0), (1, 1), (3, 6), (3, 7)}


def test_a_block_is_a_group(two):
    found = groups_of(grouped(two, "block"))
    # Of the lake six blocks of 4 px, of which the lower and right ones hold a part; one of the pond; two elsewhere.
    assert [(number, len(pixels)) for number, pixels in found] == [
        (0, 16), (0, 16), (0, 8), (0, 8), (0, 8), (0, 4), (0, 2), (1, 2), (1, 2),
    ]  # fmt: skip
    assert found[6][1] == {(8, 11), (9, 11)}


def test_a_polygon_is_a_group_of_pixels_that_touch(two):
    found = groups_of(grouped(two, "polygon"))
    assert [number for number, _ in found] == [0, 0, 1, 1]
    assert len(found[0][1]) == 16  # of the lake's 60 px
    assert all(row < 6 and col < 10 for row, col in found[0][1])
    assert [pixels for _, pixels in found[1:]] == [{(8, 11), (9, 11)}, {(0, 0), (1, 1)}, {(3, 6), (3, 7)}]


@pytest.mark.parametrize(("by", "share"), [("scene", 1 / 2), ("block", 2 / 9), ("polygon", 2 / 4)])
def test_each_group_is_drawn_as_often_as_any_other(two, by, share):
    """The second scene holds 4 of 66 pixels of the class; the pond 2."""
    pixels, rng = grouped(two, by), np.random.default_rng(1)
    drawn = Counter(pixels.draw(rng)[0] for _ in range(4000))
    assert drawn[1] / 4000 == pytest.approx(share, abs=0.05)  # six standard deviations


def test_pixels_outside_the_split_belong_to_no_group(two):
    inside = np.zeros((12, 12), bool)
    inside[8:, :] = True
    found = groups_of(
        grouped([scene(two[0].labels, inside), AlignedScene("", two[1].layers, two[1].labels, {})], "polygon")
    )
    assert found == [(0, {(8, 11), (9, 11)})]


def test_of_too_many_groups_some_are_kept_evenly(monkeypatch):
    monkeypatch.setattr(class_groups, "_PER_CLASS", 100)
    lone = np.full((2, 2), 255, np.uint8)
    lone[0, 0] = 0
    pixels = grouped([scene(lone)] * 1000, "polygon", index=0)
    assert len(pixels) == 100
    assert len(pixels.places) == 100
    assert 20 < np.sum(pixels.scenes < 500) < 80  # 50, give or take six standard deviations
