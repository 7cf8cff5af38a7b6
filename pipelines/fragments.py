"""Tables of the documentation: Markdown and the numbers behind it, one pair of files for each command.

``docs/assemble_results.py`` puts the Markdown into the pages and reads the numbers for the tables of several scenes.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geocrodino import __version__
from geocrodino.settings.config import TrainConfig

FRAGMENTS = Path(__file__).resolve().parents[1] / "docs" / "results"
"""Folder of the tables of the documentation."""

_PLACES = ("--out", "--fragments")
"""Options that name folders of one machine and do not change a number."""


def write_fragment(name: str, table: Sequence[str], command: str, facts: Mapping[str, Any], folder: Path) -> None:
    """Write ``NAME.md`` and ``NAME.json``.

    Args:
        name: Name of the table, as in the pages.
        table: Lines of Markdown.
        command: The command that makes the table.
        facts: Numbers, seeds, data, split and settings, in plain values.
        folder: Folder to write to; created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"command": command, "geocrodino": __version__, **facts}
    for suffix, text in (("json", json.dumps(facts, indent=1, allow_nan=False)), ("md", "\n".join(table).strip())):
        (folder / f"{name}.{suffix}").write_text(text + "\n", encoding="utf-8")
    print(f"\n{folder / name}.md and .json written", flush=True)


def command_line(words: Sequence[str] | None = None) -> str:
    """Compose the command of this process as a reader would type it in the repository.

    Args:
        words: Script and options; None: those of this process.

    Returns:
        The command without the folders it writes to, which do not change a number; files of this machine by name only.
    """
    script, *options = words or sys.argv
    kept, skip = [], False
    for word in options:
        named = word.split("=")[0] in _PLACES
        if not named and not skip:
            option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
            kept.append(f"{option}{equals}{_without_folders(value)}")
        skip = named and "=" not in word
    return shlex.join(["python", os.path.relpath(script, FRAGMENTS.parents[1]), *kept])


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """List the settings of a training without the folders of this machine.

    Args:
        config: The settings.

    Returns:
        Plain values for JSON; files by name only.
    """
    return _without_folders(config.model_dump(mode="json"))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def describe_device(accelerator: str = "auto") -> str:
    """Name the device of the trainings.

    Args:
        accelerator: As in the settings of a training.

    Returns:
        Name of the GPU, or the number of cores.
    """
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU, {usable} cores, {torch.get_num_threads()} threads"
