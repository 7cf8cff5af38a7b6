import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as torch_save

from geocrodino.bundle.io import _digest, add_int8, load_bundle, save_bundle
from geocrodino.bundle.manifest import Int8Network, Manifest
from geocrodino.errors import AccessError, BundleError
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.models.branch import build_branch
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.network import NetworkSettings

NETWORK = NetworkSettings(encoder="tu-resnet10t", decoder="fpn", depth=3, invariant_channels=8)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def channel(name):
    return Channel(name=name, unit="digital number", low=0, high=255, mean=100.1, std=50)


def manifest(**changes):
    optical = Recipe(modality="optical", bands=(1, 2), band_names=("red", "green"))
    elevation = Recipe(modality="elevation", channels=("height",))
    values = {
        "name": "test-model",
        "classes": ClassScheme.from_values([1, 2, 3]),
        "network": NETWORK,
        "modalities": {
            "optical": ModalitySpec(recipe=optical, channels=(channel("red"), channel("green"))),
            "elevation": ModalitySpec(recipe=elevation, channels=(channel("height"),)),
        },
        "resolution_m": 0.9144,
        "crs": "EPSG:32610",
        "footprint": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
        "receptive_field_px": 90,
        "training": {"seed": 1, "epochs": 2, "val_miou": {"optical": 0.5}},
    }
    return Manifest(**{**values, **changes})


def branches():
    return {"optical": build_branch(NETWORK, 2, 3), "elevation": build_branch(NETWORK, 1, 3)}


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    nets = branches()
    return path, nets, save_bundle(path, manifest(), nets)


