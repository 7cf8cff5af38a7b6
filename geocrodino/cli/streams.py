"""Standard output and standard error whose failures do not stop a command.

A stream may be closed, on a full disk, a pipe that nobody reads, or have an encoding that lacks some of the characters.
The files that a command writes must be finished all the same.
"""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

_PLAIN = "geocrodino.plain"
_SIMILAR = {
    "\N{BLACK SQUARE}": "#",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
}


class Stream:
    """A text stream whose first failure silences it.

    Attributes:
        failure: The error that silenced it, if any.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or nothing once the stream has failed."""
        if self.failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._silence(error)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._silence(error)

    def _silence(self, error: OSError) -> None:
        self.failure = error
        # What is still buffered would fail again when the process ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[Stream]:
    r"""Replace standard output and standard error inside the block; the value is the standard output.

    Characters that the encoding of a stream lacks are shown as similar ones, or as ``\uXXXX``.
    """
    codecs.register_error(_PLAIN, _similar)
    before = sys.stdout, sys.stderr
    out, err = (Stream(_adapted(stream)) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _adapted(stream: TextIO | None) -> TextIO:
    """The stream with an encoding that does not fail; where it was closed before the start, the null device."""
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for the rest of the process
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=_PLAIN)
    return stream


def _similar(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_plain(character) for character in text), error.end


def _plain(character: str) -> str:
    """ASCII that stands for a character: without accents if that is possible, else its escape sequence."""
    decomposed = unicodedata.normalize("NFKD", _SIMILAR.get(character, character))
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return bare if bare.isascii() and bare else character.encode("ascii", "backslashreplace").decode()
