"""The notebooks run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_is_kept_without_outputs(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [c.outputs for c in cells] == [[]] * len(cells)


@pytest.mark.timeout(600)
def test_first_map_runs_on_a_small_town(tmp_path):
    book = nbformat.read(NOTEBOOKS / "01_first_map.ipynb", as_version=4)
    small = 'folder = "town"\nsize_m = 256\nepochs, steps = 1, 2\nimport torch\ntorch.set_num_threads(1)'
    [parameters] = [c for c in book.cells if "parameters" in c.metadata.get("tags", [])]
    parameters.source = small
    NotebookClient(book, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    table = book.cells[-2].outputs[-1]["data"]["text/plain"]
    assert "mean IoU" in table
    assert "building" in table
    assert (tmp_path / "town" / "optical.classes.tif").exists()
    assert (tmp_path / "town" / "dsm.classes.tif").exists()
