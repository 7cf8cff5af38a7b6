"""The run folder: whether a training may write there, what an earlier run left in it, and how a run starts."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from geocrodino.errors import ConfigError, OutputError
from geocrodino.files.access import durable_file, exists, writing
from geocrodino.phrases import arguments
from geocrodino.settings.config import TrainConfig, load_config, save_config
from geocrodino.training.teacher import FUSION_NAME, SETTINGS_NAME

__all__ = ["FUSION_NAME", "SETTINGS_NAME"]  # so that all file names of a run folder can be imported from here

BUNDLE_NAME = "bundle.safetensors"

SPLITS_NAME = "splits.gpkg"
"""The polygons that a run was trained and scored on."""

SPLIT_MAP_NAME = "splits.png"
"""The same polygons as a picture."""

SCENES_NAME = "scenes.json"
"""The files, grid and pixels of each of several scenes."""

ALIGNED_NAME = "aligned"
"""The folder of the aligned layers; of several scenes, with a folder for each."""

START_NAME = "start.json"
"""The record of the bundle that a run started from."""

_INPUTS_NAME = "inputs.json"

TEACHER_NAME = "teacher"
"""The folder, within that of a run, of the fusion network that was trained as its teacher."""

TAUGHT_NAME = "teacher.json"
"""The record of the teacher that a run learns from."""

_REPLACED_FOLDERS = ("logs", "tensorboard", "loggers", TEACHER_NAME)
_REPLACED_FILES = (
    "metrics.json", "timing.json", "reliability.png", START_NAME, TAUGHT_NAME, FUSION_NAME, BUNDLE_NAME,
)  # fmt: skip
"""What a training that starts anew removes from its folder."""

_NEARLY_FULL_BYTES = 2**20
"""With less free space, a failed write is put down to a full disk."""

RESTORE = "Restore the file from a copy, or start anew with `overwrite=True` instead of `resume=True`."
"""What to do if a file of the run is damaged."""


def last_checkpoint(out: Path) -> Path:
    """Path of the checkpoint from which an interrupted run continues.

    Args:
        out: Run folder.

    Returns:
        The path, whether the file exists or not.
    """
    return out / "checkpoints" / "last.ckpt"


def has_progress(out: Path) -> bool:
    """Check whether a run, or the training of its teacher, has finished an epoch.

    Args:
        out: Run folder.

    Returns:
        True if the folder holds a checkpoint, or a teacher.

    Raises:
        AccessError: If the folder cannot be looked at.
    """
    teacher = out / TEACHER_NAME
    return any(exists(p) for p in (last_checkpoint(out), last_checkpoint(teacher), teacher / FUSION_NAME))


def check(config: TrainConfig, out: Path, *, resume: bool, overwrite: bool) -> tuple[Path, ...]:
    """Check that a training may start, or be resumed, in a folder, and create it. Nothing in it is changed.

    Args:
        config: Settings of the training.
        out: Run folder; created if it does not exist.
        resume: Whether to continue an interrupted run.
        overwrite: Whether to replace an earlier run.

    Returns:
        The folders that were created: the run folder, and those around it; empty where it was there.

    Raises:
        OutputError: If it cannot be written.
        GeocrodinoError: As for `check_free`.
    """
    check_free(config, out, resume=resume, overwrite=overwrite)
    missing = tuple(folder for folder in (out, *out.parents) if not exists(folder))
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{out}: cannot be written ({reason}). Choose another folder with `out`.") from error
    return missing


def check_free(config: TrainConfig, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that nothing in a folder keeps a training from starting, or being resumed, there. Nothing is written.

    A run that was stopped in its first epoch may be started again, with ``resume`` or without.

    Args:
        config: Settings of the training.
        out: Run folder, which need not exist.
        resume: Whether to continue an interrupted run.
        overwrite: Whether to replace an earlier run.

    Raises:
        AccessError: If the folder cannot be looked at.
        OutputError: If the folder holds a run that must not be replaced, or no run to resume.
        ConfigError: If the settings differ from those of the run to resume, cannot be read, or both options are given.
    """
    record, finished = out / SETTINGS_NAME, any(exists(out / n) for n in (BUNDLE_NAME, FUSION_NAME))
    known, begun = exists(record), has_progress(out)
    if resume and overwrite:
        raise ConfigError("`resume=True` continues a run and `overwrite=True` replaces it: give only one of them.")
    if resume and finished:
        raise OutputError(f"{out}: holds a finished run; nothing to resume. Start anew in another folder with `out`.")
    if resume and not (known or begun or exists(out / ALIGNED_NAME)):
        raise OutputError(
            f"{out}: holds no run to resume. Name the folder of the run with `out`, or leave `resume` out."
        )
    if finished and not overwrite:
        raise OutputError(
            f"{out}: holds a finished run. Choose another folder with `out`, or replace it with `overwrite=True`."
        )
    if begun and not known and not overwrite:
        raise OutputError(
            f"{record}: no such file, but the folder holds an interrupted run, whose settings belong in it.\n"
            "Restore the file from a copy, or start anew with `overwrite=True`."
        )
    if begun and not (resume or overwrite):
        raise OutputError(
            f"{out}: holds an interrupted run. Continue it with `resume=True`, or replace it with `overwrite=True`."
        )
    if resume and begun:
        before = _settings_of(out)
        require_same(before, on_recorded_grid(config, before), out)


