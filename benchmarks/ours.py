"""A prediction by geocrodino, and its forward passes alone, in a process that loads only what a user's process loads.

Called by the other benchmarks:

    python benchmarks/ours.py predict BUNDLE SCENE OUT OPTIONS      options of geocrodino.predict as JSON
    python benchmarks/ours.py bare BUNDLE SCENE BACKEND PRECISION   the forward passes of the same tiles alone
"""

from __future__ import annotations

import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measured import report_peak

WORKERS = 2
"""Tiles computed at once."""


def command(*words: object) -> list[str]:
    """Compose the command that runs this file.

    Args:
        *words: Arguments of this file.

    Returns:
        The words of the command.
    """
    return [sys.executable, __file__, *map(str, words)]


def hole_of(side: int) -> tuple[int, int, int, int]:
    """Locate the nodata rectangle of a scene of `prediction.write_scene`.

    Args:
        side: Height and width of the scene in px.

    Returns:
        First and last row, first and last column; ends are exclusive.
    """
    return side // 4, side // 2, side // 4, side // 2


def predict(bundle: str, scene: str, out: str, options: str) -> None:
    """Predict as the command does.

    Args:
        bundle: Path of the bundle.
        scene: Path of the scene.
        out: Path of the map.
        options: Options of `geocrodino.predict` as JSON: values by group (``tiling``, ``execution``, ``outputs``), and
            ``elevation``, the path of a surface model, for a map of both modalities.
    """
    from geocrodino import Execution, Outputs, Tiling, predict
    from geocrodino.prediction.memory import share_freed_memory

    share_freed_memory()
    given = json.loads(options)
    predict(
        scene,
        out,
        bundle,
        "both" if "elevation" in given else "optical",
        elevation=given.get("elevation"),
        tiling=Tiling(**given.get("tiling", {})),
        execution=Execution(workers=WORKERS, **given.get("execution", {})),
        outputs=Outputs(**given.get("outputs", {})),
    )


def bare(bundle: str, scene: str, backend: str, precision: str) -> None:
    """Compute the forward passes of the tiles that a prediction computes, on random values, and nothing else.

    Args:
        bundle: Path of the bundle.
        scene: Path of the scene; only its size is read.
        backend: Name of the inference backend.
        precision: Numbers that the network computes in.
    """
    import numpy as np
    import rasterio

    from geocrodino import load_bundle
    from geocrodino.geo.rasters.grid import round_up
    from geocrodino.prediction.backends.open import open_backend
    from geocrodino.prediction.tiles.choose import EXACT_CORE_PX, even_tiles
    from geocrodino.prediction.tiles.lattice import TileLattice
    from geocrodino.prediction.tiles.predictor import one_thread, one_thread_per_network

    loaded = load_bundle(Path(bundle))
    with rasterio.open(scene) as source:
        shape, bands = source.shape, source.count
    stride = loaded.manifest.network.stride_px
    core, seen = round_up(EXACT_CORE_PX, stride), loaded.manifest.receptive_field_px or 0
    lattice = even_tiles(TileLattice.exact(shape, core_px=core, stride_px=stride, receptive_field_px=seen))
    work = open_backend(
        loaded,
        "optical",
        name=backend,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        workers=WORKERS,
        unused_px=lattice.unused_px,
    )
    h0, h1, v0, v1 = hole_of(shape[0])
    tiles = 0
    for index in itertools.product(*map(range, lattice.count)):
        r0, r1, c0, c1 = lattice.support(index)
        tiles += not (h0 <= r0 and r1 <= h1 and v0 <= c0 and c1 <= v1)
    values = np.random.default_rng(0).random((bands, *lattice.tile_shape), np.float32)
    with one_thread_per_network(), ThreadPoolExecutor(WORKERS, initializer=one_thread) as pool:
        list(pool.map(lambda _: work.classes(values).shape, range(tiles)))


if __name__ == "__main__":
    {"predict": predict, "bare": bare}[sys.argv[1]](*sys.argv[2:])
    report_peak()
