import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from helpers.small_scenes import image, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geocrodino.bundle.manifest import Manifest
from geocrodino.errors import BundleError, OutputError, RasterError
from geocrodino.maps.files import class_map
from geocrodino.maps.polygons import write_polygons
from geocrodino.maps.stac import CompanionFile, write_item, write_model_item, write_part_items
from geocrodino.maps.writer import MapWriter
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.prediction.engine import predict
from geocrodino.prediction.tiles.lattice import blocks
from geocrodino.settings.classes import ClassScheme, LandClass
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.prediction import Execution

SHA = "ab" * 32
WRITTEN = datetime(2025, 6, 1, 12, 30, tzinfo=UTC)
UTM = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
CLASSES = ClassScheme(
    classes=(
        LandClass(value=1, name="grass & moss", colour="#00ff0a"),
        LandClass(value=2, name="Gebäude", colour="#ff0000"),
        LandClass(value=3, name="лес", colour="#0000ff"),
        LandClass(value=4, name="grass / moss", colour="#abcdef"),
    )
)
TAGS = {
    "CLASSES": json.dumps([c.model_dump() for c in CLASSES.classes]),
    "BUNDLE_SHA256": SHA,
    "BUNDLE_NAME": "town",
    "MODALITY": "optical",
    "SCENE": "ortho.tif",
    "TIFFTAG_SOFTWARE": "geocrodino 0.1.0",
}


