"""Milliseconds to augment a batch, and the share of a training step; beside Kornia's own container.

    python benchmarks/augmentation.py [--device cuda] [--repeats 20] [--steps 12]

Rows: the default augmentation of both modalities, its geometry alone, and `AugmentationSequential` with the same
operations under Kornia's own names, image and labels of both modalities. Then: what share of the pixels that come from
outside the patch the container labels as class 0, how far its quarter turn changes values of standard deviation 1, and
what a hole of 0 does to the values beside it in a rotation. Rows take turns, so that
their ratios hold on a busy machine. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings

Work = Callable[[dict[str, Tensor]], object]
SIZES = ((8, 128), (32, 256))
STILL = RadiometrySettings(
    gain=0, offset_std=0, band_gain=0, band_offset_std=0, curve=0, noise_std=0, blur_sigma_px=0, blur_probability=0
)


def make_batch(count: int, side: int, device: str) -> dict[str, Tensor]:
    """Random patches of three channels for each modality, a hundredth of the pixels invalid."""
    torch.manual_seed(0)
    batch: dict[str, Tensor] = {"labels": torch.randint(0, 6, (count, side, side))}
    for modality in ("optical", "elevation"):
        valid = torch.rand(count, side, side) > 0.01
        batch[modality] = torch.randn(count, 3, side, side) * valid[:, None]
        batch[f"{modality}_valid"] = valid
    return {key: value.to(device) for key, value in batch.items()}


def container() -> dict[str, nn.Module]:
    """The default operations in Kornia's container, those without an equal there by the nearest one."""
    geometry = [
        lambda: K.RandomHorizontalFlip(p=0.5),
        lambda: K.RandomRotation90(times=(0, 3), p=1.0),
        lambda: K.RandomAffine(degrees=20.0, scale=(0.8, 1.25), p=0.5),
    ]
    optical = [
        K.RandomGaussianBlur((7, 7), (0.1, 1.0), p=0.2),
        K.RandomContrast((0.8, 1.2), clip_output=False, p=1.0),
        K.RandomBrightness((0.8, 1.2), clip_output=False, p=1.0),
        K.RandomGaussianNoise(std=0.025, p=1.0),
    ]
    elevation = [
        K.RandomContrast((0.95, 1.05), clip_output=False, p=1.0),
        K.RandomBrightness((0.95, 1.05), clip_output=False, p=1.0),
        K.RandomGaussianNoise(std=0.01, p=1.0),
    ]
    return {
        name: K.AugmentationSequential(*(make() for make in geometry), *values, data_keys=["input", "mask"])
        for name, values in (("optical", optical), ("elevation", elevation))
    }


def milliseconds(rows: Mapping[str, Work], batch: dict[str, Tensor], device: str, repeats: int) -> dict[str, float]:
    """Median time of a call of each row, after one that does not count; the rows take turns."""
    spent: dict[str, list[float]] = {name: [] for name in rows}
    for index in range(repeats + 1):
        for name, work in rows.items():
            torch.manual_seed(index)
            wait(device)
            started = time.perf_counter()
            work(batch)
            wait(device)
            if index:
                spent[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in spent.items()}


