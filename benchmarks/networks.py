"""Measure what each network of a study costs: size, receptive field, prediction and training, on this processor.

    python benchmarks/networks.py                              the networks of configs/studies/networks.yaml
    python benchmarks/networks.py --fragment networks-cost     write the table of the documentation as well
    python benchmarks/networks.py --sides 1024 --rounds 1 --only "EfficientNet-Lite0, pyramid"

All weights are random, because weights do not change the cost; nothing is downloaded. Methods of the plan that have the
same network are measured once. In each round all networks take turns. Tables show medians over rounds, and ratios are
medians of the ratios within a round, so that other programs disturb them less.

- Parameters and receptive field are those of the network for an image of three bands, as a bundle holds it. The
  receptive field is how far the network sees to each side of a pixel.
- A prediction is one process of `geocrodino.predict` from start to end, imports included, with two tiles at once, on a
  generated image of which a sixteenth is nodata. The first prediction of a bundle, which converts it, is not measured.
  Memory is the peak resident set.
- A training step (`steps.py`) is that of the default method on a generated town: the networks of both modalities, eight
  patches of 128 px with labels and those without. Processor seconds on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from measured import measure
from ours import WORKERS, command
from prediction import WARM_PX, write_bundle, write_scene
from steps import step_seconds

from geocrodino.bundle.io import load_bundle
from geocrodino.settings.config import TrainConfig, load_config
from geocrodino.town.write import ScenePaths
from geocrodino.town.write import write_scene as write_town
from geocrodino.training import number_format

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "pipelines"))

from fragments import FRAGMENTS, command_line, describe_device, write_fragment  # noqa: E402

PLAN = ROOT / "configs" / "studies" / "networks.yaml"
METHODS: dict[str, dict[str, Any]] = yaml.safe_load(PLAN.read_text())["methods"]
SETTINGS: dict[str, Any] = {"training.patch_px": 128, "training.batch_size": 8, "training.precision": "auto"}
"""Changes of the town's settings for every network."""


def changes_of(method: str) -> dict[str, Any]:
    """Compose the changes of the town's settings for a network.

    Args:
        method: Name of the method in the plan.

    Returns:
        Values by dotted key, with random weights.
    """
    return {**SETTINGS, **METHODS[method], "encoder_weights": "random"}


def different_networks(methods: Sequence[str], town: Path) -> tuple[dict[str, TrainConfig], dict[str, str]]:
    """Keep one of several methods that differ only in the weights they start from.

    Args:
        methods: Names of methods in the plan.
        town: Folder of the generated scene.

    Returns:
        Settings by name of the method, and for each method left out the name of the one with its network.
    """
    kept: dict[str, TrainConfig] = {}
    same: dict[str, str] = {}
    for method in methods:
        config = load_config(ScenePaths.within(town).config, changes_of(method))
        first = next((name for name, other in kept.items() if other.network == config.network), None)
        if first is None:
            kept[method] = config
        else:
            same[method] = first
    return kept, same


def size_of(bundle: Path) -> dict[str, Any]:
    """Read the size of the image's network from a bundle.

    Args:
        bundle: The bundle.

    Returns:
        Number of parameters, and receptive field to each side in px, None if it is unbounded.
    """
    loaded = load_bundle(bundle)
    parameters = sum(p.numel() for p in loaded.branch("optical").parameters())
    return {"parameters": parameters, "receptive_field_px": loaded.manifest.receptive_field_px}


