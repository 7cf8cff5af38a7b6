"""List files that name the scenes of each split, as data sets bring them."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geocrodino.errors import ConfigError
from geocrodino.files.access import absence, exists, read_text
from geocrodino.geo.areas.splits import SPLITS
from geocrodino.phrases import listed
from geocrodino.settings.splits import SceneSplit
from geocrodino.spelling import did_you_mean

_TABLES = {".csv", ".tsv"}
_MOST_FOLDERS = 4  # last folders of a path by which a list may name a scene
_SPLIT_WORDS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True)
class _Entry:
    """A name in a list, and where it stands."""

    text: str
    line: int


def read_lists(
    lists: Mapping[SceneSplit, Path], scenes: Sequence[tuple[str, Sequence[str]]], column: str | None = None
) -> dict[int, SceneSplit]:
    """Read which scenes belong to each split.

    A list is a text file with one name a line, or several with commas between them; text after ``#`` is skipped. Of a
    CSV file, the given column counts, or the first one that names scenes; if it has a column of splits too, only the
    rows of its own split count, so that one file can be named for all splits.

    An entry names a scene by its name, by the name of one of its files with or without ending, by the end of the path
    of one, or by a folder: then all scenes whose files lie in it. Digits compare as numbers: ``2_10`` is ``02_10``.

    Args:
        lists: File of each split.
        scenes: Name and files of each scene.
        column: Column of the names, for CSV files.

    Returns:
        Split of each listed scene by its number, from 0.

    Raises:
        ConfigError: If a file cannot be read or has no such column, names no scene, or a scene is in two lists.
        AccessError: If the operating system denies access to a file.
    """
    known = _Names(scenes)
    found: dict[int, SceneSplit] = {}
    for split, path in lists.items():
        entries = _entries(path, split, column, known)
        unknown = [entry for entry in entries if not known.find(entry.text)]
        if unknown:
            raise _unknown_names(path, unknown, len(entries), known)
        if not entries:
            raise ConfigError(f"{path}: expected names of scenes of the split {split}, found none.")
        for entry in entries:
            for scene in known.find(entry.text):
                if found.setdefault(scene, split) != split:
                    raise ConfigError(
                        f"{path}: line {entry.line}: scene {scenes[scene][0]} is in the list of {found[scene]} too. "
                        "What is learned from must not be reported on: name each scene in one list."
                    )
    return found


def _unknown_names(path: Path, unknown: Sequence[_Entry], entries: int, known: _Names) -> ConfigError:
    shown = [f"line {e.line} {e.text}{_hint(e.text, known)}" for e in unknown]
    names = "names" if entries > 1 else "name"
    match = "matches" if len(unknown) == 1 else "match"
    return ConfigError(
        f"{path}: {len(unknown)} of {entries} {names} {match} no scene: {listed(shown, 3)}. Expected names of scenes "
        f"or of their files, such as {listed(known.examples or known.stems, 3)}.\n"
        "Correct or remove these lines, or add the scenes."
    )


def _hint(text: str, known: _Names) -> str:
    stem = PurePosixPath(text.replace("\\", "/")).stem
    if stem in known.stems:
        return " (a name of several files: add the folder, or the ending)"
    suggestion = did_you_mean(stem, known.stems).strip().rstrip("?")
    return f" ({suggestion[0].lower()}{suggestion[1:]}?)" if suggestion else ""


class _Names:
    """The scenes by everything that a list may call them."""

    def __init__(self, scenes: Sequence[tuple[str, Sequence[str]]]) -> None:
        self.examples = [name for name, _ in scenes if name]
        of_files = (PurePosixPath(file.replace("\\", "/")).stem for _, own in scenes for file in own)
        self.stems = list(dict.fromkeys([*self.examples, *of_files]))
        self._own = {name: number for number, (name, _) in enumerate(scenes) if name}
        self._exact: defaultdict[str, set[int]] = defaultdict(set)
        self._alike: defaultdict[str, set[int]] = defaultdict(set)
        self._folders: defaultdict[str, set[int]] = defaultdict(set)
        for number, (name, files) in enumerate(scenes):
            for key in (name, *(key for file in files for key in _keys(file))):
                self._exact[key].add(number)
                self._alike[_normal(key)].add(number)
            for file in files:
                for folder in _folders(file):
                    self._folders[folder].add(number)

    def find(self, text: str) -> set[int]:
        """The scenes that an entry names; none if it is unknown, or a file name that several scenes have."""
        plain = text.replace("\\", "/").removeprefix("./").rstrip("/")
        if plain in self._own:
            return {self._own[plain]}
        for key in (plain, *_endings(plain)):  # a list may give longer paths than this computer has
            for table, name in ((self._exact, key), (self._alike, _normal(key))):
                if len(table.get(name, ())) == 1:
                    return table[name]
            if key in self._folders:
                return self._folders[key]
        return set()


def _normal(text: str) -> str:
    return re.sub(r"\d+", lambda digits: str(int(digits[0])), text.lower())


def _keys(file: str) -> Iterator[str]:
    """Name of a file, and ends of its path, each with and without the ending."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    for count in range(1, min(len(parts), 1 + _MOST_FOLDERS) + 1):
        path = "/".join(parts[-count:])
        yield path
        yield path.rpartition(".")[0] or path


