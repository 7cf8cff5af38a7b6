"""Words in names that say which layer a file is."""

from __future__ import annotations

import pytest

from geocrodino.project.words import names_an_area, word_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1_DSM/dsm_potsdam_02_10.tif", ("surface", "dsm")),
        ("5_Labels_all/top_potsdam_2_10_label.tif", ("labels", "label")),  # an image's word too, but labels come first
        ("top/top_mosaic_09cm_area1.tif", ("optical", "top")),
        ("JAX_004_006_AGL.tif", ("above", "agl")),
        ("duesseldorf/350_5680_dem.tif", ("heights", "dem")),
        ("RGEALTI/44-2013.tif", ("heights", "rgealti")),  # the name says nothing, its folder does
        ("D004/img/000826.tif", ("optical", "img")),
        ("ground_truth.tif", ("labels", "truth")),
        ("dtm.tif", ("ground", "dtm")),
        ("a/b/c.tif", None),
        ("demolition.tif", None),  # a word is not a part of another one
    ],
)
def test_a_name_speaks_of_a_layer(name, expected):
    assert word_of(name) == expected


def test_a_name_speaks_of_an_area():
    assert names_an_area("x/study_area.gpkg")
    assert not names_an_area("areas/parcels.gpkg")
