import copy
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers.random_branches import CLASSES, NETWORK, make_bundle, random_branch, tile
from helpers.rounding import output_rounding, probability_rounding, rounding
from torch import nn

from geocrodino.errors import BackendWarning, BundleError, ConfigError
from geocrodino.prediction.backends import openvino as openvino_backend
from geocrodino.prediction.backends import torch as torch_backend
from geocrodino.prediction.backends.comparison import ASKED_TOLERANCE, check_tile, difference
from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.openvino import OpenVinoBackend
from geocrodino.prediction.backends.torch import TorchBackend, fold_batch_norm
from geocrodino.prediction.backends.trimming import Trimmed
from geocrodino.settings.network import NetworkSettings

CPU = torch.device("cpu")

# Not imported here: how it is imported is tested.
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@torch.inference_mode()
def plain_softmax(network, values):
    return network(torch.from_numpy(values)[None])[0].softmax(0).numpy()


def tolerance(network, values):
    """Largest difference of a probability by rounding; see `rounding`."""
    return probability_rounding(network, torch.from_numpy(values)[None])


def assert_probabilities(found, network, values, inside=np.s_[:]):
    """Those of the network, but for rounding."""
    expected = plain_softmax(network, values)[inside]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(network, values))


def files_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b.safetensors", random_branch())


@pytest.fixture
def no_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.fixture(
    params=[
        "torch",
        pytest.param("openvino", marks=needs_openvino),
        pytest.param("openvino in turns", marks=needs_openvino),
    ]
)
def backend(request, bundle, tmp_path):
    name, _, turns = request.param.partition(" ")
    return open_backend(bundle, "optical", name=name, workers=4, takes_turns=bool(turns), cache=tmp_path)


def test_the_name_tells_what_computes(bundle, tmp_path):
    assert open_backend(bundle, "optical", name="torch").name == "torch"
    best = "torch" if find_spec("openvino") is None else "openvino"
    assert open_backend(bundle, "optical", cache=tmp_path).name == best


def test_torch_gives_the_softmax_of_the_network(bundle):
    found = open_backend(bundle, "optical", name="torch")(tile())
    with torch.inference_mode():
        exact = bundle.branch("optical").double()(torch.from_numpy(tile())[None].double())[0].softmax(0).numpy()
    assert (found.dtype, found.shape) == (np.float32, (CLASSES, 64, 96))
    assert len(np.unique(exact.argmax(0))) == CLASSES
    np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance(bundle.branch("optical"), tile()))


@pytest.mark.parametrize("shape", [(8, 8), (64, 96), (96, 64), (200, 16)])
def test_tiles_of_any_shape(backend, bundle, shape):
    assert_probabilities(backend(tile(*shape)), bundle.branch("optical"), tile(*shape))


def test_one_backend_takes_tiles_of_many_shapes(backend, bundle):
    network = bundle.branch("optical")
    for height, width in ((64, 96), (16, 160), (64, 96), (128, 128), (8, 8)):
        assert_probabilities(backend(tile(height, width)), network, tile(height, width))


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_margins_that_nobody_wants_are_not_computed(bundle, tmp_path, name):
    backend = open_backend(bundle, "optical", name=name, unused_px=52, cache=tmp_path)
    assert backend.trim_px == 32  # the decoder needs 18 px: 34 px are left, of which 32 in whole strides of 8
    inner = backend(tile(160, 200))[:, 20:-20, 20:-20]
    assert_probabilities(inner, bundle.branch("optical"), tile(160, 200), np.s_[:, 52:-52, 52:-52])
    again = open_backend(bundle, "optical", name=name, cache=tmp_path)  # is not taken for the trimmed one
    assert again(tile(160, 200)).shape == (CLASSES, 160, 200)


def test_the_same_bytes_from_one_thread_and_from_four(backend):
    tiles = [tile(64 + 32 * (i % 3), 96, seed=i) for i in range(12)]
    alone = [backend(values).tobytes() for values in tiles]
    with ThreadPoolExecutor(4) as pool:
        assert [found.tobytes() for found in pool.map(backend, tiles)] == alone
    assert len(set(alone)) == 12


