"""Names that lead nowhere, consoles that cannot show everything, files inside archives: one message, nothing lost."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from geocrodino.errors import GeocrodinoError, RasterError
from reliability.kinds import case, marked

LOCKED, MISSING = "a folder that may not be searched", "a missing file"
CONSOLE = "a console that cannot show a character"
DISK = "a disk that does not answer"
ARCHIVE, NAME = "a file inside an archive", "a name that no file can have"
DENIED = ": cannot be accessed (Permission denied).\nCheck the name, and the permissions of the file and of the folders"

WITHOUT_PRIVILEGE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if os.geteuid() == 0 and any(libc.prctl(24, capability, 0, 0, 0) for capability in (1, 2)):
    sys.exit(77)  # root keeps the right to read everything
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def here(tmp_path, monkeypatch, sample, town):
    """A working folder with the files of a scene, settings and a bundle."""
    monkeypatch.chdir(tmp_path)
    for path in town.all():
        shutil.copy(path, tmp_path)
    shutil.copy(sample.bundle, tmp_path / "bundle.safetensors")
    return tmp_path


def refused(result, *told):
    code, out, err = result
    assert (code, out) == (2, ""), result
    assert err.startswith("Error: "), err
    assert err.count("Error: ") == 1
    assert "Traceback" not in err
    for words in told:
        assert words in err


def done(result):
    assert result[0] == 0, result


def commands(name):
    """A command for each role that a name can play."""
    predict = "predict --model bundle.safetensors --modality optical --out map.tif"
    return {
        "optical": f"train --optical {name}/a.tif --out run",
        "elevation": f"train --elevation {name}/a.tif --out run",
        "labels": f"train --labels {name}/a.tif --out run",
        "ground": f"train --ground {name}/a.tif --out run",
        "aoi": f"train --aoi {name}/a.gpkg --out run",
        "config": f"train --config {name}/a.yaml --out run",
        "teacher": f"train --method kd --teacher {name}/teacher --out run",
        "run": f"train --out {name}/run",
        "scene": f"{predict} {name}/a.tif",
        "list": f"{predict} {name}/a.txt",
        "items": f"{predict} {name}/a.json",
        "surface model": f"{predict} optical.tif --elevation {name}/a.tif",
        "terrain model": f"{predict} optical.tif --ground {name}/a.tif",
        "area": f"{predict} optical.tif --aoi {name}/a.gpkg",
        "bundle": f"predict optical.tif --model {name}/a.safetensors --modality optical --out map.tif",
        "map": f"evaluate {name}/a.tif --labels labels.tif",
        "reference": f"evaluate optical.tif --labels {name}/a.tif",
        "inspected": f"inspect --optical {name}/a.tif",
    }


ROLES = [*commands(""), "folder of the map", "polygons", "scores", "sample"]


def writing(name):
    """A command for each thing that is written."""
    predict = "predict optical.tif --model bundle.safetensors --modality optical"
    return {
        "folder of the map": f"{predict} --out {name}/map.tif",
        "polygons": f"{predict} --out map.tif --polygons {name}/map.gpkg",
        "scores": f"evaluate optical.tif --labels labels.tif --out {name}/scores",
        "sample": f"sample {name}/town",
    }


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [case(LOCKED, "refused", role, id=role) for role in ROLES])
def test_a_folder_that_may_not_be_searched(run_cli, here, monkeypatch, role):
    real = os.stat

    def stat(path, *args, **kwargs):
        if isinstance(path, str | os.PathLike) and "locked" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    refused(run_cli(*{**commands("locked"), **writing("locked")}[role].split()), DENIED)


@pytest.mark.parametrize("number", [case(DISK, "refused", n, id=os.strerror(n)) for n in (errno.EIO, errno.ESTALE)])
@pytest.mark.parametrize("role", ["optical", "aoi", "scene", "bundle", "map", "run", "sample"])
def test_a_disk_that_does_not_answer(run_cli, here, monkeypatch, number, role):
    real = os.stat

    def stat(path, *args, **kwargs):
        if isinstance(path, str | os.PathLike) and "remote" in os.fspath(path):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    words = {**commands("remote"), **writing("remote")}[role]
    refused(run_cli(*words.split()), f": cannot be accessed ({os.strerror(number)}).")


@pytest.mark.parametrize(
    "role", [case(LOCKED, "refused", role, id=f"{role}, for real") for role in ("scene", "bundle", "run", "map")]
)
def test_a_folder_of_mode_0(here, role):
    (here / "locked").mkdir()
    shutil.copy("optical.tif", "locked/a.tif")
    os.chmod("locked", 0)  # noqa: PTH101 - as short as the rest
    words = [sys.executable, "-c", WITHOUT_PRIVILEGE, "-m", "geocrodino", *commands("locked")[role].split()]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    os.chmod("locked", 0o700)  # noqa: PTH101
    if ended.returncode == 77:
        pytest.skip("the privileges of root cannot be dropped here")
    refused((ended.returncode, ended.stdout, ended.stderr), "locked/", DENIED)


@marked(LOCKED, "warned")
def test_a_pattern_goes_past_a_folder_that_may_not_be_read(here, monkeypatch):
    from geocrodino.errors import LeftOutWarning
    from geocrodino.geo.rasters.scene import open_scene

    for name in ("a", "b"):
        (here / name).mkdir()
    shutil.copy("optical.tif", "a/1.tif")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "b")
    with pytest.warns(LeftOutWarning, match=r"1 folder that may not be read \(b\)"):
        assert open_scene("[ab]/*.tif").path == Path("a/1.tif")


LONG = "n" * 300
NAMES = {
    "too long": LONG,
    "links in a circle": "loop",
    "a file as a folder": "dtm.tif",
}


@pytest.mark.parametrize("name", [case(NAME, "refused", name, id=kind) for kind, name in NAMES.items()])
@pytest.mark.parametrize("role", ["optical", "aoi", "config", "run", "scene", "bundle", "map", "scores", "sample"])
def test_a_name_that_no_file_can_have(run_cli, here, name, role):
    (here / "loop").symlink_to("loop")
    refused(run_cli(*{**commands(name), **writing(name)}[role].split()))
    assert not (here / "map.tif").exists()


@pytest.mark.parametrize("name", ["a\0b.tif", LONG])
@marked(NAME, "refused")
def test_names_from_python(name, here):
    import geocrodino

    for function in (
        geocrodino.RasterSource.open,
        geocrodino.load_bundle,
        geocrodino.read_raster,
        geocrodino.write_scene,
        lambda path: geocrodino.load_config(Path(path)),
        lambda path: geocrodino.evaluate_map("optical.tif", path, classes=None),
    ):
        with pytest.raises(GeocrodinoError):
            function(name)


@marked(NAME, "refused")
def test_a_name_whose_bytes_are_not_utf8(run_cli, here):
    name = os.fsdecode(b"sc\xe8ne.tif")
    shutil.copy("optical.tif", name)
    code, _, err = run_cli("predict", name, "--model", "bundle.safetensors", "--out", "map.tif")
    assert code == 2
    assert err == (
        "Error: sc\\udce8ne.tif: the name holds bytes that are not UTF-8, which GDAL cannot use. Rename it.\n"
    )
    for words in (f"sample {name}", f"train --out {name}", f"predict optical.tif --model b --out {name}"):
        shutil.copy("bundle.safetensors", "b")
        refused(run_cli(*words.split()), "sc\\udce8ne.tif", "not UTF-8")


@marked(NAME, "refused")
def test_a_pipe_in_the_place_of_a_raster(run_cli, here):
    os.mkfifo("pipe.tif")
    refused(run_cli("train", "--optical", "pipe.tif"), "pipe.tif: expected a file, found a pipe or a device.")


@marked(MISSING, "refused")
def test_a_link_that_leads_nowhere(run_cli, here):
    (here / "a.tif").symlink_to("gone.tif")
    refused(run_cli("train", "--labels", "a.tif"), "a.tif: no such file: it is a link to gone.tif, which does not")


@pytest.fixture(scope="module")
def early(town, sample, tmp_path_factory):
    """What each command with a missing file ends in, and the heavy libraries that were imported until then."""
    folder = tmp_path_factory.mktemp("early")
    for path in town.all():
        shutil.copy(path, folder)
    shutil.copy(sample.bundle, folder / "bundle.safetensors")
    content = yaml.safe_load((folder / "geocrodino.yaml").read_text())
    for role in ("optical", "elevation", "labels", "aoi"):
        changed = {**content, "data": {**content["data"], role: "nowhere/a.tif"}}
        (folder / f"{role}.yaml").write_text(yaml.safe_dump(changed))
    weights = {**content, "encoder_weights": {"optical": "nowhere/a.pth"}}
    (folder / "weights.yaml").write_text(yaml.safe_dump(weights))
    asked = {k: v.split() for k, v in commands("nowhere").items() if k != "run"}
    asked |= {f"{c.stem} in the file": ["train", "--config", c.name] for c in sorted(folder.glob("[!g]*.yaml"))}
    script = """
