"""Rasters that are no labels, or nearly: each command refuses the same files, and every way out works."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.rio.main import main_group
from scipy.ndimage import zoom

from geocrodino.data.alignment import check_labels
from geocrodino.errors import LabelError
from geocrodino.evaluation.evaluate import evaluate_map, evaluate_maps
from geocrodino.geo.labels.source import LabelSource, find_classes, label_classes
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.maps.files import class_map
from geocrodino.maps.writer import MapWriter
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.config import load_config
from reliability.kinds import case, marked

BANDS, INTERPOLATED, MASKS = "labels in several bands", "labels with interpolated values", "masks of 0 and 255"
NO_CLASSES, NAMES, SAME = "a raster that holds no classes", "names of classes in files", "maps on the same pixels"
COLOURS = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0]], np.uint8)

Write = Callable[..., Path]


@pytest.fixture
def refused(run_cli: Any, town: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The message with which `inspect`, `train` and a call from Python refuse labels without named classes."""
    monkeypatch.chdir(tmp_path)

    def run(labels: Path, *words: str) -> str:
        files = ("--optical", town.optical, "--elevation", town.elevation, "--labels", labels, "--aoi", town.aoi)
        code, _, err = run_cli("train", *files, "--out", "run", "--weights", "random", *words)
        assert code == 2
        assert err.startswith(f"Error: {labels}: expected ")
        assert not list(Path("run").rglob("*"))
        message = err.removeprefix("Error: ").strip()
        code, out, _ = run_cli("inspect", *files, *words)
        assert code == 2
        assert f"Problem: {message}" in out
        return message

    return run


@pytest.fixture
def truth(sample: Any) -> NDArray[np.uint8]:
    """Class values 0 to 4 in every pixel, uint8, shape (H, W)."""
    return np.where(sample.labels == 255, 0, sample.labels).astype(np.uint8)


@pytest.fixture
def scheme(town: Any) -> ClassScheme:
    found = load_config(town.config).class_scheme()
    assert found is not None
    return found


@pytest.fixture
def write_map(sample: Any, scheme: ClassScheme, tmp_path: Path) -> Callable[..., Path]:
    """Write class values as a map that lies where the town's labels do."""

    def write(name: str, values: Any, scheme: ClassScheme = scheme) -> Path:
        values = np.asarray(values, np.uint8)
        profile = sample.profiles["labels"]
        grid = GeoBox(values.shape, profile["transform"], str(profile["crs"]))
        with MapWriter((class_map(tmp_path / name, scheme),), grid) as writer:
            writer.write((0, values.shape[0], 0, values.shape[1]), [values[None]])
        return tmp_path / name

    return write


def _labels(path: Path, **rules: Any) -> LabelSource:
    return LabelSource.of(RasterSource.open(path), **rules)


