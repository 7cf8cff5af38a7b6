"""Names and colours of values, from wherever a file keeps them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from geocrodino.geo.labels import categories
from geocrodino.geo.labels.categories import read_categories

BAND = '<PAMDataset><PAMRasterBand band="{band}">{inside}</PAMRasterBand></PAMDataset>'


@pytest.fixture
def named(write_raster):
    """Write a raster with a side file."""

    def write(inside: str, *, band: int = 1, bands: int = 1, **options):
        path = write_raster("labels.tif", np.ones((bands, 4, 4), np.uint8), **options)
        path.with_name("labels.tif.aux.xml").write_text(BAND.format(band=band, inside=inside))
        return path

    return write


def _table(columns: list[tuple[str, int, int]], rows: list[list[object]]) -> str:
    """An attribute table with columns of (name, type, meaning)."""
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{n}</Name><Type>{t}</Type><Usage>{u}</Usage></FieldDefn>'
        for i, (n, t, u) in enumerate(columns)
    )
    cells = "".join(
        f'<Row index="{i}">' + "".join(f"<F>{cell}</F>" for cell in row) + "</Row>" for i, row in enumerate(rows)
    )
    return f"<GDALRasterAttributeTable>{fields}{cells}</GDALRasterAttributeTable>"


def _names(*names: str) -> str:
    return "<CategoryNames>" + "".join(f"<Category>{n}</Category>" for n in names) + "</CategoryNames>"


def test_a_file_without_names(write_raster):
    found = read_categories(write_raster("labels.tif", np.ones((4, 4), np.uint8)))
    assert (found.names, found.colours, found.notes) == ({}, {}, ())


def test_category_names_count_from_zero_and_empty_ones_are_none(named):
    assert read_categories(named(_names("none", " ", " trees &amp; shrubs ", "h&#228;user"))).names == {
        0: "none", 2: "trees & shrubs", 3: "häuser",
    }  # fmt: skip


def test_attribute_table_by_meaning(named):
    columns = [("Label", 2, 2), ("Id", 0, 5), ("R", 0, 6), ("G", 0, 7), ("B", 0, 8)]
    found = read_categories(named(_table(columns, [["roof", 7, 255, 0, 16], ["road", 3, 1, 2, 3], ["", 4, 9, 9, 9]])))
    assert found.names == {7: "roof", 3: "road"}
    assert found.colours == {7: "#ff0010", 3: "#010203", 4: "#090909"}


def test_attribute_table_by_names_of_columns(named):
    columns = [("OID", 0, 0), ("VALUE", 0, 0), ("Count", 0, 1), ("Class_Name", 2, 0)]
    columns += [(c, 1, 0) for c in ("Red", "Green", "Blue")]
    found = read_categories(named(_table(columns, [[0, 11, 5, "water", 0.0, 0.5, 1.0]])))
    assert found.names == {11: "water"}
    assert found.colours == {11: "#0080ff"}


def test_category_names_go_before_an_attribute_table(named):
    table = _table([("Value", 0, 5), ("Name", 2, 2)], [[0, "zero"], [5, "five"]])
    assert read_categories(named(_names("ground") + table)).names == {0: "ground", 5: "five"}


def test_the_tag_of_a_map_goes_before_all(named):
    path = named(_names("a", "b"))
    classes = [{"value": v, "name": n, "colour": "#112233"} for v, n in ((0, "grass"), (1, "road"))]
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASSES=json.dumps(classes))
    found = read_categories(path)
    assert (found.names, found.colours[1]) == ({0: "grass", 1: "road"}, "#112233")


def test_another_programs_tag_of_that_name_is_left_alone(named):
    path = named(_names("a", "b"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASSES="grass, road")
    assert read_categories(path).names == {0: "a", 1: "b"}


def test_names_of_another_band_are_not_taken(named):
    path = named(_names("a", "b"), band=2, bands=2)
    assert read_categories(path, 1).names == {}
    assert read_categories(path, 2).names == {0: "a", 1: "b"}


def test_colour_table(write_raster):
    path = write_raster("labels.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (1, 2, 3, 255)})
    assert read_categories(path).colours[1] == "#010203"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<PAMDataset>", "no element found"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><PAMDataset>&b;</PAMDataset>', "it declares a document type"),
    ],
)
def test_a_side_file_that_cannot_be_read(named, text, reason):
    path = named("")
    side = path.with_name("labels.tif.aux.xml")
    side.write_text(text)
    found = read_categories(path)
    assert found.names == {}
    (note,) = found.notes
    assert note.startswith(f"{side}: the names of classes in it cannot be read ({reason}")


@pytest.mark.parametrize(
    ("gdal", "inside"), [("3.9.2", False), ("3.11.5", False), ("3.12.0", True), ("4.0.0beta1", True)]
)
def test_a_tiff_without_a_side_file_is_asked_for_names_from_gdal_3_12_on(write_raster, monkeypatch, gdal, inside):
    monkeypatch.setattr(rasterio, "__gdal_version__", gdal)
    path = write_raster("labels.tif", np.ones((4, 4), np.uint8))
    asked = []
    monkeypatch.setattr(categories, "_band_elements", lambda *arguments: asked.append(arguments) or ())
    read_categories(path, palette=False)
    assert len(asked) == inside
