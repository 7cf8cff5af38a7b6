"""A configuration of a training, from files alone: what each of them is, how it is read, and why."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geocrodino.data.scales import OtherScaleError
from geocrodino.errors import AOIError, ConfigError, GeocrodinoError, HeightError
from geocrodino.files.access import durable_file
from geocrodino.files.names import is_gdal_name, is_url
from geocrodino.files.vector_names import is_vector
from geocrodino.geo.rasters.headers import headers_kept
from geocrodino.geo.rasters.place import Place, stated_place
from geocrodino.phrases import listed
from geocrodino.presets.catalogue import PRESETS
from geocrodino.presets.contents import look
from geocrodino.project.entries import ProjectSettings, settings_of
from geocrodino.project.files import ProjectFiles, collect
from geocrodino.project.layers import FoundLayers, Role, named_layer, raster_layers
from geocrodino.project.scenes import arrange
from geocrodino.project.shapes import holds_classes, named_shapes, shape_layers
from geocrodino.project.text import PATHS, Block, Entry, as_text, as_tree, flow, require_new
from geocrodino.settings.config import config_of
from geocrodino.settings.file import PROJECT_FILE
from geocrodino.settings.height_words import HeightZero
from geocrodino.training.checks import CheckedInputs, check_inputs

_SHOWN_SCENES = 5

_NEEDED: tuple[tuple[Role, str], ...] = (
    ("optical", "an image (3 or more bands, or 1 whose name says so)"),
    ("elevation", "heights (1 band of real numbers, or one whose name says so, such as dsm.tif)"),
    ("labels", "labels (a raster of classes or colours, or polygons with a column of classes)"),
)


@dataclass(frozen=True)
class Known:
    """What a user knows of a project; None: it is to be found out.

    Attributes:
        optical: The image.
        elevation: The surface model.
        ground: The terrain model.
        labels: The labels.
        aoi: The area of interest, a file of polygons.
        label_column: Column of a file of shapes that holds the class.
        crs: CRS of files that have coordinates and state none.
        pixel_m: Pixel size of files without any place, m.
        height_unit: Unit of heights, such as ``ft``.
        height_scale: Metres in a stored unit of heights.
        height_zero: Where heights are 0.
    """

    optical: str | Path | None = None
    elevation: str | Path | None = None
    ground: str | Path | None = None
    labels: str | Path | None = None
    aoi: str | Path | None = None
    label_column: str | None = None
    crs: str | None = None
    pixel_m: float | None = None
    height_unit: str | None = None
    height_scale: float | None = None
    height_zero: HeightZero | None = None

    @property
    def files(self) -> dict[Role, str]:
        """The names by role."""
        named: dict[Role, str | Path | None] = {
            "optical": self.optical, "elevation": self.elevation, "ground": self.ground, "labels": self.labels,
            "aoi": self.aoi,
        }  # fmt: skip
        return {role: _absolute(str(name)) for role, name in named.items() if name is not None}


@dataclass(frozen=True)
class Project:
    """A configuration that a training accepts, and the reasons for it.

    Attributes:
        blocks: Its sections.
        left_out: Files that are not used, with the reason for each.
        notes: What else to know, in sentences.
    """

    blocks: tuple[Block, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The nested values of the configuration, with whole paths."""
        return as_tree(self.blocks)

    def text(self, out: str | Path = PROJECT_FILE) -> str:
        """Write the configuration as commented YAML.

        Args:
            out: The file that it is for: paths below its folder are relative to it.

        Returns:
            The YAML.
        """
        head = [
            "Written by geocrodino init from the files alone. Each guess says why; those with ? may well be wrong.",
            f"Check, and see what a training needs:  geocrodino train --config {Path(out).name} --dry-run",
            f"Then train:  geocrodino train --config {Path(out).name} --out runs/first",
            *(f"Not used: {_shown(name)} ({why})" for name, why in list(self.left_out.items())[:12]),
            *(f"Note: {note}" for note in self.notes),
        ]
        return as_text([" ".join(line.split()) for line in head], self.blocks, Path(out).absolute().parent)

    def summary(self) -> list[str]:
        """Describe what was found.

        Returns:
            A line for each layer and each guess of the first scenes, for each file that is not used, and for each note.
        """
        (data,) = (block for block in self.blocks if block.key == "data")
        lines: list[str] = []
        for entry in data.entries:
            if isinstance(entry, Entry):
                lines += _told(entry, "")
            else:
                lines.append(f"Scenes: {len(entry.items)}")
                for item in entry.items[:_SHOWN_SCENES]:
                    lines.append(f"  {item[0].value}")
                    lines += [line for each in item[1:] for line in _told(each, "    ")]
                if (more := len(entry.items) - _SHOWN_SCENES) > 0:
                    lines.append(f"  and {more} more, which the file lists")
        for block in self.blocks:
            if block.key == "classes":
                lines.append(f"classes: {listed((item[1].value for item in block.items), 20)} ({block.why})")
            if block.key in {"elevation", "training"}:
                lines += [line for each in block.entries if isinstance(each, Entry) for line in _told(each, "")]
        lines += [f"Not used: {_shown(name)} ({why})" for name, why in self.left_out.items()]
        return [*lines, *(f"Note: {note}" for note in self.notes)]

    def write(self, out: str | Path = PROJECT_FILE, *, overwrite: bool = False) -> Path:
        """Write the configuration to a file.

        Args:
            out: The YAML file.
            overwrite: Whether to replace a file that exists.

        Returns:
            The file.

        Raises:
            OutputError: If it exists, or cannot be written.
        """
        path = Path(out)
        require_new(path, overwrite=overwrite)
        with durable_file(path) as partial:
            partial.write_text(self.text(path), encoding="utf-8")
        return path


