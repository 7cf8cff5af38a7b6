import json
import math
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from helpers.rounding import output_rounding
from helpers.small_scenes import (
    SCHEME,
    UTM,
    PixelByPixel,
    classes_of,
    counting,
    grouped,
    image,
    make_bundle,
    names_in,
    write_raster,
)
from odc.geo.geobox import GeoBox

from geocrodino.errors import (
    BundleError,
    ConfigError,
    HeightRangeWarning,
    OutputError,
    OverlapError,
    RasterError,
    ResolutionWarning,
)
from geocrodino.geo.rasters.grid import round_up, working_grid
from geocrodino.maps.writer import MapWriter
from geocrodino.prediction.backends.torch import TorchBackend
from geocrodino.prediction.engine import predict
from geocrodino.prediction.given import batch_of
from geocrodino.prediction.job import BlockLayout
from geocrodino.prediction.tiles.choose import even_tiles
from geocrodino.prediction.tiles.lattice import TileLattice
from geocrodino.prediction.tiles.predictor import CachedTiles
from geocrodino.settings.prediction import Execution, Inputs, Outputs, Tiling


def one_pass(bundle, values, margin):
    """Classes of one pass over the scene, with zeros around it, and where rounding cannot change them."""
    height, width = values.shape[1:]
    normalised = (values.astype(np.float32) - 128) / 60
    below, right = -height % 16, -width % 16
    padded = np.pad(normalised, ((0, 0), (margin, margin + below), (margin, margin + right)))
    network = bundle.branch("optical")
    with torch.inference_mode():
        logits = network(torch.from_numpy(padded)[None])[0]
    inner = logits[:, margin : margin + height, margin : margin + width]
    top = inner.topk(2, dim=0).values
    clear = top[0] - top[1] > 2 * output_rounding(network, logits)  # each of the two may change
    return SCHEME.to_values(inner.argmax(0).numpy().astype(np.uint8)), clear.numpy()


def test_exact_tiles_give_the_result_of_one_pass(bundle, tmp_path):
    values = image(150, 201)
    write_raster(tmp_path / "s.tif", values)
    summary = predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=Tiling(core_px=64))
    expected, clear = one_pass(bundle, values, margin=256)
    found = classes_of(tmp_path / "m.tif")
    assert len(np.unique(expected)) > 1
    assert summary.stitch == "exact"
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("stitch", ["exact", "blend"])
@pytest.mark.parametrize("resolution", [1.0, 0.7])
def test_bytes_do_not_depend_on_workers_or_blocks(tmp_path, stitch, resolution):
    bundle = make_bundle(tmp_path / "b", resolution_m=resolution)
    write_raster(tmp_path / "s.tif", image(150, 201))
    outputs = set()
    for i, options in enumerate(({"workers": 1}, {"workers": 2, "block_px": 70}, {"workers": 3, "block_px": 128})):
        predict(
            tmp_path / "s.tif",
            tmp_path / f"{i}.tif",
            bundle,
            "optical",
            **grouped(core_px=64, stitch=stitch, **options),
        )
        outputs.add((tmp_path / f"{i}.tif").read_bytes())
    assert len(outputs) == 1
    assert len(np.unique(classes_of(tmp_path / "0.tif"))) > 1


def test_tiles_of_any_side_are_rounded_up_to_the_stride(bundle, kept_networks, tmp_path, monkeypatch):
    write_raster(tmp_path / "s.tif", image(64, 96))
    calls = []
    monkeypatch.setattr("geocrodino.prediction.job.open_backend", counting(calls))
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=Tiling(core_px=30))
    side = 32 + 2 * round_up(bundle.manifest.receptive_field_px, 8)
    assert calls == [(3, side, side)] * 6


@pytest.mark.parametrize(("stitch", "unused"), [("exact", 56), ("blend", 32)])  # margins of 56, and 64 less 32 mixed
def test_margins_are_told_to_the_backend(bundle, tmp_path, monkeypatch, stitch, unused):
    asked = []
    monkeypatch.setattr(
        "geocrodino.prediction.job.open_backend", lambda *_, unused_px, **__: asked.append(unused_px) or PixelByPixel()
    )
    write_raster(tmp_path / "s.tif", image(64, 64))
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=Tiling(stitch=stitch))
    assert asked == [unused]