def manifest(**changes):
    red = Channel(name="red", unit="digital number", low=0, high=255, mean=100, std=50)
    height = Channel(name="height_above_ground", unit="metre", low=0, high=30, mean=5, std=4)
    values = {
        "name": "town",
        "classes": CLASSES,
        "network": NetworkSettings(),
        "modalities": {
            "optical": ModalitySpec(
                recipe=Recipe(modality="optical", bands=(1,), band_names=("red",)), channels=(red,)
            ),
            "elevation": ModalitySpec(
                recipe=Recipe(modality="elevation", channels=("height_above_ground",)), channels=(height,)
            ),
        },
        "resolution_m": 0.5,
        "crs": "EPSG:32631",
        "footprint": {"type": "Polygon", "coordinates": [[[3, 45], [4, 45], [4, 46], [3, 46], [3, 45]]]},
        "receptive_field_px": 90,
        "created": datetime(2024, 5, 4, tzinfo=UTC),
        "training": {"method": "crodino", "val_miou": {"optical": float("nan")}},
        "sha256": SHA,
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def write_map(tmp_path):
    def write(name="map.tif", *, shape=(40, 60), transform=UTM, crs="EPSG:32631", tags=TAGS, driver="COG"):
        size = {"count": 1, "height": shape[0], "width": shape[1], "dtype": "uint8"}
        with rasterio.open(
            tmp_path / name, "w", driver=driver, crs=crs, transform=transform, nodata=255, **size
        ) as target:
            target.write(np.ones(shape, np.uint8), 1)
            target.set_band_description(1, "land cover")
            target.update_tags(**tags)
        os.utime(tmp_path / name, (WRITTEN.timestamp(),) * 2)
        return tmp_path / name

    return write


@pytest.fixture
def models(tmp_path):
    """Items of the models of a bundle, in a folder beside the map."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "bundle.safetensors").write_bytes(b"weights")
    for modality in ("optical", "elevation"):
        write_model_item(
            folder / "bundle.safetensors", folder / f"{modality}.json", manifest=manifest(), modality=modality
        )
    return {modality: folder / f"{modality}.json" for modality in ("optical", "elevation")}


@pytest.fixture
def item_of(tmp_path, models):
    def write(class_map, **options):
        options = {"manifest": manifest(), "models": {"optical": models["optical"]}, **options}
        write_item(class_map, tmp_path / "map.json", overwrite=True, **options)
        return read(tmp_path / "map.json")

    return write


def read(path):
    """The item of a file, checked by the core schemas, which pystac brings along; those of extensions are online."""
    content = json.loads(path.read_text(encoding="utf-8"))
    checked = JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, content["stac_version"])
    assert checked == "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    return pystac.Item.from_dict(content)


def test_item_says_where_when_and_from_what_the_map_is(write_map, item_of):
    item = item_of(write_map())
    assert (item.id, item.datetime) == ("map", WRITTEN)
    assert item.properties["title"] == "Land cover of ortho.tif"
    assert item.properties["processing:level"] == "L4"
    assert item.properties["processing:software"] == {"geocrodino": "0.1.0"}
    assert item.properties["geocrodino:bundle_sha256"] == SHA
    assert item.properties["geocrodino:bundle_name"] == "town"
    assert item.properties["geocrodino:modalities"] == ["optical"]
    assert item.properties["geocrodino:scene"] == "ortho.tif"
    # 30 x 20 m north and east of the origin of zone 31 at 5000 km: 45.15 degrees north.
    np.testing.assert_allclose(item.bbox, [3, 45.153297, 3.000382, 45.153477], atol=1e-6)
    assert len(item.geometry["coordinates"][0]) == 5
    assert shapely.geometry.shape(item.geometry).exterior.is_ccw


def test_map_asset_has_grid_nodata_and_classes(write_map, item_of):
    item = item_of(write_map())
    asset = item.assets["map"]
    assert (asset.href, asset.roles, asset.media_type) == ("map.tif", ["data"], pystac.MediaType.COG)
    assert (asset.extra_fields["data_type"], asset.extra_fields["nodata"]) == ("uint8", 255)
    assert asset.extra_fields["created"] == "2025-06-01T12:30:00Z"
    assert asset.extra_fields["bands"] == [{"name": "land cover"}]
    placed = ProjectionExtension.ext(asset)
    assert (placed.code, placed.shape) == ("EPSG:32631", [40, 60])
    assert placed.transform == [0.5, 0, 500_000, 0, -0.5, 5_000_000]
    assert ProjectionExtension.ext(item).code == "EPSG:32631"
    # Names for programs have letters, digits, - and _ alone, and no two are the same; titles are as people wrote them.
    found = ClassificationExtension.ext(asset).classes
    assert [(c.value, c.name, c.title, c.color_hint, c.nodata) for c in found] == [
        (1, "grass-moss-1", "grass & moss", "00FF0A", None),
        (2, "Gebaude", "Gebäude", "FF0000", None),
        (3, "class-3", "лес", "0000FF", None),
        (4, "grass-moss-4", "grass / moss", "ABCDEF", None),
        (255, "nodata", "no data", None, True),
    ]


def test_parts_of_a_virtual_map_have_items_of_their_own(tmp_path, models):
    """Of four blocks one holds no class, and has no part."""
    grid, path = GeoBox((40, 60), UTM, "EPSG:32631"), tmp_path / "map.vrt"
    with MapWriter((class_map(path, CLASSES, tags=TAGS),), grid) as writer:
        for window in blocks((40, 60), 32):
            shape = (1, window[1] - window[0], window[3] - window[2])
            writer.write(window, [np.full(shape, 255 if window[0] and window[2] else 2, np.uint8)])
    given = {"manifest": manifest(), "models": {"optical": models["optical"]}}
    assert write_part_items(path, tmp_path / "parts.json", **given) == 3
    collection = pystac.ItemCollection.from_file(str(tmp_path / "parts.json"))
    assert [item.id for item in collection] == ["map-0-32-0-32", "map-0-32-32-60", "map-32-40-0-32"]
    for item, (row, col, height, width) in zip(
        collection, [(0, 0, 32, 32), (0, 32, 32, 28), (32, 0, 8, 32)], strict=True
    ):
        asset = item.assets["map"]
        with rasterio.open(tmp_path / asset.href) as part:
            placed = ProjectionExtension.ext(asset)
            assert (tuple(placed.shape), Affine(*placed.transform)) == (part.shape, part.transform)
        assert placed.shape == [height, width]
        assert placed.transform == [0.5, 0, 500_000 + col / 2, 0, -0.5, 5_000_000 - row / 2]
        assert asset.media_type == pystac.MediaType.COG
        (link,) = item.get_links("derived_from")
        assert link.href == "model/optical.json"
        assert item.properties["title"] == "Land cover of ortho.tif"
    write_item(path, tmp_path / "map.json", **given)
    whole = shapely.box(*read(tmp_path / "map.json").bbox)
    np.testing.assert_allclose(
        shapely.union_all([shapely.box(*i.bbox) for i in collection]).bounds, whole.bounds, atol=1e-7
    )


def test_a_map_without_parts_has_no_items_of_parts(write_map, models, tmp_path):
    with pytest.raises(RasterError) as error:
        write_part_items(
            write_map(), tmp_path / "parts.json", manifest=manifest(), models={"optical": models["optical"]}
        )
    assert str(error.value) == (
        f"{tmp_path / 'map.tif'}: no parts beside it. Expected a map that was written with a name in .vrt."
    )
    assert not (tmp_path / "parts.json").exists()


def test_no_item_without_a_model(write_map, tmp_path):
    for write in (write_item, write_part_items):
        with pytest.raises(ValueError, match="expected the item of a model at least, found none"):
            write(write_map(), tmp_path / "map.json", manifest=manifest(), models={})
    assert not (tmp_path / "map.json").exists()


def test_prediction_points_back_to_its_model(write_map, item_of):
    item = item_of(write_map())
    (link,) = item.get_links("derived_from")
    assert (link.href, link.media_type) == ("model/optical.json", "application/geo+json")
    assert link.extra_fields == {"mlm:name": "town-optical"}
    fields = item.assets["map"].extra_fields
    assert fields["mlm:name"] == "town-optical"
    assert fields["processing:expression"] == {"format": "stac-mlm", "expression": "model/optical.json"}
    # An item that declares the extension stands for a model.
    assert not MLMExtension.has_extension(item)
    assert set(item.stac_extensions) == {
        "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
        "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
        "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    }


def test_a_map_of_both_branches_points_to_both(write_map, item_of, models):
    item = item_of(write_map(tags=TAGS | {"MODALITY": "both"}), models=models)
    assert [(link.href, link.extra_fields["mlm:name"]) for link in item.get_links("derived_from")] == [
        ("model/optical.json", "town-optical"),
        ("model/elevation.json", "town-elevation"),
    ]
    assert item.assets["map"].extra_fields["processing:expression"]["expression"] == [
        "model/optical.json",
        "model/elevation.json",
    ]
    assert item.properties["geocrodino:modalities"] == ["optical", "elevation"]


def test_predicted_maps_have_an_item(bundle, tmp_path):
    write_raster(tmp_path / "image.tif", image(48, 64))
    predict(tmp_path / "image.tif", tmp_path / "map.tif", bundle, "optical", execution=Execution(workers=1))
    model = tmp_path / "model.json"
    write_model_item(bundle.path, model, manifest=bundle.manifest, modality="optical")
    write_item(tmp_path / "map.tif", tmp_path / "map.json", manifest=bundle.manifest, models={"optical": model})
    item = read(tmp_path / "map.json")
    assert item.properties["geocrodino:scene"] == "image.tif"
    assert item.properties["geocrodino:bundle_sha256"] == bundle.sha256
    assert item.properties["processing:software"] == {"geocrodino": version("geocrodino")}
    assert item.assets["map"].media_type == pystac.MediaType.COG
    with pytest.raises(BundleError, match="Expected elevation, found optical"):
        write_item(
            tmp_path / "map.tif", tmp_path / "e.json", manifest=bundle.manifest, models={"elevation": tmp_path / "e"}
        )


def test_model_item_describes_one_branch(models):
    item = read(models["elevation"])
    assert (item.id, item.datetime) == ("town-elevation", datetime(2024, 5, 4, tzinfo=UTC))
    assert item.bbox == [3, 45, 4, 46]
    assert shapely.geometry.shape(item.geometry).equals(shapely.box(3, 45, 4, 46))
    assert item.properties["geocrodino:bundle_sha256"] == SHA
    model = MLMExtension.ext(item)
    assert model.mlm_name == "town-elevation"
    assert model.tasks == ["semantic-segmentation"]
    assert (model.pretrained, model.pretrained_source) == (False, None)
    assert model.hyperparameters.to_dict() == {
        "resolution_m": 0.5, "method": "crodino", "val_miou": {"optical": None},
    }  # fmt: skip
    (read_as,) = model.input
    assert read_as.name == "elevation"
    assert [b["name"] for b in item.properties["mlm:input"][0]["bands"]] == ["height_above_ground"]
    assert item.properties["bands"] == item.assets["model"].extra_fields["bands"] == [{"name": "height_above_ground"}]
    (written_as,) = model.output
    assert [c.name for c in written_as.classes] == ["grass-moss-1", "Gebaude", "class-3", "grass-moss-4", "nodata"]
    # Version 1 of the classification extension, which the MLM extension refers to, asks for descriptions.
    assert all(c.description for c in written_as.classes)


def test_model_asset_is_the_bundle(models):
    asset = read(models["optical"]).assets["model"]
    assert asset.href == "bundle.safetensors"
    assert asset.roles == ["mlm:model", "mlm:weights", "data"]
    assert asset.extra_fields["mlm:artifact_type"] == "safetensors.torch.save_file"
    stored = FileExtension.ext(asset)
    # A multihash: 12 is SHA-2 of 256 bits, 20 its length of 32 bytes.
    assert (stored.size, stored.checksum) == (7, "1220" + hashlib.sha256(b"weights").hexdigest())


def test_a_crs_without_a_code_is_given_in_words(write_map, item_of):
    crs = "+proj=tmerc +lat_0=50 +lon_0=7.3 +ellps=GRS80 +units=us-ft"
    item = item_of(write_map(crs=crs, transform=Affine(2, 0, 0, 0, -2, 0)))
    described = ProjectionExtension.ext(item)
    assert described.code is None
    assert described.wkt2.startswith("PROJCRS[")
    assert described.projjson["type"] == "ProjectedCRS"
    assert item.bbox[0] == pytest.approx(7.3)
    assert item.bbox[3] == pytest.approx(50)


def test_long_edges_are_bent(write_map, item_of):
    # 1200 km along a northing of 5000 km, 60 pixels wide: the middle lies north of the chord between the corners.
    item = item_of(write_map(transform=Affine(20_000, 0, -100_000, 0, -5000, 5_000_000)))
    ring = shapely.geometry.shape(item.geometry).exterior
    west, east = (min(ring.coords, key=lambda p: abs(p[0] - x) - p[1] / 10) for x in (item.bbox[0], item.bbox[2]))
    assert item.bbox[3] == pytest.approx(45.1535, abs=1e-3)  # that of 3 degrees east
    assert max(west[1], east[1]) < 45.0
    assert len(ring.coords) > 9


def test_footprint_of_a_rotated_grid_has_its_own_corners(write_map, item_of):
    turned = Affine(3**0.5, 1, 500_000, 1, -(3**0.5), 5_000_000)
    item = item_of(write_map(transform=turned))
    ring = shapely.geometry.shape(item.geometry).exterior
    assert len(ring.coords) == 5
    # The upper left corner lies on the central meridian, at 3 degrees east; the lower left one east of it.
    corners = sorted(ring.coords[1:])
    assert corners[0] == pytest.approx((3, 45.153477), abs=1e-6)
    # 40 rows of (1 m east, 3^0.5 m south), 60 columns of (3^0.5 m east, 1 m north); a degree is 111.15 and 78.6 km.
    assert corners[1] == pytest.approx((3 + 40 / 78_600, 45.153477 - 69.28 / 111_150), abs=2e-6)
    assert corners[2] == pytest.approx((3 + 103.92 / 78_600, 45.153477 + 60 / 111_150), abs=2e-6)


def test_a_map_across_the_antimeridian_is_cut_there(write_map, item_of):
    item = item_of(write_map(crs="EPSG:4326", transform=Affine(0.1, 0, 178, 0, -0.1, 50)))
    assert item.bbox == pytest.approx([178, 46, -176, 50])
    west, east = shapely.geometry.shape(item.geometry).geoms
    assert west.equals(shapely.box(178, 46, 180, 50))
    assert east.bounds == pytest.approx((-180, 46, -176, 50))


def test_maps_of_the_globe_and_of_a_pole(write_map, item_of):
    for west in (-180, 0):
        item = item_of(write_map(crs="EPSG:4326", transform=Affine(6, 0, west, 0, -4, 80)))
        assert item.bbox == [-180, -80, 180, 80]
        assert shapely.geometry.shape(item.geometry).area == 360 * 160
    # 60 x 40 km around the pole: corners at 36 km from it, 0.33 degrees.
    item = item_of(write_map(crs="EPSG:3413", transform=Affine(1000, 0, -30_000, 0, -1000, 20_000)))
    assert item.bbox == pytest.approx([-180, 89.667, 180, 90], abs=1e-3)
    assert shapely.geometry.shape(item.geometry).contains(shapely.Point(0, 89.95))


def test_maps_of_other_bodies_and_of_none(write_map, item_of):
    item = item_of(write_map(crs="IAU_2015:30100", transform=Affine(0.01, 0, 7, 0, -0.01, 50)))
    assert ProjectionExtension.ext(item).code == "IAU_2015:30100"
    assert item.bbox == pytest.approx([7, 49.6, 7.6, 50])
    item = item_of(write_map(crs='LOCAL_CS["site",UNIT["metre",1]]'))
    assert (item.geometry, item.bbox) == (None, None)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lon=st.floats(-180, 180), lat=st.floats(-80, 80), turn=st.floats(0, 360))
def test_any_footprint_is_a_valid_geometry_on_the_globe(write_map, item_of, lon, lat, turn):
    here = Affine.translation(lon, lat) @ Affine.rotation(turn) @ Affine.scale(0.1, -0.05)
    item = item_of(write_map(crs="EPSG:4326", transform=here))
    shape = shapely.geometry.shape(item.geometry)
    assert shape.is_valid
    assert shape.area == pytest.approx(6 * 2)
    west, _, east, _ = shape.bounds
    assert -180 <= west <= east <= 180
    # The corner that the grid starts from lies in the box, also where that goes on beyond the antimeridian.
    box_west, south, box_east, north = item.bbox
    assert (lon - box_west) % 360 <= (box_east - box_west) % 360 + 1e-6 or (box_west - lon) % 360 < 1e-6
    assert south - 1e-6 <= lat <= north + 1e-6


def test_time_is_that_of_the_scene_where_it_is_known(write_map, item_of):
    class_map, taken = write_map(), datetime(2023, 7, 1, 10, tzinfo=UTC)
    item = item_of(class_map, acquired=taken)
    assert item.datetime == taken
    assert item.assets["map"].extra_fields["created"] == "2025-06-01T12:30:00Z"
    item = item_of(class_map, acquired=(taken, taken + timedelta(days=2)))
    assert item.datetime is None
    assert item.properties["start_datetime"] == "2023-07-01T10:00:00Z"
    assert item.properties["end_datetime"] == "2023-07-03T10:00:00Z"
    with pytest.raises(ValueError, match="expected times with time zone"):
        item_of(class_map, acquired=datetime(2023, 7, 1))
    with pytest.raises(ValueError, match="the earlier one first"):
        item_of(class_map, acquired=(taken, taken - timedelta(days=2)))


def test_further_files_and_properties(write_map, item_of, tmp_path):
    class_map = write_map()
    layers = write_map("map.layers.tif", driver="GTiff")
    write_polygons(class_map, tmp_path / "map.gpkg")
    (tmp_path / "map.png").write_bytes(b"png")
    item = item_of(
        class_map,
        files={
            "polygons": CompanionFile(tmp_path / "map.gpkg", "Polygons"),
            "preview": CompanionFile(tmp_path / "map.png", "Preview", ("overview", "visual")),
            "layers": CompanionFile(layers, "Layers"),
        },
        properties={"title": "My map", "license": "CC-BY-4.0"},
    )
    assert {name: (a.href, a.title, a.media_type, a.roles) for name, a in item.assets.items() if name != "map"} == {
        "polygons": ("map.gpkg", "Polygons", "application/geopackage+sqlite3", ["data"]),
        "preview": ("map.png", "Preview", "image/png", ["overview", "visual"]),
        "layers": ("map.layers.tif", "Layers", "image/tiff; application=geotiff", ["data"]),
    }
    assert (item.properties["title"], item.properties["license"]) == ("My map", "CC-BY-4.0")


def test_references_are_relative_to_the_item(write_map, models, tmp_path):
    (tmp_path / "items").mkdir()
    options = {"manifest": manifest(), "models": {"optical": models["optical"]}}
    write_item(write_map(), tmp_path / "items" / "a.json", **options)
    item = read(tmp_path / "items" / "a.json")
    assert item.assets["map"].href == "../map.tif"
    assert item.get_links("derived_from")[0].href == "../model/optical.json"


def test_a_map_of_another_bundle_or_branch_is_refused(write_map, item_of, models):
    class_map = write_map(tags=TAGS | {"BUNDLE_SHA256": "cd" * 32})
    with pytest.raises(BundleError) as error:
        item_of(class_map)
    assert str(error.value) == (
        f"{class_map}: another bundle made this map. Expected sha256 {SHA}, found {'cd' * 32} (town).\n"
        "Give the manifest of that bundle."
    )
    class_map = write_map(tags=TAGS | {"MODALITY": "both"})
    with pytest.raises(BundleError) as error:
        item_of(class_map)
    assert str(error.value) == (
        f"{class_map}: other branches made this map. Expected optical, found optical and elevation.\n"
        "Give the items of the branches that made it."
    )
    with pytest.raises(BundleError, match="Expected optical and elevation, found optical"):
        item_of(write_map(), models=models)


def test_items_that_are_not_of_the_branch_are_refused(write_map, item_of, models):
    class_map = write_map()
    with pytest.raises(BundleError) as error:
        item_of(class_map, models={"optical": models["elevation"]})
    assert str(error.value) == (
        f"{models['elevation']}: the item of another model. Expected town-optical with sha256 {SHA}, found "
        f"town-elevation with {SHA}.\nWrite it again, from the bundle that made the map."
    )
    missing = models["optical"].with_name("none.json")
    with pytest.raises(BundleError, match=r"none.json: no item of a model \(FileNotFoundError.*\n.*Write it first"):
        item_of(class_map, models={"optical": missing})
    models["optical"].write_text('{"properties": {}}')
    with pytest.raises(BundleError, match=r"no item of a model \(KeyError"):
        item_of(class_map)


def test_what_is_missing_or_in_the_way_is_told(write_map, item_of, models, tmp_path):
    class_map, out = write_map(), tmp_path / "map.json"
    absent = CompanionFile(tmp_path / "none.gpkg", "Polygons")
    with pytest.raises(OutputError) as error:
        item_of(class_map, files={"polygons": absent})
    assert str(error.value) == (
        f"{absent.path}: no such file, so the item cannot list it as 'polygons'.\nWrite it first."
    )
    with pytest.raises(RasterError, match="names no classes"):
        item_of(write_map(tags={}))
    with pytest.raises(ValueError, match="expected no companion file called map"):
        item_of(class_map, files={"map": CompanionFile(class_map, "Map")})
    with pytest.raises(ValueError, match="expected the item of a model at least, found none"):
        item_of(class_map, models={})
    assert not out.exists()
    options = {"manifest": manifest(), "models": {"optical": models["optical"]}}
    out.write_text("mine")
    with pytest.raises(OutputError, match="the file exists"):
        write_item(class_map, out, **options)
    assert out.read_text() == "mine"
    with pytest.raises(OutputError, match="would replace the map itself"):
        write_item(class_map, class_map, overwrite=True, **options)
    with pytest.raises(OutputError, match="would replace the item of optical itself"):
        write_item(class_map, models["optical"], overwrite=True, **options)


def test_a_model_item_needs_its_bundle_and_branch(tmp_path):
    bundle, out = tmp_path / "bundle.safetensors", tmp_path / "model.json"
    with pytest.raises(BundleError, match="no such bundle"):
        write_model_item(bundle, out, manifest=manifest(), modality="optical")
    bundle.write_bytes(b"weights")
    only_optical = manifest(modalities={"optical": manifest().modalities["optical"]})
    with pytest.raises(BundleError) as error:
        write_model_item(bundle, out, manifest=only_optical, modality="elevation")
    assert str(error.value) == f"{bundle}: no branch for elevation. Found optical."
    out.write_text("mine")
    with pytest.raises(OutputError, match="the file exists"):
        write_model_item(bundle, out, manifest=manifest(), modality="optical")
    with pytest.raises(OutputError, match="would replace the bundle itself"):
        write_model_item(bundle, bundle, manifest=manifest(), modality="optical", overwrite=True)


def test_a_failure_leaves_no_half_item(write_map, item_of, tmp_path, monkeypatch):
    class_map = write_map()
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OutputError, match=r"map.json: the item could not be written \(.*No space left.*\n.*free space"):
        item_of(class_map)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "model"]


def test_catalogues_are_loaded_only_when_they_are_written():
    code = "import sys, geocrodino.maps.stac; print('pystac' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