@needs_openvino
def test_networks_that_take_turns_give_their_memory_back_after_each_tile(bundle, tmp_path, monkeypatch):
    values = tile(64, 96)
    backend = open_backend(bundle, "optical", name="openvino", workers=2, takes_turns=True, cache=tmp_path)
    expected = open_backend(bundle, "optical", name="openvino", workers=2, cache=tmp_path)(values)
    done = []
    real = openvino_backend.import_openvino().CompiledModel.release_memory
    monkeypatch.setattr(
        openvino_backend.import_openvino().CompiledModel,
        "release_memory",
        lambda model: (done.append(id(model)), real(model)),
        raising=True,
    )
    found = [backend(values) for _ in range(3)]
    assert len(done) == 3
    assert len(set(done)) == 1  # one caller at a time, one compiled network
    assert {each.tobytes() for each in found} == {expected.tobytes()}


def test_a_result_is_the_callers_own(backend):
    first = backend(tile(seed=0))
    before = first.copy()
    backend(tile(seed=1))
    np.testing.assert_array_equal(first, before)
    first[:] = 0
    np.testing.assert_array_equal(backend(tile(seed=0)), before)


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_temperature_divides_the_logits(tmp_path, name):
    branch = random_branch()
    branch.decoder.classifier[-1].weight.zero_()
    branch.decoder.classifier[-1].bias.copy_(torch.tensor([0.0, math.log(4), math.log(16)]))
    bundle = make_bundle(tmp_path / "b", branch)
    for temperature, shares in ((1, (1, 4, 16)), (2, (1, 2, 4)), (0.5, (1, 16, 256))):
        found = open_backend(bundle, "optical", name=name, temperature=temperature, cache=tmp_path)(tile(8, 8))
        expected = np.broadcast_to(np.divide(shares, sum(shares))[:, None, None], (3, 8, 8))
        # Logits of up to log(256), divided by the temperature and exponentiated: a few operations for each class.
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(math.log(256), terms=4 * CLASSES))


@pytest.mark.parametrize("unused_px", [0, 52])
def test_classes_are_the_most_likely_ones(bundle, tmp_path, unused_px):
    for name in ("torch", *(["openvino"] if find_spec("openvino") else [])):
        backend = open_backend(bundle, "optical", name=name, temperature=1.7, unused_px=unused_px, cache=tmp_path)
        found = backend.classes(tile(160, 200))
        assert (found.dtype, found.shape) == (np.uint8, (160 - 2 * backend.trim_px, 200 - 2 * backend.trim_px))
        np.testing.assert_array_equal(found, backend(tile(160, 200)).argmax(axis=0))
        assert len(np.unique(found)) == CLASSES


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_the_first_of_equally_likely_classes(tmp_path, name):
    branch = random_branch()
    branch.decoder.classifier[-1].weight.zero_()
    branch.decoder.classifier[-1].bias.copy_(torch.tensor([-1.0, 2.0, 2.0]))
    backend = open_backend(make_bundle(tmp_path / "b", branch), "optical", name=name, cache=tmp_path)
    assert (backend.classes(tile(16, 16)) == 1).all()


