"""A configuration as commented YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geocrodino.errors import OutputError
from geocrodino.files.access import exists
from geocrodino.files.names import in_archive, is_gdal_name, is_remote

_WIDTH = 116

PATHS = ("optical", "elevation", "ground", "labels", "aoi")
"""Keys of a scene that name files."""


@dataclass(frozen=True)
class Entry:
    """A key of a section.

    Attributes:
        key: Its name.
        value: Its value; of ``scenes``, ``classes`` and sections, see `Block`.
        why: The reason for it, for people.
        active: Whether it counts; otherwise it is written as a comment.
    """

    key: str
    value: Any
    why: str = ""
    active: bool = True


@dataclass(frozen=True)
class Block:
    """A section of a configuration.

    Attributes:
        key: Its name.
        entries: Its keys.
        items: Its items, where it is a list: keys of each.
        why: The reason for it.
    """

    key: str
    entries: Sequence[Entry | Block] = ()
    items: Sequence[Sequence[Entry]] = ()
    why: str = ""


def as_text(head: Sequence[str], blocks: Sequence[Block], folder: Path) -> str:
    """Write a configuration.

    Args:
        head: Lines of comment at the beginning.
        blocks: The sections.
        folder: Folder of the file; paths below it are written relative to it.

    Returns:
        YAML.
    """
    lines = [f"# {line}" for line in head]
    for block in blocks:
        lines += _block(block, "", folder)
    return "\n".join(lines) + "\n"


def as_tree(blocks: Sequence[Block]) -> dict[str, Any]:
    """Take the values of a configuration.

    Args:
        blocks: The sections.

    Returns:
        Nested values, with the paths as they are.
    """
    return {block.key: _tree(block) for block in blocks}


def _tree(block: Block) -> Any:
    if block.items:
        return [{entry.key: entry.value for entry in item if entry.active} for item in block.items]
    found: dict[str, Any] = {}
    for each in block.entries:
        if isinstance(each, Block):
            found[each.key] = _tree(each)
        elif each.active:
            found[each.key] = each.value
    return found


def _block(block: Block, indent: str, folder: Path) -> list[str]:
    lines = _commented(f"{indent}{block.key}:", block.why, indent)
    inner = f"{indent}  "
    for each in block.entries:
        lines += _block(each, inner, folder) if isinstance(each, Block) else _entry(each, inner, folder)
    for item in block.items:
        if block.key == "scenes":
            for number, entry in enumerate(item):
                written = _entry(entry, "", folder)
                first = number == 0
                lines += [f"{inner}{'- ' if first else '  '}{line}" for line in written]
        else:
            values = {entry.key: entry.value for entry in item}
            why = next((entry.why for entry in item if entry.why), "")
            lines += _commented(f"{inner}- {flow(values)}", why, inner)
    return lines


def _entry(entry: Entry, indent: str, folder: Path) -> list[str]:
    value = _relative(entry.value, folder) if entry.key in PATHS else entry.value
    off = "" if entry.active else "# "
    if entry.active and isinstance(value, dict) and len(flow(value)) > _WIDTH - len(indent) - len(entry.key):
        return [*_commented(f"{indent}{entry.key}:", entry.why, indent), *_nested(value, f"{indent}  ")]
    return _commented(f"{indent}{off}{entry.key}: {flow(value)}", entry.why, indent, first=entry.key == "name")


def _nested(values: Mapping[str, Any], indent: str) -> list[str]:
    """Keys and values that are too long for one line."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and len(flow(value)) > _WIDTH - len(indent) - len(key):
            lines += [f"{indent}{flow(key)}:", *_nested(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{flow(key)}: {flow(value)}")
    return lines


def _commented(line: str, why: str, indent: str, *, first: bool = False) -> list[str]:
    """A line with its reason behind it, or above it where both are too long."""
    if not why:
        return [line]
    text = " ".join(why.split())
    together = f"{line}  # {text}"
    if len(together) <= _WIDTH or first:
        return [together]
    return [*_wrapped(text, indent), line]


def _wrapped(text: str, indent: str) -> list[str]:
    lines, line = [], f"{indent}#"
    for word in text.split(" "):
        if len(line) + len(word) + 1 > _WIDTH and line != f"{indent}#":
            lines.append(line)
            line = f"{indent}#"
        line += f" {word}"
    return [*lines, line]


def flow(value: Any) -> str:
    """Write a value in one line of YAML.

    Args:
        value: A value of a configuration.

    Returns:
        YAML, quoted where needed.
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _relative(value: Any, folder: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_relative(each, folder) for each in value]
    if not isinstance(value, str) or is_remote(value) or is_gdal_name(value) or in_archive(value) is not None:
        return value
    end = "/" if value.endswith("/") else ""
    base, path = os.path.abspath(folder), os.path.abspath(value)  # noqa: PTH100 - links stay as they were named
    inside = os.path.commonpath([base, path]) == base
    return (os.path.relpath(path, base) if inside else path) + end


def require_new(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a configuration.

    Args:
        path: The file to write.
        overwrite: Whether it may be replaced.

    Raises:
        OutputError: If it exists and may not, or its folder does not exist.
    """
    if exists(path) and not overwrite:
        raise OutputError(f"{path}: exists. Replace it with `overwrite=True`, or choose another name with `out`.")
    if not exists(path.absolute().parent):
        raise OutputError(f"{path}: there is no folder {path.absolute().parent}. Create it, or choose another name.")
