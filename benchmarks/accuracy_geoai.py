"""Train a segmentation network with geoai, in its own environment. Called by accuracy.py:

    PYTHON benchmarks/accuracy_geoai.py TILES SETTINGS

``TILES`` holds ``images`` and ``labels`` (GeoTIFF files of the same names, those of validation begin with ``val``) and
``start.pth``, the network before the training. ``SETTINGS`` are arguments of `geoai.train.train_segmentation_model` as
JSON. Writes ``best_model.pth`` to ``TILES`` and prints the seconds of the training as JSON.

geoai draws its validation tiles at random from all tiles. Here they are those of the split ``val``: the function that
it draws them with is replaced. Nothing else of geoai is changed. Nothing of geocrodino is imported.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def split_by_name(images: list[str], labels: list[str], **_: Any) -> list[list[str]]:
    """Split tiles by their names, in place of scikit-learn's `train_test_split`.

    Args:
        images: Files of the images.
        labels: Files of the labels, in the same order.
        **_: Not used: share and seed of a random split.

    Returns:
        Images of train, images of val, labels of train, labels of val.
    """
    held_out = [Path(name).name.startswith("val") for name in images]
    return [
        [name for name, held in zip(names, held_out, strict=True) if held == wanted]
        for names in (images, labels)
        for wanted in (False, True)
    ]


def main(tiles: str, settings: str) -> None:
    """Train and print the seconds.

    Args:
        tiles: Folder of the tiles.
        settings: Arguments of the training, as JSON.
    """
    from geoai import train

    train.train_test_split = split_by_name
    folder = Path(tiles)
    started = time.perf_counter()
    train.train_segmentation_model(
        images_dir=str(folder / "images"),
        labels_dir=str(folder / "labels"),
        output_dir=str(folder),
        encoder_weights=None,
        checkpoint_path=str(folder / "start.pth"),
        num_workers=0,
        verbose=False,
        **json.loads(settings),
    )
    print(json.dumps(time.perf_counter() - started))


if __name__ == "__main__":
    main(*sys.argv[1:])