import io, json, sys
from contextlib import redirect_stderr
from geocrodino.cli.app import main
found = {}
for role, words in json.loads(sys.argv[1]).items():
    sys.argv, told = ["geocrodino", *words], io.StringIO()
    with redirect_stderr(told):
        try:
            main()
        except SystemExit as ended:
            heavy = [name for name in ("torch", "lightning", "kornia", "timm") if name in sys.modules]
            found[role] = [ended.code, told.getvalue(), heavy]
print(json.dumps(found))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, json.dumps(asked)], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(ended.stdout)


FILE_ROLES = [r for r in commands("") if r != "run"]
CONFIGURED = [f"{name} in the file" for name in ("aoi", "elevation", "labels", "optical", "weights")]


@pytest.mark.parametrize("role", [case(MISSING, "refused", role, id=role) for role in FILE_ROLES + CONFIGURED])
def test_a_missing_file_is_refused_before_heavy_libraries_are_imported(early, role):
    code, err, heavy = early[role]
    assert (code, heavy) == (2, [])
    assert "nowhere/" in err
    assert "no such" in err


@pytest.mark.parametrize("role", ["optical", "aoi", "config", "teacher", "scene", "area", "bundle", "map", "inspected"])
def test_the_early_message_is_that_of_the_work_itself(run_cli, here, monkeypatch, role):
    words = commands("nowhere")[role].split()
    code, out, err = run_cli(*words)
    assert out == ""
    for command in ("train", "inspect", "predict", "evaluate"):
        for check in ("training", "inspection", "prediction", "evaluation", "area"):
            monkeypatch.setattr(f"geocrodino.cli.{command}.check_{check}", lambda *_: None, raising=False)
    late_code, _, late_err = run_cli(*words)
    assert (late_code, late_err) == (code, err)


