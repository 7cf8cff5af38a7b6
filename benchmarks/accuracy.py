"""Compare the accuracy of geocrodino with what people would use instead, on the same splits and patches.

    export GEOCRODINO_REAL_DATA=/path/to/data
    python benchmarks/accuracy.py --scene configs/autzen.yaml

Compared are: geocrodino's branches, and both together; its method ``fusion``, one network on both rasters;
torchgeo's `SemanticSegmentationTask` with the models ``unet`` and ``deeplabv3+``; geoai's `train_segmentation_model`
with the same models. A peer is trained from the image, from the heights (one channel: the height itself) and from both
stacked as bands. geoai runs in an environment of its own, named by ``--geoai-python``; without it, its row says
skipped. What each gets is written at the beginning of accuracy_peers.py. All encoders are EfficientNet-Lite0 and start
from the same ImageNet weights.

``--equal patches``: every network sees as many patches as geocrodino. ``--equal minutes``: a network of torchgeo trains
for the wall time that geocrodino needs for its two branches; geoai has no such limit and sees as many patches.

Scores are mIoU in % on ``test``, on the labelled pixels where every map has a class, by `geocrodino.evaluate_maps`.
Finished runs in ``--out`` are not repeated unless their settings changed. Writes the table to ``docs/results``; for a
trial, give ``--fragments`` another folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_peers import BACKBONE, Peer, PeerDataset, create_network, train_geoai, train_torchgeo
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "pipelines"))
from fragments import FRAGMENTS, command_line, describe_device, settings_of, write_fragment
from real_scenes import labels_to_score_on, network_result, town_config
from scoring import load_networks, with_margin
from spread import spread
from trainings import trained_minutes

from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import covering_windows
from geocrodino.data.scenes import AlignedScene
from geocrodino.evaluation.evaluate import evaluate_maps
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import class_map
from geocrodino.maps.writer import MapWriter
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig, load_config
from geocrodino.settings.modality import Modality
from geocrodino.training.learners.base import network_input, network_valid
from geocrodino.training.prepare import Prepared, prepare

SOURCES: dict[str, tuple[Modality, ...]] = {
    "image": ("optical",), "heights": ("elevation",), "both": ("optical", "elevation"),
}  # fmt: skip
"""What a network reads."""

OURS, FUSION = "geocrodino", "geocrodino, fusion"

_WINDOW_PX, _MARGIN_PX = 512, 160


@dataclass(frozen=True)
class Run:
    """One trained network, or geocrodino's two branches.

    Attributes:
        method: Name of the row.
        seed: Seed of the training.
        minutes: Wall time of the training.
        maps: Class maps by source.
        parameters: Number of parameters.
    """

    method: str
    seed: int
    minutes: float
    maps: dict[str, Path]
    parameters: int


def main() -> None:
    """Train what is missing, print the table and write it."""
    options = _options()
    changes = _changes(options)
    name = Path(options.scene).stem
    folder = options.out / f"{name}, equal {options.equal}"
    file = town_config(folder / "scene") if options.scene == "town" else Path(options.scene)
    config, runs = load_config(file, changes), []
    for seed in options.seeds:
        seeded = load_config(file, {**changes, "training.seed": seed})
        runs += _ours(seeded, folder / f"seed{seed}")
        limit = runs[-2].minutes if options.equal == "minutes" else None
        runs += _peers(seeded, folder / f"seed{seed}", options, limit)
    labels = labels_to_score_on(config)
    records = [record for each in labels for record in score(each, config, labels[each], runs)]
    skipped = [] if options.geoai_python else ["geoai"]
    table = [line for each in labels for line in make_table(each, records, skipped)]
    facts = {
        "scene": name,
        "split": "test",
        "seeds": options.seeds,
        "equal": options.equal,
        "settings": settings_of(config),
        "encoder": BACKBONE,
        "weights": "imagenet",
        "device": describe_device(config.training.accelerator),
        "rows": records,
    }
    print("\n".join(table))
    table_name = f"peers-{name}" if options.equal == "patches" else f"peers-{name}-minutes"
    write_fragment(table_name, table, command_line(), facts, options.fragments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", required=True, help="configuration file, or town")
    parser.add_argument("--steps", type=int, help="steps in all, instead of those of the configuration")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--equal", choices=["patches", "minutes"], default="patches", help="what all have in common")
    parser.add_argument("--models", nargs="*", default=["unet", "deeplabv3+"], choices=["unet", "deeplabv3+"])
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES), help="inputs of peers")
    parser.add_argument("--geoai-python", type=Path, help="interpreter of an environment with geoai-py")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="folder of the runs")
    parser.add_argument("--fragments", type=Path, default=FRAGMENTS, help="folder of the tables; docs/results")
    return parser.parse_args()


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """Changes of the configuration: the common encoder and its weights, and the number of steps."""
    changes: dict[str, Any] = {"network.encoder": BACKBONE.removeprefix("tu-"), "encoder_weights": "imagenet"}
    return changes if options.steps is None else {**changes, **split_steps(options.steps)}


def split_steps(steps: int, most: int = 40) -> dict[str, int]:
    """Split steps into epochs, each of which ends with a validation.

    Args:
        steps: Number of steps.
        most: Largest number of steps of an epoch.

    Returns:
        Changes of the configuration: as few epochs as possible, rounded up to whole epochs of equal length.
    """
    epochs = -(-steps // most)
    return {"training.epochs": epochs, "training.steps_per_epoch": -(-steps // epochs)}


def _ours(config: TrainConfig, folder: Path) -> list[Run]:
    """The default method, and one network on both rasters."""
    seed, run = config.training.seed, folder / "geocrodino"
    result = network_result(config, run, {})
    counts = json.loads((run / "metrics.json").read_text())["parameters"]
    maps = {source: run / "maps" / f"{source}.tif" for source in SOURCES}
    ours = Run(OURS, seed, result.minutes, maps, sum(counts.values()))
    method = type(config.method)(name="fusion")
    return [ours, _fusion(config.model_copy(update={"method": method}), folder / "fusion")]


def _fusion(config: TrainConfig, run: Path) -> Run:
    target = run / "map.tif"
    minutes = trained_minutes(config, run, lambda: target.unlink(missing_ok=True))
    if not target.exists():
        ready = prepare(config, run)
        network = load_networks(run, config, ready)["fusion"].module
        dataset = CoregisteredDataset([AlignedScene.of(ready.scenes[0].layers)], ready.specs)

        def classes(window: Window) -> NDArray[np.uint8]:
            batch, at = with_margin(dataset, window, 32)
            logits = network(network_input("fusion", batch))
            return _cut(logits, network_valid("fusion", batch)[0], window, at)

        write_map(classes, ready, target, _WINDOW_PX)
    counts = json.loads((run / "metrics.json").read_text())["parameters"]
    return Run(FUSION, config.training.seed, minutes, {"both": target}, sum(counts.values()))


def _peers(config: TrainConfig, folder: Path, options: argparse.Namespace, minutes: float | None) -> list[Run]:
    """Train the peers on the image, the height itself, and both."""
    heights = config.elevation.model_copy(update={"channels": ("height",)})
    ready = prepare(config.model_copy(update={"elevation": heights}), folder / "for peers")
    libraries = ["torchgeo", *(["geoai"] if options.geoai_python else [])]
    chosen = [
        (source, Peer(library, model, SOURCES[source]))
        for library in libraries
        for model in options.models
        for source in options.sources
    ]
    return [_peer(peer, source, config, ready, folder, options, minutes) for source, peer in chosen]


def _peer(
    peer: Peer,
    source: str,
    config: TrainConfig,
    ready: Prepared,
    folder: Path,
    options: argparse.Namespace,
    minutes: float | None,
) -> Run:
    method = f"{peer.library}, {peer.model}"
    run = folder / method / source
    record, weights, target = run / "trained.json", run / "network.safetensors", run / "map.tif"
    limit = minutes if peer.library == "torchgeo" else None
    settings = {key: settings_of(config)[key] for key in ("data", "classes", "training", "encoder_weights")}
    settings["minutes"] = limit
    if not record.exists() or json.loads(record.read_text())["settings"] != settings:
        print(f"{run}: training", flush=True)
        run.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if peer.library == "torchgeo":
            network, spent = train_torchgeo(peer, ready, config.training, limit)
        else:
            network, spent = train_geoai(peer, ready, config.training, run, options.geoai_python)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
        count = sum(p.numel() for p in network.parameters())
        record.write_text(json.dumps({"settings": settings, "minutes": spent, "parameters": count}))
    if not target.exists():
        dataset = PeerDataset(ready, peer.modalities, library=peer.library)
        network = create_network(peer.model, dataset.channels, len(ready.classes))
        network.load_state_dict(load_file(weights))
        peer_map(network.eval(), dataset, peer, ready, config.training.patch_px, target)
    found = json.loads(record.read_text())
    return Run(method, config.training.seed, found["minutes"], {source: target}, found["parameters"])


def peer_map(
    network: nn.Module, dataset: PeerDataset, peer: Peer, ready: Prepared, patch_px: int, target: Path
) -> None:
    """Write the map of a peer's network, with as much context around each pixel as suits the network.

    Args:
        network: The network, in evaluation mode.
        dataset: Reads and scales its input.
        peer: What the network is.
        ready: The prepared scene.
        patch_px: Side of a training patch, px.
        target: The map.
    """
    core, margin = (patch_px // 2, patch_px // 4) if peer.is_pooled else (_WINDOW_PX, _MARGIN_PX)
    factor = np.float32(255 if peer.library == "geoai" else 1)

    def classes(window: Window) -> NDArray[np.uint8]:
        batch, at = with_margin(dataset.source, window, 32, margin)
        sample = _around(dataset, window, margin)
        pad = (0, batch["labels"].shape[-1] - sample.shape[-1], 0, batch["labels"].shape[-2] - sample.shape[-2])
        logits = network(nn.functional.pad(sample / factor, pad)[None])
        valid = torch.stack([batch[f"{m}_valid"][0] for m in dataset.modalities]).all(dim=0)
        return _cut(logits, valid, window, at)

    write_map(classes, ready, target, core)


def _around(dataset: PeerDataset, window: Window, margin: int) -> Tensor:
    """The input of a window and of a margin, as far as the grid reaches."""
    height, width = dataset.source.grid.shape
    r0, r1, c0, c1 = window
    around = Window(max(0, r0 - margin), min(height, r1 + margin), max(0, c0 - margin), min(width, c1 + margin))
    return dataset[around]["image"]


def _cut(logits: Tensor, valid: Tensor, window: Window, at: tuple[int, int]) -> NDArray[np.uint8]:
    """Class indices of a window, 255 where the input is not valid."""
    rows = slice(at[0], at[0] + window[1] - window[0])
    columns = slice(at[1], at[1] + window[3] - window[2])
    found = logits[0, :, rows, columns].argmax(dim=0)
    indices: NDArray[np.uint8] = torch.where(valid[rows, columns], found, IGNORE_INDEX).numpy().astype(np.uint8)
    return indices


@torch.inference_mode()
def write_map(classes: Any, ready: Prepared, target: Path, window_px: int) -> None:
    """Write the class map of the windows that meet ``test``; other pixels have no class.

    Args:
        classes: Function of a window that returns its class indices, uint8, 255 for none.
        ready: The prepared scene.
        target: The map, on the grid of the training.
        window_px: Side of a window, px.
    """
    height, width = ready.grid.shape
    indices = np.full((height, width), IGNORE_INDEX, np.uint8)
    for found in covering_windows(inside_mask(ready.checked[0].aoi.polygons("test"), ready.grid), window_px):
        window = found.intersect(Window(0, height, 0, width))
        indices[window.slices] = classes(window)
    with MapWriter((class_map(target, ready.classes),), ready.grid, overwrite=True) as writer:
        for block in ready.scenes[0].layers.blocks():
            writer.write(block, [ready.classes.to_values(indices[block.slices])[None]])


def score(
    name: str, config: TrainConfig, labels: tuple[Path, tuple[int, ...]], runs: Sequence[Run]
) -> list[dict[str, Any]]:
    """Compare the maps of each seed with labels, on the pixels where all of them have a class.

    Args:
        name: Name of the labels.
        config: The settings, which name the areas.
        labels: File of the labels, and values to leave out.
        runs: All runs.

    Returns:
        A record for each method and source; lists have one value for each seed, scores are in %.
    """
    records: dict[tuple[str, str], dict[str, Any]] = {}
    for seed in dict.fromkeys(run.seed for run in runs):
        own = [run for run in runs if run.seed == seed]
        files = {f"{run.method}|{source}": path for run in own for source, path in run.maps.items()}
        data = config.data
        compared = evaluate_maps(
            files, labels[0], aoi=data.aoi, split="test", ignore_values=labels[1], label_values=data.label_values
        )
        for run in own:
            for source in run.maps:
                empty = {"labels": name, "method": run.method, "from": source, "pixels": [], "miou": [], "minutes": []}
                record = records.setdefault((run.method, source), {**empty, "parameters": run.parameters})
                record["pixels"].append(compared.pixels)
                record["miou"].append(100 * compared.common[f"{run.method}|{source}"].scores.mean_iou)
                record["minutes"].append(run.minutes)
    return list(records.values())


def make_table(labels: str, records: Sequence[Mapping[str, Any]], skipped: Sequence[str] = ()) -> list[str]:
    """Make the table of one kind of labels.

    Args:
        labels: Name of the labels.
        records: Records of `score`.
        skipped: Libraries that were not run.

    Returns:
        Lines of Markdown: mIoU with its difference from geocrodino over the seeds that both have, minutes of all
        trainings of a row, and their ratio to geocrodino's.
    """
    own = [record for record in records if record["labels"] == labels]
    base = {record["from"]: record for record in own if record["method"] == OURS}
    lines = [
        f"Scored on {labels}:",
        "",
        f"| method | {' | '.join(SOURCES)} | minutes | of geocrodino | parameters, M |",
    ]
    lines.append("|" + "---|" * (len(SOURCES) + 4))
    for method in dict.fromkeys(record["method"] for record in own):
        rows = {record["from"]: record for record in own if record["method"] == method}
        cells = [_cell(rows.get(source), base.get(source)) for source in SOURCES]
        # geocrodino trains both branches in one run; a peer trains one network for each source.
        distinct = [rows["both"]] if method == OURS else list(rows.values())
        minutes = sum(float(np.mean(row["minutes"])) for row in distinct)
        ratio = minutes / float(np.mean(base["both"]["minutes"]))
        parameters = sum(row["parameters"] for row in distinct) / 1e6
        lines.append(f"| {method} | {' | '.join(cells)} | {minutes:.1f} | {ratio:.2f} | {parameters:.1f} |")
    lines += [f"| {library} | {' | '.join(['skipped'] * len(SOURCES))} | | | |" for library in skipped]
    return [*lines, ""]


def _cell(record: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    text = spread(record["miou"])
    if base is None or record["method"] == OURS:
        return text
    differences = [mine - ours for mine, ours in zip(record["miou"], base["miou"], strict=True)]
    return f"{text} ({np.mean(differences):+.1f})"


if __name__ == "__main__":
    main()