def _endings(plain: str) -> Iterator[str]:
    """Shorter and shorter ends of a path, at least the name with one folder."""
    parts = plain.split("/")
    yield from ("/".join(parts[start:]) for start in range(1, len(parts) - 1))


def _folders(file: str) -> Iterator[str]:
    """Every run of folders in the last folders of a path."""
    parts = PurePosixPath(file.replace("\\", "/")).parts[:-1][-_MOST_FOLDERS:]
    for start in range(len(parts)):
        for stop in range(start + 1, len(parts) + 1):
            yield "/".join(parts[start:stop])


def _entries(path: Path, split: str, column: str | None, known: _Names) -> list[_Entry]:
    if not exists(path):
        raise ConfigError(
            f"data.splits.lists.{split}: {path}: {absence(path)}. Check the path; relative ones "
            "start at the folder of the file that names them."
        )
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"data.splits.lists.{split}: {path}: cannot be read as text ({error}). Expected UTF-8."
        ) from error
    if column is not None or path.suffix.lower() in _TABLES:
        return _of_table(path, text, split, column, known)
    found = []
    for line, raw in enumerate(text.splitlines(), start=1):
        words = _unquoted(raw.partition("#")[0].strip())
        if not words:
            continue
        if known.find(words):
            found.append(_Entry(words, line))
            continue
        found += [_Entry(word, line) for word in _words(words, known)]
    return found


def _unquoted(line: str) -> str:
    """A line without the quotes around it, as shells write names with blanks."""
    quoted = len(line) > 2 and line[0] == line[-1] and line[0] in "\"'" and line.count(line[0]) == 2
    return line[1:-1] if quoted else line


def _words(text: str, known: _Names) -> list[str]:
    """The names of a line: one of an image and its mask, which are of one scene or of which the mask is unknown."""
    parted = text.split()
    if len(parted) > 1 and not re.search(r"[,;]", text) and known.find(parted[0]):
        scenes = {frozenset(found) for word in parted if (found := known.find(word))}
        return parted[:1] if len(scenes) == 1 else parted
    pieces = [piece.strip() for piece in re.split(r"[,;]", text) if piece.strip()]
    # A name may hold blanks; what is no name may be several.
    return [word for piece in pieces for word in ([piece] if known.find(piece) else piece.split())]


def _of_table(path: Path, text: str, split: str, column: str | None, known: _Names) -> list[_Entry]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), start=1) if any(row[1])]
    if not rows:
        return []
    header = [cell.strip() for cell in rows[0][1]]
    if column is not None and column not in header:
        raise ConfigError(
            f"{path}: data.splits.column: no column {column!r}. Expected one of {', '.join(header)}."
            f"{did_you_mean(column, header)}"
        )
    has_header = column is not None or not any(known.find(cell) for cell in header)
    body = rows[1:] if has_header else rows
    if column is None:
        hits = [
            sum(bool(known.find(cell.strip())) for _, row in body for cell in row[i : i + 1])
            for i in range(len(header))
        ]
        place = hits.index(max(hits))
    else:
        place = header.index(column)
    names = _column_of_splits(header, body, place)
    wanted = [
        (line, row)
        for line, row in body
        if len(row) > place and row[place].strip() and (names is None or _split_word(row[names]) == split)
    ]
    return [_Entry(row[place].strip(), line) for line, row in wanted]


def _column_of_splits(header: Sequence[str], body: Sequence[tuple[int, list[str]]], place: int) -> int | None:
    """Number of a column that holds nothing but names of splits."""
    for number in range(len(header)):
        words = {_split_word(row[number]) for _, row in body if len(row) > number}
        if number != place and words and words <= set(SPLITS) and all(len(row) > number for _, row in body):
            return number
    return None


def _split_word(text: str) -> str:
    word = text.strip().lower()
    return _SPLIT_WORDS.get(word, word)
