"""Data sets without a place: US3D, GAMUS, and pairs of pictures and distances from the camera."""

from __future__ import annotations

from geocrodino.presets.preset import Preset
from geocrodino.settings.heights import HeightSettings

_PLAIN_PIXEL_M = 0.01
_PLAIN_NOTE = (
    "Pictures have no pixel size on the ground. 0.01 m is stated for all, so that slopes are a measure of steepness in "
    "the picture."
)

US3D = Preset(
    name="us3d",
    title="US3D (DFC2019, track 1): satellite images of Jacksonville and Omaha with heights above ground",
    source="https://ieee-dataport.org/open-access/data-fusion-contest-2019-dfc2019",
    licence="see the source",
    layers={
        "optical": ("{city}_{tile}_{image}_RGB.tif",),
        "elevation": ("{city}_{tile}_{image}_AGL.tif",),
        "labels": ("{city}_{tile}_{image}_CLS.tif",),
    },
    classes={"ground": (2,), "trees": (5,), "buildings": (6,), "water": (9,), "elevated road": (17,)},
    ignore=(65,),
    pixel_m=0.35,
    height=HeightSettings(zero="ground"),
    official="none here: the labels of its test were kept back; val: whole tiles of train, chosen here",
    group=r"[^_]+_[^_]+",
    notes=("Several images show one tile: a tile is of one split.",),
    assumed=("Pixels of 0.35 m: the files state no size, and it varies with the angle of view.",),
)

GAMUS = Preset(
    name="gamus",
    title="GAMUS: images with heights above ground, 1024 x 1024 px at 0.33 m",
    source="https://huggingface.co/datasets/earthflow/GAMUS (code: https://github.com/EarthNets/RSI-MMSegmentation)",
    licence="CC-BY-4.0",
    layers={
        "optical": ("images/{part}/{tile}_RGB.tif",),
        "elevation": ("heights/{part}/{tile}_AGL.tif",),
        "labels": ("classes/{part}/{tile}_CLS.tif",),
    },
    classes={
        "others": (0,),
        "ground": (1,),
        "low vegetation": (2,),
        "building": (3,),
        "water": (4,),
        "road": (5,),
        "tree": (6,),
    },
    pixel_m=0.33,
    height=HeightSettings(zero="ground"),
    splits={"train": ("train_*",), "val": ("val_*",), "test": ("test_*",)},
    official="the folders train, val and test",
    unread={
        "{layer}/{part}/{tile}.h5": "HDF5 keeps the colours in its last dimension, which no raster library reads as "
        "bands. Write each as a GeoTIFF of the same name (docs/datasets.md)."
    },
    notes=("Read from GeoTIFF files that are written from its HDF5 files, see docs/datasets.md.",),
    assumed=("Heights in metres: neither files nor code of the data set name their unit.",),
)

NYU = Preset(
    name="nyu",
    title="NYU Depth v2: 1449 pictures of rooms with distances, 480 x 640 px",
    source="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
    licence="see the source",
    layers={
        "optical": ("RGB/{id}.jpg", "RGB/{id}.png"),
        "elevation": ("Depth/{id}.png",),
        "labels": ("Label/{id}.png",),
    },
    classes={
        name: (code,)
        for code, name in enumerate(
            (
                "wall",
                "floor",
                "cabinet",
                "bed",
                "chair",
                "sofa",
                "table",
                "door",
                "window",
                "bookshelf",
                "picture",
                "counter",
                "blinds",
                "desk",
                "shelves",
                "curtain",
                "dresser",
                "pillow",
                "mirror",
                "floor mat",
                "clothes",
                "ceiling",
                "books",
                "refrigerator",
                "television",
                "paper",
                "towel",
                "shower curtain",
                "box",
                "whiteboard",
                "person",
                "night stand",
                "toilet",
                "sink",
                "lamp",
                "bathtub",
                "bag",
                "other structure",
                "other furniture",
                "other prop",
            ),
            start=1,
        )
    },
    ignore=(0,),
    pixel_m=_PLAIN_PIXEL_M,
    height=HeightSettings(scale=0.001, zero="camera"),
    lists={"train": "train.txt", "test": "test.txt"},
    official="train.txt and test.txt; val: pictures of train, chosen here",
    unread={
        "nyu_depth_v2_labeled.mat": "It is one MATLAB file. Write its pairs as RGB/{id}.jpg, Depth/{id}.png (uint16, "
        "millimetres) and Label/{id}.png (classes 1 to 40) first."
    },
    notes=("Distances are whole millimetres. Unlabelled pixels (0) are no label.", _PLAIN_NOTE),
)

MID_AIR = Preset(
    name="mid-air",
    title="Mid-Air: rendered pictures of a drone with distances, 1024 x 1024 px",
    source="https://midair.ulg.ac.be",
    licence="see the source",
    layers={
        "optical": ("{set}_{part}/{climate}/color_left/trajectory_{trajectory}/{frame}.JPEG",),
        "elevation": ("{set}_{part}/{climate}/depth/trajectory_{trajectory}/{frame}.PNG",),
        "labels": ("{set}_{part}/{climate}/segmentation/trajectory_{trajectory}/{frame}.PNG",),
    },
    classes={},
    pixel_m=_PLAIN_PIXEL_M,
    height=HeightSettings(encoding="float16", zero="camera"),
    splits={"test": ("*_test_*",), "train": ("*_training_*",)},
    official="the folders training and test; val: whole trajectories of training, chosen here",
    group=r".*_(?=[^_]+$)",
    notes=(
        "Distances are the bits of half-precision numbers in files of whole numbers, in metres along the ray.",
        "Classes are called by their values: the files do not name them.",
        _PLAIN_NOTE,
    ),
    assumed=("Every value is a class, also that of the sky. The key data.ignore_values leaves values out.",),
)
