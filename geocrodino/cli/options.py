"""Commands whose options are the fields of dataclasses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter, Signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from geocrodino.settings.prediction import OptionField, option_fields


@dataclass(frozen=True)
class GivenAs:
    """Form of an option on the command line, where it differs from that of the Python argument.

    Attributes:
        type: Type of the option on the command line.
        convert: Turns a value of that type into the value of the field; None stays None.
        default: Default on the command line, None for the default of the field.
    """

    type: Any
    convert: Callable[[Any], Any] = lambda value: value
    default: Any = None


def with_options(given_as: Mapping[str, GivenAs] | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace each parameter of a command that is a dataclass by one option for each of its fields.

    A parameter ``tiling: Annotated[Tiling, "Work"]`` takes a `Tiling`; on the command line its fields are options, in
    the panel ``Work`` of the help. Fields of a group of `geocrodino.settings.prediction` take their help from there;
    other fields are annotated as parameters of a Typer command are.

    Args:
        given_as: Fields whose form on the command line differs, by name.

    Returns:
        A decorator for a command.
    """
    converters = given_as or {}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        groups: dict[str, type] = {}
        parameters: list[Parameter] = []
        for name, parameter in inspect.signature(command).parameters.items():
            group, panel = _group(hints[name])
            if group is None:
                parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))
            else:
                groups[name] = group
                parameters += _parameters(group, panel, converters)

        @functools.wraps(command)
        def run(**values: Any) -> None:
            for name, group in groups.items():
                values[name] = group(
                    **{each.name: _converted(each.name, values.pop(each.name), converters) for each in fields(group)}
                )
            command(**values)

        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _group(hint: Any) -> tuple[Any, str | None]:
    """The dataclass of a parameter and its help panel; None for a parameter of another type."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    return (kind, next(iter(extras), None)) if is_dataclass(kind) else (None, None)


def _parameters(group: type, panel: str | None, given_as: Mapping[str, GivenAs]) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    described = {each.name: each for each in option_fields(group)}
    for each in fields(group):
        hint, default = hints[each.name], each.default
        if each.name in described:
            form = given_as.get(each.name, GivenAs(hint))
            default = default if form.default is None else form.default
            hint = Annotated[form.type, _typer_option(described[each.name], panel)]
        yield Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _typer_option(option: OptionField, panel: str | None) -> Any:
    return typer.Option(
        option.flag, help=option.text, min=option.least, rich_help_panel=panel, show_default=option.default is not None
    )


def _converted(name: str, value: Any, given_as: Mapping[str, GivenAs]) -> Any:
    return given_as[name].convert(value) if name in given_as and value is not None else value