def require_kept(out: Path, sources: Mapping[str, Path | None]) -> None:
    """Check that a training that replaces an earlier run does not start from its files, which it removes.

    Args:
        out: Run folder.
        sources: Files and run folders that the training reads, by the name of their setting; None: not given.

    Raises:
        ConfigError: If it does.
    """
    folder = out.resolve()
    removed = [folder / name for name in (*_REPLACED_FILES, *_REPLACED_FOLDERS)]
    for name, path in sources.items():
        if path is None:
            continue
        found = path.resolve()
        if found == folder or any(found == each or each in found.parents for each in removed):
            raise ConfigError(
                f"{path}: belongs to the run in {out}, which `overwrite=True` would remove before anything is learnt "
                f"from it.\nExpected `{name}` elsewhere: choose another folder with `out`."
            )


@contextmanager
def without_empty(created: Iterable[Path]) -> Iterator[None]:
    """Leave no empty folder behind where a training is refused.

    Args:
        created: Folders that this training has created, each before the one that it lies in.

    Yields:
        Nothing; after an error in the block, folders without content are removed.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first that holds something stays, and those around it
            for folder in created:
                folder.rmdir()
        raise


def with_recorded_epochs(config: TrainConfig, out: Path) -> TrainConfig:
    """Take over what an interrupted run measured: epochs for ``training.minutes``, patches for ``batch_size: auto``.

    Args:
        config: Settings of the training.
        out: Run folder.

    Returns:
        The settings with the recorded numbers; unchanged if they need none, or no epoch was finished.

    Raises:
        ConfigError: If the recorded settings cannot be read.
    """
    training = config.training
    needs_any = training.needs_measurement or training.needs_batch_size
    if not needs_any or not has_progress(out) or not exists(out / SETTINGS_NAME):
        return config
    before = _settings_of(out).training
    measured: dict[str, Any] = {}
    if training.needs_measurement and before.epochs_from_minutes:
        measured = {"epochs": before.epochs, "epochs_from_minutes": True}
    if training.needs_batch_size and before.batch_size_measured:
        keys = ("batch_size", "batch_size_measured", "steps_per_epoch", "optimiser")
        measured |= {key: getattr(before, key) for key in keys}
    return config.model_copy(update={"training": training.model_copy(update=measured)})


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder. On file systems without locks, do nothing.

    Args:
        out: Run folder.

    Yields:
        Nothing; the lock is held inside the block.

    Raises:
        OutputError: If another process trains there.
    """
    guard = FileLock(out / ".training.lock", timeout=0)
    try:
        guard.acquire()
    except Timeout as error:
        raise OutputError(
            f"{out}: another process is training in this folder.\nWait for it, or choose another folder with `out`."
        ) from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if guard.is_locked:
            with suppress(OSError):
                Path(guard.lock_file).unlink(missing_ok=True)
            guard.release()


