"""Names of rasters: files, URLs and files inside archives, and what can be checked before GDAL opens them.

A `Path` folds two slashes into one, which changes URLs and GDAL's virtual names; `gdal_name` restores them.
"""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from geocrodino.errors import RasterError
from geocrodino.files.access import (
    absence,
    access_errors,
    check_readable,
    check_text,
    exists,
    is_file,
    is_folder,
    look_up,
)
from geocrodino.phrases import listed

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_FOLDED_URL = re.compile(r"^(https?|ftp|s3|gs|az|oss):/(?!/)")
_FOLDED_INNER_URL = re.compile(r"(?<=[/{])(https?|ftp):/(?!/)")
_ARCHIVE = re.compile(r"^(?:/vsi(zip|tar|gzip)/|(zip|tar|gzip)(?:\+file)?:/{1,2}(?!/vsi))(.+)$")
_REMOTE_ARCHIVE = re.compile(r"^(zip|tar)\+(https?):/{1,2}([^!]+)!/?(.+)$")
_SUFFIXES = {".zip", ".tar", ".tgz", ".gz"}
_NESTED = re.compile(r"^[/{]*(vsi\w+/|https?:/)")


@dataclass(frozen=True)
class Member:
    """A file inside an archive of this machine.

    Attributes:
        kind: ``zip``, ``tar`` (also compressed) or ``gzip``, a compressed file alone.
        archive: The archive.
        inner: Name of the file in it; empty where the archive holds one file.
    """

    kind: str
    archive: Path
    inner: str

    @property
    def name(self) -> str:
        """GDAL's name of it."""
        if self.kind == "gzip":  # GDAL knows no braces here: two slashes mark an absolute path
            return f"/vsigzip/{self.archive}"
        return f"/vsi{self.kind}/{{{self.archive}}}" + (f"/{self.inner}" if self.inner else "")


def is_url(name: str) -> bool:
    """Whether a name is a URL, of any kind, and not a path."""
    return _URL.match(name) is not None


def is_gdal_name(name: str) -> bool:
    """Whether a name means a file that GDAL finds elsewhere than under this path: in an archive, behind a URL."""
    return name.startswith("/vsi") or _ARCHIVE.match(name) is not None or _REMOTE_ARCHIVE.match(name) is not None


def is_remote(path: str | Path) -> bool:
    """Whether a name leads to no file of this machine that could be looked up, neither itself nor its archive."""
    name = gdal_name(path)
    return in_archive(name) is None and (is_url(name) or name.startswith("/vsi"))


def gdal_name(path: str | Path) -> str:
    """The name that GDAL opens.

    Args:
        path: A file, a URL, a name of GDAL (``/vsizip/scene.zip/a.tif``) or of rasterio (``zip://scene.zip!a.tif``),
            also as a `Path`, which folds two slashes into one.

    Returns:
        The path as it is, a URL with both of its slashes, or GDAL's name of a file inside an archive.
    """
    name = str(path)
    remote = _REMOTE_ARCHIVE.match(name)
    if remote is not None:
        kind, scheme, place, inner = remote.groups()
        return f"/vsi{kind}/{{/vsicurl/{scheme}://{place}}}/{inner}"
    member = in_archive(name)
    if member is not None:
        return member.name
    if name.startswith("/vsi"):
        return _FOLDED_INNER_URL.sub(r"\1://", name)
    return _FOLDED_URL.sub(r"\1://", name)


def in_archive(name: str, folder: Path = Path()) -> Member | None:
    """The archive of this machine and the file in it that a name means.

    A folded name does not say whether the path of its archive is relative: it is where there is such a file.

    Args:
        name: The name of a raster.
        folder: Where relative paths start.

    Returns:
        Archive and file, or None for any other name, also for a file in a remote or nested archive.

    Raises:
        AccessError: If the file system does not say what is there.
    """
    match = _ARCHIVE.match(name)
    if match is None:
        return None
    kind, rest = match[1] or match[2], match[3]
    if _NESTED.match(rest):
        return None
    if rest.startswith("{"):
        archive, _, inner = rest[1:].partition("}")
        return Member(kind, folder / archive, inner.strip("/"))
    if "!" in rest and not name.startswith("/vsi"):
        archive, _, inner = rest.rpartition("!")
        places = [path for path in _places(archive, folder) if is_file(path)] or [folder / archive]
        return Member(kind, places[0], inner.strip("/"))
    return _split(kind, rest, folder)