def rewrite(source, target, *, change_manifest=None, change_tensors=None, sign=False):
    with safe_open(source, framework="np") as file:
        stored = json.loads(file.metadata()["geocrodino"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    if change_manifest:
        change_manifest(stored)
    if change_tensors:
        change_tensors(tensors)
    if sign:
        del stored["sha256"]
        stored["sha256"] = _digest(stored, tensors)
    save_file(tensors, target, metadata={"geocrodino": json.dumps(stored)})
    return target


def refused(path, modality=None):
    """What is said of a bundle that cannot be read, or of a branch that cannot be built."""
    with pytest.raises(BundleError) as error:
        load_bundle(path) if modality is None else load_bundle(path).branch(modality)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" in text or ". " in text
    return text.removeprefix(f"{path}: ")


def test_round_trip_gives_the_same_network(saved):
    path, nets, written = saved
    bundle = load_bundle(path)
    assert bundle.manifest == written
    assert bundle.sha256 == written.sha256
    assert len(bundle.sha256) == 64
    for modality, bands in (("optical", 2), ("elevation", 1)):
        images = torch.randn(1, bands, 32, 32)
        branch = bundle.branch(modality)
        assert not branch.training
        assert branch.stride == bundle.manifest.network.stride_px
        torch.testing.assert_close(branch(images), nets[modality].eval()(images), rtol=0, atol=0)
    assert names_in(path.parent) == [path.name]


def test_round_trip_of_separate_encoders(tmp_path):
    network = NETWORK.model_copy(update={"separate_encoders": True})
    nets = {"optical": build_branch(network, 2, 3), "elevation": build_branch(network, 1, 3)}
    save_bundle(tmp_path / "b", manifest(network=network), nets)
    bundle = load_bundle(tmp_path / "b")
    assert bundle.manifest.network.separate_encoders
    images = torch.randn(1, 1, 32, 32)
    expected = nets["elevation"].eval().forward_features(images)
    for value, wanted in zip(bundle.branch("elevation").forward_features(images), expected, strict=True):
        assert value.equal(wanted)
    with pytest.raises(ValueError, match=r"expected \d+ tensors, found \d+: \d+ extra"):
        save_bundle(tmp_path / "c", manifest(), nets)


def test_a_bundle_keeps_its_calibration_and_hashes_it(saved, tmp_path):
    measured = {"temperature": {"optical": 1.2, "elevation": 2}, "weight": {"optical": 0.3, "elevation": 0.7}}
    written = save_bundle(tmp_path / "b", Manifest(**{**dict(saved[2]), "calibration": measured}), saved[1])
    assert load_bundle(tmp_path / "b").manifest == written
    assert written.calibration.model_dump() == measured
    assert written.sha256 != saved[2].sha256


def test_a_bundle_from_before_calibration_can_be_read(saved, tmp_path):
    path, _, written = saved
    older = rewrite(path, tmp_path / "m", change_manifest=lambda m: m.pop("calibration"), sign=True)
    found = load_bundle(older).manifest
    assert found.calibration is None
    assert found.model_copy(update={"sha256": written.sha256}) == written


def test_the_same_contents_have_the_same_hash_and_bytes(saved, tmp_path):
    path, nets, written = saved
    save_bundle(tmp_path / "again", written, nets)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_half_precision_weights_are_stored_as_float32(tmp_path):
    nets = {m: b.half() for m, b in branches().items()}
    save_bundle(tmp_path / "b", manifest(), nets)
    assert next(load_bundle(tmp_path / "b").branch("optical").parameters()).dtype == torch.float32


def test_loading_leaves_random_numbers_alone(saved):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_bundle(saved[0]).branch("optical")
    assert torch.rand(1) == expected


def test_branches_must_match_the_manifest(tmp_path):
    with pytest.raises(ValueError, match="do not match the manifest's"):
        save_bundle(tmp_path / "b", manifest(), {"optical": branches()["optical"]})
    with pytest.raises(ValueError, match="tensor optical"):
        save_bundle(tmp_path / "b", manifest(), {**branches(), "optical": build_branch(NETWORK, 3, 3)})
    assert names_in(tmp_path) == []


def test_saving_into_a_missing_folder(tmp_path):
    with pytest.raises(BundleError, match="cannot be written"):
        save_bundle(tmp_path / "none" / "b", manifest(), branches())


def test_absent_branch(tmp_path):
    one = manifest(modalities={"optical": manifest().modalities["optical"]})
    save_bundle(tmp_path / "b", one, {"optical": branches()["optical"]})
    with pytest.raises(BundleError) as error:
        load_bundle(tmp_path / "b").branch("elevation")
    assert str(error.value) == (
        f"{tmp_path / 'b'}: no branch for elevation in this bundle. Expected elevation, found optical.\n"
        "Predict with optical, or use a bundle that was trained with elevation."
    )


def test_missing_file_and_folder(tmp_path):
    assert "no such bundle" in refused(tmp_path / "none")
    assert "found a folder" in refused(tmp_path)


def test_a_header_length_that_begins_like_a_pickle_is_no_pickle(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'.ljust(0x80)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert path.read_bytes()[0] == 0x80
    assert "a safetensors file without a geocrodino manifest" in refused(path)


def test_pickles_are_never_opened(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "m.ckpt")
    assert "found a PyTorch checkpoint (zip with pickle)" in refused(tmp_path / "m.ckpt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    assert "found a Python pickle" in refused(tmp_path / "m.pth")


@pytest.mark.parametrize("content", [b"", b"II*\0", b"x" * 100])
def test_other_kinds_of_file(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    assert "found another kind of file" in refused(tmp_path / "m")


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.999])
def test_cut_files(saved, tmp_path, share):
    content = saved[0].read_bytes()
    (tmp_path / "m").write_bytes(content[: int(len(content) * share)])
    assert "damaged or cut short" in refused(tmp_path / "m")


def test_weights_without_a_manifest(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "m")
    assert "without a geocrodino manifest" in refused(tmp_path / "m")


def test_another_layout(saved, tmp_path):
    path = rewrite(saved[0], tmp_path / "m", change_manifest=lambda m: m.update(format_version=7))
    assert "Expected format version 1, found 7" in refused(path)


def test_manifest_without_a_field(saved, tmp_path):
    path = rewrite(saved[0], tmp_path / "m", change_manifest=lambda m: m.pop("resolution_m"))
    assert "resolution_m: Field required" in refused(path)


def test_missing_and_extra_tensors(saved, tmp_path):
    name = "optical.projection.0.weight"
    path = rewrite(saved[0], tmp_path / "m", change_tensors=lambda t: t.pop(name), sign=True)
    assert f"1 missing ({name}" in refused(path, "optical")
    more = {"optical.more": np.zeros(1, np.float32)}
    path = rewrite(saved[0], tmp_path / "m", change_tensors=lambda t: t.update(more), sign=True)
    assert "1 extra (optical.more" in refused(path, "optical")
    stray = {"thermal.weight": np.zeros(1, np.float32)}
    path = rewrite(saved[0], tmp_path / "m", change_tensors=lambda t: t.update(stray), sign=True)
    assert "expected tensors of optical and elevation, found thermal.weight." in refused(path)


def test_wrong_shape_and_type(saved, tmp_path):
    name = "elevation.projection.1.bias"
    shape = {name: np.zeros(5, np.float32)}
    path = rewrite(saved[0], tmp_path / "m", change_tensors=lambda t: t.update(shape), sign=True)
    assert f"tensor {name}: expected float32 (16,), found float32 (5,)" in refused(path, "elevation")
    load_bundle(path).branch("optical")  # the other branch is whole
    half = {name: np.zeros(16, np.float16)}
    path = rewrite(saved[0], tmp_path / "m", change_tensors=lambda t: t.update(half), sign=True)
    assert "found float16 (16,)" in refused(path, "elevation")


def test_numbers_that_numpy_lacks(saved, tmp_path):
    with safe_open(saved[0], framework="pt") as file:
        tensors = {k: file.get_tensor(k).bfloat16() for k in file.keys()}  # noqa: SIM118
        torch_save(tensors, tmp_path / "m", metadata=file.metadata())
    assert "expected float32 or whole numbers, found BF16." in refused(tmp_path / "m")
    torch_save(tensors, tmp_path / "other")
    assert "a safetensors file without a geocrodino manifest" in refused(tmp_path / "other")


def test_reading_a_bundle_needs_no_torch(saved):
    code = (
        f"import sys; from geocrodino import load_bundle; load_bundle({str(saved[0])!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_changed_numbers_are_noticed(saved, tmp_path):
    def change(tensors):
        tensors["optical.projection.1.bias"] += 1

    assert "contents were changed after writing" in refused(rewrite(saved[0], tmp_path / "m", change_tensors=change))
    path = rewrite(saved[0], tmp_path / "m", change_manifest=lambda m: m.update(resolution_m=2.0))
    assert f"Expected sha256 {saved[2].sha256}, found" in refused(path)


def test_flipped_bytes_are_noticed(saved, tmp_path):
    content = np.frombuffer(saved[0].read_bytes(), np.uint8).copy()
    content[-1] ^= 1
    (tmp_path / "m").write_bytes(content.tobytes())
    refused(tmp_path / "m")


def test_bundle_that_may_not_be_read(saved, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(AccessError, match=r"cannot be accessed \(Permission denied\)"):
        load_bundle(saved[0])


INT8 = Int8Network(
    unused_px=96,
    trim_px=64,
    val_miou={"float32": 0.8, "int8": 0.799},
    same_class=0.99,
    calibration_tiles=7,
    versions={"nncf": "3.4.0"},
)


def test_a_bundle_without_int8_networks_is_as_before(saved):
    with safe_open(saved[0], framework="np") as file:
        assert "int8" not in json.loads(file.metadata()["geocrodino"])
    assert load_bundle(saved[0]).manifest.int8 == {}


def test_int8_networks_are_added_and_replaced(saved, tmp_path):
    path = tmp_path / "b.safetensors"
    path.write_bytes(saved[0].read_bytes())
    xml = np.frombuffer(b"<net/>", np.uint8)
    written = add_int8(load_bundle(path), {"elevation": (INT8, {"xml": xml})})
    found = load_bundle(path)
    assert found.manifest == written != saved[2]
    assert found.manifest.int8 == {"elevation": INT8}
    assert found.int8_tensors("elevation")["xml"].tobytes() == b"<net/>"
    assert found.int8_tensors("optical") == {}
    assert set(found.branch("elevation").state_dict()) == set(saved[1]["elevation"].state_dict())
    add_int8(found, {"optical": (INT8, {"xml": xml})})
    again = load_bundle(path)
    assert list(again.manifest.int8) == ["optical"]
    assert again.int8_tensors("elevation") == {}
    add_int8(again, {})
    assert path.read_bytes() == saved[0].read_bytes()


def test_tensors_of_an_int8_network_that_the_manifest_does_not_name(saved, tmp_path):
    path = tmp_path / "b.safetensors"
    rewrite(saved[0], path, change_tensors=lambda t: t.update({"int8.optical.xml": np.zeros(3, np.uint8)}), sign=True)
    with pytest.raises(BundleError, match=r"expected tensors of optical and elevation, found int8\.optical\.xml"):
        load_bundle(path)


def test_an_int8_network_of_no_branch():
    optical = manifest().modalities["optical"]
    with pytest.raises(ValueError, match="expected int8 networks of optical, found one of elevation"):
        manifest(modalities={"optical": optical}, int8={"elevation": INT8})
