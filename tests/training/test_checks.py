"""What an inspection refuses is what a training refuses, in the same words."""

from __future__ import annotations

import ast
import re
from contextlib import nullcontext

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import geometry_mask
from rasterio.windows import Window

from geocrodino.data.alignment import align
from geocrodino.errors import ConfigError, GeocrodinoError, SplitWarning
from geocrodino.settings.town import CLASSES
from geocrodino.training.checks import NOTHING_TO_FREEZE, check_inputs, check_settings, refusal
from geocrodino.training.run import train
from geocrodino.training.scenes import of_earlier_run


@pytest.fixture
def changed(town, tmp_path):
    """Write a raster of the town with other values or another header; gives the key and the value of a setting."""

    def make(role, change=lambda values: values, **profile):
        with rasterio.open(getattr(town, role)) as dataset:
            values = change(dataset.read())
            layout = {k: dataset.profile[k] for k in ("driver", "width", "height", "crs", "transform", "nodata")}
        layout |= {"count": len(values), "dtype": values.dtype, **profile}
        path = tmp_path / f"{role}.tif"
        with rasterio.open(path, "w", **layout) as target:
            target.write(values)
        return {f"data.{role}": str(path)}

    return make


def no_data(values):
    return np.full_like(values, -9999)


CASES = {
    "label values of no class": (
        lambda changed, town: changed("labels", lambda v: np.where(v == 1, 7, np.where(v == 2, 20, v)).astype("u1")),
        "labels.tif holds label values outside the classes: 7, 20. Expected: 0 ground, 1 road",
    ),
    "a class that is unknown": (
        lambda changed, town: {"classes": [{"value": 0, "name": "ground"}, {"value": 9, "name": "snow"}]},
        "labels.tif holds label values outside the classes: 1, 2, 3",
    ),
    "rasters swapped": (
        lambda changed, town: {"data.optical": str(town.elevation), "data.elevation": str(town.optical)},
        "optical.tif: expected one band of heights, found 3 (red, green, blue).",
    ),
    "heights in place of labels": (
        lambda changed, town: {"data.labels": str(town.elevation)},
        "dsm.tif holds label values outside the classes: 1",
    ),
    "labels in place of heights": (
        lambda changed, town: {"data.elevation": str(town.labels)},
        "labels.tif: expected heights, found a table of colours",
    ),
    "another place": (
        lambda changed, town: {"data.aoi": "0,0,1,1", "data.aoi_crs": "EPSG:32631"},
        "the area of interest lies outside",
    ),
    "no height at all": (lambda changed, town: changed("elevation", no_data), "elevation.tif: no valid pixel within"),
    "too large a patch": (lambda changed, town: {"training.patch_px": 256}, "hold no patch: expected room for one of"),
    "a patch of an odd size": (lambda changed, town: {"training.patch_px": 33}, "expected a multiple of the network's"),
    "a unit that is unknown": (
        lambda changed, town: {"data.height_unit": "furlong"},
        "unknown unit of height 'furlong'",
    ),
    "a band that is not there": (
        lambda changed, town: {"data.bands": [1, 7]},
        "optical.tif: data.bands: expected numbers of its 3 bands (1 red, 2 green, 3 blue), found 7 among 1, 7.",
    ),
    "an augmentation that Kornia does not have": (
        lambda changed, town: {"augmentation.optical": [{"RandomGausianBlur": {"p": 0.5}}]},
        "Did you mean RandomGaussianBlur?",
    ),
    "an augmentation for images of three bands": (
        lambda changed, town: {"augmentation.elevation": [{"RandomHue": {"hue": [-0.1, 0.1]}}]},
        "augmentation.elevation.0.RandomHue: cannot be applied to 1 channel:",
    ),
    "one geometry for both, of two kinds": (
        lambda changed, town: {
            "method.name": "fusion",
            "augmentation.optical": [],
            "augmentation.elevation": ["RandomHorizontalFlip"],
        },
        "augmentation: both modalities move together",
    ),
    "pixels too coarse": (
        lambda changed, town: {"data.resolution_m": 8.0},
        "expected pixels of at most 5 m, found 8 m",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_inspection_refuses_what_a_training_refuses(tiny_config, changed, town, tmp_path, name):
    make, words = CASES[name]
    config = tiny_config(make(changed, town))
    with pytest.raises(GeocrodinoError) as refused:
        train(config, tmp_path / "run")
    assert words in str(refused.value)
    assert refusal(config) == str(refused.value)
    assert not (tmp_path / "run" / "aligned").exists()


def test_good_files_are_refused_by_neither(tiny_config):
    config = tiny_config()
    assert refusal(config) is None
    found = check_inputs(config)
    (scene,) = found.scenes
    assert set(scene.inside) == {"train", "val"}
    assert not found.drawn
    assert (scene.labels[~(scene.inside["train"] | scene.inside["val"])] == 255).all()


@pytest.fixture
def tiled(town, tmp_path):
    """Cut a raster of the town into two files in a folder; gives the folder."""

    def cut(role):
        folder = tmp_path / role
        folder.mkdir()
        with rasterio.open(getattr(town, role)) as dataset:
            half = dataset.width // 2
            for name, window in (
                ("west", Window(0, 0, half, dataset.height)),
                ("east", Window(half, 0, dataset.width - half, dataset.height)),
            ):
                layout = dict(dataset.profile, width=window.width, transform=dataset.window_transform(window))
                with rasterio.open(folder / f"{name}.tif", "w", **layout) as target:
                    target.write(dataset.read(window=window))
                    target.descriptions = dataset.descriptions
                    target.units = dataset.units
        return folder

    return cut


def test_random_encoders_alone_are_not_frozen(tiny_config):
    frozen = {"training.freeze": "encoder", "data.optical": "none.tif"}  # told before any file is opened
    assert refusal(tiny_config(frozen)) == NOTHING_TO_FREEZE
    assert "none.tif" in (refusal(tiny_config({**frozen, "encoder_weights": {"optical": "imagenet"}})) or "")


def test_every_raster_may_be_of_several_files(tiny_config, tiled, tmp_path):
    whole = tiny_config()
    folders = {role: tiled(role) for role in ("optical", "elevation", "labels")}
    tiles = tiny_config(
        {
            "data.optical": str(folders["optical"]),
            "data.elevation": str(folders["elevation"] / "*.tif"),
            "data.labels": str(folders["labels"]),
        }
    )
    assert refusal(tiles) is None
    expected, found = (check_inputs(config) for config in (whole, tiles))
    layers = [
        align(each.scenes[0].sources, each.recipes, each.classes, each.scenes[0].grid, tmp_path / name)
        for name, each in (("whole", expected), ("tiles", found))
    ]
    for layer in ("optical", "elevation", "labels"):
        first, second = (files[layer].read_bytes() for files in ({**a.rasters, "labels": a.labels} for a in layers))
        assert first == second


def test_a_training_split_without_labels(tiny_config, changed, town):
    frame = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    with rasterio.open(town.labels) as dataset:
        outside = geometry_mask(frame[frame["split"] == "val"].geometry, dataset.shape, dataset.transform)
    settings = changed("labels", lambda v: np.where(outside, 255, v).astype(np.uint8))
    assert refusal(tiny_config(settings)) == (
        f"{town.aoi}: no patch of the split 'train' holds a labelled pixel of {settings['data.labels']}.\n"
        "Draw polygons of train where there are labels, or label some pixels there."
    )


def test_a_validation_split_without_labels(tiny_config, changed, town):
    frame = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    with rasterio.open(town.labels) as dataset:
        inside = geometry_mask(
            frame[frame["split"] == "val"].geometry, dataset.shape, dataset.transform, all_touched=True, invert=True
        )
    settings = changed("labels", lambda v: np.where(inside, 255, v).astype(np.uint8))
    assert refusal(tiny_config(settings)) == (
        f"{town.aoi}: the split 'val' holds no labelled pixel of {settings['data.labels']}, so nothing can be "
        "validated.\nDraw polygons of val where there are labels, or label some pixels there."
    )


def test_a_validation_split_smaller_than_a_pixel(tiny_config, town, tmp_path):
    frame = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    val = frame["split"] == "val"
    frame.loc[val, "geometry"] = frame.loc[val].centroid.buffer(0.1)
    frame.to_file(tmp_path / "small.gpkg")
    assert refusal(tiny_config({"data.aoi": str(tmp_path / "small.gpkg")})) == (
        f"{tmp_path / 'small.gpkg'}: the split 'val' holds no whole pixel of the working grid (0.5 m), so nothing can "
        f"be validated. Expected polygons on {town.optical} that are larger than a pixel.\nDraw them anew."
    )


@pytest.mark.parametrize(("key", "value"), [("class_weights", "median"), ("class_weight_power", 1)])
def test_weights_of_classes_that_no_loss_has(tiny_config, key, value):
    weighted = {f"training.{key}": value, "method.name": "single"}
    with pytest.raises(ConfigError) as refused:
        check_settings(tiny_config({**weighted, "method.losses": {"dice": 1, "lovasz": 0.5}}))
    assert str(refused.value) == (
        f"training.{key}: dice and lovasz have no weights of classes. Expected cross_entropy or focal among "
        "method.losses.\nLeave it out, or name one of these."
    )
    check_settings(tiny_config({**weighted, "method.losses": {"dice": 1, "focal": 1}}))
    check_settings(tiny_config({**weighted, "method.name": "crodino", "method.losses": {"dice": 1}}))  # auxiliary
    check_settings(tiny_config({"method.name": "single", "method.losses": {"dice": 1}}))


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        ({}, False),
        ({"auxiliary": 0}, True),
        ({"name": "mutual"}, True),
        ({"name": "discom"}, False),
        ({"name": "maskedkd"}, False),
        ({"name": "kd"}, True),
    ],
)
def test_the_methods_whose_other_cross_entropies_have_weights(tiny_config, method, refused):
    """The list of docs/method.md, with Dice alone as the loss."""
    changes = {f"method.{key}": value for key, value in method.items()}
    config = tiny_config({"training.class_weights": "median", "method.losses": {"dice": 1}, **changes})
    expected = pytest.raises(ConfigError, match=r"^training\.class_weights: dice have no weights of classes\.")
    with expected if refused else nullcontext():
        check_settings(config)


