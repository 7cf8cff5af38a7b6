"""The column of an area of interest that says which split each polygon belongs to."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Sequence
from typing import Any, Literal, get_args

import geopandas as gpd
import pandas as pd

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.phrases import listed
from geocrodino.settings.splits import SPLIT_SYNONYMS

Split = Literal["train", "val", "test", "unlabelled"]
"""Polygons to train on, to choose weights on, to report on; and to learn from without their labels."""

SPLITS: tuple[Split, ...] = get_args(Split)

_NAMES = {
    "splits", "set", "sets", "subset", "subsets", "fold", "folds", "partition", "partitions", "dataset", "datasplit",
    "splitset", "splitname", "mlsplit", "mlset", "role", "usage", "use", "purpose", "phase", "sample",
}  # fmt: skip
"""Names, in lower case and without other characters, under which splits are written too."""


def split_name(text: str) -> str:
    """Read the name of a split.

    Args:
        text: A name, in any case; synonyms such as ``validation`` are understood.

    Returns:
        The name of the split; unknown words in lower case.

    Warns:
        AreaWarning: If a synonym is given.
    """
    word = text.strip().lower()
    if word in SPLIT_SYNONYMS:
        warnings.warn(f"The split {text!r} is read as {SPLIT_SYNONYMS[word]!r}.", AreaWarning, stacklevel=3)
    return SPLIT_SYNONYMS.get(word, word)


def split_column(frame: gpd.GeoDataFrame, label: str, wanted: str | None = None) -> pd.Series | None:
    """The split of each polygon.

    The column is ``split``, in any case; without one, a column that holds nothing but names of splits.

    Args:
        frame: Polygons with the columns of their file.
        label: What messages call the file.
        wanted: The one split that is asked for: polygons of unknown splits are then left out. All by default.

    Returns:
        Names of `SPLITS`, with missing values only where one split is asked for; None if there is no such column.

    Raises:
        AOIError: If several columns hold splits, or polygons have no split or an unknown one.

    Warns:
        AreaWarning: If the column is not called ``split``, synonyms are read, or another column is not used.
    """
    column = _find(frame, label)
    if column is None:
        return None
    words = _words(frame[column])
    found = [w if w in SPLITS else SPLIT_SYNONYMS.get(w) for w in words]
    known = pd.Series(found, index=words.index, dtype=object)
    shown = str(column).strip()
    _check(words, known, label, shown, wanted)
    read_as = [f"{w!r} is read as {SPLIT_SYNONYMS[w]!r}" for w in sorted(set(words.dropna()) & SPLIT_SYNONYMS.keys())]
    if read_as:
        warnings.warn(f"{label}: in the column `{shown}`, {', '.join(read_as)}.", AreaWarning, stacklevel=4)
    return known.rename("split")


def _find(frame: gpd.GeoDataFrame, label: str) -> Hashable | None:
    """The column of splits.

    Of several with the same content the first is taken; a column ``split`` precedes others.
    """
    columns = [c for c in frame.columns if c != frame.geometry.name]
    named = [c for c in columns if _plain(c) == "split"]
    others = [c for c in columns if c not in named and _holds_splits(frame[c], c)]
    distinct: list[Hashable] = _distinct(frame, named or others)
    if len(distinct) > 1:
        listed = ", ".join(f"{c!r}" for c in distinct)
        raise AOIError(
            f"{label}: expected one column of splits, found {len(distinct)} that differ: {listed}.\n"
            "Delete those that are not meant, or rename the right one to `split` where there is none."
        )
    if not distinct:
        return None
    if not named:
        warnings.warn(
            f"{label}: no column `split`; the splits are read from the column `{distinct[0]}`.",
            AreaWarning,
            stacklevel=5,
        )
    for column in others if named else ():
        if len(_distinct(frame, [named[0], column])) > 1:
            warnings.warn(
                f"{label}: the column `{column}` holds other splits than {str(named[0])!r}, and is not used.",
                AreaWarning,
                stacklevel=5,
            )
    return distinct[0]


def columns_of_splits(frame: pd.DataFrame) -> list[Hashable]:
    """Find the columns that hold nothing but names of splits, and so no classes of land cover.

    Args:
        frame: Rows of shapes.

    Returns:
        Columns that are called ``split``, or that hold ``train`` and one of ``val`` and ``test``.
    """
    kept: list[Hashable] = []
    for column in frame.columns:
        values = frame[column]
        if not (pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values)):
            continue
        found = {w if w in SPLITS else SPLIT_SYNONYMS.get(w) for w in _words(values).dropna()}
        both = "train" in found and bool(found & {"val", "test"})
        if found and None not in found and (both or _plain(column) == "split"):
            kept.append(column)
    return kept


def _holds_splits(values: pd.Series, name: Hashable) -> bool:
    """Whether a column holds splits by another name.

    A column with a likely name need only hold some names of splits, so that a misspelt one is reported; any other
    column must hold nothing else, and must hold ``train`` and one of ``val`` and ``test``.
    """
    if not (pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values)):
        return False
    words = set(_words(values).dropna())
    found = {w if w in SPLITS else SPLIT_SYNONYMS.get(w) for w in words}
    if _plain(name) in _NAMES:
        return bool(found - {None})
    return None not in found and "train" in found and bool(found & {"val", "test"})


def _distinct(frame: gpd.GeoDataFrame, columns: Sequence[Any]) -> list[Any]:
    """Columns without those that repeat an earlier one."""
    kept: dict[tuple[Any, ...], Any] = {}
    for column in columns:
        words = _words(frame[column])
        kept.setdefault(tuple(words.map(lambda w: SPLIT_SYNONYMS.get(w, w)).fillna("")), column)
    return list(kept.values())


def _plain(name: Hashable) -> str:
    return re.sub(r"[\W_]", "", str(name).lower())


def _words(values: pd.Series) -> pd.Series:
    """Values as words in lower case, None where there is none."""
    words = ["" if pd.isna(v) else str(v).strip().lower() for v in values]
    return pd.Series([w or None for w in words], index=values.index, dtype=object)


def _check(words: pd.Series, known: pd.Series, label: str, column: str, wanted: str | None) -> None:
    empty = int(words.isna().sum())
    unknown = sorted({str(w) for w in words[known.isna()].dropna()})
    if wanted is not None:
        left = int(known.isna().sum())
        if left:
            warnings.warn(
                f"{label}: {left} of {len(words)} rows have no known split in the column `{column}`, and are left out.",
                AreaWarning,
                stacklevel=4,
            )
        return
    if unknown:
        rename = "" if _plain(column) == "split" else " If the column is about something else, rename it."
        raise AOIError(
            f"{label}: unknown split {listed(map(repr, unknown))} in the column `{column}`. "
            f"Expected {', '.join(SPLITS)}.{rename}"
        )
    if empty:
        raise AOIError(
            f"{label}: {empty} of {len(words)} rows have no value in the column `{column}`. "
            f"Expected {', '.join(SPLITS)}. Fill them in, or delete the rows."
        )