def tidy(out: Path) -> None:
    """Remove the unfinished files of a killed process; they may fill the disk.

    Args:
        out: Run folder.
    """
    for folder in (out, out / TEACHER_NAME):
        for place in (folder, folder / "checkpoints", folder / "logs"):
            for left in place.glob(".*.partial*"):
                with suppress(OSError):
                    left.unlink()
        for left in folder.glob(f".{BUNDLE_NAME}.*.part"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def with_advice(out: Path, *, resume: bool, overwrite: bool, begun: bool) -> Iterator[None]:
    """Add how to continue the run to the error of a failed write, or to an interruption.

    Args:
        out: Run folder.
        resume: Whether the run was asked to resume.
        overwrite: Whether the run was asked to replace an earlier one.
        begun: Whether the files in the folder belong to this run; before that they may belong to an earlier one.

    Yields:
        Nothing.

    Raises:
        OutputError: The error of the block, with the advice added to its message.
        KeyboardInterrupt: The interruption of the block, with the advice as a note.
    """
    try:
        yield
    except OutputError as error:
        advice = "Make room on its disk" if _is_full(out, error) else "Check the permissions and the free space there"
        again, what = _next_run(out, resume=resume, overwrite=overwrite, begun=begun)
        raise OutputError(f"{error}\n{advice}, then run the same training {again}: {what}.") from error
    except KeyboardInterrupt as error:
        again, what = _next_run(out, resume=resume, overwrite=overwrite, begun=begun)
        error.add_note(f"Run the same training {again}: {what}.")
        raise


def _is_full(out: Path, error: OutputError) -> bool:
    """Whether a write failed because the disk is full. Libraries do not always pass on the reason."""
    if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or error.__cause__ is None:
        return True
    try:
        return shutil.disk_usage(out).free < _NEARLY_FULL_BYTES
    except OSError:
        return False


def _next_run(out: Path, *, resume: bool, overwrite: bool, begun: bool) -> tuple[str, str]:
    """How to run the training again so that it continues, and what it does then."""
    if not (begun and has_progress(out)):
        return "again", "no epoch was finished, so it starts from the beginning"
    what = "it continues after the last finished epoch"
    if resume:
        return "again", what
    without = ", without `overwrite=True`" if overwrite else ""
    return f"with {arguments(resume=True, out=str(out))}{without}", what


def keep_inputs(out: Path, digest: dict[str, str], *, resume: bool) -> None:
    """Record hashes of what a training reads; for a resumed run, check that they are unchanged.

    Args:
        out: Run folder.
        digest: Hashes by name of the input.
        resume: Whether the run is resumed.

    Raises:
        ConfigError: If a resumed run would read other data, or the recorded hashes cannot be read.
        OutputError: If the folder cannot be written.
    """
    record = out / _INPUTS_NAME
    if resume:
        changed = changed_inputs(out, digest)
        if changed:
            raise ConfigError(
                f"{out}: a run can only be resumed on the data that it began with; changed: {', '.join(changed)}.\n"
                "Restore the files, or start anew in another folder with `out`."
            )
    save_json(record, digest)


def changed_inputs(out: Path, digest: dict[str, str]) -> list[str]:
    """Compare what a training would read now with what the run in a folder read.

    Args:
        out: Run folder.
        digest: Hashes by name of the input.

    Returns:
        Names of the inputs that have changed.

    Raises:
        ConfigError: If the recorded hashes cannot be read.
    """
    before = _inputs_of(out / _INPUTS_NAME)
    return [name for name, value in digest.items() if before.get(name) != value]


def begin(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Write the resolved settings. Unless the run is resumed, remove the files of an earlier run.

    Args:
        config: Settings of the training.
        out: Run folder; created if it does not exist.
        resume: Whether the run is resumed.

    Raises:
        OutputError: If the folder cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            # Checkpoints first: if the process is killed here, no checkpoint of other settings may remain.
            last_checkpoint(out).unlink(missing_ok=True)
            for name in _REPLACED_FOLDERS:
                shutil.rmtree(out / name, ignore_errors=True)
            for name in _REPLACED_FILES:
                (out / name).unlink(missing_ok=True)
    save_config(config, out / SETTINGS_NAME)


def model_name(out: Path) -> str:
    """Name the model that a run creates, after its folder.

    Args:
        out: Run folder.

    Returns:
        ``geocrodino-`` and the folder's name, with ``-`` in place of characters that a model name cannot hold.
    """
    words = "".join(c if c.isalnum() or c in "_.-" else "-" for c in out.resolve().name).strip("-_.")
    return f"geocrodino-{words or 'model'}"


def save_json(path: Path, content: object) -> None:
    """Write JSON; the file appears complete or not at all.

    Args:
        path: The file.
        content: Plain values.

    Raises:
        OutputError: If it cannot be written.
    """
    with durable_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2), encoding="utf-8")