# --- consoles --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_on(monkeypatch):
    """Run the program on a console of an encoding: exit code, and what it shows."""
    from geocrodino.cli.app import main

    def run(encoding, *words):
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "argv", ["geocrodino", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out.flush()
        return int(ended.value.code or 0), out.buffer.getvalue().decode(encoding)

    return run


def write_map(path, names):
    """A map of 40 x 40 px in two classes, and labels that agree with it."""
    values = np.zeros((1, 40, 40), np.uint8)
    values[:, 20:] = 1
    classes = [{"value": v, "name": name, "colour": "#808080"} for v, name in enumerate(names)]
    for name, tags in ((path, {"CLASSES": json.dumps(classes)}), (f"{path}.labels.tif", {})):
        where = {"crs": "EPSG:32631", "transform": rasterio.Affine(1, 0, 4e5, 0, -1, 5e6), "nodata": 255}
        with rasterio.open(name, "w", driver="GTiff", width=40, height=40, count=1, dtype="uint8", **where) as target:
            target.write(values)
            target.update_tags(**tags)


SHOWN = {
    "ascii": ("vegetacion", r"\u9053\u8def", "# "),
    "latin-1": ("vegetación", r"\u9053\u8def", "# "),
    "cp1252": ("vegetación", r"\u9053\u8def", "# "),
    "cp1251": ("vegetacion", r"\u9053\u8def", "# "),
    "cp932": ("vegetacion", "道路", "■ "),
    "gbk": ("vegetación", "道路", "■ "),
    "utf-8": ("vegetación", "道路", "■ "),
}


@pytest.mark.parametrize(("encoding", "shown"), [case(CONSOLE, "right", e, s, id=e) for e, s in SHOWN.items()])
def test_evaluate_on_any_console(run_on, tmp_path, monkeypatch, encoding, shown):
    monkeypatch.chdir(tmp_path)
    write_map("map.tif", ["vegetación", "道路"])
    code, text = run_on(encoding, "evaluate", "map.tif", "--labels", "map.tif.labels.tif", "--out", "scores")
    assert code == 0
    assert {p.name for p in Path("scores").iterdir()} == {"map.scores.json", "map.scores.png"}
    for words in shown:
        assert words in text
    assert "100.0" in text


@pytest.mark.parametrize(
    "encoding", [case(CONSOLE, "right", e, id=f"predict, {e}") for e in ("ascii", "cp1251", "gbk")]
)
def test_predict_on_any_console(run_on, here, encoding):
    words = "predict optical.tif --modality optical --model bundle.safetensors --out map.tif --polygons map.gpkg"
    code, text = run_on(encoding, *words.split())
    assert (code, Path("map.gpkg").exists()) == (0, True)
    assert "m2" in text
    assert "Polygons: map.gpkg" in text


@pytest.mark.parametrize("kind", [case(CONSOLE, "right", kind, id=kind) for kind in ("broken pipe", "closed")])
def test_nobody_reads(tmp_path, kind):
    write_map(tmp_path / "map.tif", ["a", "b"])
    words = [sys.executable, "-m", "geocrodino", "evaluate", "map.tif", "--labels", "map.tif.labels.tif"]
    reading, writing_end = os.pipe()
    os.close(reading)
    where = {"stdout": writing_end} if kind == "broken pipe" else {"preexec_fn": lambda: os.close(1)}
    ended = subprocess.run(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False, **where)
    os.close(writing_end)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "map.scores.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@marked(CONSOLE, "refused")
def test_an_output_that_is_full(tmp_path):
    write_map(tmp_path / "map.tif", ["a", "b"])
    words = [sys.executable, "-m", "geocrodino", "evaluate", "map.tif", "--labels", "map.tif.labels.tif"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ended = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: standard output: cannot be written ([Errno 28] No space left on device).")
    assert (tmp_path / "map.scores.json").exists()


# --- archives --------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(here):
    """Archives of the files of the scene."""
    names = ("optical.tif", "dsm.tif", "dtm.tif", "labels.tif")
    with zipfile.ZipFile("scene.zip", "w") as archive:
        for name in names:
            archive.write(name, f"in/{name}")
    with tarfile.open("scene.tar.gz", "w:gz") as archive:
        for name in names:
            archive.add(name, f"in/{name}")
    for name in names:
        Path(f"{name}.gz").write_bytes(gzip.compress(Path(name).read_bytes()))
    return here


FORMS = {
    "zip": "/vsizip/scene.zip/in/{}",
    "absolute zip": "/vsizip/{here}/scene.zip/in/{}",
    "zip in braces": "/vsizip/{{{here}/scene.zip}}/in/{}",
    "zip URL": "zip://scene.zip!in/{}",
    "absolute zip URL": "zip://{here}/scene.zip!/in/{}",
    "tar": "/vsitar/scene.tar.gz/in/{}",
    "gzip": "/vsigzip/{}.gz",
    "absolute gzip": "/vsigzip/{here}/{}.gz",
}


@pytest.mark.parametrize("form", [case(ARCHIVE, "right", form, id=name) for name, form in FORMS.items()])
@pytest.mark.parametrize("folded", [False, True], ids=["text", "path"])
def test_a_raster_inside_an_archive(packed, form, folded):
    from geocrodino.geo.rasters.identity import fingerprint
    from geocrodino.geo.rasters.reader import RasterSource
    from geocrodino.geo.rasters.scene import open_scene

    name = form.format("optical.tif", here=packed)
    source = RasterSource.open(Path(name)) if folded else open_scene(name)
    expected = RasterSource.open("optical.tif")
    assert source.geobox == expected.geobox
    window = (3, 50, 7, 60)
    np.testing.assert_array_equal(source.read_own(window, (1, 2, 3))[0], expected.read_own(window, (1, 2, 3))[0])
    first = fingerprint(source)
    for path in (*packed.glob("scene.*"), *packed.glob("*.gz")):
        os.utime(path, ns=(1, 1))
    assert fingerprint(source) != first


@marked(ARCHIVE, "right")
def test_every_role_inside_an_archive(run_cli, packed, tiny):
    zipped = "/vsizip/scene.zip/in"
    content = yaml.safe_load(Path("geocrodino.yaml").read_text()) | tiny
    content["data"] |= {"optical": f"{zipped}/optical.tif", "labels": "zip://scene.zip!in/labels.tif"}
    Path("sub").mkdir()
    shutil.copy("scene.zip", "sub/scene.zip")
    content["data"]["aoi"] = "../aoi.geojson"
    Path("sub/study.yaml").write_text(yaml.safe_dump(content))
    Path("scene.zip").rename("other.zip")  # names in a file are relative to that file
    words = ("--config", "sub/study.yaml", "--elevation", "/vsizip/other.zip/in/dsm.tif")
    done(run_cli("inspect", *words, "--ground", "zip://other.zip!in/dtm.tif"))
    done(run_cli("train", *words, "--out", "run"))
    predict = ("predict", "zip://other.zip!in/optical.tif", "--elevation", "/vsigzip/dsm.tif.gz", "--out", "map.tif")
    predict += ("--layer", "confidence")
    done(run_cli(*predict, "--model", "bundle.safetensors", "--ground", "/vsizip/other.zip/in/dtm.tif"))
    with zipfile.ZipFile("maps.zip", "w") as archive:
        archive.write("map.tif")
        archive.write("map.layers.tif")
    words = ("evaluate", "/vsizip/maps.zip/map.tif", "--labels", "/vsizip/other.zip/in/labels.tif")
    refused(run_cli(*words), "results cannot be written beside this map. Name a folder with --out.")
    done(run_cli(*words, "--out", "scores"))
    assert {p.name for p in Path("scores").iterdir()} == {"map.scores.json", "map.scores.png", "map.reliability.png"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        case(ARCHIVE, "refused", "/vsizip/none.zip/a.tif", "none.zip does not exist", id="no archive"),
        case(ARCHIVE, "refused", "/vsizip/scene.zip/a.tif", "scene.zip, found the files in/optical.tif",
             id="no file in it"),
        case(ARCHIVE, "refused", "zip://scene.zip!a.tif", "expected the file a.tif in ", id="no file of a URL"),
        case(ARCHIVE, "refused", "/vsitar/scene.tar.gz/a.tif", "expected the file a.tif in ", id="tar"),
        case(ARCHIVE, "refused", "/vsizip/scene.zip", "expected the name of a file in ", id="no name in it"),
        case(ARCHIVE, "refused", "/vsizip/dsm.tif/a.tif", "dsm.tif is not a readable zip archive", id="no zip"),
        case(ARCHIVE, "refused", "/vsigzip/none.tif.gz", "none.tif.gz does not exist", id="no gzip"),
    ],
)  # fmt: skip
def test_what_an_archive_does_not_hold(run_cli, packed, name, told):
    words = ("--model", "bundle.safetensors", "--modality", "optical", "--out", "map.tif")
    refused(run_cli("predict", name, *words), told)
    refused(run_cli("train", "--labels", name, "--out", "run"), told)
    refused(run_cli("evaluate", "optical.tif", "--labels", name), told)


@marked(ARCHIVE, "refused")
def test_a_map_is_not_written_into_an_archive(run_cli, packed):
    refused(run_cli("predict", "/vsizip/scene.zip/in/optical.tif", "--model", "bundle.safetensors"), "--out")
    words = ("predict", "/vsizip/scene.zip/in/optical.tif", "--model", "bundle.safetensors", "--out", "scene.zip")
    code, _, err = run_cli(*words, "--modality", "optical", "--overwrite")
    assert code == 2, err
    assert zipfile.is_zipfile("scene.zip")


@marked(ARCHIVE, "right")
def test_a_list_of_files_in_archives(packed):
    from geocrodino.geo.rasters.scene import open_scene

    (packed / "sub").mkdir()
    shutil.move("scene.zip", "sub/scene.zip")
    Path("sub/scene.txt").write_text("zip://scene.zip!in/optical.tif\n")
    assert open_scene("sub/scene.txt").count == 3
    Path("sub/scene.txt").write_text("/vsizip/none.zip/in/optical.tif\n")
    with pytest.raises(RasterError, match=r"1 of its files is not there \(line 1: /vsizip/"):
        open_scene("sub/scene.txt")
