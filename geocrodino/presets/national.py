"""Data sets of national mapping agencies: GeoNRW, DFC2022, FLAIR."""

from __future__ import annotations

from geocrodino.presets.preset import Preset
from geocrodino.settings.heights import HeightSettings

GEONRW = Preset(
    name="geonrw",
    title="GeoNRW: images, surface models and labels of North Rhine-Westphalia, 1000 x 1000 px at 1 m",
    source="https://ieee-dataport.org/open-access/geonrw",
    licence="CC-BY-4.0",
    layers={
        "optical": ("{city}/{east}_{north}_rgb.jp2",),
        "elevation": ("{city}/{east}_{north}_dem.tif",),
        "labels": ("{city}/{east}_{north}_seg.tif",),
    },
    classes={
        "forest": (1, "#2ca02c"),
        "water": (2, "#1f77b4"),
        "agricultural": (3, "#8c564b"),
        "residential, commercial, industrial": (4, "#7f7f7f"),
        "grassland, swamp, shrubbery": (5, "#bcbd22"),
        "railway, train station": (6, "#ff7f0e"),
        "highway, squares": (7, "#9467bd"),
        "airport, shipyard": (8, "#17becf"),
        "roads": (9, "#d62728"),
        "buildings": (10, "#e377c2"),
    },
    ignore=(0,),
    pixel_m=1.0,
    splits={"test": ("duesseldorf_*", "herne_*", "neuss_*"), "train": ("*",)},
    official="test: three cities; val: whole cities of train, chosen here",
    group=r"[^_]+",
    notes=("Background (0) is no label.",),
)

DFC2022 = Preset(
    name="dfc2022",
    title="DFC2022 (MiniFrance with terrain): images at 0.5 m, terrain at 1 m, land use of Urban Atlas",
    source="https://ieee-dataport.org/competitions/data-fusion-contest-2022-dfc2022",
    licence="CC-BY-4.0",
    layers={
        "optical": ("{part}/{city}/BDORTHO/{tile}.tif",),
        "elevation": ("{part}/{city}/RGEALTI/{tile}_RGEALTI.tif",),
        "ground": ("{part}/{city}/RGEALTI/{tile}_RGEALTI.tif",),
        "labels": ("{part}/{city}/UrbanAtlas/{tile}_UA2012.tif",),
    },
    classes={
        "urban fabric": (1, "#db5f57"),
        "industrial, commercial, public, transport": (2, "#db9757"),
        "mines, dumps, construction sites": (3, "#dbd057"),
        "artificial vegetated areas": (4, "#addb57"),
        "arable land": (5, "#75db57"),
        "permanent crops": (6, "#7bc47b"),
        "pastures": (7, "#58b158"),
        "complex and mixed cultivation": (8, "#d4f6d4"),
        "orchards at the fringe of urban classes": (9, "#b0e2b0"),
        "forests": (10, "#008000"),
        "herbaceous vegetation": (11, "#58b0a7"),
        "open spaces with little vegetation": (12, "#995d13"),
        "wetlands": (13, "#579bdb"),
        "water": (14, "#0062ff"),
    },
    ignore=(0, 15),
    channels=("height", "slope", "topographic_position"),
    splits={"train": ("labeled_train_*",), "unlabelled": ("unlabeled_train_*",)},
    official="train and unlabelled: the contest; val: tiles of train, chosen here",
    notes=(
        "The heights are those of the terrain: there is no height above ground, and channels are those of terrain.",
        "No information (0) and clouds (15) are no label.",
        "The folder val has no labels and is left out; predict maps of it.",
    ),
)

_FLAIR_SOURCE = "https://ignf.github.io/FLAIR"
_FLAIR_LICENCE = "Licence Ouverte 2.0"

