"""Tiles of one scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WriteTile = Callable[..., Path]


@pytest.fixture
def write_tile(write_raster: Callable[..., Path]) -> WriteTile:
    """Write a raster whose upper left corner lies at a row and a column of the scene, pixels of 1 m."""

    def write(name: str, values: Any, row: float = 0, col: float = 0, **options: Any) -> Path:
        return write_raster(name, values, origin=(400_000.0 + col, 5_000_000.0 - row), **options)

    return write
