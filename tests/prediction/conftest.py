"""Small networks that several tests predict with; not to be changed."""

import pytest
from helpers.small_scenes import PixelByPixel, make_bundle

from geocrodino.bundle.io import Bundle
from geocrodino.prediction.backends.open import open_backend

_networks = {}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("b") / "random.safetensors")


@pytest.fixture(scope="session")
def constant(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("b") / "constant.safetensors", constant=1)


@pytest.fixture
def kept_networks(monkeypatch):
    """Build each network once: half of the time of a small prediction."""
    branch = Bundle.branch

    def kept(make, bundle, modality, **options):
        key = (make.__name__, bundle.sha256, modality, *sorted(options.items()))
        if key not in _networks:
            _networks[key] = make(bundle, modality, **options)
        return _networks[key]

    monkeypatch.setattr(Bundle, "branch", lambda *asked: kept(branch, *asked))
    monkeypatch.setattr(
        "geocrodino.prediction.job.open_backend", lambda *asked, **options: kept(open_backend, *asked, **options)
    )


@pytest.fixture
def by_pixel(kept_networks, monkeypatch):
    """Let `PixelByPixel` compute in place of networks; gives the list of the tiles that it was asked for."""
    calls = []
    monkeypatch.setattr(
        "geocrodino.prediction.job.open_backend",
        lambda *_, temperature, precision, **__: PixelByPixel(calls, temperature, precision),
    )
    return calls
