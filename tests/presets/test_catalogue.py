"""Names, colours and splits of the presets, compared with those of torchgeo's classes where it has them."""

from __future__ import annotations

import matplotlib.colors
import pytest
from torchgeo.datasets import DFC2022 as TorchGeoDFC2022
from torchgeo.datasets import GeoNRW, Potsdam2D, Vaihingen2D

from geocrodino.files.tile_names import matching_files
from geocrodino.presets.catalogue import PRESETS
from geocrodino.settings.classes import ClassScheme, LandClass
from geocrodino.settings.labels import LabelRules


def words(name):
    return {word.strip("s") for word in name.lower().replace("/", " ").replace(",", " ").split()}


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_forms_settings(name):
    values = PRESETS[name].settings()
    if not PRESETS[name].classes:
        assert "label_rules" not in values["data"]
        return
    scheme = ClassScheme(classes=tuple(LandClass(**each) for each in values["classes"]))
    rules = LabelRules(**values["data"]["label_rules"])
    assert tuple(rules.table) == scheme.names
    assert scheme.values == tuple(range(len(scheme)))  # a table numbers classes in its order
    assert len(set(PRESETS[name].colours.values())) == len(scheme)


@pytest.mark.parametrize(("name", "theirs"), [("potsdam", Potsdam2D), ("vaihingen", Vaihingen2D)])
def test_isprs_is_as_in_torchgeo(name, theirs):
    preset = PRESETS[name]
    ours = {matplotlib.colors.to_rgb(colour): words(each) for each, colour in preset.colours.items()}
    for their_name, (red, green, blue) in zip(theirs.classes, theirs.colormap, strict=True):
        assert ours[red / 255, green / 255, blue / 255] & words(their_name)
    image = preset.layers["optical"][-1].rpartition("/")[2]
    for split in ("train", "test"):
        mine = {n for s in (("train", "val") if split == "train" else ("test",)) for n in preset.splits[s]}
        pattern = image.replace("{row}_{col}", "{}").replace("{area}", "{}")
        names = {pattern.format(n) for n in mine}
        assert names == {
            f"{each.removesuffix('.tif')}{'_RGB' if name == 'potsdam' else ''}.tif" for each in theirs.splits[split]
        }


def test_geonrw_is_as_in_torchgeo():
    preset = PRESETS["geonrw"]
    for code, (name, colour) in enumerate(zip(GeoNRW.classes, GeoNRW.colormap.colors, strict=True)):
        mine = [each for each, codes in preset.classes.items() if code in codes]
        if code == 0:
            assert preset.ignore == (0,)
            continue
        assert preset.colours[mine[0]] == colour
        assert words(mine[0]) & words(name)
    assert tuple(pattern.removesuffix("_*") for pattern in preset.splits["test"]) == GeoNRW.test_list


def test_dfc2022_is_as_in_torchgeo():
    preset = PRESETS["dfc2022"]
    assert preset.ignore == (0, 15)
    for code, (name, colour) in enumerate(zip(TorchGeoDFC2022.classes, TorchGeoDFC2022.colormap, strict=True)):
        mine = [each for each, codes in preset.classes.items() if code in codes]
        assert bool(mine) == (code not in {0, 15})
        if mine:
            assert preset.colours[mine[0]] == colour.lower()
            assert words(mine[0]) & words(name)


def test_normalised_heights_are_not_taken_for_the_surface_model():
    paths = ["/d/dsm/dsm_09cm_matching_area1.tif", "/d/dsm/dsm_09cm_matching_area1_normalized.jpg"]
    (surface,) = PRESETS["vaihingen"].layers["elevation"]
    (above,) = PRESETS["vaihingen-ndsm"].layers["elevation"]
    assert [matching_files(f"/d/**/{pattern}", paths) for pattern in (surface, above)] == [paths[:1], paths[1:]]
