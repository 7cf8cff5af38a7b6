"""Names of rasters: files, URLs and files inside archives, and what can be checked before GDAL opens them.

Names are text. A `Path` folds two slashes into one, which changes URLs; `raster_name` restores them where a caller
gives a `Path`.
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
from urllib.parse import unquote, urlsplit

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
_ARCHIVE_PREFIX = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)+(?!vsi)|(?i:zip|tar|gzip)://")
_ARCHIVE_URLS = {"zip": "/vsizip/", "tar": "/vsitar/", "gzip": "/vsigzip/"}
_SUFFIXES = {".zip", ".tar", ".tgz", ".gz"}
_KINDS = {".zip": "zip", ".tar": "tar", ".tgz": "tar"}
"""Kinds of archives of several files, by the ending of their names."""
_NESTED = re.compile(r"^[/{]*(vsi\w+/|https?:/)")


URL_PREFIXES = {
    "https": "/vsicurl/https://", "http": "/vsicurl/http://", "ftp": "/vsicurl/ftp://", "s3": "/vsis3/",
    "gs": "/vsigs/", "az": "/vsiaz/", "oss": "/vsioss/",
}  # fmt: skip
"""Kinds of URLs that can be read, and how GDAL's virtual names of them begin."""


@dataclass(frozen=True)
class Member:
    """A file inside a local archive.

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
    """Find out whether a name is a URL, of any kind.

    Args:
        name: The name, with both slashes.

    Returns:
        Whether it is a URL and not a path.
    """
    return _URL.match(name) is not None


def is_gdal_name(name: str) -> bool:
    """Find out whether a name means a file in an archive or behind a URL, as GDAL or rasterio write it.

    Args:
        name: The name.

    Returns:
        Whether it is such a name (``/vsizip/...``, ``zip://...``) and not a path or a plain URL.
    """
    return name.startswith("/vsi") or _ARCHIVE.match(name) is not None or _REMOTE_ARCHIVE.match(name) is not None


def vsi_name(url: str) -> str | None:
    """Turn a URL into the name that GDAL opens, without looking anything up.

    Args:
        url: A URL.

    Returns:
        GDAL's virtual name; for ``file://`` the path; None if GDAL cannot read URLs of this kind.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme == "file":
        return unquote(urlsplit(url).path)
    if scheme in _ARCHIVE_URLS:
        return _ARCHIVE_URLS[scheme] + rest.replace("!", "/", 1).replace("//", "/")
    return URL_PREFIXES[scheme] + rest if scheme in URL_PREFIXES else None


def archive_prefix(name: str) -> str:
    """Split off what marks a name as one inside an archive of this machine.

    Args:
        name: A path, a URL or a name in GDAL's or rasterio's notation.

    Returns:
        ``/vsizip/``, ``zip://`` and so on, several of GDAL's for nested archives; empty for any other name.
    """
    prefix = _ARCHIVE_PREFIX.match(name)
    return prefix.group() if prefix else ""


def local_archive(name: str) -> Path | None:
    """Find the local archive of a GDAL name.

    Args:
        name: A name such as ``/vsizip/areas.zip/areas.shp``.

    Returns:
        The archive, or the whole path if nothing of it exists; None if the name reads no local archive.

    Raises:
        AccessError: If the operating system refuses to look up the name.
    """
    prefix = archive_prefix(name)
    if not prefix.startswith("/vsi"):
        return None
    path = Path(name[len(prefix) :].replace("{", "").replace("}", ""))
    return next((p for p in (path, *path.parents) if p.suffix and look_up(p) is not None), path)


def is_remote(path: str | Path) -> bool:
    """Find out whether a name leads to no file of this machine that could be looked up.

    Args:
        path: A path, a URL or a name in GDAL's or rasterio's notation.

    Returns:
        True for a URL and for archives that are not files of this machine.

    Raises:
        AccessError: If the operating system refuses to look up the archive.
    """
    name = gdal_name(path)
    return in_archive(name) is None and (is_url(name) or name.startswith("/vsi"))


def raster_name(path: str | Path) -> str:
    """Name a raster as text, with all slashes of a URL.

    Args:
        path: A path, a URL or a name in GDAL's or rasterio's notation, also as a `Path`, which folds two slashes.

    Returns:
        A path in its shortest form; other names as they are, the slashes of a URL restored.

    Raises:
        AccessError: If the operating system refuses to look up the archive.
    """
    if isinstance(path, Path):
        return gdal_name(path) if is_remote(path) else str(path)
    return path if is_url(path) or is_gdal_name(path) else str(Path(path))


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
    """Find the local archive, and the file in it, that a name means.

    A `Path` folds slashes, so it is unclear whether the path of the archive is relative: both places are tried.

    Args:
        name: The name of a raster.
        folder: Where relative paths start.

    Returns:
        Archive and file, or None for any other name, also for a file in a remote or nested archive.

    Raises:
        AccessError: If the operating system refuses to look up the name.
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
    """Make a name absolute, so that it means the same from every working folder.

    Args:
        path: A path, a URL or a name in GDAL's or rasterio's notation.

    Returns:
        The absolute path, or GDAL's name with the absolute path of the archive; URLs unchanged.

    Raises:
        AccessError: If the working folder cannot be accessed.
    """
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
    """Check that a raster, or the archive that holds it, exists and is not empty; nothing is opened.

    Args:
        path: A path, a URL (which is not looked up) or a name in GDAL's or rasterio's notation.

    Raises:
        RasterError: If it is missing or empty, or can be no raster.
        AccessError: If the operating system refuses to look up the name.
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
    """Find out whether there is a raster of a name, also inside an archive.

    Args:
        path: A path, a URL or a name in GDAL's or rasterio's notation.

    Returns:
        Whether there is one; False for remote files, which are not looked up.

    Raises:
        AccessError: If the operating system refuses to look up the name.
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
    """Check that a zip archive can be read and holds the file that a name means.

    Names of other files are accepted without a check, and compressed tar archives are not searched.

    Args:
        path: A path, a URL or a name in GDAL's or rasterio's notation.

    Raises:
        RasterError: If it cannot, or does not.
        AccessError: If the operating system does not let the archive be read.
    """
    member = None if is_remote(path) else in_archive(gdal_name(path))
    if member is not None and member.kind == "zip":
        _require_inside(gdal_name(path), member)


def explain_failure(path: str | Path) -> None:
    """Find out why GDAL could not open a raster, after it failed.

    Returns without an error if no reason is found.

    Args:
        path: The name that could not be opened.

    Raises:
        AccessError: If the operating system does not let the file be read.
        RasterError: If an archive cannot be read or does not hold the file, or its name stands for none in it.
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
    kind = _KINDS.get(file.suffix.lower()) if member is None else None
    if kind is not None:
        held = _names_inside(name, Member(kind, file, ""))
        first = next((inner for inner in held if inner.lower().endswith((".tif", ".tiff"))), "scene.tif")
        raise RasterError(
            name,
            f"expected a raster, found an archive of {len(held)} files ({listed(held, most=3)}).\n"
            f"Name a file in it, for instance {kind}://{path}!{first}; of several, unpack it and name the folder.",
        )
    if member is not None and member.kind != "gzip":
        _require_inside(name, member)


def _places(text: str, folder: Path) -> list[Path]:
    """Places that the path of an archive may mean: relative, or absolute without its first slash."""
    return [folder / text] if text.startswith("/") else [folder / text, Path(f"/{text}")]


def _split(kind: str, rest: str, folder: Path) -> Member:
    """Split a name at the first file on its path, which is the archive."""
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
    """Files in an archive; size and time are part of the cache key, so that a changed archive is read again."""
    if kind == "zip":
        with zipfile.ZipFile(archive) as opened:
            return tuple(info.filename for info in opened.infolist() if not info.is_dir())
    with tarfile.open(archive) as tar:
        return tuple(info.name.removeprefix("./") for info in tar if info.isfile())
