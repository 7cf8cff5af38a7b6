"""A CSV file with a row for each scene, whose columns are keys of a scene."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from geocrodino.errors import ConfigError
from geocrodino.files.access import absence, exists, read_text
from geocrodino.spelling import did_you_mean

_TEXT = ("name", "optical", "elevation", "labels", "aoi", "ground", "aoi_crs", "crs", "height_unit", "split")
"""Keys whose cells are text as they are; other cells are read as YAML: ``[1, 2, 3]``, ``0.2``."""


class SceneRows(list[dict[str, Any]]):
    """The rows of a table of scenes, which messages name.

    Attributes:
        path: The table.
        lines: Number of the line of each row.
    """

    def __init__(self, path: Path, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        found = list(rows)
        super().__init__(row for _, row in found)
        self.path = path
        self.lines = [line for line, _ in found]

    def cell(self, keys: Sequence[int | str]) -> str | None:
        """Say where a value of the configuration stands in the table.

        Args:
            keys: The keys that lead to the value.

        Returns:
            Its line and column; None if it does not stand in the table.
        """
        match keys:
            case ("data", "scenes", int(row), *inner) if inner:
                return f"line {self.lines[row]}: {'.'.join(map(str, inner))}"
        return None


def read_scene_table(path: Path) -> SceneRows:
    """Read a table of scenes.

    Args:
        path: CSV file, UTF-8, with a heading; cells are separated by commas, semicolons or tabs. A column is a key of a
            scene, or ``rasters.`` and the name of a modality; an empty cell is a key that is not given.

    Returns:
        The keys and values of each row, not yet checked; names of files are as they stand there.

    Raises:
        ConfigError: If the file is missing, is no text, has no row, a column is no key of a scene, or a row differs
            from the heading in its cells.
        AccessError: If the operating system does not let it be read.
    """
    if not exists(path):
        raise ConfigError(f"data.scenes: {path}: {absence(path)}. Expected a CSV file with a row for each scene.")
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"data.scenes: {path}: cannot be read as text ({error}). Expected UTF-8.") from error
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=max(",;\t", key=first.count))
    _require_keys(path, reader.fieldnames or ())
    scenes = SceneRows(path, ((reader.line_num, _scene(path, reader.line_num, row)) for row in reader))
    if not scenes:
        raise ConfigError(f"data.scenes: {path}: expected a heading and a row for each scene, found no row.")
    return scenes


def _require_keys(path: Path, columns: Iterable[str]) -> None:
    """Refuse columns that are no keys of a scene; a file whose first row holds none has no heading."""
    from geocrodino.settings.scenes import SceneConfig  # imports pydantic

    keys = list(SceneConfig.model_fields)
    unknown = [column for column in columns if column.strip().partition(".")[0] not in keys]
    if not unknown:
        return
    if len(unknown) == len(list(columns)):
        raise ConfigError(
            f"data.scenes: {path}: line 1: expected a heading of keys of a scene, such as name, optical, elevation, "
            f"labels, split; found {', '.join(unknown)}."
        )
    name = unknown[0].strip()
    raise ConfigError(
        f"data.scenes: {path}: line 1: the column {name!r} is no key of a scene. Expected one of {', '.join(keys)}."
        f"{did_you_mean(name, keys)}"
    )


def _scene(path: Path, line: int, row: dict[Any, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ConfigError(f"data.scenes: {path}: line {line}: expected as many cells as the heading has columns.")
    values: dict[str, Any] = {}
    for column, cell in row.items():
        text = cell.strip()
        if not text:
            continue
        key, _, inner = column.strip().partition(".")
        try:
            value = text if key in _TEXT or key == "rasters" else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"data.scenes: {path}: line {line}: {column}: cannot be read ({error}).") from error
        if inner:
            values.setdefault(key, {})[inner] = value
        else:
            values[key] = value
    return values