@pytest.mark.parametrize(
    "case",
    [
        (20.3, None, 64, {"patch_px": 32}),  # 39 px of 0.5 m; the image has no finer pixels
        (34.3, 1.0, 40, {"patch_px": 32, "resolution_m": 0.804}),  # 33 px of 1 m: 33 / 41 m
        (6.4, 1.0, 64, {"resolution_m": 0.0769}),  # 5 px of 1 m, less than the least patch of 32 px: 5 / 65 m
    ],
)
def test_what_an_area_without_room_for_a_patch_is_advised(tiny_config, town, tmp_path, case):
    """Each number of the message is tried by itself: the training is refused no more."""
    side_m, resolution_m, patch_px, advised = case
    areas = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    centre = areas[areas["split"] == "train"].geometry.iloc[0].representative_point()
    x, y = np.floor([centre.x - side_m / 2, centre.y - side_m / 2]) + 0.13
    areas.loc[areas["split"] == "train", "geometry"] = shapely.box(x, y, x + side_m, y + side_m)
    areas.to_file(tmp_path / "small.gpkg")
    settings = {"data.aoi": str(tmp_path / "small.gpkg"), "data.resolution_m": resolution_m}
    settings["training.patch_px"] = patch_px
    message = refusal(tiny_config(settings))
    assert f"'train' hold no patch: expected room for one of {patch_px} x {patch_px} px" in message
    found = dict(each.split("=") for each in re.findall("`([^`]+)`", message))
    assert {key: ast.literal_eval(value) for key, value in found.items()} == advised
    for key, value in advised.items():
        section = "training" if key == "patch_px" else "data"
        assert refusal(tiny_config({**settings, f"{section}.{key}": value})) is None


