import json
import resource
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.errors import OutputError
from geocrodino.geo.classes import ClassScheme, LandClass
from geocrodino.geo.writer import ClassMapWriter

SCHEME = ClassScheme(
    classes=(
        LandClass(value=2, name="grass & moss", colour="#00ff00"),
        LandClass(value=0, name="water", colour="#0000ff"),
        LandClass(value=5, name="Gebäude", colour="#ff0000"),
    )
)
GRID = GeoBox((600, 700), Affine(0.5, 0, 500000, 0, -0.5, 4000000), "EPSG:32610")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def write_map(path, grid=GRID, **options):
    height, width = grid.shape
    values = np.random.default_rng(0).choice(np.array([0, 2, 5, 255], np.uint8), (height, width))
    with ClassMapWriter(path, grid, SCHEME, tags={"MODALITY": "optical"}, **options) as writer:
        writer.write((0, height, 0, width // 2), values[:, : width // 2])
        writer.write((0, height, width // 2, width), values[:, width // 2 :])
    return values


def test_map_carries_grid_colours_names_and_tags(tmp_path):
    values = write_map(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as found:
        np.testing.assert_array_equal(found.read(1), values)
        assert (found.crs.to_epsg(), found.transform, found.nodata) == (32610, GRID.affine, 255)
        assert found.colormap(1)[5] == (255, 0, 0, 255)
        assert found.tags()["MODALITY"] == "optical"
        assert json.loads(found.tags()["CLASSES"])[0] == {"value": 2, "name": "grass & moss", "colour": "#00ff00"}
        assert found.profile["compress"] == "deflate"
        assert (found.block_shapes, found.overviews(1)) == ([(512, 512)], [2])
    names = [e.text or "" for e in ET.parse(tmp_path / "map.tif.aux.xml").iter("Category")]
    assert names == ["water", "", "grass & moss", "", "", "Gebäude"]


def test_map_is_a_valid_cog(tmp_path):
    cog_validate = pytest.importorskip("rio_cogeo.cogeo").cog_validate
    write_map(tmp_path / "map.tif")
    assert cog_validate(tmp_path / "map.tif", strict=True) == (True, [], [])


def test_overviews_take_the_most_frequent_class(tmp_path):
    values = np.full((600, 600), 2, np.uint8)
    values[::2, ::2] = 5  # one pixel of four
    with ClassMapWriter(tmp_path / "map.tif", GeoBox((600, 600), GRID.affine, GRID.crs), SCHEME) as writer:
        writer.write((0, 600, 0, 600), values)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as half:
        assert half.shape == (300, 300)
        assert (half.read(1) == 2).all()


@pytest.mark.parametrize(
    ("affine", "crs"),
    [
        (Affine(3**0.5, 1, 1e5, 1, -(3**0.5), 2e5), "EPSG:2154"),
        (Affine(1e-5, 0, 7.1, 0, -1e-5, 50.2), "EPSG:4326"),
    ],
)
def test_rotated_and_geographic_grids(tmp_path, affine, crs):
    write_map(tmp_path / "map.tif", GeoBox((20, 30), affine, crs))
    with rasterio.open(tmp_path / "map.tif") as found:
        assert found.crs == rasterio.CRS.from_string(crs)
        assert found.transform.almost_equals(affine, 1e-9)


def test_what_is_not_written_is_nodata(tmp_path):
    with ClassMapWriter(tmp_path / "map.tif", GRID, SCHEME) as writer:
        writer.write((0, 1, 0, 1), np.zeros((1, 1), np.uint8))
    with rasterio.open(tmp_path / "map.tif") as found:
        values = found.read(1)
    assert values[0, 0] == 0
    assert (values.ravel()[1:] == 255).all()


def test_existing_map_is_kept_unless_asked(tmp_path):
    path = tmp_path / "map.tif"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError) as error, ClassMapWriter(path, GRID, SCHEME):
        pytest.fail("entered")
    assert str(error.value) == f"{path}: the file exists.\nChoose another name, or replace it with --overwrite."
    assert names_in(tmp_path) == ["map.tif"]
    write_map(path, overwrite=True)
    assert names_in(tmp_path) == ["map.tif", "map.tif.aux.xml"]


def test_missing_folder_and_folder_as_file(tmp_path):
    with (
        pytest.raises(OutputError, match=r"does not exist.*\n.*mkdir -p"),
        ClassMapWriter(tmp_path / "a" / "m.tif", GRID, SCHEME),
    ):
        pytest.fail("entered")
    with pytest.raises(OutputError, match="found a folder"), ClassMapWriter(tmp_path, GRID, SCHEME):
        pytest.fail("entered")


def test_unwritable_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.geo.writer.os.access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written"), ClassMapWriter(tmp_path / "m.tif", GRID, SCHEME):
        pytest.fail("entered")


def test_a_full_disk_leaves_no_map_or_a_whole_one(tmp_path):
    values = np.random.default_rng(0).choice(np.array([0, 2, 5], np.uint8), (600, 700))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    outcomes = []
    for most_bytes in range(0, 180_000, 6_000):
        path = tmp_path / f"{most_bytes}.tif"
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
        try:
            with ClassMapWriter(path, GRID, SCHEME) as writer:
                writer.write((0, 600, 0, 700), values)
        except OutputError as error:
            outcomes.append(str(error).splitlines()[-1])
            assert names_in(tmp_path) == []
        else:
            outcomes.append("whole")
            with rasterio.open(path) as found:
                np.testing.assert_array_equal(found.read(1), values)
            for left in tmp_path.iterdir():
                left.unlink()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(outcomes) == {"Check the free space of the folder.", "whole"}


def test_a_map_that_another_program_wrote_meanwhile_is_kept(tmp_path):
    path = tmp_path / "map.tif"

    def write():
        with ClassMapWriter(path, GRID, SCHEME) as writer:
            writer.write((0, 1, 0, 1), np.zeros((1, 1), np.uint8))
            path.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="another program wrote this file while the map was made, and it is kept"):
        write()
    assert (names_in(tmp_path), path.read_bytes()) == (["map.tif"], b"theirs")


def test_failure_leaves_nothing(tmp_path):
    def fail():
        with ClassMapWriter(tmp_path / "map.tif", GRID, SCHEME) as writer:
            writer.write((0, 1, 0, 1), np.zeros((1, 1), np.uint8))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert names_in(tmp_path) == []


def test_failure_keeps_the_old_map(tmp_path):
    (tmp_path / "map.tif").write_bytes(b"old")
    with pytest.raises(RuntimeError), ClassMapWriter(tmp_path / "map.tif", GRID, SCHEME, overwrite=True):
        raise RuntimeError
    assert (tmp_path / "map.tif").read_bytes() == b"old"


def test_killed_process_leaves_no_map(tmp_path):
    code = f"""
        import os, signal, numpy as np
        from affine import Affine
        from odc.geo.geobox import GeoBox
        from geocrodino.geo.classes import ClassScheme
        from geocrodino.geo.writer import ClassMapWriter
        grid = GeoBox((20, 20), Affine(1, 0, 0, 0, -1, 20), "EPSG:32631")
        with ClassMapWriter({str(tmp_path / "map.tif")!r}, grid, ClassScheme.from_values([0, 1])) as writer:
            writer.write((0, 20, 0, 20), np.zeros((20, 20), np.uint8))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [n for n in names_in(tmp_path) if not n.startswith(".")] == []


def test_wrong_shape_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match=r"expected uint8 \(2, 3\), found uint8 \(3, 2\)"),
        ClassMapWriter(tmp_path / "map.tif", GRID, SCHEME) as writer,
    ):
        writer.write((0, 2, 0, 3), np.zeros((3, 2), np.uint8))


def test_bytes_do_not_depend_on_the_order_of_windows(tmp_path):
    values = np.random.default_rng(0).choice(np.array([0, 2], np.uint8), (600, 700))
    windows = [(r, min(r + 150, 600), c, min(c + 175, 700)) for r in range(0, 600, 150) for c in range(0, 700, 175)]
    for name, order in (("a.tif", windows), ("b.tif", windows[::-1])):
        with ClassMapWriter(tmp_path / name, GRID, SCHEME) as writer:
            for r0, r1, c0, c1 in order:
                writer.write((r0, r1, c0, c1), values[r0:r1, c0:c1])
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
