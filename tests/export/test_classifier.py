import numpy as np
import pytest
import torch
from scipy.special import softmax

from geocrodino.export.check import random_values
from geocrodino.export.classifier import Classifier, traced


@pytest.mark.parametrize("modality", ["optical", "elevation"])
@pytest.mark.parametrize("divisor", [1, 255])
def test_a_classifier_scales_as_the_bundle_does(two_branches, modality, divisor):
    manifest = two_branches.manifest
    spec, temperature = manifest.modalities[modality], manifest.temperature(modality)
    network = two_branches.branch(modality)
    classifier = Classifier(network, spec, temperature=temperature, divisor=divisor).eval()
    values = random_values(spec, 64)
    with torch.inference_mode():
        found = classifier(torch.from_numpy(values / np.float32(divisor))[None]).numpy()[0]
        logits = network(torch.from_numpy(spec.normalise(values))[None]).numpy()[0]
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=0), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_random_values_leave_the_range_of_the_training_and_have_a_hole(two_branches):
    for spec in two_branches.manifest.modalities.values():
        values = random_values(spec, 64)
        assert np.isnan(values[0, :16, :16]).all()
        assert np.isfinite(values).sum() == values.size - 16 * 16
        assert any((v[np.isfinite(v)] < c.low).any() for v, c in zip(values, spec.channels, strict=True))


def test_a_traced_network_takes_any_batch_and_names_no_file(two_branches):
    spec = two_branches.manifest.modalities["elevation"]
    classifier = Classifier(two_branches.branch("elevation"), spec, temperature=1, divisor=1).eval()
    program = traced(classifier, 1, 64)
    assert "stack_trace" not in {key for node in program.graph.nodes for key in node.meta}
    for batch in (1, 3):
        assert program.module()(torch.zeros(batch, 1, 64, 64)).shape[0] == batch