@pytest.mark.parametrize("core_px", [512, 1024, 2048, 4096])
def test_no_tile_is_kept_where_blocks_share_none(core_px):
    grid = GeoBox((9000, 9000), UTM, "EPSG:32610")
    lattice = TileLattice.exact(grid.shape, core_px=core_px, stride_px=16, receptive_field_px=150)
    plan = BlockLayout.make(grid, grid, lattice, 6, None, workers=8)
    assert (plan.part_px, plan.keep_tiles) == (core_px, 0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (100, 33)])
@pytest.mark.parametrize("stitch", ["exact", "blend"])
def test_a_constant_network_gives_a_constant_map_to_the_outer_ring(constant, tmp_path, shape, stitch):
    write_raster(tmp_path / "s.tif", image(*shape))
    summary = predict(
        tmp_path / "s.tif", tmp_path / "m.tif", constant, "optical", tiling=Tiling(core_px=32, stitch=stitch)
    )
    found = classes_of(tmp_path / "m.tif")
    assert found.shape == shape
    assert (found == 2).all()
    assert summary.pixels == {"water": 0, "grass": math.prod(shape), "roof": 0}
    assert summary.area_m2["grass"] == pytest.approx(math.prod(shape))
    assert summary.nodata_share == 0


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(0.4, 0, 500000, 0, -0.4, 4000000), "EPSG:32610"),  # finer than the training
        (Affine(3, 0, 500000, 0, -3, 4000000), "EPSG:32610"),  # coarser
        (Affine(3, 0, 6.5e6, 0, -3, 1.8e6), "EPSG:2992"),  # feet
        (Affine(3**0.5, 1, 5e5, 1, -(3**0.5), 4e6), "EPSG:32610"),  # rotated by 30 degrees
        (Affine(1e-5, 0, 7.1, 0, -1e-5, 50.2), "EPSG:4326"),
    ],
)
def test_any_grid_is_kept_and_filled_to_the_edge(constant, tmp_path, transform, crs):
    write_raster(tmp_path / "s.tif", image(40, 61), transform=transform, crs=crs)
    summary = predict(tmp_path / "s.tif", tmp_path / "m.tif", constant, "optical", tiling=Tiling(core_px=32))
    with rasterio.open(tmp_path / "m.tif") as found, rasterio.open(tmp_path / "s.tif") as scene:
        assert (found.shape, found.crs) == (scene.shape, scene.crs)
        assert found.transform.almost_equals(transform, 1e-9)
        assert (found.read(1) == 2).all()
    assert summary.working_resolution_m == pytest.approx(1, rel=0.01)


def test_map_tells_how_it_was_made(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", image(20, 20))
    summary = predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")
    with rasterio.open(tmp_path / "m.tif") as found:
        tags = found.tags()
        assert (tags["BUNDLE_SHA256"], tags["MODALITY"], tags["SCENE"]) == (bundle.sha256, "optical", "s.tif")
        assert tags["TIFFTAG_SOFTWARE"].startswith("geocrodino ")
        assert [c["name"] for c in json.loads(tags["CLASSES"])] == ["water", "grass", "roof"]
        assert found.colormap(1)[5] == (255, 0, 0, 255)
        assert found.nodata == 255
    assert sum(summary.pixels.values()) == 400
    assert summary.bundle_sha256 == bundle.sha256


def test_invalid_pixels_are_nodata_and_class_zero_is_not(tmp_path):
    bundle = make_bundle(tmp_path / "b", constant=0)
    values = image(40, 40)
    values[:, :10] = 0
    write_raster(tmp_path / "s.tif", values, nodata=0)
    summary = predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")
    found = classes_of(tmp_path / "m.tif")
    assert (found[:10] == 255).all()
    assert (found[10:] == 0).all()
    assert summary.nodata_share == 0.25


@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_nan_heights_are_nodata_and_zero_metres_are_heights(tmp_path, resolution):
    bundle = make_bundle(tmp_path / "b", constant=2, resolution_m=resolution)
    heights = np.zeros((30, 30), np.float32)
    heights[5:20, 7:25] = np.nan
    write_raster(tmp_path / "s.tif", heights, nodata=math.nan)
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "elevation")
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), np.where(np.isnan(heights), 255, 5))


