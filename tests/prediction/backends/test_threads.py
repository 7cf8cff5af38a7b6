"""The number of threads that PyTorch computes with."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.random_branches import make_bundle, random_branch

from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.threads import one_thread_per_network
from geocrodino.prediction.backends.trimming import Trimmed


def test_torch_gets_its_threads_back_from_the_last_of_several():
    def threads():
        with ThreadPoolExecutor(1) as other:
            return torch.get_num_threads(), other.submit(torch.get_num_threads).result()

    torch.set_num_threads(3)
    try:
        first, second = one_thread_per_network(), one_thread_per_network()
        with first:
            assert threads() == (1, 1)
            second.__enter__()
        second.__exit__(None, None, None)
        assert threads() == (3, 3)
        with pytest.raises(RuntimeError, match="boom"), one_thread_per_network():
            raise RuntimeError("boom")
        assert threads() == (3, 3)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_networks_are_opened_with_one_thread(backend, tmp_path, monkeypatch):
    """The number of threads is noted whenever a network computes anything while it is opened."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    bundle, used = make_bundle(tmp_path / "b", random_branch()), set()
    trimmed = Trimmed.forward

    def noted(network, images):
        used.add(torch.get_num_threads())
        return trimmed(network, images)

    monkeypatch.setattr(Trimmed, "forward", noted)
    torch.set_num_threads(3)
    try:
        open_backend(bundle, "optical", name=backend, unused_px=32, cache=tmp_path)
        assert (used, torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(1)
