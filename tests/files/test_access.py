"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from geocrodino.errors import AccessError, OutputError
from geocrodino.files.access import (
    absence,
    access_errors,
    check_text,
    durable_file,
    entries,
    full_path,
    look_up,
    read_text,
    same_file,
    whole_file,
)


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with whole_file(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
        assert partial.suffix == ".json"
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def write_half():
        with whole_file(target) as partial:
            partial.write_text("ha")
            raise ValueError("power cut")

    with pytest.raises(ValueError, match="power cut"):
        write_half()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path):
    (tmp_path / ".a.partial.json").write_text("left over")
    with whole_file(tmp_path / "a.json") as partial:
        assert not partial.exists()
        partial.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_two_names_of_one_file(tmp_path):
    path, link = tmp_path / "a.json", tmp_path / "b.json"
    assert not same_file(path, path)
    path.touch()
    assert not same_file(path, link)
    link.symlink_to(path)
    assert same_file(path, link)
    assert not same_file(path, tmp_path)


def test_looking_up(tmp_path):
    (tmp_path / "a").touch()
    found = look_up(tmp_path / "a")
    assert found is not None
    assert found.st_size == 0
    assert look_up(tmp_path / "b") is None
    assert look_up(tmp_path / "a" / "b") is None
    (tmp_path / "loop").symlink_to("loop")
    for name in (tmp_path / "loop", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(AccessError):
            look_up(name)
        with pytest.raises(AccessError):
            full_path(name)


def test_why_nothing_is_there(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    assert absence(tmp_path / "none") == "no such file"
    assert absence(tmp_path / "link") == "no such file: it is a link to gone, which does not exist"


def test_errors_of_the_system_name_the_path(tmp_path):
    with pytest.raises(AccessError) as caught, access_errors("a.tif"):
        raise OSError(5, "Input/output error")
    assert str(caught.value) == (
        "a.tif: cannot be accessed (Input/output error).\n"
        "Check the name, and the permissions of the file and of the folders that lead to it."
    )
    with pytest.raises(AccessError, match="No such file or directory"):
        entries(tmp_path / "none")


def test_names_that_are_text():
    check_text("道路.tif")
    with pytest.raises(AccessError, match="bytes that are not UTF-8"):
        check_text("sc\udce8ne.tif")


def test_a_failed_write_names_the_file_and_the_reason(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("before")

    def fail(error, *kinds):
        with durable_file(path, *kinds) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(OutputError) as refused:
        fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(refused.value) == f"{path}: cannot be written (No space left on device)."
    with pytest.raises(OutputError, match=r"file\.json: cannot be written \(disk image is malformed\)\."):
        fail(RuntimeError("disk image is malformed"), RuntimeError)
    with pytest.raises(RuntimeError, match="another"):
        fail(RuntimeError("another"))
    assert path.read_text() == "before"
    with durable_file(path) as partial:
        partial.write_text("after")
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_in_unicode(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Fläche\r\nWeg\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "Fläche\nWeg\n"


def test_texts_that_are_none(tmp_path):
    (tmp_path / "a.txt").write_bytes("Fläche".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "a.txt")
    with pytest.raises(AccessError):
        read_text(tmp_path)
