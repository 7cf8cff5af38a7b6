"""A small network with random weights, and its bundle."""

import numpy as np
import torch
from torch import nn

from geocrodino.bundle.io import load_bundle, save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.models.branch import build_branch
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.network import NetworkSettings

NETWORK = NetworkSettings(encoder="tu-resnet10t", decoder="fpn", depth=3, invariant_channels=8, decoder_channels=(16,))
CLASSES = 3


def random_branch(settings=NETWORK, channels=3, seed=0):
    """A branch as after a training: normalisation with statistics of its own, logits of a few units."""
    torch.manual_seed(seed)
    branch = build_branch(settings, channels, CLASSES).eval().requires_grad_(False)
    for module in branch.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                values.uniform_(-0.2, 0.2)
            for values in (module.running_var, module.weight):
                values.uniform_(0.5, 1.5)
    classifier = branch.decoder.classifier[-1] if settings.decoder == "fpn" else branch.decoder.classifier
    spread = branch(torch.from_numpy(tile(64, 64, channels))[None]).std()
    classifier.weight.mul_(2 / spread)
    classifier.bias.mul_(2 / spread)
    return branch


def make_bundle(path, branch):
    recipe = Recipe(modality="optical", bands=(1, 2, 3), band_names=("red", "green", "blue"))
    channels = tuple(Channel(name=n, unit="1", low=0, high=255, mean=128, std=60) for n in recipe.band_names)
    manifest = Manifest(
        name="test-model",
        classes=ClassScheme.from_values(range(CLASSES)),
        network=branch.settings,
        modalities={"optical": ModalitySpec(recipe=recipe, channels=channels)},
        resolution_m=1.0,
        crs="EPSG:32610",
        footprint={"type": "Point", "coordinates": [0, 0]},
        receptive_field_px=None,
    )
    save_bundle(path, manifest, {"optical": branch})
    return load_bundle(path)


def tile(height=64, width=96, channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((channels, height, width), np.float32)
