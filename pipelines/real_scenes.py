"""Train, predict and score a scene with several seeds: from the image, from the heights, and from both.

    export GEOCRODINO_REAL_DATA=/path/to/data
    python pipelines/real_scenes.py configs/autzen.yaml
    python pipelines/real_scenes.py configs/zion.yaml
    python pipelines/real_scenes.py configs/mars.yaml
    python pipelines/real_scenes.py town

``town`` is the generated town; its networks are also scored on towns that no training has seen (see unseen_towns.py).

All networks are trained on the ``train`` polygons; the epoch of each branch is chosen on ``val``; scores are for
``test``. Maps are made with `geocrodino.predict` as a user makes them; ``both`` is the image with `--elevation`. A
random forest on single pixels is trained on the same channels for comparison (``--no-forest`` leaves it out).

Prints the tables and writes them with their numbers to ``docs/results``. Finished runs in ``--out`` are not repeated
unless their settings changed; interrupted ones are continued. For a trial, give ``--fragments`` another folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fragments import FRAGMENTS, command_line, describe_device, settings_of, write_fragment
from sklearn.ensemble import RandomForestClassifier
from spread import spread
from trainings import trained_minutes
from unseen_towns import SEEDS as UNSEEN
from unseen_towns import write_unseen_towns

from geocrodino.bundle.io import load_bundle
from geocrodino.evaluation.evaluate import evaluate_maps
from geocrodino.evaluation.results import Comparison
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import class_map
from geocrodino.maps.preview import map_preview
from geocrodino.maps.writer import MapWriter
from geocrodino.prediction.engine import predict
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig, load_config
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import Inputs, Outputs
from geocrodino.town.write import ScenePaths, write_scene
from geocrodino.training.prepare import Prepared, prepare

SOURCES: dict[str, tuple[Modality, ...]] = {
    "image": ("optical",), "heights": ("elevation",), "both": ("optical", "elevation"),
}  # fmt: skip
"""What a map is made from, with its modalities."""

_FOREST_PX = 20_000
"""Training pixels of each class for the forest."""

Labels = Mapping[str, tuple[Path, tuple[int, ...]]]
"""Labels to score on by name: the file, and values to leave out."""


@dataclass(frozen=True)
class Result:
    """Result of one method with one seed.

    Attributes:
        minutes: Time of the training.
        seconds: Time of each prediction by source; empty for the forest.
        scores: The maps of all sources compared with labels, by name of the labels.
    """

    minutes: float
    seconds: dict[str, float]
    scores: dict[str, Comparison]


def main() -> None:
    """Perform the missing runs, print the tables and write them."""
    options = _options()
    changes = {"training.epochs": options.epochs, "training.steps_per_epoch": options.steps}
    changes |= {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in options.set)}
    name = Path(options.scene).stem
    folder = options.out / name
    file = town_config(folder / "scene") if options.scene == "town" else Path(options.scene)
    config = load_config(file, changes)
    labels = labels_to_score_on(config, options.points, options.points_ignore)
    configs = {seed: load_config(file, {**changes, "training.seed": seed}) for seed in options.seeds}
    rows = {"geocrodino": [network_result(c, folder / f"seed{s}", labels) for s, c in configs.items()]}
    if not options.no_forest:
        rows["random forest on single pixels"] = [
            _forest(c, folder / f"forest{s}", s, labels) for s, c in configs.items()
        ]
    table = [line for each in labels for line in _table(each, rows, several=len(labels) > 1)]
    facts = {
        "scene": name,
        "split": "test",
        "seeds": options.seeds,
        "settings": settings_of(config),
        "device": describe_device(config.training.accelerator),
        "training_minutes": [result.minutes for result in rows["geocrodino"]],
        "prediction_seconds": {s: [result.seconds[s] for result in rows["geocrodino"]] for s in SOURCES},
        "rows": [record for each in labels for record in _records(each, rows)],
    }
    print(f"\n## {name}, split test, seeds {', '.join(map(str, options.seeds))}\n")
    print("\n".join(table))
    write_fragment(f"default-{name}", table, command_line(), facts, options.fragments)
    if options.scene == "town":
        bundles = [folder / f"seed{seed}" / "bundle.safetensors" for seed in options.seeds]
        write_unseen_towns(bundles, options.unseen, options.out / "unseen towns", options.fragments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", help="configuration file, or town")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="instead of the epochs of the configuration")
    parser.add_argument("--steps", type=int, help="steps of an epoch, instead of those of the configuration")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more changes by dotted key")
    parser.add_argument("--points", type=Path, help="additional labels to score on, such as sparse hand labels")
    parser.add_argument("--points-ignore", type=int, nargs="*", default=[], help="values of these labels to leave out")
    parser.add_argument("--unseen", type=int, nargs="+", default=list(UNSEEN), help="seeds of the unseen towns")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="folder of the runs")
    parser.add_argument("--fragments", type=Path, default=FRAGMENTS, help="folder of the tables; docs/results")
    parser.add_argument("--no-forest", action="store_true", help="leave the random forest out")
    return parser.parse_args()


def town_config(folder: Path) -> Path:
    """Name the configuration of the generated town that networks are trained on.

    Args:
        folder: Folder of the town; it is written if it does not exist.

    Returns:
        The file.
    """
    paths = ScenePaths.within(folder)
    return paths.config if paths.config.exists() else write_scene(folder, overwrite=True).config


def labels_to_score_on(config: TrainConfig, points: Path | None = None, ignore: Sequence[int] = ()) -> Labels:
    """List the labels of a scene.

    Args:
        config: The settings.
        points: Additional labels; None: ``labels_points.tif`` beside the labels if it exists.
        ignore: Values of the additional labels to leave out; none given: classes named other.

    Returns:
        The labels by name.
    """
    labels = {"labels": (config.data.labels, config.data.ignore_values)}
    points = points or _hand_points(config)
    if points is not None:
        labels["hand points"] = (points, tuple(ignore) or _classes_missing_in(points, config))
    return labels


def network_result(config: TrainConfig, run: Path, labels: Labels) -> Result:
    """Train, predict from each source, and score. What is done already with the same settings is not repeated.

    Args:
        config: The settings.
        run: Run folder.
        labels: Labels to score on.

    Returns:
        The result. The maps are in the folder ``maps`` of the run, one for each source.
    """
    maps = run / "maps"
    minutes = trained_minutes(config, run, lambda: shutil.rmtree(maps, ignore_errors=True))
    seconds = {source: _predicted(config, run, maps / f"{source}.tif", source) for source in SOURCES}
    return Result(minutes, seconds, _scored(maps, config, labels))


def _predicted(config: TrainConfig, run: Path, target: Path, source: str) -> float:
    """Make a map unless it exists, and return the seconds that it took."""
    took = target.with_suffix(".json")
    if not (target.exists() and took.exists()):
        target.parent.mkdir(parents=True, exist_ok=True)
        rasters, modalities = config.data.raster_paths, SOURCES[source]
        heights = Inputs(ground=config.data.ground, height_unit=config.data.height_unit)
        started = time.monotonic()
        predict(
            rasters[modalities[0]],
            target,
            load_bundle(run / "bundle.safetensors"),
            "both" if len(modalities) > 1 else modalities[0],
            elevation=rasters["elevation"] if len(modalities) > 1 else None,
            inputs=heights if "elevation" in modalities else Inputs(),
            outputs=Outputs(overwrite=True),
        )
        took.write_text(json.dumps(time.monotonic() - started))
        map_preview(target, target.with_suffix(".png"))
    seconds: float = json.loads(took.read_text())
    return seconds


def _forest(config: TrainConfig, folder: Path, seed: int, labels: Labels) -> Result:
    """150 trees on the same channels, pixel by pixel, from a sample with equally many pixels of each class."""
    record, maps = folder / "trained.json", folder / "maps"
    learns_from = {key: settings_of(config)[key] for key in ("data", "classes", "elevation")}
    if not record.exists() or json.loads(record.read_text())["settings"] != learns_from:
        maps.mkdir(parents=True, exist_ok=True)
        ready = prepare(config, folder)
        minutes = sum(_forest_map(ready, m, seed, maps / f"{source}.tif") for source, m in SOURCES.items()) / 60
        record.write_text(json.dumps({"settings": learns_from, "minutes": minutes}))
    return Result(json.loads(record.read_text())["minutes"], {}, _scored(maps, config, labels))


def _forest_map(ready: Prepared, modalities: tuple[Modality, ...], seed: int, target: Path) -> float:
    """Train a forest and write its map; return the seconds that its training took."""
    channels = np.concatenate([ready.scenes[0].layers.channels(m) for m in modalities])
    indices = ready.scenes[0].layers.class_indices()
    usable = ready.scenes[0].inside["train"] & (indices != IGNORE_INDEX) & np.isfinite(channels).all(axis=0)
    rng = np.random.default_rng(seed)
    chosen = []
    for index in np.unique(indices[usable]):
        pixels = np.flatnonzero(usable & (indices == index))
        chosen.append(rng.choice(pixels, _FOREST_PX, replace=len(pixels) < _FOREST_PX))
    pixels = np.concatenate(chosen)
    started = time.monotonic()
    forest = RandomForestClassifier(150, n_jobs=2, random_state=seed)
    forest.fit(channels.reshape(len(channels), -1)[:, pixels].T, indices.ravel()[pixels])
    seconds = time.monotonic() - started
    with MapWriter((class_map(target, ready.classes),), ready.grid, overwrite=True) as writer:
        for window in ready.scenes[0].layers.blocks():
            values = ready.classes.to_values(_forest_block(forest, channels, window))
            writer.write(window, [values[None]])
    return seconds


def _forest_block(forest: RandomForestClassifier, channels: np.ndarray, window: Window) -> np.ndarray:
    values = channels[:, window[0] : window[1], window[2] : window[3]]
    valid = np.isfinite(values).all(axis=0)
    out = np.full(valid.shape, IGNORE_INDEX, np.uint8)
    if valid.any():
        out[valid] = forest.predict(values[:, valid].T)
    return out


def _scored(maps: Path, config: TrainConfig, labels: Labels) -> dict[str, Comparison]:
    files = {source: maps / f"{source}.tif" for source in SOURCES}
    return {
        name: evaluate_maps(
            files, path, aoi=config.data.aoi, split="test", ignore_values=ignored, label_values=config.data.label_values
        )
        for name, (path, ignored) in labels.items()
    }


def _hand_points(config: TrainConfig) -> Path | None:
    found = Path(config.data.labels).with_name("labels_points.tif")
    return found if found.exists() else None


def _classes_missing_in(points: Path, config: TrainConfig) -> tuple[int, ...]:
    """Training classes that the hand labels do not distinguish (other structures at Autzen)."""
    return tuple(c.value for c in config.classes or () if c.name.startswith("other"))


def _records(labels: str, rows: Mapping[str, list[Result]]) -> list[dict[str, Any]]:
    """Scores in %, one value for each seed; see the table for their meaning."""
    return [
        {
            "labels": labels,
            "method": method,
            "from": source,
            "pixels": results[0].scores[labels].evaluations[source].scores.pixels,
            "miou": [100 * r.scores[labels].evaluations[source].scores.mean_iou for r in results],
            "miou_same_pixels": [100 * r.scores[labels].common[source].scores.mean_iou for r in results],
            "iou": _class_scores(labels, source, results),
            "no_class": [
                100 * s.missed / s.pixels for s in (r.scores[labels].evaluations[source].scores for r in results)
            ],
        }
        for method, results in rows.items()
        for source in SOURCES
    ]


def _class_scores(labels: str, source: str, results: list[Result]) -> dict[str, list[float]]:
    """IoU in % of each class in the labels, one value for each seed."""
    first = results[0].scores[labels].evaluations[source]
    present = [index for index, count in enumerate(first.scores.support) if count]
    return {
        first.scheme.names[i]: [100 * r.scores[labels].evaluations[source].scores.iou[i] for r in results]
        for i in present
    }


def _table(labels: str, rows: Mapping[str, list[Result]], *, several: bool) -> list[str]:
    records = _records(labels, rows)
    names = list(dict.fromkeys(name for record in records for name in record["iou"]))
    head = ["method", "from", "mIoU", "mIoU, same pixels", *names, "no class %"]
    lines = [f"Scored on {labels}, {records[0]['pixels']:,} pixels:", ""] if several else []
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for record in records:
        classes = [spread(record["iou"][name]) if name in record["iou"] else "" for name in names]
        scores = [spread(record["miou"]), spread(record["miou_same_pixels"]), *classes]
        lines.append(
            f"| {' | '.join([record['method'], record['from'], *scores, format(np.mean(record['no_class']), '.1f')])} |"
        )
    return [*lines, ""]


if __name__ == "__main__":
    main()
