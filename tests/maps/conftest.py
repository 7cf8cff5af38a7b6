"""A bundle of random networks."""

import pytest
from helpers.small_scenes import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("b") / "random.safetensors")
