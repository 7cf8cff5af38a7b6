"""What names a scene is found, and nothing is lost without a word."""

from __future__ import annotations

import json
import pickle
import threading
import warnings
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geocrodino.errors import AccessError, BandWarning, LeftOutWarning, MissingCRSError, RasterError
from geocrodino.geo.rasters import opening, scene
from geocrodino.geo.rasters.identity import fingerprint, source_files
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_raster, open_scene
from geocrodino.modalities.recipe import optical_recipe

RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)

# --- folders and patterns -------------------------------------------------------------------------------------------


def test_one_file_is_a_plain_raster(write_tile, tmp_path):
    path = write_tile("a.tif", np.ones((4, 4), np.uint8))
    expected = RasterSource.open(path)
    for named in (path, str(path), [path], tmp_path, tmp_path / "*.tif"):
        found = open_scene(named)
        assert (type(found), found) == (RasterSource, expected)


def test_what_must_be_one_file_may_be_named_in_every_way_that_leads_to_one(write_tile, tmp_path):
    path = write_tile("a.tif", np.ones((4, 4), np.uint8))
    (tmp_path / "list.txt").write_text("a.tif\n")
    expected = RasterSource.open(path)
    for named in (path, str(path), tmp_path, tmp_path / "*.tif", tmp_path / "list.txt"):
        assert open_raster(named) == expected


def test_what_must_be_one_file_is_not_several(write_tile, tmp_path):
    for name in ("a.tif", "b.tif"):
        write_tile(name, np.ones((4, 4), np.uint8))
    with pytest.raises(RasterError) as refused:
        open_raster(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: expected one raster file, found 2 files ({tmp_path / 'a.tif'}, {tmp_path / 'b.tif'}).\n"
        "Name one of them, or join them first, for instance: gdalbuildvrt joined.vrt FILES"
    )


@pytest.mark.parametrize("open_it", [open_scene, open_raster])
def test_a_folder_without_a_raster(tmp_path, open_it):
    with pytest.raises(RasterError, match=r"no raster to read. Expected files of a scene, such as \*\.tif, found none"):
        open_it(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "ncols 2\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2\n3 4\n",
        "0.5 1.5 1\n1.5 1.5 2\n0.5 0.5 3\n1.5 0.5 4\n",
        "x,y,z\n0.5,1.5,1\n1.5,1.5,2\n0.5,0.5,3\n1.5,0.5,4\n",
    ],
)
def test_a_text_of_heights_is_no_list_of_files(tmp_path, text):
    path = tmp_path / "dsm.txt"
    path.write_text(text)
    for open_it in (open_scene, open_raster):
        with pytest.raises(MissingCRSError):  # GDAL read it: such files name no CRS
            open_it(path)


def test_a_folder_says_what_of_it_is_not_read(write_tile, tmp_path):
    (tmp_path / "north").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / ".map.tif.part").mkdir()
    for name in ("a.tif", "b.TIFF", "c.jp2.aux.xml", "map.classes.tif", ".d.tif", "e.png", "north/f.tif", "notes.md"):
        write_tile(name, np.ones((4, 4), np.uint8))
    write_tile(".map.tif.part/g.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(tmp_path / "map.classes.tif", "r+") as dataset:
        dataset.update_tags(CLASSES="[]")
    with pytest.warns(LeftOutWarning) as caught:
        source = open_scene(tmp_path)
    assert source.files == (str(tmp_path / "a.tif"), str(tmp_path / "b.TIFF"))
    assert [str(w.message) for w in caught] == [
        f"{tmp_path}: not read as part of the scene: 1 hidden file (.d.tif); 1 file of another kind (e.png); "
        f"1 sub-folder (north), whose rasters {tmp_path}/**/*.tif would name; 1 map made by geocrodino "
        "(map.classes.tif)."
    ]
    assert caught[0].filename == __file__


def test_many_files_left_out_are_counted(write_tile, tmp_path):
    for number in range(7):
        write_tile(f"{number}.png", np.ones((4, 4), np.uint8))
    write_tile("a.tif", np.ones((4, 4), np.uint8))
    with pytest.warns(LeftOutWarning, match=r"7 files of other kinds \(0.png, 1.png, 2.png, 3.png, 4.png and 2 more\)"):
        assert type(open_scene(tmp_path)) is RasterSource


def test_a_folder_that_cannot_be_looked_into(write_tile, tmp_path, monkeypatch):
    write_tile("a.tif", np.ones((4, 4), np.uint8))
    (tmp_path / "lost+found").mkdir()
    listed = Path.iterdir

    def locked(self):
        if self.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.warns(LeftOutWarning, match=r"1 sub-folder \(lost\+found\)"):
        open_scene(tmp_path)
    with pytest.raises(AccessError) as caught:
        open_scene(tmp_path / "lost+found")
    assert str(caught.value) == (
        f"{tmp_path / 'lost+found'}: cannot be accessed (Permission denied).\n"
        "Check the name, and the permissions of the file and of the folders that lead to it."
    )


def test_a_folder_without_rasters(tmp_path, write_tile):
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    way = "Name a folder that holds some, or a pattern for those of several folders, such as tiles/*/*.tif."
    assert str(caught.value) == (
        f"{tmp_path}: no raster to read. Expected files of a scene, such as *.tif, found none.\n{way}"
    )
    with rasterio.open(write_tile("map.tif", np.ones((4, 4), np.uint8)), "r+") as dataset:
        dataset.update_tags(BUNDLE_SHA256="0")
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no raster to read. Expected files of a scene, such as *.tif, "
        f"found 1 map made by geocrodino (map.tif).\n{way}"
    )


