"""The program: its commands, and how it prints errors and warnings."""

from __future__ import annotations

import os
import re
import sys
import warnings
from errno import EACCES
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from geocrodino import __version__
from geocrodino.cli import datasets, evaluate, export, init, inspect, predict, quantise, sample, train
from geocrodino.cli.streams import lenient_streams
from geocrodino.cli.wording import Wording
from geocrodino.errors import AccessError, ConfigError, GeocrodinoError
from geocrodino.spelling import did_you_mean


class _Commands(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty word, as of a shell variable that is not set: a path would name the present folder."""
        for before, word in zip(["", *args], args, strict=False):
            if word == "" or re.fullmatch(r"--[a-z-]+=", word):
                where = word.rstrip("=") or (before if before.startswith("-") else "an argument")
                raise ConfigError(
                    f"{where}: expected a value, found an empty text. Is a variable of the shell not set?\n"
                    "Give a value, or leave it out."
                )
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Report the state of the work after Ctrl-C; suggest a correction of a misspelt word."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            locked = re.search(r"path '(.*)' is not readable", error.message, re.DOTALL)
            if locked:  # Typer checks some paths itself; print the message that all other paths get
                raise AccessError.because(locked[1], OSError(EACCES, os.strerror(EACCES))) from None
            error.message = error.message.replace("Value error, ", "", 1)
            error.message += _suggestion(error.message)
            raise
        except KeyboardInterrupt as error:
            notes = getattr(error, "__notes__", ["Unfinished results are not written."])
            text = ctx.ensure_object(Wording)("\n".join(["Stopped.", *notes]))
            Console(stderr=True, soft_wrap=True, highlight=False).print(text.replace("\n", " "), markup=False)
            raise typer.Exit(130) from None


def _suggestion(refusal: str) -> str:
    """Suggest the most similar of the words that an error about an option's value lists."""
    found = re.search(r"'([^']*)' is not one of (.*)", refusal)
    return did_you_mean(found[1], re.findall(r"'([^']*)'", found[2])) if found else ""


app = typer.Typer(
    name="geocrodino",
    cls=_Commands,
    help="Land-cover maps from an optical image or a surface model, whichever you have.\n\n"
    "Train once where you have both, predict later from either one.\n\n"
    "First steps:  geocrodino sample town  |  cd town  |  geocrodino train --aoi aoi.geojson  |  "
    "geocrodino predict optical.tif --modality optical",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("sample")(sample.sample)
app.command("init")(init.init)
app.command("inspect")(inspect.inspect)
app.command("datasets")(datasets.datasets)
app.command("train")(train.train)
app.command("quantise")(quantise.quantise)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"geocrodino {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    os.environ["GEOCRODINO_DEBUG"] = "1" if debug else ""
    commands = ctx.command.commands if isinstance(ctx.command, TyperGroup) else {}
    ctx.ensure_object(Wording).command = commands.get(ctx.invoked_subcommand or "")


def main() -> None:
    """Run the program. An error that a user can correct ends in one message and exit code 2."""
    with lenient_streams() as output:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        wording = Wording()
        _quiet(console, wording)
        try:
            _run(console, wording)
        except SystemExit as ended:
            output.flush()
            lost = output.failure is not None and not isinstance(output.failure, BrokenPipeError)
            if lost and not ended.code:
                console.print(
                    f"[bold red]Error:[/] standard output: cannot be written ({output.failure}). The files are "
                    "complete, but part of the text is lost."
                )
                sys.exit(2)
            raise


def _run(console: Console, wording: Wording) -> None:
    try:
        app(obj=wording)
    except (GeocrodinoError, MemoryError, RuntimeError, OSError) as error:
        text, *advice = _message(error)
        if os.environ.get("GEOCRODINO_DEBUG") or not text:
            raise
        notes = getattr(error, "__notes__", ())
        console.print("[bold red]Error:[/]", escape(wording("\n".join([text, *notes, *advice]))))
        sys.exit(2)


def _message(error: Exception) -> tuple[str, ...]:
    """The message of an error and, where there is some, advice to print after its notes; empty for a bug."""
    if isinstance(error, GeocrodinoError):
        return (str(error),)
    if isinstance(error, OSError):
        return (_access_message(error), "Show where it happened: geocrodino --debug COMMAND ...")
    # Python and NumPy raise MemoryError; torch has other errors, one for GPUs and one for CPUs.
    torch_is_full = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    if not (isinstance(error, MemoryError) or torch_is_full):
        return ("",)
    return (
        f"out of memory: {str(error).partition(chr(10))[0]}",
        "Use less memory: a smaller --batch-size or --patch-px for a training; fewer --workers for a map, or start it "
        "anew with a smaller --tile-px or --batch.",
    )


def _access_message(error: OSError) -> str:
    """The message of an operating-system error that the package did not convert into one of its own."""
    name = error.filename if error.filename2 is None else f"{error.filename} or {error.filename2}"
    if name is None or error.strerror is None:
        return f"a file cannot be read or written: {error}"
    return str(AccessError.because(os.fsdecode(name) if isinstance(name, bytes) else str(name), error))


def _quiet(console: Console, wording: Wording) -> None:
    """Print the package's own warnings on one line, and those of libraries only with ``--debug``."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category.__module__.startswith("geocrodino"):
            console.print(f"[yellow]Warning:[/] {escape(wording(str(message)))}")
        elif os.environ.get("GEOCRODINO_DEBUG"):
            console.print(f"{category.__name__}: {escape(str(message))}", style="dim")

    warnings.showwarning = show
