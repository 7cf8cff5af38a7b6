"""``geocrodino predict``."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geocrodino.cli.area import AREA_HELP, CRS_HELP, require_area
from geocrodino.cli.device import on_device
from geocrodino.cli.options import GivenAs, with_options
from geocrodino.cli.precheck import check_area, check_prediction
from geocrodino.cli.scene_scores import predict_scenes_of
from geocrodino.errors import AccessError, BundleError, ConfigError, OutputError
from geocrodino.files.access import exists, full_path, is_folder, look_up, same_file
from geocrodino.files.names import is_gdal_name, is_url
from geocrodino.files.picture_name import check_picture_name
from geocrodino.prediction.layers import LAYERS
from geocrodino.settings.factors import parse_factor
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import Execution, Inputs, Outputs, Tiling, option_fields
from geocrodino.spelling import did_you_mean

if TYPE_CHECKING:
    from geocrodino.bundle.io import Bundle
    from geocrodino.geo.areas.aoi import AOI
    from geocrodino.geo.rasters.reader import RasterSource
    from geocrodino.prediction.engine import PredictionSummary


_BUNDLE = "bundle.safetensors"
_WORK, _OUTPUT = "Tiles and computation", "Output"


if TYPE_CHECKING:
    LayerName = StrEnum
else:
    LayerName = StrEnum("LayerName", [(name, name) for name in LAYERS])  # Typer takes a list of these, not of Literals


def _modality(word: str) -> str:
    """Parse ``--modality``: the name of a registered modality, ``auto`` or ``both``."""
    if word in {"auto", "both"} or MODALITIES.knows(word):
        return word
    known = ("auto", *MODALITIES, "both")
    raise typer.BadParameter(f"{word!r} is not one of {', '.join(map(repr, known))}.{did_you_mean(word, known)}")


@dataclass(frozen=True, kw_only=True)
class Products:
    """Files that are made from the finished map.

    Attributes:
        polygons: GeoPackage of the classes as polygons.
        min_area_m2: Area below which a polygon joins its largest neighbour, square metres.
        simplify_m: About how far edges of polygons may move, metres.
        stac: STAC item of the map.
        preview: Picture of the map.
    """

    polygons: Annotated[
        Path | None, typer.Option(help="Also write the classes as polygons (.gpkg).", rich_help_panel=_OUTPUT)
    ] = None
    min_area_m2: Annotated[
        float,
        typer.Option(
            min=0,
            help="Polygons below this area, square metres, join their largest neighbour.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.0
    simplify_m: Annotated[
        float,
        typer.Option(
            min=0,
            help="Simplify the edges of polygons, which move by about this distance at most, metres.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.0
    stac: Annotated[
        Path | None, typer.Option(help="Also write a STAC item of the map (.json).", rich_help_panel=_OUTPUT)
    ] = None
    preview: Annotated[
        Path | None,
        typer.Option(
            help="Also write a picture of the map (.png); with --config a folder, for a picture of each map.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None


def band_numbers(text: str) -> tuple[int, ...]:
    """Parse band numbers, counted from 1 and separated by commas.

    Args:
        text: Value of ``--bands``.

    Returns:
        The numbers, in their order.

    Raises:
        ConfigError: If the text is anything else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"--bands {text}: expected numbers of bands, counted from 1, such as 3,2,1.")
    return tuple(int(word) for word in words)


def factor(text: str) -> float:
    """Parse a number above 0, which may be a fraction such as ``1/257``.

    Args:
        text: Value of ``--rescale``.

    Returns:
        The number.

    Raises:
        ConfigError: If the text is anything else.
    """
    try:
        return parse_factor(text)
    except ValueError as error:
        raise ConfigError(f"--rescale {text}: {error}.") from None


_GIVEN_AS = {
    "ground": GivenAs(Path | None),
    "bands": GivenAs(str | None, band_numbers),
    "rescale": GivenAs(str | None, factor),
    "device": GivenAs(str, default="auto"),
    "memory": GivenAs(str | None),
    "layers": GivenAs(list[LayerName] | None, lambda names: tuple(name.value for name in names)),
}
"""Options whose form on the command line differs from that of the Python argument."""


