"""Trainings that meet a full disk, are killed, or find a damaged checkpoint: each message and its way out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geocrodino.data import alignment, layer_files
from geocrodino.settings.config import save_config
from geocrodino.training import folder as run_folder
from geocrodino.training import prepare, run
from geocrodino.training.checkpoint import WholeCheckpoints
from geocrodino.training.logs import EventLog, TableLog
from geocrodino.training.task import TrainingTask
from reliability.kinds import case, marked

DISK_BYTES = 96 * 2**20
FROM_THE_START = "the same training again: no epoch was finished, so it starts from the beginning."
WITH_RESUME = "the same training with --resume --out {out}: it continues after the last finished epoch."


@pytest.fixture(autouse=True)
def quickly(request):
    """Leave out the pace, except once where Ctrl-C is pressed, and the picture, except where the disk is full then."""
    if "[first step-again]" not in request.node.name:
        request.getfixturevalue("no_measurement")
    if "[picture]" not in request.node.name:
        request.getfixturevalue("no_picture")


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 96 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no command mount: a full disk is not tried")
    if done.returncode:
        pytest.skip(f"mounting a small file system is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, leave):
    """Write a file that leaves so many bytes of room on a disk."""
    os.sync()
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - leave)))
    assert shutil.disk_usage(disk).free <= leave + 4096


@pytest.fixture(scope="module")
def settings(tiny_config, tmp_path_factory):
    """Configuration files of tiny trainings, by method."""
    folder = tmp_path_factory.mktemp("settings")

    def write(method="single"):
        path = folder / f"{method}.yaml"
        save_config(tiny_config({"method.name": method, "training.epochs": 3}), path)
        return path

    return write


@pytest.fixture(scope="module")
def undisturbed(tiny_config, tmp_path_factory):
    """The bundle of a training that nothing interrupts, by method."""
    finished = {}

    def train(method="single"):
        if method not in finished:
            config = tiny_config({"method.name": method, "training.epochs": 3})
            finished[method] = run.train(config, tmp_path_factory.mktemp("undisturbed") / "run").bundle
        return finished[method]

    return train


def require_same_weights(bundle, expected):
    one, two = load_file(bundle), load_file(expected)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


def leftovers(out):
    """Files that are not whole, or not of a finished run."""
    return [p for p in out.rglob("*") if p.name.startswith(".") or "partial" in p.name or p.name.startswith("best-")]


def before(monkeypatch, owner, name, act, *, call=1):
    """Do something before a function is called for the n-th time."""
    function, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            act()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


def stopped_by_a_full_disk(result, named, way_out):
    code, printed, err = result
    assert code == 2, err
    assert "Traceback" not in err + printed
    assert err.count("Error: ") == 1
    first, last = err.removeprefix("Error: ").splitlines()[0], err.splitlines()[-1]
    assert str(named) in first
    assert last == f"Make room on its disk, then run {way_out}"


def again(words, err):
    """The command that a message names."""
    extra = re.search(r"then run the same training (?:again|with (.*?))(, without --overwrite)?: it|again: no", err)
    assert extra, err
    kept = [w for w in words if not (extra[2] and w == "--overwrite")]
    return [*kept, *(extra[1] or "").split()]


def stage(owner, function, call, leave, named, kept, name, *, slow=False):
    place = (owner, function)
    return case("a full disk during a training", "refused", place, call, leave, named, kept, id=name, slow=slow)


SAVE = (WholeCheckpoints, "save_checkpoint")
STAGES = [
    # What is called when the disk is filled, its how manieth call, bytes that are left; the file that the message
    # names, epochs that are kept.
    stage(alignment, "_write_layers", 1, 81920, "aligned/optical.img", 0, "aligned image"),
    stage(layer_files, "_write_header", 2, 0, "aligned/elevation.img", 0, "header of the aligned heights", slow=True),
    stage(run_folder, "keep_inputs", 1, 0, "inputs.json", 0, "inputs", slow=True),
    stage(prepare, "_save_splits", 1, 8192, "splits.gpkg", 0, "splits"),
    stage(run_folder, "begin", 1, 0, "config.yaml", 0, "settings", slow=True),
    stage(TableLog, "log_metrics", 1, 0, "logs", 0, "first row of the table", slow=True),
    stage(TableLog, "log_metrics", 4, 0, "logs/metrics.csv", 2, "later row of the table"),
    stage(EventLog, "log_metrics", 1, 0, "tensorboard/events.out.tfevents", 0, "events", slow=True),
    stage(*SAVE, 3, 40960, "checkpoints/last.ckpt", 2, "third checkpoint"),
    stage(run, "_summarise", 1, 0, "metrics.json", 3, "metrics", slow=True),
    stage(run, "plot_reliability", 1, 4096, "reliability.png", 3, "picture"),
    stage(run, "save_bundle", 1, 40960, "bundle.safetensors", 3, "bundle"),
]


@pytest.mark.parametrize(("place", "call", "leave", "named", "kept"), STAGES)
def test_a_full_disk_is_named_and_the_training_goes_on_once_there_is_room(
    disk, settings, undisturbed, run_cli, monkeypatch, place, call, leave, named, kept
):
    out = disk / "run"
    words = ["train", "--config", str(settings()), "--out", str(out)]
    with monkeypatch.context() as patch:
        before(patch, *place, lambda: fill(disk, leave), call=call)
        result = run_cli(*words)
    stopped_by_a_full_disk(result, out / named, WITH_RESUME.format(out=out) if kept else FROM_THE_START)
    assert not (out / "bundle.safetensors").exists()
    assert not leftovers(out)
    (disk / "ballast").unlink()
    code, printed, err = run_cli(*again(words, result[2]))
    assert (code, err) == (0, "")
    assert (f"Resuming after epoch {kept} of 3.\n" in printed) == bool(kept)
    require_same_weights(out / "bundle.safetensors", undisturbed())
    assert not leftovers(out)


@pytest.mark.parametrize("asked", ["--resume", "--overwrite"])
@marked("a full disk during a training", "refused")
def test_other_options_of_the_first_command(disk, settings, undisturbed, run_cli, monkeypatch, asked):
    out = disk / "run"
    words = ["train", "--config", str(settings()), "--out", str(out)]
    (out / "aligned").mkdir(parents=True)  # so that there is something to resume
    with monkeypatch.context() as patch:
        before(patch, WholeCheckpoints, "save_checkpoint", lambda: fill(disk, 40960), call=2)
        code, _, err = run_cli(*words, asked)
    assert code == 2
    what = {
        "--resume": "the same training again: it continues after the last finished epoch.",
        "--overwrite": f"the same training with --resume --out {out}, without --overwrite: it continues after the last "
        "finished epoch.",
    }[asked]
    assert err.splitlines()[-1] == f"Make room on its disk, then run {what}"
    (disk / "ballast").unlink()
    assert run_cli(*again([*words, asked], err))[0] == 0
    require_same_weights(out / "bundle.safetensors", undisturbed())


@marked("a full disk during a training", "refused")
def test_too_little_room_for_the_aligned_rasters_is_found_before_they_are_made(disk, settings, run_cli):
    out = disk / "run"
    fill(disk, 400_000)
    words = ["train", "--config", settings(), "--out", out]
    code, _, err = run_cli(*words)
    assert code == 2
    # 290 x 290 px of 3 + 1 channels with 4 bytes, and of labels with 1.
    told = "not enough free space for the aligned rasters: expected 1.4 MB, found "
    assert err.startswith(f"Error: {out}/aligned: {told}")
    assert err.endswith(f"Make room on its disk, then run {FROM_THE_START}\n")
    (disk / "ballast").unlink()
    assert run_cli(*words)[0] == 0


@marked("a full disk during a training", "right")
def test_aligned_rasters_that_are_there_need_no_room(disk, settings, undisturbed, run_cli, monkeypatch):
    out = disk / "run"
    words = ["train", "--config", settings(), "--out", out]
    with monkeypatch.context() as patch:
        before(patch, run_folder, "begin", lambda: fill(disk, 0))
        assert run_cli(*words)[0] == 2
    monkeypatch.setattr(alignment, "require_space", lambda *_: pytest.fail("asked for room"))
    (disk / "ballast").unlink()
    assert run_cli(*words)[0] == 0
    require_same_weights(out / "bundle.safetensors", undisturbed())


@pytest.mark.slow
@marked("a full disk during a training", "refused")
def test_a_full_disk_while_the_teacher_is_trained(disk, settings, undisturbed, run_cli, monkeypatch):
    out = disk / "run"
    words = ["train", "--config", str(settings("kd")), "--out", str(out)]
    with monkeypatch.context() as patch:
        before(patch, WholeCheckpoints, "save_checkpoint", lambda: fill(disk, 40960), call=2)
        result = run_cli(*words)
    stopped_by_a_full_disk(result, out / "teacher" / "checkpoints" / "last.ckpt", WITH_RESUME.format(out=out))
    (disk / "ballast").unlink()
    code, printed, err = run_cli(*again(words, result[2]))
    assert (code, err) == (0, "")
    assert "Resuming the training of the teacher after epoch 1 of 3.\n" in printed
    require_same_weights(out / "bundle.safetensors", undisturbed("kd"))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        case("a disk that cannot be written", "refused", 122, "Disk quota exceeded", id="quota"),
        case("a disk that cannot be written", "refused", 5, "Input/output error", id="input and output"),
        case("a disk that cannot be written", "refused", 30, "Read-only file system", id="read-only"),
        case("a disk that cannot be written", "refused", 27, "File too large", id="size limit"),
    ],
)
def test_other_reasons_not_to_write(settings, run_cli, tmp_path, monkeypatch, number, reason):
    out = tmp_path / "run"
    words = ["train", "--config", str(settings()), "--out", str(out)]

    def fail():
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        write = Path.write_bytes
        patch.setattr(Path, "write_bytes", lambda p, c: fail() if "last" in p.name else write(p, c))
        code, printed, err = run_cli(*words)
    assert code == 2
    assert "Traceback" not in err + printed
    first = "Make room on its disk" if number == 122 else "Check the permissions and the free space there"
    assert err == (
        f"Error: {out}/checkpoints/last.ckpt: cannot be written ({reason}).\n{first}, then run {FROM_THE_START}\n"
    )
    assert not leftovers(out)


@marked("a disk that cannot be written", "refused")
def test_a_file_system_that_is_read_only(disk, settings, run_cli):
    out = disk / "run"
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, _, err = run_cli("train", "--config", settings(), "--out", out)
    assert code == 2
    assert err == (f"Error: {out}: cannot be written (Read-only file system). Choose another folder with --out.\n")


@pytest.mark.slow
@marked("a full disk during a training", "refused")
def test_output_that_goes_to_a_file_on_a_full_disk(settings, tmp_path):
    out = tmp_path / "run"
    words = [sys.executable, "-m", "geocrodino", "train", "--config", str(settings()), "--out", str(out)]
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "Error: standard output: cannot be written ([Errno 28] No space left on device). The files are complete, but "
        "part of the text is lost.\n"
    )
    assert (out / "bundle.safetensors").exists()


@marked("two trainings in one folder", "refused")
def test_a_folder_in_which_another_process_trains(settings, run_cli, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    with run_folder.alone(out):
        code, _, err = run_cli("train", "--config", settings(), "--out", out)
    assert (code, err) == (
        2,
        f"Error: {out}: another process is training in this folder.\n"
        "Wait for it, or choose another folder with --out.\n",
    )
    assert not list(out.iterdir())


# --- killed, stopped ------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from geocrodino.settings.config import load_config
from geocrodino.training import run
from geocrodino.training.task import TrainingTask
import torch

torch.set_num_threads(1)
stage, config, out = sys.argv[1:]
calls = []

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def write_half(path, content, write=Path.write_bytes):
    if path.name == ".last.partial.ckpt":
        calls.append(path)
        if len(calls) == 2:
            write(path, bytes(content)[: len(content) // 2])
            kill()
    return write(path, content)

def keep_the_name(path, target, replace=Path.replace):
    if path.name == ".last.partial.ckpt":
        calls.append(path)
        if len(calls) == 2:
            kill()
    return replace(path, target)

if stage == "half written":
    Path.write_bytes = write_half
elif stage == "not renamed":
    Path.replace = keep_the_name
else:
    TrainingTask.training_step = lambda *_: kill()
run.train(load_config(Path(config)), out)
"""


