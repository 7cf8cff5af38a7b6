"""Scenes as the rows of a CSV file."""

from __future__ import annotations

from pathlib import Path

import pytest

from geocrodino.errors import ConfigError
from geocrodino.settings.config import load_config


@pytest.fixture
def load(tmp_path):
    """Load a configuration that names a table in a folder beside it; gives the scenes."""

    def read(table):
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists" / "scenes.csv").write_text(table, encoding="utf-8")
        (tmp_path / "config.yaml").write_text("data: {scenes: lists/scenes.csv, elevation: dsm.tif}")
        return load_config(tmp_path / "config.yaml").data.resolved()

    return read


def test_a_row_is_a_scene(load, tmp_path):
    north, south = load(
        "name,optical,labels,split,bands,ground\n"
        'north,../n/rgb.tif,/abs/n.tif,train,"[1, 2, 3]",\n'
        "7, s.tif,,unlabelled,,g.tif\n"
    )
    folder = tmp_path / "lists"
    assert (north.name, north.split, north.bands, north.ground) == ("north", "train", (1, 2, 3), None)
    assert north.optical.resolve() == tmp_path / "n" / "rgb.tif"
    assert north.labels == Path("/abs/n.tif")
    assert north.elevation == tmp_path / "dsm.tif"  # of all scenes, relative to the configuration
    assert (south.name, south.optical, south.labels, south.ground) == ("7", folder / "s.tif", None, folder / "g.tif")


def test_patterns_and_areas_in_cells(load, tmp_path):
    (scene,) = load('optical,aoi,label_rules.column\n"img/{row}_{col}.tif","1,2,3,4",landuse\n')
    assert scene.optical == tmp_path / "lists" / "img" / "{row}_{col}.tif"
    assert scene.aoi == "1,2,3,4"
    assert scene.label_rules.column == "landuse"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("", "lists/scenes.csv: expected a heading and a row for each scene, found no row."),
        ("name,optical\n", "lists/scenes.csv: expected a heading and a row for each scene, found no row."),
        ("name,optical\na\n", "line 2: expected as many cells as the heading has columns."),
        ("name,optical\na,b,c\n", "line 2: expected as many cells as the heading has columns."),
        ("name,optical,bands\na,b,[1\n", "line 2: bands: cannot be read (while parsing a flow sequence"),
        ("name,opticl\na,b\n", "line 1: the column 'opticl' is no key of a scene. Expected one of name, rasters, "),
        ("name,opticl\na,b\n", " Did you mean optical?"),
        ("a,a.tif\nb,b.tif\n", "line 1: expected a heading of keys of a scene, such as name, optical, "),
        (
            "optical,split\n\na.tif,tain\n",
            "scenes.csv cannot be used:\n  line 3: split: input should be 'train', 'val', ",
        ),
        (
            "optical,bands\na.tif,1 2\n",
            "  line 2: bands: expected a list in square brackets, such as [1, 2, 3], found '1 2'",
        ),
        ("name,elevation\na,a.tif\n", "scenes.csv cannot be used:\n  data: expected the rasters of at least two modal"),
        ("name,optical\na,b.tif\na,c.tif\n", "a name of its own for each scene, found a more than once"),
        (
            "name,optical\n../a,b.tif\nq,d.tif\n",
            "of at most 200 bytes without slashes and control characters, found '../a'",
        ),
        (
            "name,optical\n..,b.tif\nq,d.tif\n",
            "of at most 200 bytes without slashes and control characters, found '..'",
        ),
        (
            "name,optical\na.Layers,b.tif\na,d.tif\n",
            "scenes: a.layers.tif would be the map of the scene a.layers, and a file beside the map of the scene a.",
        ),
        ("name,optical\nP1,b.tif\nq,d.tif\np1,c.tif\n", "names that differ by more than capitals, found P1 and p1"),
    ],
)
def test_tables_that_cannot_be_used(load, table, told):
    with pytest.raises(ConfigError) as caught:
        load(table)
    assert told in str(caught.value)


def test_cells_between_semicolons(load):
    """As spreadsheets write them where the comma is the decimal sign; with the mark of UTF-8 in front."""
    scenes = load("\ufeffname;optical;bands\na;a.tif;[1, 2]\nb;b.tif;\n")
    assert [(scene.name, scene.bands) for scene in scenes] == [("a", (1, 2)), ("b", None)]


def test_other_words_for_splits(load):
    scenes = load("optical,elevation,split\na.tif,h.tif,Validation\nb.tif,h.tif,TRAIN \nc.tif,h.tif,tst\n")
    assert [scene.split for scene in scenes] == ["val", "train", "test"]


def test_no_table(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"data.scenes": str(tmp_path / "none.csv")})
    assert str(caught.value) == (
        f"data.scenes: {tmp_path / 'none.csv'}: no such file. Expected a CSV file with a row for each scene."
    )
