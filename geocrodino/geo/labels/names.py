"""Classes that labels name themselves, and classes of a map or a configuration that are matched by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import LabelError
from geocrodino.phrases import listed
from geocrodino.settings.classes import IGNORE_INDEX, UNKNOWN_INDEX, ClassScheme, unnamed
from geocrodino.settings.labels import plain_word
from geocrodino.spelling import did_you_mean

MOST_CLASSES = 254
"""Classes that a map can hold; the value 255 means that there is none."""


def classes_by_name(named: Sequence[tuple[Sequence[str], Sequence[str | None], bool]]) -> ClassScheme:
    """Make the classes of labels that name them.

    Args:
        named: For the labels of each scene: names, their colours or None, and whether the names have an order, that of
            a table.

    Returns:
        Each name once, whatever its capitals: in the order of the tables, then in alphabetical order.

    Raises:
        LabelError: If there are fewer than two names, or more than a map can hold.
    """
    names: dict[str, str] = {}
    colours: dict[str, str] = {}
    for each, shown, ordered in sorted(named, key=lambda scene: not scene[2]):
        for position, name in enumerate(each):
            names.setdefault(plain_word(name), name)
            if position < len(shown) and (colour := shown[position]) is not None:
                colours.setdefault(plain_word(name), colour)
        if not ordered:
            first = {plain_word(n) for scene in named if scene[2] for n in scene[0]}
            rest = sorted((word for word in names if word not in first), key=lambda word: (word, names[word]))
            names = {word: names[word] for word in (*(w for w in names if w in first), *rest)}
    if not 2 <= len(names) <= MOST_CLASSES:
        found = f"{len(names)}: {listed(names.values())}" if names else "none"
        raise LabelError(f"labels: expected from 2 to {MOST_CLASSES} classes, found {found}.")
    return ClassScheme.from_names(names.values(), [colours.get(word) for word in names])


def indices_by_name(
    scheme: ClassScheme,
    names: Sequence[str],
    positions: NDArray[np.float32],
    valid: NDArray[np.bool_],
    source: str,
    unchecked: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Convert positions in a list of names to indices of the classes of the same name.

    Args:
        scheme: The classes.
        names: The names.
        positions: Position of the name of each pixel, float32, shape (H, W).
        valid: False where there is no label, bool, shape (H, W).
        source: Name of the labels, for the message.
        unchecked: Pixels whose name may be that of no class, bool, shape (H, W); they become ``UNKNOWN_INDEX`` then.
            None: no pixel.

    Returns:
        Class indices, uint8, shape (H, W), 255 where there is no label.

    Raises:
        LabelError: If the name of another valid pixel is that of no class, or two classes are one word.
    """
    places: dict[str, int] = {}
    for index, name in enumerate(scheme.names):
        if (first := places.setdefault(plain_word(name), index)) != index:
            raise LabelError(
                f"classes: {scheme.names[first]} and {name} are one word for {source}, whose labels are words: "
                "capitals, underscores and blanks make no other class.\nName this class once."
            )
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[: len(names)] = [places.get(plain_word(name), UNKNOWN_INDEX) for name in names]
    indices = table[np.where(valid, positions, IGNORE_INDEX).astype(np.uint8)]
    checked = valid if unchecked is None else valid & ~unchecked
    unknown = np.unique(positions[checked & (indices == UNKNOWN_INDEX)])
    if unknown.size and len(scheme) < UNKNOWN_INDEX:
        raise LabelError(_outside([names[int(v)] for v in unknown], scheme, source))
    return indices


class Legend(NamedTuple):
    """What a label file calls its class values.

    Attributes:
        file: Name of the file.
        names: Name of each class value that has one, after the rules for values.
        values: Class values that occur in the file.
        rules: Class value of values of the file, as the user gives them.
    """

    file: str
    names: Mapping[int, str]
    values: Collection[int]
    rules: Mapping[int, int]


def require_same_names(legends: Sequence[Legend]) -> None:
    """Require that no label file gives a class value another name than the files before it.

    Class values that the user's rules produce are not compared: the user has said what they mean.

    Args:
        legends: What each file calls its values.

    Raises:
        LabelError: If a file does, for a value that occurs in it.
    """
    first: dict[int, str] = {}
    files: dict[int, str] = {}
    for each in legends:
        given = set(each.rules.values())
        own = {value: each.names.get(value, unnamed(value)) for value in sorted(each.values) if value not in given}
        if differing := differing_values(own, first):
            value = differing[0]
            moves = moves_by_name(own, first)
            rules = ", ".join(f"{a}: {b}" for a, b in sorted({**each.rules, **moves}.items()))
            advice = f"`label_values: {{{rules}}}`" if moves else "`label_values`"
            raise LabelError(
                f"{each.file}: names the value {value} {own[value]!r}, but {files[value]} names it {first[value]!r}.\n"
                f"Give the scene of {each.file} {advice}, so that a value is one class in all files. Where these "
                "are two names of one class, list value and name of each class under `classes`."
            )
        for value, name in each.names.items():
            if value not in given and value not in first and plain_word(name) != unnamed(value):
                first[value], files[value] = name, each.file


def same_name(value: int, one: str, other: str) -> bool:
    """Find out whether two names of a value can stand for one class.

    Args:
        value: The value.
        one: A name.
        other: Another one.

    Returns:
        Whether they are one word, or one of them only repeats the value.
    """
    words = {plain_word(one), plain_word(other)}
    return len(words) == 1 or unnamed(value) in words


def differing_values(names: Mapping[int, str], others: Mapping[int, str]) -> list[int]:
    """Find the values that have different names.

    Args:
        names: Names by value.
        others: Names of the same values elsewhere.

    Returns:
        Values that have a name in both, and not the same one, in the order of ``names``.
    """
    return [value for value, name in names.items() if value in others and not same_name(value, name, others[value])]


def moves_by_name(names: Mapping[int, str], others: Mapping[int, str]) -> dict[int, int]:
    """Find the values that the same names have elsewhere.

    Args:
        names: Names by value.
        others: Names elsewhere by value.

    Returns:
        The value elsewhere of each value that is another one there; empty if a name is missing there, or if different
        names would get one value.
    """
    places: dict[str, int] = {}
    for value, name in others.items():
        places.setdefault(plain_word(name), value)
    moves: dict[int, int] = {}
    for value, name in names.items():
        there, word = others.get(value, ""), plain_word(name)
        place = value if plain_word(there) == word else places.get(word)
        if place is None and not same_name(value, name, there):
            return {}
        moves[value] = value if place is None else place
    if len(set(moves.values())) < len(set(map(plain_word, names.values()))):
        return {}
    return {value: place for value, place in moves.items() if value != place}


def _outside(unknown: Sequence[str], scheme: ClassScheme, source: str) -> str:
    """Describe labels whose names are those of no class."""
    hint = did_you_mean(unknown[0], scheme.names)
    return (
        f"{source} holds labels outside the classes: {listed(unknown, most=8)}. Expected: {listed(scheme.names, 12)}."
        f"{hint}\nIn the configuration, write them under a class in `data.label_rules.table`, or under "
        "`data.label_rules.ignore`."
    )