def _run_rio(message: str) -> None:
    """Run the command of a message."""
    (command,) = (line[line.index("rio ") :] for line in message.splitlines() if "rio " in line)
    result = CliRunner().invoke(main_group, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output


# --- several bands --------------------------------------------------------------------------------------------------


@marked(BANDS, "refused")
def test_colours_of_classes(refused, truth, write):
    """Colours as of the ISPRS benchmark; the command of the message makes class values of them."""
    colours = COLOURS[truth].transpose(2, 0, 1)
    path = write("colours of classes.tif", colours, "labels", nodata=None)
    message = refused(path)
    assert message.startswith(
        f"{path}: expected one band of class values, found 3 bands. This looks like a colour-coded label image: "
        "5 colours, such as 255,255,255 and 255,255,0."
    )
    _run_rio(message)
    found = find_classes(_labels(path.with_name("colours of classes-classes.tif")))
    assert found.scheme.values == (1, 2, 3, 4, 5)
    assert found.shares[5] == pytest.approx((truth == 0).mean())  # white is the last by number


@marked(BANDS, "refused")
def test_colours_of_classes_with_transparency(refused, truth, write):
    colours = np.concatenate([COLOURS[truth].transpose(2, 0, 1), np.full((1, *truth.shape), 255)])
    path = write("rgba.tif", colours.astype(np.uint8), "labels", nodata=None)
    assert "found 3 bands. This looks like a colour-coded label image: 5 colours" in refused(path)


@marked(BANDS, "refused")
def test_classes_and_instances(refused, truth, write):
    rows, cols = np.indices(truth.shape)
    path = write("panoptic.tif", np.stack([truth, rows // 30 * 50 + cols // 30]).astype(np.uint16), "labels")
    message = refused(path)
    assert "found 2 bands. This looks like a band of classes and one of instances." in message
    _run_rio(message)
    assert find_classes(_labels(path.with_name("panoptic-classes.tif"))).scheme.values == (0, 1, 2, 3, 4)


@marked(BANDS, "refused")
def test_an_image_in_place_of_labels(refused, town):
    assert "found 3 bands. This looks like an image." in refused(town.optical)


@marked(BANDS, "refused")
def test_probabilities_of_classes(refused, truth, write):
    one_hot = (truth == np.arange(5)[:, None, None]).astype(np.float32)
    path = write("probabilities.tif", 0.8 * one_hot + 0.04, "labels", nodata=None)
    message = refused(path)
    assert "found 5 bands. This looks like probabilities of classes, one band for each." in message
    _run_rio(message)
    assert find_classes(_labels(path.with_name("probabilities-classes.tif"))).scheme.values == (0, 1, 2, 3, 4)


@marked(BANDS, "refused")
def test_a_mask_that_is_not_marked_as_one(refused, truth, write):
    mask = np.full(truth.shape, 255, np.uint8)
    mask[:50] = 0
    path = write("masked.tif", np.stack([truth, mask]), "labels", nodata=None)
    message = refused(path)
    assert "This looks like a band of classes and a mask." in message
    _run_rio(message.rsplit("\n", 1)[0])
    assert find_classes(_labels(path)).scheme.values == (0, 1, 2, 3, 4)
    assert RasterSource.open(path).data_bands == (1,)


@marked(BANDS, "right")
def test_classes_with_transparency(truth, write):
    alpha = np.full(truth.shape, 255, np.uint8)
    alpha[:50] = 0
    path = write("alpha.tif", np.stack([truth, alpha]), "labels", nodata=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    values, counts = np.unique(truth[50:], return_counts=True)
    assert find_classes(_labels(path)).shares == pytest.approx(
        dict(zip(values.tolist(), counts / counts.sum(), strict=True))
    )


@marked(BANDS, "refused")
@pytest.mark.parametrize("role", ["labels", "map"])
def test_evaluation_with_several_bands(run_cli, truth, write, write_map, role):
    colours = write("colours.tif", COLOURS[truth].transpose(2, 0, 1), "labels", nodata=None)
    good = write_map("map.tif", truth)
    words = (good, "--labels", colours) if role == "labels" else (colours, "--labels", good)
    code, _, err = run_cli("evaluate", *words)
    assert code == 2
    assert err.startswith(f"Error: {colours}: expected one band of class values, found 3 bands.")


@marked(BANDS, "refused")
def test_evaluation_of_the_layers_of_a_map(run_cli, truth, write, write_map):
    layers = write("map.layers.tif", np.stack([truth] * 2), "labels", tags={"descriptions": ("a", "b")})
    code, _, err = run_cli("evaluate", layers, "--labels", write_map("map.tif", truth))
    assert (code, err) == (
        2,
        f"Error: {layers}: expected a class map, found the layers that lie beside a class map.\n"
        f"The map itself is {layers.with_name('map.tif')}\n",
    )


# --- interpolation and compression ----------------------------------------------------------------------------------


def _interpolated(labels: np.ndarray, *, order: int = 1) -> np.ndarray:
    return np.clip(zoom(labels[::4, ::4].astype(float), 4, order=order), 0, 250)[: labels.shape[0], : labels.shape[1]]


@marked(INTERPOLATED, "refused")
@pytest.mark.parametrize("order", [1, 3], ids=["bilinear", "cubic"])
def test_interpolated_bytes(refused, truth, write, order):
    path = write("bytes.tif", _interpolated(truth * 50, order=order).astype(np.uint8), "labels")
    message = refused(path)
    assert "of them hold less than 1 % of the labelled pixels each" in message
    assert "If all of them are classes, list them under `classes`." in message


@marked(INTERPOLATED, "refused")
def test_interpolated_fractions(refused, truth, write):
    path = write("fractions.tif", np.round(_interpolated(truth), 2).astype(np.float32), "labels")
    assert "of the pixels hold fractions: these look like classes that were interpolated." in refused(path)


@marked(INTERPOLATED, "refused")
@pytest.mark.parametrize("step", [1, 40], ids=["values 0 to 4", "values 0 to 160"])
def test_labels_compressed_with_jpeg(refused, truth, write, step):
    path = write("jpeg.tif", truth * np.uint8(step), "labels", compress="jpeg", nodata=None)
    assert "of them hold less than 1 % of the labelled pixels each" in refused(path)


@marked(INTERPOLATED, "refused")
def test_labels_that_were_compressed_with_jpeg_once(refused, truth, write):
    lossy = write("jpeg.tif", truth * np.uint8(40), "labels", compress="jpeg", nodata=None)
    with rasterio.open(lossy) as dataset:
        path = write("copy.tif", dataset.read(), "labels", nodata=None)
    assert "JPEG compression and interpolation leave such values" in refused(path)


@marked(INTERPOLATED, "warned")
def test_labels_with_a_dozen_rare_values(truth, write):
    values = truth.copy()
    values[0, :16] = np.arange(10, 26)
    found = find_classes(_labels(write("rare.tif", values, "labels")))
    assert len(found.scheme) == 21
    assert found.notes[0].startswith("21 values (0, 1, 2, 3, 4, 10, 11, 12 ... 25); 16 of them hold less than 1 % of")


@marked(INTERPOLATED, "refused")
def test_evaluation_with_interpolated_labels(run_cli, truth, write, write_map):
    path = write("bytes.tif", _interpolated(truth * 50).astype(np.uint8), "labels")
    code, _, err = run_cli("evaluate", write_map("map.tif", truth), "--labels", path)
    assert code == 2
    assert err.startswith(f"Error: {path} holds label values outside the classes: ")
    assert "JPEG compression and interpolation change class values" in err


@marked(INTERPOLATED, "refused")
def test_named_classes_and_interpolated_labels(run_cli, town, truth, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write("bytes.tif", _interpolated(truth * 50).astype(np.uint8), "labels")
    words = ("--config", town.config, "--labels", path)
    code, _, err = run_cli("train", *words, "--out", "run")
    assert code == 2
    message = err.removeprefix("Error: ").strip()
    assert message.startswith(f"{path} holds label values outside the classes: ")
    assert f"Problem: {message}" in run_cli("inspect", *words)[1]


@marked(INTERPOLATED, "right")
def test_real_numbers_that_are_nearly_whole(truth, write):
    values = truth + np.float32(1e-5)
    assert find_classes(_labels(write("nearly.tif", values, "labels"))).scheme.values == (0, 1, 2, 3, 4)


# --- masks ----------------------------------------------------------------------------------------------------------


@marked(MASKS, "refused")
def test_a_mask_of_0_and_255(refused, truth, write):
    """The way out of the message leads through `inspect`; leaving 255 out does not."""
    path = write("mask.tif", (truth == 2) * np.uint8(255), "labels", nodata=None)
    assert refused(path) == (
        f"{path}: expected two or more classes with whole values from 0 to 254, found the values 0 and 255.\n"
        "This looks like a mask. Read 255 as a class with --label-value 255=1 (`label_values: {255: 1}` under `data`)."
    )
    assert "found the value 0 alone" in refused(path, "--ignore", "255")
    assert "found the value 0 alone" in refused(path, "--label-value", "255=0")


@marked(MASKS, "right")
@pytest.mark.parametrize("how", ["option", "file"])
def test_a_mask_that_is_read_as_classes(run_cli, town, truth, write, tmp_path, monkeypatch, how, tiny_config):
    from geocrodino.training.prepare import prepare

    monkeypatch.chdir(tmp_path)
    path = write("mask.tif", (truth == 2) * np.uint8(255), "labels", nodata=None)
    config = tiny_config({"data.labels": str(path), "data.label_values": {255: 1}})
    if how == "option":
        files = ("--optical", town.optical, "--elevation", town.elevation, "--labels", path, "--aoi", town.aoi)
        code, out, _ = run_cli("inspect", *files, "--label-value", "255=1", "--patch-px", 32)
        assert code == 0
        assert "These files fit together." in out
    else:
        ready = prepare(config.model_copy(update={"classes": None}), tmp_path / "run")
        assert ready.classes.values == (0, 1)
        np.testing.assert_array_equal(np.unique(ready.scenes[0].labels), [0, 1, 255])


@marked(MASKS, "right")
def test_evaluation_with_a_mask(run_cli, truth, write, write_map):
    roof = truth == 2
    two = ClassScheme.from_values([0, 1], ["other", "building"])
    found, mask = write_map("map.tif", roof, two), write("mask.tif", roof * np.uint8(255), "labels", nodata=None)
    code, _, err = run_cli("evaluate", found, "--labels", mask)
    assert code == 2
    assert err.endswith(
        "Read values as classes, for instance with --label-value 255=1 (`label_values: {255: 1}` under `data`); "
        "or leave them out with --ignore 255 (`ignore_values: [255]` under `data`).\n"
    )
    code, _, err = run_cli("evaluate", found, "--labels", mask, "--label-value", "255=1")
    assert (code, err) == (0, "")
    assert json.loads(found.with_name("map.scores.json").read_text())["scores"]["accuracy"] == 1
    assert evaluate_map(found, mask, label_values={255: 1}).scores.accuracy == 1


@marked(MASKS, "refused")
def test_255_beside_classes(refused, truth, write):
    values = truth.copy()
    values[:50] = 255
    path = write("unmarked.tif", values, "labels", nodata=None)
    message = refused(path)
    assert "found the values 0, 1, 2, 3, 4 and 255.\nLeave out what is no class with --ignore 255 " in message
    assert "(`ignore_values: [255]` under `data`)" in message
    assert find_classes(_labels(path, ignore_values=(255,))).scheme.values == (0, 1, 2, 3, 4)


@marked(MASKS, "refused")
def test_a_mask_whose_background_is_nodata(refused, truth, write):
    path = write("mask.tif", (truth == 2).astype(np.uint8), "labels", nodata=0)
    message = refused(path)
    assert "found the value 1 alone.\nThe file's nodata value 0 marks pixels without a label." in message
    _run_rio(message)
    assert find_classes(_labels(path)).scheme.values == (0, 1)


@marked(MASKS, "refused")
def test_a_rule_for_the_nodata_value(refused, truth, write):
    path = write("mask.tif", (truth == 2) * np.uint8(255), "labels", nodata=255)
    with pytest.raises(LabelError, match=r"`label_values` reads 255 as class 1, but it is the file's nodata value"):
        _labels(path, label_values={255: 1})


@marked(MASKS, "refused")
@pytest.mark.parametrize("words", ["255", "255=", "a=1", "255=1=2"])
def test_rules_that_are_no_pairs(run_cli, town, words):
    code, _, err = run_cli("inspect", "--labels", town.labels, "--label-value", words)
    assert (code, err) == (
        2,
        f"Error: --label-value {words}: expected the value in the file and the class value, such as 255=1.\n",
    )


@marked(MASKS, "refused")
def test_a_value_that_is_ignored_and_a_class(run_cli, town):
    code, _, err = run_cli("inspect", "--labels", town.labels, "--label-value", "9=1", "--ignore", "9")
    assert code == 2
    assert (
        "the value 9 stands both in --ignore (`ignore_values` under `data`) and in --label-value (`label_values` under "
        in err
    )


# --- no classes at all ----------------------------------------------------------------------------------------------


@marked(NO_CLASSES, "refused")
def test_heights_in_place_of_labels(refused, town):
    assert "This looks like heights or an image. Give the raster of class values as labels." in refused(town.elevation)


@pytest.mark.parametrize(
    ("dtype", "looks"),
    [
        case(NO_CLASSES, "refused", np.int16, "heights, an image, or a number for each object", id="whole heights"),
        case(NO_CLASSES, "refused", np.uint32, "heights, an image, or a number for each object", id="object numbers"),
        case(NO_CLASSES, "refused", np.int64, "heights, an image, or a number for each object", id="large numbers"),
        case(NO_CLASSES, "refused", np.float64, "heights or an image", id="real numbers"),
    ],
)
def test_measurements_in_place_of_labels(refused, truth, write, dtype, looks):
    step = 0.1 if dtype is np.float64 else 3
    values = (np.arange(truth.size) * step).reshape(truth.shape).astype(np.int64 if step == 3 else float)
    values = values % 30_000 if dtype is np.int16 else values + (2**31 if dtype is np.int64 else 0)
    message = refused(write("numbers.tif", values.astype(dtype), "labels", nodata=None))
    assert "found more than 1,000 values such as " in message
    assert f"This looks like {looks}." in message


@marked(NO_CLASSES, "refused")
def test_a_grey_image_in_place_of_labels(refused, sample, write):
    path = write("grey.tif", sample.image[0], nodata=None)
    assert "of them hold less than 1 % of the labelled pixels each" in refused(path)


@marked(NO_CLASSES, "refused")
def test_a_single_probability_in_place_of_labels(refused, truth, write):
    values = np.random.default_rng(0).random(truth.shape).astype(np.float32)
    assert "This looks like probabilities or an image." in refused(write("p.tif", values, "labels", nodata=None))


@marked(NO_CLASSES, "right")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint32, np.int16])
def test_class_values_of_other_types(truth, write, dtype):
    path = write("types.tif", truth.astype(dtype), "labels", nodata=None)
    assert find_classes(_labels(path)).scheme.values == (0, 1, 2, 3, 4)


@marked(NO_CLASSES, "right")
def test_values_outside_the_classes_beyond_the_area(town, truth, write, scheme):
    """A training looks for values of no class inside its area alone, and so does an inspection."""
    values = truth.copy()
    values[:40, :40] = 77
    labels = _labels(write("corner.tif", values, "labels"))
    assert label_classes([labels], scheme) == scheme
    grid = labels.geobox
    check_labels(labels, scheme, grid[40:, 40:], every_block=True)
    with pytest.raises(LabelError, match="outside the classes: 77"):
        check_labels(labels, scheme, grid, every_block=True)


# --- names ----------------------------------------------------------------------------------------------------------


TABLE = """<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable tableType="thematic">
<FieldDefn index="0"><Name>Value</Name><Type>0</Type><Usage>5</Usage></FieldDefn>
<FieldDefn index="1"><Name>Class_Name</Name><Type>2</Type><Usage>2</Usage></FieldDefn>
<FieldDefn index="2"><Name>Red</Name><Type>0</Type><Usage>6</Usage></FieldDefn>
<FieldDefn index="3"><Name>Green</Name><Type>0</Type><Usage>7</Usage></FieldDefn>
<FieldDefn index="4"><Name>Blue</Name><Type>0</Type><Usage>8</Usage></FieldDefn>
{rows}</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"""
TOWN = ("ground", "road", "building", "tree", "water")


def _categories(*names: str) -> str:
    listed = "".join(f"<Category>{name}</Category>" for name in names)
    band = f'<PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>"


def _table(*names: str) -> str:
    rows = (f'<Row index="{i}"><F>{i}</F><F>{n}</F><F>{10 * i}</F><F>1</F><F>2</F></Row>' for i, n in enumerate(names))
    return TABLE.format(rows="".join(rows))


@pytest.mark.parametrize(
    ("side", "names"),
    [
        case(NAMES, "right", _categories(*TOWN), TOWN, id="category names"),
        case(NAMES, "right", _table(*TOWN), TOWN, id="an attribute table"),
        case(NAMES, "right", _categories(*TOWN, "snow", "ice"), TOWN, id="names of values that do not occur"),
        case(NAMES, "right", _categories("ground", "", "building"),
             ("ground", "class 1", "building", "class 3", "class 4"), id="values without a name"),
        case(NAMES, "warned", _categories("ground", "built", "built", "tree", "water"),
             ("ground", "class 1", "class 2", "tree", "water"), id="one name for two values"),
        case(NAMES, "warned", "<PAMDataset>", tuple(f"class {v}" for v in range(5)), id="a damaged side file"),
    ],
)  # fmt: skip
def test_names_in_a_side_file(truth, write, side, names, request):
    path = write("named.tif", truth, "labels")
    path.with_name("named.tif.aux.xml").write_text(side)
    found = find_classes(_labels(path))
    assert found.scheme.names == names
    warned = request.node.get_closest_marker("reliability").kwargs["outcome"] == "warned"
    assert bool(found.notes) == warned


@marked(NAMES, "right")
def test_names_and_colours_of_a_map_that_becomes_labels(truth, write_map, scheme):
    path = write_map("map.tif", truth)
    assert find_classes(_labels(path)).scheme == scheme
    shutil.move(path, path.with_name("alone.tif"))  # without the side file
    assert find_classes(_labels(path.with_name("alone.tif"))).scheme == scheme


@marked(NAMES, "right")
def test_names_of_a_virtual_raster(truth, write_map, scheme):
    path = write_map("map.vrt", truth)
    assert find_classes(_labels(path)).scheme == scheme


@marked(NAMES, "warned")
def test_evaluation_with_names_that_contradict_each_other(run_cli, truth, write, write_map):
    path = write("named.tif", truth, "labels")
    path.with_name("named.tif.aux.xml").write_text(_categories("Ground", "road", "tree", "building", ""))
    code, _, err = run_cli("evaluate", write_map("map.tif", truth), "--labels", path)
    assert code == 0
    assert "2 is 'tree' in the labels and 'building' in the map; 3 is 'building' in the labels and 'tree'" in err
    assert "round" not in err


# --- several maps ---------------------------------------------------------------------------------------------------


@marked(SAME, "right")
def test_a_map_with_a_hole_beside_a_whole_one(run_cli, truth, write, write_map):
    """The whole map is right where the other one has its hole, and wrong in a fifth of the rest."""
    whole, holed = truth.copy(), truth.copy()
    holed[:80] = 255
    whole[80:144] = (whole[80:144] + 1) % 5
    maps = (write_map("whole.tif", whole), write_map("holed.tif", holed))
    labels = write("labels.tif", truth, "labels")
    code, out, err = run_cli("evaluate", *maps, "--labels", labels)
    assert (code, err) == (0, "")
    width, rows = truth.shape[1], truth.shape[0]
    content = json.loads(maps[0].with_name("comparison.json").read_text())
    assert content["pixels"] == (rows - 80) * width
    assert content["maps"]["whole.tif"]["scores"]["accuracy"] == pytest.approx(1 - 64 / (rows - 80))
    assert content["maps"]["whole.tif"]["pixels_left_out"] == 80 * width
    assert content["maps"]["holed.tif"]["pixels_left_out"] == 0
    own = json.loads(maps[0].with_name("whole.scores.json").read_text())
    assert own["scores"]["accuracy"] == pytest.approx(1 - 64 / rows)
    assert out.rstrip().endswith("pixels that a map covers and another does not")


@marked(SAME, "right")
def test_pixels_without_a_class_that_count_as_wrong(truth, write, write_map):
    holed = truth.copy()
    holed[:80] = 255
    labels = write("labels.tif", truth, "labels")
    maps = {"whole": write_map("whole.tif", truth), "holed": write_map("holed.tif", holed)}
    found = evaluate_maps(maps, labels, count_missed=True)
    assert found.pixels == truth.size
    assert found.common["holed"].scores.accuracy == pytest.approx(1 - 80 / truth.shape[0])
    assert found.left_out == {"whole": 0, "holed": 0}


@marked(SAME, "refused")
def test_maps_that_share_no_pixel(run_cli, truth, write, write_map):
    upper, lower = truth.copy(), truth.copy()
    upper[100:], lower[:100] = 255, 255
    words = (write_map("upper.tif", upper), write_map("lower.tif", lower))
    code, out, err = run_cli("evaluate", *words, "--labels", write("labels.tif", truth, "labels"))
    assert (code, out) == (2, "")
    assert "no labelled pixel has a class in every map: upper.tif, lower.tif." in err
    assert not list(words[0].parent.glob("*.json"))


@marked(SAME, "refused")
def test_maps_with_different_classes(run_cli, truth, write, write_map):
    two = ClassScheme.from_values(range(5), ["ground", "road", "house", "tree", "water"])
    words = (write_map("a.tif", truth), write_map("b.tif", truth, two))
    code, _, err = run_cli("evaluate", *words, "--labels", write("labels.tif", truth, "labels"))
    assert (code, err) == (
        2,
        f"Error: The maps have different classes: {words[0]} has 2 building; {words[1]} has 2 house.\n"
        "Evaluate them one by one.\n",
    )


@marked(SAME, "right")
def test_one_map_under_two_names(truth, write, write_map):
    path = write_map("map.tif", truth)
    found = evaluate_maps({"a": path, "b": path}, write("labels.tif", truth, "labels"))
    assert found.left_out == {"a": 0, "b": 0}
    assert found.common["a"].scores == found.evaluations["b"].scores
