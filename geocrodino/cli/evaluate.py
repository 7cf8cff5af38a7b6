"""``geocrodino evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from geocrodino.cli.area import AREA_HELP, CRS_HELP, require_area


def evaluate(
    maps: Annotated[list[Path], typer.Argument(help="Class maps; several are shown side by side.")],
    labels: Annotated[Path, typer.Option(help="Class raster to compare with.")],
    aoi: Annotated[str | None, typer.Option(help=f"{AREA_HELP}; everywhere by default.")] = None,
    aoi_crs: Annotated[str | None, typer.Option(help=CRS_HELP)] = None,
    split: Annotated[str | None, typer.Option(help="Only polygons of this split: train, val or test.")] = None,
    ignore: Annotated[list[int] | None, typer.Option(help="Label value to leave out; may be repeated.")] = None,
    count_missing: Annotated[
        bool, typer.Option("--count-missing", help="Labelled pixels without a class in the map count as wrong.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default that of the map.")] = None,
) -> None:
    """Compare class maps with labels: a table, a JSON file and a picture.

    Every labelled pixel of the area counts once. Where the map has no class (its input was invalid there), a pixel is
    left out and the share is told, unless --count-missing says that it counts as wrong.

    Example:  geocrodino evaluate map.tif --labels labels.tif --aoi aoi.geojson --split test
    """
    from geocrodino.errors import ConfigError, LabelError, OutputError
    from geocrodino.evaluation.evaluate import evaluate_map
    from geocrodino.evaluation.report import (
        evaluation_table,
        plot_reliability,
        side_by_side,
        write_comparison,
        write_figure,
        write_json,
    )
    from geocrodino.geo.aoi import read_aoi
    from geocrodino.geo.aoi_splits import split_name

    console = Console(highlight=False, soft_wrap=True)
    if split is not None and aoi is None:
        raise ConfigError("--split needs --aoi: which polygons are meant?")
    require_area(aoi, aoi_crs)
    split = None if split is None else split_name(split)
    areas = None if aoi is None else read_aoi(aoi, aoi_crs, splits=split or "none")
    folder = out or maps[0].parent
    maps = list(dict.fromkeys(maps))
    alike = len({m.stem for m in maps}) < len(maps)
    results = {
        str(m) if alike else m.name: evaluate_map(
            m, labels, aoi=areas, split=split, ignore_values=tuple(ignore or ()), count_missed=count_missing
        )
        for m in maps
    }
    if len({r.scheme for r in results.values()}) > 1:
        raise LabelError("The maps have different classes and cannot be shown side by side: evaluate them one by one.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error}). Choose another folder with --out.") from error
    for path, result in zip(maps, results.values(), strict=True):
        console.print(evaluation_table(result))
        stem = folder / ("-".join((*path.parent.parts, path.stem)).lstrip("/-.") if alike else path.stem)
        write_json(result, Path(f"{stem}.scores.json"))
        write_figure(result, Path(f"{stem}.scores.png"))
        console.print(f"{stem}.scores.json, {stem}.scores.png", markup=False)
        if result.reliability is not None:
            plot_reliability({path.name: result.reliability}, Path(f"{stem}.reliability.png"))
            off = 100 * result.reliability.expected_calibration_error
            console.print(f"Expected calibration error {off:.1f} %: {stem}.reliability.png", markup=False)
    if len(results) > 1:
        console.print(side_by_side(results))
        write_comparison(results, folder / "comparison.png")
        console.print(str(folder / "comparison.png"), markup=False)