@with_options(_GIVEN_AS)
def predict(
    ctx: typer.Context,
    scene: Annotated[
        list[str] | None,
        typer.Argument(
            help="Image or surface model to map: a file, a folder, a pattern, a list file, a STAC collection, or "
            "several files that form one scene.",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[
        str,
        typer.Option(
            parser=_modality,
            metavar=f"[auto|{'|'.join(MODALITIES)}|both]",
            help="Modality of the scene; auto takes the one of the bundle that fits the file, and reports it.",
        ),
    ] = "auto",
    elevation: Annotated[
        str | None, typer.Option(help="Surface model of the same place as the image: both are combined pixel by pixel.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Bundle; by default the newest one under ./runs.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Map to write (.tif, or .vrt over many files); SCENE.classes.tif by default.")
    ] = None,
    aoi: Annotated[str | None, typer.Option(help=f"{AREA_HELP}; the whole scene by default.")] = None,
    aoi_crs: Annotated[str | None, typer.Option(help=CRS_HELP)] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of a training, whose scenes are mapped into the folder --out.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --config: only this split, such as test.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Make all checks, tell tiles, memory, disk and time, and write nothing."),
    ] = False,
    *,
    inputs: Annotated[Inputs, "Reading the scene"],
    outputs: Annotated[Outputs, _OUTPUT],
    products: Products,
    tiling: Annotated[Tiling, _WORK],
    execution: Annotated[Execution, _WORK],
) -> None:
    """Write a class map of a scene of any size as a GeoTIFF, on the scene's own grid.

    Example:  geocrodino predict scene.tif --modality optical

    With both modalities:  geocrodino predict scene.tif --elevation dsm.tif

    A folder of tiles, inside polygons:  geocrodino predict tiles/ --aoi town.geojson --out town.tif

    What it would take:  geocrodino predict tiles/ --dry-run

    Scenes of a training:  geocrodino predict --config geocrodino.yaml --split test --modality optical --out maps/
    """
    if config is None and not scene:
        raise typer.BadParameter("SCENE is missing. Name a scene to map, or --config of a training.", ctx)
    console = Console(highlight=False, soft_wrap=True)
    path = model or newest_bundle(Path("runs"))
    if config is not None or not scene:
        named = {"SCENE": scene or None, "--elevation": elevation, "--aoi": aoi, "--aoi-crs": aoi_crs}
        _require_no_files(named, inputs, tiling, products, outputs)
        predict_scenes_of(
            config, split, modality, path, out, on_device(execution),
            preview=products.preview, overwrite=outputs.overwrite, dry_run=dry_run,
        )  # fmt: skip
        return
    target = out or _default_name(scene)
    require_area(aoi, aoi_crs)
    check_prediction(scene, elevation, inputs.ground, inputs.asset, path)
    check_area(aoi, aoi_crs)
    if model is None:
        console.print(f"Bundle: {path}, the newest under ./runs", markup=False)

    from geocrodino.bundle.io import load_bundle
    from geocrodino.cli.progress import progress
    from geocrodino.prediction import engine
    from geocrodino.prediction.memory import share_freed_memory

    share_freed_memory()  # here and not in the library: it holds for the whole process
    area = None if aoi is None else _area(aoi, aoi_crs)
    files = (*scene, elevation, inputs.ground, None if area is None or area.given is None else area.given.file, path)
    _check_products([str(name) for name in files if name is not None], target, products, overwrite=outputs.overwrite)
    bundle = load_bundle(path)
    if dry_run:
        from geocrodino.prediction.dry_run import plan_map

        plan, _ = plan_map(
            scene[0] if len(scene) == 1 else scene,
            target,
            bundle,
            modality,
            elevation=elevation,
            aoi=area,
            inputs=inputs,
            tiling=tiling,
            execution=on_device(execution),
            outputs=outputs,
        )
        made = [str(path) for path in (products.polygons, products.preview, products.stac) if path is not None]
        for line in replace(plan, writes=(*plan.writes, *made)).lines():
            console.print(line, markup=False)
        console.print("Nothing was written. Without --dry-run, the prediction starts.")
        return
    with progress(console, "Predicting") as advance:
        summary = engine.predict(
            scene[0] if len(scene) == 1 else scene,
            target,
            bundle,
            modality,
            elevation=elevation,
            aoi=area,
            inputs=inputs,
            tiling=tiling,
            execution=on_device(execution),
            outputs=outputs,
            on_progress=advance,
        )
    image = _shown(scene, inputs) if products.preview else None
    written: list[str] = []
    try:
        _write_products(products, bundle, summary, image, written, overwrite=outputs.overwrite)
    finally:  # the map exists, so show its summary even if another file could not be written
        _show(console, summary)
        for line in written:
            console.print(line, markup=False)


def _require_no_files(
    named: Mapping[str, object], inputs: Inputs, tiling: Tiling, products: Products, outputs: Outputs
) -> None:
    """Refuse options of a single map beside those of all scenes of a training."""
    found = [word for word, value in named.items() if value is not None]
    found += [*_given(inputs), *_given(tiling), *_given(replace(products, preview=None))]
    found += _given(replace(outputs, overwrite=False))
    if found:
        raise ConfigError(
            "--config names the files of each scene. Expected beside it: --split, --modality, --model, --out, "
            f"--preview and options of the computation; found {', '.join(found)}. Leave these out."
        )


def _shown(scene: list[str], inputs: Inputs) -> RasterSource | None:
    """The raster to show beside the map."""
    from geocrodino.maps.preview import single_file
    from geocrodino.prediction.given import place_given

    return single_file(scene, place_given(inputs))


def _write_products(
    products: Products,
    bundle: Bundle,
    summary: PredictionSummary,
    image: RasterSource | None,
    written: list[str],
    *,
    overwrite: bool,
) -> None:
    """Write the files that are made from the map, and append a line for each to ``written``."""
    if products.polygons:
        from geocrodino.maps.polygons import write_polygons

        number = write_polygons(
            summary.path,
            products.polygons,
            min_area_m2=products.min_area_m2,
            simplify_m=products.simplify_m,
            overwrite=overwrite,
        )
        written.append(f"Polygons: {products.polygons}, {number:,}")
    if products.preview:
        from geocrodino.maps.preview import map_preview
        from geocrodino.modalities.registry import definition_of

        of_scene = summary.modalities[0]
        shown = None if definition_of(of_scene).holds_heights else image
        map_preview(summary.path, products.preview, scene=shown, modality=of_scene)
        written.append(f"Picture: {products.preview}")
    if products.stac:
        _write_items(bundle, summary, products.stac, products, overwrite=overwrite)
        written.append(f"STAC item: {products.stac}")


def newest_bundle(folder: Path) -> Path:
    """Find the bundle that was written last in a folder or below it.

    Raises:
        BundleError: If there is no bundle.
    """
    found = sorted(_bundles(folder))
    if not found:
        raise BundleError(
            f"no bundle under {folder.resolve()}. Expected one that `geocrodino train` wrote.\n"
            "Name one with --model, or train first."
        )
    return found[-1][1]


def _bundles(folder: Path) -> Iterator[tuple[float, Path]]:
    """Bundles in a folder and below it: time of writing and path of each."""

    def refuse(error: OSError) -> None:  # the newest bundle may be in a folder that cannot be read
        raise AccessError.because(error.filename, error) from error

    for place, _, files in os.walk(folder, onerror=refuse if exists(folder) else None):
        # A process that is killed while writing leaves an unfinished bundle in a folder *.part.
        if _BUNDLE in files and not place.endswith(".part"):
            status = look_up(Path(place, _BUNDLE))
            if status is not None:
                yield status.st_mtime, Path(place, _BUNDLE)


def _given(group: Inputs | Tiling | Products | Outputs) -> list[str]:
    """The options of a group whose value is not the default."""
    named = {each.name: each.flag for each in option_fields(type(group))}
    values = {each.name: (getattr(group, each.name), each.default) for each in fields(group)}
    return [
        named.get(name, f"--{name.replace('_', '-')}")
        for name, (value, default) in values.items()
        if value != default and value not in ((), [])
    ]


def _default_name(scene: list[str]) -> Path:
    first = Path(scene[0])
    pattern = any(c in scene[0] for c in "*?[")
    if len(scene) > 1 or is_url(scene[0]) or is_gdal_name(scene[0]) or (pattern and not exists(first)):
        raise ConfigError("several files, or one that is remote or in an archive: name the map with --out.")
    if is_folder(first):
        first = full_path(first)
        if not first.name:
            raise ConfigError(f"{first}: name the map with --out.")
        return first.with_name(f"{first.name}.classes.tif")
    return first.with_name(f"{first.stem}.classes.tif")


def _check_products(
    inputs: list[str],
    target: Path,
    products: Products,
    *,
    overwrite: bool,
) -> None:
    """Check the names of the files that are made from the map, before hours of work on the map."""
    from geocrodino.maps.writer import check_output

    polygons, stac, preview = products.polygons, products.stac, products.preview
    if polygons is None and (products.min_area_m2 or products.simplify_m):
        raise ConfigError("--min-area-m2 and --simplify-m need --polygons: they shape the polygons of its file.")
    for option, size in (("--min-area-m2", products.min_area_m2), ("--simplify-m", products.simplify_m)):
        if not math.isfinite(size):
            raise ConfigError(f"{option} {size:g}: expected a finite number, 0 or more.")
    if polygons is not None and polygons.suffix != ".gpkg":
        raise ConfigError(f"{polygons}: polygons are written as a GeoPackage. Let the name end in .gpkg.")
    if preview is not None:
        check_picture_name(preview)
    if stac is not None and stac.suffix.lower() not in {".json", ".geojson"}:
        raise ConfigError(f"{stac}: the STAC item is written as JSON. Let the name end in .json.")
    items = [*(_model_item(stac, m) for m in MODALITIES), _part_items(stac)] if stac else []
    for path in (polygons, stac, preview, *items):
        if path is not None:
            check_output(path, overwrite=overwrite)
    paths = [path for path in (polygons, stac, preview, *items) if path is not None]
    for path in paths:
        for given in inputs:
            if _is_same(path, given):
                raise OutputError(f"{path}: would replace the input {given}.\nChoose another name.")
    if len({*paths, target}) <= len(paths):
        raise ConfigError("two of the files to write have the same name. Give each file another name.")


def _is_same(path: Path, given: str) -> bool:
    """Whether an input is the file of that path. An input that is not a file name, such as a geometry, is not."""
    try:
        return same_file(path, Path(given))
    except AccessError:
        return False


def _model_item(out: Path, modality: Modality) -> Path:
    """Name of the STAC item of a branch, beside that of the map."""
    return out.with_name(f"{out.stem}.{modality}-model.json")


def _part_items(out: Path) -> Path:
    """Name of the file with the STAC items of a virtual map's parts, beside that of the map."""
    return out.with_name(f"{out.stem}.parts.json")


def _write_items(
    bundle: Bundle,
    summary: PredictionSummary,
    out: Path,
    products: Products,
    *,
    overwrite: bool,
) -> None:
    """Write the STAC item of the map and, beside it, those of its branches and of the parts of a virtual map."""
    from geocrodino.maps.files import is_virtual
    from geocrodino.maps.stac import CompanionFile, write_item, write_model_item, write_part_items

    models = {m: _model_item(out, m) for m in summary.modalities}
    virtual = is_virtual(summary.path)
    # Items of an earlier map of this name; _check_products has checked that they may be replaced.
    stale = [_model_item(out, m) for m in MODALITIES if m not in models]
    for path in stale if virtual else [*stale, _part_items(out)]:
        path.unlink(missing_ok=True)
    for modality, path in models.items():
        write_model_item(bundle.path, path, manifest=bundle.manifest, modality=modality, overwrite=overwrite)
    companions = (
        ("decided", summary.decided_path, "Which modality decided", "data"),
        ("layers", summary.layers_path, "Layers", "data"),
        ("polygons", products.polygons, "Polygons", "data"),
        ("preview", products.preview, "Preview", "overview"),
    )
    files = {name: CompanionFile(path, title, (role,)) for name, path, title, role in companions if path is not None}
    write_item(summary.path, out, manifest=bundle.manifest, models=models, files=files, overwrite=overwrite)
    if virtual:
        write_part_items(summary.path, _part_items(out), manifest=bundle.manifest, models=models, overwrite=overwrite)


def _show(console: Console, summary: PredictionSummary) -> None:
    from geocrodino.cli.progress import duration

    if not summary.modality_requested:
        console.print(f"Modality: {' and '.join(summary.modalities)} ({summary.reason})", markup=False)
    if summary.bands:
        console.print(f"{summary.bands[0].upper()}{summary.bands[1:]}", markup=False)
    if summary.heights:
        console.print(f"{summary.heights[0].upper()}{summary.heights[1:]}", markup=False)
    table = Table(title=escape(str(summary.path)), title_justify="left")
    for name in ("class", "m²", "ha", "share"):
        table.add_column(name, justify="left" if name == "class" else "right")
    total = sum(summary.area_m2.values())
    for name, area in summary.area_m2.items():
        table.add_row(escape(name), f"{area:,.0f}", f"{area / 1e4:,.2f}", f"{100 * area / total:.1f} %")
    console.print(table)
    if summary.decided:
        console.print(f"Deciding modality: {summary.decided_path}", markup=False)
        console.print(
            "Decided by: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in summary.decided.items())
        )
    if summary.layers_path:
        console.print(f"Layers: {summary.layers_path}", markup=False)
    if summary.resumed:
        console.print(f"{summary.resumed} blocks reused from the previous run.")
    console.print(
        f"No data: {100 * summary.nodata_share:.1f} %. Took {duration(summary.seconds)} with {summary.backend}."
    )


def _area(given: str, crs: str | None) -> AOI:
    from geocrodino.geo.areas.aoi import read_aoi

    return read_aoi(given, crs, splits="none")