@pytest.mark.parametrize(
    ("stage", "kept"),
    [
        case("a training killed while it saves", "right", "half written", 1, id="half written"),
        case("a training killed while it saves", "right", "not renamed", 1, id="not renamed", slow=True),
        case("an interrupted first epoch", "right", "first step", 0, id="killed in the first step", slow=True),
    ],
)
def test_a_killed_training_is_resumed(settings, undisturbed, run_cli, tmp_path, stage, kept):
    out = tmp_path / "run"
    words = [sys.executable, "-c", KILLED, stage, str(settings()), str(out)]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    staged = out / "checkpoints" / ".last.partial.ckpt"
    assert staged.exists() == bool(kept)
    code, printed, err = run_cli("train", "--config", settings(), "--out", out, "--resume")
    assert (code, err) == (0, "")
    found = (
        "Resuming after epoch 1 of 3."
        if kept
        else f"{out}: no epoch was finished, so the training starts from the beginning."
    )
    first, second = printed.splitlines()[:2]
    assert first.startswith(f"Resuming a training in {out}: method ")
    assert second == found
    assert not leftovers(out)
    require_same_weights(out / "bundle.safetensors", undisturbed())


@pytest.mark.parametrize("option", [[], ["--resume"]], ids=["again", "resume"])
@pytest.mark.parametrize(
    "place",
    [
        case("an interrupted first epoch", "right", (alignment, "_write_layers"), id="aligning"),
        case("an interrupted first epoch", "right", (TrainingTask, "training_step"), id="first step"),
    ],
)
def test_ctrl_c_before_an_epoch_is_finished(settings, undisturbed, run_cli, tmp_path, monkeypatch, place, option):
    def stop():
        raise KeyboardInterrupt

    out = tmp_path / "run"
    words = ["train", "--config", settings(), "--out", out]
    with monkeypatch.context() as patch:
        before(patch, *place, stop)
        code, _, err = run_cli(*words)
    assert code == 130
    assert err == f"Stopped. Run {FROM_THE_START}\n"
    code, printed, _ = run_cli(*words, *option)
    assert code == 0
    told = f"{out}: no epoch was finished, so the training starts from the beginning.\n"
    first, rest = printed.split("\n", 1)
    assert first.startswith(f"{'Resuming' if option else 'Starting'} a training in {out}: method ")
    assert rest.startswith(told) == bool(option)
    require_same_weights(out / "bundle.safetensors", undisturbed())


