"""Options of the section ``data`` of a configuration, for ``geocrodino train`` and ``inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from geocrodino.cli.area import AREA_HELP, CRS_HELP
from geocrodino.cli.datasets import DATASET_HELP, ROOT_HELP
from geocrodino.cli.heights import HeightScale, HeightZeroOption, PixelSize
from geocrodino.cli.labels import LABELS_HELP, Ignore, LabelColumn, LabelValue, parse_label_values


@dataclass(frozen=True)
class DataOptions:
    """Options of the section ``data`` of a configuration; None leaves the configured value.

    Whether rasters are copied (``data.cache``) is an option of the training alone: it changes no check.
    """

    aoi: Annotated[
        str | None,
        typer.Option(help=f"{AREA_HELP}; the column split assigns each polygon to train, val, test or unlabelled."),
    ] = None
    aoi_crs: Annotated[str | None, typer.Option(help=CRS_HELP)] = None
    optical: Annotated[Path | None, typer.Option(help="Image: any bands, CRS and resolution.")] = None
    elevation: Annotated[Path | None, typer.Option(help="Surface model: any CRS and resolution.")] = None
    labels: Annotated[Path | None, typer.Option(help=f"{LABELS_HELP}.")] = None
    split_by: Annotated[
        str | None,
        typer.Option("--split", help="How splits are drawn that nothing names: blocks of a scene, or whole scenes."),
    ] = None
    folds: Annotated[
        int | None, typer.Option(help="Cross-validation: train once for each of so many parts, and score all.")
    ] = None
    ground: Annotated[Path | None, typer.Option(help="Terrain model; without one, the ground is estimated.")] = None
    ignore: Ignore = None
    label_column: LabelColumn = None
    label_value: LabelValue = None
    partial: Annotated[str | None, typer.Option(help="Tiles that lack a file: refuse, keep or leave_out.")] = None
    resolution: Annotated[
        float | None,
        typer.Option(help="Pixel size of the training, metres; by default that of the image, or of coarser labels."),
    ] = None
    crs: Annotated[str | None, typer.Option(help="CRS of files that have coordinates but state none.")] = None
    pixel_m: PixelSize = None
    height_scale: HeightScale = None
    height_zero: HeightZeroOption = None
    height_unit: Annotated[
        str | None, typer.Option(help="Unit of heights: m, ft, us-ft ...; by default that of the file.")
    ] = None

    dataset: Annotated[str | None, typer.Option(help=DATASET_HELP)] = None
    root: Annotated[Path | None, typer.Option(help=ROOT_HELP)] = None

    def values(self) -> dict[str, Any]:
        """Values by dotted key of the configuration, without those of a public data set."""
        return {
            "data.aoi": self.aoi,
            "data.optical": self.optical,
            "data.elevation": self.elevation,
            "data.labels": self.labels,
            "data.splits.by": self.split_by,
            "data.splits.folds": self.folds,
            "data.ground": self.ground,
            "data.aoi_crs": self.aoi_crs,
            "data.ignore_values": self.ignore or None,
            "data.label_rules.column": self.label_column,
            "data.label_values": parse_label_values(self.label_value) or None,
            "data.partial": self.partial,
            "data.resolution_m": self.resolution,
            "data.crs": self.crs,
            "data.pixel_m": self.pixel_m,
            "data.height.scale": self.height_scale,
            "data.height.zero": self.height_zero,
            "data.height_unit": self.height_unit,
        }
