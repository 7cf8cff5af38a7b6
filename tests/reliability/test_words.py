"""Words that are misspelt, in the settings and on the command line, and colours: a suggestion, said once."""

from __future__ import annotations

import pytest
import yaml

from geocrodino.errors import GeocrodinoError
from reliability.kinds import case

WORD = "an unknown word"

CHANGES = [
    ({"method": {"name": "crodino-kd"}}, "method.name: input should be", "found 'crodino-kd'. Did you mean crodino?"),
    ({"method": {"contrast": "pixels"}}, "method.contrast", "Did you mean pixel?"),
    ({"network": {"decoder": "u-net"}}, "network.decoder", "Did you mean unet?"),
    ({"elevation": {"channels": ["slop"]}}, "elevation.channels.0", "Did you mean slope?"),
    ({"training": {"accelerator": "cup"}}, "training.accelerator", "Did you mean cpu?"),
    ({"training": {"precision": "bf16_mixed"}}, "training.precision", "Did you mean bf16-mixed?"),
    ({"trainig": {}}, "trainig: is not a known key. Did you mean training?", ""),
    ({"training": {"epochs": "ten"}}, "training.epochs: input should be a valid integer", "found 'ten'"),
    ({"training": {"epochs": 0}}, "training.epochs: input should be greater than or equal to 1, found 0", ""),
    ({"data": {"resolution_m": float("nan")}}, "data.resolution_m: expected a finite number, found nan.", ""),
]  # fmt: skip


def settings(changes):
    content = {"data": {r: f"{r}.tif" for r in ("optical", "elevation", "labels", "aoi")}}
    for section, value in changes.items():
        content[section] = {**content.get(section, {}), **value} if isinstance(value, dict) else value
    return content


@pytest.mark.parametrize("change", [case(WORD, "refused", c, id=c[1].split(":")[0]) for c in CHANGES])
def test_a_word_in_the_settings(tmp_path, change):
    from geocrodino.settings.config import load_config

    changes, *told = change
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(settings(changes)))
    with pytest.raises(GeocrodinoError) as caught:
        load_config(path, {})
    for words in told:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        case(WORD, "refused", "predict a.tif --layer confidense", "Did you mean confidence?", id="layer"),
        case(WORD, "refused", "predict a.tif --modality optcal", "Did you mean optical?", id="modality"),
        case(WORD, "refused", "predict a.tif --backend openvno", "Did you mean openvino?", id="backend"),
        case(WORD, "refused", "predict a.tif --precision haf", "Did you mean half?", id="precision"),
        case(WORD, "refused", "predct a.tif", "Did you mean", id="command"),
        case(WORD, "refused", "predict a.tif --modalty optical", "Possible options: --modality", id="option"),
    ],
)
def test_a_word_on_the_command_line(run_cli, words, told):
    code, _, err = run_cli(*words.split())
    assert code == 2
    assert told in " ".join(err.replace("│", " ").split())


COLOURS = {"red": "#ff0000", "#888": "#888888", "#C8B68C": "#C8B68C", "RED": "#ff0000", "steelblue": "#4682b4"}


@pytest.mark.parametrize("colour", [case(WORD, "right", c, id=c) for c in COLOURS])
def test_a_colour_by_name_or_in_short(colour):
    from geocrodino.settings.classes import LandClass

    land = LandClass(value=1, name="a", colour=colour)
    assert land.colour == COLOURS[colour]
    assert land.rgb == tuple(bytes.fromhex(COLOURS[colour][1:]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        case(WORD, "refused", 'colour: gren', "Did you mean green?", id="misspelt colour"),
        case(WORD, "refused", "colour: #888", "put it in quotes", id="a comment for a colour"),
        case(WORD, "refused", "colour: 888", "the CSS name of a colour, found 888", id="number"),
        case(WORD, "refused", "color: red", "0.color, classes.1.color: is not a known key. Did you mean colour?",
             id="the same key in every item"),
        case(WORD, "refused", "colour: red\n    colour: blue", "the key 'colour' is there twice", id="twice"),
    ],
)  # fmt: skip
def test_a_class_in_the_settings(tmp_path, text, told):
    from geocrodino.settings.config import load_config

    path = tmp_path / "study.yaml"
    items = "".join(f"  - value: {v}\n    name: c{v}\n    {text}\n" for v in (1, 2))
    path.write_text(f"{yaml.safe_dump(settings({}))}classes:\n{items}")
    with pytest.raises(GeocrodinoError) as caught:
        load_config(path, {})
    assert told in str(caught.value)
    assert str(caught.value).count(told) == 1 or "known key" not in told
