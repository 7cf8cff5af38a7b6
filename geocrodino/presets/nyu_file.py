"""The MATLAB file of NYU Depth v2: pictures, distances and labels in arrays whose axes are MATLAB's, reversed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import ConfigError, RasterError
from geocrodino.phrases import listed
from geocrodino.presets.hdf5 import EXTRA, can_read, hdf5_errors, opened_hdf5
from geocrodino.presets.packed import Packed, PackedRaster, Pixels, content_key
from geocrodino.settings.splits import SceneSplit

PICTURES = "nyu_depth_v2_labeled.mat"
CLASSES = "classMapping40.mat"
SPLITS = "splits.mat"

_ARRAYS = {"RGB": "images", "Depth": "depths", "RawDepth": "rawDepths", "Label": "labels"}
"""Array of each folder of rasters."""

_BYTES_PER_PX = {"RGB": 3, "Depth": 2, "RawDepth": 2, "Label": 1}

_FARTHEST_MM = 65_535

_LISTS: dict[SceneSplit, str] = {"train": "trainNdxs", "test": "testNdxs"}


def nyu_packed(paths: Sequence[str], *, depth: str = "Depth") -> Packed | None:
    """Find the MATLAB file of NYU Depth v2 among files, and tell what it holds.

    The file has the arrays ``images`` (N, 3, W, H), ``depths`` and ``rawDepths`` (N, W, H, metres), ``labels``
    (N, W, H, names of objects counted from 1, 0 without a label) and ``scenes`` (references to N texts), as HDF5 shows
    them. ``classMapping40.mat`` says which of 40 classes each name is of. ``splits.mat`` lists the pictures of train
    and test, counted from 1.

    Args:
        paths: All files of the data set.
        depth: Which distances: ``Depth``, without holes; ``RawDepth``, as measured.

    Returns:
        What it holds: a raster of the folders ``RGB``, ``Label`` and that of the distances for each picture, named by
        the scene and the number of the picture; None if the file is not there.

    Raises:
        ConfigError: If a file is there twice, or one of the two small files cannot be used.
        RasterError: If the file of the pictures is damaged, or holds something else.
        AccessError: If the operating system does not let a file be looked up.
    """
    source, mapping, splits = (_only(paths, name) for name in (PICTURES, CLASSES, SPLITS))
    if source is None:
        return None
    if mapping is None:
        return Packed(
            obstacle=f"{source}: its labels are names of 894 objects, and {CLASSES}, which says the class of each of "
            f"them, is not in the same data set. Get it from https://github.com/ankurhanda/nyuv2-meta-data."
        )
    if not can_read():
        return Packed(obstacle=f"{source}: expected h5py to read it, which is not installed. Install it: {EXTRA}")
    codes = _class_codes(mapping)
    with opened_hdf5(source) as file, hdf5_errors(source):
        count, width, height = _shape(file, source, depth)
        names = _names(file, count)
    picture_key, label_key = content_key([source]), content_key([source, mapping])
    rasters = tuple(
        PackedRaster(
            name=f"{folder}/{name}.tif",
            source=source,
            part=(folder, number),
            size=_BYTES_PER_PX[folder] * width * height,
            key=label_key if folder == "Label" else picture_key,
        )
        for number, name in enumerate(names)
        for folder in ("RGB", depth, "Label")
    )
    lacking = f"{SPLITS} is not there: pictures of test are not told from those of train." if splits is None else ""
    return Packed(rasters, partial(_read, codes=codes), {} if splits is None else _lists(splits, names), lacking)


def _only(paths: Sequence[str], name: str) -> str | None:
    found = [path for path in paths if PurePosixPath(path).name == name]
    if len(found) > 1:
        raise ConfigError(f"expected one file {name}, found {listed(found, 3)}. Keep the one that counts.")
    return found[0] if found else None


def _shape(file: Any, source: str, depth: str) -> tuple[int, int, int]:
    """Number, width and height of the pictures, after a look at the shapes of all arrays."""
    lacking = [array for array in ("images", _ARRAYS[depth], "labels") if array not in file]
    if lacking:
        raise RasterError(
            source, f"expected the array {lacking[0]}, found {', '.join(sorted(file)) or 'none'}. Download it again."
        )
    images, depths, labels = (tuple(file[array].shape) for array in ("images", _ARRAYS[depth], "labels"))
    if len(images) != 4 or images[1] != 3 or {depths, labels} != {(images[0], *images[2:])}:
        raise RasterError(
            source,
            "expected arrays of shape (N, 3, W, H) for pictures and (N, W, H) for distances and labels, found "
            f"{images}, {depths} and {labels}. Download it again.",
        )
    return images[0], images[2], images[3]


def _names(file: Any, count: int) -> list[str]:
    """Name of each picture: its scene, where the file tells it, and its number, counted from 1."""
    numbers = [f"{number:04}" for number in range(1, count + 1)]
    if "scenes" not in file:
        return numbers
    scenes = ["".join(map(chr, np.ravel(file[reference]))) for reference in np.ravel(file["scenes"])]
    if len(scenes) != count:
        return numbers
    return [f"{re.sub('[^A-Za-z0-9]+', '_', scene)}-{number}" for scene, number in zip(scenes, numbers, strict=True)]


def _read(file: Any, raster: PackedRaster, codes: NDArray[np.uint8]) -> Pixels:
    folder, number = raster.part
    values = np.asarray(file[_ARRAYS[folder]][number]).swapaxes(-1, -2)
    if folder == "RGB":
        return Pixels(values.astype(np.uint8, copy=False))
    if folder == "Label":
        if values.max() >= len(codes):
            raise RasterError(
                raster.source,
                f"expected labels of at most {len(codes) - 1}, as many as {CLASSES} has, found {values.max()} in "
                f"picture {number + 1}. The two files do not belong together.",
            )
        return Pixels(codes[values][None])
    millimetres = np.round(1000 * np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    known = (millimetres > 0) & (millimetres <= _FARTHEST_MM)
    return Pixels(np.where(known, millimetres, 0).astype(np.uint16)[None], nodata=0)


def _matlab_values(path: str, key: str) -> NDArray[np.int64]:
    """The whole numbers under a key of a MATLAB file of version 5."""
    import scipy.io
    from scipy.io.matlab import MatReadError

    try:
        found: Mapping[str, Any] = scipy.io.loadmat(path, variable_names=[key])
    except (OSError, ValueError, NotImplementedError, MatReadError) as error:
        raise ConfigError(f"{path}: expected a MATLAB file that can be read ({error}). Download it again.") from error
    if key not in found:
        raise ConfigError(f"{path}: expected the key {key}, which the file does not have. Download it again.")
    return np.ravel(found[key]).astype(np.int64)


def _class_codes(path: str) -> NDArray[np.uint8]:
    """Class (1 to 40, or 0) of each name of an object, by its number; 0 stays 0."""
    classes = _matlab_values(path, "mapClass")
    if not len(classes) or classes.min() < 0 or classes.max() > 40:
        raise ConfigError(f"{path}: expected classes of 1 to 40 under mapClass, found others. Download it again.")
    return np.concatenate([[0], classes]).astype(np.uint8)


def _lists(path: str, names: Sequence[str]) -> dict[SceneSplit, frozenset[str]]:
    found: dict[SceneSplit, frozenset[str]] = {}
    for split, key in _LISTS.items():
        numbers = _matlab_values(path, key)
        if len(numbers) and (numbers.min() < 1 or numbers.max() > len(names)):
            wrong = numbers.min() if numbers.min() < 1 else numbers.max()
            raise ConfigError(
                f"{path}: expected numbers of pictures from 1 to {len(names)} under {key}, found {wrong}. It does not "
                f"belong to this {PICTURES}."
            )
        found[split] = frozenset(names[number - 1] for number in numbers)
    return found