FLAIR = Preset(
    name="flair",
    title="IGN FLAIR-1 and FLAIR-2: aerial images with heights above ground, 512 x 512 px at 0.2 m",
    source=_FLAIR_SOURCE,
    licence=_FLAIR_LICENCE,
    layers={
        "optical": ("*aerial_{part}/{domain}/{zone}/img/IMG_{patch}.tif",),
        "elevation": ("*aerial_{part}/{domain}/{zone}/img/IMG_{patch}.tif",),
        "labels": ("*labels_{part}/{domain}/{zone}/msk/MSK_{patch}.tif",),
    },
    classes={
        "building": (1, "#db0e9a"),
        "pervious surface": (2, "#938e7b"),
        "impervious surface": (3, "#f80c00"),
        "bare soil": (4, "#a97101"),
        "water": (5, "#1553ae"),
        "coniferous": (6, "#194a26"),
        "deciduous": (7, "#46e483"),
        "brushwood": (8, "#f3a60d"),
        "vineyard": (9, "#660082"),
        "herbaceous vegetation": (10, "#55ff00"),
        "agricultural land": (11, "#fff30d"),
        "plowed land": (12, "#e4df7c"),
        "other": (13, 14, 15, 16, 17, 18, 19, "#000000"),
    },
    pixel_m=0.2,
    height=HeightSettings(scale=0.2, band=5, zero="ground"),
    bands=(1, 2, 3, 4),
    splits={
        "test": ("test_*",),
        "val": (
            *("train_D004_2021_*", "train_D014_2020_*", "train_D029_2021_*", "train_D031_2019_*"),
            *("train_D058_2020_*", "train_D066_2021_*", "train_D067_2021_*", "train_D077_2021_*"),
        ),
        "train": ("train_*",),
    },
    official="domains of train, val and test: IGN",
    uncounted=("other",),
    group=r"train_D\d+_\d+",
    notes=(
        "Bands 1 to 4 are red, green, blue and near infrared, band 5 is the height above ground.",
        "Classes 13 to 19 are read as other, as in the published baselines.",
    ),
    assumed=(
        "Band 5 counts in steps of 0.2 m: its files do not say so. Another step changes heights in metres, not what "
        "can be learnt from them.",
    ),
)

FLAIR_HUB = Preset(
    name="flair-hub",
    title="IGN FLAIR-HUB: aerial images with surface and terrain models, 512 x 512 px at 0.2 m",
    source=_FLAIR_SOURCE,
    licence=_FLAIR_LICENCE,
    layers={
        "optical": ("{domain}_AERIAL_RGBI/{zone}/{domain}_AERIAL_RGBI_{zone}_{patch}.tif",),
        "elevation": ("{domain}_DEM_ELEV/{zone}/{domain}_DEM_ELEV_{zone}_{patch}.tif",),
        "labels": ("{domain}_AERIAL_LABEL-COSIA/{zone}/{domain}_AERIAL_LABEL-COSIA_{zone}_{patch}.tif",),
    },
    classes={
        "building": (0, "#db0e9a"),
        "greenhouse": (1, "#9999ff"),
        "swimming pool": (2, "#3de6eb"),
        "impervious surface": (3, "#f80c00"),
        "pervious surface": (4, "#938e7b"),
        "bare soil": (5, "#a97101"),
        "water": (6, "#1553ae"),
        "snow": (7, "#ffffff"),
        "herbaceous vegetation": (8, "#55ff00"),
        "agricultural land": (9, "#fff30d"),
        "plowed land": (10, "#e4df7c"),
        "vineyard": (11, "#660082"),
        "deciduous": (12, "#46e483"),
        "coniferous": (13, "#194a26"),
        "brushwood": (14, "#f3a60d"),
    },
    ignore=(15, 16, 17, 18),
    pixel_m=0.2,
    height=HeightSettings(band=1, ground_band=2),
    lists={"train": "*train*.csv", "val": "*val*.csv", "test": "*test*.csv"},
    official="the CSV files of IGN (names with train, val, test); without them, whole domains of train become val",
    group=r"[^_]+",
    notes=(
        "Band 1 of DEM_ELEV is the surface, band 2 the ground.",
        "Clear cut, ligneous, mixed and undefined (15 to 18) have no weight in the published baselines and are no "
        "label.",
    ),
)
