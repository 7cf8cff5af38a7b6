"""Commands whose options are fields of dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from geocrodino.cli.options import GivenAs, with_options
from geocrodino.settings.prediction import Tiling


@dataclass(frozen=True)
class Own:
    """A group that only the command line has."""

    colour: Annotated[str, typer.Option(help="A colour.")] = "red"


def test_fields_become_options_and_the_command_gets_the_groups():
    seen = []

    @with_options(
        {"block_px": GivenAs(str | None, lambda text: 2 * int(text)), "stitch": GivenAs(str, default="blend")}
    )
    def command(name: str, tiling: Annotated[Tiling, "Work"], own: Own, loud: bool = False) -> None:
        seen.append((name, tiling, own, loud))

    app = typer.Typer()
    app.command()(command)

    def run(*words):
        result = CliRunner().invoke(app, [*words])
        assert result.exit_code == 0, result.output
        return seen.pop()

    assert run("a") == ("a", Tiling(stitch="blend"), Own(), False)
    assert run("a", "--tile-px", "64", "--block-px", "3", "--colour", "blue", "--loud") == (
        "a",
        Tiling(core_px=64, block_px=6, stitch="blend"),
        Own("blue"),
        True,
    )
    assert CliRunner().invoke(app, ["a", "--tile-px", "0"]).exit_code == 2
    assert "Work" in CliRunner().invoke(app, ["--help"]).output
