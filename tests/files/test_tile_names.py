"""Tiles that are joined by the named parts of their names."""

from __future__ import annotations

import pytest

from geocrodino.errors import ConfigError, LeftOutWarning
from geocrodino.files.tile_names import guess_patterns, has_parts, match_tiles


@pytest.fixture
def touch(tmp_path, monkeypatch):
    """Create empty files in the working folder."""
    monkeypatch.chdir(tmp_path)

    def create(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return create


def test_what_is_a_pattern(touch):
    assert has_parts("dsm_{row}_{col}.tif")
    assert not has_parts("dsm.tif")
    assert not has_parts("/vsizip/{scene.zip}/a.tif")
    assert not has_parts("https://host/{z}/{x}.tif")
    assert not has_parts("a_{1}.tif")
    touch("odd{name}.tif")
    assert not has_parts("odd{name}.tif")


def test_potsdam(touch):
    touch("2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "2_Ortho_RGB/top_potsdam_10_7_RGB.tif", "2_Ortho_RGB/readme.txt")
    touch("1_DSM/dsm_potsdam_02_10.tif", "1_DSM/dsm_potsdam_10_07.tif", "1_DSM/dsm_potsdam_02_10.tfw")
    touch("5_Labels_all/top_potsdam_2_10_label.tif", "5_Labels_all/top_potsdam_10_7_label.tif")
    tiles = match_tiles(
        {
            "optical": "2_Ortho_RGB/top_potsdam_{row}_{col}_RGB.tif",
            "elevation": "1_DSM/dsm_potsdam_{row}_{col}.tif",
            "labels": "5_Labels_all/top_potsdam_{row}_{col}_label.tif",
        }
    )
    assert [tile.name for tile in tiles] == ["2_10", "10_7"]  # 2 before 10: numbers by size
    assert tiles[0].files == {
        "optical": "2_Ortho_RGB/top_potsdam_2_10_RGB.tif",
        "elevation": "1_DSM/dsm_potsdam_02_10.tif",
        "labels": "5_Labels_all/top_potsdam_2_10_label.tif",
    }


def test_a_part_that_is_there_twice_has_one_value(touch):
    for domain in ("D006", "D012"):
        touch(f"{domain}_RGBI/S1/{domain}_RGBI_5-5.tif", f"{domain}_ELEV/S1/{domain}_ELEV_5-5.tif")
    touch("D006_RGBI/S1/D012_RGBI_9-9.tif")  # in a folder of another domain
    tiles = match_tiles({"optical": "{d}_RGBI/{roi}/{d}_RGBI_{n}.tif", "elevation": "{d}_ELEV/{roi}/{d}_ELEV_{n}.tif"})
    assert [tile.name for tile in tiles] == ["D006_S1_5-5", "D012_S1_5-5"]


def test_one_file_for_several_tiles(touch):
    touch("rgb/a_1.tif", "rgb/a_2.tif", "rgb/b_1.tif", "dsm/a.tif", "dsm/b.tif")
    tiles = match_tiles({"elevation": "dsm/{site}.tif", "optical": "rgb/{site}_{day}.tif"})
    assert [(tile.name, tile.files["elevation"]) for tile in tiles] == [
        ("a_1", "dsm/a.tif"),
        ("a_2", "dsm/a.tif"),
        ("b_1", "dsm/b.tif"),
    ]


def test_wildcards_beside_parts(touch):
    touch("x/5_Labels/5_Labels/top_3_label.tif", "x/5_Labels/5_Labels/top_4_label_noBoundary.tif", "top_5_label.tif")
    tiles = match_tiles({"labels": "**/t[!a]p_{tile}_l?bel.tif"})
    assert [tile.files["labels"] for tile in tiles] == [
        "x/5_Labels/5_Labels/top_3_label.tif",
        "top_5_label.tif",
    ]


def test_tiles_whose_joined_parts_are_equal_keep_names_of_their_own(touch):
    touch("a_b/c.tif", "a/b_c.tif")
    assert [tile.name for tile in match_tiles({"optical": "{folder}/{tile}.tif"})] == ["a,b_c", "a_b,c"]


# --- partial tiles --------------------------------------------------------------------------------------------------


@pytest.fixture
def partial(touch):
    """Three images, labels of two of them, and of a fourth."""
    touch(*(f"img/{n}.tif" for n in (1, 2, 10)), *(f"msk/{n}.tif" for n in (1, 2, 3)), "dsm/01.tif", "dsm/02.tif")
    touch("dsm/03.tif", "dsm/10.tif")
    return {"optical": "img/{n}.tif", "elevation": "dsm/{n}.tif", "labels": "msk/{n}.tif"}


def test_tiles_without_a_partner_are_refused(partial):
    with pytest.raises(ConfigError) as caught:
        match_tiles(partial)
    assert str(caught.value) == (
        "data.optical: img/{n}.tif: expected a file for each of the 4 tiles of data.elevation, found none for 1: 03.\n"
        "Add them, correct the pattern, or set `data.partial`: keep or leave_out."
    )
    with pytest.raises(ConfigError, match=r"^data.labels: .* the 4 tiles of data.elevation, found none for 1: 10\.\n"):
        match_tiles({role: partial[role] for role in ("elevation", "labels")})


def test_tiles_without_a_partner_are_kept(partial):
    tiles = match_tiles(partial, "keep")
    assert [(tile.name, "".join(role[0] for role in tile.files)) for tile in tiles] == [
        ("1", "oel"),
        ("2", "oel"),
        ("03", "el"),
        ("10", "oe"),
    ]


def test_tiles_without_a_partner_are_left_out(partial):
    with pytest.warns(LeftOutWarning) as caught:
        tiles = match_tiles(partial, "leave_out")
    assert [tile.name for tile in tiles] == ["1", "2"]
    assert str(caught[0].message) == ("data.partial: 2 of 4 tiles are left out, because they lack a file: 10, 03.")


# --- messages -------------------------------------------------------------------------------------------------------


def _problem(patterns, partial="refuse"):
    with pytest.raises(ConfigError) as caught:
        match_tiles(patterns, partial)
    return str(caught.value)


def test_two_files_of_one_tile(touch):
    touch("a/2_10.tif", "b/02_10.tif")
    assert _problem({"optical": "*/{row}_{col}.tif"}) == (
        "data.optical: a/2_10.tif and b/02_10.tif are both tile 2_10.\n"
        "Correct the pattern, so that each tile has one file."
    )


def test_a_pattern_without_files(touch):
    touch("img/a_1.png", "img/a_2.png")
    assert _problem({"optical": "img/{n}.tif"}) == (
        "data.optical: img/{n}.tif: no file matches the pattern. The folder img holds a_1.png, a_2.png.\n"
        "Correct the pattern."
    )
    assert _problem({"optical": "image/{n}.tif"}) == (
        "data.optical: image/{n}.tif: no file matches the pattern; there is no folder image. Check the path."
    )


def test_parts_of_other_names(touch):
    touch("img/1_2.tif", "dsm/1_2.tif")
    assert _problem({"optical": "img/{row}_{col}.tif", "elevation": "dsm/{tile}.tif"}) == (
        "data.elevation: dsm/{tile}.tif: expected the named parts of data.optical ({row}, {col}), found {tile}.\n"
        "Give what is the same in both names the same name."
    )


def test_nothing_fits_together(touch):
    touch("img/1_2.tif", "img/1_3.tif", "dsm/north.tif")
    patterns = {"optical": "img/{tile}.tif", "elevation": "dsm/{tile}.tif"}
    assert _problem(patterns) == _problem(patterns, "leave_out")
    assert _problem(patterns) == (
        "data.optical: img/{tile}.tif: no tile has a file of every pattern: data.optical has 1_2, 1_3; data.elevation "
        "has north.\nCorrect the patterns, so that the named parts hold the same text."
    )


@pytest.mark.parametrize("pattern", ["{row}{col}.tif", "{row}*.tif", "*{row}.tif"])
def test_parts_without_an_end(pattern):
    assert _problem({"optical": pattern}) == (
        f"data.optical: {pattern}: a part in braces has no end where * or another part follows or precedes it.\n"
        "Write the text between them, for instance {row}_{col}."
    )


# --- guesses --------------------------------------------------------------------------------------------------------


def test_patterns_are_guessed_from_names():
    files = {
        "optical": ["o/top_potsdam_2_10_RGB.tif", "o/top_potsdam_3_11_RGB.tif"],
        "elevation": ["d/dsm_potsdam_02_10.tif", "d/dsm_potsdam_03_11.tif"],
    }
    assert guess_patterns(files) == {
        "optical": "o/top_potsdam_{tile}_RGB.tif",
        "elevation": "d/dsm_potsdam_{tile}.tif",
    }


def test_a_number_that_all_tiles_of_a_role_share_belongs_to_the_tile():
    """Labels of one row only: their names begin alike with the row, those of the images do not."""
    files = {
        "optical": ["o/top_2_10.tif", "o/top_2_11.tif", "o/top_3_10.tif"],
        "labels": ["l/top_2_10_label.tif", "l/top_2_11_label.tif"],
    }
    assert guess_patterns(files) == {"optical": "o/top_{tile}.tif", "labels": "l/top_{tile}_label.tif"}


def test_folders_differ_too():
    files = {
        "optical": ["r/Nice/BDORTHO/06-E100.tif", "r/Nantes/BDORTHO/44-E080.tif"],
        "elevation": ["r/Nice/RGEALTI/06-E100_RGEALTI.tif", "r/Nantes/RGEALTI/44-E080_RGEALTI.tif"],
    }
    assert guess_patterns(files) == {
        "optical": "r/{folder}/BDORTHO/{tile}.tif",
        "elevation": "r/{folder}/RGEALTI/{tile}_RGEALTI.tif",
    }


@pytest.mark.parametrize(
    "files",
    [
        {"optical": ["a/1.tif", "a/2.tif"], "labels": ["b/x.tif", "b/y.tif"]},
        {"optical": ["a/1.tif", "a/2.tif"], "labels": ["b/1.tif"]},
        {"optical": ["a/1.tif", "a/c/2.tif"], "labels": ["b/1.tif", "b/2.tif"]},
        {"optical": ["a/1.tif", "a/01.tif"], "labels": ["b/1.tif", "b/2.tif"]},
    ],
    ids=["nothing in common", "one file", "folders of other depth", "two of one tile"],
)
def test_names_that_do_not_fit(files):
    assert guess_patterns(files) is None


def test_characters_of_patterns_in_names_stay_as_they_are(touch):
    names = ["in [1]/a_1.tif", "in [1]/a_2.tif"]
    touch(*names)
    guessed = guess_patterns({"optical": names})
    assert guessed == {"optical": "in [[]1]/a_{tile}.tif"}
    assert [tile.files["optical"] for tile in match_tiles(guessed)] == names
