"""Standard streams that never end the work."""

from __future__ import annotations

import io
import sys

import pytest

from geocrodino.cli.streams import lenient_streams


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "m² ■ é \N{EN DASH} … ½ 道", r"m2 # e - ... \xbd \u9053"),
        ("cp1252", "m² ■ é … ½ 道", r"m² # é … ½ \u9053"),
        ("utf-8", "m² 道 \udce8", r"m² 道 \udce8"),
    ],
)
def test_characters_that_an_encoding_lacks(monkeypatch, encoding, text, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with lenient_streams():
        sys.stdout.write(text)
    assert sys.stdout is stream
    assert stream.buffer.getvalue().decode(encoding) == shown


class _Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_fails_is_silent(monkeypatch):
    monkeypatch.setattr(sys, "stdout", _Broken())
    with lenient_streams() as out:
        sys.stdout.write("a")
        sys.stdout.flush()
    assert isinstance(out.failure, BrokenPipeError)


def test_a_stream_that_was_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with lenient_streams() as out:
        sys.stdout.write("a")
        sys.stdout.flush()
    assert out.failure is None
