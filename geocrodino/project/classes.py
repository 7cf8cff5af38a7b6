"""How label files become classes: columns of shapes, colours, and values that are no class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geocrodino.errors import ConfigError, LabelError
from geocrodino.files.vector_names import is_vector
from geocrodino.geo.labels.coded import count_colours
from geocrodino.geo.labels.codes import hexadecimal
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import LabelSource, label_classes
from geocrodino.geo.rasters.place import Place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.phrases import listed
from geocrodino.presets.catalogue import PRESETS
from geocrodino.project.layers import Layer
from geocrodino.project.shapes import class_column
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.labels import LabelRules

_MOST_COLOURS = 24
_NEAR = 127
"""Distance in a channel up to which a pixel is that colour of 0 and 255 alone: lossy codecs change colours."""

_ALIKE = 32
"""Distance in a channel up to which a colour is that of a more frequent one, where there are many."""

_RARE = 1e-3
"""Share of the pixels below which a colour is left by a lossy codec, where there are many."""

_LARGEST = 254


@dataclass(frozen=True)
class LabelGuess:
    """How a label file is read.

    Attributes:
        values: Values by key of a scene: ``label_rules``, ``ignore_values``, ``label_values``.
        why: A reason for each of the keys.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)


def guess_rules(layer: Layer, column: str | None, place: Place | None) -> LabelGuess:
    """Find out how the labels of a layer become classes.

    Args:
        layer: The labels.
        column: The column of classes of shapes that the user names, or None.
        place: CRS and pixel size of files that state none.

    Returns:
        Keys of the scene, with a reason for each; none where the values of the file are classes.

    Raises:
        ConfigError: If the column of classes is not clear, or is named for a raster.
        GeocrodinoError: One of its kinds, if a file cannot be read.
    """
    if is_vector(layer.files[0]):
        chosen = class_column(layer.files[0], column)
        rules = {"column": chosen.column, **({"layer": chosen.layer} if chosen.layer is not None else {})}
        return LabelGuess({"label_rules": rules}, {"label_rules": f"column of the classes: {chosen.why}"})
    if column is not None:
        raise ConfigError(
            f"{layer.shown}: `label_column` names a column of a file of shapes, found a raster. Leave it out."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_scene(layer.files, place=place) if layer.raster is None else layer.raster
    if len(source.data_bands) >= 3:
        return _colours([source])
    return _values(LabelSource.of(source))


def guess_rules_of_tiles(layers: Sequence[Layer], place: Place | None) -> LabelGuess:
    """Find out how labels become classes that lie in tiles without a common raster.

    Args:
        layers: The labels of some tiles.
        place: CRS and pixel size of files that state none.

    Returns:
        As for `guess_rules`.

    Raises:
        GeocrodinoError: One of its kinds, if a file cannot be read.
    """
    sources = [open_scene(layer.files[0], place=place) for layer in layers]
    if len(sources[0].data_bands) >= 3:
        return _colours(sources)
    counts: dict[float, float] = {}
    for source in sources:
        for value, share in LabelSource.of(source).count_labels().shares().items():
            counts[value] = counts.get(value, 0.0) + share
    return _of_values(list(counts))


def find_scheme(labels: Sequence[tuple[LabelSource, LabelGuess]]) -> tuple[ClassScheme, tuple[str, ...]]:
    """Find the classes of all labels, as a training does.

    Args:
        labels: The labels of the scenes, opened with what was guessed of them.

    Returns:
        The classes, and what deserves attention.

    Raises:
        LabelError: If the files hold no classes.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scheme = label_classes([source for source, _ in labels], None)
    return scheme, tuple(dict.fromkeys(str(each.message) for each in told))


def open_guessed(name: str | Sequence[str], like: RasterSource, guess: LabelGuess, place: Place | None) -> LabelSource:
    """Open labels as they were guessed to be read.

    Args:
        name: The file or files.
        like: The image that they belong to.
        guess: How they are read.
        place: CRS and pixel size of files that state none.

    Returns:
        The labels.

    Raises:
        GeocrodinoError: One of its kinds, see `open_labels`.
    """
    rules = guess.values.get("label_rules")
    return open_labels(
        name,
        like,
        rules=None if rules is None else LabelRules.model_validate(rules),
        ignore_values=guess.values.get("ignore_values", ()),
        label_values=guess.values.get("label_values"),
        place=place,
    )


def _values(labels: LabelSource) -> LabelGuess:
    counts = labels.count_labels()
    return LabelGuess() if counts.more else _of_values(list(counts.shares()))


def _of_values(values: Sequence[float]) -> LabelGuess:
    """Which values are no class: those that a map cannot hold, and 255 as the mark of a missing label or of a mask."""
    if any(value % 1 for value in values):
        return LabelGuess()  # the training tells what these look like
    wrong = sorted(int(v) for v in values if not 0 <= v <= _LARGEST)
    good = sorted(int(v) for v in values if 0 <= v <= _LARGEST)
    if not wrong:
        return LabelGuess()
    if good == [0] and len(wrong) == 1:
        return LabelGuess(
            {"label_values": {wrong[0]: 1}}, {"label_values": f"0 and {wrong[0]} alone look like a mask: class 1"}
        )
    if len(good) >= 2:
        what = "stands for no label in most files" if wrong == [255] else "no class values, which are 0 to 254"
        return LabelGuess({"ignore_values": wrong}, {"ignore_values": f"? {listed(wrong)}: {what}"})
    return LabelGuess()


# --- colours --------------------------------------------------------------------------------------------------------


def _colours(sources: Sequence[RasterSource]) -> LabelGuess:
    """A table of the colours of pictures of classes, with names of a public data set where all are of one."""
    counts = count_colours(sources[0]).astype(np.int64)
    for source in sources[1:]:
        counts += count_colours(source)
    packed = np.flatnonzero(counts)
    if not packed.size:
        raise LabelError(f"{sources[0].name}: expected colours of classes, found no valid pixel.")
    lossy = len(packed) > _MOST_COLOURS
    packed = packed[np.argsort(-counts[packed], kind="stable")]
    frequent = _apart(packed[counts[packed] >= _RARE * counts.sum()].tolist()) if lossy else packed.tolist()
    if len(frequent) > _MOST_COLOURS:
        raise LabelError(
            f"{sources[0].name}: expected the colours of classes, found {len(packed):,} colours, of which "
            f"{len(frequent)} are frequent. This looks like an image. Name other labels with `labels`."
        )
    found = [hexadecimal((code >> 16, code >> 8 & 255, code & 255)) for code in frequent]
    rules: dict[str, Any] = {"colours": True}
    named = _known_colours(found)
    if named is not None:
        rules["table"], rules["ignore"], why = named
    else:
        rules["table"] = {f"class {number}": [colour] for number, colour in enumerate(found, start=1)}
        why = "the file gives colours no names: give each class its own"
    if not rules.get("ignore"):
        rules.pop("ignore", None)
    if lossy:
        rules["tolerance"] = _NEAR if all(set(bytes.fromhex(c[1:])) <= {0, 255} for c in found) else _spread(found)
        why += f"; {len(packed):,} colours, as a lossy codec leaves them, so each pixel is of the nearest class"
    return LabelGuess({"label_rules": rules}, {"label_rules": f"? {why}"})


def _apart(codes: Sequence[int]) -> list[int]:
    """Colours, the most frequent first, without those that a codec made of another one."""
    kept: list[int] = []
    for code in codes:
        near = (max(abs((code >> at & 255) - (other >> at & 255)) for at in (0, 8, 16)) for other in kept)
        if min(near, default=256) > _ALIKE:
            kept.append(code)
    return kept


def _known_colours(found: Sequence[str]) -> tuple[dict[str, list[str]], list[str], str] | None:
    """Classes of the public data set that has all of these colours."""
    for preset in PRESETS.values():
        if not preset.has_own_colours:
            continue
        of_class = {str(c).lower(): name for name, codes in preset.classes.items() for c in codes if isinstance(c, str)}
        ignored = [str(code).lower() for code in preset.ignore if isinstance(code, str)]
        if set(found) <= {*of_class, *ignored} and len(set(found) & of_class.keys()) > 2:
            table = {name: [c for c, of in of_class.items() if of == name] for name in preset.classes}
            return table, ignored, f"colours of {preset.title.partition(',')[0]}"
    return None


def _spread(found: Sequence[str]) -> int:
    """Less than half of the least distance of two colours, in the channel in which they differ most."""
    colours = np.array([list(bytes.fromhex(colour[1:])) for colour in found], np.int64)
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1)
    apart[np.diag_indices(len(colours))] = 255
    return max(0, (int(apart.min()) - 1) // 2)
