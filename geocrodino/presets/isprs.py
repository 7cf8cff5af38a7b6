"""The data sets of the ISPRS benchmark on semantic labelling: Potsdam and Vaihingen."""

from __future__ import annotations

from geocrodino.presets.preset import Codes, Preset
from geocrodino.settings.heights import HeightSettings

_SOURCE = "https://www.isprs.org/education/benchmarks/UrbanSemLab (a form to fill in)"
_LICENCE = "research and teaching, on request"
_OFFICIAL = "tiles of train and test: ISPRS; val: tiles of train, chosen here"

_CLASSES: dict[str, Codes] = {
    "impervious surface": ("#ffffff",),
    "building": ("#0000ff",),
    "low vegetation": ("#00ffff",),
    "tree": ("#00ff00",),
    "car": ("#ffff00",),
    "clutter": ("#ff0000",),
}
_BOUNDARY = ("#000000",)
"""Black is no label: the boundaries of objects in the eroded labels."""

_ERODED_PX, _UNCOUNTED = 3, ("clutter",)
"""The benchmark erodes the regions of each class by 3 px, and takes the mean F1 without clutter."""

_TOLERANCE = 255
"""The nearest class counts: label 4_12 went through a lossy codec, 6_7 has cars of 252,255,0."""

_NORMALISED = HeightSettings(scale=0.1, zero="ground")

_POTSDAM_NOTE = "Tile 7_10 is left out, because parts of its labels are wrong."


def _potsdam(name: str, title: str, elevation: tuple[str, ...], height: HeightSettings | None, *more: str) -> Preset:
    return Preset(
        name=name,
        title=title,
        source=_SOURCE,
        licence=_LICENCE,
        layers={
            "optical": ("top_potsdam_{row}_{col}_RGBIR.tif", "top_potsdam_{row}_{col}_RGB.tif"),
            "elevation": elevation,
            "labels": ("top_potsdam_{row}_{col}_label.tif",),
        },
        classes=_CLASSES,
        ignore=_BOUNDARY,
        tolerance=_TOLERANCE,
        pixel_m=0.05,
        crs="EPSG:32633",
        height=height,
        splits={
            "val": ("2_12", "4_10", "5_11", "7_8"),
            "train": (
                *("2_10", "2_11", "3_10", "3_11", "3_12", "4_11", "4_12", "5_10", "5_12", "6_7", "6_8", "6_9", "6_10"),
                *("6_11", "6_12", "7_7", "7_9", "7_10", "7_11", "7_12"),
            ),
            "test": (
                *("2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14"),
                *("6_15", "7_13"),
            ),
        },
        official=_OFFICIAL,
        boundary_px=_ERODED_PX,
        uncounted=_UNCOUNTED,
        skipped={"7_10": "parts of its labels are wrong"},
        notes=(
            _POTSDAM_NOTE,
            "The images with four bands (4_Ortho_RGBIR) are used where they are there, else those with three "
            "(2_Ortho_RGB).",
            "Tiles have a place if each file has its world file, and the pixel size alone otherwise.",
            *more,
        ),
    )


POTSDAM = _potsdam(
    "potsdam",
    "ISPRS Potsdam: 38 tiles of 6000 x 6000 px at 5 cm, with a surface model",
    ("dsm_potsdam_{row}_{col}.tif",),
    None,
)

POTSDAM_NDSM = _potsdam(
    "potsdam-ndsm",
    "ISPRS Potsdam with heights above ground (1_DSM_normalisation)",
    ("dsm_potsdam_{row}_{col}_normalized_lastools.jpg",),
    _NORMALISED,
    "Heights are whole decimetres up to 25.5 m, from JPEG files. Tile 3_13 lacks a column.",
)


def _vaihingen(name: str, title: str, elevation: str, height: HeightSettings | None, *more: str) -> Preset:
    return Preset(
        name=name,
        title=title,
        source=_SOURCE,
        licence=_LICENCE,
        layers={
            "optical": ("top/top_mosaic_09cm_area{area}.tif",),
            "elevation": (elevation,),
            "labels": (
                "gts_for_participants/top_mosaic_09cm_area{area}.tif",
                "*[gG]round_[tT]ruth*/**/top_mosaic_09cm_area{area}.tif",
                "gts/top_mosaic_09cm_area{area}.tif",
            ),
        },
        classes=_CLASSES,
        ignore=_BOUNDARY,
        tolerance=_TOLERANCE,
        pixel_m=0.09,
        height=height,
        splits={
            "val": ("11", "15", "28", "30", "34"),
            "train": ("1", "3", "5", "7", "13", "17", "21", "23", "26", "32", "37"),
            "test": ("2", "4", "6", "8", "10", "12", "14", "16", "20", "22", "24", "27", "29", "31", "33", "35", "38"),
        },
        official=_OFFICIAL,
        boundary_px=_ERODED_PX,
        uncounted=_UNCOUNTED,
        notes=("Bands are near infrared, red and green. Tiles have no place, only a pixel size.", *more),
    )


VAIHINGEN = _vaihingen(
    "vaihingen",
    "ISPRS Vaihingen: 33 tiles at 9 cm, with a surface model",
    "dsm_09cm_matching_area{area}.tif",
    None,
)

VAIHINGEN_NDSM = _vaihingen(
    "vaihingen-ndsm",
    "ISPRS Vaihingen with heights above ground",
    "dsm_09cm_matching_area{area}_normalized.jpg",
    _NORMALISED,
    "Heights are whole decimetres up to 25.5 m, from JPEG files.",
)
