"""Temperatures and weights from the validation pixels, on answers of known confidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from geocrodino.errors import ModelError
from geocrodino.evaluation.calibration import Reliability, fit_pooling, fit_temperature
from geocrodino.training.calibrate import ValidationPixels
from geocrodino.training.validate import calibrate

K, SIDE = 3, 64
MODALITIES = ("optical", "elevation")


class Reads(nn.Module):
    """A network whose input is its answer, and that notes how it is asked."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.asked = factor, []

    def forward(self, images):
        self.asked.append((len(images), torch.is_inference_mode_enabled()))
        return self.factor * images


class Windows:
    """Validation windows of which the answers are drawn first and the labels after them."""

    def __init__(self, sharpness, windows=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        truth = torch.randn(windows, K, SIDE, SIDE, generator=generator)
        self.batch = {}
        for m, sharp in sharpness.items():
            noise = torch.randn(windows, K, SIDE, SIDE, generator=generator)
            self.batch[m] = 2 * truth if sharp else 2 * noise
            self.batch[f"{m}_valid"] = torch.ones(windows, SIDE, SIDE, dtype=torch.bool)
        chances = (2 * truth).softmax(dim=1).movedim(1, -1).reshape(-1, K)
        drawn = torch.multinomial(chances, 1, generator=generator)
        self.batch["labels"] = drawn.reshape(windows, SIDE, SIDE)

    @property
    def whole_val_labelled_px(self):
        return int((self.batch["labels"] != 255).sum())

    def whole_val_dataloader(self):
        half = len(self.batch["labels"]) // 2
        return [{k: v[:half] for k, v in self.batch.items()}, {k: v[half:] for k, v in self.batch.items()}]


def networks(optical=1.0, elevation=1.0):
    return {"optical": Reads(optical), "elevation": Reads(elevation)}


def test_an_honest_network_keeps_its_temperature():
    found = calibrate(networks(), Windows({"optical": True, "elevation": True}))
    assert found.calibration.temperature == {m: pytest.approx(1, abs=0.05) for m in ("optical", "elevation")}
    assert all(curve.expected_calibration_error < 0.02 for curve in found.reliability.values())


def test_a_network_that_is_too_sure_is_cooled_and_one_that_is_not_sure_enough_warmed():
    data = Windows({"optical": True, "elevation": True})
    found = calibrate(networks(3.0, 0.5), data)
    assert found.calibration.temperature["optical"] == pytest.approx(3, rel=0.05)
    assert found.calibration.temperature["elevation"] == pytest.approx(0.5, rel=0.05)
    error = {n: c.expected_calibration_error for n, c in found.reliability.items()}
    assert list(error) == [
        "optical", "optical, calibrated", "elevation", "elevation, calibrated", "both, calibrated",
    ]  # fmt: skip
    for m in ("optical", "elevation"):
        assert error[f"{m}, calibrated"] < 0.02 < error[m] - 0.05


def test_a_network_that_knows_nothing_has_no_weight():
    found = calibrate(networks(), Windows({"optical": True, "elevation": False})).calibration
    assert found.weight["optical"] > 0.9
    assert sum(found.weight.values()) == pytest.approx(1)
    found = calibrate(networks(), Windows({"optical": False, "elevation": True})).calibration
    assert found.weight["elevation"] > 0.9


def test_numbers_are_those_of_the_fits():
    data = Windows({"optical": True, "elevation": False})
    found = calibrate(networks(2.0), data)
    logits = {
        m: f * data.batch[m].movedim(1, -1).reshape(-1, K).numpy() for m, f in (("optical", 2.0), ("elevation", 1.0))
    }
    labels = data.batch["labels"].flatten().numpy()
    temperature = {m: fit_temperature(v, labels) for m, v in logits.items()}
    assert found.calibration.temperature == pytest.approx(temperature, rel=1e-6)

    def soft(values):
        return torch.from_numpy(values).double().softmax(dim=1).numpy()

    pooled = fit_pooling(*(soft(logits[m] / np.float64(temperature[m])) for m in ("optical", "elevation")), labels)
    assert found.calibration.weight["optical"] == pytest.approx(pooled, abs=1e-4)
    expected = Reliability.of(soft(logits["optical"]), labels)
    assert np.array_equal(found.reliability["optical"].count, expected.count)


def test_pixels_without_label_or_heights_do_not_count():
    data = Windows({"optical": True, "elevation": True})
    clean = calibrate(networks(), data).calibration
    spoilt = Windows({"optical": True, "elevation": True})
    spoilt.batch["labels"][:, 40:] = 255
    spoilt.batch["elevation_valid"][:, :, 50:] = False
    expected = calibrate(networks(), spoilt)
    spoilt.batch["optical"][:, :, 40:] = 99 * torch.randn(4, K, SIDE - 40, SIDE)
    spoilt.batch["elevation"][:, :, :, 50:] = 99 * torch.randn(4, K, SIDE, SIDE - 50)
    found = calibrate(networks(), spoilt)
    assert found.calibration == expected.calibration != clean
    assert found.reliability["optical"].count.sum() == 4 * 40 * SIDE
    assert found.reliability["elevation"].count.sum() == 4 * 40 * 50
    assert found.reliability["both, calibrated"].count.sum() == 4 * 40 * 50


def test_modalities_that_never_meet_weigh_the_same():
    data = Windows({"optical": True, "elevation": False})
    data.batch["optical_valid"][:, 32:] = False
    data.batch["elevation_valid"][:, :32] = False
    found = calibrate(networks(), data)
    assert found.calibration.weight == {"optical": 0.5, "elevation": 0.5}
    assert "both, calibrated" not in found.reliability


def looked_at_in_places(data, most_px):
    pixels = ValidationPixels(data.whole_val_labelled_px, most_px)
    for batch in data.whole_val_dataloader():
        pixels.add({m: batch[m] for m in MODALITIES}, batch)
    return pixels.fit()


def test_who_is_right_where_two_branches_differ():
    """Of 300 pixels on which the image says 0 and the heights 1, the labels say 0 on 250, 1 on 40, 2 on 10."""
    said = {"optical": [0] * 300 + [2] * 50 + [1] * 9, "elevation": [1] * 300 + [2] * 50 + [0] * 9}
    labels = [0] * 250 + [1] * 40 + [2] * 10 + [1] * 50 + [1] * 9
    batch = {"labels": torch.tensor(labels)[None, None]}
    batch |= {f"{m}_valid": torch.ones_like(batch["labels"], dtype=torch.bool) for m in MODALITIES}
    batch["elevation_valid"][0, 0, -9:] = False  # nothing is compared there
    logits = {m: torch.nn.functional.one_hot(torch.tensor(k), K).T[None, :, None].float() for m, k in said.items()}
    pixels = ValidationPixels(len(labels))
    pixels.add(logits, batch)
    ahead = np.zeros((K, K))
    ahead[0, 1] = (250 - 40) / (300 + 100)  # 100 pixels of doubt
    assert pixels.lead("optical", "elevation") == pytest.approx(ahead)
    assert not pixels.lead("elevation", "optical").any()
    batch["elevation_valid"][:] = False
    apart = ValidationPixels(len(labels))
    apart.add(logits, batch)
    assert apart.lead("optical", "elevation").tolist() == [[0.0] * K] * K


def test_a_large_split_is_looked_at_in_places():
    data = Windows({"optical": True, "elevation": True})
    found = looked_at_in_places(data, 1000)
    looked_at = found.reliability["optical"].count.sum()
    assert 1000 <= looked_at <= 1100
    assert found.calibration.temperature["optical"] == pytest.approx(1, abs=0.2)


def test_nothing_is_kept_for_a_gradient():
    nets = networks()
    calibrate(nets, Windows({"optical": True, "elevation": True}))
    assert nets["optical"].asked == nets["elevation"].asked == [(2, True), (2, True)]


def test_a_modality_of_which_no_pixel_is_looked_at_keeps_its_temperature():
    data = Windows({"optical": True, "elevation": True})
    data.batch["elevation_valid"][:] = False
    data.batch["elevation_valid"][0, 0, 1:3] = True
    data.batch["elevation"] *= 3
    found = looked_at_in_places(data, 100)
    assert found.calibration.temperature["elevation"] == 1
    assert found.calibration.weight == {"optical": 0.5, "elevation": 0.5}
    assert list(found.reliability) == ["optical", "optical, calibrated"]


def test_a_training_that_diverged_ends_in_a_message():
    data = Windows({"optical": True, "elevation": True})
    data.batch["elevation"][0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError) as error:
        calibrate(networks(), data)
    assert str(error.value) == (
        "The training diverged: expected finite logits of the elevation branch, found infinity or NaN.\n"
        "Reduce `training.optimiser.learning_rate`, or give `training.precision='32-true'`."
    )
