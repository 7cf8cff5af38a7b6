import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.errors import OutputError
from geocrodino.maps.files import class_map, layer_file
from geocrodino.maps.writer import MapWriter
from geocrodino.settings.classes import ClassScheme, LandClass

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


def writing(path, grid=GRID, scheme=SCHEME, *, files=(), **options):
    return MapWriter((class_map(path, scheme, tags={"MODALITY": "optical"}), *files), grid, **options)


def write_map(path, grid=GRID, **options):
    height, width = grid.shape
    values = np.random.default_rng(0).choice(np.array([0, 2, 5, 255], np.uint8), (height, width))
    with writing(path, grid, **options) as writer:
        writer.write((0, height, 0, width // 2), [values[None, :, : width // 2]])
        writer.write((0, height, width // 2, width), [values[None, :, width // 2 :]])
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
    with writing(tmp_path / "map.tif", GeoBox((600, 600), GRID.affine, GRID.crs)) as writer:
        writer.write((0, 600, 0, 600), [values[None]])
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
    with writing(tmp_path / "map.tif") as writer:
        writer.write((0, 1, 0, 1), [np.zeros((1, 1, 1), np.uint8)])
    with rasterio.open(tmp_path / "map.tif") as found:
        values = found.read(1)
    assert values[0, 0] == 0
    assert (values.ravel()[1:] == 255).all()


def test_existing_map_is_kept_unless_asked(tmp_path):
    path = tmp_path / "map.tif"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError) as error, writing(path):
        pytest.fail("entered")
    assert str(error.value) == f"{path}: the file exists.\nChoose another name, or replace it with `overwrite=True`."
    assert names_in(tmp_path) == ["map.tif"]
    write_map(path, overwrite=True)
    assert names_in(tmp_path) == ["map.tif", "map.tif.aux.xml"]


def test_missing_folder_and_folder_as_file(tmp_path):
    with (
        pytest.raises(OutputError, match=r"does not exist.*\n.*mkdir -p"),
        writing(tmp_path / "a" / "m.tif"),
    ):
        pytest.fail("entered")
    with pytest.raises(OutputError, match="found a folder"), writing(tmp_path):
        pytest.fail("entered")


def test_unwritable_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.maps.writer.os.access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written"), writing(tmp_path / "m.tif"):
        pytest.fail("entered")


def test_a_full_disk_leaves_no_map_or_a_whole_one(tmp_path):
    values = np.random.default_rng(0).choice(np.array([0, 2, 5], np.uint8), (600, 700))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    outcomes = []
    for most_bytes in range(0, 180_000, 6_000):
        path = tmp_path / f"{most_bytes}.tif"
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
        try:
            with writing(path) as writer:
                writer.write((0, 600, 0, 700), [values[None]])
        except OutputError as error:
            outcomes.append(str(error).splitlines()[-1])
            assert not path.exists()
            for left in tmp_path.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        else:
            outcomes.append("whole")
            with rasterio.open(path) as found:
                np.testing.assert_array_equal(found.read(1), values)
            for left in tmp_path.iterdir():
                left.unlink()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    unwritable = "Expected a folder with write permission and free space. Choose another one."
    assert set(outcomes) == {
        unwritable,
        "Check the free space of the folder.",
        "Check the free space of the folder, then go on with `resume=True`.",
        "whole",
    }


def test_a_map_that_another_program_wrote_meanwhile_is_kept(tmp_path):
    path = tmp_path / "map.tif"

    def write():
        with writing(path) as writer:
            writer.write((0, 1, 0, 1), [np.zeros((1, 1, 1), np.uint8)])
            path.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="another program wrote this file while the map was made, and it is kept"):
        write()
    assert path.read_bytes() == b"theirs"
    with writing(path, overwrite=True, resume=True) as writer:
        assert list(writer.done) == [(0, 1, 0, 1)]
    with rasterio.open(path) as found:
        assert found.read(1)[0, 0] == 0


def fail_after(path, parts, **options):
    """Write parts of a map, one row each, and fail."""

    def fail():
        with writing(path, **options) as writer:
            for row in parts:
                writer.write((row, row + 1, 0, 700), [np.full((1, 1, 700), 5, np.uint8)], note=[row])
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()


def test_failure_without_a_finished_part_leaves_nothing(tmp_path):
    fail_after(tmp_path / "map.tif", [])
    assert names_in(tmp_path) == []


def test_finished_parts_wait_for_resume(tmp_path):
    path = tmp_path / "map.tif"
    fail_after(path, [0, 4], key={"scene": "a"})
    assert [name for name in names_in(tmp_path) if not name.startswith(".")] == []
    with writing(path, key={"scene": "a"}, resume=True) as writer:
        assert writer.done == {(0, 1, 0, 700): [0], (4, 5, 0, 700): [4]}
        writer.write((1, 2, 0, 700), [np.full((1, 1, 700), 2, np.uint8)])
    with rasterio.open(path) as found:
        assert found.read(1)[:6, 0].tolist() == [5, 2, 255, 255, 5, 255]
    assert names_in(tmp_path) == ["map.tif", "map.tif.aux.xml"]


def test_without_resume_the_work_starts_anew(tmp_path):
    fail_after(tmp_path / "map.tif", [0])
    with writing(tmp_path / "map.tif") as writer:
        assert writer.done == {}
    with rasterio.open(tmp_path / "map.tif") as found:
        assert (found.read(1) == 255).all()


def test_a_changed_input_is_no_work_to_go_on_with(tmp_path):
    path = tmp_path / "map.tif"
    fail_after(path, [0], key={"scene": "a", "bundle": "b"})
    with pytest.raises(OutputError) as error, writing(path, key={"scene": "c", "bundle": "b"}, resume=True):
        pytest.fail("entered")
    assert str(error.value) == (
        f"{path}: the work that was stopped was another one. scene: expected a, found c.\n"
        "Give it as it was then, or start anew without `resume`."
    )
    with writing(path, key={"scene": "a", "bundle": "b"}, resume=True) as writer:
        assert list(writer.done) == [(0, 1, 0, 700)]


def test_nothing_to_go_on_with(tmp_path):
    path = tmp_path / "map.tif"
    with pytest.raises(OutputError) as error, writing(path, resume=True):
        pytest.fail("entered")
    assert str(error.value) == (
        f"{path}: there is no work to go on with. Expected the folder .map.tif.part of a run that was stopped, found "
        "none.\nRun without `resume`."
    )
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_short_costs_its_part_alone(tmp_path, cut):
    path = tmp_path / "map.tif"
    fail_after(path, [0, 1, 2])
    record = tmp_path / ".map.tif.part" / "ledger.jsonl"
    record.write_bytes(record.read_bytes()[:-cut])
    fail_after(path, [7], resume=True)
    with writing(path, resume=True) as writer:
        assert sorted(row for row, *_ in writer.done) == [0, 1, 7]


def test_a_part_whose_file_is_gone_is_not_finished(tmp_path):
    fail_after(tmp_path / "map.tif", [0, 1])
    (tmp_path / ".map.tif.part" / "0" / "0-1-0-700.tif").unlink()
    with writing(tmp_path / "map.tif", resume=True) as writer:
        assert list(writer.done) == [(1, 2, 0, 700)]


def test_two_processes_do_not_work_on_one_map(tmp_path):
    path = tmp_path / "map.tif"
    with writing(path) as writer:
        writer.write((0, 1, 0, 1), [np.zeros((1, 1, 1), np.uint8)])
        with pytest.raises(OutputError, match="another process is working on this file"), writing(path):
            pytest.fail("entered")
    with rasterio.open(path) as found:
        assert found.read(1)[0, 0] == 0


def test_a_map_in_parts(tmp_path):
    path, values = tmp_path / "map.vrt", np.random.default_rng(1).choice(np.array([0, 2, 5], np.uint8), (600, 700))
    with writing(path) as writer:
        for c0, c1 in ((0, 300), (300, 700)):
            writer.write((0, 600, c0, c1), [values[None, :, c0:c1]])
    assert names_in(tmp_path) == ["map.parts", "map.vrt"]
    assert names_in(tmp_path / "map.parts") == ["0-600-0-300.tif", "0-600-300-700.tif"]
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(1), values)
        assert (found.crs.to_epsg(), found.transform, found.nodata) == (32610, GRID.affine, 255)
        assert found.colormap(1)[5] == (255, 0, 0, 255)
        assert json.loads(found.tags()["CLASSES"])[0]["name"] == "grass & moss"
        assert found.descriptions == ("land cover",)
    with rasterio.open(tmp_path / "map.parts" / "0-600-300-700.tif") as part:
        assert part.transform == GRID.affine @ Affine.translation(300, 0)
        assert part.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with pytest.raises(OutputError, match="the file exists"), writing(path):
        pytest.fail("entered")
    (tmp_path / "map.parts" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"found something else \(notes.txt\), which is kept"):
        write_map(path, overwrite=True)
    (tmp_path / "map.parts" / "notes.txt").unlink()
    write_map(path, overwrite=True)
    assert names_in(tmp_path / "map.parts") == ["0-600-0-350.tif", "0-600-350-700.tif"]


def test_a_map_in_parts_is_never_over_parts_of_another(tmp_path, monkeypatch):
    path = tmp_path / "map.vrt"
    write_map(path)

    def full_of_errors(*_, **__):
        assert not path.exists()
        raise OSError("stale file handle")

    monkeypatch.setattr("geocrodino.maps.writer.shutil.rmtree", full_of_errors)
    with pytest.raises(OutputError, match="could not be completed"):
        write_map(path, overwrite=True)
    assert not path.exists()


def test_a_map_in_parts_that_is_stopped_while_files_are_named_goes_on(tmp_path, monkeypatch):
    path, layers = tmp_path / "map.vrt", layer_file(tmp_path / "map.layers.vrt", ("confidence",))
    parts = [np.full((1, 1, 700), 5, np.uint8), np.full((1, 1, 700), 127, np.uint8)]
    replace = Path.replace

    def stop_at_the_map(source, target):
        if target == path:
            raise KeyboardInterrupt
        return replace(source, target)

    def stopped(**options):
        with writing(path, files=(layers,), **options) as writer:
            assert writer.done.keys() == ({(0, 1, 0, 700)} if options else set())
            if not options:
                writer.write((0, 1, 0, 700), parts)

    monkeypatch.setattr(Path, "replace", stop_at_the_map)
    for options in ({}, {"resume": True}):
        with pytest.raises(KeyboardInterrupt):
            stopped(**options)
        assert not path.exists()
        assert (tmp_path / "map.parts").exists()
    monkeypatch.undo()
    stopped(resume=True)
    assert names_in(tmp_path) == ["map.layers.parts", "map.layers.vrt", "map.parts", "map.vrt"]
    with rasterio.open(path) as found:
        assert found.read(1)[:2, 0].tolist() == [5, 255]


STALE = [
    ("map.layers.tif", "map.layers.tif"),
    ("map.layers.tif", "map.layers.tif.aux.xml"),
    ("map.layers.vrt", "map.layers.vrt"),
    ("map.layers.vrt", "map.layers.parts/0-1-0-1.tif"),
]


@pytest.mark.parametrize(("stale", "there"), STALE)
def test_what_an_earlier_map_left_is_refused_or_removed(tmp_path, stale, there):
    path, left = tmp_path / f"map{(tmp_path / stale).suffix}", tmp_path / there
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"old")
    if there == stale:  # a file of a map, by its tags
        with rasterio.open(left, "w", driver="VRT" if left.suffix == ".vrt" else "GTiff", width=1, height=1, count=1,
                           dtype="uint8") as old:  # fmt: skip
            old.update_tags(BUNDLE_SHA256="00")
    first = left if left.parent == tmp_path else left.parent
    with pytest.raises(OutputError) as error, writing(path, stale=[tmp_path / stale]):
        pytest.fail("entered")
    assert str(error.value) == (
        f"{first}: belongs to another map of this name.\nChoose another name, or let `overwrite=True` remove it."
    )
    write_map(path, stale=[tmp_path / stale], overwrite=True)
    assert not any(name.startswith("map.layers") for name in names_in(tmp_path))


