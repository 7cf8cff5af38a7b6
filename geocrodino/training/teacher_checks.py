"""The teacher of a training: whether it fits the students, and its network."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
from safetensors import SafetensorError
from safetensors.torch import load_file

from geocrodino.errors import ConfigError
from geocrodino.files.access import exists
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.rasters.grid import crs_of
from geocrodino.models.pretrained.state import file_sha256
from geocrodino.settings.config import TrainConfig
from geocrodino.training import folder as run_folder
from geocrodino.training.learners.base import Learner
from geocrodino.training.prepare import SPLITS, Prepared, changed_inputs
from geocrodino.training.start import comparable
from geocrodino.training.teacher import TRAIN_ONE, unusable_teacher


def require_same_data(config: TrainConfig, teacher: Path) -> None:
    """Check that a teacher was trained on the same data, with the same classes and network.

    Args:
        config: Settings of the students.
        teacher: Run folder of the teacher.

    Raises:
        ConfigError: If other settings than these were used, or the teacher's cannot be read.
    """
    other = run_folder.recorded_settings(teacher)
    config = run_folder.without_storage(run_folder.on_recorded_grid(config, other))
    other = run_folder.without_storage(other)
    differing = [key for key in ("data", "classes", "elevation") if getattr(other, key) != getattr(config, key)]
    if comparable(other.network) != comparable(config.network):
        differing.append("network")
    if other.method.fusion != config.method.fusion:
        differing.append("method.fusion")
    if differing:
        raise ConfigError(
            f"{teacher}: the teacher was trained with other settings: {', '.join(differing)}.\n{TRAIN_ONE}"
        )


def require_same_splits(ready: Prepared, teacher: Path) -> None:
    """Check that no pixel on which the students are validated or tested was used to train or select their teacher.

    Args:
        ready: Inputs of the students.
        teacher: Run folder of the teacher.

    Raises:
        ConfigError: If there is such a pixel, or the teacher's folder names no splits.
    """
    path = teacher / run_folder.SPLITS_NAME
    if teacher.name == run_folder.TEACHER_NAME and not path.exists():
        path = teacher.parent / run_folder.SPLITS_NAME  # of the run that the teacher was trained for
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file. Expected the polygons of the teacher's splits, which every run writes.\n{TRAIN_ONE}"
        )
    if len(ready.checked) > 1:
        if SPLITS in changed_inputs(ready, path.parent):
            raise ConfigError(
                f"{teacher}: the teacher was trained on other splits of these scenes: its students must not be scored "
                f"on pixels that it was trained or selected on.\n{TRAIN_ONE}"
            )
        return
    grid, areas = ready.grid, ready.checked[0].aoi
    theirs = AOI(gpd.read_file(path), str(path)).to_crs(crs_of(grid).wkt)
    for used, held_out in (("train", "val"), ("train", "test"), ("val", "test")):
        if used not in theirs.splits or held_out not in areas.splits:
            continue
        # Compared as pixels: rounded coordinates in the file make polygons that share an edge overlap by a sliver.
        if (inside_mask(theirs.polygons(used), grid) & inside_mask(areas.polygons(held_out), grid)).any():
            raise ConfigError(
                f"{teacher}: the teacher's split {used!r} overlaps the split {held_out!r} of this training: its "
                f"students must not be scored on pixels that it was trained or selected on.\n{TRAIN_ONE}"
            )


def record_teacher(out: Path, teacher: Path) -> None:
    """Record which teacher a run learns from.

    Args:
        out: Run folder of the students.
        teacher: Run folder of the teacher.

    Raises:
        OutputError: If the record cannot be written.
    """
    facts = {"run": teacher.resolve().name, "sha256": file_sha256(teacher / run_folder.FUSION_NAME)}
    run_folder.save_json(out / run_folder.TAUGHT_NAME, facts)


def recorded_teacher(out: Path) -> dict[str, str] | None:
    """Read which teacher a run learns from.

    Args:
        out: Run folder of the students.

    Returns:
        The name of the teacher's run folder and the SHA-256 of its network; None if the run has no teacher.

    Raises:
        ConfigError: If the record cannot be read.
    """
    path = out / run_folder.TAUGHT_NAME
    if not exists(path):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: str(found[key]) for key in ("run", "sha256")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: expected the record of a teacher, found {error}.\n{run_folder.RESTORE}") from error


def require_recorded_teacher(out: Path, teacher: Path) -> None:
    """Check that a run is continued with the teacher that it began with.

    Args:
        out: Run folder of the students.
        teacher: Run folder of the teacher that is given now.

    Raises:
        ConfigError: If it learns from another one.
    """
    before, digest = recorded_teacher(out), file_sha256(teacher / run_folder.FUSION_NAME)
    if before is None or before["sha256"] != digest:
        known = "a teacher of its own" if before is None else f"sha256 {before['sha256']}"
        raise ConfigError(
            f"{teacher}: expected the teacher that the run in {out} began with ({known}), found another (sha256 "
            f"{digest}).\nLeave `teacher` out to continue with the teacher of the run."
        )


def load_teacher(learner: Learner, folder: Path, *, own: bool) -> None:
    """Load the network of a teacher into the learner of its students.

    Args:
        learner: A learner that needs a teacher.
        folder: Run folder of the teacher.
        own: Whether the run of the students trained this teacher itself.

    Raises:
        ConfigError: If the network cannot be read, or is another one than the settings name.
    """
    path = folder / run_folder.FUSION_NAME
    try:
        learner.load_teacher(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        found = "another network" if isinstance(error, RuntimeError) else str(error)
        raise ConfigError(unusable_teacher(path, found, own=own)) from error