@marked("an interrupted first epoch", "right")
def test_ctrl_c_after_an_epoch_is_finished(settings, undisturbed, run_cli, tmp_path, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    out = tmp_path / "run"
    words = ["train", "--config", str(settings()), "--out", str(out)]
    with monkeypatch.context() as patch:
        before(patch, TrainingTask, "training_step", stop, call=4)
        code, _, err = run_cli(*words)
    assert (code, err) == (130, f"Stopped. Run {WITH_RESUME.format(out=out)}\n")
    assert run_cli(*words, "--resume")[0] == 0
    require_same_weights(out / "bundle.safetensors", undisturbed())


# --- damaged --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tiny_config, tmp_path_factory):
    """The folder of a run of which two epochs are finished; not to be changed."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        before(patch, TrainingTask, "training_step", lambda: (_ for _ in ()).throw(KeyboardInterrupt), call=5)
        with pytest.raises(KeyboardInterrupt):
            run.train(tiny_config({"method.name": "single", "training.epochs": 3}), out)
    return out


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_byte_changed(path):
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 0xFF  # a weight
    path.write_bytes(content)


def a_folder(path):
    path.unlink()
    path.mkdir()


def changed(edit):
    def damage(path):
        content = torch.load(path, weights_only=True)
        torch.save(edit(content), path)

    return damage


def without_best(content):
    content["callbacks"]["BestNetworks"].pop("weights")
    return content


def another_network(content):
    content["state_dict"] = {f"{k}.x": v for k, v in content["state_dict"].items()}
    return content


DAMAGED = "the checkpoint is damaged or cut short ("
OTHER = "expected a checkpoint of this version of geocrodino, found other content."
NETWORKS = "expected the networks of this training, found others."
DAMAGES = [
    case("a damaged checkpoint", "refused", cut_short, DAMAGED, id="cut short"),
    case("a damaged checkpoint", "refused", lambda p: p.write_bytes(b""), DAMAGED, id="empty"),
    case("a damaged checkpoint", "refused", lambda p: p.write_bytes(bytes(p.stat().st_size)), DAMAGED, id="zeros"),
    case("a damaged checkpoint", "refused", one_byte_changed, DAMAGED, id="one byte"),
    case("a damaged checkpoint", "refused", lambda p: p.write_text("404: Not Found"), DAMAGED, id="text"),
    case("a damaged checkpoint", "refused", a_folder, "the checkpoint cannot be read (Is a directory).", id="folder"),
    case("a damaged checkpoint", "refused", changed(lambda _: {}), OTHER, id="nothing in it"),
    case("a damaged checkpoint", "refused", changed(lambda _: [1, 2]), OTHER, id="a list"),
    case("a damaged checkpoint", "refused", changed(without_best), OTHER, id="older version"),
    case("a damaged checkpoint", "refused", changed(another_network), NETWORKS, id="another network"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint(settings, run_cli, interrupted, tmp_path, damage, reason):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    path = out / "checkpoints" / "last.ckpt"
    damage(path)
    code, printed, err = run_cli("train", "--config", settings(), "--out", out, "--resume")
    assert code == 2, err
    assert "Traceback" not in err + printed
    assert err.startswith(f"Error: {path}: {reason}")
    way_out = "Restore the file from a copy, or start anew with --overwrite instead of --resume.\n"
    assert err.endswith(f"\n{way_out}")
    assert path.exists()


@marked("a damaged checkpoint", "refused")
def test_the_ways_out_of_a_damaged_checkpoint(settings, undisturbed, run_cli, interrupted, tmp_path):
    words = ["train", "--config", settings(), "--out"]
    for name, option in (("copy", "--resume"), ("anew", "--overwrite")):
        out = tmp_path / name
        shutil.copytree(interrupted, out)
        path = out / "checkpoints" / "last.ckpt"
        cut_short(path)
        assert run_cli(*words, out, "--resume")[0] == 2
        if option == "--resume":
            shutil.copy(interrupted / "checkpoints" / "last.ckpt", path)
        assert run_cli(*words, out, option)[0] == 0
        require_same_weights(out / "bundle.safetensors", undisturbed())


def damaged(outcome, name, content, told=None, *, why):
    return case("a damaged run folder", outcome, name, content, told, id=why)


FOUND = "expected hashes of what the run reads, found"
OF_A_RUN = [
    damaged("refused", "config.yaml", "data: [", "not a readable YAML file", why="settings"),
    damaged("refused", "config.yaml", None, "no such file, but the folder holds an interrupted run", why="no settings"),
    damaged("refused", "inputs.json", '{"labels', FOUND, why="inputs"),
    damaged("refused", "inputs.json", "[1]", FOUND, why="a list of inputs"),
    damaged("right", "aligned/aligned.json", '{"key', why="record of the layers"),
    damaged("right", "aligned/optical.img", "x", why="layer cut short"),
    damaged("right", "logs/metrics.csv", "epoch,loss/to\n0", why="table cut short"),
    damaged("right", "statistics.json", "", why="statistics"),
]


@pytest.mark.parametrize(("name", "content", "told"), OF_A_RUN)
def test_other_damaged_files_of_a_run(settings, undisturbed, run_cli, interrupted, tmp_path, name, content, told):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    (out / name).unlink() if content is None else (out / name).write_text(content)
    words = ["train", "--config", settings(), "--out", out]
    code, _, err = run_cli(*words, "--resume")
    if told is None:
        assert (code, err) == (0, "")
    else:
        assert code == 2
        assert err.startswith(f"Error: {out}/{name}: {told}")
        assert "start anew with --overwrite" in err.splitlines()[-1]
        assert run_cli(*words, "--overwrite")[0] == 0
    require_same_weights(out / "bundle.safetensors", undisturbed())


@marked("a training killed while it saves", "right")
def test_a_resumed_table_holds_each_epoch_once(settings, run_cli, interrupted, undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    assert run_cli("train", "--config", settings(), "--out", out, "--resume")[0] == 0
    assert (out / "logs" / "metrics.csv").read_text() == (undisturbed().parent / "logs" / "metrics.csv").read_text()