def test_a_map_that_is_named_itself_is_opened(write_tile):
    path = write_tile("map.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASSES="[]")
    assert open_scene(path) == RasterSource.open(path)


def test_patterns(write_tile, tmp_path):
    (tmp_path / "x").mkdir()
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(("b2.tif", "x/a1.tif"))]
    assert open_scene(tmp_path / "**" / "*[12].tif").files == tuple(map(str, files))
    assert open_scene(f"{tmp_path}/b?.tif") == RasterSource.open(files[0])
    literal = write_tile("[a]*.tif", np.ones((4, 4), np.uint8))
    assert open_scene(literal).path == literal
    with pytest.raises(RasterError) as caught:
        open_scene(f"{tmp_path}/*.img")
    assert str(caught.value) == (
        f"{tmp_path}/*.img: no file matches the pattern; relative ones start at the working folder, ** goes into "
        "sub-folders, and a [ that is part of a name is written [[]."
    )


def test_several_things_at_once(write_tile, tmp_path):
    (tmp_path / "x").mkdir()
    names = ("x/a.tif", "x/b.tif", "c.tif")
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(names)]
    source = open_scene([files[2], tmp_path / "x"])
    assert source.files == tuple(map(str, (files[2], files[0], files[1])))
    assert source.path == tmp_path


def test_relative_and_absolute_names_together(write_tile, tmp_path, monkeypatch):
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(("a.tif", "b.tif"))]
    monkeypatch.chdir(tmp_path)
    assert open_scene(["a.tif", files[1]]).geobox.shape == (4, 8)
    with pytest.raises(RasterError) as caught:
        open_scene(["a.tif", files[1], tmp_path / ".." / tmp_path.name / "a.tif"])
    assert str(caught.value) == (
        f"{tmp_path}/../{tmp_path.name}/a.tif: named twice: it is the same file as a.tif. Name each file once."
    )


def test_an_empty_list():
    with pytest.raises(RasterError) as caught:
        open_scene([])
    assert str(caught.value) == "scene: the list of files is empty. Expected at least one raster."


def test_a_member_that_is_no_raster(write_tile, tmp_path):
    first = write_tile("a.tif", np.ones((4, 4), np.uint8))
    (tmp_path / "b.tif").write_text("hello")
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'b.tif'}: not a raster that GDAL can open (")
    write_tile("c.tif", np.ones((4, 4), np.uint8), crs=None)
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path)
    told = str(caught.value).split("\n")
    assert told[0] == f"{tmp_path}: 2 of 3 files cannot be used, such as"
    assert told[1].startswith(f"{tmp_path / 'b.tif'}: not a raster")
    assert told[3].startswith(f"{tmp_path / 'c.tif'}: no coordinate reference system.")
    with pytest.raises(MissingCRSError):
        open_scene([first, tmp_path / "c.tif"])


def test_bands_tagged_by_mistake_are_told_of_once(write_tile, tmp_path):
    values = np.random.default_rng(7).integers(1, 255, (4, 20, 20)).astype(np.uint8)
    for i in range(3):
        write_tile(f"{i}.tif", values, 0, 20 * i, colours=RGBA)
    source = open_scene(tmp_path)
    assert source.data_bands == (1, 2, 3, 4)
    with pytest.warns(BandWarning) as caught:
        optical_recipe(source)
    assert [str(w.message) for w in caught] == [
        f"{tmp_path}: band 4 is tagged as transparency, but its values look like those of an image: it is read as "
        "data. Name the bands to use with `data.bands` to decide otherwise."
    ]


