"""Several scenes, each on its own grid: draws, statistics, batches and torchgeo's queries over all of them."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torchgeo.samplers import GridGeoSampler, RandomGeoSampler, Units

from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.grid_choice import choose_grids
from geocrodino.data.patches import patch_corners
from geocrodino.data.sampling import BalancedPatchSampler, EvenDraw, MixedSampler, Position
from geocrodino.data.scales import other_scale_note
from geocrodino.data.scenes import AlignedScene, SceneWindow
from geocrodino.data.sources import Sources
from geocrodino.data.statistics import count_classes, measure
from geocrodino.errors import AOIError
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.recipe import optical_recipe


class Memory:
    """Layers in memory: one optical band."""

    modalities = ("optical",)

    def __init__(self, grid, values, labels):
        self.grid, self.values, self.labels = grid, values, labels

    def read(self, modality, window):
        return self.values[None][:, *window.slices]

    def class_indices(self):
        return self.labels

    def blocks(self):
        return Window.of(self.grid.shape).blocks(64)

    def files(self):
        return {"optical": "o.img", "labels": "l.img"}


def scene(shape, *, labels=0, value=1.0, crs="EPSG:32631", x=400_000.0, pixel=1.0, name="", **inside):
    grid = GeoBox(shape, Affine(pixel, 0, x, 0, -pixel, 5_000_000), crs)
    labels = np.array(np.broadcast_to(labels, shape), np.uint8)
    masks = {split: np.array(np.broadcast_to(mask, shape), bool) for split, mask in inside.items()}
    return AlignedScene(name, Memory(grid, np.full(shape, value, np.float32), labels), labels, masks)


@pytest.fixture
def recipe(write_raster):
    return optical_recipe(RasterSource.open(write_raster("o.tif", np.zeros((4, 4), np.float32))))


def dataset(recipe, *scenes, split="train"):
    return CoregisteredDataset(scenes, {"optical": measure(scenes, recipe, split)})


# Draws


def recorded():
    """Labels in squares of 40 x 64 px with holes, and a split with a hole."""
    rows, cols = np.mgrid[:640, :640]
    labels = ((rows // 40 + cols // 64) % 3).astype(np.uint8)
    labels[(rows * 7 + cols * 13) % 11 == 0] = 255
    labels[300:303, 500:503] = 3
    inside = np.zeros((640, 640), bool)
    inside[20:620, 10:600] = True
    inside[200:260, 100:300] = False
    return labels, inside


def digest(sampler):
    windows = [[int(v) for v in query.window] for query in sampler]
    return hashlib.sha256(json.dumps(windows).encode()).hexdigest()[:16]


def test_the_draws_of_one_scene_are_those_of_version_0_1(recipe):
    labels, inside = recorded()
    read = dataset(recipe, scene((640, 640), labels=labels, train=inside))
    options = {"patch_px": 32, "length": 50, "seed": 7}
    sampler = BalancedPatchSampler(read, "train", balance=0.5, **options)
    assert [tuple(q.window) for q in sampler][:2] == [(421, 453, 107, 139), (534, 566, 222, 254)]
    assert digest(sampler) == "20083209959d3e3c"
    mixed = MixedSampler(sampler, [patch_corners(~inside, 32)], 5, 2)
    assert digest(mixed) == "a3bb10851b160941"
    sampler.set_epoch(3)
    assert digest(sampler) == "2e54e784bf150d44"
    # A class of more than 200,000 pixels is drawn from a part of them.
    many = dataset(recipe, scene((640, 640), train=inside))
    assert digest(BalancedPatchSampler(many, "train", balance=1.0, **options)) == "8ec4266040507a5f"


@pytest.mark.parametrize(("by", "share"), [("class", 4 / 2504), ("polygon", 1 / 2)])
def test_patches_find_a_small_polygon_of_a_class(recipe, by, share):
    """A lake of 50 x 50 px and a pond of 2 x 2 px, the only class; patches of 16 px around one of its pixels."""
    labels = np.full((200, 200), 255, np.uint8)
    labels[:50, :50] = labels[180:182, 180:182] = 0
    read = dataset(recipe, scene((200, 200), labels=labels, train=True))
    drawn = BalancedPatchSampler(read, "train", patch_px=16, length=1000, balance=1, balance_by=by)
    assert np.mean([query.window.row_start > 100 for query in drawn]) == pytest.approx(share, abs=0.1)


def test_an_even_draw_over_masks():
    masks = [np.zeros((2, 3), bool), np.zeros((0, 0), bool), np.ones((2, 2), bool)]
    masks[0][1, 2] = True
    draw, rng = EvenDraw(masks), np.random.default_rng(0)
    assert draw.total == 5
    seen = [draw.draw(rng) for _ in range(2000)]
    expected = {Position(0, 1, 2), *(Position(2, r, c) for r in (0, 1) for c in (0, 1))}
    assert set(seen) == expected
    # Each is drawn 400 times, give or take six standard deviations.
    assert all(abs(seen.count(position) - 400) < 110 for position in expected)


def test_patches_are_drawn_in_proportion_to_the_positions(recipe):
    """61 x 61 and 21 x 21 positions for patches of 20 px: 8.4 times as many."""
    read = dataset(recipe, scene((80, 80), train=True), scene((40, 40), train=True, crs="EPSG:32632"))
    drawn = list(BalancedPatchSampler(read, "train", patch_px=20, length=4000, balance=0))
    share = np.mean([query.scene for query in drawn])
    assert share == pytest.approx(441 / (441 + 3721), abs=0.03)
    assert all(Window.of(read.scenes[q.scene].grid.shape).contains(q.window) for q in drawn)


def test_a_class_of_one_scene_is_drawn_there(recipe):
    labels = np.ones((60, 60), np.uint8)
    labels[30, 30] = 0
    read = dataset(recipe, scene((200, 200), labels=1, train=True), scene((60, 60), labels=labels, train=True))
    drawn = list(BalancedPatchSampler(read, "train", patch_px=16, length=600, balance=1))
    hits = [q for q in drawn if q.scene == 1 and Window(*q.window).contains(Window(30, 31, 30, 31))]
    assert len(hits) / 600 > 0.4  # half of the patches are drawn around this class


def test_pixels_of_a_class_are_drawn_evenly_over_the_scenes(recipe, monkeypatch):
    from geocrodino.data import sampling

    scenes = [scene((30, 40), train=True), scene((30, 30), train=False), scene((30, 80), train=True)]
    (pixels,) = sampling._pixels_by_class(scenes, "train", np.random.default_rng(0), most=900)
    assert len(pixels) == 900
    places = [pixels.at(i) for i in range(900)]
    assert len(set(places)) == 900
    assert np.mean([place.scene == 0 for place in places]) == pytest.approx(1200 / 3600, abs=0.08)
    assert {place.scene for place in places} == {0, 2}
    assert max(place.col for place in places if place.scene == 0) < 40 <= max(p.col for p in places if p.scene == 2)


# Statistics


def test_statistics_are_those_of_all_pixels_together(recipe):
    """4 x 4 pixels of the value 2 and 4 x 12 of the value 6: mean 5, standard deviation sqrt(3)."""
    scenes = [scene((4, 4), value=2, train=True), scene((4, 12), value=6, train=True), scene((9, 9), value=99)]
    (channel,) = measure(scenes, recipe).channels
    assert (channel.mean, channel.std) == (pytest.approx(5), pytest.approx(3**0.5))
    assert measure(scenes[:1], recipe).channels[0].mean == pytest.approx(2)


def test_classes_are_counted_in_all_scenes():
    half = np.arange(8).reshape(2, 4) < 4
    scenes = [
        scene((2, 4), labels=np.where(half, 0, 255), train=True),
        scene((2, 4), labels=2, train=half),
        scene((2, 4)),
    ]
    assert count_classes(scenes, "train", 4).tolist() == [4, 0, 4, 0]


# Batches


def test_validation_holds_every_labelled_pixel_of_all_scenes_once(recipe):
    val = np.zeros((300, 40), bool)
    val[:290, 5:] = True
    scenes = [
        scene((64, 64), train=True),
        scene((300, 40), labels=1, val=val),
        scene((50, 50), labels=2, val=True, crs="EPSG:32632"),
        scene((50, 50), labels=3),
    ]
    plan = BatchPlan(patch_px=32, batch_size=2, steps_per_epoch=3)
    module = CoregisteredDataModule(scenes, {"optical": measure(scenes, recipe)}, plan)
    labels = torch.cat([batch["labels"] for batch in module.whole_val_dataloader()])
    assert [(labels == k).sum().item() for k in range(4)] == [0, 290 * 35, 2500, 0]
    assert module.whole_val_labelled_px == 290 * 35 + 2500
    assert module.val_windows == (3, 3)  # two of 256 px on the second scene, one on the third
    batches = list(module.train_dataloader())
    assert len(batches) == 3
    assert all((batch["labels"] == 0).all() for batch in batches)


def test_patches_without_labels_come_from_scenes_without_labels(recipe):
    scenes = [scene((64, 64), train=True, val=True), scene((90, 90), labels=255, value=3, unlabelled=True)]
    plan = BatchPlan(patch_px=32, batch_size=2, steps_per_epoch=4, unlabelled=2)
    module = CoregisteredDataModule(scenes, {"optical": measure(scenes, recipe)}, plan)
    assert module.unlabelled == 2
    for batch in module.train_dataloader():
        assert (batch["labels"][:2] == 0).all()
        assert (batch["labels"][2:] == 255).all()


def test_scenes_without_a_patch_are_refused_together(recipe):
    scenes = [scene((20, 64), train=True), scene((64, 20), train=True), scene((64, 64), val=True)]
    plan = BatchPlan(patch_px=32, batch_size=2, steps_per_epoch=4)
    with pytest.raises(AOIError, match=r"^data\.scenes: the polygons of the split 'train' hold no patch"):
        CoregisteredDataModule(scenes, {"optical": measure(scenes, recipe)}, plan, "data.scenes")


# TorchGeo


@pytest.fixture
def three(recipe):
    """Two scenes in zone 31, 1 km apart, and one in zone 32, 6 degrees to the east."""
    return dataset(
        recipe,
        scene((64, 96), value=1, train=True),
        scene((96, 64), value=2, x=401_000.0),
        scene((64, 64), value=3, x=500_000.0, crs="EPSG:32632"),
    )


def values_of(sample):
    return set(np.unique(sample["labels"]).tolist())


def test_the_index_has_a_row_for_each_scene(three):
    assert len(three.index) == 3
    assert three.crs.to_epsg() == 32631
    boxes = three.index.geometry.bounds.to_numpy()
    assert boxes[0].tolist() == [400_000, 4_999_936, 400_096, 5_000_000]
    assert boxes[1].tolist() == [401_000, 4_999_904, 401_064, 5_000_000]
    # The centre of the third, 9 degrees east, in zone 31; the box has its own size there.
    assert (boxes[2, 2] - boxes[2, 0], boxes[2, 3] - boxes[2, 1]) == pytest.approx((64, 64))
    assert boxes[2, 0] > 850_000


def test_torchgeo_samplers_over_three_scenes(three):
    wanted = {0: (64, 96), 1: (96, 64), 2: (64, 64)}
    for number, shape in wanted.items():
        inside = three._places[number].boundingbox
        query = (slice(inside.left, inside.right), slice(inside.bottom, inside.top))
        assert three[query]["optical"].shape == (1, *shape)
    seen = {}
    for query in RandomGeoSampler(three, size=32, length=60, units=Units.PIXELS):
        located = three._located(three._disambiguate_slice(query))
        assert torch.equal(three[query]["optical"], three.read(located.window, located.scene)["optical"])
        seen[located.scene] = seen.get(located.scene, 0) + 1
    assert seen.keys() == {0, 1, 2}
    grid = [three[query] for query in GridGeoSampler(three, size=32, stride=32, units=Units.PIXELS)]
    assert len(grid) == 2 * 3 + 3 * 2 + 2 * 2
    assert {tuple(sample["optical"].shape) for sample in grid} == {(1, 32, 32)}


def test_a_window_needs_the_number_of_its_scene(three):
    window = Window(0, 8, 0, 8)
    assert torch.equal(three[SceneWindow(1, window)]["optical"], three.read(window, 1)["optical"])
    with pytest.raises(IndexError, match="names none of 3 scenes"):
        three[window]
    with pytest.raises(IndexError, match="reaches outside"):
        three[SceneWindow(0, Window(60, 68, 0, 8))]


def test_scenes_without_a_common_crs_lie_side_by_side(recipe):
    local = 'ENGCRS["a",EDATUM["b"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    read = dataset(recipe, scene((8, 9), train=True), scene((8, 9), crs=local), scene((8, 9), crs="EPSG:32631", x=9.0))
    first, second, third = (place.boundingbox for place in read._places)
    assert second.left == first.right + 16
    assert third.left == 9
    without = dataset(recipe, scene((8, 9), crs=local, train=True), scene((8, 9), crs=local), scene((8, 9)))
    first, second, third = (place.boundingbox for place in without._places)
    assert (second.left, third.left) == (first.right + 16, second.right + 16)


# Scales


def test_images_on_other_scales_name_both_scenes(recipe):
    def ramp(name, factor):
        there = scene((80, 80), name=name, train=True)
        there.layers.values[:] = factor * (1 + np.arange(80, dtype=np.float32)[:, None]) / 80
        return there

    reflectance, digital = ramp("a", 1), ramp("b", 10_000)
    assert other_scale_note([reflectance, ramp("c", 1.5)], recipe) is None
    assert other_scale_note([reflectance], recipe) is None
    assert other_scale_note([reflectance, digital], recipe) == (
        "o.img: the optical values of scene b are on another scale than those of scene a. Expected about band 1 0.0125 "
        "to 0.9125; found band 1 125 to 9125. One network cannot learn from both: give one of them the factor, "
        "key rescale of the scene."
    )
    told = other_scale_note([reflectance, digital], recipe, {"a": "a.tif", "b": "given.tif"})
    assert told.startswith("given.tif: the optical values of scene b are on another scale")
    assert "of scene a are on another scale than those of scene b" in other_scale_note([digital, reflectance], recipe)


# Grids


@pytest.fixture
def sources(write_raster):
    def make(image_m, labels_m=None, crs="EPSG:32631"):
        def opened(role, pixel):
            name = f"{role}-{pixel}-{crs[-2:]}.tif"
            size = round(240 / pixel)
            return RasterSource.open(write_raster(name, np.ones((size, size), np.uint8), pixel=pixel, crs=crs))

        labels = None if labels_m is None else LabelSource.of(opened("l", labels_m))
        return Sources({"optical": opened("o", image_m)}, labels)

    return make


def side(choice):
    return choice.grid.affine.a


def test_all_grids_have_the_coarsest_pixel_size(sources):
    scenes = [sources(0.5, 0.5), sources(2.0, 2.0, "EPSG:32632"), sources(1.0)]
    choices = choose_grids(scenes)
    assert [side(c) for c in choices] == pytest.approx([2.0, 2.0, 2.0], rel=2e-3)
    assert [c.grid.crs.epsg for c in choices] == [32631, 32632, 32631]
    assert choices[1].grid == scenes[1].rasters["optical"].geobox  # its own pixels
    assert choices[0].note == (
        "Images of 3 scenes 0.5 to 2 m: all work at 2 m, the coarsest that a scene asks for. The finest image has 16 "
        "times as many pixels."
    )
    again = choose_grids(scenes, resolution_m=choices[0].resolution_m, grid_of=choices[0].grid_of)
    assert [c.grid for c in again] == [c.grid for c in choices]


def test_scenes_keep_the_pixels_of_their_labels_where_that_is_possible(sources):
    scenes = [sources(0.5, 1.0), sources(1.0), sources(1.0, 0.5)]
    choices = choose_grids(scenes)
    assert {c.grid_of for c in choices} == {"labels"}
    assert [side(c) for c in choices] == pytest.approx([1, 1, 1], rel=1e-3)
    again = choose_grids(scenes, resolution_m=choices[0].resolution_m, grid_of="labels")
    assert [c.grid for c in again] == [c.grid for c in choices]


def test_pixels_that_differ_by_less_than_a_hundredth_are_kept(sources):
    scenes = [sources(1.0), sources(1.0, crs="EPSG:32632"), sources(1.005)]
    assert [c.grid for c in choose_grids(scenes)] == [s.rasters["optical"].geobox for s in scenes]


def test_statistics_are_the_same_whatever_the_chunks(recipe, monkeypatch):
    """Layers in blocks of 64 and of 300 px, read by one task and by many: every third of 2.25 million pixels."""
    rng = np.random.default_rng(0)
    scenes = [scene((1500, 1000), train=True), scene((1500, 500), train=rng.random((1500, 500)) < 0.5)]
    for there in scenes:
        there.layers.values = rng.normal(size=there.grid.shape).astype(np.float32)
        there.layers.values[rng.random(there.grid.shape) < 0.1] = np.nan
    monkeypatch.setattr("geocrodino.data.statistics._SAMPLE_PX", 700_000)
    found = [measure(scenes, recipe, blocks_per_task=number).model_dump_json() for number in (1, 2, 100)]
    monkeypatch.setattr(Memory, "blocks", lambda self: Window.of(self.grid.shape).blocks(300))
    found.append(measure(scenes, recipe).model_dump_json())
    assert len(set(found)) == 1
    # The blocks of 1024 px in their order, every third valid pixel of each.
    used = []
    for there in scenes:
        for window in Window.of(there.grid.shape).blocks(1024):
            values = there.layers.values[window.slices][there.inside["train"][window.slices]]
            used.append(values[np.isfinite(values)][::3])
    assert measure(scenes, recipe).channels[0].model_dump() == recipe_channel("band 1", np.concatenate(used))


def recipe_channel(name, values):
    return Channel.measure(name, values).model_dump()