def test_what_another_program_writes_beside_the_map_is_kept(tmp_path):
    def write():
        with writing(tmp_path / "map.tif", stale=[tmp_path / "map.layers.tif"]) as writer:
            writer.write((0, 1, 0, 1), [np.zeros((1, 1, 1), np.uint8)])
            (tmp_path / "map.layers.tif").write_bytes(b"theirs")

    with pytest.raises(OutputError, match=r"map\.layers\.tif: belongs to another map of this name"):
        write()
    assert (tmp_path / "map.layers.tif").read_bytes() == b"theirs"


@pytest.mark.parametrize("content", ["text", "image"])
def test_a_file_of_another_program_is_kept(tmp_path, content):
    other = tmp_path / "map.layers.tif"
    if content == "text":
        other.write_bytes(b"mine")
    else:
        with rasterio.open(other, "w", driver="GTiff", width=1, height=1, count=1, dtype="uint8") as image:
            image.write(np.ones((1, 1, 1), np.uint8))
    before = other.read_bytes()
    with pytest.raises(OutputError) as error:
        write_map(tmp_path / "map.tif", stale=[other], overwrite=True)
    assert str(error.value) == (
        f"{other}: expected a file of an earlier map, found another one, which is kept.\n"
        "Choose another name for the map, or move that file."
    )
    assert other.read_bytes() == before
    assert names_in(tmp_path) == ["map.layers.tif"]