class ImageOperations(TorchDispatchMode):
    """Counts operations whose result is as large as a layer of a batch, without views: each is a kernel of a GPU."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers, self.count = numbers, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        results = found if isinstance(found, tuple | list) else [found]
        large = any(isinstance(r, Tensor) and r.numel() >= self.numbers for r in results)
        self.count += large and not view
        return found


def wait(device: str) -> None:
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def faults(device: str) -> tuple[float, float, float]:
    """What the container does at the border, in quarter turns and beside holes.

    Returns:
        Share of pixels from outside that are labelled as class 0; largest change of a value by a quarter turn, and of
        a constant 1 beside a hole of 0 by a rotation, among pixels that more than half of the weight makes valid.
    """
    torch.manual_seed(0)
    labels = torch.randint(1, 7, (64, 1, 64, 64)).float().to(device)
    ones = torch.ones(64, 1, 64, 64, device=device)
    free = K.AugmentationSequential(K.RandomAffine(degrees=20.0, p=1.0), data_keys=["input", "mask"])
    seen, moved = free(ones, labels)
    image = torch.randn(64, 3, 64, 64, device=device)
    turn = K.AugmentationSequential(K.RandomRotation90(times=(1, 1), p=1.0), data_keys=["input"])
    ones[..., 20:40, 20:40] = 0
    beside = free(ones, labels)[0]
    return (
        float((moved[seen < 0.01] == 0).float().mean()),
        float((turn(image) - image.rot90(1, (-2, -1))).abs().max()),
        float((1 - beside[beside > 0.5]).max()),
    )


def share_of_step(steps: int, device: str) -> float:
    """Share of the training steps of the second epoch that the augmentation takes, patches of 128 px, batches of 8."""
    from geocrodino import load_config, train
    from geocrodino.town import SceneSettings, write_scene

    spent, stepped, ended = [], [], [0.0]
    plain = PairAugmentation.forward

    def timed(self: Any, batch: Any) -> Any:
        wait(device)
        started = time.perf_counter()
        found = plain(self, batch)
        wait(device)
        spent.append(time.perf_counter() - started)
        return found

    class Clock(L.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            ended[0] = 0.0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            wait(device)
            if ended[0] and trainer.current_epoch:
                stepped.append(time.perf_counter() - ended[0])
            ended[0] = time.perf_counter()

    PairAugmentation.forward = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as name:
            town = write_scene(Path(name) / "town", SceneSettings(size_m=256))
            changes = {"training.epochs": 2, "training.steps_per_epoch": steps, "training.patch_px": 128}
            changes["training.accelerator"] = "gpu" if device == "cuda" else "cpu"
            train(load_config(town.config, changes), Path(name) / "run", callbacks=[Clock()])
    finally:
        PairAugmentation.forward = plain  # type: ignore[method-assign]
    return statistics.median(spent[len(spent) // 2 :]) / statistics.median(stepped)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12, help="training steps of an epoch; 0 trains nothing")
    options = parser.parse_args()
    default = PairAugmentation(AugmentationSettings())
    geometry = PairAugmentation(AugmentationSettings(optical=STILL, elevation=STILL))
    sequential = container()

    def kornia(batch: dict[str, Tensor]) -> None:
        for name, augment in sequential.items():
            augment(batch[name], batch["labels"][:, None].float())

    rows: dict[str, Work] = {
        "geocrodino, default": default,
        "geocrodino, geometry alone": geometry,
        "AugmentationSequential": kornia,
    }
    batches = [make_batch(count, side, options.device) for count, side in SIZES]
    found = [milliseconds(rows, batch, options.device, options.repeats) for batch in batches]
    print("| ms a batch | " + " | ".join(f"{n} x 3 x {s} x {s}" for n, s in SIZES) + " | operations, larger batch |")
    print("|---|" + "---|" * (len(SIZES) + 1))
    for name, work in rows.items():
        # An image of the batch or more: what is drawn for it is smaller.
        with ImageOperations(SIZES[-1][1] ** 2) as operations:
            work(batches[-1])
        print(f"| {name} | " + " | ".join(f"{times[name]:.1f}" for times in found) + f" | {operations.count} |")
    outside, turned, bled = faults(options.device)
    print(
        f"\nAugmentationSequential: {100 * outside:.0f} % of the pixels from outside are class 0; a quarter turn "
        f"changes values by up to {turned:.0e}; beside a hole, a constant 1 becomes as little as {1 - bled:.2f}."
    )
    if options.steps:
        print(f"Share of a training step: {100 * share_of_step(options.steps, options.device):.1f} %")


if __name__ == "__main__":
    main()
