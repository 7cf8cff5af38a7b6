"""What must hold on a GPU; skipped without one. `benchmarks/gpu.py` runs this file first."""

from __future__ import annotations

from dataclasses import replace
from threading import current_thread

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file

from geocrodino import predict
from geocrodino.bundle.io import load_bundle
from geocrodino.data.augmentation import PairAugmentation
from geocrodino.prediction.backends.torch import TorchBackend
from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings
from geocrodino.settings.prediction import Execution, Outputs, Tiling
from geocrodino.training.assembly import parts_of
from geocrodino.training.listener import Listener
from geocrodino.training.prepare import prepare
from geocrodino.training.run import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

ON_GPU = {"training.accelerator": "gpu"}


@pytest.fixture(scope="module")
def trained_on_gpu(tiny_config, tmp_path_factory):
    """The folder of a run on the GPU, in the number format that is chosen there."""
    out = tmp_path_factory.mktemp("gpu") / "run"
    train(tiny_config({**ON_GPU, "training.precision": "auto"}), out)
    return out


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_a_training_ends_in_a_bundle_of_finite_float32_weights(trained_on_gpu):
    bundle = load_bundle(trained_on_gpu / "bundle.safetensors")
    for modality in ("optical", "elevation"):
        weights = bundle.branch(modality).state_dict()
        assert all(torch.isfinite(w).all() for w in weights.values())
        assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("method", ["single", "mutual", "crodino", "discom", "dropout", "fusion", "kd", "protokd"])
def test_every_method_trains(tiny_config, tmp_path, method):
    result = train(tiny_config({**ON_GPU, "method.name": method}), tmp_path / "run")
    assert result.epochs == 2
    assert all(0 <= score <= 1 for score in result.val_miou.values())


@pytest.mark.parametrize("contrast", ["class", "pixel", "image"])
def test_every_contrast_trains(tiny_config, tmp_path, contrast):
    changes = {**ON_GPU, "method.name": "crodino", "method.contrast": contrast, "training.precision": "bf16-mixed"}
    assert train(tiny_config(changes), tmp_path / "run").epochs == 2


def test_an_interrupted_training_resumes(tiny_config, tmp_path):
    class Stop(Exception):
        pass

    class StopAfterOneEpoch(pytest.importorskip("lightning").Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise Stop

    config = tiny_config(ON_GPU)
    with pytest.raises(Stop):
        train(config, tmp_path / "run", callbacks=[StopAfterOneEpoch()])
    assert train(config, tmp_path / "run", resume=True).epochs == 2


def test_batch_norm_statistics_can_be_measured_on_the_gpu(tiny_config, tmp_path):
    assert train(tiny_config({**ON_GPU, "training.batch_norm_batches": 2}), tmp_path / "run").epochs == 2


def test_patches_cut_on_the_gpu_are_those_read_from_files(tiny_config, tmp_path):
    config, found = tiny_config({**ON_GPU, "training.layers": "device"}), {}
    ready = prepare(config, tmp_path)
    for place, own in (("device", ready), ("disk", replace(ready, on_device=None))):
        _, data = parts_of(config, config.method, own, Listener())
        found[place] = next(iter(data.whole_train_dataloader()))
    assert list(found["device"]) == list(found["disk"])
    for name, values in found["disk"].items():
        assert found["device"][name].is_cuda
        assert torch.equal(found["device"][name].cpu(), values)


def test_layers_are_kept_on_the_gpu_by_themselves(tiny_config, tmp_path):
    told = []
    assert train(tiny_config(ON_GPU), tmp_path / "run", tell=told.append).epochs == 2
    assert sum(line.startswith("Patches: cut from layers in memory, ") for line in told) == 1


@pytest.mark.parametrize(("modality", "scene"), [("optical", "optical"), ("elevation", "elevation")])
@pytest.mark.parametrize(("precision", "share"), [("full", 0.999), ("half", 0.995)])
def test_a_map_agrees_with_that_of_the_processor(trained_on_gpu, town, tmp_path, modality, scene, precision, share):
    bundle, raster = trained_on_gpu / "bundle.safetensors", getattr(town, scene)
    predict(raster, tmp_path / "cpu.tif", bundle, modality, execution=Execution(backend="torch", precision="full"))
    predict(raster, tmp_path / "gpu.tif", bundle, modality, execution=Execution(device="cuda", precision=precision))
    expected, found = read(tmp_path / "cpu.tif"), read(tmp_path / "gpu.tif")
    assert np.array_equal(expected == 255, found == 255)
    assert (expected == found).mean() >= share


def test_the_map_does_not_depend_on_workers_or_blocks(trained_on_gpu, town, tmp_path):
    made = []
    for workers, block_px in ((1, 96), (5, 160)):
        out = tmp_path / f"{workers}.tif"
        predict(
            town.optical,
            out,
            trained_on_gpu / "bundle.safetensors",
            "optical",
            tiling=Tiling(core_px=64, block_px=block_px),
            execution=Execution(device="cuda", batch=4, workers=workers),
        )
        made.append(read(out))
    assert np.array_equal(*made)


def test_one_thread_computes_all_tiles(trained_on_gpu, town, tmp_path, monkeypatch):
    threads, compute = [], TorchBackend._softmax

    def noted(self, tiles):
        threads.append(current_thread())
        return compute(self, tiles)

    monkeypatch.setattr(TorchBackend, "_softmax", noted)
    bundle = trained_on_gpu / "bundle.safetensors"
    for name in ("one.tif", "other.tif"):
        tiling, execution = Tiling(core_px=64, block_px=96), Execution(device="cuda", batch=2, workers=5)
        predict(town.optical, tmp_path / name, bundle, "optical", tiling=tiling, execution=execution)
    assert len(set(threads)) == 1
    assert current_thread() not in threads


def test_probabilities_of_both_modalities(trained_on_gpu, town, tmp_path):
    summary = predict(
        town.optical,
        tmp_path / "both.tif",
        trained_on_gpu / "bundle.safetensors",
        elevation=town.elevation,
        execution=Execution(device="cuda"),
        outputs=Outputs(layers=("confidence",)),
    )
    assert summary.modalities == ("optical", "elevation")
    assert summary.backend.startswith("torch")


def test_augmentation_gives_what_it_gives_on_the_processor():
    torch.manual_seed(0)
    batch = {
        "optical": torch.randn(4, 3, 48, 48),
        "optical_valid": torch.rand(4, 48, 48) > 0.1,
        "labels": torch.randint(0, 5, (4, 48, 48)),
    }
    batch["optical"] *= batch["optical_valid"][:, None]
    # Noise is drawn on the device, so it differs between devices.
    settings = AugmentationSettings(optical=RadiometrySettings(noise_std=0), resample_probability=1.0)
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        augmented = PairAugmentation(settings)({key: value.to(device) for key, value in batch.items()})
        found.append({key: value.cpu() for key, value in augmented.items()})
    cpu, gpu = found
    assert (cpu["optical_valid"] == gpu["optical_valid"]).float().mean() > 0.999
    assert (cpu["optical_labels"] == gpu["optical_labels"]).float().mean() > 0.999
    both = (cpu["optical_valid"] & gpu["optical_valid"])[:, None].expand_as(cpu["optical"])
    assert torch.allclose(cpu["optical"][both], gpu["optical"][both], atol=1e-3)
    assert torch.equal(cpu["optical_transform"], gpu["optical_transform"])


def test_weights_trained_on_a_gpu_load_without_one(trained_on_gpu):
    assert {str(w.device) for w in load_file(trained_on_gpu / "bundle.safetensors").values()} == {"cpu"}