def test_what_is_no_file_of_a_map_is_kept(tmp_path):
    (tmp_path / "map.layers.tif").mkdir()
    with pytest.raises(OutputError) as error:
        write_map(tmp_path / "map.tif", stale=[tmp_path / "map.layers.tif"], overwrite=True)
    assert str(error.value) == (
        f"{tmp_path / 'map.layers.tif'}: expected a file of an earlier map, found a folder.\nChoose another name."
    )
    (tmp_path / "map.layers.parts").mkdir()
    (tmp_path / "map.layers.parts" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"found something else \(notes.txt\), which is kept"):
        write_map(tmp_path / "map.vrt", stale=[tmp_path / "map.layers.vrt"], overwrite=True)
    assert names_in(tmp_path) == ["map.layers.parts", "map.layers.tif"]


def test_layers_have_a_scale_and_averaged_overviews(tmp_path):
    layers = layer_file(tmp_path / "map.layers.tif", ("confidence", "entropy"))
    fractions = np.zeros((2, 600, 700), np.uint8)
    fractions[0, ::2], fractions[1] = 200, 254
    fractions[:, :, 600:] = 255
    with writing(tmp_path / "map.tif", files=(layers,)) as writer:
        writer.write((0, 600, 0, 700), [np.zeros((1, 600, 700), np.uint8), fractions])
    with rasterio.open(tmp_path / "map.layers.tif") as found:
        assert found.descriptions == ("confidence", "entropy")
        assert found.scales == (1 / 254, 1 / 254)
        assert found.nodata == 255
        np.testing.assert_array_equal(found.read(), fractions)
    with rasterio.open(tmp_path / "map.layers.tif", overview_level=0) as half:
        assert half.read(1)[5, 5] == 100
        assert half.read(1)[5, 340] == 255