def guess_project(
    paths: str | Path | Sequence[str | Path] = (),
    known: Known | None = None,
    *,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Project:
    """Find out what files are, and make the configuration of a training of them.

    Everything that a training checks is checked, so the configuration can be trained with as it is.

    Args:
        paths: A file or folder to look through, or several, with all folders in them; none: the working folder, unless
            ``known`` names files.
        known: What need not be found out.
        on_stage: Called with the name of each stage when it begins.

    Returns:
        The configuration, with a reason for each guess.

    Raises:
        ConfigError: If a layer is missing, or several files could be one layer. The message says which option decides.
        GeocrodinoError: One of its kinds, if a training would refuse the files.

    Examples:
        >>> guess_project(["scenes"]).write("geocrodino.yaml")  # doctest: +SKIP
    """
    known = known or Known()
    paths = [paths] if isinstance(paths, str | Path) else paths
    place = stated_place(known.crs, known.pixel_m)
    on_stage("Looking through the files")
    with headers_kept():
        files = _collected(paths, known, place)
        found = _layers(files, known, place)
        with _told_of_data_sets(paths):
            _require_layers(found, files)
        arranged = arrange(found.layers, place)
        on_stage("Looking at heights and labels")
        settings = settings_of(arranged, known, place)
        on_stage("Checking as a training does")
        checked, settings, notes = _settled(settings)
    left_out = {
        **found.left_out,
        **{name: _first_line(why) for name, why in found.refused.items()},
        **arranged.left_out,
        **settings.left_out,
    }
    notes = (*_data_sets(paths), *notes)
    return Project(tuple(settings.blocks(checked)), left_out, notes)


def _told(entry: Entry, indent: str) -> list[str]:
    if not entry.active:
        return []
    value = entry.value if isinstance(entry.value, str) else flow(entry.value)
    shown = _shown(value) if entry.key in PATHS else value
    return [f"{indent}{entry.key}: {shown}" + (f" ({entry.why})" if entry.why else "")]


def _absolute(name: str) -> str:
    return name if is_url(name) or is_gdal_name(name) else os.path.abspath(name)  # noqa: PTH100 - links stay


def _shown(name: str) -> str:
    try:
        return (
            os.path.relpath(name) if Path(name).is_absolute() and not os.path.relpath(name).startswith("..") else name
        )
    except ValueError:  # another drive
        return name


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


# --- files and their roles ------------------------------------------------------------------------------------------


def _collected(paths: Sequence[str | Path], known: Known, place: Place | None) -> ProjectFiles:
    searched = list(paths) or ([] if known.files else [Path()])
    return collect([_absolute(str(path)) for path in searched], pictures=place is not None)


def _layers(files: ProjectFiles, known: Known, place: Place | None) -> FoundLayers:
    """Layers of the files; those that are named for a role are the only ones of it."""
    named = known.files
    taken = set(named.values())
    rasters = raster_layers([name for name in files.rasters if not _is_named(name, taken)], place)
    shapes = shape_layers([name for name in files.shapes if name not in taken])
    found = FoundLayers(
        [layer for layer in (*rasters.layers, *shapes.layers) if layer.role not in named],
        {**rasters.refused, **shapes.refused},
        {**rasters.left_out, **shapes.left_out},
    )
    for role, name in named.items():
        shape = role == "aoi" or (role == "labels" and is_vector(name))
        found.layers.append(named_shapes(role, name) if shape else named_layer(role, name, place))
    _labels_with_splits(found)
    if known.height_zero is not None:
        above = known.height_zero == "ground"
        found.layers = [replace(each, above=above) if each.role == "elevation" else each for each in found.layers]
    return found


def _labels_with_splits(found: FoundLayers) -> None:
    """Where there are no labels, take shapes with a column of classes beside that of splits as labels.

    Patches lie inside the polygons of their split, and drawn labels are seldom as large as that: their column of splits
    is not used.
    """
    if any(layer.role == "labels" for layer in found.layers):
        return
    drawn = [
        each for each in found.layers if each.role == "aoi" and each.word == "split" and holds_classes(*each.files)
    ]
    if len(drawn) == 1:
        why = "shapes with attributes; their column of splits is not used, because patches are larger than drawn shapes"
        found.layers = [
            replace(each, role="labels", why=why, word="") if each is drawn[0] else each for each in found.layers
        ]


def _is_named(name: str, taken: set[str]) -> bool:
    return name in taken or any(name.startswith(f"{folder}{os.sep}") for folder in taken)


def _require_layers(found: FoundLayers, files: ProjectFiles) -> None:
    """Refuse a project without an image, heights or labels, telling what is there instead."""
    roles = {layer.role for layer in found.layers}
    if "ground" in roles:
        roles.add("elevation")
    missing = [(role, what) for role, what in _NEEDED if role not in roles]
    if not missing:
        return
    there = [f"  {_shown(layer.shown)}: {_ROLE_WORDS[layer.role]} ({layer.why})" for layer in found.layers]
    there += [f"  {_shown(name)}: not used, {_first_line(why)}" for name, why in [*found.left_out.items()][:5]]
    refused = [f"  {_first_line(why)}{_crs_hint(why)}" for why in [*found.refused.values()][:3]]
    pictures = []
    if files.pictures:
        count = len(files.pictures)
        pictures = [
            f"  {_shown(files.pictures[0])}: one of {count} PNG or JPG files without a place. Say their pixel size "
            "with `pixel_m`"
        ]
    shown = [*there, *refused, *pictures]
    lacking = "; ".join(what for _, what in missing)
    names = ", ".join(f"`{role}`" for role, _ in missing)
    raise ConfigError(
        f"expected {lacking}. Found {'these files:' if shown else 'no raster and no file of shapes.'}"
        + "".join(f"\n{line}" for line in shown)
        + f"\nName what is missing with {names}, or name the folders that hold it."
    )


def _crs_hint(why: str) -> str:
    return " State it with `crs`." if "coordinate reference system" in why else ""


_ROLE_WORDS: Mapping[Role, str] = {
    "optical": "image",
    "elevation": "heights",
    "ground": "terrain model",
    "labels": "labels",
    "aoi": "area of interest",
}


# --- what a training says -------------------------------------------------------------------------------------------


def _settled(settings: ProjectSettings) -> tuple[CheckedInputs, ProjectSettings, tuple[str, ...]]:
    """Check settings as a training does; where it refuses the size of patches or channels of heights, change these."""
    while True:
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                checked = check_inputs(config_of(as_tree(settings.blocks(None))))
            notes = dict.fromkeys(str(w.message) for w in told if w.category.__module__.startswith("geocrodino"))
            changed = settings.with_small_scenes(checked)
            if changed is None:
                return checked, settings, tuple(notes)
        except HeightError as error:
            changed = settings.with_absolute_heights(_first_line(str(error)))
            if changed is None:
                raise
        except AOIError as error:
            changed = settings.with_room(str(error))
            if changed is None:
                raise
        except OtherScaleError as error:
            factor, changed = error.factor, None
            if factor is not None:
                changed = settings.with_one_scale(error.scene, factor, error.ranges)
            if changed is None:  # no factor helps
                why = f"its scene {error.scene} is on another scale, and no factor is known: {error.ranges}"
                changed = settings.without_scene(error.scene, why)
            if changed is None:
                raise
        settings = changed


@contextmanager
def _told_of_data_sets(paths: Sequence[str | Path]) -> Iterator[None]:
    """Name a preset in the error, where files that no raster library reads are those of a public data set."""
    try:
        yield
    except ConfigError as error:
        for sentence in _data_sets(paths):
            raise ConfigError(f"{error}\nInstead: {sentence}") from error
        raise


def _data_sets(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """Public data sets that lie in the only folder that is named."""
    if len(paths) != 1 or not Path(paths[0]).is_dir():
        return ()
    found = []
    for preset in PRESETS.values():
        try:
            contents = look(preset, Path(paths[0]))
        except GeocrodinoError:
            continue
        if contents.count("train") and contents.count("val"):
            found.append(
                f"these files look like {preset.title}, for which there is a preset: geocrodino train --dataset "
                f"{preset.name} --root {paths[0]}"
            )
    return tuple(found[:1])
