"""Compare a map of GeoDeep, made with an exported network, with that of ``geocrodino predict``.

    pip install geodeep onnxruntime==1.17.0 "numpy<2"     in an environment of its own; geocrodino is not needed
    python benchmarks/geodeep_map.py SCENE.tif NAME-optical.onnx MAP.tif

Class values of the bundle must be 0, 1, 2 and so on, as those of the generated town are. GeoDeep smooths its maps with
a median filter; the second line is without it.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import geodeep.geodeep as program
import numpy as np
import rasterio

EDGE_PX = 160


def main() -> None:
    """Print the share of pixels with the same class, with and without the median filter."""
    scene, network, class_map = sys.argv[1:4]
    with rasterio.open(class_map) as file:
        expected = file.read(1)
    inside = np.s_[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]
    print(f"geodeep {version('geodeep')}, onnxruntime {version('onnxruntime')}")
    for words in ("as it is", "without its median filter"):
        same = program.segment(scene, network) == expected
        print(f"{words}: {same.mean():.2%} of all pixels, {same[inside].mean():.2%} beyond {EDGE_PX} px from the edge")
        program.median_filter = lambda mask, _: mask


if __name__ == "__main__":
    main()
