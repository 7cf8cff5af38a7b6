"""The tables of the documentation: put into the pages, made of the numbers of several scenes, and their commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from helpers.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script():
    return load_script("docs/assemble_results.py", "assemble_results")


@pytest.fixture
def fragments():
    return load_script("pipelines/fragments.py", "fragments_of_documentation")


def place(name, content=""):
    return f"<!-- table: {name} -->\n{content}<!-- end of table -->"


@pytest.fixture
def root(tmp_path, script):
    """A repository with one table in its pages."""
    for page in script.PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("No table.\n")
    (tmp_path / "docs" / "results.md").write_text(f"Before.\n\n{place('labels')}\n\nAfter.\n")
    return tmp_path


def write_table(root, name, table, **facts):
    folder = root / "docs" / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(table + "\n")
    (folder / f"{name}.json").write_text(json.dumps({"command": f"python make {name}", "device": "CPU", **facts}))


def test_a_table_is_put_into_its_place_once(root, script):
    write_table(root, "labels", "| a |\n|---|\n| 1 |", seeds=[0, 1])
    assert script.assemble(root, write=False) == ["docs/results.md"]  # as --check finds it
    assert script.assemble(root, write=True) == ["docs/results.md"]
    assert (root / "docs" / "results.md").read_text() == (
        "Before.\n\n<!-- table: labels -->\n\n| a |\n|---|\n| 1 |\n\n"
        "*Made by `python make labels`; seeds 0, 1; CPU.*\n\n<!-- end of table -->\n\nAfter.\n"
    )
    assert script.assemble(root, write=True) == []
    write_table(root, "labels", "| a |\n|---|\n| 2 |", seeds=[0, 1])
    assert script.assemble(root, write=False) == ["docs/results.md"]


def test_a_missing_table_is_named_with_its_command_and_no_page_changes(root, script):
    (root / "README.md").write_text(place("default-mars"))
    write_table(root, "default-mars", "| a |")
    with pytest.raises(script.PageError) as caught:
        script.assemble(root, write=True)
    assert str(caught.value) == (
        f"Tables are missing in {root / 'docs' / 'results'}. These commands make them:\n"
        "  python pipelines/study.py configs/studies/default_labels.yaml --fragment labels --classes    # labels"
    )
    assert (root / "README.md").read_text() == place("default-mars")


def test_a_place_without_end_and_one_of_an_unknown_table_are_refused(script):
    with pytest.raises(script.PageError, match="found 3 such lines, of which 2 form pairs"):
        script.places("page.md", place("labels") + "\n<!-- table: labels -->\n")
    with pytest.raises(script.PageError, match=r"^page.md: expected a table of .*; found 'method'. Correct the name.$"):
        script.places("page.md", place("method"))


def test_an_empty_table_is_refused(root, script):
    write_table(root, "labels", " ")
    with pytest.raises(script.PageError, match="expected a table, found an empty file"):
        script.assemble(root, write=True)


def scene(*, labels=("labels",), encoder="a", scores=((10, 20), (30, 40), (50, 60))):
    rows = [
        {"method": method, "labels": kind, "from": source, "miou_same_pixels": [v + extra for v in values]}
        for method, extra in (("geocrodino", 0), ("forest", 1))
        for kind in labels
        for source, values in zip(("image", "heights", "both"), scores, strict=True)
    ]
    training = {"epochs": 3, "steps_per_epoch": 4}
    return {
        "rows": rows,
        "settings": {"network": {"encoder": encoder}, "training": training},
        "device": "CPU",
    }


@pytest.fixture
def numbers(script):
    found = {name: scene() for name in script.SCENES}
    return {**found, "default-autzen": scene(labels=("labels", "hand points"))}


def test_the_summary_has_a_row_for_each_scene_and_kind_of_labels(script, numbers):
    assert script.summary_table(numbers) == [
        "| scene | image | heights | both | seeds |",
        "|---|---|---|---|---|",
        "| Autzen, dense labels | 15.0 ± 7.1 | 35.0 ± 7.1 | 55.0 ± 7.1 | 2 |",  # sd of two values: 10 / sqrt(2)
        "| Autzen, hand points | 15.0 ± 7.1 | 35.0 ± 7.1 | 55.0 ± 7.1 | 2 |",
        "| Zion | 15.0 ± 7.1 | 35.0 ± 7.1 | 55.0 ± 7.1 | 2 |",
        "| Mars | 15.0 ± 7.1 | 35.0 ± 7.1 | 55.0 ± 7.1 | 2 |",
        "| Generated town | 15.0 ± 7.1 | 35.0 ± 7.1 | 55.0 ± 7.1 | 2 |",
    ]


def test_scenes_of_different_networks_are_not_put_into_one_table(script, numbers):
    with pytest.raises(script.PageError, match="default-mars differ from default-autzen") as caught:
        script.summary_table({**numbers, "default-mars": scene(encoder="b")})
    assert str(caught.value).endswith("  python pipelines/real_scenes.py configs/mars.yaml")


def test_every_place_of_the_pages_is_known_and_every_command_names_files_that_exist(script):
    placed = {name for page in script.PAGES for name in script.places(page, (ROOT / page).read_text(encoding="utf-8"))}
    assert placed == {*script.COMMANDS, *script.COMBINED}
    for command in script.COMMANDS.values():
        python, *words = shlex.split(command)
        assert python == "python"
        for word in words:
            if "/" in word:
                assert (ROOT / word).exists(), command


def test_a_fragment_names_no_folder_of_the_machine(fragments, tmp_path):
    given = [str(ROOT / "pipelines" / "study.py"), "plan.yaml", "--out", "/x/y", "--fragments=/z", "--seeds", "0", "1"]
    assert fragments.command_line(given) == "python pipelines/study.py plan.yaml --seeds 0 1"
    given = [
        str(ROOT / "benchmarks" / "accuracy.py"),
        "--geoai-python",
        "/x/bin/python",
        "--points=/y/z.tif",
        "--set",
        "a=b",
    ]
    assert fragments.command_line(given) == (
        "python benchmarks/accuracy.py --geoai-python python --points=z.tif --set a=b"
    )
    settings = {"data": {"labels": "/x/y/labels.tif", "files": ["/x/a.tif"]}, "share": 0.5, "name": "a/b"}
    assert fragments._without_folders(settings) == {
        "data": {"labels": "labels.tif", "files": ["a.tif"]},
        "share": 0.5,
        "name": "a/b",
    }
    fragments.write_fragment("t", ["| a |", ""], "python x", {"seeds": [0]}, tmp_path / "new")
    assert (tmp_path / "new" / "t.md").read_text() == "| a |\n"
    assert json.loads((tmp_path / "new" / "t.json").read_text())["command"] == "python x"