# --- lists ----------------------------------------------------------------------------------------------------------


def test_a_list_of_files(write_tile, tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    files = [write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i) for i, name in enumerate(("x/ü 1.tif", "#b.tif"))]
    text = f"# the scene\r\n\r\n./ü 1.tif\r\n{files[1]}  \r\n"
    (tmp_path / "x" / "scene.lst").write_bytes(b"\xef\xbb\xbf" + text.encode())
    monkeypatch.chdir(tmp_path)
    source = open_scene("x/scene.lst")
    assert source.files == ("x/ü 1.tif", str(files[1]))
    assert source.path == Path("x/scene.lst")


def test_lists_that_lead_nowhere(tmp_path):
    path = tmp_path / "scene.txt"
    for content, words in (
        (b"# nothing\n", "the list names no file. Expected one path or URL a line."),
        (
            b"\nx.tif\n\n/y/z.tif\n",
            f"2 of its files are not there (line 2: {tmp_path}/x.tif, line 4: /y/z.tif). "
            "Relative paths start at the folder of this file.",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(RasterError) as caught:
            open_scene(path)
        assert str(caught.value) == f"{path}: {words}"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RasterError, match=r"scene\.txt: cannot be read as text \(.*\)\. Expected UTF-8\."):
        open_scene(path)
    with pytest.raises(RasterError) as caught:
        open_scene(tmp_path / "none.txt")
    assert str(caught.value) == (
        f"{tmp_path}/none.txt: no such file. Check the path; relative ones start at the working folder."
    )


# --- URLs -----------------------------------------------------------------------------------------------------------


class _Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, in parts as asked for."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        start, stop = 0, len(content)
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last) + 1, stop)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Address of the files in the test's folder."""
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_behind_urls(served, write_tile, tmp_path):
    files = [write_tile(f"{i}.tif", np.full((4, 4), i + 1, np.uint8), 0, 4 * i) for i in range(2)]
    (tmp_path / "scene.txt").write_text(f"{served}/0.tif\n1.tif\n")
    source = open_scene(tmp_path / "scene.txt")
    assert source.files == (f"{served}/0.tif", str(files[1]))
    np.testing.assert_array_equal(source.read_own((0, 1, 2, 6), (1,))[0][0, 0], [1, 1, 2, 2])
    assert source_files(source) == source.files
    single = open_scene(f"{served}/1.tif")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(single)).read(single.geobox)[0], np.full((1, 4, 4), 2))
    assert len(fingerprint(single)) == 64
    with pytest.raises(RasterError) as caught:
        open_scene(f"{served}/none.tif")
    assert str(caught.value).startswith(f"{served}/none.tif: not a raster that GDAL can open (HTTP response code: 404")


@pytest.mark.parametrize("url", ["https://host//a.tif", "gopher://host/a.tif"])
def test_urls_that_cannot_be_kept(url):
    with pytest.raises(RasterError) as caught:
        open_scene(url)
    assert str(caught.value) == (
        f"{url}: not a URL that can be read. Expected one of https, http, ftp, s3, gs, az and oss, without empty parts."
        "\nDownload the file, or name it in a virtual raster (VRT)."
    )


# --- STAC -----------------------------------------------------------------------------------------------------------


def _item(name, **assets):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {},
        "assets": assets,
    }


def _collection(*items, **more):
    return {"type": "FeatureCollection", "features": list(items), **more}


@pytest.fixture
def stac(tmp_path, write_tile):
    """Write a STAC file beside two rasters, a.tif and b c.tif."""
    for i, name in enumerate(("a.tif", "b c.tif")):
        write_tile(name, np.ones((4, 4), np.uint8), 0, 4 * i)

    def write(content, name="items.json"):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / name

    return write


TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def test_an_item_collection(stac, tmp_path):
    overview = {"href": "none.tif", "roles": ["overview"], "type": TIFF}
    first = _item("one", image={"href": "./a.tif", "roles": ["data", "visual"]}, preview=overview)
    second = _item("two", image={"href": "b%20c.tif", "type": TIFF}, meta={"href": "m.xml"})
    source = open_scene(stac(_collection(first, second)))
    assert source.files == (str(tmp_path / "a.tif"), str(tmp_path / "b c.tif"))
    second["assets"]["image"]["href"] = (tmp_path / "b c.tif").as_uri()
    assert open_scene(stac(_collection(first, second), "x.geojson")).files == source.files


