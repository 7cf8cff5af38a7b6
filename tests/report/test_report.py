"""Evaluations as tables, JSON and pictures."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from geocrodino.errors import OutputError, RasterError
from geocrodino.evaluation.evaluate import evaluate_map, evaluate_maps
from geocrodino.maps.preview import map_preview
from geocrodino.report.figures import write_comparison, write_figure
from geocrodino.report.tables import evaluation_table, side_by_side, write_json
from geocrodino.settings.classes import ClassScheme


@pytest.fixture
def evaluation(write_map, write_labels):
    labels = write_labels([[1, 1, 2, 2], [1, 1, 2, 2]])
    return evaluate_map(write_map([[1, 1, 2, 255], [1, 2, 2, 2]]), labels, count_missed=True)


def _text(renderable) -> list[list[str]]:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(renderable)
    lines = console.export_text().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_table_shows_percent_absence_and_what_was_missed(evaluation):
    rows = _text(evaluation_table(evaluation))
    assert ["■ grass", "75.0", "85.7", "100.0", "75.0", "4"] in rows
    assert ["■ road", "60.0", "75.0", "75.0", "75.0", "4"] in rows
    assert ["■ roof", "-", "-", "-", "-", "0"] in rows
    assert ["mean", "67.5", "80.4", "", "", "8"] in rows
    text = " ".join(" ".join(r) for r in rows)
    assert "map.tif against labels.tif" in text
    assert "1 labelled pixels (12.5 %) without a class in the map count as wrong" in text


def test_names_are_shown_as_they_are(write_map, write_labels, tmp_path):
    scheme = ClassScheme.from_values([1, 2], ["grass [dry]", "[/road]"])
    labels = write_labels([[1, 2, 2]])
    result = evaluate_map(write_map([[1, 1, 255]], scheme=scheme, name="map[a].tif"), labels)
    rows = _text(evaluation_table(result))
    assert ["■ grass [dry]", "50.0", "66.7", "50.0", "100.0", "1"] in rows
    assert ["mean", "25.0", "33.3", "", "", "2"] in rows  # the pixel that is left out does not count
    assert "map[a].tif against labels.tif" in " ".join(" ".join(r) for r in rows)
    comparison = evaluate_maps({"[optical]": result.map_path}, labels)
    assert ["■ [/road]", "0.0"] in _text(side_by_side(comparison))


@pytest.fixture
def comparison(write_map, write_labels):
    """Two maps, each with one hole; they share six of eight labelled pixels."""
    labels = write_labels([[1, 1, 2, 2], [1, 1, 2, 2]])
    maps = {
        "optical": write_map([[1, 1, 2, 255], [1, 2, 2, 2]], name="optical.tif"),
        "elevation": write_map([[255, 1, 2, 1], [1, 1, 2, 2]], name="elevation.tif"),
    }
    return evaluate_maps(maps, labels)


def test_side_by_side_counts_the_pixels_that_all_maps_cover(comparison):
    rows = _text(side_by_side(comparison))
    assert ["class", "optical", "elevation"] in rows
    assert ["■ grass", "66.7", "100.0"] in rows
    assert ["■ road", "75.0", "100.0"] in rows
    assert ["mean IoU", "70.8", "100.0"] in rows
    assert ["no class in the map", "12.5", "12.5"] in rows
    assert ["pixels left out", "1", "1"] in rows
    caption = " ".join(" ".join(row) for row in rows).split("└")[-1].replace("┘", "")
    assert "6 labelled pixels that every map covers; left out: pixels that a map covers and another does not" in (
        " ".join(caption.strip("─┴ ").split())
    )


def test_side_by_side_of_maps_without_holes_leaves_nothing_out(write_map, write_labels):
    labels, path = write_labels([[1, 2]]), write_map([[1, 1]])
    comparison = evaluate_maps({"a": path, "b": path}, labels)
    rows = _text(side_by_side(comparison))
    assert "pixels left out" not in [r[0] for r in rows]
    assert "2 labelled pixels that every map covers" in " ".join(" ".join(row) for row in rows)
    assert "left out" not in " ".join(" ".join(row) for row in rows)


def test_json_of_a_comparison_holds_the_numbers_of_the_table(comparison, tmp_path):
    write_json(comparison, tmp_path / "comparison.json")
    content = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert content["pixels"] == 6
    assert list(content["maps"]) == ["optical", "elevation"]
    optical = content["maps"]["optical"]
    assert optical["confusion"] == [[2, 1, 0], [0, 3, 0], [0, 0, 0]]
    assert optical["scores"]["iou"] == [pytest.approx(2 / 3), 0.75, None]
    assert optical["pixels_left_out"] == 1
    assert optical["map"].endswith("optical.tif")


def test_captions_say_what_does_not_count(write_map, write_labels):
    labels, path = write_labels([[1, 1, 1, 2, 2]]), write_map([[1, 1, 1, 2, 1]])
    found = evaluate_maps({"a": path, "b": path}, labels, boundary_px=1, exclude=("road",))
    for table in (evaluation_table(found.evaluations["a"]), side_by_side(found)):
        assert str(table.caption).endswith("; pixels within 1 px of another class are left out; means without road")


def test_json_is_valid_and_holds_the_matrix(evaluation, tmp_path):
    write_json(evaluation, tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert content["confusion"] == [[3, 1, 0], [0, 3, 0], [0, 0, 0]]
    assert content["missed"] == [0, 1, 0]
    assert content["scores"]["iou"] == [0.75, 0.6, None]
    assert content["classes"][2] == {"value": 7, "name": "roof", "colour": "#d1493f"}
    assert content["labels"].endswith("labels.tif")
    assert not list(tmp_path.glob(".*partial*"))


def test_pictures_are_written_whole_and_without_touching_the_backend(evaluation, comparison, tmp_path):
    before = matplotlib.get_backend(auto_select=False) if hasattr(matplotlib, "get_backend") else None
    write_figure(evaluation, tmp_path / "one.png")
    write_comparison(comparison, tmp_path / "two.png")
    map_preview(evaluation.map_path, tmp_path / "map.png", scene=evaluation.labels_path)
    for name in ("one", "two", "map"):
        picture = imread(tmp_path / f"{name}.png")
        assert min(picture.shape[:2]) > 100
        assert np.ptp(picture) > 0.5
    assert matplotlib.get_backend(auto_select=False) == before
    assert not list(tmp_path.glob(".*partial*"))


def test_preview_shows_the_colours_of_the_classes(write_map, scheme, tmp_path):
    values = np.full((300, 500), 1, np.uint8)
    values[:, 250:] = 7
    map_preview(write_map(values), tmp_path / "map.png", max_px=100)
    picture = np.rint(imread(tmp_path / "map.png")[..., :3] * 255).astype(int)
    middle = picture[picture.shape[0] // 2]
    width = len(middle)
    assert tuple(middle[width // 4]) == scheme.classes[0].rgb
    assert tuple(middle[3 * width // 4]) == scheme.classes[2].rgb


def test_preview_of_a_map_without_names_needs_classes(write_labels, scheme, tmp_path):
    bare = write_labels([[1, 2], [7, 255]], name="bare.tif")
    with pytest.raises(RasterError, match="names no classes"):
        map_preview(bare, tmp_path / "map.png")
    map_preview(bare, tmp_path / "map.png", classes=scheme)
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_a_damaged_map_has_no_preview(write_map, scheme, tmp_path):
    path = write_map(np.random.default_rng(0).choice([1, 2, 7], (600, 600)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterError, match=r"map.tif: the map is damaged or cut short \(.*\)\. Create it again\.$"):
        map_preview(path, tmp_path / "map.png", classes=scheme)


def test_a_file_in_place_of_the_folder_is_told(evaluation, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/out: cannot be written \(Not a directory\)"):
        write_json(evaluation, tmp_path / "file" / "out")


def test_a_place_that_cannot_be_written_is_told(evaluation, tmp_path):
    for write in (write_json, write_figure):
        with pytest.raises(OutputError, match=r"none/out: cannot be written \(No such file or directory\)"):
            write(evaluation, tmp_path / "none" / "out")


def test_a_picture_is_a_png_of_some_pixels(tmp_path):
    with pytest.raises(OutputError, match=r"map\.jpg: the picture is written as a PNG\. Let the name end in \.png\."):
        map_preview(tmp_path / "map.tif", tmp_path / "map.jpg")
    with pytest.raises(ValueError, match="max_px must be at least 1, found 0"):
        map_preview(tmp_path / "map.tif", tmp_path / "map.png", max_px=0)
