"""The public names."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import geocrodino


def test_every_public_name_is_there():
    for name in geocrodino.__all__:
        assert getattr(geocrodino, name).__name__ == name


def test_the_version_is_that_of_the_installed_package():
    assert geocrodino.__version__ == version("geocrodino")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^No geocrodino attribute prodict$"):
        _ = geocrodino.prodict


def test_importing_does_no_work():
    code = "import sys, geocrodino; print(sorted({'torch', 'rasterio', 'lightning', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
