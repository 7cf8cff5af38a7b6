"""NYU Depth v2: pictures of rooms with distances from the camera."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from geocrodino.presets.nyu_file import nyu_packed
from geocrodino.presets.pictures import PLAIN_NOTE, PLAIN_PIXEL_M
from geocrodino.presets.preset import Codes, Preset
from geocrodino.settings.heights import HeightSettings

_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture", "other prop",
)  # fmt: skip
"""Classes of the codes 1 to 40."""

_THIRTEEN: dict[str, Codes] = {
    "bed": (4,),
    "books": (23,),
    "ceiling": (22,),
    "chair": (5,),
    "floor": (2, 20),
    "furniture": (3, 10, 12, 15, 17, 24, 32, 39),
    "objects": (18, 19, 21, 26, 27, 28, 29, 30, 31, 33, 34, 35, 36, 37, 38, 40),
    "picture": (11,),
    "sofa": (6,),
    "table": (7, 14),
    "television": (25,),
    "wall": (1, 8),
    "window": (9, 13, 16),
}  # fmt: skip
"""Codes of each of the 13 classes, as in class13Mapping.mat."""

_FILES_NOTE = (
    "nyu_depth_v2_labeled.mat is unpacked once. Its labels are names of 894 objects: classMapping40.mat, which tells "
    "the class of each, must lie in the same folder or below it; splits.mat gives the official splits."
)

NYU = Preset(
    name="nyu",
    title="NYU Depth v2: 1449 pictures of rooms with distances, 480 x 640 px",
    source="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (nyu_depth_v2_labeled.mat, splits.mat) and "
    "https://github.com/ankurhanda/nyuv2-meta-data (classMapping40.mat)",
    licence="see the source",
    layers={
        "optical": ("RGB/{id}.jpg", "RGB/{id}.png", "RGB/{id}.tif"),
        "elevation": ("Depth/{id}.png", "Depth/{id}.tif"),
        "labels": ("Label/{id}.png", "Label/{id}.tif"),
    },
    classes={name: (code,) for code, name in enumerate(_NAMES, start=1)},
    ignore=(0,),
    pixel_m=PLAIN_PIXEL_M,
    height=HeightSettings(scale=0.001, zero="camera"),
    lists={"train": "train.txt", "test": "test.txt"},
    official="splits.mat, or train.txt and test.txt; val: pictures of train, chosen here, of whole scenes where names "
    "of scenes are known",
    group=r".*(?=-\d+$)|.*",
    packed=nyu_packed,
    notes=("Distances are whole millimetres. Unlabelled pixels (0) are no label.", PLAIN_NOTE, _FILES_NOTE),
)

NYU_13 = replace(
    NYU,
    name="nyu-13",
    title="NYU Depth v2 with 13 classes, to which the 40 are merged",
    classes=_THIRTEEN,
)

NYU_RAW = replace(
    NYU,
    name="nyu-raw",
    title="NYU Depth v2 with distances as measured, which have holes",
    layers={**NYU.layers, "elevation": ("RawDepth/{id}.png", "RawDepth/{id}.tif")},
    packed=partial(nyu_packed, depth="RawDepth"),
)
