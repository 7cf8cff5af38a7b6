"""The section ``data`` of a configuration: the files of one scene or of many, and how they are read.

A training on one scene names its files directly under ``data:``. With ``scenes``, each item names the files of a scene,
and the keys beside ``scenes`` are the defaults of all.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from geocrodino.settings.augmentation import LIST_FORM, SHORT_FORM
from geocrodino.settings.factors import parse_factor
from geocrodino.settings.grid import GridOf
from geocrodino.settings.height_words import HeightZero
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.labels import LabelRules
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import COMPANIONS
from geocrodino.settings.section import Section
from geocrodino.settings.splits import SPLIT_SYNONYMS, SceneSplit, SplitSettings

_FORM = Discriminator(lambda given: LIST_FORM if isinstance(given, list | tuple) else SHORT_FORM)

RasterName = Annotated[
    Annotated[Path, Tag(SHORT_FORM)] | Annotated[Annotated[tuple[str, ...], Field(min_length=1)], Tag(LIST_FORM)],
    _FORM,
]
"""A raster of one file or of many: a file, folder, pattern or URL, or a list of them that form one raster."""

LayerCache = Literal["auto", "copy", "in_place"]
"""Whether a training copies its rasters to files on its grid, or reads the given files where they have that grid."""

_LONGEST_NAME = 200

ONE_MODALITY = "one_modality"
"""In the context of a validation: whether the rasters of a single modality are enough."""

_ONE_SCENE = (
    "rasters", "optical", "elevation", "labels", "aoi", "ground", "aoi_crs", "resolution_m", "grid_of", "bands",
    "height_unit", "ignore_values", "label_values",
)  # fmt: skip
"""Keys that are always written for one scene, in this order, so that run folders keep their bytes."""


class SceneConfig(Section):
    """The files of one scene, and how they are read."""

    name: str = Field("", description="name of the scene; by default scene-1, scene-2 ...")
    rasters: dict[Modality, RasterName] = Field({}, description="rasters of other registered modalities, by name")
    optical: RasterName | None = Field(None, description="image, any bands, CRS and resolution")
    elevation: RasterName | None = Field(None, description="surface model, any CRS and resolution")
    labels: RasterName | None = Field(None, description="class values, 0 to 254; a scene of several may have none")
    aoi: str | None = Field(
        None,
        description="polygons with a column split (a file, WKT or GeoJSON), or minx,miny,maxx,maxy; a scene of several "
        "that has none is used whole",
    )
    ground: RasterName | None = Field(None, description="terrain model; by default the ground is estimated")
    aoi_crs: str | None = Field(None, description="CRS of the coordinates of aoi; by default that of its file")
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="optical bands to use, counted from 1; all by default"
    )
    rescale: float | None = Field(
        None,
        gt=0,
        description="number that the values of the image are multiplied by, such as 0.0001 or 1/257; by default none",
    )
    height_unit: str | None = Field(None, description="m, ft, us-ft, none ...; by default the unit that the file names")
    ignore_values: tuple[int, ...] = Field((), description="label values to leave out")
    label_values: dict[int, Annotated[int, Field(ge=0, le=254)]] = Field(
        {}, description="class value for a value of the label file, for instance 255: 1"
    )
    split: SceneSplit | None = Field(None, description="split of the whole scene: train, val, test or unlabelled")
    crs: str | None = Field(None, description="CRS of files that state none")
    pixel_m: float | None = Field(None, gt=0, description="pixel size of files without any place, m")
    height: HeightSettings | None = Field(None, description="coding of the heights, where the file does not state it")
    label_rules: LabelRules | None = Field(None, description="how values, colours and attributes become classes")

    @field_validator("aoi", mode="before")
    @classmethod
    def _area_as_text(cls, aoi: object) -> object:
        """Accept a bounding box as a YAML list, and GeoJSON as YAML keys and values."""
        if isinstance(aoi, list | tuple) and all(isinstance(v, int | float) for v in aoi):
            return ",".join(map(repr, aoi))
        return json.dumps(aoi) if isinstance(aoi, dict) else aoi

    @field_validator("aoi_crs", "crs", mode="before")
    @classmethod
    def _code_as_text(cls, crs: object) -> object:
        return str(crs) if isinstance(crs, int) else crs

    @field_validator("rescale", mode="before")
    @classmethod
    def _fraction_as_number(cls, factor: object) -> object:
        return parse_factor(factor) if isinstance(factor, str) else factor

    @field_validator("name", mode="before")
    @classmethod
    def _number_as_text(cls, name: object) -> object:
        return str(name) if isinstance(name, int) else name

    @field_validator("name")
    @classmethod
    def _usable_as_file_name(cls, name: str) -> str:
        plain = name.isprintable() and "/" not in name and "\\" not in name
        if not plain or name in {".", ".."} or len(name.encode()) > _LONGEST_NAME:
            raise ValueError(
                f"maps are named after scenes: expected a name of at most {_LONGEST_NAME} bytes without slashes and "
                f"control characters, found {name!r}"
            )
        return name

    @field_validator("split", mode="before")
    @classmethod
    def _split_by_its_name(cls, split: object) -> object:
        """Accept the words that columns of splits may hold."""
        word = split.strip().lower() if isinstance(split, str) else split
        return SPLIT_SYNONYMS.get(word, word) if isinstance(word, str) else split

    @field_validator("rasters")
    @classmethod
    def _other_modalities(cls, rasters: dict[Modality, RasterName]) -> dict[Modality, RasterName]:
        for name in rasters.keys() & cls.model_fields.keys():
            raise ValueError(f"the raster of {name} has a key of its own: write {name}: beside rasters:")
        return rasters

    @model_validator(mode="after")
    def _without_contradictions(self) -> SceneConfig:
        if self.height_unit is not None and self.height is not None and self.height.scale is not None:
            raise ValueError(
                f"height_unit {self.height_unit} and height.scale {self.height.scale:g} both say how long a stored "
                "unit is. Give only one of them"
            )
        if self.label_rules is not None and self.label_rules.table and (self.ignore_values or self.label_values):
            raise ValueError(
                "label_rules.table names all codes of the labels: expected no ignore_values and label_values beside "
                "it. Write them into table and label_rules.ignore"
            )
        return self

    @model_serializer(mode="wrap")
    def _given_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write what was given alone: other keys of a scene are the defaults of all."""
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    @property
    def raster_paths(self) -> dict[Modality, RasterName]:
        """The raster of each modality, in the order of registration."""
        named = {"optical": self.optical, "elevation": self.elevation, **self.rasters}
        return {m: path for m in MODALITIES.in_order(named) if (path := named[m]) is not None}

    @property
    def bands_by_modality(self) -> dict[Modality, tuple[int, ...] | None]:
        """Numbers of the bands to use."""
        return {"optical": self.bands}


