"""What a name of a raster means, before and after a path has folded its slashes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from geocrodino.errors import RasterError
from geocrodino.files.names import Member, absolute_name, check_member, check_raster, gdal_name, in_archive, is_remote


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with an archive of two files."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("scene.zip", "w") as archive:
        archive.writestr("in/a.tif", b"1")
        archive.writestr("b.tif", b"2")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tif", "a.tif"),
        ("/data/a.tif", "/data/a.tif"),
        ("https://host/a.tif", "https://host/a.tif"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
        ("/vsicurl/https://host/a.tif", "/vsicurl/https://host/a.tif"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("/vsizip/vsicurl/https://host/s.zip/a.tif", "/vsizip/vsicurl/https://host/s.zip/a.tif"),
        ("zip+https://host/s.zip!in/a.tif", "/vsizip/{/vsicurl/https://host/s.zip}/in/a.tif"),
        ("/vsimem/x/a.tif", "/vsimem/x/a.tif"),
        ("/vsizip/scene.zip/in/a.tif", "/vsizip/{scene.zip}/in/a.tif"),
        ("zip://scene.zip!in/a.tif", "/vsizip/{scene.zip}/in/a.tif"),
        ("zip://scene.zip!/b.tif", "/vsizip/{scene.zip}/b.tif"),
        ("/vsizip/scene.zip", "/vsizip/{scene.zip}"),
        ("/vsigzip/a.tif.gz", "/vsigzip/a.tif.gz"),
    ],
)
def test_names_survive_being_a_path(here, name, expected):
    assert gdal_name(name) == expected
    assert gdal_name(Path(name)) == expected
    assert gdal_name(Path(expected)) == expected


def test_an_absolute_archive_is_found_again_after_its_slash_was_folded(here):
    expected = Member("zip", here / "scene.zip", "in/a.tif")
    for name in (f"/vsizip/{here}/scene.zip/in/a.tif", f"/vsizip{here}/scene.zip/in/a.tif"):
        assert in_archive(name) == expected
    assert in_archive(str(Path(f"zip://{here}/scene.zip!/in/a.tif"))) == expected


def test_the_relative_archive_comes_first(here):
    (here / str(here).lstrip("/")).mkdir(parents=True)
    inner = Path(str(here).lstrip("/"), "scene.zip")
    Path("scene.zip").rename(inner)
    assert in_archive(f"/vsizip{here}/scene.zip/in/a.tif") == Member("zip", inner, "in/a.tif")


def test_a_name_from_everywhere(here, monkeypatch):
    name = absolute_name("zip://scene.zip!in/a.tif")
    assert name == f"/vsizip/{{{here}/scene.zip}}/in/a.tif"
    assert absolute_name("a.tif") == f"{here}/a.tif"
    assert absolute_name("https://host/a.tif") == "https://host/a.tif"
    monkeypatch.chdir("/")
    check_raster(name)
    check_member(name)


def test_what_is_remote(here):
    assert [is_remote(n) for n in ("https://host/a.tif", Path("https://host/a.tif"), "/vsis3/b/a.tif")] == [True] * 3
    assert [is_remote(n) for n in ("a.tif", "/vsizip/scene.zip/b.tif", "zip://none.zip!a.tif")] == [False] * 3


def test_what_an_archive_holds(here):
    check_member("zip://scene.zip!b.tif")
    check_member("b.tif")
    with pytest.raises(RasterError) as caught:
        check_member("zip://scene.zip!c.tif")
    assert str(caught.value) == (
        "/vsizip/{scene.zip}/c.tif: expected the file c.tif in scene.zip, found the files in/a.tif, b.tif.\n"
        "Name one of the files in it."
    )
