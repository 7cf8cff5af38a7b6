"""Commented YAML of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from geocrodino.errors import OutputError
from geocrodino.project.text import Block, Entry, as_text, as_tree, require_new

LONG = {"table": {f"a class with a long name {i}": [f"#0000{i:02x}"] for i in range(5)}, "colours": True}


def test_entries_with_reasons(tmp_path):
    found = as_text(
        ["Head"],
        [
            Block(
                "data",
                [
                    Entry("optical", str(tmp_path / "my image.tif"), "3 bands"),
                    Entry("elevation", "/elsewhere/dsm.tif"),
                    Entry("labels", f"{tmp_path}/tiles/"),
                    Entry("aoi", "https://example.org/a.gpkg"),
                    Entry("resolution_m", 0.5, "could be", active=False),
                ],
            ),
            Block("training", [Entry("patch_px", 128)]),
        ],
        tmp_path,
    )
    assert found == (
        "# Head\n"
        "data:\n"
        "  optical: my image.tif  # 3 bands\n"
        "  elevation: /elsewhere/dsm.tif\n"
        "  labels: tiles/\n"
        "  aoi: https://example.org/a.gpkg\n"
        "  # resolution_m: 0.5  # could be\n"
        "training:\n"
        "  patch_px: 128\n"
    )


def test_text_and_tree_hold_the_same():
    blocks = [
        Block(
            "data",
            [
                Block(
                    "scenes",
                    items=[
                        [Entry("name", "a"), Entry("optical", "/x/a{t}.tif", "r " * 90), Entry("split", "val", "?")],
                        [Entry("name", "b: c"), Entry("labels", "l.tif", "none", active=False), Entry("bands", [1, 2])],
                    ],
                ),
                Entry("label_rules", LONG, "? colours"),
            ],
        ),
        Block("classes", items=[[Entry("value", 0), Entry("name", "no"), Entry("colour", "#fff000")]], why="found"),
    ]
    tree = as_tree(blocks)
    assert yaml.safe_load(as_text([], blocks, Path("/y"))) == tree
    assert tree["data"]["scenes"][1] == {"name": "b: c", "bands": [1, 2]}
    assert tree["classes"] == [{"value": 0, "name": "no", "colour": "#fff000"}]


def test_long_lines_are_broken():
    text = as_text([], [Block("data", [Entry("label_rules", LONG, "word " * 40)])], Path("/"))
    assert max(map(len, text.splitlines())) <= 116
    assert yaml.safe_load(text)["data"]["label_rules"] == LONG


def test_a_file_is_not_replaced(tmp_path):
    file = tmp_path / "geocrodino.yaml"
    require_new(file, overwrite=False)
    file.write_text("")
    require_new(file, overwrite=True)
    with pytest.raises(OutputError, match=r"exists\. Replace it with `overwrite=True`"):
        require_new(file, overwrite=False)
    with pytest.raises(OutputError, match="there is no folder"):
        require_new(tmp_path / "none/a.yaml", overwrite=False)