class TestBatches:
    def test_the_same_bytes_whoever_else_is_in_the_batch(self, bundle):
        """Of tiles alone, of four together, of threads that come as they please, of two shapes."""
        backend = open_backend(bundle, "optical", name="torch", batch=3)
        tiles = [tile(64 + 32 * (i % 2), 96, seed=i) for i in range(10)]
        alone = [backend(values).tobytes() for values in tiles]
        classes = [backend.classes(values).tobytes() for values in tiles]
        with ThreadPoolExecutor(7) as pool:
            assert [found.tobytes() for found in pool.map(backend, tiles)] == alone
            assert [found.tobytes() for found in pool.map(backend.classes, tiles)] == classes
        assert len(set(alone)) == 10
        for values in tiles:
            assert_probabilities(backend(values), bundle.branch("optical"), values)

    def test_the_network_always_sees_as_many(self):
        """How many tiles there are changes how a convolution is carried out."""
        seen = []

        class Network(nn.Module):
            def forward(self, images):
                seen.append(tuple(images.shape))
                return images.sum(dim=(2, 3), keepdim=True).expand(-1, -1, *images.shape[2:])

        backend = TorchBackend(Network(), device=CPU, batch=4)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(backend, [tile(8, 8, seed=i) for i in range(6)]))
        assert set(seen) == {(4, 3, 8, 8)}
        assert 2 <= len(seen) <= 6

    def test_auto_takes_torch_for_batches(self, bundle):
        assert open_backend(bundle, "optical", batch=2).name == "torch"

    @needs_openvino
    def test_openvino_has_none(self, bundle):
        with pytest.raises(ConfigError) as error:
            open_backend(bundle, "optical", name="openvino", batch=2)
        assert str(error.value) == (
            "The backend openvino computes tiles side by side. Expected batch 1, found 2.\n"
            "Use `backend='torch'`, or leave `batch` out."
        )


def test_half_precision_is_near(bundle):
    network = bundle.branch("optical")
    found = TorchBackend(network, device=CPU, half=torch.float16)(tile())
    difference = np.abs(found - plain_softmax(network, tile())).max()
    assert found.dtype == np.float32
    assert tolerance(network, tile()) < difference < torch_backend._HALF_TOLERANCE


@pytest.mark.parametrize(("half", "kept"), [(torch.float16, True), (None, False)])
def test_half_precision_only_where_the_device_has_it(bundle, monkeypatch, half, kept):
    monkeypatch.setattr(torch_backend, "_half_precision", lambda *_, **__: half)
    found = open_backend(bundle, "optical", name="torch")(tile())
    network = bundle.branch("optical")
    apart = np.abs(found - plain_softmax(network, tile())).max()
    assert (apart > tolerance(network, tile())) == kept


def test_full_precision_where_the_device_has_half(bundle, monkeypatch):
    monkeypatch.setattr(torch_backend, "_half_precision", lambda *_, **__: torch.float16)
    backend = open_backend(bundle, "optical", name="torch", precision="full")
    assert backend.number == "float32"
    assert_probabilities(backend(tile()), bundle.branch("optical"), tile())


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_half_precision_on_request(bundle, tmp_path, monkeypatch, name):
    if name == "openvino" and not openvino_backend.has_half():
        pytest.skip("this processor has no bfloat16")
    monkeypatch.setattr(torch_backend, "has_bfloat16", lambda _: True)  # elsewhere it is slow, and as coarse
    backend = open_backend(bundle, "optical", name=name, precision="half", cache=tmp_path)
    assert backend.number == "bfloat16"
    network = bundle.branch("optical")
    difference = np.abs(backend(tile()) - plain_softmax(network, tile())).max()
    assert tolerance(network, tile()) < difference < ASKED_TOLERANCE


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_no_half_precision_on_the_cpu_unless_asked_for(bundle, tmp_path, name):
    assert open_backend(bundle, "optical", name=name, cache=tmp_path).number == "float32"


def test_a_processor_without_half_precision(bundle, monkeypatch):
    monkeypatch.setattr(torch_backend, "has_bfloat16", lambda _: False)
    with pytest.raises(ConfigError) as caught:
        open_backend(bundle, "optical", name="torch", precision="half")
    assert str(caught.value) == (
        "`precision='half'`: cpu is not faster in half precision. Expected a CPU with bfloat16 (AVX-512) or a GPU "
        "of compute capability 7.0 or newer.\nUse `precision='full'`."
    )


@needs_openvino
def test_half_precision_of_openvino_where_the_processor_has_none(bundle, monkeypatch):
    monkeypatch.setattr(openvino_backend, "has_half", lambda: False)
    with pytest.raises(ConfigError, match="`precision='half'`: cpu is not faster in half precision"):
        open_backend(bundle, "optical", name="openvino", precision="half")
    monkeypatch.setattr(torch_backend, "has_bfloat16", lambda _: True)
    found = open_backend(bundle, "optical", precision="half")
    assert (found.name, found.number) == ("torch", "bfloat16")


