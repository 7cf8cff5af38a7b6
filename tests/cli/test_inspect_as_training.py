"""``inspect`` of labels beside rasters goes through the door of ``train``: the same files, checks and messages."""

from __future__ import annotations

import itertools

import pytest
import rasterio
import yaml
from rasterio.windows import Window

ROLES = ("optical", "elevation", "labels")


@pytest.fixture
def cut(town, here):
    """Cut each raster of the town into four tiles in a folder for its role; tiles of the second row in another CRS."""

    def make(crs=None):
        for role in ROLES:
            (here / role).mkdir()
            with rasterio.open(getattr(town, role)) as dataset:
                height, width = dataset.height // 2, dataset.width // 2
                for i, j in itertools.product(range(2), range(2)):
                    window = Window(j * width, i * height, width, height)
                    layout = dict(dataset.profile, width=width, height=height)
                    layout["transform"] = dataset.window_transform(window)
                    layout["crs"] = crs if crs and i else dataset.crs
                    with rasterio.open(here / role / f"{role}_{i}_{j}.tif", "w", **layout) as target:
                        target.write(dataset.read(window=window))
                        target.descriptions, target.units = dataset.descriptions, dataset.units
        return here

    return make


def words_of(names):
    return [word for role, name in names.items() for word in (f"--{role}", name)]


def refusal_of_both(run_cli, *words):
    """The message with which `train` and `inspect` refuse the same options."""
    code, _, err = run_cli("train", *words, "--out", "run", "--dry-run")
    assert code == 2
    message = err.removeprefix("Error: ")
    code, out, err = run_cli("inspect", *words)
    assert code == 2
    assert message in (out + err).replace("Problem: ", "").replace("Error: ", "")
    assert "fit together" not in out
    return message


def test_two_tiles_of_one_place(run_cli, cut, town):
    folder = cut()
    (folder / "optical" / "optical_9_9.tif").write_bytes((folder / "optical" / "optical_0_0.tif").read_bytes())
    words = words_of({"optical": "optical", "elevation": town.elevation, "labels": town.labels})
    first, last = (folder / "optical" / f"optical_{tile}.tif" for tile in ("0_0", "9_9"))
    assert refusal_of_both(run_cli, *words, "--patch-px", 32) == (
        f"data.optical: {first} and {last} cover the same 160 x 160 px.\n"
        "Name one file for each place with a pattern or a list, or make tiles of their own of them by named parts: "
        "{tile}.tif.\n"
    )


def test_names_with_parts_are_tiles_joined_by_them(run_cli, cut):
    folder = cut()
    words = words_of({role: f"{role}/{role}_{{r}}_{{c}}.tif" for role in ROLES})
    words = [*words, "--patch-px", 32]
    assert refusal_of_both(run_cli, *words).startswith("data.scenes: scene 0_0 has no split.")
    code, out, err = run_cli("inspect", *words, "--split", "scenes")
    assert (code, err) == (0, "")
    assert out.startswith("Reading 4 scenes.\n")
    assert out.endswith("These files fit together.\n")
    (folder / "elevation" / "elevation_1_1.tif").unlink()
    assert "1_1" in refusal_of_both(run_cli, *words, "--split", "scenes")
    code, out, _ = run_cli("inspect", *words, "--split", "scenes", "--partial", "leave_out")
    assert code == 0
    assert out.startswith("Reading 3 scenes.\n")


def test_folders_in_two_crss_are_joined_by_name(run_cli, cut):
    cut("EPSG:32632")
    code, out, err = run_cli(
        "inspect", *words_of({role: role for role in ROLES}), "--patch-px", 32, "--split", "scenes"
    )
    assert (code, err) == (0, "")
    assert out.startswith("Tiles without a common raster, joined by name to 4 scenes:\n  optical: ")
    assert out.endswith("These files fit together.\n")


def test_an_image_and_labels_get_the_splits_of_a_training(run_cli, town, here):
    words = words_of({"optical": town.optical, "labels": town.labels})
    code, out, err = run_cli("inspect", *words, "--patch-px", 32, "--split-map", "splits.png")
    assert (code, err) == (0, "")
    assert out.endswith("Picture of the splits: splits.png\nThese files fit together.\n")
    code, _, err = run_cli("inspect", *words, "--patch-px", 32, "--split-map", "splits.pdf")
    assert (code, err) == (2, "Error: splits.pdf: the picture is written as a PNG. Let the name end in .png.\n")
    assert [path.name for path in here.iterdir()] == ["splits.png"]
    code, out, _ = run_cli("inspect", *words, "--patch-px", 512)
    assert code == 2
    assert "Problem: " in out
    assert "512" in out.splitlines()[-2] + out.splitlines()[-1]


@pytest.mark.parametrize("option", [("--partial", "keep"), ("--split", "scenes"), ("--folds", 3), ("--seed", 1)])
def test_an_option_of_the_checks_needs_labels(run_cli, town, here, option):
    code, out, err = run_cli("inspect", "--elevation", town.elevation, *option)
    assert (code, out) == (2, "")
    assert err == (
        f"Error: {option[0]} {option[1]}: the checks of a training need its files. Give --labels beside --optical and "
        "--elevation, or --config.\n"
    )


@pytest.mark.parametrize("several", [False, True])
def test_values_are_shown_as_the_training_reads_them(run_cli, town, here, several):
    """With the factor 0.01, a hundredth of what the file stores."""
    with rasterio.open(town.optical) as dataset:
        red = dataset.read(1)
    files = {role: str(getattr(town, role)) for role in (*ROLES, "aoi")}
    scenes = [{**files, "name": name} for name in ("a", "b")] if several else None
    data = {"rescale": 0.01, **({"scenes": scenes} if several else files)}
    (here / "c.yaml").write_text(yaml.safe_dump({"data": data, "training": {"patch_px": 32}}))
    code, out, err = run_cli("inspect", "--config", "c.yaml")
    assert (code, err) == (0, "")
    assert out.count(f"red {red.min() / 100:.5g} to {red.max() / 100:.5g}, ") == (2 if several else 1)