class _List(Section):
    """Keys that the checks of other keys look at: pydantic reads fields in the order of the classes."""

    scenes: Any = ()
    splits: Any = None


class DataConfig(SceneConfig, _List):
    """The files of a training, and how they are read; beside `scenes`, the defaults of all scenes."""

    scenes: Annotated[Annotated[Path, Tag(SHORT_FORM)] | Annotated[tuple[SceneConfig, ...], Tag(LIST_FORM)], _FORM] = (
        Field((), description="the scenes, or a CSV file with a row for each; by default one scene, named beside it")
    )
    splits: SplitSettings | None = Field(
        None, description="how scenes are divided into train, val and test where neither they nor areas say so"
    )
    optical: RasterName | None = Field(None, validate_default=True, description="image, any bands, CRS and resolution")
    elevation: RasterName | None = Field(
        None, validate_default=True, description="surface model, any CRS and resolution"
    )
    labels: RasterName | None = Field(None, validate_default=True, description="class values, 0 to 254")
    aoi: str | None = Field(
        None,
        description="polygons with a column split (a file, WKT or GeoJSON), or minx,miny,maxx,maxy; by default the "
        "whole scene",
    )
    resolution_m: float | None = Field(
        None, gt=0, description="pixel size to work at, m; by default that of the image, or of labels that are coarser"
    )
    grid_of: GridOf | None = Field(
        None,
        description="raster whose pixel edges the working grid keeps: image (of the first modality) or labels; by "
        "default labels where their pixel size is chosen, image where resolution_m is given",
    )
    partial: Literal["refuse", "keep", "leave_out"] = Field(
        "refuse", description="what happens to tiles that lack the file of a modality or of labels"
    )

    absent_classes: Literal["refuse", "warn"] = Field(
        "refuse",
        description="what happens if a class that is named has no labelled pixel in any split",
    )

    cache: LayerCache = Field(
        "auto",
        description="copy: write all rasters once on the working grid; in_place: read those that have its pixels from "
        "their own files; auto: copy up to 2 GB, in place above",
    )

    @field_validator("scenes", mode="before")
    @classmethod
    def _some_scenes(cls, scenes: object) -> object:
        if scenes is None or scenes == [] or isinstance(scenes, dict):
            keys = f", found keys: {', '.join(map(str, scenes))}" if isinstance(scenes, dict) else ""
            raise ValueError(f"expected a list with an item for each scene, or the name of a CSV file{keys}")
        return scenes

    @field_validator("optical", "elevation", mode="before")
    @classmethod
    def _required_without_rasters(cls, path: object, info: ValidationInfo) -> object:
        if path is None and not info.data.get("rasters") and _is_one_scene(info) and not _one_is_enough(info):
            raise PydanticCustomError("missing", "Field required")
        return path

    @field_validator("labels", mode="before")
    @classmethod
    def _required_of_one_scene(cls, value: object, info: ValidationInfo) -> object:
        if value is None and _is_one_scene(info):
            raise PydanticCustomError("missing", "Field required")
        return value

    @model_validator(mode="after")
    def _usable_scenes(self, info: ValidationInfo) -> DataConfig:
        if isinstance(self.scenes, Path):
            return self
        scenes = self.resolved()
        names = [scene.name for scene in scenes]
        counts = Counter(names)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"scenes: expected a name of its own for each scene, found {twice[0]} more than once")
        # Names become names of files, in which some disks do not tell capitals from small letters.
        words = Counter(name.casefold() for name in names)
        if alike := sorted(name for name in names if words[name.casefold()] > 1):
            same = [name for name in alike if name.casefold() == alike[0].casefold()]
            raise ValueError(
                f"scenes: expected names that differ by more than capitals, found {' and '.join(same)}: maps are named "
                "after them, and some disks do not tell such files apart"
            )
        for name, companion in product(names, COMPANIONS):
            if f"{name}.{companion}".casefold() in words:
                raise ValueError(
                    f"scenes: {name}.{companion}.tif would be the map of the scene {name}.{companion}, and a file "
                    f"beside the map of the scene {name}. Rename one of them"
                )
        if len(self.modalities()) < (1 if _one_is_enough(info) else 2):
            raise ValueError(f"expected the rasters of at least two modalities, found {', '.join(self.modalities())}")
        return self

    @model_serializer(mode="wrap")
    def _given_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the keys of one scene always, and other keys that differ from their default."""
        written: dict[str, Any] = handler(self)
        defaults = {key: field.default for key, field in type(self).model_fields.items()}
        always = ("resolution_m", "grid_of") if self.scenes else tuple(k for k in _ONE_SCENE if k != "rasters")
        keys = [*_ONE_SCENE, *(key for key in defaults if key not in _ONE_SCENE)]
        changed = {key for key in keys if getattr(self, key) != defaults[key]}
        return {key: written[key] for key in keys if key in written and (key in always or key in changed)}

    def resolved(self) -> tuple[SceneConfig, ...]:
        """Fill the defaults into each scene.

        Returns:
            The scenes, each with all keys that it names itself or that are named beside ``scenes``. Files named
            directly under ``data`` give one scene, whose name is empty unless it is given.

        Raises:
            ValueError: If a key of a scene contradicts a default, or the scenes are a file, which has to be read first.
        """
        if isinstance(self.scenes, Path):
            raise ValueError(f"{self.scenes}: a table of scenes has to be read first")
        shared = {key: getattr(self, key) for key in self.model_fields_set & SceneConfig.model_fields.keys()}
        if not self.scenes:
            return (SceneConfig.model_construct(set(shared), **shared),)
        found = []
        for number, scene in enumerate(self.scenes, start=1):
            own = {key: getattr(scene, key) for key in scene.model_fields_set}
            values = {**shared, **own, "name": scene.name or f"scene-{number}"}
            try:
                found.append(SceneConfig(**values))
            except ValidationError as error:
                text = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"scene {values['name']}: {text}") from None
        return tuple(found)

    def height_zeros(self) -> set[HeightZero]:
        """Find where the heights of the scenes are 0.

        Returns:
            The different values of ``height.zero`` of all scenes; those of a file of scenes are not known.
        """
        scenes: tuple[SceneConfig, ...] = (self,) if isinstance(self.scenes, Path) else self.resolved()
        return {"sea" if scene.height is None else scene.height.zero for scene in scenes}

    def common_rescale(self) -> float | None:
        """Find what the values of all images are multiplied by.

        Returns:
            The value of ``rescale`` if all scenes with an image have the same one; None otherwise.
        """
        scenes = () if isinstance(self.scenes, Path) else self.resolved()
        found = {scene.rescale for scene in scenes if scene.optical is not None}
        return found.pop() if len(found) == 1 else None

    def modalities(self) -> tuple[Modality, ...]:
        """List the modalities of the training.

        Returns:
            The modalities of all scenes, in the order of registration.
        """
        scenes = (self,) if isinstance(self.scenes, Path) else self.resolved()
        return MODALITIES.in_order(m for scene in scenes for m in scene.raster_paths)


def _is_one_scene(info: ValidationInfo) -> bool:
    """Whether files are named directly under ``data``; an error in ``scenes`` is told alone."""
    return "scenes" in info.data and info.data["scenes"] == ()


def _one_is_enough(info: ValidationInfo) -> bool:
    return bool((info.context or {}).get(ONE_MODALITY))