def test_one_item_is_one_raster(stac, tmp_path):
    both = _item("one", dsm={"href": "a.tif", "roles": ["data"]}, rgb={"href": "b c.tif", "roles": ["data"]})
    path = stac(both)
    assert open_scene(path, asset="rgb") == RasterSource.open(tmp_path / "b c.tif")
    with pytest.raises(RasterError) as caught:
        open_scene(path)
    assert str(caught.value) == (
        f"{path}: item one: expected one asset with the role data, or one GeoTIFF, found 2 of them: dsm, rgb.\n"
        "Name the asset with `asset`, or list the files in a .txt."
    )
    with pytest.raises(RasterError) as caught:
        open_scene(path, asset="dtm")
    assert str(caught.value) == (
        f"{path}: item one: expected an asset 'dtm', found none among: dsm, rgb.\n"
        "Name the asset with `asset`, or list the files in a .txt."
    )


def test_further_pages_of_a_search_are_told_of(stac):
    item = _item("one", image={"href": "a.tif", "type": TIFF})
    path = stac(_collection(item, links=[{"rel": "next", "href": "https://host/search?page=2"}]))
    with pytest.warns(LeftOutWarning) as caught:
        open_scene(path)
    assert str(caught[0].message) == (
        f"{path}: not read as part of the scene: the next pages of the search, which are not in this file."
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "{",
            "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)). Expected a STAC",
        ),
        (
            {"type": "Collection", "assets": {}},
            "expected a STAC Item or ItemCollection, found no assets in feature 1 of 1.",
        ),
        ([1], "expected a STAC Item or ItemCollection, found no assets in feature 1 of 1."),
        (_collection(), "expected a STAC Item or ItemCollection, found no feature."),
        (
            _collection(_item("one", image={"href": "a.tif", "type": TIFF}), {"type": "Feature", "properties": {}}),
            "expected a STAC Item or ItemCollection, found no assets in feature 2 of 2.",
        ),
        (
            _item("one", image={"type": TIFF}),
            "expected a STAC Item or ItemCollection, found no assets in feature 1 of 1.",
        ),
        (_item("one"), "item one: expected one asset with the role data, or one GeoTIFF, found none among: .\n"),
        (
            _item("one", image={"href": "none.tif", "type": TIFF}),
            "1 of its files is not there (item one: {folder}/none.tif). Relative paths start at the folder of this",
        ),
    ],
    ids=["json", "collection", "list", "empty", "feature", "no href", "no assets", "missing"],
)
def test_files_that_are_no_items(stac, tmp_path, content, words):
    path = stac(content)
    with pytest.raises(RasterError) as caught:
        open_scene(path)
    assert str(caught.value).startswith(f"{path}: " + words.replace("{folder}", str(tmp_path)))


def test_an_asset_of_what_is_no_item(write_tile):
    path = write_tile("a.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(RasterError) as caught:
        open_scene(path, asset="dsm")
    assert str(caught.value) == f"{path}: the asset 'dsm' was asked for, but this is no STAC file. Leave it out."


# --- headers --------------------------------------------------------------------------------------------------------


def test_every_header_is_read_once(write_tile, monkeypatch):
    files = [write_tile(f"{i}.tif", np.ones((4, 4), np.uint8), 0, 4 * i) for i in range(3)]
    opened = []
    real = opening.DatasetReader
    monkeypatch.setattr(opening, "DatasetReader", lambda name: (opened.append(name), real(name))[1])
    open_scene(files)
    assert opened == [str(file) for file in files]


def test_other_warnings_pass(write_tile, monkeypatch):
    files = [write_tile(f"{i}.tif", np.ones((4, 4), np.uint8), 0, 4 * i) for i in range(2)]
    real = scene._header

    def noisy(path, *described):
        warnings.warn(f"{Path(path).name} is odd", RuntimeWarning, stacklevel=2)
        return real(path, *described)

    monkeypatch.setattr(scene, "_header", noisy)
    with pytest.warns(RuntimeWarning) as caught:
        open_scene(files)
    assert [str(w.message) for w in caught] == ["0.tif is odd", "1.tif is odd"]
