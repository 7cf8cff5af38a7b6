"""Measure the structure of the package: rooms, sizes, parameters, imports, and two journeys through it.

    python docs/measure.py              this checkout
    python docs/measure.py CHECKOUT     another one, to compare

A room is a folder of the package. An arrow is a room that imports another one; a circle is a group of rooms that import
each other, directly or not. A journey runs a program and records the calls: its stops are the different functions of
the package that ran, its rooms where they lie, its climbs the pairs of files in which one calls into a room above its
own. Start-up times are the best of three.
"""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

JOURNEY = """
import json, sys, tempfile, threading
from pathlib import Path
import geocrodino
from geocrodino import load_config, predict, train, write_scene, SceneSettings

package = Path(geocrodino.__file__).parent
stops, calls = set(), set()

def place(code):
    path = Path(code.co_filename)
    return (str(path.relative_to(package)), code.co_qualname) if path.is_relative_to(package) else None

def note(frame, event, argument):
    if event == "call":
        here, caller = place(frame.f_code), frame.f_back and place(frame.f_back.f_code)
        if here and not here[1].startswith("<"):
            stops.add(here)
            if caller:
                calls.add((caller, here))

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    town = write_scene(folder / "town", SceneSettings(size_m=160))
    changes = {
        "network.encoder": "tu-resnet10t", "network.depth": 3, "network.invariant_channels": 8,
        "training.patch_px": 32, "training.epochs": 1, "training.steps_per_epoch": 1, "training.batch_size": 2,
        "training.accelerator": "cpu",
    }
    journey = sys.argv[1]
    if journey == "train":
        sys.setprofile(note)
    train(load_config(town.config, changes), folder / "run")
    if journey == "predict":
        threading.setprofile(note)
        sys.setprofile(note)
        predict(town.optical, folder / "map.tif", folder / "run" / "bundle.safetensors", "optical")
    sys.setprofile(None)
print(json.dumps({"stops": sorted(stops), "calls": sorted(calls)}))
"""


def main() -> None:
    """Print everything as Markdown."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    package = root / "geocrodino"
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    print("| room | files | lines of a file, median | largest file |\n|---|---|---|---|")
    for room in sorted({room_of(path, package) for path in trees}):
        lines = [len(p.read_text(encoding="utf-8").splitlines()) for p in trees if room_of(p, package) == room]
        print(f"| {room} | {len(lines)} | {statistics.median(lines):.0f} | {max(lines)} |")
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    counts = sorted(len([*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]) for f in functions)
    sizes = sorted((f.end_lineno or 0) - f.lineno + 1 for f in functions)
    arrows = {arrow for path, tree in trees.items() for arrow in arrows_of(path, tree, package)}
    rows = {
        "files": str(len(trees)),
        "parameters: median / 90 % / most": _spread(counts),
        "lines of a function: median / 90 % / most": _spread(sizes),
        "arrows between rooms, rooms inside rooms aside": str(len(outer(arrows))),
        "arrows between all rooms": str(len(arrows)),
        "circles of rooms": "; ".join(", ".join(sorted(group)) for group in circles(arrows)) or "none",
    }
    for name in ("predict", "train"):
        rows[f"journey {name}: stops / rooms / climbs"] = journey(name, root)
    for command in ("import geocrodino.settings.config", "import geocrodino.config"):
        if (package / (command.split("geocrodino.")[1].replace(".", "/") + ".py")).exists():
            rows[f"`{command}`, s"] = seconds([sys.executable, "-c", command], root)
    start = [sys.executable, "-m", "geocrodino"]
    rows["`geocrodino inspect missing.tif`, s"] = seconds([*start, "inspect", "--optical", "missing.tif"], root)
    rows["`geocrodino train --help`, s"] = seconds([*start, "train", "--help"], root)
    print("\n| | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))


def room_of(path: Path, package: Path) -> str:
    """The folder of a file, dotted; files beside the rooms count as rooms of their own."""
    parts = path.relative_to(package).parts
    return ".".join(parts[:-1]) or path.stem


def arrows_of(path: Path, tree: ast.AST, package: Path) -> Iterator[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second, imports inside functions included."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("geocrodino."):
            continue
        parts = str(node.module).split(".")[1:]
        for name in node.names:
            target = package.joinpath(*parts)
            module = target / f"{name.name}.py" if target.is_dir() else target.with_suffix(".py")
            other = room_of(module, package)
            if other != room_of(path, package):
                yield room_of(path, package), other


def outer(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows between rooms of the first level."""
    return {(a.split(".")[0], b.split(".")[0]) for a, b in arrows if a.split(".")[0] != b.split(".")[0]}


def circles(arrows: set[tuple[str, str]]) -> list[set[str]]:
    """Groups of rooms each of which can be reached from every other one."""
    reach = {room: {room} for arrow in arrows for room in arrow}
    for _ in reach:
        for first, second in arrows:
            reach[first] |= reach[second]
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in reach}
    return [set(group) for group in groups if len(group) > 1]


def journey(name: str, root: Path) -> str:
    """Stops, rooms and climbs of a run."""
    done = subprocess.run(
        [sys.executable, "-c", JOURNEY, name],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found = json.loads(done.stdout.splitlines()[-1])
    layers = _layers(root)
    package = root / "geocrodino"
    stops = {tuple(stop) for stop in found["stops"]}
    rooms = {room_of(package / file, package) for file, _ in stops}

    def floor(file: str) -> int:
        return layers.get(Path(file).parts[0].removesuffix(".py"), len(layers))

    climbs = {(a[0], b[0]) for a, b in found["calls"] if floor(b[0]) < floor(a[0])}
    return f"{len(stops)} / {len(rooms)} / {len(climbs)}"


def _layers(root: Path) -> dict[str, int]:
    """The floor of each room, 0 at the top, as the import contract has it."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return {
        name.strip().removeprefix("geocrodino."): floor for floor, row in enumerate(layers) for name in row.split("|")
    }


def seconds(command: list[str], root: Path) -> str:
    """Best of three times of a process."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, cwd=root, capture_output=True, check=False)
        times.append(time.perf_counter() - started)
    return f"{min(times):.1f}"


def _spread(values: list[int]) -> str:
    return f"{statistics.median(values):.0f} / {values[int(0.9 * len(values))]} / {values[-1]}"


if __name__ == "__main__":
    main()
