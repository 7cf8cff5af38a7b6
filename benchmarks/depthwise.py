"""Measure depthwise convolutions in float32 and bfloat16 on one thread of the CPU, in training.

    python benchmarks/depthwise.py

Shapes are those of EfficientNet-Lite0 with 8 patches of 128 px. Each time is the median of several rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

LAYERS = (
    (32, 64, 3, 1),
    (96, 64, 3, 2),
    (144, 32, 3, 1),
    (144, 32, 5, 2),
    (240, 16, 5, 1),
    (480, 8, 3, 1),
    (672, 8, 5, 1),
)
"""Channels, side in px, side of the kernel in px, stride."""

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def times(channels: int, side: int, kernel: int, stride: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """Measure a layer once.

    Args:
        channels: Number of channels.
        side: Height and width of its input, px.
        kernel: Height and width of its kernel, px.
        stride: Its stride, px.
        dtype: Number format.

    Returns:
        Milliseconds of its output, of the gradient of its input and of the gradient of its weights.
    """
    image = torch.randn(8, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel, dtype=dtype)
    started = time.perf_counter()
    gradient = torch.ones_like(F.conv2d(image, weight, None, stride, kernel // 2, 1, channels))
    found = [time.perf_counter() - started]
    for wanted in ([True, False, False], [False, True, False]):
        started = time.perf_counter()
        torch.ops.aten.convolution_backward(
            gradient, image, weight, None, [stride] * 2, [kernel // 2] * 2, [1, 1], False, [0, 0], channels, wanted
        )
        found.append(time.perf_counter() - started)
    return 1e3 * found[0], 1e3 * found[1], 1e3 * found[2]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    names = ("output", "gradient of the input", "gradient of the weights")
    print("| channels, side, kernel, stride | " + " | ".join(f"{n}, float32 / bfloat16 ms" for n in names) + " |")
    print("|---|---|---|---|")
    for layer in LAYERS:
        found = {name: [times(*layer, dtype) for _ in range(rounds)] for name, dtype in FORMATS.items()}
        middle = {name: [statistics.median(part) for part in zip(*rows, strict=True)] for name, rows in found.items()}
        cells = (f"{middle['float32'][i]:.1f} / {middle['bfloat16'][i]:.1f}" for i in range(len(names)))
        print(f"| {', '.join(map(str, layer))} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