@pytest.mark.parametrize(("rows", "tiles"), [(20, 1), (40, 2)])  # the ramp of the second tile begins at 32
def test_empty_parts_of_a_scene_are_not_computed(bundle, tmp_path, monkeypatch, rows, tiles):
    values = np.zeros((3, 256, 64), np.uint8)
    values[:, :rows] = 9
    write_raster(tmp_path / "s.tif", values, nodata=0)
    calls = []
    monkeypatch.setattr("geocrodino.prediction.job.open_backend", counting(calls))
    predict(
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        bundle,
        "optical",
        tiling=Tiling(core_px=64, stitch="blend", block_px=64),
    )
    assert len(calls) == tiles
    assert (classes_of(tmp_path / "m.tif")[rows:] == 255).all()


def test_each_tile_is_computed_once(bundle, tmp_path, monkeypatch):
    write_raster(tmp_path / "s.tif", image(256, 256))
    seen = []
    original = CachedTiles._compute
    monkeypatch.setattr(CachedTiles, "_compute", lambda self, i: seen.append(i) or original(self, i))
    predict(
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        bundle,
        "optical",
        tiling=Tiling(core_px=64, stitch="blend", block_px=50),
    )
    assert sorted(seen) == [(r, c) for r in range(4) for c in range(4)]


@pytest.mark.parametrize("stitch", ["exact", "blend"])
@pytest.mark.parametrize("turned_deg", [0, 30])
@pytest.mark.parametrize("resolution_m", [1.0, 0.9, 3.0, 0.4])
@pytest.mark.parametrize("block_px", [None, 1536])
def test_tiles_of_a_wide_scene_are_rarely_computed_twice(stitch, turned_deg, resolution_m, block_px):
    own = GeoBox((8000, 12000), UTM @ Affine.rotation(turned_deg), "EPSG:32610")
    grid = working_grid(own, resolution_m)
    lattice = (
        TileLattice.exact(grid.shape, core_px=768, stride_px=8, receptive_field_px=100)
        if stitch == "exact"
        else TileLattice.blended(grid.shape, core_px=512, stride_px=8, margin_px=64)
    )
    plan = BlockLayout.make(own, grid, lattice, 6, block_px)
    to_grid = ~grid.affine @ own.affine
    kept, seen, computed = {}, set(), 0
    for r0, r1, c0, c1 in plan.blocks:
        corners = [to_grid @ (c, r) for r in (r0, r1) for c in (c0, c1)]
        rows, cols = [y for _, y in corners], [x for x, _ in corners]
        margin = 0 if grid == own else 1
        window = (
            max(0, math.floor(min(rows)) - margin), min(grid.shape[0], math.ceil(max(rows)) + margin),
            max(0, math.floor(min(cols)) - margin), min(grid.shape[1], math.ceil(max(cols)) + margin),
        )  # fmt: skip
        for tile in lattice.tiles(window):
            computed += tile not in kept
            kept.pop(tile, None)
            kept[tile] = True
            seen.add(tile)
            if len(kept) > plan.keep_tiles:
                del kept[next(iter(kept))]
    # Blocks of several tiles share fewer of them with their neighbours than memory could hold.
    most = (1.35 if turned_deg else 1.15) if block_px is None else 1.8
    assert computed <= most * len(seen)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_a_bundle_that_was_converted_is_predicted_without_torch(bundle, tmp_path):
    """Which takes longer to come up than a small map to be made; by the program's way to it as well."""
    write_raster(tmp_path / "s.tif", image(64, 64))
    names = [str(tmp_path / "s.tif"), str(tmp_path / "again.tif"), str(bundle.path)]
    predict(names[0], tmp_path / "m.tif", bundle, "optical")
    code = (
        "import sys, geocrodino\n"
        "from geocrodino.cli import app\n"
        "from geocrodino.cli.device import _device\n"
        "execution = geocrodino.Execution(device=_device('cpu', 'auto'))\n"
        "geocrodino.predict(*sys.argv[1:], 'optical', execution=execution)\n"
        "print(sorted({'torch', 'timm', 'geopandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    np.testing.assert_array_equal(classes_of(tmp_path / "again.tif"), classes_of(tmp_path / "m.tif"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"device": "cpu"},
            "`batch=4`: batching needs a GPU, found cpu.\nLeave it out.",
        ),
        (
            {"device": "cuda", "scheduler": "processes"},
            "`batch=4`: batches are gathered from threads. Expected threads of this process or of Dask workers, found "
            "processes with one each.\nLeave `batch` or `scheduler` out.",
        ),
    ],
)
def test_batches_where_they_are_of_no_use(bundle, tmp_path, options, told):
    write_raster(tmp_path / "s.tif", image(20, 20))
    with pytest.raises(ConfigError) as error:
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", **grouped(batch=4, **options))
    assert str(error.value) == told
    assert names_in(tmp_path) == ["s.tif"]


