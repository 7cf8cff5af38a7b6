"""What of a bundle's branch is loaded: channels and classes by name, everything else as it is."""

from __future__ import annotations

import pytest
import torch

from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.models.branch import build_branch
from geocrodino.settings.classes import ClassScheme, LandClass
from geocrodino.settings.network import NetworkSettings
from geocrodino.training.start_weights import load_branch, match_channels, match_classes

SMALL = {"encoder": "tu-resnet10t", "depth": 3, "invariant_channels": 4}
FPN = NetworkSettings(decoder="fpn", decoder_channels=(8,), **SMALL)
UNET = NetworkSettings(decoder="unet", decoder_channels=(16, 8, 8), **SMALL)
STEM = "encoder.model.conv1.0.weight"


def channel(name):
    return Channel(name=name, unit="digital number", low=0, high=255, mean=100, std=20)


def image(*names):
    recipe = Recipe(modality="optical", bands=tuple(range(1, len(names) + 1)), band_names=names, dtype="uint8")
    return ModalitySpec(recipe=recipe, channels=tuple(map(channel, names)))


def heights(*names):
    return ModalitySpec(recipe=Recipe(modality="elevation", channels=names), channels=tuple(map(channel, names)))


def scheme(**values):
    return ClassScheme(classes=tuple(LandClass(value=v, name=n.replace("_", " ")) for n, v in values.items()))


def branches(old, new, network=FPN):
    """A branch of a bundle with normal random numbers everywhere, and one to load it into; (channels, classes) each."""
    torch.manual_seed(0)
    made = build_branch(network, *old)
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point():
                value.normal_()
    return made, build_branch(network, *new)


def test_a_branch_with_the_same_channels_and_classes_is_loaded_whole():
    old, new = branches((2, 3), (2, 3))
    same = match_channels(image("red", "nir"), image("red", "nir"))
    assert load_branch(new, old, same, match_classes(scheme(a=0, b=1, c=2), scheme(a=0, b=1, c=2))) == []
    assert old.state_dict().keys() == new.state_dict().keys()
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())


@pytest.mark.parametrize("network", [FPN, UNET], ids=["fpn", "unet"])
def test_rows_of_common_classes_are_loaded_by_name_and_others_stay_new(network):
    old, new = branches((2, 3), (2, 4), network)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    classes = match_classes(scheme(water=0, road=1, tree=2), scheme(Tree=7, wheat=8, water=9, moor=10))
    assert classes.sources == (2, None, 0, None)
    assert classes.words == "Tree, water by name, wheat, moor start new, road of the bundle are not used"
    channels = match_channels(image("red", "nir"), image("red", "nir"))
    assert load_branch(new, old, channels, classes) == []
    last = "decoder.classifier" if network is UNET else "decoder.classifier.1"
    for name in (f"{last}.weight", f"{last}.bias"):
        found, there = new.state_dict()[name], old.state_dict()[name]
        assert torch.equal(found[0], there[2])
        assert torch.equal(found[2], there[0])
        assert torch.equal(found[[1, 3]], before[name][[1, 3]])
    rest = [name for name in before if not name.startswith(last)]
    assert all(torch.equal(new.state_dict()[name], old.state_dict()[name]) for name in rest)


def test_channels_are_loaded_by_name_and_new_ones_add_nothing():
    old, new = branches((3, 2), (4, 2))
    channels = match_channels(image("red", "green", "blue"), image("Blue", "green", "red_B4", "nir"))
    assert channels.sources == (2, 1, 0, None)
    assert channels.words == "Blue, green, red_B4 by name, nir with weights of 0 at the start"
    load_branch(new, old, channels, match_classes(scheme(a=0, b=1), scheme(a=0, b=1)))
    kernel, there = new.state_dict()[STEM], old.state_dict()[STEM]
    assert torch.equal(kernel[:, :3], there[:, [2, 1, 0]])
    assert not kernel[:, 3].any()


def test_both_encoders_of_a_branch_read_the_channels_by_name():
    network = FPN.model_copy(update={"separate_encoders": True})
    old, new = branches((2, 2), (1, 2), network)
    channels = match_channels(heights("height", "slope"), heights("slope"))
    assert (channels.sources, channels.words) == ((1,), "slope by name, height of the bundle are not used")
    assert load_branch(new, old, channels, match_classes(scheme(a=0, b=1), scheme(a=0, b=1))) == []
    for name in (STEM, f"specific_{STEM}"):
        assert torch.equal(new.state_dict()[name], old.state_dict()[name][:, 1:])


def test_bands_without_names_are_adapted_as_encoder_weights_are():
    old, new = branches((3, 2), (4, 2))
    channels = match_channels(image("red", "green", "blue"), image("band 1", "band 2", "band 3", "band 4"))
    assert (channels.sources, channels.rule) == ((0, 1, 2, 0), "repeat")
    assert channels.words == (
        "band 1, band 2, band 3, band 4 start from those of the bundle (red, green, blue), repeated and rescaled"
    )
    load_branch(new, old, channels, match_classes(scheme(a=0, b=1), scheme(a=0, b=1)))
    there = old.state_dict()[STEM]
    assert torch.equal(new.state_dict()[STEM], there[:, [0, 1, 2, 0]] * 0.75)


def test_as_many_bands_without_names_are_taken_by_number():
    found = match_channels(image("red", "green"), image("band 1", "band 2"))
    assert (found.sources, found.rule) == ((0, 1), "start")
    assert found.words == "band 1, band 2 by number, because one side has no names"


def test_other_height_channels_start_new():
    old, new = branches((1, 2), (2, 2))
    before = new.state_dict()[STEM].clone()
    channels = match_channels(heights("height"), heights("slope", "topographic_position"))
    assert (channels.sources, channels.rule) == ((None, None), "new")
    assert channels.words == "slope, topographic_position start new (the bundle has height)"
    assert load_branch(new, old, channels, match_classes(scheme(a=0, b=1), scheme(a=0, b=1))) == []
    assert torch.equal(new.state_dict()[STEM], before)


def test_classes_without_names_match_by_value_only_if_all_values_are_the_same():
    bare = scheme(class_1=1, class_2=2)
    same = match_classes(bare, scheme(class_2=2, class_1=1))
    assert (same.sources, same.words) == ((1, 0), "2, 1 by value")
    other = match_classes(bare, scheme(class_1=1, class_3=3))
    assert other.sources == (None, None)
    assert other.words == (
        "class 1, class 3 start new, because none has the name of a class of the bundle, "
        "class 1, class 2 of the bundle are not used"
    )
    assert match_classes(bare, scheme(class_1=1, road=2)).sources == (None, None)
