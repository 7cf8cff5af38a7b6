"""Compare methods on scenes with several seeds, following a plan in YAML, and write the tables.

    python pipelines/study.py configs/studies/methods.yaml --workers 2

A plan names scenes (a configuration each, with changes), methods (changes too), seeds and a baseline. Each combination
is one run in its own process: training, then scores of each network on the pixels of ``test``, counted by spatial
blocks. Finished runs are not repeated and interrupted ones are continued, so the command can be stopped at any time.
``--only scene/method`` performs one row. Runs are distributed over local workers, over ``--gpus``, or over the workers
of a Dask cluster (``--scheduler tcp://...``; the workers must see the same files).

With ``training.precision: auto`` in a plan, the number format is chosen once for this machine, printed and used by all
runs, so that the rows of a table can be compared. ``--precision`` sets another one.

Writes ``results.md``, ``results.csv`` and ``results.png`` to the output folder and prints ``results.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import yaml
from fewer_labels import write_corner, write_share
from fragments import FRAGMENTS, command_line, describe_device, settings_of, write_fragment
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scoring import SCORING, load_networks, score
from tables import Row, class_table, compact_tables, write_tables
from trainings import is_record_of, record_of, train_or_resume

from geocrodino.settings.config import TrainConfig, TrainingConfig, load_config
from geocrodino.town.write import ScenePaths, write_scene
from geocrodino.training import number_format
from geocrodino.training.folder import BUNDLE_NAME, FUSION_NAME, save_json
from geocrodino.training.learners.build import learner_class
from geocrodino.training.prepare import prepare


class Labels(BaseModel):
    """Additional labels to score on.

    Attributes:
        path: The raster; ``${NAME}`` is replaced by a variable of the environment.
        ignore: Values to leave out.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    ignore: tuple[int, ...] = ()


class Scene(BaseModel):
    """A scene of a plan.

    Attributes:
        config: Configuration file, relative to the plan; None: a generated town, 512 m wide.
        set: Changes of it by dotted key. ``${NAME}`` in a text is replaced by a variable of the environment.
        label_share: Share of the labels of ``train`` to keep, in squares of 64 px drawn with the run's seed.
        corner: Share of ``train``, from the west, that keeps its labels; the rest becomes the split ``unlabelled``.
        score_on: Additional labels to score on, by name.
        seeds: Number of seeds of some methods on this scene instead of the plan's; 0: the method is left out.
    """

    model_config = ConfigDict(extra="forbid")

    config: str | None = None
    set: dict[str, Any] = {}
    label_share: float | None = Field(None, gt=0, lt=1)
    corner: float | None = Field(None, gt=0, lt=1)
    score_on: dict[str, Labels] = {}
    seeds: dict[str, Annotated[int, Field(ge=0)]] = {}


