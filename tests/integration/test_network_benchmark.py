"""`benchmarks/networks.py`: which networks it measures, and its table. Its measurements are a slow test."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from geocrodino.settings.network import NetworkSettings

ROOT = Path(__file__).parents[2]
OWN = ("networks", "steps", "prediction", "ours", "measured", "peers", "fragments")
SMALL = "EfficientNet-Lite0, pyramid, depth 3"


@pytest.fixture
def networks(monkeypatch):
    """Import the script together with those that it uses."""
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("networks")
    for name in OWN:
        sys.modules.pop(name, None)


def test_every_method_of_the_plan_is_measured_or_has_a_network_that_is(networks, town):
    kept, same = networks.different_networks(list(networks.METHODS), town.config.parent)
    assert {*kept, *same} == set(networks.METHODS)
    assert set(same.values()) <= set(kept)
    shapes = [str(config.network) for config in kept.values()]
    assert len(set(shapes)) == len(shapes)
    assert same["EfficientNet-Lite0, pyramid, random weights"] == "EfficientNet-Lite0, pyramid"
    assert kept["EfficientNet-Lite0, pyramid"].network == NetworkSettings(encoder="tf_efficientnet_lite0")
    for config in kept.values():
        assert config.encoder_weights == "random"  # nothing is downloaded
        assert (config.training.batch_size, config.training.patch_px) == (8, 128)
        assert config.method.name == "crodino"


def test_the_bundle_of_a_network_states_its_size(networks, tmp_path):
    shape = NetworkSettings(encoder="tu-resnet10t", decoder="fpn", depth=3, invariant_channels=4)
    networks.write_bundle(tmp_path / "bundle.safetensors", shape)
    found = networks.size_of(tmp_path / "bundle.safetensors")
    loaded = networks.load_bundle(tmp_path / "bundle.safetensors")
    assert found["receptive_field_px"] == loaded.manifest.receptive_field_px > 0
    assert found["parameters"] == sum(value.numel() for value in loaded.branch("optical").parameters())


def measured(seconds, megabytes, step):
    return {"seconds": {1000: seconds}, "peak_mb": {1000: megabytes}, "step_s": step}


def test_the_table_has_medians_and_medians_of_ratios_within_a_round(networks):
    sizes = {
        "a": {"parameters": 1_250_000, "receptive_field_px": 214},
        "b": {"parameters": 10_000, "receptive_field_px": None},
    }
    rounds = [
        {"a": measured(2.0, 500.0, 1.0), "b": measured(1.0, 300.0, 0.5)},
        {"a": measured(4.0, 600.0, 3.0), "b": measured(4.0, 200.0, 3.0)},  # another program disturbs
        {"a": measured(2.5, 550.0, 1.0), "b": measured(1.0, 100.0, 0.25)},
    ]
    assert networks.make_table(sizes, rounds) == [
        "| network | parameters, M | receptive field, px | Mpx/s, 1000 px | of the first | memory, MB | training step, "
        "s | of the first |",
        "|---|---|---|---|---|---|---|---|",
        "| a | 1.25 | 214 | 0.40 | 1.00 | 550 | 1.00 | 1.00 |",
        "| b | 0.01 | unbounded | 1.00 | 2.00 | 200 | 0.50 | 0.50 |",
    ]


def test_notes_say_how_it_was_measured_and_what_costs_the_same(networks):
    (_, text) = networks.notes({"b": "a"}, 3, "32-true")
    assert text.startswith("Medians of 3 rounds, random weights. ")
    assert "processor seconds on one thread, in 32-true;" in text
    assert text.endswith(" `b` is the same network as `a` and costs as much.")
    assert networks.notes({}, 1, "32-true")[1].startswith("One round, random weights. ")


@pytest.mark.slow
def test_a_network_is_measured_and_its_table_written(tmp_path):
    command = [
        *(sys.executable, "benchmarks/networks.py", "--sides", "256", "--rounds", "1", "--steps", "2"),
        *("--only", SMALL, "--fragment", "networks-cost", "--fragments", str(tmp_path)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, row = (tmp_path / "networks-cost.md").read_text().splitlines()[:3]
    assert head.startswith("| network | parameters, M | receptive field, px | Mpx/s, 256 px |")
    assert row.startswith(f"| {SMALL} | 0.33 | 58 | ")
    facts = json.loads((tmp_path / "networks-cost.json").read_text())
    assert facts["command"] == (
        "python benchmarks/networks.py --sides 256 --rounds 1 --steps 2 "
        f"--only '{SMALL}' --fragment networks-cost"
    )  # fmt: skip
    (measurement,) = facts["rounds"]
    assert measurement[SMALL]["step_s"] > 0
    assert facts["settings"][SMALL]["depth"] == 3
