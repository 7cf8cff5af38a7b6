"""Score bundles on generated towns of 1 km2 that no training has seen: from the image, the heights, and both.

    python pipelines/unseen_towns.py runs/results/town/seed*/bundle.safetensors

The bundles must know the classes of the generated town; ``python pipelines/real_scenes.py town`` trains such bundles
and calls this. All labelled pixels of all towns are counted together, 12 million for three towns, so the scores vary
little by the choice of the pixels.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fragments import FRAGMENTS, command_line, describe_device, write_fragment
from numpy.typing import NDArray
from spread import spread

from geocrodino.bundle.io import load_bundle
from geocrodino.evaluation.evaluate import evaluate_maps
from geocrodino.evaluation.metrics import ConfusionMatrix, mean_iou
from geocrodino.files.access import whole_file
from geocrodino.prediction.engine import predict
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import Inputs, Outputs
from geocrodino.settings.town import CLASSES, SceneSettings
from geocrodino.town.write import ScenePaths, write_scene

SEEDS = (101, 102, 103)
"""Seeds of the towns. Trainings use the town of seed 0."""

SIZE_M = 1000.0
"""Side of a town."""

_SOURCES: dict[str, Modality | str] = {"image": "optical", "heights": "elevation", "both": "both"}


def main() -> None:
    """Score the given bundles and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", help="bundles of one method, one for each seed")
    parser.add_argument("--towns", type=int, nargs="+", default=list(SEEDS), help="seeds of the towns")
    parser.add_argument("--size-m", type=float, default=SIZE_M, help="side of a town, m")
    parser.add_argument("--out", type=Path, default=Path("runs/results/unseen towns"), help="folder of towns and maps")
    parser.add_argument("--fragments", type=Path, default=FRAGMENTS, help="folder of the tables; docs/results")
    options = parser.parse_args()
    write_unseen_towns(options.bundles, options.towns, options.out, options.fragments, size_m=options.size_m)


def write_unseen_towns(
    bundles: Sequence[Path], towns: Sequence[int], out: Path, fragments: Path, *, size_m: float = SIZE_M
) -> None:
    """Score bundles on towns, print the table and write it.

    Args:
        bundles: Bundles of one method, one for each seed of the training.
        towns: Seeds of the towns.
        out: Folder of towns and maps. Existing towns, and scores of the same bundle on the same town,
            are used again.
        fragments: Folder of the table.
        size_m: Side of a town, m.
    """
    scenes = [_town(seed, size_m, out) for seed in towns]
    counts = [[_counts(bundle, scene, out / "maps") for scene in scenes] for bundle in bundles]
    records = [_record(source, counts) for source in _SOURCES]
    facts = {
        "scene": "generated towns",
        "towns": list(towns),
        "size_m": size_m,
        "bundles": len(bundles),
        "networks": [load_bundle(bundle).manifest.network.model_dump(mode="json") for bundle in bundles],
        "device": describe_device(),
        "rows": records,
    }
    table = _table(records)
    print(f"\n## Towns {', '.join(map(str, towns))}, {len(bundles)} bundles\n")
    print("\n".join(table))
    write_fragment("unseen-towns", table, command_line(), facts, fragments)


def _town(seed: int, size_m: float, out: Path) -> ScenePaths:
    folder = out / f"town {seed}, {size_m:g} m"
    paths = ScenePaths.within(folder)
    whole = all(path.exists() for path in paths.all())
    return paths if whole else write_scene(folder, SceneSettings(size_m=size_m, seed=seed), overwrite=True)


def _counts(bundle: Path, scene: ScenePaths, maps: Path) -> dict[str, NDArray[np.int64]]:
    """Confusion counts by source and kind: ``all`` labelled pixels, (K, K + 1) with pixels without a class last, and
    ``same``, those that all maps cover, (K, K)."""
    key = hashlib.sha256(bundle.read_bytes() + scene.labels.read_bytes()).hexdigest()[:16]
    kept = maps / f"{key}.npz"
    if kept.exists():
        return dict(np.load(kept))
    maps.mkdir(parents=True, exist_ok=True)
    files = {source: maps / f"{source}.tif" for source in _SOURCES}
    for source, modality in _SOURCES.items():
        predict(
            scene.elevation if source == "heights" else scene.optical,
            files[source],
            bundle,
            modality,  # type: ignore[arg-type]
            elevation=scene.elevation if source == "both" else None,
            inputs=Inputs(),
            outputs=Outputs(overwrite=True),
        )
    compared = evaluate_maps(files, scene.labels)
    found = {f"{s}|all": np.column_stack([e.confusion, e.missed]) for s, e in compared.evaluations.items()}
    found |= {f"{s}|same": e.confusion for s, e in compared.common.items()}
    with whole_file(kept) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **found)
    return found


def _record(source: str, counts: list[list[dict[str, NDArray[np.int64]]]]) -> dict[str, Any]:
    """Scores in %: one value for each bundle, over all towns together; and the mean over bundles of each town."""
    together = [np.sum([town[f"{source}|all"] for town in towns], axis=0) for towns in counts]
    same = [np.sum([town[f"{source}|same"] for town in towns], axis=0) for towns in counts]
    scores = []
    for table in together:
        matrix = ConfusionMatrix(len(table))
        matrix.counts += table[:, :-1]
        matrix.missed += table[:, -1]
        scores.append(matrix.scores())
    by_town = [[float(mean_iou(town[f"{source}|all"][:, :-1])) for town in towns] for towns in counts]
    return {
        "labels": "labels",
        "method": "geocrodino",
        "from": source,
        "pixels": scores[0].pixels,
        "miou": [100 * s.mean_iou for s in scores],
        "miou_same_pixels": [100 * float(mean_iou(table)) for table in same],
        "iou": {name: [100 * s.iou[i] for s in scores] for i, name in enumerate(CLASSES.names)},
        "no_class": [100 * s.missed / s.pixels for s in scores],
        "miou_by_town": [100 * float(np.mean(values)) for values in zip(*by_town, strict=True)],
    }


def _table(records: list[dict[str, Any]]) -> list[str]:
    names = list(records[0]["iou"])
    head = ["from", "mIoU", "mIoU, same pixels", *names, "no class %", "single towns"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for record in records:
        classes = [spread(record["iou"][name]) for name in names]
        cells = [record["from"], spread(record["miou"]), spread(record["miou_same_pixels"]), *classes]
        towns = f"{min(record['miou_by_town']):.1f} to {max(record['miou_by_town']):.1f}"
        lines.append(f"| {' | '.join([*cells, format(np.mean(record['no_class']), '.1f'), towns])} |")
    return lines


if __name__ == "__main__":
    main()