@needs_openvino
def test_half_precision_of_openvino_that_fails(bundle, tmp_path, monkeypatch):
    plain = OpenVinoBackend.__init__

    def fail(self, graph, *, half=False, **options):
        if half:
            raise RuntimeError("no such kernel")
        plain(self, graph, **options)

    monkeypatch.setattr(OpenVinoBackend, "__init__", fail)
    monkeypatch.setattr(openvino_backend, "has_half", lambda: True)
    monkeypatch.setattr(torch_backend, "has_bfloat16", lambda _: True)
    with pytest.raises(BundleError, match="it fails with RuntimeError: no such kernel"):
        open_backend(bundle, "optical", name="openvino", precision="half", cache=tmp_path)
    with pytest.warns(BackendWarning, match="PyTorch is used instead"):
        found = open_backend(bundle, "optical", precision="half", cache=tmp_path)
    assert (found.name, found.number) == ("torch", "bfloat16")


def overflowing(path):
    """A bundle whose values go beyond the 65504 of float16; the normalisation after it undoes that."""
    branch = random_branch()
    branch.encoder.model.conv1[0].weight.mul_(1e6)
    branch.encoder.model.conv1[1].running_var.mul_(1e12)
    return make_bundle(path, branch)


def test_half_precision_of_no_use_is_refused(tmp_path, monkeypatch):
    bundle = overflowing(tmp_path / "b")
    monkeypatch.setattr(torch_backend, "_half_precision", lambda *_, **__: torch.float16)
    monkeypatch.setattr(torch_backend, "fold_batch_norm", lambda network, _: network)
    with pytest.raises(BundleError) as caught:
        open_backend(bundle, "optical", name="torch", precision="half")
    assert str(caught.value) == (
        f"{tmp_path / 'b'}: half precision is too coarse for the optical branch. Expected probabilities that differ by "
        "at most 0.25, found nan.\nUse `precision='full'`."
    )


def test_half_precision_is_left_where_it_overflows(tmp_path, monkeypatch):
    bundle = overflowing(tmp_path / "b")
    monkeypatch.setattr(torch_backend, "_half_precision", lambda *_, **__: torch.float16)
    monkeypatch.setattr(torch_backend, "fold_batch_norm", lambda network, _: network)
    found = open_backend(bundle, "optical", name="torch")(tile())
    assert_probabilities(found, bundle.branch("optical"), tile())


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        (NETWORK, 0),
        (NetworkSettings(), 0),
        (NetworkSettings(encoder="tu-resnet18"), 0),
        (NetworkSettings(encoder="tu-mobilenetv3_small_100", decoder="unet", depth=4), 0),  # normalise and activate
        (NetworkSettings(encoder="tu-densenet121", depth=3), 19),  # joined before: 6 + 12 layers, 1 transition
    ],
)
def test_convolutions_take_over_the_normalisation(settings, left):
    network = random_branch(settings)
    probe = torch.from_numpy(tile(64, 64))[None]
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norm(network, probe)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == left
    assert_probabilities(plain_softmax(folded, tile()), network, tile())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Twice(nn.Module):
    """Reads a convolution before and after its normalisation."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_var.fill_(4)

    def forward(self, images):
        found = self.conv(images)
        return found + self.norm(found)


class Between(nn.Module):
    """Changes what a convolution gave, in place, before it is normalised."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_var.fill_(4)
        self.last = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, images):
        return self.last(self.norm(self.conv(images).relu_()))


def test_what_folding_would_change_is_left_as_it_is():
    network, probe = Twice().eval(), torch.ones(1, 3, 4, 4)
    assert fold_batch_norm(network, probe) is network


def test_only_untouched_convolutions_take_over():
    network, probe = Between().eval(), torch.randn(1, 3, 4, 4)
    folded = fold_batch_norm(network, probe)
    assert [type(m) for m in (folded.norm, folded.last[1])] == [nn.BatchNorm2d, nn.Identity]
    expected = network(probe)
    torch.testing.assert_close(folded(probe), expected, rtol=0, atol=output_rounding(network, expected))


