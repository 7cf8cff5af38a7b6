"""Layers that the runs of one folder share."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from geocrodino.data import layer_cache
from geocrodino.data.alignment import align, layers_key
from geocrodino.data.layer_cache import align_scenes, unwatched_note
from geocrodino.errors import OutputError, RasterError
from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.window import Window


@pytest.fixture
def scenes(sources):
    """Two halves of a scene of 96 x 128 px: three bands, a height channel and labels, (3 x 4 + 4 + 1) bytes a pixel."""
    grid = sources.reference.geobox
    return [(sources, window_grid(grid, Window(0, 96, 0, 48))), (sources, window_grid(grid, Window(0, 96, 48, 128)))]


@pytest.fixture
def cached(scenes, recipes, scheme, tmp_path):
    """Function that aligns the scenes, and gives the layers and what was told."""

    def run(chosen=scenes, **changes):
        told, progress = [], []
        layers = align_scenes(
            chosen,
            changes.get("recipes", recipes),
            scheme,
            tmp_path / "cache",
            lambda *p: progress.append(p),
            told.append,
        )
        return layers, told, progress

    return run


def _channels(recipes):
    return sum(len(recipe.channel_names) for recipe in recipes.values())


def test_remote_files_of_reused_layers_are_told(cached, scenes, tmp_path):
    """Of local files size and time are compared, of remote ones only the name."""
    sources = scenes[0][0]
    assert unwatched_note([sources], tmp_path) is None
    url = "/vsicurl/https://example.org/a.tif"
    remote = {m: replace(raster, name=url) for m, raster in sources.rasters.items()}
    assert unwatched_note([sources, replace(sources, rasters=remote)], tmp_path) == (
        f"{url} is remote: changes since the earlier run are not noticed. Delete {tmp_path} to read again."
    )


def test_layers_are_those_of_each_scene_alone(cached, scenes, recipes, scheme, tmp_path):
    layers, told, progress = cached()
    size = 96 * 128 * (4 * _channels(recipes) + 1)
    assert told == [f"Layers in {tmp_path / 'cache'}: {size:,} bytes to write."]
    assert sorted(progress)[-1] == (2, 2)
    for number, (sources, grid) in enumerate(scenes):
        alone = align(sources, recipes, scheme, grid, tmp_path / str(number))
        assert layers[number].labels.read_bytes() == alone.labels.read_bytes()
        for modality, path in alone.rasters.items():
            assert layers[number].rasters[modality].read_bytes() == path.read_bytes()


def test_a_second_run_writes_nothing(cached, scenes, recipes, scheme, tmp_path):
    first, _, _ = cached()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.img*")}
    second, told, progress = cached()
    assert told == [f"Layers in {tmp_path / 'cache'}: 0 bytes to write; those of 2 scenes are there from earlier runs."]
    assert second == first
    assert progress[-1] == (2, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_new_scene_is_written_beside_the_others(cached, scenes, recipes, tmp_path):
    cached(scenes[:1])
    (_, added), told, _ = cached(scenes)
    size = 96 * 80 * (4 * _channels(recipes) + 1)
    assert told == [
        f"Layers in {tmp_path / 'cache'}: {size:,} bytes to write; those of 1 scene are there from earlier runs."
    ]
    assert np.array_equal(added.class_indices()[:, 0], np.repeat([0, 1, 2], 32))  # classes 1, 2, 3 in stripes of rows


def test_a_changed_file_has_layers_of_its_own(cached, scenes, recipes, scheme, sources, tmp_path):
    (first, _), _, _ = cached()
    image = sources.rasters["optical"].path
    status = image.stat()
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    (second, _), _, _ = cached()
    assert second.labels.parent != first.labels.parent
    assert second.labels.parent.name == layers_key(sources, recipes, scheme, scenes[0][1])[:24]
    assert first.labels.exists()  # an earlier run may still read it


def test_a_full_disk_is_told_before_anything_is_written(cached, scenes, monkeypatch, tmp_path):
    usage = type("Usage", (), {"total": 10**9, "free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"not enough free space for the aligned rasters: expected .*, found 1,000 b"):
        cached()
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_error_stops_the_others(cached, scenes, monkeypatch):
    """Of two hundred scenes behind the one that fails, those are written that had begun."""
    begun = []

    def failing(*_):
        begun.append(1)
        if len(begun) == 1:
            raise RasterError("a.tif", "is damaged")
        threading.Event().wait(0.2)

    monkeypatch.setattr(layer_cache, "align", failing)
    with pytest.raises(RasterError, match="is damaged"):
        cached(scenes * 100)
    assert len(begun) < 50 * len(scenes)