class Plan(BaseModel):
    """A comparison of methods on scenes.

    Attributes:
        title: Title of the tables.
        scenes: Scenes by name.
        methods: Changes of the configuration by name of the method.
        seeds: Number of seeds for all methods, or one number for each.
        baseline: The method that others are compared with.
        set: Changes of the configuration for all runs.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    scenes: dict[str, Scene] = Field(min_length=1)
    methods: dict[str, dict[str, Any]]
    seeds: int | dict[str, int] = 3
    baseline: str
    set: dict[str, Any] = {}

    @model_validator(mode="after")
    def _names_fit(self) -> Plan:
        if self.baseline not in self.methods:
            raise ValueError(f"the baseline {self.baseline!r} is not a method of the plan: {', '.join(self.methods)}")
        if isinstance(self.seeds, dict) and set(self.seeds) != set(self.methods):
            raise ValueError(f"seeds must be one number, or one number for each of {', '.join(self.methods)}")
        if unknown := [m for scene in self.scenes.values() for m in scene.seeds if m not in self.methods]:
            raise ValueError(f"seeds of a scene: expected methods of the plan, found {', '.join(unknown)}")
        if bare := [name for name in self.scenes if not self.seeds_of(name, self.baseline)]:
            raise ValueError(f"scene {bare[0]}: expected at least one seed of the baseline {self.baseline}, found 0")
        return self

    def seeds_of(self, scene: str, method: str) -> range:
        """List the seeds of a method on a scene.

        Args:
            scene: Name of the scene.
            method: Name of the method.

        Returns:
            The seeds, from 0.
        """
        everywhere = self.seeds if isinstance(self.seeds, int) else self.seeds[method]
        return range(self.scenes[scene].seeds.get(method, everywhere))


@dataclass(frozen=True)
class Run:
    """One training of a plan.

    Attributes:
        plan_path: File of the plan.
        plan: The plan.
        scene: Name of the scene.
        method: Name of the method.
        seed: The seed.
        root: Output folder of the study.
    """

    plan_path: Path
    plan: Plan
    scene: str
    method: str
    seed: int
    root: Path

    @property
    def out(self) -> Path:
        """Its run folder."""
        return self.root / self.scene / self.method / f"seed{self.seed}"

    def command(self) -> list[str]:
        """Compose the command that performs this run in its own process.

        Returns:
            The words of the command.
        """
        script = [sys.executable, str(Path(__file__).resolve()), str(self.plan_path), "--out", str(self.root)]
        precision = self.plan.set.get("training.precision")
        chosen = [] if precision is None else ["--precision", precision]
        return [*script, *chosen, "--one", self.scene, self.method, str(self.seed)]

    def config(self) -> TrainConfig:
        """Resolve the configuration, without the changes of labels.

        Returns:
            The configuration.
        """
        scene = self.plan.scenes[self.scene]
        asked = {**self.plan.set, **scene.set, **self.plan.methods[self.method], "training.seed": self.seed}
        changes = {key: os.path.expandvars(value) if isinstance(value, str) else value for key, value in asked.items()}
        path = self.town() if scene.config is None else self.plan_path.parent / scene.config
        return load_config(path, changes)

    def with_labels(self) -> TrainConfig:
        """Resolve the configuration with the labels that the scene keeps. Files that do not exist yet are written.

        Returns:
            The configuration.
        """
        scene, config, folder = self.plan.scenes[self.scene], self.config(), self.root / self.scene
        changes: dict[str, Any] = {}
        if scene.label_share is not None:
            kept = folder / f"labels {100 * scene.label_share:g} % seed {self.seed}.tif"
            changes["labels"] = write_share(config, scene.label_share, self.seed, kept)
        if scene.corner is not None:
            changes["aoi"] = str(write_corner(config, scene.corner, folder / f"area {100 * scene.corner:g} %.gpkg"))
        return config.model_copy(update={"data": config.data.model_copy(update=changes)})

    def town(self) -> Path:
        """Name the configuration of the generated scene, which is written if it does not exist yet.

        Returns:
            The file.
        """
        folder = self.root / self.scene / "scene"
        paths = ScenePaths.within(folder)
        return paths.config if paths.config.exists() else write_scene(folder, overwrite=True).config

    def teacher(self) -> Run | None:
        """Find the run of the plan whose fusion network is this run's teacher.

        Returns:
            The run; None if the method has no teacher or the plan does not contain it.
        """
        mine = self.config()
        if not learner_class(mine.method).needs_teacher:
            return None
        for name in self.plan.methods:
            other = Run(self.plan_path, self.plan, self.scene, name, self.seed, self.root)
            theirs = other.config()
            fits = theirs.method.name == "fusion" and theirs.method.fusion == mine.method.fusion
            if fits and theirs.model_copy(update={"method": mine.method}) == mine:
                return other
        return None

    def result(self) -> dict[str, Any] | None:
        """Read the result of this run.

        Returns:
            The content of ``result.json``; None if the run was not performed with these settings, teacher and scores.
        """
        path = self.out / "result.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        same = is_record_of(found, self.config()) and found["labels"] == self.labels()
        teacher = self.teacher()
        taught_by_it = teacher is None or (teacher.result() or {}).get("made") == found["teacher_made"]
        return found if same and taught_by_it and found["scoring"] == SCORING else None

    def labels(self) -> dict[str, Any]:
        """Describe the labels that this run learns from and is scored on.

        Returns:
            Plain values for JSON.
        """
        scene = self.plan.scenes[self.scene].model_dump(mode="json")
        return {key: scene[key] for key in ("label_share", "corner", "score_on")}


def main() -> None:
    """Perform the missing runs and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, help="output folder; runs/studies/<plan> by default")
    parser.add_argument("--only", nargs="*", default=[], help="rows to perform: scene/method, or a scene")
    parser.add_argument("--first", type=int, help="perform only this number of seeds")
    parser.add_argument("--workers", type=int, default=2, help="runs at once on this machine, one thread each")
    parser.add_argument("--gpus", nargs="*", default=[], help="numbers of the GPUs to use, one run at a time on each")
    parser.add_argument("--scheduler", help="address of a Dask cluster, for instance tcp://host:8786")
    parser.add_argument("--precision", help="number format, unless a scene or method of the plan names its own")
    parser.add_argument("--tables", action="store_true", help="write the tables of finished runs and perform none")
    parser.add_argument("--fragment", help="name of the table in the documentation to write as well, such as methods")
    parser.add_argument("--classes", action="store_true", help="tell in this table what each class gains or loses, too")
    parser.add_argument("--fragments", type=Path, default=FRAGMENTS, help="folder of these tables; docs/results")
    parser.add_argument("--one", nargs=3, metavar=("SCENE", "METHOD", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = in_one_format(Plan.model_validate(yaml.safe_load(options.plan.read_text())), options.precision)
    root = (options.out or Path("runs/studies") / options.plan.stem).resolve()
    options.plan = options.plan.resolve()
    if options.one:
        scene, method, seed = options.one
        perform(Run(options.plan, plan, scene, method, int(seed), root))
        return
    precision = plan.set.get("training.precision", TrainingConfig().precision)
    print(number_format.describe(precision, _accelerator(plan)), flush=True)
    runs = list(_runs(options.plan, plan, root))
    wanted = [r for r in runs if not options.only or {r.scene, f"{r.scene}/{r.method}"} & set(options.only)]
    wanted = [r for r in wanted if options.first is None or r.seed < options.first]
    if options.only and not wanted:
        sys.exit(f"--only {' '.join(options.only)}: no such row. Rows are SCENE/METHOD of {options.plan}.")
    teachers = [t for t in (r.teacher() for r in wanted) if t is not None]
    missing = {r.out: r for r in (*wanted, *teachers) if r.result() is None}
    for run in missing.values():
        run.with_labels()  # write the label files here, one after the other: several runs share them
    failed = [] if options.tables else _spread(list(missing.values()), options)
    rows = _rows(runs)
    print(write_tables(plan.title, plan.baseline, rows, root))
    if failed:
        sys.exit("Failed: " + ", ".join(f"{r.scene}/{r.method} seed {r.seed} ({r.out / 'log.txt'})" for r in failed))
    if options.fragment:
        _write_fragment(options, plan, runs, rows)


def _write_fragment(options: argparse.Namespace, plan: Plan, runs: list[Run], rows: list[Row]) -> None:
    """Write the compact table of a study for the documentation, once every run of its plan has a result."""
    without = [f"{r.scene}/{r.method} seed {r.seed}" for r in runs if r.result() is None]
    if without:
        sys.exit(
            f"The table {options.fragment} of the documentation is not written: expected results of {len(runs)} runs, "
            f"{len(without)} are missing, for instance {without[0]}. "
            "Run the command without --only, --first and --tables."
        )
    table, records = compact_tables(plan.baseline, rows)
    if options.classes:
        table += ["", *class_table(plan.baseline, rows)]
    facts = {
        "scenes": list(plan.scenes),
        "split": "test",
        "seeds": {f"{r.scene}/{r.method}": list(plan.seeds_of(r.scene, r.method)) for r in runs if r.seed == 0},
        "settings": {f"{r.scene}/{r.method}": settings_of(r.config()) for r in runs if r.seed == 0},
        "device": "; ".join(dict.fromkeys(result["device"] for row in rows for result in row.results)),
        "rows": records,
    }
    write_fragment(options.fragment, table, command_line(), facts, options.fragments)


def in_one_format(plan: Plan, precision: str | None) -> Plan:
    """Replace the number format ``auto`` of a plan by the one that suits this machine.

    Args:
        plan: The plan. Its scenes and methods may still name their own format.
        precision: Number format in place of the plan's; None: the plan's.

    Returns:
        The plan with one number format; unchanged if none is named.
    """
    precision = precision or plan.set.get("training.precision")
    if precision is None:
        return plan
    chosen = number_format.resolve(precision, _accelerator(plan))
    return plan.model_copy(update={"set": {**plan.set, "training.precision": chosen}})


def _accelerator(plan: Plan) -> str:
    return str(plan.set.get("training.accelerator", "auto"))


def _rows(runs: list[Run]) -> list[Row]:
    """One row for each scene and method that has a result."""
    rows: dict[tuple[str, str], Row] = {}
    for run in runs:
        result = run.result()
        if result is not None:
            row = rows.setdefault((run.scene, run.method), Row(run.scene, run.method, [], []))
            row.results.append(result)
            row.blocks.append(dict(np.load(run.out / "blocks.npz")))
    return list(rows.values())


def _runs(path: Path, plan: Plan, root: Path) -> Iterator[Run]:
    """All runs, seed by seed, so that every row has some seeds if the study is stopped early."""
    most = max(len(plan.seeds_of(scene, method)) for scene in plan.scenes for method in plan.methods)
    for seed in range(most):
        for scene in plan.scenes:
            for method in plan.methods:
                if seed in plan.seeds_of(scene, method):
                    yield Run(path, plan, scene, method, seed, root)


def _spread(runs: list[Run], options: argparse.Namespace) -> list[Run]:
    """Perform runs in their own processes, seed by seed, teachers before their students; return those that failed."""
    taught = [run for run in runs if run.teacher() is not None]
    waves: dict[tuple[int, bool], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        # A wave begins when the one before has ended, which is needed only where runs wait for their teachers.
        waves.setdefault((run.seed, run in taught) if taught else (0, False), []).append(run)
    started, done, failed = time.monotonic(), 0, []
    with ExitStack() as stack:
        submit = _workers(options, stack)
        for _, wave in sorted(waves.items()):
            jobs = {submit(run): run for run in wave}
            for future in as_completed(jobs):
                run, code = jobs[future], future.result()
                done += 1
                if code:
                    failed.append(run)
                spent = (time.monotonic() - started) / 60
                state = "done" if code == 0 else f"FAILED, see {run.out / 'log.txt'}"
                left = spent / done * (len(runs) - done)
                name = f"{run.scene}/{run.method} seed {run.seed}"
                print(f"{done}/{len(runs)} {name}: {state}; {spent:.0f} min, about {left:.0f} min left", flush=True)
    return failed


def _workers(options: argparse.Namespace, stack: ExitStack) -> Callable[[Run], Future[int]]:
    """A function that hands a run to a worker, of a Dask cluster or of this machine."""
    if options.scheduler:
        try:
            from dask.distributed import Client
        except ImportError:
            sys.exit("--scheduler needs dask.distributed. Install it: pip install 'geocrodino[cluster]'")
        executor = stack.enter_context(Client(options.scheduler)).get_executor(pure=False)
        return lambda run: executor.submit(in_own_process, run.command(), str(run.out))
    gpus: queue.Queue[str] = queue.Queue()
    for number in options.gpus:
        gpus.put(number)
    pool = stack.enter_context(ThreadPoolExecutor(len(options.gpus) or options.workers))

    def work(run: Run) -> int:
        gpu = gpus.get() if options.gpus else None
        try:
            return in_own_process(run.command(), str(run.out), gpu)
        finally:
            if gpu is not None:
                gpus.put(gpu)

    return lambda run: pool.submit(work, run)


def in_own_process(command: list[str], folder: str, gpu: str | None = None) -> int:
    """Run a command on one thread or one GPU, and append its output to ``log.txt``.

    Takes only plain arguments and uses only the standard library, because the workers of a cluster cannot import this
    script.

    Args:
        command: The words of the command.
        folder: Folder of the log; created if it does not exist.
        gpu: Number of the GPU; None: those the process sees.

    Returns:
        Exit code.
    """
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / "log.txt").open("a") as log:
        return subprocess.run(command, check=False, env=environment, stdout=log, stderr=log).returncode


def perform(run: Run) -> None:
    """Train and score one run, and write ``result.json``.

    Args:
        run: The run.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    scene, config, changed = run.plan.scenes[run.scene], run.config(), run.with_labels()
    teacher = run.teacher()
    taught_by = None if teacher is None else json.loads((teacher.out / "result.json").read_text())
    if not _trained(run, config, taught_by):
        train_or_resume(changed, run.out, teacher and teacher.out)
        device = describe_device(config.training.accelerator)
        made = {**record_of(config), "labels": run.labels(), "made": time.time(), "device": device}
        save_json(run.out / "made.json", made)
    ready = prepare(changed, run.out)
    labels = {"labels": (config.data.labels, config.data.ignore_values)}
    for name, item in scene.score_on.items():
        labels[name] = (Path(os.path.expandvars(item.path)), item.ignore)
    scores = score(load_networks(run.out, changed, ready), ready, labels)
    made, metrics = (json.loads((run.out / name).read_text()) for name in ("made.json", "metrics.json"))
    seconds = json.loads((run.out / "timing.json").read_text())["train_seconds"]
    np.savez_compressed(run.out / "blocks.npz", **scores.blocks)
    save_json(
        run.out / "result.json",
        {
            **record_of(config),
            "labels": run.labels(),
            "scoring": SCORING,
            "made": made["made"],
            "device": made["device"],
            "teacher_made": None if taught_by is None else taught_by["made"],
            "minutes": (seconds + (0 if taught_by is None else 60 * taught_by["minutes"])) / 60,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "parameters": metrics["parameters"],
            "val_miou": metrics["val_miou"],
            "val_calibration_error": metrics.get("val_calibration_error", {}),
            "test_calibration_error": scores.calibration_error,
            "test_miou": {key: scores.miou(key) for key in scores.blocks},
        },
    )
    for bulky in ("aligned", "checkpoints", "tensorboard"):
        shutil.rmtree(run.out / bulky, ignore_errors=True)


def _trained(run: Run, config: TrainConfig, taught_by: dict[str, Any] | None) -> bool:
    """Whether the run is trained, and only its scores are missing or of an earlier version."""
    made = run.out / "made.json"
    if not made.exists() or not any((run.out / n).exists() for n in (BUNDLE_NAME, FUSION_NAME)):
        return False
    found = json.loads(made.read_text())
    learns_from = [{key: each[key] for key in ("label_share", "corner")} for each in (found["labels"], run.labels())]
    same = is_record_of(found, config) and learns_from[0] == learns_from[1]
    return same and (taught_by is None or found["made"] > taught_by["made"])


if __name__ == "__main__":
    main()