@pytest.mark.parametrize(
    ("asked", "device", "scheduler", "tiles", "expected"),
    [(None, "cpu", None, 9, 1), (None, "cuda:1", None, 9, 4), (None, "cuda", None, 2, 2),
     (None, "cuda", "tcp://a:1", 9, 1),
     (2, "cuda", "tcp://a:1", 9, 2), (1, "cpu", None, 9, 1)],
)  # fmt: skip
def test_tiles_at_once(asked, device, scheduler, tiles, expected):
    assert batch_of(Execution(batch=asked, device=device, scheduler=scheduler), tiles) == expected


@pytest.mark.parametrize(
    ("shape", "core"),
    [
        ((4096, 8192), 1024),
        ((1100, 1100), 560),  # 4 tiles of 880 px read 3.1 million pixels, as many of 1344 px 7.2
        ((1040, 4096), 528),  # 16 of 848 px read 11.5 million, 8 of 1344 px 14.4
        ((300, 100_000), 1024),  # one row in any case
        ((300, 90), 1024),  # one tile in any case
    ],
)
def test_tiles_at_the_edge_are_not_empty(shape, core):
    largest = TileLattice.exact(shape, core_px=1024, stride_px=16, receptive_field_px=151)
    found = even_tiles(largest)
    assert found.core_px == core
    assert (found.margin_px, found.stride_px, found.ramp_px) == (160, 16, 0)


def test_blended_tiles_at_the_edge_are_not_empty():
    largest = TileLattice.blended((530, 530), core_px=512, stride_px=16, margin_px=64)
    assert even_tiles(largest) == TileLattice((530, 530), 272, 64, 32, 16)
    tiny = TileLattice.blended((10, 10), core_px=512, stride_px=16, margin_px=64)
    assert even_tiles(tiny) == tiny


def test_batches_change_the_work_and_not_the_map(bundle, tmp_path, monkeypatch):
    """Which are for GPUs: here a processor stands for one."""
    monkeypatch.setattr("geocrodino.prediction.draft.batch_of", lambda execution, _: execution.batch)
    write_raster(tmp_path / "s.tif", image(150, 210))
    sizes, maps = [], []
    compute = TorchBackend._classes
    monkeypatch.setattr(TorchBackend, "_classes", lambda self, tiles: sizes.append(len(tiles)) or compute(self, tiles))
    for name, batch, workers in (("one", 1, 2), ("three", 3, 2), ("again", 3, 9)):
        sizes.clear()
        predict(
            tmp_path / "s.tif",
            tmp_path / f"{name}.tif",
            bundle,
            "optical",
            tiling=Tiling(core_px=64, stitch="exact"),
            execution=Execution(backend="torch", batch=batch, workers=workers),
        )
        assert sum(sizes) == 12  # 3 x 4 tiles
        assert max(sizes) == batch
        maps.append(classes_of(tmp_path / f"{name}.tif"))
    np.testing.assert_array_equal(maps[2], maps[1])
    assert (maps[1] == maps[0]).mean() > 0.999  # but for rounding


