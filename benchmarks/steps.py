"""Processor time of the steps of a training, in a process of its own, on one thread.

Called by the other benchmarks:

    python benchmarks/steps.py SCENE STEPS CHANGES     folder of a generated town; changes of its settings as JSON

A training of two epochs is started and left after its last step. The time of a step is the mean over the steps of the
second epoch, when every term of the loss takes part; it includes reading, augmentation and the moving average of
weights, and no validation. The steps of a teacher are added.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

EPOCHS = 2
"""Epochs of a training; the steps of the last one are measured."""


def step_seconds(scene: Path, changes: Mapping[str, Any], steps: int) -> float | str:
    """Measure the steps of a training in its own process.

    Args:
        scene: Folder of the generated scene.
        changes: Changes of its settings by dotted key; epochs and steps are set here.
        steps: Steps of an epoch, at least 2.

    Returns:
        Processor seconds of a step; or the last line of the error output if the training failed.
    """
    words = [sys.executable, __file__, str(scene), str(steps), json.dumps(changes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1]
    found: float = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_child(scene: str, steps: str, changes: str) -> None:
    """Train, and print the processor seconds of a step.

    Args:
        scene: Folder of the generated scene.
        steps: Steps of an epoch.
        changes: Changes of its settings as JSON.
    """
    import torch
    from lightning.pytorch.callbacks import Callback

    from geocrodino.settings.config import load_config
    from geocrodino.town.write import ScenePaths
    from geocrodino.training.learners.build import learner_class
    from geocrodino.training.run import train

    class _Enough(Exception):  # noqa: N818 - not an error
        """The last step is measured."""

    class _Clock(Callback):
        def __init__(self) -> None:
            self.ends: dict[str, list[float]] = {}

        def on_train_batch_end(self, trainer: Any, module: Any, *_: object) -> None:
            if trainer.current_epoch < EPOCHS - 1:
                return
            ends = self.ends.setdefault(type(module.learner).__name__, [])
            ends.append(time.process_time())
            if len(ends) == int(steps) and isinstance(module.learner, learner_class(config.method)):
                raise _Enough

    torch.set_num_threads(1)
    given = {**json.loads(changes), "training.epochs": EPOCHS, "training.steps_per_epoch": int(steps)}
    config = load_config(ScenePaths.within(Path(scene)).config, given)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, suppress(_Enough):
        train(config, Path(folder) / "run", callbacks=[clock])
    print(json.dumps(sum(statistics.fmean(b - a for a, b in pairwise(ends)) for ends in clock.ends.values())))


if __name__ == "__main__":
    run_child(*sys.argv[1:])
