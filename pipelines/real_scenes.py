"""Train, predict and score a scene with several seeds, and a random forest on single pixels for comparison.

    python pipelines/real_scenes.py configs/autzen.yaml --seeds 0 1 2
    python pipelines/real_scenes.py configs/zion.yaml --seeds 0 1 2

All methods are trained on the ``train`` polygons; the epoch of each branch is chosen on ``val``; scores are for
``test``. Prints the tables of docs/results.md. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from geocrodino.bundle.io import load_bundle
from geocrodino.evaluation.evaluate import Evaluation, evaluate_map
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import class_map
from geocrodino.maps.preview import map_preview
from geocrodino.maps.writer import MapWriter
from geocrodino.prediction.engine import predict
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig, load_config
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import Inputs
from geocrodino.training.run import Prepared, prepare, train

_FOREST_PX = 20_000
"""Training pixels of each class for the forest."""


@dataclass(frozen=True)
class Row:
    """Result of one method with one seed.

    Attributes:
        minutes: Time of the training.
        scores: Evaluations by branch and by name of the labels.
    """

    minutes: float
    scores: dict[Modality, dict[str, Evaluation]]


def main() -> None:
    """Perform the missing runs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--points", type=Path, help="additional labels to score on, such as sparse hand labels")
    parser.add_argument("--points-ignore", type=int, nargs="*", default=[], help="values of these labels to leave out")
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--no-forest", action="store_true")
    options = parser.parse_args()
    config = load_config(options.config)
    points = options.points or _hand_points(config)
    labels = {"labels": (config.data.labels, config.data.ignore_values)}
    if points is not None:
        labels["hand points"] = (points, tuple(options.points_ignore) or _classes_missing_in(points, config))
    folder = options.out / options.config.stem
    networks = [_network(options.config, folder / f"seed{s}", s, labels) for s in options.seeds]
    forests = [] if options.no_forest else [_forest(config, folder / f"forest{s}", s, labels) for s in options.seeds]
    print(f"\n## {options.config.stem}, split test, seeds {', '.join(map(str, options.seeds))}\n")
    for name in labels:
        _print_table(name, {"random forest on single pixels": forests, "geocrodino": networks})


def _network(file: Path, run: Path, seed: int, labels: dict[str, tuple[Path, tuple[int, ...]]]) -> Row:
    config = load_config(file, {"training.seed": seed})
    done = run / "minutes.json"
    if not done.exists():
        result = train(config, run, overwrite=True, tell=lambda text: print(f"{run}: {text}", flush=True))
        done.write_text(json.dumps(result.seconds / 60))
    bundle = load_bundle(run / "bundle.safetensors")
    scores: dict[Modality, dict[str, Evaluation]] = {}
    for modality in MODALITIES:
        scene = config.data.raster_paths[modality]
        target = run / f"{modality}.tif"
        started = time.monotonic()
        if not target.exists():
            heights = Inputs(ground=config.data.ground, height_unit=config.data.height_unit)
            predict(scene, target, bundle, modality, inputs=heights if modality == "elevation" else Inputs())
            map_preview(target, target.with_suffix(".png"))
            print(f"{target}: {time.monotonic() - started:.0f} s", flush=True)
        scores[modality] = _scored(target, config, labels)
    return Row(json.loads(done.read_text()), scores)


def _forest(config: TrainConfig, folder: Path, seed: int, labels: dict[str, tuple[Path, tuple[int, ...]]]) -> Row:
    """150 trees on the same channels, pixel by pixel, from a sample with equally many pixels of each class."""
    ready = prepare(config, folder)
    done = folder / "minutes.json"
    if not done.exists():
        seconds = [_forest_map(ready, modality, seed, folder / f"{modality}.tif") for modality in MODALITIES]
        done.write_text(json.dumps(sum(seconds) / 60))
    scores = {modality: _scored(folder / f"{modality}.tif", config, labels) for modality in MODALITIES}
    return Row(json.loads(done.read_text()), scores)


def _forest_map(ready: Prepared, modality: Modality, seed: int, target: Path) -> float:
    """Train a forest and write its map; return the seconds that its training took."""
    channels, indices = ready.layers.channels(modality), ready.layers.class_indices()
    usable = ready.inside["train"] & (indices != IGNORE_INDEX) & np.isfinite(channels).all(axis=0)
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
    with MapWriter((class_map(target, ready.classes),), ready.layers.grid, overwrite=True) as writer:
        for window in ready.layers.blocks():
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


def _scored(
    target: Path, config: TrainConfig, labels: dict[str, tuple[Path, tuple[int, ...]]]
) -> dict[str, Evaluation]:
    return {
        name: evaluate_map(target, path, aoi=config.data.aoi, split="test", ignore_values=ignored)
        for name, (path, ignored) in labels.items()
    }


def _hand_points(config: TrainConfig) -> Path | None:
    found = Path(config.data.labels).with_name("labels_points.tif")
    return found if found.exists() else None


def _classes_missing_in(points: Path, config: TrainConfig) -> tuple[int, ...]:
    """Training classes that the hand labels do not distinguish (other structures at Autzen)."""
    return tuple(c.value for c in config.classes or () if c.name.startswith("other"))


def _print_table(name: str, rows: dict[str, list[Row]]) -> None:
    first = next(r for r in rows.values() if r)[0].scores["optical"][name]
    print(f"### {name}: {first.scores.pixels:,} labelled pixels, mIoU and IoU in %, mean ± standard deviation\n")
    present = [i for i, n in enumerate(first.scores.support) if n]
    names = [first.scheme.names[i] for i in present]
    print(f"| method | modality | mIoU | {' | '.join(names)} | no class % | minutes |")
    print("|---|---|---|" + "---|" * (len(names) + 2))
    for method, seeds in rows.items():
        for modality in MODALITIES if seeds else ():
            scores = [s.scores[modality][name].scores for s in seeds]
            cells = [_spread([100 * s.mean_iou for s in scores])]
            cells += [_spread([100 * s.iou[i] for s in scores]) for i in present]
            missed = np.mean([100 * s.missed / s.pixels for s in scores])
            minutes = _spread([s.minutes for s in seeds])
            print(f"| {method} | {modality} | {' | '.join(cells)} | {missed:.1f} | {minutes} |")
    print()


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


if __name__ == "__main__":
    main()
