"""Data sets without a place: US3D, GAMUS and Mid-Air."""

from __future__ import annotations

from geocrodino.presets.gamus_files import gamus_packed
from geocrodino.presets.pictures import PLAIN_NOTE, PLAIN_PIXEL_M
from geocrodino.presets.preset import Preset
from geocrodino.settings.heights import HeightSettings

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
    packed=gamus_packed,
    notes=(
        "Its HDF5 files ({layer}/{part}/{tile}_RGB.h5, of New York _IMG.h5, _AGL.h5, _CLS.h5) are unpacked once.",
        "Tiles of Washington are named by row and column, and neighbours are of different splits.",
    ),
    assumed=(
        "Heights in metres: neither files nor code of the data set name their unit.",
        "Heights of exactly -5 m are missing: they fill gaps in the tiles of Washington, but no file says so.",
    ),
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
    pixel_m=PLAIN_PIXEL_M,
    height=HeightSettings(encoding="float16", zero="camera"),
    splits={"test": ("*_test_*",), "train": ("*_training_*",)},
    official="the folders training and test; val: whole trajectories of training, chosen here",
    group=r".*_(?=[^_]+$)",
    notes=(
        "Distances are the bits of half-precision numbers in files of whole numbers, in metres along the ray.",
        "Classes are called by their values: the files do not name them.",
        PLAIN_NOTE,
    ),
    assumed=("Every value is a class, also that of the sky. The key data.ignore_values leaves values out.",),
)
