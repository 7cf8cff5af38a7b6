"""Everything that needs a GPU, in order of worth. Each check has a limit; all together take 15 minutes at most.

    python benchmarks/gpu.py --real DIR               DIR holds the scenes of configs/*.yaml
    python benchmarks/gpu.py --device cpu --quick     the same on tiny sizes, to try the script itself
    python benchmarks/gpu.py --only prediction        one check

Each check is a process with its own time limit. Its results are added to ``gpu.json`` in the output folder as soon as
it ends. A check that fails or takes too long does not stop the others.

works        tests/integration/test_gpu.py
ceilings     the card's matrix products and copies, measured
prediction   a large scene: pixels per second, the share of time the GPU computes, agreement with the CPU's map, beside
             the bare forward passes and a plain loop with the same network
training     patches per second, the share of a step spent on waiting for data and on augmentation, for several methods,
             with patches from files and from layers on the device
evidence     a plan of pipelines/study.py, as many seeds as --study-seconds allow (with --real). The results are packed
             into study.tar.gz; unpacked into the --out folder of the study, the same command goes on from there, if
             the scenes and that folder have the same paths.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMITS_S = {"works": 300, "ceilings": 20, "prediction": 130, "training": 150}
TABLES_S = 60
"""Time to pack the results of the evidence and to write its tables."""


def works(options: argparse.Namespace) -> dict[str, Any]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration/test_gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    (options.out / "tests.log").write_text(done.stdout + done.stderr)
    lines = done.stdout.strip().splitlines() or ["no output"]
    return {"summary": lines[-1], "not passed": [x for x in lines if x.startswith(("FAILED", "ERROR"))]}


def ceilings(options: argparse.Namespace) -> dict[str, Any]:
    """Rates that no program on this device can exceed."""
    import torch

    side, copied = (256, 1 << 20) if options.quick else (8192, 1 << 30)
    found: dict[str, Any] = {"torch": torch.__version__}
    if options.device == "cuda":
        found["card"] = torch.cuda.get_device_name()
    source = torch.randn(copied // 4, device=options.device)
    target = torch.empty_like(source)
    seconds = _seconds(options.device, lambda: target.copy_(source), 5)
    found["copy GB/s, read and written"] = 2 * copied / seconds / 1e9
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    for name, kind in kinds.items():
        a, b = (torch.randn(side, side, device=options.device, dtype=kind) for _ in range(2))
        seconds = _seconds(options.device, lambda a=a, b=b: a @ b, 3)
        found[f"matrix product TFLOP/s, {name}"] = 2 * side**3 / seconds / 1e12
    return found


def prediction(options: argparse.Namespace) -> dict[str, Any]:
    """Whole scenes with the default network."""
    import rasterio
    import torch
    from prediction import NETWORKS, write_bundle, write_scene

    from geocrodino import Execution, Outputs, load_bundle, predict

    side, compared, batches = (512, 512, (1, 2)) if options.quick else (8192, 4096, (1, 4, 8, 16))
    found: dict[str, Any] = {"side px": side, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bundle(folder / "bundle.safetensors", NETWORKS["default"])
        bundle = load_bundle(folder / "bundle.safetensors")
        for size in {512, compared, side}:
            write_scene(folder / f"{size}.tif", size)

        def run(size: int, out: str, **settings: Any) -> float:
            started = time.perf_counter()
            predict(
                folder / f"{size}.tif",
                folder / out,
                bundle,
                "optical",
                execution=Execution(**settings),
                outputs=Outputs(overwrite=True),
            )
            return time.perf_counter() - started

        on_device = {"device": options.device, "backend": "torch"}
        run(512, "warm.tif", **on_device)
        for precision, batch in itertools.product(("full", "half"), batches):
            if options.device == "cpu" and (batch > 1 or precision == "half"):
                continue
            settings = {**on_device, "precision": precision, "batch": batch}
            bare = _bare_seconds_per_pixel(bundle, options, precision, batch)
            row: dict[str, Any] = {"precision": precision, "batch": batch}
            run(compared, "warm.tif", **settings)
            row["seconds"] = run(side, "made.tif", **settings)
            row["Mpx/s"] = side**2 / 1e6 / row["seconds"]
            row["bare Mpx/s"] = 1 / bare / 1e6
            row["share of time the network runs"] = bare * side**2 * 15 / 16 / row["seconds"]  # a hole of 1/16
            found["rows"].append(row)
            _save_partial(options, found)
        for threads in (1, 2) if options.quick else (4, 8, 16):
            run(compared, "warm.tif", **on_device, workers=threads)
            found["rows"].append({"threads": threads, "seconds": run(side, "made.tif", **on_device, workers=threads)})
        run(compared, "cpu.tif", backend="torch", precision="full")
        with rasterio.open(folder / "cpu.tif") as file:
            expected = file.read(1)
        for precision in ("full", "half") if options.device == "cuda" else ("full",):
            run(compared, "gpu.tif", **on_device, precision=precision)
            with rasterio.open(folder / "gpu.tif") as file:
                found[f"agreement with the CPU, {precision}"] = float((file.read(1) == expected).mean())
        branch = bundle.branch("optical").to(options.device).to(memory_format=torch.channels_last)
        for half in (False, True) if options.device == "cuda" else (False,):
            _plain_loop(branch, folder / f"{compared}.tif", folder / "loop.tif", options.device, half=half)
            started = time.perf_counter()
            _plain_loop(branch, folder / f"{side}.tif", folder / "loop.tif", options.device, half=half)
            seconds = time.perf_counter() - started
            found[f"plain loop, {'half' if half else 'full'}"] = {"seconds": seconds, "Mpx/s": side**2 / 1e6 / seconds}
        found["floor"] = _operations(branch, options.device)
    return found


def _bare_seconds_per_pixel(bundle: Any, options: argparse.Namespace, precision: str, batch: int) -> float:
    """The network alone, on tiles that lie on the device, for each pixel of a tile's core."""
    import torch

    from geocrodino.models.branch import receptive_field_radius_px
    from geocrodino.prediction.backends.trimming import Trimmed
    from geocrodino.prediction.tiles.choose import EXACT_CORE_PX
    from geocrodino.prediction.tiles.lattice import TileLattice

    core = 256 if options.quick else EXACT_CORE_PX
    branch = bundle.branch("optical")
    stride, seen = branch.settings.stride_px, receptive_field_radius_px(branch, 3)
    lattice = TileLattice.exact((8 * core, 8 * core), core_px=core, stride_px=stride, receptive_field_px=seen)
    network = Trimmed(branch, lattice.unused_px).eval().to(options.device).to(memory_format=torch.channels_last)
    tiles = torch.randn(batch, 3, *lattice.tile_shape, device=options.device)
    tiles = tiles.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        with torch.autocast(options.device, dtype=torch.float16, enabled=precision == "half"):
            network(tiles).float().softmax(dim=1).max(dim=1)

    return _seconds(options.device, forward, 1 if options.quick else 5) / (batch * core**2)


