import json

import pytest
from helpers.small_scenes import make_manifest, make_specs

from geocrodino.export.plugins import choose_overlap, input_divisor, plugin_metadata
from geocrodino.settings.classes import ClassScheme

SCHEME = ClassScheme.from_values([2, 5, 9], ["ground", "tree, high", "Gebäude"])


def metadata(modality, **options):
    manifest = make_manifest(make_specs(heights=("height", "slope")), scheme=SCHEME, resolution_m=0.9144)
    options = {"tile_px": 512, "overlap_percent": 30, **options}
    return plugin_metadata(manifest, modality, **options)


def test_values_are_json_as_both_programs_read_them():
    found = {key: json.loads(value) for key, value in metadata("optical").items()}
    assert found["model_type"] == "Segmentor"
    assert found["class_names"] == {"0": "ground", "1": "tree, high", "2": "Gebäude"}
    assert found["resolution"] == 91.44
    assert (found["tile_size"], found["tiles_size"], found["tiles_overlap"]) == (512, 512, 30)
    assert (found["seg_thresh"], found["seg_small_segment"]) == (0, 0)
    assert [c["value"] for c in found["geocrodino"]["classes"]] == [2, 5, 9]


def test_geodeep_converts_numbers_without_json():
    found = metadata("optical")
    assert (float(found["resolution"]), float(found["tiles_overlap"]), int(found["seg_small_segment"])) == (
        91.44,
        30,
        0,
    )


def test_an_image_is_standardised_by_the_graph():
    found = metadata("optical")
    assert json.loads(found["standardization_mean"]) == [0, 0, 0]
    assert json.loads(found["standardization_std"]) == [1, 1, 1]
    assert json.loads(found["geocrodino"])["input"] == "values of the channels in their units, divided by 255"


def test_the_standardisation_undoes_the_division_of_deepness_for_heights():
    found = metadata("elevation")
    mean, std = json.loads(found["standardization_mean"]), json.loads(found["standardization_std"])
    assert mean == [0, 0]
    assert [round((12.5 / 255 - m) / s, 9) for m, s in zip(mean, std, strict=True)] == [12.5, 12.5]
    assert json.loads(found["geocrodino"])["input"] == "values of the channels in their units"


def test_only_bands_of_images_come_divided():
    assert {m: input_divisor(spec) for m, spec in make_specs().items()} == {"optical": 255, "elevation": 1}


@pytest.mark.parametrize(
    ("field_px", "tile_px", "percent"),
    [(150, 1024, 30), (0, 512, 0), (128, 512, 50), (150, 512, 50), (1, 1024, 1), (None, 512, 25)],
)
def test_the_overlap_follows_the_receptive_field(field_px, tile_px, percent):
    assert choose_overlap(field_px, tile_px) == percent


def test_the_overlap_leaves_context_to_every_kept_pixel():
    for field_px in (7, 33, 90, 150):
        assert choose_overlap(field_px, 1024) * 1024 / 100 / 2 >= field_px
