"""Work that was stopped goes on where it was."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from importlib.metadata import version

import numpy as np
import pytest
from helpers.small_scenes import (
    PixelByPixel,
    brightest,
    classes_of,
    grouped,
    heights,
    image,
    make_bundle,
    names_in,
    write_raster,
)

from geocrodino.bundle.manifest import Calibration
from geocrodino.errors import OutputError, RasterError
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.prediction.engine import predict
from geocrodino.settings.prediction import Execution, Outputs, Tiling

SHAPE = (90, 130)
BLOCKS = 15  # of 32 px
KEPT = "{} of {} blocks are finished and kept: go on with `resume=True`."


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "s.tif", image(*SHAPE))


def run(scene, bundle, name="m.tif", **options):
    options = {"block_px": 32, "core_px": 32, "workers": 1, **options}
    return predict(scene, scene.with_name(name), bundle, "optical", **grouped(**options))


def stop_after(blocks, error=KeyboardInterrupt):
    def on_progress(finished, _):
        if finished == blocks:
            raise error

    return on_progress


def stopped(scene, bundle, blocks, **options):
    with pytest.raises(KeyboardInterrupt) as raised:
        run(scene, bundle, on_progress=stop_after(blocks), **options)
    return raised.value.__notes__


def parts_in(folder):
    return sorted(path.name for path in (folder / ".m.tif.part" / "0").iterdir())


def test_a_map_that_was_stopped_and_resumed_has_the_same_bytes(bundle, kept_networks, scene, tmp_path):
    options = {"backend": "torch", "layers": ["confidence"]}
    run(scene, bundle, "whole.tif", **options)
    assert stopped(scene, bundle, 4, **options) == [KEPT.format(4, BLOCKS)]
    assert names_in(tmp_path)[:2] == [".m.tif.lock", ".m.tif.part"]
    assert not (tmp_path / "m.tif").exists()
    again = stopped(scene, bundle, 9, resume=True, **options)
    assert again == [KEPT.format(9, BLOCKS)]
    summary = run(scene, bundle, resume=True, **{**options, "workers": 3})
    assert summary.resumed == 9
    for ending in ("tif", "layers.tif", "tif.aux.xml"):
        assert (tmp_path / f"m.{ending}").read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]
    assert len(np.unique(classes_of(tmp_path / "m.tif"))) == 3


def test_counts_are_those_of_all_blocks(bundle, by_pixel, tmp_path):
    values = image(*SHAPE)
    values[:, :20] = 0
    scene = write_raster(tmp_path / "s.tif", values, nodata=0)
    stopped(scene, bundle, 7)
    summary = run(scene, bundle, resume=True)
    expected = brightest(values)
    expected[:20] = 255
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), expected)
    assert summary.pixels == {
        name: int((expected == value).sum()) for name, value in (("water", 0), ("grass", 2), ("roof", 5))
    }
    assert summary.nodata_share == 20 / 90


def test_finished_blocks_are_not_computed_again(bundle, by_pixel, scene):
    stopped(scene, bundle, 6)
    first, steps = len(by_pixel), []
    assert first == 6
    run(scene, bundle, resume=True, on_progress=lambda *step: steps.append(step))
    assert len(by_pixel) - first == BLOCKS - 6
    assert steps == [(done, BLOCKS) for done in range(7, BLOCKS + 1)]


def test_a_network_that_fails_in_the_middle(bundle, by_pixel, scene, tmp_path, monkeypatch):
    def opened(*_, temperature, **__):
        plain = PixelByPixel(by_pixel, temperature)

        def classes(values):
            if len(by_pixel) == 5:
                raise MemoryError("no more")
            return PixelByPixel.classes(plain, values)

        plain.classes = classes
        return plain

    with monkeypatch.context() as patched:
        patched.setattr("geocrodino.prediction.job.open_backend", opened)
        with pytest.raises(MemoryError, match="no more") as error:
            run(scene, bundle)
    assert error.value.__notes__ == [KEPT.format(5, BLOCKS)]
    assert run(scene, bundle, resume=True).resumed == 5
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), brightest(image(*SHAPE)))


def test_a_scene_that_breaks_in_the_middle(bundle, by_pixel, tmp_path, monkeypatch):
    # The check of values would find the damage first.
    monkeypatch.setattr("geocrodino.prediction.draft.unusual_values", lambda *_: ())
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": "pixel"}
    whole = write_raster(tmp_path / "s.tif", image(256, 64), **tiles)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(RasterError, match="damaged or cut short") as error:
        run(whole, bundle)
    # Rows 0 to 159 can be read, and a block needs 56 more than its own.
    assert error.value.__notes__ == [KEPT.format(6, 16)]
    # The file that is mended is another one: nothing that was made of the broken one is used.
    whole.write_bytes(content)
    with pytest.raises(OutputError, match=r"the work that was stopped was another one\. optical: it has changed"):
        run(whole, bundle, resume=True)
    assert run(whole, bundle).resumed == 0


def test_stopped_before_the_first_block_nothing_is_kept(bundle, by_pixel, scene, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("geocrodino.prediction.engine.run_threads", fail)
    with pytest.raises(KeyboardInterrupt) as error:
        run(scene, bundle)
    assert not hasattr(error.value, "__notes__")
    assert names_in(tmp_path) == ["s.tif"]


def test_stopped_after_the_last_block(bundle, by_pixel, scene, tmp_path):
    stopped(scene, bundle, BLOCKS)
    computed = len(by_pixel)
    assert run(scene, bundle, resume=True).resumed == BLOCKS
    assert len(by_pixel) == computed
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), brightest(image(*SHAPE)))


def test_without_resume_all_is_computed_again(bundle, by_pixel, scene):
    stopped(scene, bundle, 6)
    by_pixel.clear()
    assert run(scene, bundle).resumed == 0
    assert len(by_pixel) == BLOCKS


def test_nothing_to_go_on_with(bundle, by_pixel, scene, tmp_path):
    with pytest.raises(OutputError) as error:
        run(scene, bundle, resume=True)
    assert str(error.value) == (
        f"{tmp_path / 'm.tif'}: there is no work to go on with. Expected the folder .m.tif.part of a run that was "
        "stopped, found none.\nRun without `resume`."
    )
    run(scene, bundle)
    with pytest.raises(OutputError, match=r"m\.tif: the file exists"):
        run(scene, bundle, resume=True)


CHANGED = "{}: it has changed since, or the size, time of change or place of its files."


def refusal(scene, bundle, **options):
    before = parts_in(scene.parent)
    with pytest.raises(OutputError) as error:
        run(scene, bundle, resume=True, **options)
    assert parts_in(scene.parent) == before
    first, way_out = str(error.value).splitlines()
    assert way_out == "Give it as it was then, or start anew without `resume`."
    start = f"{scene.with_name('m.tif')}: the work that was stopped was another one. "
    assert first.startswith(start)
    return first.removeprefix(start)


def test_another_setting_is_refused_and_the_old_one_goes_on(bundle, by_pixel, scene, tmp_path):
    stopped(scene, bundle, 6)
    assert refusal(scene, bundle, block_px=64) == "block: expected 32 px, found 64 px."
    assert refusal(scene, bundle, core_px=64) == (
        "tiles: expected 32 px, margin 56 px, ramp 0 px, found 64 px, margin 56 px, ramp 0 px."
    )
    assert refusal(scene, bundle, stitch="blend") == (
        "tiles: expected 32 px, margin 56 px, ramp 0 px, found 32 px, margin 64 px, ramp 16 px."
    )
    assert refusal(scene, bundle, layers=["entropy", "confidence"]) == (
        "layers: expected none, found entropy, confidence."
    )
    computed = f"torch {version('torch')} on cpu in "
    assert refusal(scene, bundle, precision="half") == (
        f"backend: expected {computed}float32, found {computed}bfloat16."
    )
    area = read_aoi("500010,3999950,500040,3999990", "EPSG:32610")
    assert re.fullmatch("area: expected all, found [0-9a-f]{64}.", refusal(scene, bundle, aoi=area))
    assert run(scene, bundle, resume=True, workers=4).resumed == 6


def test_another_bundle_is_refused(bundle, constant, by_pixel, scene):
    stopped(scene, bundle, 3)
    assert refusal(scene, constant) == CHANGED.format("bundle")


def test_the_same_networks_with_another_calibration_are_another_bundle(bundle, by_pixel, scene, tmp_path):
    even = {"optical": 0.5, "elevation": 0.5}
    other = make_bundle(tmp_path / "b", calibration=Calibration(temperature=even, weight=even))
    stopped(scene, bundle, 3)
    assert refusal(scene, other) == CHANGED.format("bundle")


@pytest.mark.parametrize("how", ["touched", "replaced"])
def test_another_scene_is_refused(bundle, by_pixel, scene, how):
    stopped(scene, bundle, 3)
    if how == "touched":
        os.utime(scene, ns=(1, 1))
    else:
        write_raster(scene, image(*SHAPE, seed=5))
    assert refusal(scene, bundle) == CHANGED.format("optical")


def test_another_modality_is_refused(bundle, by_pixel, tmp_path):
    scene = write_raster(tmp_path / "s.tif", image(*SHAPE))
    dsm = write_raster(tmp_path / "d.tif", heights(*SHAPE))
    stopped(scene, bundle, 3)
    with pytest.raises(OutputError, match=r"another one\. elevation: expected none, found [0-9a-f]{64}\."):
        predict(
            scene,
            tmp_path / "m.tif",
            bundle,
            elevation=dsm,
            tiling=Tiling(block_px=32, core_px=32),
            execution=Execution(workers=1),
            outputs=Outputs(resume=True),
        )


def test_a_process_that_is_killed_loses_no_finished_block(bundle, kept_networks, scene, tmp_path):
    code = f"""
        import os, signal
        from geocrodino.prediction.engine import predict
        from geocrodino.settings.prediction import Execution, Tiling
        def stop(finished, total):
            if finished == 5:
                os.kill(os.getpid(), signal.SIGKILL)
        predict({str(scene)!r}, {str(tmp_path / "m.tif")!r}, {str(bundle.path)!r}, "optical",
            tiling=Tiling(block_px=32, core_px=32), execution=Execution(workers=1, backend="torch"), on_progress=stop)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "m.tif").exists()
    assert run(scene, bundle, resume=True, backend="torch").resumed == 5
    run(scene, bundle, "whole.tif", backend="torch")
    assert (tmp_path / "m.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
