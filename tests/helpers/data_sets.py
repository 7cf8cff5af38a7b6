"""Small files of public data sets: the true folders, names, codings and faults, with few pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import numpy as np
import rasterio
import scipy.io
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from geocrodino.presets.catalogue import PRESETS
from geocrodino.presets.contents import unpack_dataset

SIDE = 64

ISPRS_COLOURS = np.array(
    [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]], np.uint8
)
"""Impervious surface, building, low vegetation, tree, car, clutter."""

DRIVERS = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jp2": "JP2OpenJPEG"}


def write(path, values, *, crs=None, origin=None, pixel_m=None, world_file=False):
    """Write (H, W) or (bands, H, W); without an origin the file has no place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = values if values.ndim == 3 else values[None]
    profile = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    if origin is not None and not world_file:
        profile |= {"crs": crs, "transform": from_origin(*origin, pixel_m, pixel_m)}
    if path.suffix == ".jp2":
        profile |= {"QUALITY": "100", "REVERSIBLE": "YES"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=DRIVERS[path.suffix.lower()], **profile) as file:
            file.write(values)
    if world_file:
        west, north = origin
        lines = (pixel_m, 0, 0, -pixel_m, west + pixel_m / 2, north - pixel_m / 2)
        path.with_suffix(".tfw").write_text("".join(f"{line}\n" for line in lines))