def recorded_settings(out: Path) -> TrainConfig:
    """Read the settings of a run, with the working grid that it was trained on.

    Args:
        out: Run folder.

    Returns:
        The settings. Where a run of an earlier version recorded no ``resolution_m``, ``drop_path`` or
        ``encoder_rate``, those that it had: the grid of the image, 0 and 1.

    Raises:
        ConfigError: If the file is missing or cannot be read.
        AccessError: If the operating system denies access to it.
    """
    record = out / SETTINGS_NAME
    config = load_config(record, {})
    given = config.training
    # Earlier versions had neither, and did not record them: one learning rate, and no block was left out.
    missing: dict[str, object] = {} if "drop_path" in given.model_fields_set else {"training.drop_path": 0}
    if "encoder_rate" not in given.optimiser.model_fields_set:
        missing["training.optimiser.encoder_rate"] = 1
    return _with_named_grid(load_config(record, missing) if missing else config)


def on_recorded_grid(config: TrainConfig, recorded: TrainConfig) -> TrainConfig:
    """Continue on the working grid of a run, unless the settings name another one.

    Args:
        config: Settings of a training.
        recorded: Those of the run, see `recorded_settings`.

    Returns:
        The settings of the training, which name a grid.
    """
    data = recorded.data
    # A run that named the raster alone has recorded its pixel size too.
    if config.data.resolution_m is None and data.grid_of is not None and config.data.grid_of in (None, data.grid_of):
        return config.with_grid(data.resolution_m, data.grid_of)
    return _with_named_grid(config)


def _with_named_grid(config: TrainConfig) -> TrainConfig:
    """The settings with the raster whose pixel edges the grid keeps; the image is the one of old and of short files."""
    return config.with_grid(config.data.resolution_m, config.data.grid_of or "image")


def _settings_of(out: Path) -> TrainConfig:
    try:
        return recorded_settings(out)
    except ConfigError as error:
        raise ConfigError(f"{error}\n{RESTORE}") from error


def _inputs_of(record: Path) -> dict[str, str]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        what = error if exists(record) else "no such file"
        raise ConfigError(f"{record}: expected hashes of what the run reads, found {what}.\n{RESTORE}") from error


def require_same(before: TrainConfig, now: TrainConfig, out: Path) -> None:
    """Check that a run is continued with its own settings; where its layers are stored may change.

    Args:
        before: Settings of the run.
        now: Settings that are given now.
        out: Run folder.

    Raises:
        ConfigError: If they differ.
    """
    before, now = without_storage(before), without_storage(now)
    if before != now:
        changed = _differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
        raise ConfigError(
            f"{out}: a run can only be resumed with its own settings; changed: {', '.join(changed)}.\n"
            f"{_other_number_format(before.training.precision, now.training.precision)}"
            f"{_of_earlier_version(before, changed)}"
            "Undo the change, or start anew in another folder with `out`. The settings of the run are in "
            f"{out / SETTINGS_NAME}, which can be given as the configuration."
        )


def _of_earlier_version(before: TrainConfig, changed: Sequence[str]) -> str:
    """What to add to the record of a run that began before some settings existed."""
    if before.training.drop_path or not {"training.drop_path", "training.optimiser.encoder_rate"} & set(changed):
        return ""
    rate = before.training.optimiser.encoder_rate
    keys = f"training: {{drop_path: 0, optimiser: {{encoder_rate: {rate:g}}}}}"
    return f"Where the file of the run lacks them, write `{keys}`.\n"


def without_storage(config: TrainConfig) -> TrainConfig:
    """Leave out of settings where layers are stored, which does not change what a training learns.

    Args:
        config: Settings of a training.

    Returns:
        The settings with the defaults of ``data.cache`` and ``training.layers``.
    """
    data = config.data.model_copy(update={"cache": "auto"})
    return config.model_copy(update={"data": data, "training": config.training.model_copy(update={"layers": "auto"})})


def _other_number_format(before: str, now: str) -> str:
    """A line on the number format. With ``auto`` it can differ although the user changed nothing."""
    if before == now:
        return ""
    return (
        f"The run began in {before}; expected the same, found {now}. What auto stands for depends on the device: "
        f"continue here with `training.precision='{before}'`.\n"
    )


def _differences(before: Any, after: Any, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(set(before) | set(after))
        return [d for k in keys for d in _differences(before.get(k), after.get(k), f"{key}.{k}".lstrip("."))]
    return [] if before == after else [key]