def _plain_loop(branch: Any, scene: Path, out: Path, device: str, *, half: bool, batch: int = 16) -> None:
    """A loop over tiles of 512 px with an overlap of 64, sixteen at once, as most people write it."""
    import numpy as np
    import rasterio
    import torch
    from peers import OVERLAP_PX, TILE_PX, normalise
    from rasterio.windows import Window

    core, margin = TILE_PX - OVERLAP_PX, OVERLAP_PX // 2
    with rasterio.open(scene) as source, torch.inference_mode():
        profile = {**source.profile, "count": 1, "nodata": 255, "compress": "deflate"}
        with rasterio.open(out, "w", **profile) as target:
            corners = list(itertools.product(range(0, source.height, core), range(0, source.width, core)))
            for first in range(0, len(corners), batch):
                chosen = corners[first : first + batch]
                tiles = [
                    source.read(window=Window(c - margin, r - margin, TILE_PX, TILE_PX), boundless=True, fill_value=0)
                    for r, c in chosen
                ]
                images = torch.from_numpy(normalise(np.stack(tiles))).to(device, memory_format=torch.channels_last)
                with torch.autocast(device, dtype=torch.float16, enabled=half):
                    classes = branch(images).argmax(1).to(torch.uint8).cpu().numpy()
                for (r, c), tile in zip(chosen, classes, strict=True):
                    rows, cols = min(core, source.height - r), min(core, source.width - c)
                    inner = tile[margin : margin + rows, margin : margin + cols]
                    target.write(inner, 1, window=Window(c, r, cols, rows))