def blocks(seed, count, side=SIDE):
    """Squares of 8 px, each of one of so many kinds, uint8, shape (side, side)."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.arange((side // 8) ** 2) % count).reshape(side // 8, side // 8)
    return kinds.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)


def image(kinds, bands, seed=0):
    """Bands of 8 bits that show the kinds."""
    noise = np.random.default_rng(seed).integers(0, 12, (bands, *kinds.shape))
    shades = np.stack([kinds.astype(int) * 20 + 30 + 5 * band for band in range(bands)])
    return (shades + noise).astype(np.uint8)


def isprs_labels(kinds):
    return np.moveaxis(ISPRS_COLOURS[kinds], -1, 0).copy()


def write_potsdam(root, tiles=("2_10", "4_12", "6_7", "7_10", "4_10", "3_13"), *, world_files=True):
    """A surface model with zero-padded names, images in a folder that is nested twice, labels without a folder."""
    for seed, tile in enumerate(tiles):
        row, col = map(int, tile.split("_"))
        origin = (360_000 + col * SIDE * 0.05, 5_810_000 - row * SIDE * 0.05)
        place = {"origin": origin, "pixel_m": 0.05, "world_file": True} if world_files else {}
        kinds = blocks(seed, 6, 2 * SIDE if tile == "3_13" else SIDE)
        write(root / f"2_Ortho_RGB/2_Ortho_RGB/top_potsdam_{tile}_RGB.tif", image(kinds, 3, seed), **place)
        heights = (30 + 3.0 * (kinds == 1) + 2.0 * (kinds == 3)).astype(np.float32)
        write(root / f"1_DSM/dsm_potsdam_{row:02}_{col:02}.tif", heights, **place)
        labels = isprs_labels(kinds)
        if tile == "4_12":  # went through a lossy codec
            noise = np.random.default_rng(seed).integers(0, 90, labels.shape)
            labels = np.where(labels == 255, 255 - noise, noise).astype(np.uint8)
        if tile == "6_7":
            labels[0][kinds == 4] = 252
        write(root / f"top_potsdam_{tile}_label.tif", labels, **place)
        above = np.where(kinds == 1, 30, np.where(kinds == 3, 20, 0)).astype(np.uint8)  # decimetres
        narrow = above[:, :-1] if tile == "3_13" else above
        write(root / f"1_DSM_normalisation/dsm_potsdam_{row:02}_{col:02}_normalized_lastools.jpg", narrow)
        write(root / f"5_Labels_all_noBoundary/top_potsdam_{tile}_label_noBoundary.tif", labels)
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/top_potsdam_2_10_label.tif").write_text("no raster")


def write_vaihingen(root, areas=("1", "3", "11", "2", "4"), labelled=("1", "3", "11", "2")):
    """Sides that differ, images of near infrared, red, green; the labels of some areas are kept back."""
    for seed, area in enumerate(areas):
        side = SIDE + 8 * seed
        kinds = blocks(seed, 6, side)
        write(root / f"top/top_mosaic_09cm_area{area}.tif", image(kinds, 3, seed))
        write(root / f"dsm/dsm_09cm_matching_area{area}.tif", (260 + 4.0 * (kinds == 1)).astype(np.float32))
        write(root / f"ndsm/dsm_09cm_matching_area{area}_normalized.jpg", (40 * (kinds == 1)).astype(np.uint8))
        if area in labelled:
            write(root / f"gts_for_participants/top_mosaic_09cm_area{area}.tif", isprs_labels(kinds))
            write(root / f"gts_for_participants/top_mosaic_09cm_area{area}_noBoundary.tif", isprs_labels(kinds))


def write_geonrw(root, cities=("aachen", "bochum", "herne")):
    for number, city in enumerate(cities):
        for east in (300, 301):
            origin, kinds = ((east + 10 * number) * 1000, 5_700_000), blocks(east + number, 11)
            place = {"crs": "EPSG:25832", "origin": origin, "pixel_m": 1.0}
            stem = f"{city}/{east + 10 * number}_5700"
            write(root / f"{stem}_rgb.jp2", image(kinds, 3), **place)
            write(root / f"{stem}_dem.tif", (80 + 6.0 * (kinds == 10)).astype(np.float32), **place)
            write(root / f"{stem}_seg.tif", kinds, **place)
            write(root / f"{stem}_sar.tif", kinds.astype(np.float32), **place)


def write_dfc2022(root):
    places = (("labeled_train", "Nice"), ("unlabeled_train", "Brest"), ("val", "Calais"))
    for number, (part, city) in enumerate(places):
        for tile in range(2):
            name = f"06-2014-{1000 + 5 * tile}-63{number}0-LA93-0M50-E080"
            place = {"crs": "EPSG:2154", "origin": (1_000_000 + 5000 * tile, 6_300_000 + 10_000 * number)}
            kinds = blocks(tile + number, 16)
            folder = root / part / city
            write(folder / f"BDORTHO/{name}.tif", image(kinds, 3), **place, pixel_m=0.5)
            heights = np.linspace(5, 9, (SIDE // 2) ** 2).reshape(SIDE // 2, -1).astype(np.float32)
            write(folder / f"RGEALTI/{name}_RGEALTI.tif", heights, **place, pixel_m=1.0)
            if part == "labeled_train":
                write(folder / f"UrbanAtlas/{name}_UA2012.tif", kinds, **place, pixel_m=0.5)


def write_us3d(root):
    codes = np.array([2, 5, 6, 9, 17, 65], np.uint8)
    for city, tile, number in (
        ("JAX", "004", "006"),
        ("JAX", "004", "011"),
        ("JAX", "068", "001"),
        ("OMA", "132", "2"),
    ):
        kinds = blocks(int(tile), 6)
        stem = f"{city}_{tile}_{number}"
        write(root / f"{stem}_RGB.tif", image(kinds, 3))
        write(root / f"{stem}_MSI.tif", image(kinds, 8))
        heights = np.where(kinds == 2, 12.5, 0).astype(np.float32)
        heights[:4, :4] = np.nan
        write(root / f"{stem}_AGL.tif", heights)
        write(root / f"{stem}_CLS.tif", codes[kinds])


def write_flair(root):
    domains = (("train", "D006_2020"), ("train", "D004_2021"), ("test", "D012_2019"))
    for number, (part, domain) in enumerate(domains):
        for patch in range(2):
            kinds = blocks(10 * number + patch, 19)
            place = {"crs": "EPSG:2154", "origin": (800_000 + 200 * patch, 6_500_000 + 200 * number), "pixel_m": 0.2}
            name = f"{domain}/Z10_AU/{{}}/{{}}_{10 * number + patch:06}.tif"
            heights = np.where(kinds == 0, 30, 0).astype(np.uint8)  # 6 m
            bands = np.concatenate([image(kinds, 4), heights[None]])
            write(root / f"flair_aerial_{part}" / name.format("img", "IMG"), bands, **place)
            write(root / f"flair_labels_{part}" / name.format("msk", "MSK"), kinds + 1, **place)


def write_flair_hub(root, *, lists=True):
    names = {}
    for number, (split, domain) in enumerate((("train", "D006-2020"), ("val", "D004-2021"), ("test", "D012-2019"))):
        place = {"crs": "EPSG:2154", "origin": (800_000, 6_500_000 + 200 * number), "pixel_m": 0.2}
        kinds = blocks(number, 19)

        def path(kind, domain=domain):
            return Path(f"{domain}_{kind}/FF-S1-14/{domain}_{kind}_FF-S1-14_5-5.tif")

        write(root / path("AERIAL_RGBI"), image(kinds, 4), **place)
        ground = np.full(kinds.shape, 100, np.float32)
        write(root / path("DEM_ELEV"), np.stack([ground + 7 * (kinds == 0), ground]), **place)
        write(root / path("AERIAL_LABEL-COSIA"), kinds, **place)
        names[split] = [path(kind).as_posix() for kind in ("AERIAL_RGBI", "DEM_ELEV", "AERIAL_LABEL-COSIA")]
    if lists:
        (root / "csv").mkdir()
        for split, paths in names.items():
            header = "AERIAL_RGBI,DEM_ELEV,AERIAL_LABEL-COSIA"
            rows = [",".join(paths), "x/D099-2020_AERIAL_RGBI_FF-S1-14_5-5.tif,,"]  # a domain that is not there
            (root / f"csv/{split.upper()}_FLAIR-HUB.csv").write_text("\n".join([header, *rows]) + "\n")


def write_gamus(root, *, hdf5=False):
    """A tile of Washington and one of New York in each part; as HDF5 with their faults."""
    for part in ("train", "val", "test"):
        for seed, tile in enumerate(("DC_01_25", "NYC_00735")):
            kinds = blocks(3 + seed, 7)
            heights = (8.5 * (kinds == 3)).astype(np.float32)
            if not hdf5:
                write(root / f"images/{part}/{tile}_RGB.tif", image(kinds, 3))
                write(root / f"heights/{part}/{tile}_AGL.tif", heights)
                write(root / f"classes/{part}/{tile}_CLS.tif", kinds)
                continue
            colours = np.moveaxis(image(kinds, 3), 0, -1)  # the colours come last
            heights[:2, :4] = -5 if tile.startswith("DC") else -0.25  # no measurement; noise of a measurement
            labels = kinds if tile.startswith("DC") else kinds.astype(np.float32)
            ending = "RGB" if tile.startswith("DC") else "IMG"
            write_hdf5(root / f"images/{part}/{tile}_{ending}.h5", {"image": colours})
            write_hdf5(root / f"heights/{part}/{tile}_AGL.h5", {"image": heights})
            write_hdf5(root / f"classes/{part}/{tile}_CLS.h5", {"image": labels})


def write_hdf5(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


NYU_SCENES = ("kitchen_0004", "kitchen_0004", "bedroom_0010a", "bedroom_0010a", "office_0002")
"""Scene of each picture in the MATLAB file."""

NYU_CODES = np.arange(894) % 40 + 1
"""Class of each name of an object in the MATLAB file, counted from 1."""


def nyu_arrays(number):
    """Picture (3, H, W), distances, measured distances (m) and numbers of objects (H, W) of a picture, 48 x 64 px."""
    kinds = blocks(number, 41)[:48]
    depth = (1.5 + 0.01 * kinds).astype(np.float32)
    raw = depth.copy()
    raw[:3, :2], raw[3, :2] = 0, np.nan  # where the sensor saw nothing
    objects = np.where(kinds == 0, 0, kinds.astype(np.uint16) + 40 * (number % 3))  # 0: no label
    return image(kinds, 3, number), depth, raw, objects.astype(np.uint16)


def write_nyu_file(root, *, splits=True, classes=True, scenes=NYU_SCENES):
    """The MATLAB 7.3 file with the axes reversed, and the two small files of MATLAB 5; picture 5 is of test."""
    pictures = [nyu_arrays(number) for number in range(len(NYU_SCENES))]
    images, depths, raw, labels = (np.stack(part).swapaxes(-1, -2) for part in zip(*pictures, strict=True))
    root.mkdir(parents=True, exist_ok=True)
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in {"images": images, "depths": depths, "rawDepths": raw, "labels": labels}.items():
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
        if scenes is not None:
            for number, scene in enumerate(scenes):
                file[f"#refs#/{number}"] = np.array([[ord(letter)] for letter in scene], np.uint16)
            references = [file[f"#refs#/{number}"].ref for number in range(len(scenes))]
            file.create_dataset("scenes", data=np.array([references], h5py.ref_dtype))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    if splits:
        write_nyu_splits(root, test=(5,))
    if classes:
        scipy.io.savemat(root / "classMapping40.mat", {"mapClass": NYU_CODES[None].astype(np.uint8)})


def write_nyu_splits(root, test):
    """The official splits: the numbers of the pictures of test, all others are of train."""
    train = [number for number in range(1, len(NYU_SCENES) + 1) if number not in test]
    lists = {"trainNdxs": train, "testNdxs": test}
    scipy.io.savemat(root / "splits.mat", {k: np.array(v, np.uint16)[:, None] for k, v in lists.items()})


def write_nyu_raw(root):
    write_nyu_file(root)
    unpack_dataset(PRESETS["nyu-raw"], root)


def write_nyu(root, train=("0", "1", "2"), test=("3",)):
    for number in (*train, *test):
        kinds = blocks(int(number), 41)
        write(root / f"RGB/{number}.jpg", image(kinds, 3))
        write(root / f"Depth/{number}.png", (1500 + 10 * kinds.astype(int)).astype(np.uint16))  # mm
        write(root / f"Label/{number}.png", kinds)
    (root / "train.txt").write_text("\n".join(train) + "\n")
    (root / "test.txt").write_text("\n".join(test) + "\n")


def write_mid_air(root):
    frames = (
        ("Kite_training", "3001", 0),
        ("Kite_training", "3001", 1),
        ("PLE_training", "4000", 0),
        ("PLE_test", "4001", 0),
    )
    for part, trajectory, frame in frames:
        kinds = blocks(frame, 5)
        folder = root / part / "sunny"
        write(folder / f"color_left/trajectory_{trajectory}/{frame:06}.JPEG", image(kinds, 3))
        metres = (12.5 + kinds).astype(np.float16)
        write(folder / f"depth/trajectory_{trajectory}/{frame:06}.PNG", metres.view(np.uint16))
        write(folder / f"segmentation/trajectory_{trajectory}/{frame:06}.PNG", kinds)


WRITERS = {
    "potsdam": write_potsdam,
    "potsdam-ndsm": write_potsdam,
    "vaihingen": write_vaihingen,
    "vaihingen-ndsm": write_vaihingen,
    "geonrw": write_geonrw,
    "dfc2022": write_dfc2022,
    "us3d": write_us3d,
    "flair": write_flair,
    "flair-hub": write_flair_hub,
    "gamus": write_gamus,
    "nyu": write_nyu,
    "nyu-13": write_nyu,
    "nyu-raw": write_nyu_raw,
    "mid-air": write_mid_air,
}
"""A writer for each preset."""