def test_without_the_package(bundle, no_openvino):
    assert open_backend(bundle, "optical").name == "torch"
    with pytest.raises(ConfigError) as error:
        open_backend(bundle, "optical", name="openvino")
    assert str(error.value) == (
        "The backend openvino is not installed. Expected the package openvino, found none.\n"
        "Install it by pip install \"geocrodino[openvino]\", or use `backend='torch'`."
    )


def test_openvino_is_for_the_cpu(bundle, monkeypatch):
    monkeypatch.setattr(torch_backend, "open_torch", lambda *_, **__: "on the device")
    with pytest.raises(ConfigError) as error:
        open_backend(bundle, "optical", name="openvino", device="cuda:1")
    assert str(error.value) == (
        "The backend openvino computes on the CPU. Expected device cpu, found cuda:1.\nUse `backend='torch'`."
    )
    assert open_backend(bundle, "optical", device="cuda:1") == "on the device"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "onnx"}, "backend must be one of auto, torch, openvino, found 'onnx'"),
        ({"precision": "bf16"}, "precision must be one of auto, full, half, int8, found 'bf16'"),
        ({"workers": 0}, "workers and batch must be at least 1, found workers 0 and batch 1"),
        ({"batch": 0}, "workers and batch must be at least 1, found workers 1 and batch 0"),
        ({"temperature": 0.0}, "temperature must be above 0, found 0.0"),
        ({"temperature": math.nan}, "temperature must be above 0, found nan"),
    ],
)
def test_values_out_of_range(bundle, options, told):
    with pytest.raises(ValueError, match=told):
        open_backend(bundle, "optical", **options)


def test_absent_branch(bundle):
    with pytest.raises(BundleError, match="no branch for elevation in this bundle"):
        open_backend(bundle, "elevation", name="torch")


def other_graph():
    return openvino_backend.convert(Trimmed(random_branch(seed=1)))