def absolute_name(path: str | Path) -> str:
    """A name that means the same from every working folder; URLs stay as they are."""
    name = gdal_name(path)
    member = in_archive(name)
    if member is not None:
        with access_errors(name):
            return Member(member.kind, member.archive.absolute(), member.inner).name
    if is_url(name) or name.startswith("/vsi"):
        return name
    with access_errors(name):
        return str(Path(name).absolute())


def check_raster(path: str | Path) -> None:
    """Check what the file system says of a raster: it, or the archive that it is in, is there and not empty.

    Raises:
        RasterError: If it is missing or empty, or can be no raster.
        AccessError: If the file system does not say.
    """
    if is_remote(path):
        return
    name = gdal_name(path)
    member = in_archive(name)
    file = Path(name) if member is None else member.archive
    found = look_up(file)
    if found is None:
        why = absence(file) if member is None else f"the archive {file} does not exist ({absence(file)})"
        raise RasterError(name, f"{why}. Check the path; relative ones start at the working folder.")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise RasterError(name, "expected a file, found a pipe or a device. Save its contents as a file.")
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise RasterError(name, "the file is empty (0 bytes). Copy or download it again.")
    check_text(name)


def raster_exists(path: str | Path) -> bool:
    """Whether there is a file of that name, also inside an archive; False for remote files, which are not looked up.

    Raises:
        AccessError: If the file system does not say.
        RasterError: If an archive cannot be read.
    """
    if is_remote(path):
        return False
    name = gdal_name(path)
    member = in_archive(name)
    if member is None or member.kind == "gzip":
        return exists(name if member is None else member.archive)
    return exists(member.archive) and member.inner in _names_inside(name, member)


def check_member(path: str | Path) -> None:
    """Check that an archive can be read and holds the file that a name means; compressed archives are not searched.

    Raises:
        RasterError: If it cannot, or does not.
        AccessError: If the operating system does not let the archive be read.
    """
    member = None if is_remote(path) else in_archive(gdal_name(path))
    if member is not None and member.kind == "zip":
        _require_inside(gdal_name(path), member)


def explain_failure(path: str | Path) -> None:
    """Find out why GDAL could not open a raster, after it failed.

    Raises:
        AccessError: If the operating system does not let the file be read.
        RasterError: If an archive cannot be read or does not hold the file.
    """
    if is_remote(path):
        return
    name = gdal_name(path)
    member = in_archive(name)
    file = Path(name) if member is None else member.archive
    if is_folder(file):
        raise RasterError(name, "expected a file, found a folder. Name the raster in it.")
    if is_file(file):
        check_readable(file)
    if member is not None and member.kind != "gzip":
        _require_inside(name, member)


def _places(text: str, folder: Path) -> list[Path]:
    """What the path of an archive may mean: relative, or absolute with its first slash lost."""
    return [folder / text] if text.startswith("/") else [folder / text, Path(f"/{text}")]


def _split(kind: str, rest: str, folder: Path) -> Member:
    """Part a name where a file on its way is the archive."""
    for place in _places(rest, folder):
        for archive in () if kind == "gzip" else place.parents:
            if is_file(archive):
                return Member(kind, archive, place.relative_to(archive).as_posix())
        if is_file(place):
            return Member(kind, place, "")
    place = folder / rest  # nothing is there: the message names what looks like an archive
    outer = () if kind == "gzip" else reversed(place.parents)
    archive = next((path for path in outer if path.suffix.lower() in _SUFFIXES), place)
    return Member(kind, archive, "" if archive == place else place.relative_to(archive).as_posix())


def _require_inside(name: str, member: Member) -> None:
    held = _names_inside(name, member)
    if member.inner in held:
        return
    found = f"the files {listed(held)}" if held else "no file"
    wanted = f"the file {member.inner}" if member.inner else "the name of a file"
    raise RasterError(name, f"expected {wanted} in {member.archive}, found {found}.\nName one of the files in it.")


def _names_inside(name: str, member: Member) -> tuple[str, ...]:
    try:
        with access_errors(member.archive):
            status = member.archive.stat()
            return _listing(member.kind, member.archive, status.st_size, status.st_mtime_ns)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise RasterError(name, f"{member.archive} is not a readable {member.kind} archive ({error}).") from error


@lru_cache(maxsize=16)  # a list may name thousands of files in one archive
def _listing(kind: str, archive: Path, size: int, time_ns: int) -> tuple[str, ...]:
    """Files in an archive; size and time tell another state of it."""
    if kind == "zip":
        with zipfile.ZipFile(archive) as opened:
            return tuple(info.filename for info in opened.infolist() if not info.is_dir())
    with tarfile.open(archive) as tar:
        return tuple(info.name.removeprefix("./") for info in tar if info.isfile())
