"""Rasters that do not say where they lie: each is refused with a way out that leads to a raster that can be read."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from geocrodino.errors import MissingCRSError, RasterError
from geocrodino.geo.rasters.reader import RasterSource

UTM31 = "EPSG:32631"
CORNERS = ((0, 0), (0, 10), (10, 0), (10, 10))


def write(path: Path, **located) -> Path:
    with rasterio.open(path, "w", driver="GTiff", count=1, height=10, width=10, dtype="uint8", **located) as target:
        target.write(np.full((1, 10, 10), 7, np.uint8))
    return path


def message(path: Path, error: type[RasterError] = RasterError) -> str:
    with pytest.raises(error) as caught:
        RasterSource.open(path)
    return str(caught.value).removeprefix(f"{path}: ")


def rio(command: str, folder: Path) -> None:
    """Run a command that a message advises, of the program that comes with rasterio."""
    words = shlex.split(command)
    assert words[0] == "rio"
    program = Path(sys.executable).with_name("rio")
    subprocess.run([program, *words[1:]], cwd=folder, check=True, capture_output=True)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("crs", [UTM31, None])
def test_no_geotransform(tmp_path, crs):
    path = write(tmp_path / "plain.tif", crs=crs)
    what = "a geotransform" if crs else "a coordinate reference system and a geotransform"
    option = "" if crs else " --crs EPSG:32631"
    command = f"rio edit-info{option} --transform '[0.5, 0, 400000, 0, -0.5, 5000000]' {path}"
    assert message(path) == (
        f"does not say where it lies. Expected {what} (pixel size and place of the first pixel), found none.\n"
        f"Write the right one into it, for instance: {command}\n"
        "If only its pixel size is known, state that in metres, for instance: `pixel_m=0.5`"
    )
    rio(command, Path.cwd())
    source = RasterSource.open(path)
    assert source.geobox.affine == Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
    assert source.geobox.crs == UTM31


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_alone(tmp_path):
    points = [GroundControlPoint(r, c, 400_000 + c, 5_000_000 - r) for r, c in CORNERS]
    path = write(tmp_path / "points.tif", gcps=points, crs=UTM31)
    assert message(path) == (
        "is located by 4 ground control points alone. Expected a geotransform: pixels of one size on straight lines.\n"
        f"Warp it onto such a grid first: gdalwarp {path} warped.tif"
    )
    with rasterio.open(path) as dataset, WarpedVRT(dataset) as warped:  # what gdalwarp does
        rasterio.shutil.copy(warped, tmp_path / "warped.tif", driver="GTiff")
    found = RasterSource.open(tmp_path / "warped.tif")
    assert found.geobox.boundingbox.bbox == pytest.approx((400_000, 4_999_990, 400_010, 5_000_000), abs=0.5)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rational_polynomials_alone(tmp_path):
    path = write(tmp_path / "rpc.tif")
    one = [1.0] + [0.0] * 19
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = RPC(
            height_off=100, height_scale=100, lat_off=45, lat_scale=0.1, long_off=3, long_scale=0.1, line_off=5,
            line_scale=5, samp_off=5, samp_scale=5, line_num_coeff=[0, 0, -1] + [0] * 17, line_den_coeff=one,
            samp_num_coeff=[0, 1] + [0] * 18, samp_den_coeff=one, err_bias=0, err_rand=0,
        )  # fmt: skip
    assert message(path) == (
        "is located by rational polynomial coefficients (RPC) alone. Expected a geotransform: pixels of one size on "
        "straight lines.\nWarp it onto such a grid first, with a terrain model where there is one: gdalwarp -rpc -to "
        f"RPC_DEM=dem.tif -t_srs EPSG:32631 {path} warped.tif"
    )


def test_without_crs(write_raster):
    path = write_raster("a.tif", np.ones((4, 5), np.uint8), crs=None)
    found = message(path, MissingCRSError)
    assert found == (
        "no coordinate reference system. Expected one in the file, found none.\n"
        f"Write the right one into it, for instance: rio edit-info --crs EPSG:32631 {path}\n"
        "Or state it, for instance: `crs='EPSG:32631'`"
    )
    rio(re.search("rio .*", found).group(), path.parent)
    assert RasterSource.open(path).geobox.crs == UTM31


def test_a_world_file_is_a_place(tmp_path):
    path = write(tmp_path / "world.tif", crs=UTM31)
    path.with_suffix(".tfw").write_text("0.5\n0\n0\n-0.5\n400000.25\n4999999.75\n")
    assert RasterSource.open(path).geobox.affine == Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