@needs_openvino
class TestOpenVino:
    def test_agrees_with_torch_on_the_default_network(self, tmp_path):
        bundle = make_bundle(tmp_path / "b", random_branch(NetworkSettings()))
        ours, theirs = (
            open_backend(bundle, "optical", name=name, cache=tmp_path)(tile(96, 160)) for name in ("openvino", "torch")
        )
        allowed = tolerance(bundle.branch("optical"), tile(96, 160))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed)
        second, first = np.sort(theirs, axis=0)[-2:]
        clear = first - second > 2 * allowed
        np.testing.assert_array_equal(ours.argmax(0)[clear], theirs.argmax(0)[clear])
        assert clear.mean() > 0.99

    def test_one_thread_for_each_tile_in_full_precision(self, bundle, tmp_path):
        backend = open_backend(bundle, "optical", workers=2, cache=tmp_path)
        compiled = backend._compiled_for((3, 64, 64)).model
        names = ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")
        assert [compiled.get_property(name) for name in names] == [2, 2, False]
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"

    def test_networks_that_take_turns_have_one_stream_each(self, bundle, tmp_path):
        backend = open_backend(bundle, "optical", workers=2, takes_turns=True, cache=tmp_path)
        turns = backend._compiled_for((3, 64, 64))
        with turns.request(), turns.request():
            pass
        networks = [turns.idle.get_nowait() for _ in range(2)]
        assert turns.idle.empty()
        assert [n.get_property("INFERENCE_NUM_THREADS") for n in networks] == [1, 1]

    def test_nothing_is_told_to_its_makers(self, bundle, tmp_path):
        open_backend(bundle, "optical", cache=tmp_path)
        assert "openvino_telemetry" not in sys.modules
        assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"

    def test_a_kept_network_needs_no_torch(self, bundle, tmp_path):
        """Which takes seconds to come up."""
        expected = open_backend(bundle, "optical", cache=tmp_path, unused_px=52).classes(tile(160, 200))
        code = (
            "import sys, numpy as np\n"
            "from pathlib import Path\n"
            "from geocrodino.bundle.io import load_bundle\n"
            "from geocrodino.prediction.backends.open import open_backend\n"
            "backend = open_backend(load_bundle(sys.argv[1]), 'optical', cache=Path(sys.argv[2]), unused_px=52)\n"
            "tile = np.random.default_rng(0).standard_normal((3, 160, 200), np.float32)\n"
            "print('torch' in sys.modules, backend.classes(tile).tobytes().hex())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, bundle.path, tmp_path], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["False", expected.tobytes().hex()]

    def test_one_shape_at_a_time_is_held(self, bundle, tmp_path):
        backend = open_backend(bundle, "optical", cache=tmp_path)
        first = backend._compiled_for((3, 64, 64))
        assert backend._compiled_for((3, 64, 64)) is first
        backend(tile(64, 64))
        assert first.idle.qsize() == 1
        backend(tile(64, 64))
        assert first.idle.qsize() == 1  # taken again
        backend(tile(64, 96))
        assert backend._compiled[0] == (3, 64, 96)

    def test_signals_reach_a_process_whose_backend_another_thread_dropped(self, bundle, tmp_path):
        """OpenVINO frees a stack for signals together with its core, where the processor has AMX."""
        code = f"""
import gc, signal, subprocess, sys, threading
from pathlib import Path
from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.prediction.backends.open import open_backend

held = [open_backend(load_bundle(Path({str(bundle.path)!r})), "optical", cache=Path({str(tmp_path)!r}))]
held[0](__import__("numpy").zeros((3, 64, 64), "float32"))
dropping = threading.Thread(target=lambda: (held.clear(), gc.collect()))
dropping.start()
dropping.join()
signal.signal(signal.SIGTERM, lambda *_: print("told"))
signal.raise_signal(signal.SIGTERM)
"""
        where = [sys.executable, "-X", "faulthandler", "-c", code]
        done = subprocess.run(where, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr

    def test_is_converted_once(self, bundle, tmp_path, monkeypatch):
        first = open_backend(bundle, "optical", cache=tmp_path / "new" / "folder")(tile())
        monkeypatch.setattr(openvino_backend, "convert", lambda _: pytest.fail("converted again"))
        again = open_backend(bundle, "optical", cache=tmp_path / "new" / "folder")
        assert files_in(tmp_path / "new" / "folder") == [
            f"{bundle.sha256}-optical-0-openvino-{version('openvino')}.safetensors"
        ]
        assert again.name == "openvino"
        np.testing.assert_array_equal(again(tile()), first)

    def test_the_cache_is_in_the_users_folder(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for named, folder in (
            (str(tmp_path / "xdg"), tmp_path / "xdg"),
            ("", tmp_path / "home" / ".cache"),
            ("relative", tmp_path / "home" / ".cache"),  # to be ignored, by the XDG base directory specification
        ):
            monkeypatch.setenv("XDG_CACHE_HOME", named)
            assert openvino_backend._graph_path(bundle, "optical", 0, None).parent == folder / "geocrodino"

    @pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other kind", "other network", "other name"])
    def test_a_bad_file_is_made_again(self, bundle, tmp_path, damage):
        expected = open_backend(bundle, "optical", cache=tmp_path)(tile())
        (path,) = tmp_path.iterdir()
        key = openvino_backend._graph_key(bundle, "optical", 0)
        whole, graph = path.read_bytes(), openvino_backend._read_graph(path, key)
        if damage == "other network":
            openvino_backend._write_graph(path, key, other_graph()._replace(logits=graph.logits))
        elif damage == "other name":
            openvino_backend._write_graph(path, "another key", other_graph())
        else:
            middle = len(whole) // 2
            changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
            path.write_bytes(
                {"cut": whole[:middle], "changed": changed, "empty": b"", "other kind": b"graph" * 9}[damage]
            )
        assert openvino_backend._read_graph(path, key) != graph
        again = open_backend(bundle, "optical", name="openvino", cache=tmp_path)
        np.testing.assert_array_equal(again(tile()), expected)
        assert openvino_backend._read_graph(path, key).weights == graph.weights

    def test_a_place_that_cannot_be_written_is_done_without(self, bundle, tmp_path):
        (tmp_path / "file").write_text("no folder")
        found = open_backend(bundle, "optical", name="openvino", cache=tmp_path / "file")
        assert found.name == "openvino"
        assert files_in(tmp_path) == ["file"]

    def test_old_files_are_forgotten(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setattr(openvino_backend, "_KEPT_GRAPHS", 2)
        for name in ("1-optical-openvino-1.safetensors", "2-optical-openvino-1.safetensors", "mine.safetensors"):
            (tmp_path / name).write_bytes(b"")
        for name, seconds in (("1-optical-openvino-1.safetensors", 100), ("2-optical-openvino-1.safetensors", 50)):
            openvino_backend.os.utime(tmp_path / name, (seconds, seconds))
        open_backend(bundle, "optical", cache=tmp_path)
        ours = openvino_backend._graph_path(bundle, "optical", 0, tmp_path).name
        assert files_in(tmp_path) == sorted([ours, "1-optical-openvino-1.safetensors", "mine.safetensors"])

    def test_other_probabilities_than_torchs(self, bundle, tmp_path, monkeypatch):
        right = openvino_backend.convert(Trimmed(bundle.branch("optical")))
        other = other_graph()._replace(logits=right.logits)
        monkeypatch.setattr(openvino_backend, "convert", lambda _: other)
        values = check_tile(3, 0)
        theirs, ours = OpenVinoBackend(other)(values), plain_softmax(bundle.branch("optical"), values)
        apart, share = difference(theirs, ours)
        told = (
            f"{bundle.path}: OpenVINO cannot stand in for PyTorch with the optical branch: their probabilities differ. "
            f"Expected at most 0.001 and 0.1% of pixels of another class, found {apart:.2g} and {share:.1%}.\n"
        )
        with pytest.raises(BundleError) as error:
            open_backend(bundle, "optical", name="openvino", cache=tmp_path)
        assert str(error.value) == told + "Use `backend='torch'`."
        with pytest.warns(BackendWarning) as warned:
            found = open_backend(bundle, "optical", cache=tmp_path)
        assert [str(w.message) for w in warned] == [told + "PyTorch is used instead and takes longer."]
        assert warned[0].filename == __file__
        assert found.name == "torch"
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("apart", "share", "fits"),
        [(0.0009, 0.0009, True), (0.0011, 0.0, False), (0.0, 0.0011, False), (math.nan, 0.0, False)],
    )
    def test_what_counts_as_the_same(self, bundle, tmp_path, monkeypatch, apart, share, fits):
        monkeypatch.setattr(openvino_backend, "difference", lambda *_: (apart, share))
        if fits:
            assert open_backend(bundle, "optical", cache=tmp_path).name == "openvino"
        else:
            with pytest.warns(BackendWarning, match="their probabilities differ"):
                assert open_backend(bundle, "optical", cache=tmp_path).name == "torch"

    def test_a_network_that_cannot_be_converted(self, bundle, tmp_path, monkeypatch):
        def fail(_):
            raise RuntimeError("No conversion rule found for aten::rare\nand much more")

        monkeypatch.setattr(openvino_backend, "convert", fail)
        with pytest.raises(BundleError) as error:
            open_backend(bundle, "optical", name="openvino", cache=tmp_path)
        assert str(error.value) == (
            f"{bundle.path}: OpenVINO cannot stand in for PyTorch with the optical branch: it fails with RuntimeError: "
            "No conversion rule found for aten::rare\nUse `backend='torch'`."
        )
        with pytest.warns(BackendWarning, match=r"aten::rare\nPyTorch is used instead"):
            assert open_backend(bundle, "optical", cache=tmp_path).name == "torch"


def test_difference_by_hand():
    expected = np.array([[[0.6, 0.6], [0.6, 0.6]], [[0.4, 0.4], [0.4, 0.4]]], np.float32)
    found = expected.copy()
    found[:, 0, 1] = 0.25, 0.75
    apart, share = difference(found, expected)
    assert apart == pytest.approx(0.35, abs=rounding(0.6, terms=1))
    assert share == 0.25
    found[0, 0, 0] = np.nan
    assert math.isnan(difference(found, expected)[0])
