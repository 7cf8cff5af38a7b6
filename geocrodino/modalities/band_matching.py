"""Which bands of an image are those that a network was trained on: by name where both sides have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geocrodino.errors import BundleError
from geocrodino.geo.rasters.bands import common_names
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.phrases import arguments, listed


@dataclass(frozen=True)
class BandMatch:
    """Bands of an image, in the order of the network's channels.

    Attributes:
        numbers: One-based numbers of bands.
        known_by: How they were found, as a phrase for people.
    """

    numbers: tuple[int, ...]
    known_by: str


def match_bands(
    raster: RasterSource,
    trained: Sequence[str],
    numbers: tuple[int, ...],
    asked: tuple[int, ...] | None = None,
    *,
    kind: str = "optical",
) -> BandMatch:
    """Find the bands that a network reads.

    Bands are matched by name where the training named all of its bands and the image names any. Otherwise they are
    taken by number, unless a name shows that another band lies there.

    Args:
        raster: The image.
        trained: Names of the training's bands, ``band 1`` and so on where its file gave none.
        numbers: One-based numbers of the bands in the training's image.
        asked: One-based numbers that the user gave for this image, in the order of ``trained``; they are taken without
            a comparison of names.
        kind: Name of the modality, for messages.

    Returns:
        One-based band numbers in the order of ``trained``, and how they were found.

    Raises:
        BundleError: If a band is missing, has a name that fits none, or two have the same name.
    """
    if asked is not None:
        _require_asked(raster, trained, asked)
        return BandMatch(asked, f"bands {_listed(asked)}, as asked")
    if len(_usable(raster)) < len(trained):
        raise BundleError(_too_few(raster, trained, numbers, kind))
    expected = common_names(trained)
    found = common_names([band.name for band in raster.bands])
    if None not in expected and any(found):
        return BandMatch(_by_name(raster, trained), f"bands by name: {', '.join(trained)}")
    if any(a != b for a, b in zip(expected, (_at(found, n) for n in numbers), strict=True) if a and b):
        raise BundleError(_other_names(raster, trained, "other names at these places"))
    without = "the image names no bands" if any(expected) else "the training named no bands"
    return BandMatch(_checked(raster, trained, numbers, kind), f"bands by number: {_listed(numbers)} ({without})")


def _require_asked(raster: RasterSource, trained: Sequence[str], asked: tuple[int, ...]) -> None:
    """Refuse numbers that are none of a raster's bands, or too few or too many for those of the training."""
    usable = _usable(raster)
    if len(asked) == len(trained) == len(set(asked)) and set(asked) <= usable:
        return
    raise BundleError(
        f"{raster.path}: `bands`: expected {len(trained)} different numbers of its bands ({_shown_bands(raster)}), in "
        f"the order {', '.join(trained)}; found {_listed(asked)}.\nGive such numbers, or leave `bands` out to match by "
        "name."
    )


def require_bands(raster: RasterSource, numbers: Sequence[int]) -> None:
    """Refuse numbers that a configuration names and an image does not have.

    Args:
        raster: The image of a training.
        numbers: One-based numbers of bands.

    Raises:
        BundleError: If one of them is no band of data.
    """
    usable = _usable(raster)
    missing = [number for number in numbers if number not in usable]
    if missing:
        raise BundleError(
            f"{raster.path}: data.bands: expected numbers of its {len(usable)} bands ({_shown_bands(raster)}), found "
            f"{_listed(missing)} among {_listed(numbers)}.\n"
            "Name only bands that the image has. Of several scenes, each may have a key bands of its own, with the "
            "numbers of the same bands in its image."
        )


def _by_name(raster: RasterSource, trained: Sequence[str]) -> tuple[int, ...]:
    names = [band.name for band in raster.bands]
    for wanted, there in ((_literal(trained), _literal(names)), (common_names(trained), common_names(names))):
        twice = [name for name in wanted if there.count(name) > 1]
        if all(name in there for name in wanted) and not twice and len(set(wanted)) == len(wanted):
            return tuple(there.index(name) + 1 for name in wanted)
    missing = [t for t, name in zip(trained, common_names(trained), strict=True) if name not in common_names(names)]
    if missing:
        raise BundleError(_other_names(raster, trained, f"none named {' or '.join(missing)}"))
    raise BundleError(_other_names(raster, trained, "several of one name"))


def _literal(names: Sequence[str | None]) -> list[str | None]:
    return [None if name is None else name.strip().lower() for name in names]


def _checked(raster: RasterSource, trained: Sequence[str], numbers: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Numbers, one for each trained band, all of which are bands of data."""
    if len(numbers) == len(trained) and set(numbers) <= _usable(raster):
        return numbers
    raise BundleError(_too_few(raster, trained, numbers, kind))


def _shown_bands(raster: RasterSource) -> str:
    """Number and name of each band of data."""
    usable = _usable(raster)
    return listed((f"{n} {name}" for n, name in enumerate(raster.band_names, start=1) if n in usable), most=12)


def _usable(raster: RasterSource) -> set[int]:
    """Numbers of the bands that can be read as data."""
    return set(range(1, raster.count + 1)) - {raster.alpha_band}


def _too_few(raster: RasterSource, trained: Sequence[str], numbers: tuple[int, ...], kind: str) -> str:
    return (
        f"{raster.path}: expected {len(trained)} {kind} bands ({', '.join(trained)}; numbers {_listed(numbers)}), "
        f"found {len(raster.data_bands)} ({', '.join(raster.data_names)}).\n"
        "Predict with a raster that has these bands, or train a bundle on the bands that there are."
    )


def _other_names(raster: RasterSource, trained: Sequence[str], found: str) -> str:
    there = ", ".join(f"{i} {name}" for i, name in enumerate(raster.band_names, start=1) if i != raster.alpha_band)
    example = arguments(bands=tuple(range(1, len(trained) + 1)))
    return (
        f"{raster.path}: the bands do not match those of the training by name. Expected {', '.join(trained)}; found "
        f"{found} (bands: {there}).\n"
        f"If the bands have other names in it, give their numbers in the order {', '.join(trained)}: "
        f"{example}"
    )


def _at(names: Sequence[str | None], number: int) -> str | None:
    return names[number - 1] if number <= len(names) else None


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