def _operations(branch: Any, device: str) -> dict[str, float]:
    """Floating-point operations and bytes of the activations for each pixel of the input."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    side, moved = 512, 0
    image = torch.randn(1, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)

    def count(module: Any, given: Any, answer: Any) -> None:
        nonlocal moved
        moved += sum(t.numel() for t in (*given, answer) if isinstance(t, torch.Tensor))

    hooks = [m.register_forward_hook(count) for m in branch.modules() if isinstance(m, torch.nn.Conv2d)]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        branch(image)
    for hook in hooks:
        hook.remove()
    return {"FLOP per px": counter.get_total_flops() / side**2, "numbers moved per px": moved / side**2}


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of several methods on a generated town."""
    from geocrodino.town import SceneSettings, write_scene

    steps = 2 if options.quick else 25
    tiny = {"network.encoder": "tu-resnet10t", "network.depth": 3, "encoder_weights": "random"}
    tiny |= {"training.patch_px": 32, "training.batch_size": 2}
    common: dict[str, Any] = {"training.patch_px": 256, "training.batch_size": 32, "training.unlabelled_share": 0}
    common |= {"training.steps_per_epoch": steps, "training.epochs": 2, "training.patience": 9}
    common |= {"training.accelerator": "gpu" if options.device == "cuda" else "cpu", "training.precision": "auto"}
    common |= {"training.layers": "device", **(tiny if options.quick else {})}
    single = {"method.name": "single"}
    rows = {
        "single": single,
        "single, patches from files": {**single, "training.layers": "disk"},
        "single, patches from files, 8 reading processes": {
            **single, "training.layers": "disk", "training.workers": 8,
        },
        "crodino": {},
        "crodino, no agreement": {"method.agreement": 0},
        "mutual": {"method.name": "mutual"},
        "fusion (a teacher)": {"method.name": "fusion"},
        "single, ResNet-18": {**single, "network.encoder": "tu-resnet18", "encoder_weights": "random"},
    }  # fmt: skip
    if options.quick:
        rows = dict(itertools.islice(rows.items(), 2))
    found: dict[str, Any] = {"patch px": common["training.patch_px"], "batch": common["training.batch_size"]}
    with tempfile.TemporaryDirectory() as name:
        town = write_scene(Path(name) / "town", SceneSettings(size_m=160 if options.quick else 512))
        for row, own in rows.items():
            found[row] = _steps_of(town.config, {**common, **own}, Path(name) / "runs" / row, options.device)
            _save_partial(options, found)
    return found


