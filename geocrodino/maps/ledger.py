"""A record of finished parts beside an unfinished result, so that a killed process loses little work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from geocrodino.errors import OutputError

_RECORD, _GUARD = "ledger.jsonl", "lock"


class Ledger:
    """Finished parts of the work on one result, and the folder that holds them until it is whole.

    Use it as a context manager. The folder ``.NAME.part`` beside the result holds the files of the parts, and a text
    file with a line for each finished one. If the work fails, is stopped or killed after the first finished part, the
    folder stays, and the same work continues with ``resume``. Only one process at a time can work on a result.

    Args:
        path: The result.
        key: What the result depends on, by name, as text: inputs, settings, versions. Work goes on only where all
            of it is the same.
        resume: Go on where an earlier run stopped; otherwise its parts are thrown away.

    Attributes:
        folder: Where parts are kept.
        done: Finished parts by name, and what was noted of each, JSON values.

    Raises:
        OutputError: On entry, if the folder cannot be written or another process works on the result; with
            ``resume``, if there is nothing to go on with or the key differs.
    """

    def __init__(self, path: Path, key: Mapping[str, str], *, resume: bool = False) -> None:
        self.path, self.key, self.resume = path, dict(key), resume
        self.folder = path.with_name(f".{path.name}.part")
        self.done: dict[str, Any] = {}
        self._finished = False
        self._lock = Lock()
        self._guard = FileLock(path.with_name(f".{path.name}.{_GUARD}"), timeout=0)

    def __enter__(self) -> Self:
        try:
            self._guard.acquire()
        except Timeout as error:
            raise OutputError(
                f"{self.path}: another process is working on this file.\nWait for it, or choose another name."
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            if self.resume:
                self.done = self._read()
            else:
                self._start()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finished or not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._release()

    def add(self, name: str, note: Any) -> None:
        """Record a part as finished; several threads may call this.

        Args:
            name: Name of the part, whose files must be on the disk.
            note: What to remember of it, a value that JSON can hold.

        Raises:
            OSError: If the line cannot be written.
        """
        line = json.dumps({"part": name, "note": note}, separators=(",", ":")) + "\n"
        with self._lock:
            with (self.folder / _RECORD).open("a", encoding="utf-8") as record:
                record.write(line)
            self.done[name] = note

    def finish(self) -> None:
        """Mark the result as complete, so that the folder is removed on exit."""
        self._finished = True

    def _start(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        (self.folder / _RECORD).write_text(json.dumps({"key": self.key}) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        record = self.folder / _RECORD
        if not record.exists():
            raise OutputError(
                f"{self.path}: there is no work to go on with. Expected the folder {self.folder.name} of a run that "
                "was stopped, found none.\nRun without `resume`."
            )
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        key = _parsed(lines[0]).get("key") if lines else None
        if key != self.key:
            raise OutputError(
                f"{self.path}: the work that was stopped was another one. {_difference(key or {}, self.key)}\n"
                "Give it as it was then, or start anew without `resume`."
            )
        if not lines[-1].endswith("\n"):
            # Cut short when the process was killed; what follows must start on a line of its own.
            record.write_text("".join(lines[:-1]), encoding="utf-8")
        return {entry["part"]: entry["note"] for entry in map(_parsed, lines[1:]) if "part" in entry}

    def _release(self) -> None:
        if not self.folder.exists():  # while it is locked: a waiting process then finds it removed, and makes another
            with suppress(PermissionError):  # where an open file cannot be removed it stays
                Path(self._guard.lock_file).unlink(missing_ok=True)
        self._guard.release()

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path}: the folder {self.path.parent} cannot be written ({error.strerror}).\n"
            "Expected a folder with write permission and free space. Choose another one."
        )


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


_HASH = re.compile(r"[0-9a-f]{64}")


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return " ".join(_changed(name, before.get(name, "none"), now.get(name, "none")) for name in differing)


def _changed(name: str, before: str, now: str) -> str:
    if _HASH.fullmatch(before) and _HASH.fullmatch(now):  # which say nothing to a reader
        return f"{name}: it has changed since, or the size, time of change or place of its files."
    return f"{name}: expected {before}, found {now}."