def measure_round(folder: Path, names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Predict with each network and train it, once.

    Args:
        folder: Folder with the images, the bundles and the town.
        names: Names of the networks; the bundle of the first is ``0.safetensors``.
        options: Options of the command line.

    Returns:
        By name: ``seconds`` and ``peak_mb`` by side of the image, and ``step_s``.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(names):
        bundle = folder / f"{number}.safetensors"
        predictions = {side: predict(name, bundle, folder / f"{side}.tif") for side in options.sides}
        found[name] = {key: {side: p[key] for side, p in predictions.items()} for key in ("seconds", "peak_mb")}
        step = step_seconds(folder / "town", changes_of(name), options.steps)
        if isinstance(step, str):
            sys.exit(f"{name}: training: {step}")
        found[name]["step_s"] = step
        print(f"{name}: " + ", ".join(f"{p['seconds']:.1f} s" for p in predictions.values()) + f", {step:.3f} s a step")
        sys.stdout.flush()
    return found


def predict(name: str, bundle: Path, scene: Path) -> dict[str, float]:
    """Predict in an own process with the default options.

    Args:
        name: Name of the network, for messages.
        bundle: Its bundle.
        scene: The image.

    Returns:
        As `measured.measure`.
    """
    out = scene.with_name("map.tif")
    found = measure(command("predict", bundle, scene, out, "{}"))
    out.unlink(missing_ok=True)
    if isinstance(found, str):
        sys.exit(f"{name}: prediction: {found}")
    return found


def make_table(sizes: Mapping[str, Mapping[str, Any]], rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Make the table of costs.

    Args:
        sizes: Parameters and receptive field by name of the network, see `size_of`.
        rounds: Result of each round, see `measure_round`. Ratios are to the first network of ``sizes``.

    Returns:
        Lines of Markdown.
    """
    first = next(iter(sizes))
    sides = list(rounds[0][first]["seconds"])
    head = ["network", "parameters, M", "receptive field, px"]
    for side in sides:
        head += [f"Mpx/s, {side} px", "of the first", "memory, MB"]
    head += ["training step, s", "of the first"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, size in sizes.items():
        seen = size["receptive_field_px"]
        cells = [name, f"{size['parameters'] / 1e6:.2f}", "unbounded" if seen is None else str(seen)]
        for side in sides:
            seconds = statistics.median(r[name]["seconds"][side] for r in rounds)
            ratio = statistics.median(r[first]["seconds"][side] / r[name]["seconds"][side] for r in rounds)
            memory = statistics.median(r[name]["peak_mb"][side] for r in rounds)
            cells += [f"{side**2 / 1e6 / seconds:.2f}", f"{ratio:.2f}", f"{memory:.0f}"]
        step = statistics.median(r[name]["step_s"] for r in rounds)
        ratio = statistics.median(r[name]["step_s"] / r[first]["step_s"] for r in rounds)
        cells += [f"{step:.2f}", f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def notes(same: Mapping[str, str], rounds: int, precision: str) -> list[str]:
    """Describe the table.

    Args:
        same: Methods that have the network of another one, see `different_networks`.
        rounds: Number of rounds.
        precision: Number format of the trainings.

    Returns:
        Lines of Markdown.
    """
    text = (
        f"{f'Medians of {rounds} rounds' if rounds > 1 else 'One round'}, random weights. Speed: `geocrodino.predict` "
        f"of one image with {WORKERS} tiles at once, imports included; more is faster. Training step: both networks "
        "with the default method, eight patches of 128 px with labels and those without, processor seconds on one "
        f"thread, in {precision}; less is faster."
    )
    alike = [f"`{method}` is the same network as `{other}` and costs as much." for method, other in same.items()]
    return ["", " ".join([text, *alike])]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[4096], help="sides of the images, px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="training steps of an epoch, at least 2")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--fragment", help="name of the table of the documentation to write: networks-cost")
    parser.add_argument("--fragments", type=Path, default=FRAGMENTS, help="folder of these tables; docs/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_town(folder / "town")
        for side in {WARM_PX, *options.sides}:
            write_scene(folder / f"{side}.tif", side)
        networks, same = different_networks(options.only, folder / "town")
        sizes: dict[str, dict[str, Any]] = {}
        for number, (method, config) in enumerate(networks.items()):
            bundle = folder / f"{number}.safetensors"
            write_bundle(bundle, config.network)
            sizes[method] = size_of(bundle)
            predict(method, bundle, folder / f"{WARM_PX}.tif")  # converts the network
        rounds = [measure_round(folder, list(networks), options) for _ in range(options.rounds)]
    precision = number_format.resolve("auto", "auto")
    table = [*make_table(sizes, rounds), *notes(same, options.rounds, precision)]
    print("", *table, sep="\n")
    if options.fragment:
        facts = {
            "device": describe_device("cpu"),
            "precision": precision,
            "settings": {method: config.network.model_dump(mode="json") for method, config in networks.items()},
            "same_network": same,
            "sizes": sizes,
            "rounds": rounds,
        }
        write_fragment(options.fragment, table, command_line(), facts, options.fragments)


if __name__ == "__main__":
    main()