def _steps_of(config: Path, changes: dict[str, Any], out: Path, device: str) -> dict[str, float]:
    """Median seconds of a step of the second epoch, and how they divide."""
    import lightning as L

    from geocrodino import load_config, train
    from geocrodino.data.augmentation import PairAugmentation

    spent: dict[str, list[float]] = {"step": [], "waiting for data": [], "augmentation": []}
    times = {"begun": 0.0, "ended": 0.0}

    class Clock(L.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            times["ended"] = 0.0

        def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, index: int) -> None:
            _wait(device)
            times["begun"] = time.perf_counter()
            if times["ended"] and trainer.current_epoch:
                fetched = times["begun"] - times["ended"] - (spent["augmentation"][-1] if spent["augmentation"] else 0)
                spent["waiting for data"].append(fetched)

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            _wait(device)
            now = time.perf_counter()
            if times["ended"] and trainer.current_epoch:
                spent["step"].append(now - times["ended"])
            times["ended"] = now

    plain = PairAugmentation.forward

    def timed(self: Any, batch: Any) -> Any:
        _wait(device)
        started = time.perf_counter()
        augmented = plain(self, batch)
        _wait(device)
        spent["augmentation"].append(time.perf_counter() - started)
        return augmented

    PairAugmentation.forward = timed  # type: ignore[method-assign]
    try:
        train(load_config(config, changes), out, callbacks=[Clock()])
    finally:
        PairAugmentation.forward = plain  # type: ignore[method-assign]
    step = statistics.median(spent["step"])
    return {
        "seconds a step": step,
        "patches/s": changes["training.batch_size"] / step,
        "share waiting for data": statistics.median(spent["waiting for data"]) / step,
        "share of augmentation": statistics.median(spent["augmentation"][len(spent["augmentation"]) // 2 :]) / step,
    }


def evidence(options: argparse.Namespace) -> dict[str, Any]:
    """A study, stopped when its time is over; finished runs count."""
    if options.real is None:
        return {"not run": "needs --real"}
    runs = (options.runs or options.out / "study").resolve()
    environment = {
        **os.environ,
        "GEOCRODINO_REAL_DATA": str(options.real.resolve()),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    places = ["--gpus", *["0"] * options.at_once] if options.device == "cuda" else ["--workers", "1"]
    study = [sys.executable, "pipelines/study.py", str(options.study.resolve()), "--out", str(runs)]
    quick = ["--first", "1"] if options.quick else []
    with (options.out / "study.log").open("w") as log:
        # A process group of its own, so that its trainings can be stopped with it, and no others.
        work = subprocess.Popen(
            [*study, *places, *quick], env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            work.wait(options.study_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(work.pid, signal.SIGTERM)
            work.wait(10)
    with tarfile.open(options.out / "study.tar.gz", "w:gz") as archive:
        for result in sorted(runs.rglob("result.json")):
            for path in (result, result.with_name("blocks.npz")):
                archive.add(path, path.relative_to(runs))
    tables = subprocess.run(
        [*study, "--tables"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    (options.out / "study.md").write_text(tables.stdout + tables.stderr)
    rows = {str(p.parent.relative_to(runs)): json.loads(p.read_text()) for p in sorted(runs.rglob("result.json"))}
    logs = {str(p.parent.relative_to(runs)): p.read_text()[-600:] for p in sorted(runs.rglob("log.txt"))}
    unfinished = {name: log for name, log in logs.items() if name not in rows}
    return {"runs": rows, "unfinished": unfinished}


CHECKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "works": works, "ceilings": ceilings, "prediction": prediction, "training": training, "evidence": evidence,
}  # fmt: skip


def _seconds(device: str, work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a piece of work, after one that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _save_partial(options: argparse.Namespace, found: dict[str, Any]) -> None:
    (options.out / f"{options.check}.json").write_text(json.dumps(found))


def _performed(
    names: list[str], words: list[str], out: Path, limits_s: dict[str, float]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each check in a process of its own, and what it found or why it found nothing."""
    for name in names:
        started, partial = time.monotonic(), out / f"{name}.json"
        partial.unlink(missing_ok=True)
        child = [sys.executable, __file__, *words, "--check", name]
        try:
            done = subprocess.run(child, capture_output=True, text=True, check=False, timeout=limits_s[name])
            problem = done.stderr[-3000:] if done.returncode else None
        except subprocess.TimeoutExpired:
            problem = f"took longer than {limits_s[name]} s"
        found = json.loads(partial.read_text()) if partial.exists() else {}
        partial.unlink(missing_ok=True)
        yield name, {**found, **({"problem": problem} if problem else {}), "check took s": time.monotonic() - started}


def main() -> None:
    """Perform the checks and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "runs/gpu")))
    parser.add_argument("--real", type=Path, help="folder of the scenes that configs/*.yaml name")
    parser.add_argument("--at-once", type=int, default=14, help="trainings of the study at the same time")
    parser.add_argument("--study", type=Path, default=ROOT / "configs" / "studies" / "default_labels.yaml", help="plan")
    parser.add_argument("--study-seconds", type=float, default=210, help="time for the trainings of the study")
    parser.add_argument("--runs", type=Path, help="folder of these trainings; study in the output folder by default")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.check:
        _save_partial(options, CHECKS[options.check](options))
        return
    report: dict[str, Any] = {"device": options.device}
    limits_s = {**LIMITS_S, "evidence": options.study_seconds + TABLES_S}
    for name, found in _performed(options.only, sys.argv[1:], options.out, limits_s):
        report[name] = found
        (options.out / "gpu.json").write_text(json.dumps(report, indent=1))
        shown = {key: value for key, value in found.items() if key not in {"runs", "unfinished"}}
        print(f"## {name}\n{json.dumps(shown, indent=1)}", flush=True)


if __name__ == "__main__":
    main()
