"""Main function of a process that helps to train: it computes its share of each batch, and ends with the training."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from geocrodino.errors import GeocrodinoError


def main(folder: str, number: int, count: int) -> int:
    """Help to train.

    Args:
        folder: Folder with the file ``work``, which `companions` has written; errors are reported there.
        number: Number of this process, at least 1.
        count: Number of processes.

    Returns:
        Exit status: 0 after the training, 1 after an error that a user can correct.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    Thread(target=_end_with_the_first, daemon=True).start()
    try:
        _help(Path(folder), number, count)
    except GeocrodinoError:
        return 1
    return 0


def _report(error: Exception, folder: Path, number: int, count: int) -> None:
    """Write an error for the first process to show, before the connections close and it meets an error of its own."""
    if isinstance(error, GeocrodinoError):
        told = {"kind": type(error).__name__, "message": str(error)}
    else:
        text = f"training.devices: process {number + 1} of {count} ended: {type(error).__name__}: {error}"
        told = {"kind": "GeocrodinoError", "message": f"{text}\nUse `training.devices=1` to see where."}
    unfinished = folder / f"{number}.error.partial"  # the first process may look at any moment
    unfinished.write_text(json.dumps(told), encoding="utf-8")
    unfinished.replace(folder / f"{number}.error")


def _help(folder: Path, number: int, count: int) -> None:
    import torch

    from geocrodino.settings.modality import MODALITIES
    from geocrodino.training.loop import run_loop
    from geocrodino.training.parts import Processes
    from geocrodino.training.processes import connected, is_lost_connection

    with (folder / "work").open("rb") as file:
        work: dict[str, Any] = pickle.load(file)  # noqa: S301 the first process wrote it for its own user
    device, threads = work.pop("device"), work.pop("threads")
    for modality in work.pop("modalities"):  # those that a script or another package has registered too
        MODALITIES.add(modality)
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(number)
    (folder / f"{number}.ready").touch()
    processes = Processes(number, count)
    with connected(processes, folder / "meeting", device):
        try:
            run_loop(**work, callbacks=[], processes=processes)
        except Exception as error:
            if not is_lost_connection(error):
                _report(error, folder, number, count)
            raise


def _end_with_the_first() -> None:
    """End at once when the first process has ended or closes the standard input."""
    sys.stdin.buffer.read()
    os._exit(1)
