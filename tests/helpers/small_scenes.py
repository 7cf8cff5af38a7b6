"""Small scenes and small networks, real ones and one that can be followed by hand."""

from dataclasses import fields

import numpy as np
import rasterio
import torch
from affine import Affine
from scipy.special import softmax

from geocrodino.bundle.io import load_bundle, save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.models.branch import build_branch, receptive_field_radius_px
from geocrodino.prediction.backends.open import open_backend
from geocrodino.settings.classes import ClassScheme, LandClass
from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.prediction import Execution, Inputs, Outputs, Tiling

NETWORK = NetworkSettings(encoder="tu-resnet10t", decoder="fpn", depth=3, invariant_channels=8)
SCHEME = ClassScheme(
    classes=(
        LandClass(value=0, name="water", colour="#0000ff"),
        LandClass(value=2, name="grass", colour="#00ff00"),
        LandClass(value=5, name="roof", colour="#ff0000"),
    )
)
RGB = ("red", "green", "blue")
UTM = Affine(1, 0, 500000, 0, -1, 4000000)


GROUPS = {"inputs": Inputs, "tiling": Tiling, "execution": Execution, "outputs": Outputs}


def grouped(**options):
    """Keyword arguments of `predict` from the names of single options; other arguments stay as they are."""
    for argument, group in GROUPS.items():
        own = {each.name: options.pop(each.name) for each in fields(group) if each.name in options}
        if own:
            options[argument] = group(**own)
    return options


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def write_raster(path, values, *, transform=UTM, crs="EPSG:32610", nodata=None, **options):
    values = values if values.ndim == 3 else values[None]
    profile = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2],
        "dtype": values.dtype, "transform": transform, "crs": crs, "nodata": nodata,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile, **options) as file:
        file.write(values)
    return path


def image(height, width, seed=0):
    coarse = np.random.default_rng(seed).random((3, height // 8 + 2, width // 8 + 2))
    fine = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (1 + 254 * fine).astype(np.uint8)


def heights(height, width, seed=1):
    """Metres, 0 to 25, steps of 8 pixels."""
    return image(height, width, seed)[0].astype(np.float32) / 10


def channel(name, low, high, mean, std):
    return Channel(name=name, unit="m", low=low, high=high, mean=mean, std=std)


def make_specs(bands=RGB, heights=("height",), ground=None):
    optical = Recipe(modality="optical", bands=tuple(range(1, len(bands) + 1)), band_names=bands)
    elevation = Recipe(modality="elevation", channels=heights, ground=ground or GroundFilter())
    return {
        "optical": ModalitySpec(recipe=optical, channels=tuple(channel(n, 0, 255, 128, 60) for n in bands)),
        "elevation": ModalitySpec(recipe=elevation, channels=tuple(channel(n, -5, 60, 10, 5) for n in heights)),
    }


def make_manifest(specs, *, scheme=SCHEME, resolution_m=1.0, receptive_field_px=None, calibration=None):
    return Manifest(
        name="test-model",
        classes=scheme,
        network=NETWORK,
        modalities=specs,
        resolution_m=resolution_m,
        crs="EPSG:32610",
        footprint={"type": "Point", "coordinates": [0, 0]},
        receptive_field_px=receptive_field_px,
        calibration=calibration,
    )


@torch.no_grad()
def mean_logits(net, values):
    return net.eval()(torch.from_numpy(values)[None]).mean(dim=(0, 2, 3))


def make_bundle(path, *, constant=None, scheme=SCHEME, resolution_m=1.0, calibration=None, **specs):
    """A bundle of random networks, or of such that answer with the logits of one class (an index) everywhere.

    ``constant`` is one index for both modalities, or a mapping from modality to index.
    """
    modalities = make_specs(**specs)
    torch.manual_seed(0)
    nets = {m: build_branch(NETWORK, len(s.channels), len(scheme)) for m, s in modalities.items()}
    for modality, net in nets.items():
        last = net.decoder.classifier[-1]
        if constant is None:
            seen = image(64, 64, seed=9)[: net.in_channels]
            last.weight.data *= 2
            last.bias.data -= mean_logits(net, (seen.astype(np.float32) - 128) / 60)
        else:
            index = constant[modality] if isinstance(constant, dict) else constant
            last.weight.data.zero_()
            last.bias.data = torch.nn.functional.one_hot(torch.tensor(index), len(scheme)).float()
    field = receptive_field_radius_px(nets["optical"], len(modalities["optical"].channels))
    manifest = make_manifest(
        modalities, scheme=scheme, resolution_m=resolution_m, receptive_field_px=field, calibration=calibration
    )
    save_bundle(path, manifest, nets)
    return load_bundle(path)


def classes_of(path):
    with rasterio.open(path) as file:
        return file.read(1)


def bands_of(path):
    with rasterio.open(path) as file:
        return file.read()


def decided_in(path):
    """Which modality decided each pixel of a map."""
    return classes_of(path.with_name(f"{path.stem}.decided{path.suffix}"))


def counting(calls):
    """Opens backends that note the shape of each tile they compute."""

    def opened(*args, **options):
        backend = open_backend(*args, **options)

        class Counted:
            name = backend.name
            number = backend.number
            trim_px = backend.trim_px

            def __call__(self, values):
                calls.append(values.shape)
                return backend(values)

            def classes(self, values):
                calls.append(values.shape)
                return backend.classes(values)

        return Counted()

    return opened


class PixelByPixel:
    """Three classes without a network: an image is of the class of its brightest band; heights are water below
    8.75 m, roof above 11.25 m, grass between."""

    name = "torch"
    trim_px = 0

    def __init__(self, calls=None, temperature=1.0, precision="auto"):
        self.calls, self.temperature = [] if calls is None else calls, temperature
        self.number = "bfloat16" if precision == "half" else "float32"

    def __call__(self, values):
        self.calls.append(values.shape)
        scores = values if len(values) == 3 else np.stack([-values[0], np.full_like(values[0], 0.25), values[0]])
        return softmax(scores / np.float32(self.temperature), axis=0)

    def classes(self, values):
        return self(values).argmax(axis=0).astype(np.uint8)


def brightest(values):
    """What `PixelByPixel` makes of an image, as file values of ``SCHEME``."""
    return np.array(SCHEME.values, np.uint8)[values.argmax(axis=0)]