@pytest.mark.parametrize("apart_m", [0, 4])
def test_labels_with_a_column_of_splits_are_no_area(tiny_config, town, tmp_path, apart_m):
    """Shapes that are smaller than a patch, or whose splits overlap; both ways out are tried."""
    with rasterio.open(town.labels) as dataset:
        left, top = dataset.bounds.left + 3, dataset.bounds.top - 3
    corners = [(left + col * (12 + apart_m), top - row * (12 + apart_m)) for row in range(9) for col in range(9)]
    side = 12.5 if not apart_m else 12
    shapes = gpd.GeoDataFrame(
        {"use": ["building", "tree", "ground"] * 27, "split": [("train", "val", "test")[n // 27] for n in range(81)]},
        geometry=[shapely.box(x, y - side, x + side, y) for x, y in corners],
        crs="EPSG:32631",
    )
    shapes.to_file(tmp_path / "drawn.gpkg")
    drawn = str(tmp_path / "drawn.gpkg")
    classes = {"data.absent_classes": "warn"}  # the shapes hold three of five classes
    settings = {"data.labels": drawn, "data.label_rules.column": "use", "data.aoi": drawn, **classes}
    config = tiny_config(settings)
    message = refusal(config)
    assert ("hold no patch" if apart_m else "overlap") in message
    assert message.endswith(
        "\nThe area and the labels are one file, but patches lie wholly inside the polygons of the area: leave `aoi` "
        "out, so that the splits are drawn as blocks, or name a file of larger polygons around those of the labels."
    )
    assert refusal(config.model_copy(update={"data": config.data.model_copy(update={"aoi": None})})) is None
    around = shapes.dissolve("split").reset_index()
    around.set_geometry(around.convex_hull.buffer(-0.3)).to_file(tmp_path / "around.gpkg")
    assert refusal(tiny_config({**settings, "data.aoi": str(tmp_path / "around.gpkg")})) is None


def test_a_class_that_no_split_of_one_scene_has(tiny_config, town):
    """It is refused as that of several scenes is; a run that began with it, as of version 0.1, is not."""
    snow = [*(c.model_dump() for c in CLASSES.classes), {"value": 9, "name": "snow", "colour": "#ffffff"}]
    lacking = f"classes: snow (9) has no labelled pixel in any split of {town.labels}."
    with pytest.raises(ConfigError) as error:
        check_inputs(tiny_config({"classes": snow}))
    assert str(error.value) == (
        f"{lacking}\nLeave it out of `classes`, or correct the values of the labels or the splits. With the key "
        "data.absent_classes: warn, the training starts all the same."
    )
    told = f"{lacking} 1 of {len(snow)} classes has nothing to learn from, and no map will show it."
    for config in (
        tiny_config({"classes": snow, "data.absent_classes": "warn"}),
        of_earlier_run(tiny_config({"classes": snow})),
    ):
        with pytest.warns(SplitWarning) as warned:
            assert check_inputs(config).leaks.in_no_split == ("snow (9)",)
        assert told in [str(warning.message) for warning in warned]
