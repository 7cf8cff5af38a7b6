"""The first layer of pretrained weights for another number of bands."""

from __future__ import annotations

import pytest
import timm
import torch

from geocrodino.models.first_layer import first_layer


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
def test_repeat_is_the_rule_of_timm(channels):
    kernel = torch.randn(2, 3, 3, 3)
    assert torch.equal(
        first_layer(kernel, channels, "repeat", pytest.fail), timm.models.adapt_input_conv(channels, kernel)
    )


def test_repeat_keeps_the_response_to_equal_channels():
    kernel = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    assert first_layer(kernel, 4, "repeat", pytest.fail).flatten().tolist() == [0.5, 1.5, 0.5, 1.5]
    assert first_layer(kernel, 1, "repeat", pytest.fail).flatten().tolist() == [4.0]
