"""Tiles of a data set that belong together by their names: patterns with named parts in braces.

``dsm/dsm_{row}_{col}.tif`` stands for all files of that form. Files of two patterns are of one tile where the parts of
the same name agree; digits are compared as numbers, so ``02`` is ``2``. No raster is opened here.
"""

from __future__ import annotations

import glob
import itertools
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geocrodino.errors import ConfigError, LeftOutWarning
from geocrodino.files.access import entries, exists, is_folder
from geocrodino.files.names import is_gdal_name, is_url
from geocrodino.phrases import listed

Partial = Literal["refuse", "keep", "leave_out"]
"""What happens to tiles that lack a file."""

_PART = re.compile(r"\{([A-Za-z_]\w*)\}")
_TOKEN = re.compile(r"\{([A-Za-z_]\w*)\}|\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)
_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_ENDLESS = re.compile(r"\}[*{]|\*\{")
_DIGITS = re.compile(r"[0-9]+")
_PIECE = re.compile(r"[0-9]+|[A-Za-z]+|.", re.DOTALL)

_Key = tuple[str, ...]
"""Values of named parts, as they are compared."""


@dataclass(frozen=True)
class Tile:
    """The files of one tile.

    Attributes:
        name: Its parts as the first of its files writes them, joined by ``_``: ``2_10``.
        files: Path of each role that has a file.
    """

    name: str
    files: dict[str, str]


@dataclass(frozen=True)
class _Found:
    """The files of a pattern: path and written parts of each, by what is compared."""

    pattern: str
    parts: tuple[str, ...]
    files: dict[_Key, tuple[str, str]]


def has_parts(name: str | Path) -> bool:
    """Find out whether a name is a pattern with named parts.

    Args:
        name: A name of a raster.

    Returns:
        Whether it holds a part in braces; False for URLs, names in archives, and a file that has just this name.
    """
    text = str(name)
    if _PART.search(text) is None or is_url(text) or is_gdal_name(text):
        return False
    return not exists(text)


def matching_files(pattern: str, paths: Iterable[str]) -> list[str]:
    """Choose the files that a pattern matches.

    Args:
        pattern: A path with named parts in braces, see `match_tiles`.
        paths: The files.

    Returns:
        Those that match, in the same order.
    """
    match = _expression(pattern)
    return [path for path in paths if match.fullmatch(path)]


def match_tiles(
    patterns: Mapping[str, str], partial: Partial = "refuse", *, among: Mapping[str, Iterable[str]] | None = None
) -> tuple[Tile, ...]:
    """Join the files of several patterns to tiles.

    The patterns with the most parts make the tiles. A pattern that lacks some of their parts gives one file to several
    tiles: one surface model for the images of several days.

    Args:
        patterns: Pattern of each role: a path with named parts in braces, which stand for one character or more but no
            slash. ``*``, ``?``, ``[]`` and ``**`` have their usual meaning. A part that is there twice has one value.
        partial: What happens to tiles that lack the file of a role: an error, kept without it, or left out.
        among: The files of each role that may match; None: all that are there.

    Returns:
        The tiles in the order of their names, numbers by size.

    Raises:
        ConfigError: If a pattern matches nothing, two files of a pattern are of one tile, patterns name different
            parts, no tile is complete, or a tile lacks a file although ``partial`` is ``refuse``.
        AccessError: If the operating system does not let a name be looked up.

    Warns:
        LeftOutWarning: If tiles are left out.
    """
    found = {
        role: _find(role, pattern, _matching(pattern) if among is None else among[role])
        for role, pattern in patterns.items()
    }
    main = max(found, key=lambda role: len(set(found[role].parts)))  # the first of those with the most
    parts = found[main].parts
    for role, each in found.items():
        _require_known_parts(role, each, main, parts)
    whole = [role for role, each in found.items() if set(each.parts) == set(parts)]
    keys: dict[_Key, str] = {}
    for role in whole:
        for key, (_, written) in found[role].files.items():
            keys.setdefault(_reordered(key, found[role].parts, parts), written)
    tiles = {
        key: {
            role: file[0]
            for role, each in found.items()
            if (file := each.files.get(_reordered(key, parts, each.parts))) is not None
        }
        for key in sorted(keys, key=_by_size)
    }
    lacking = {role: [key for key, files in tiles.items() if role not in files] for role in found}
    if any(lacking.values()):
        _judge_partial(found, keys, lacking, main, partial)
    if partial == "leave_out":
        tiles = {key: files for key, files in tiles.items() if len(files) == len(found)}
    names = _names(keys, tiles)
    return tuple(Tile(names[key], files) for key, files in tiles.items())


def guess_patterns(files: Mapping[str, Sequence[str]]) -> dict[str, str] | None:
    """Guess patterns that join files by name: what all names of a role share is fixed, what differs is the tile.

    Args:
        files: The files of each role, two or more.

    Returns:
        A pattern for each role, or None if the files of different roles have no parts in common.
    """
    best: tuple[int, dict[str, str]] | None = None
    # What all names share may hold a number that belongs to the tile, where other roles have more tiles.
    for before, after in ((0, 0), (1, 0), (0, 1), (1, 1)):
        cuts = {role: _cut(names, before, after) for role, names in files.items()}
        patterns = {role: cut[0] for role, cut in cuts.items() if cut is not None}
        if len(patterns) < len(files):
            continue
        keys = [set(cut[1]) for cut in cuts.values() if cut is not None]
        if any(len(each) < len(files[role]) for role, each in zip(files, keys, strict=True)):
            continue  # two files would be of one tile
        shared = len(set.intersection(*keys))
        if shared and (best is None or shared > best[0]):
            best = shared, patterns
    return None if best is None else best[1]


# --- files of one pattern -------------------------------------------------------------------------------------------


def _matching(pattern: str) -> list[str]:
    return glob.glob(_PART.sub("*", pattern), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern


def _find(role: str, pattern: str, paths: Iterable[str]) -> _Found:
    if _ENDLESS.search(pattern):
        raise ConfigError(
            f"data.{role}: {pattern}: a part in braces has no end where * or another part follows or precedes it.\n"
            "Write the text between them, for instance {row}_{col}."
        )
    match, parts = _expression(pattern), tuple(dict.fromkeys(_PART.findall(pattern)))
    files: dict[_Key, tuple[str, str]] = {}
    for path in sorted(paths):
        values = match.fullmatch(path)
        if values is None:
            continue
        written = [values[part] for part in parts]
        key, name = tuple(map(_as_compared, written)), "_".join(written)
        if key in files:
            raise ConfigError(
                f"data.{role}: {files[key][0]} and {path} are both tile {files[key][1]}.\n"
                "Correct the pattern, so that each tile has one file."
            )
        files[key] = path, name
    if not files:
        raise ConfigError(_nothing_found(role, pattern))
    return _Found(pattern, parts, files)


def _expression(pattern: str) -> re.Pattern[str]:
    seen: set[str] = set()
    written = []
    for token in _TOKEN.finditer(pattern):
        text, part = token.group(), token.group(1)
        if part is not None:
            written.append(f"(?P={part})" if part in seen else f"(?P<{part}>[^/]+?)")
            seen.add(part)
        elif text in _WILDCARDS:
            written.append(_WILDCARDS[text])
        elif text.startswith("[") and len(text) > 1:
            written.append(_one_of(text[1:-1]))
        else:
            written.append(re.escape(text))
    return re.compile("".join(written), re.DOTALL)


def _one_of(inner: str) -> str:
    """The expression of a pattern's ``[inner]``."""
    negated = inner.startswith("!")
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[1:] if negated else inner)
    return f"[{'^/' if negated else ''}{escaped}]"


def _as_compared(value: str) -> str:
    return _DIGITS.sub(lambda digits: str(int(digits.group())), value)


def _by_size(key: _Key) -> list[list[tuple[int, int, str]]]:
    """Order of tiles: numbers by size, before text."""
    return [[(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in _PIECE.findall(value)] for value in key]


def _reordered(key: _Key, parts: Sequence[str], wanted: Sequence[str]) -> _Key:
    values = dict(zip(parts, key, strict=True))
    return tuple(values[part] for part in wanted)


def _nothing_found(role: str, pattern: str) -> str:
    """The message for a pattern without files, with what is there instead."""
    folder = Path(*itertools.takewhile(lambda part: not set(part) & set("*?[{"), Path(pattern).parts))
    if not is_folder(folder):
        return f"data.{role}: {pattern}: no file matches the pattern; there is no folder {folder}. Check the path."
    there = [entry.name for entry in entries(folder) if not entry.name.startswith(".")]
    found = f"The folder {folder} holds {listed(there, 3)}" if there else f"The folder {folder} is empty"
    return f"data.{role}: {pattern}: no file matches the pattern. {found}.\nCorrect the pattern."


# --- tiles of several patterns --------------------------------------------------------------------------------------


def _require_known_parts(role: str, found: _Found, main: str, parts: Collection[str]) -> None:
    unknown = [part for part in found.parts if part not in parts]
    if unknown:
        raise ConfigError(
            f"data.{role}: {found.pattern}: expected the named parts of data.{main} ({_braced(parts)}), found "
            f"{_braced(unknown)}.\nGive what is the same in both names the same name."
        )


def _judge_partial(
    found: Mapping[str, _Found],
    names: Mapping[_Key, str],
    lacking: Mapping[str, Sequence[_Key]],
    main: str,
    partial: Partial,
) -> None:
    """Refuse tiles without a file, or tell of those that are left out."""
    complete = len(names) - len({key for keys in lacking.values() for key in keys})
    if complete == 0 and partial != "keep":
        shown = "; ".join(f"data.{role} has {listed(_written(each), 3)}" for role, each in found.items())
        raise ConfigError(
            f"data.{main}: {found[main].pattern}: no tile has a file of every pattern: {shown}.\n"
            "Correct the patterns, so that the named parts hold the same text."
        )
    role, keys = next((role, keys) for role, keys in lacking.items() if keys)
    if partial == "refuse":
        others = [other for other in found if other != role and not set(keys) & set(lacking[other])]
        of = f"data.{others[0]}" if others else "the other patterns"
        raise ConfigError(
            f"data.{role}: {found[role].pattern}: expected a file for each of the {len(names)} tiles of {of}, found "
            f"none for {len(keys)}: {listed(names[key] for key in keys)}.\n"
            "Add them, correct the pattern, or set `data.partial`: keep or leave_out."
        )
    if partial == "leave_out":
        left = [names[key] for key in names if any(key in each for each in lacking.values())]
        warnings.warn(
            f"data.partial: {len(left)} of {len(names)} tiles are left out, because they lack a file: {listed(left)}.",
            LeftOutWarning,
            stacklevel=3,
        )


def _names(written: Mapping[_Key, str], tiles: Iterable[_Key]) -> dict[_Key, str]:
    """A name of its own for each tile: parts that hold ``_`` themselves may give the same name."""
    names = {key: written[key] for key in tiles}
    return names if len(set(names.values())) == len(names) else {key: ",".join(key) for key in names}


def _written(found: _Found) -> list[str]:
    return [written for _, written in found.files.values()]


def _braced(parts: Iterable[str]) -> str:
    return ", ".join(f"{{{part}}}" for part in parts)


# --- guesses --------------------------------------------------------------------------------------------------------


def _cut(names: Sequence[str], before: int, after: int) -> tuple[str, list[_Key]] | None:
    """The pattern of some files, and what is compared of each; None if they do not lie alike in folders.

    ``before`` and ``after`` numbers that all names share, in front of and behind what differs, are of the tile too.
    """
    paths = [name.split("/") for name in names]
    if len({len(path) for path in paths}) != 1 or len(paths) < 2:
        return None
    columns = list(zip(*paths, strict=True))
    differing = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    if not differing:
        return None
    written = [glob.escape(column[0]) for column in columns]
    values = []
    for i in differing:
        label = _label(differing, i)
        head, middles, tail = _differing_part(columns[i], before, after)
        written[i] = f"{glob.escape(head)}{{{label}}}{glob.escape(tail)}"
        values.append([_as_compared(middle) for middle in middles])
    return "/".join(written), list(zip(*values, strict=True))


def _label(differing: Sequence[int], position: int) -> str:
    if position == differing[-1]:
        return "tile"
    number = differing.index(position) + 1
    return "folder" if number == 1 else f"folder{number}"


def _differing_part(texts: Sequence[str], before: int, after: int) -> tuple[str, list[str], str]:
    """Split texts into what all begin with, what differs, and what all end with; numbers and words stay whole."""
    pieces = [_PIECE.findall(text) for text in texts]
    shortest = min(map(len, pieces))
    start = _common(pieces, shortest - 1)
    stop = _common([each[::-1] for each in pieces], shortest - start - 1)
    start = _without_numbers(pieces[0][:start], before)
    stop = _without_numbers(pieces[0][::-1][:stop], after)
    middles = ["".join(each[start : len(each) - stop]) for each in pieces]
    return "".join(pieces[0][:start]), middles, "".join(pieces[0][len(pieces[0]) - stop :])


def _common(pieces: Sequence[Sequence[str]], most: int) -> int:
    """Number of pieces with which all begin, at most so many."""
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*pieces, strict=False))
    return min(len(list(same)), max(most, 0))


def _without_numbers(pieces: Sequence[str], count: int) -> int:
    """Length of a beginning that ends before the last ``count`` numbers."""
    numbers = [i for i, piece in enumerate(pieces) if piece.isdecimal()]
    return numbers[-count] if 0 < count <= len(numbers) else len(pieces)
