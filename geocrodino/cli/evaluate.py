"""``geocrodino evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from geocrodino.cli.area import AREA_HELP, CRS_HELP, require_area
from geocrodino.cli.label_settings import label_settings
from geocrodino.cli.labels import LABELS_HELP, Ignore, LabelColumn, LabelValue, parse_label_values
from geocrodino.cli.precheck import check_evaluation
from geocrodino.cli.scene_scores import evaluate_scenes_of
from geocrodino.errors import ConfigError

if TYPE_CHECKING:
    from geocrodino.evaluation.results import Comparison


def evaluate(
    maps: Annotated[
        list[Path],
        typer.Argument(
            help="Class maps; several are compared side by side. With --config and without --labels, a folder of maps "
            "of scenes."
        ),
    ],
    labels: Annotated[Path | None, typer.Option(help=f"{LABELS_HELP}, to compare with.")] = None,
    aoi: Annotated[str | None, typer.Option(help=f"{AREA_HELP}; everywhere by default.")] = None,
    aoi_crs: Annotated[str | None, typer.Option(help=CRS_HELP)] = None,
    split: Annotated[str | None, typer.Option(help="Only polygons of this split: train, val or test.")] = None,
    ignore: Ignore = None,
    label_column: LabelColumn = None,
    label_value: LabelValue = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of a training, such as config.yaml of a run. Without --labels, maps of its scenes are "
            "compared with their labels; with --labels, its label_rules, ignore_values and label_values are used."
        ),
    ] = None,
    count_missing: Annotated[
        bool, typer.Option("--count-missing", help="Labelled pixels without a class in the map count as wrong.")
    ] = False,
    erode_px: Annotated[
        int,
        typer.Option(
            min=0,
            help="Leave out labelled pixels at most this far from another class, px of the labels; the ISPRS "
            "benchmarks take 3.",
        ),
    ] = 0,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Class that is in no mean, such as clutter; may be repeated.")
    ] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of labels that have coordinates but state none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default that of the map.")] = None,
) -> None:
    """Compare class maps with labels: tables, JSON files and pictures.

    Every labelled pixel of the area counts once. Pixels where the map has no class (its input was invalid there) are
    left out and their share is reported, unless --count-missing counts them as wrong. Several maps are compared side by
    side on the pixels where all of them have a class. --erode-px and --exclude give the scores of benchmarks that leave
    out the boundaries of classes, or a class.

    Example:  geocrodino evaluate map.tif --labels labels.tif --aoi aoi.geojson --split test

    Scenes of a training:  geocrodino evaluate maps/ --config geocrodino.yaml --split test
    """
    maps = list(dict.fromkeys(maps))  # patterns of a shell may overlap
    if labels is None:
        given = {
            "--aoi": aoi,
            "--aoi-crs": aoi_crs,
            "--crs": crs,
            "--ignore": ignore,
            "--label-column": label_column,
            "--label-value": label_value,
        }
        rules = {"count_missed": count_missing, "boundary_px": erode_px, "exclude": tuple(exclude or ())}
        evaluate_scenes_of(config, maps, split, given, rules, out=out)
        return
    if split is not None and aoi is None:
        raise ConfigError("--split needs --aoi: it selects polygons of an area.")
    require_area(aoi, aoi_crs)
    check_evaluation(maps, labels, aoi, aoi_crs, out, crs)

    from geocrodino.evaluation.evaluate import evaluate_maps
    from geocrodino.geo.areas.aoi import read_aoi
    from geocrodino.geo.areas.splits import split_name

    console = Console(highlight=False, soft_wrap=True)
    split = None if split is None else split_name(split)
    areas = None if aoi is None else read_aoi(aoi, aoi_crs, splits=split or "none")
    settings = label_settings(config, label_column, labels)
    alike = len({m.stem for m in maps}) < len(maps)
    comparison = evaluate_maps(
        {str(m) if alike else m.name: m for m in maps},
        labels,
        aoi=areas,
        split=split,
        ignore_values=tuple(ignore or settings.ignore_values),
        label_values=parse_label_values(label_value) or settings.label_values,
        rules=settings.label_rules,
        count_missed=count_missing,
        boundary_px=erode_px,
        exclude=tuple(exclude or ()),
        crs=crs,
    )
    for path in _write(comparison, maps, out or maps[0].parent, alike=alike):
        console.print(str(path), markup=False)
    _show(comparison, console)


def _show(comparison: Comparison, console: Console) -> None:
    """Print the table of each map, and for several maps the comparison."""
    from geocrodino.report.tables import evaluation_table, side_by_side

    for result in comparison.evaluations.values():
        console.print(evaluation_table(result))
        if result.reliability is not None:
            console.print(f"Expected calibration error {100 * result.reliability.expected_calibration_error:.1f} %")
    if len(comparison.evaluations) > 1:
        console.print(side_by_side(comparison))


def _write(comparison: Comparison, maps: list[Path], folder: Path, *, alike: bool) -> list[Path]:
    """Write the files of each map, and for several maps those of the comparison."""
    from geocrodino.errors import OutputError
    from geocrodino.report.figures import plot_reliability, write_comparison, write_figure
    from geocrodino.report.tables import write_json

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error}). Choose another folder with --out.") from error
    written = []
    for path, result in zip(maps, comparison.evaluations.values(), strict=True):
        stem = folder / ("-".join((*path.parent.parts, path.stem)).lstrip("/-.") if alike else path.stem)
        written += [Path(f"{stem}.scores.json"), Path(f"{stem}.scores.png")]
        write_json(result, written[-2])
        write_figure(result, written[-1])
        if result.reliability is not None:
            written.append(Path(f"{stem}.reliability.png"))
            plot_reliability({path.name: result.reliability}, written[-1])
    if len(maps) > 1:
        written += [folder / "comparison.json", folder / "comparison.png"]
        write_json(comparison, written[-2])
        write_comparison(comparison, written[-1])
    return written
