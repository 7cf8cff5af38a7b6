"""The threads that PyTorch computes with."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, current_thread, get_ident

import numpy as np
import pytest
import torch
from helpers.random_branches import make_bundle, random_branch

from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.threads import on_gpu_thread, one_thread_per_network
from geocrodino.prediction.backends.torch import TorchBackend
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


def test_calls_of_several_threads_are_made_on_one_that_stays():
    def tell(number, *, times):
        return number * times, current_thread()

    together, numbers = Barrier(4), on_gpu_thread(tell, "cuda:0")

    def call(number):
        together.wait(10)
        return numbers(number, times=10), get_ident()

    made, callers = [], set()
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            for answer, caller in pool.map(call, range(4)):
                made.append(answer)
                callers.add(caller)
    assert [number for number, _ in made] == [0, 10, 20, 30] * 2
    (thread,) = {thread for _, thread in made}
    assert thread.is_alive()
    assert thread.ident not in callers


def test_what_goes_wrong_on_the_thread_is_raised_where_it_was_called():
    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        on_gpu_thread(fail, "cuda:0")()
    assert on_gpu_thread(lambda: 1, "cuda:0")() == 1


def test_each_gpu_has_its_own_thread():
    first, other, again = (on_gpu_thread(current_thread, name)() for name in ("cuda:0", "cuda:1", "cuda:0"))
    assert first is again
    assert first is not other


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_on_a_gpu_is_called_on_its_thread(batch, monkeypatch):
    """Without a GPU: what goes to the device is replaced."""
    monkeypatch.setattr(TorchBackend, "_softmax", lambda self, tiles: torch.full((1, 2, 3, 3), get_ident()))
    monkeypatch.setattr("geocrodino.prediction.backends.torch._to_host", lambda found: found)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    backend = TorchBackend(torch.nn.Identity(), device=torch.device("cuda:0"), batch=batch)
    tile = np.zeros((3, 3, 3), np.float32)
    assert (backend(tile) == on_gpu_thread(get_ident, "cuda:0")()).all()
    own = TorchBackend(torch.nn.Identity(), device=torch.device("cpu"), batch=batch)
    assert (own(tile) == get_ident()).all()
