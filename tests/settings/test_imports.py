"""Settings load without the libraries that compute."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import geocrodino.settings

HEAVY = {"torch", "lightning", "kornia", "torchgeo", "timm", "scipy", "rasterio", "geopandas", "matplotlib"}
MODULES = [found.name for found in pkgutil.iter_modules(geocrodino.settings.__path__, "geocrodino.settings.")]


@pytest.mark.parametrize("module", MODULES)
def test_settings_need_no_heavy_library(module):
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