def test_failure_keeps_the_old_map(tmp_path):
    (tmp_path / "map.tif").write_bytes(b"old")
    with pytest.raises(RuntimeError), writing(tmp_path / "map.tif", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "map.tif").read_bytes() == b"old"


def test_a_killed_process_leaves_no_map_and_loses_no_part(tmp_path):
    code = f"""
        import os, signal, numpy as np
        from affine import Affine
        from odc.geo.geobox import GeoBox
        from geocrodino.settings.classes import ClassScheme
        from geocrodino.maps.files import class_map
        from geocrodino.maps.writer import MapWriter
        from pathlib import Path
        grid = GeoBox((20, 20), Affine(1, 0, 0, 0, -1, 20), "EPSG:32631")
        files = (class_map(Path({str(tmp_path / "map.tif")!r}), ClassScheme.from_values([0, 1])),)
        with MapWriter(files, grid) as writer:
            writer.write((0, 10, 0, 20), [np.zeros((1, 10, 20), np.uint8)])
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [n for n in names_in(tmp_path) if not n.startswith(".")] == []
    with writing(tmp_path / "map.tif", resume=True) as writer:
        assert list(writer.done) == [(0, 10, 0, 20)]


def test_wrong_shape_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match=r"expected uint8 \(1, 2, 3\), found uint8 \(1, 3, 2\)"),
        writing(tmp_path / "map.tif") as writer,
    ):
        writer.write((0, 2, 0, 3), [np.zeros((1, 3, 2), np.uint8)])


def test_bytes_do_not_depend_on_the_order_of_windows(tmp_path):
    values = np.random.default_rng(0).choice(np.array([0, 2], np.uint8), (600, 700))
    windows = [(r, min(r + 150, 600), c, min(c + 175, 700)) for r in range(0, 600, 150) for c in range(0, 700, 175)]
    for name, order in (("a.tif", windows), ("b.tif", windows[::-1])):
        with writing(tmp_path / name) as writer:
            for r0, r1, c0, c1 in order:
                writer.write((r0, r1, c0, c1), [values[None, r0:r1, c0:c1]])
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_hashes_are_not_shown_to_people(tmp_path):
    path, before, now = tmp_path / "map.tif", "a" * 64, "b" * 64
    fail_after(path, [0], key={"optical": before, "area": "all"})
    with pytest.raises(OutputError) as error, writing(path, key={"optical": now, "area": now}, resume=True):
        pytest.fail("entered")
    assert str(error.value) == (
        f"{path}: the work that was stopped was another one. area: expected all, found {now}. optical: it has changed "
        "since, or the size, time of change or place of its files.\nGive it as it was then, or start anew without "
        "`resume`."
    )
