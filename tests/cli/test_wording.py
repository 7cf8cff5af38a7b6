"""Arguments in messages of the library become options of the command that runs."""

from __future__ import annotations

import shlex

import pytest
import typer

from geocrodino.cli import train
from geocrodino.cli.app import app
from geocrodino.cli.wording import Wording
from geocrodino.errors import ConfigError

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize(
    ("command", "message", "told"),
    [
        ("predict", "`overwrite=True`", "--overwrite"),
        ("predict", "`resume`", "--resume"),
        ("predict", "`height_unit='m'`", "--height-unit m"),
        ("predict", "`rescale=1/257`", "--rescale 1/257"),
        ("predict", "`core_px`", "--tile-px"),
        ("predict", "`bands=(1, 2, 3)`", "--bands 1,2,3"),
        ("predict", "`bands=(1,)`", "--bands 1"),
        ("predict", "`layers=['confidence', 'entropy']`", "--layer confidence --layer entropy"),
        ("predict", "`resume=True, overwrite=True`", "--resume --overwrite"),
        ("predict", "`batch=1` or `stitch='blend'`", "--batch 1 or --stitch blend"),
        ("train", "`resume=True, out='runs/a b'`", "--resume --out 'runs/a b'"),
        ("train", "`method.name='kd'`", "--method kd"),
        ("train", "`network.encoder`", "--encoder"),
        ("train", "`encoder_weights='random'`", "--weights random"),
        ("train", "`training.steps_per_epoch`", "--steps"),
        ("train", "`training.optimiser.learning_rate`", "--learning-rate"),
        ("train", "`data.resolution_m`", "--resolution"),
        ("train", "`data.cache='copy'`", "--cache copy"),
        ("train", "`height_unit='m'`", "--height-unit m (`height_unit: m` under `data`)"),
        ("inspect", "`ignore_values=[-1, 255]`", "--ignore -1 --ignore 255 (`ignore_values: [-1, 255]` under `data`)"),
        ("inspect", "`data.label_values`", "--label-value (`label_values` under `data`)"),
        (
            "evaluate",
            "`label_values={255: 1, 7: 2}`",
            "--label-value 255=1 --label-value 7=2 (`label_values: {255: 1, 7: 2}` under `data`)",
        ),
        ("train", "`data.label_rules.column`", "--label-column"),
        ("inspect", "a column `split`, or `patch_px=64`", "a column `split`, or --patch-px 64"),
        ("evaluate", "`label_column='use'`", "--label-column use"),
        ("evaluate", "In the configuration, write them.", "In the configuration (--config), write them."),
        ("inspect", "Name each in the configuration:", "Name each in the configuration (--config):"),
        ("evaluate", "`aoi='1,2,3,4'`", "--aoi 1,2,3,4"),
        ("evaluate", "`aoi='-1,2,3,4'`", "--aoi=-1,2,3,4"),
        ("evaluate", "`aoi='POLYGON ((1 2))'`", "--aoi 'POLYGON ((1 2))'"),
        ("evaluate", "`count_missed=True`", "--count-missing"),
        ("sample", "`overwrite=True`", "--overwrite"),
    ],
)
def test_options_of_a_command(command, message, told):
    assert Wording(COMMANDS[command])(f"a.tif: use {message}, or \\[not].") == f"a.tif: use {told}, or \\[not]."


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample", "`resume=True`"),
        ("train", "`core_px`"),
        ("predict", "`data.height_unit`"),
        ("train", "`elevation.ground`"),
        ("train", "`elevation.channels`"),
        ("train", "`resume=True, memory='1GB'`"),
        ("evaluate", "no column `split`"),
        ("train", "the column `seed`"),
        ("train", "`fusion: middle`"),
        ("train", "`label_values: {255: 1}`"),
        ("predict", "`dask worker ADDRESS`"),
        ("predict", "`aoi='`"),
        ("predict", "`**resume`"),
        ("predict", "`resume, overwrite`"),
        ("predict", "`f) + g(resume=True`"),
        ("predict", "``resume``"),
    ],
)
def test_other_words_stay_as_they_are(command, message):
    assert Wording(COMMANDS[command])(message) == message


def test_before_a_command_runs():
    assert Wording()("`overwrite=True`") == "`overwrite=True`"


def test_every_option_of_a_training_is_the_word_for_its_setting(run_cli, here, monkeypatch):
    """What `train` writes into the configuration under a key, messages that name the key call by the option."""

    def refuse(config, given, teacher, out):
        keys.update({key: value for key, value in given.items() if value is not None})
        raise ConfigError(" ".join(f"`{key}`" for key in sorted(keys)))

    keys: dict[str, object] = {}
    monkeypatch.setattr(train, "check_training", refuse)
    options = {option.name: option for option in COMMANDS["train"].params}
    words = []
    for name in sorted(
        options.keys()
        - {"ctx", "config", "out", "teacher", "resume", "overwrite", "help", "dataset", "root", "dry_run"}
    ):
        words += [options[name].opts[0], {"label_value": "255=1", "height_zero": "camera"}.get(name, "7")]
    code, _, err = run_cli("train", *words)
    assert code == 2
    told = [word for word in shlex.split(err.replace("`", "'")) if word.startswith("--")]
    assert sorted(told) == sorted(word for word in words if word.startswith("--"))
    assert len(keys) == len(told)


def test_notes_and_warnings_of_a_command(run_cli, here, monkeypatch):
    def refuse(*_):
        import warnings

        from geocrodino.errors import AreaWarning

        warnings.warn("named by `aoi_crs`", AreaWarning, stacklevel=1)
        error = ConfigError("a.tif: refused.\nUse `epochs=3`.")
        error.add_note("Go on with `resume=True`.")
        raise error

    monkeypatch.setattr(train, "check_training", refuse)
    code, _, err = run_cli("train")
    assert code == 2
    assert err == ("Warning: named by --aoi-crs\nError: a.tif: refused.\nUse --epochs 3.\nGo on with --resume.\n")


def test_the_note_of_an_interruption(run_cli, here, monkeypatch):
    def interrupt(*_):
        error = KeyboardInterrupt()
        error.add_note("Run the same training with `resume=True, out='runs/a'`: it continues.")
        raise error

    monkeypatch.setattr(train, "check_training", interrupt)
    code, _, err = run_cli("train")
    assert (code, err) == (130, "Stopped. Run the same training with --resume --out runs/a: it continues.\n")