def test_a_block_larger_than_a_tile_computes_none_again(bundle, tmp_path, monkeypatch):
    write_raster(tmp_path / "s.tif", image(600, 600))
    seen = []
    original = CachedTiles._compute
    monkeypatch.setattr(CachedTiles, "_compute", lambda self, i: seen.append(i) or original(self, i))
    monkeypatch.setattr("geocrodino.prediction.job._PART_PX", 256)
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", tiling=Tiling(core_px=512, block_px=2048))
    assert sorted(seen) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_progress_counts_blocks(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", image(64, 64))
    steps = []
    predict(
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        bundle,
        "optical",
        on_progress=lambda *s: steps.append(s),
        tiling=Tiling(block_px=32),
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_threads_of_torch_are_given_back(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", image(20, 20))
    torch.set_num_threads(2)
    try:
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_unlike_heights_are_told(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", np.full((20, 20), 700, np.float32))
    with pytest.warns(
        HeightRangeWarning, match=r"100% of the sampled pixels.*\nExpected|Expected -5 to 60 m, found 700"
    ):
        summary = predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "elevation")
    assert "outside the range of height seen in training" in summary.warnings[0]


def test_scene_without_a_valid_pixel(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", np.zeros((3, 20, 20), np.uint8), nodata=0)
    with pytest.raises(RasterError, match="no pixel is valid for optical"):
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")
    assert names_in(tmp_path) == ["s.tif"]


def test_truncated_scene_leaves_no_map(bundle, tmp_path):
    path = write_raster(tmp_path / "s.tif", image(300, 300), tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(RasterError, match="damaged or cut short"):
        predict(path, tmp_path / "m.tif", bundle, "optical", tiling=Tiling(core_px=64, block_px=64))
    assert [name for name in names_in(tmp_path) if not name.startswith(".")] == ["s.tif"]  # finished blocks are kept


def test_bundle_for_other_bands(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", image(20, 20)[:1])
    with pytest.raises(BundleError, match=r"expected 3 optical bands \(red, green, blue; .*found 1 \(band 1\)"):
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")


def test_output_is_checked_first(bundle, tmp_path, monkeypatch):
    path = write_raster(tmp_path / "s.tif", image(20, 20))
    monkeypatch.setattr("geocrodino.prediction.job.Job.backends", lambda *_: pytest.fail("converted"))
    with pytest.raises(OutputError, match="does not exist"):
        predict(path, tmp_path / "none" / "m.tif", bundle, "optical")
    (tmp_path / "m.tif").touch()
    with pytest.raises(OutputError, match="`overwrite=True`"):
        predict(path, tmp_path / "m.tif", bundle, "optical")


@pytest.mark.parametrize("role", ["scene", "ground", "bundle"])
def test_no_input_is_replaced(tmp_path, role):
    bundle = make_bundle(tmp_path / "bundle")
    for name in ("scene", "ground"):
        write_raster(tmp_path / name, np.zeros((20, 20), np.float32))
    before = (tmp_path / role).read_bytes()
    with pytest.raises(OutputError, match=f"{role}: the map would replace the {role} itself"):
        predict(
            tmp_path / "scene",
            tmp_path / role,
            bundle,
            "elevation",
            inputs=Inputs(ground=tmp_path / "ground"),
            outputs=Outputs(overwrite=True),
        )
    assert (tmp_path / role).read_bytes() == before


def test_pixels_much_larger_than_in_training(constant, tmp_path):
    scene, out = tmp_path / "s.tif", tmp_path / "m.tif"
    write_raster(scene, image(4, 4), transform=Affine(5, 0, 5e5, 0, -5, 4e6))
    with pytest.warns(ResolutionWarning, match=r"Expected about 1 m, found 5 m.* 25 of its pixels for each") as told:
        summary = predict(scene, out, constant, "optical")
    assert summary.warnings == (str(told[0].message),)
    write_raster(scene, image(4, 4), transform=Affine(30, 0, 5e5, 0, -30, 4e6))
    with pytest.raises(BundleError) as error:
        predict(scene, out, constant, "optical", outputs=Outputs(overwrite=True))
    assert str(error.value) == (
        f"{scene}: pixels too large for a bundle trained at 1 m. Expected at most 16 m, found 30 m. The network would "
        "compute 900 of its pixels for each of the scene.\nUse a finer scene, or a bundle trained at about this size."
    )


def test_pixels_much_smaller_than_in_training(constant, tmp_path):
    scene = tmp_path / "a scene.tif"
    write_raster(scene, image(400, 800), transform=Affine(0.003, 0, 5e5, 0, -0.003, 4e6))
    with pytest.raises(BundleError) as error:
        predict(scene, tmp_path / "m.tif", constant, "optical")
    assert str(error.value) == (
        f"{scene}: pixels too small for a bundle trained at 1 m. Expected at least 0.00391 m, found 0.003 m.\n"
        f"Average them first, for instance: rio warp '{scene}' coarser.tif --dimensions 5 2 --resampling average"
    )


def test_ground_is_for_elevation(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", image(20, 20))
    with pytest.raises(ConfigError, match=r"g.tif: `ground` applies only to elevation, found optical alone"):
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", inputs=Inputs(ground=tmp_path / "g.tif"))


def test_memory_of_gdal_is_bounded_to_the_end(bundle, tmp_path, monkeypatch):
    write_raster(tmp_path / "s.tif", image(20, 20))
    bounds = []
    publish = MapWriter._publish
    monkeypatch.setattr(
        MapWriter, "_publish", lambda self: bounds.append(rasterio.env.getenv()["GDAL_CACHEMAX"]) or publish(self)
    )
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")
    assert bounds == [64 * 2**20]


def test_ground_elsewhere(bundle, tmp_path):
    write_raster(tmp_path / "s.tif", np.zeros((20, 20), np.float32))
    write_raster(tmp_path / "g.tif", np.zeros((20, 20), np.float32), transform=Affine(1, 0, 9000, 0, -1, 9000))
    with pytest.raises(OverlapError, match="ground raster does not meet"):
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "elevation", inputs=Inputs(ground=tmp_path / "g.tif"))


def test_unbounded_network_cannot_be_joined_exactly(bundle, tmp_path):
    from dataclasses import replace

    unbounded = replace(bundle, manifest=bundle.manifest.model_copy(update={"receptive_field_px": None}))
    write_raster(tmp_path / "s.tif", image(20, 20))
    with pytest.raises(BundleError, match="Use `stitch='blend'`"):
        predict(tmp_path / "s.tif", tmp_path / "m.tif", unbounded, "optical", tiling=Tiling(stitch="exact"))
    assert predict(tmp_path / "s.tif", tmp_path / "m.tif", unbounded, "optical").stitch == "blend"


@pytest.mark.parametrize("number", ["workers", "block_px", "core_px"])
def test_numbers_below_one(bundle, tmp_path, number):
    with pytest.raises(ValueError, match=f"{number} must be at least 1, found 0"):
        predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", **grouped(**{number: 0}))


def test_the_bundle_given_is_the_bundle_used(tmp_path):
    bundle = make_bundle(tmp_path / "b", constant=0)
    make_bundle(tmp_path / "b", constant=1)
    write_raster(tmp_path / "s.tif", image(20, 20))
    predict(tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical")
    assert (classes_of(tmp_path / "m.tif") == 0).all()


@pytest.mark.filterwarnings("ignore::geocrodino.errors.HeightRangeWarning")
def test_height_above_ground_does_not_depend_on_blocks(tmp_path):
    bundle = make_bundle(tmp_path / "b", heights=("height_above_ground", "slope"))
    heights = image(60, 90)[0].astype(np.float32) / 20
    heights[:9, :9] = -9999
    write_raster(tmp_path / "s.tif", heights, nodata=-9999)
    for name, options in (("m1", {"workers": 1}), ("m2", {"workers": 2, "block_px": 40})):
        predict(tmp_path / "s.tif", tmp_path / name, bundle, "elevation", **grouped(core_px=48, **options))
    assert (tmp_path / "m1").read_bytes() == (tmp_path / "m2").read_bytes()
    found = classes_of(tmp_path / "m1")
    assert (found[:9, :9] == 255).all()
    assert (found != 255).sum() == 60 * 90 - 81
