"""Names of the registered modalities; their definitions are in `geocrodino.modalities`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import Annotated, Any, overload

ENTRY_POINTS = "geocrodino.modalities"
"""Group of the entry points by which another package registers its modalities."""

_RESERVED = {"auto", "both", "fusion", "ground", "labels", "source"}
"""Words with another meaning where modalities are named."""


class ModalityNames(Sequence[str]):
    """Names of the registered modalities, in the order of their registration."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)
        self._entry_points_loaded = False

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return tuple(self._names)[index]

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"ModalityNames({', '.join(map(repr, self._names))})"

    def add(self, name: str) -> None:
        """Add a name at the end; a name that exists already keeps its place.

        Args:
            name: Letters, digits and underscores, the first not a digit.

        Raises:
            ValueError: If it is not such a name, or a reserved word.
        """
        if not name.isidentifier() or name in _RESERVED:
            raise ValueError(
                f"expected a name of letters, digits and underscores, none of {', '.join(sorted(_RESERVED))}, "
                f"found {name!r}"
            )
        if name not in self._names:
            self._names.append(name)

    def remove(self, name: str) -> None:
        """Remove a name.

        Args:
            name: The name.

        Raises:
            ValueError: If there is no such name.
        """
        self._names.remove(name)

    def knows(self, name: object) -> bool:
        """Look a name up; if it is unknown, load the entry points of other packages once and look again.

        Args:
            name: The name; values that are not strings are never known.

        Returns:
            Whether a registered modality has this name.
        """
        if name not in self._names and not self._entry_points_loaded:
            self._entry_points_loaded = True
            for found in entry_points(group=ENTRY_POINTS):
                found.load()
        return name in self._names

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Sort names into the order of registration, which is that of channels, files and messages.

        Args:
            names: Names in any order.

        Returns:
            Those of them that are registered, in order, without duplicates.
        """
        there = set(names)
        return tuple(name for name in self._names if name in there)


MODALITIES = ModalityNames("optical", "elevation")
"""All registered modalities. ``optical``: any bands of an image. ``elevation``: a surface model."""


class _Registered:
    """Make pydantic accept only names of registered modalities; pydantic_core is imported when a model is built."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def check(name: str) -> str:
            if MODALITIES.knows(name):
                return name
            *first, last = map(repr, MODALITIES)
            expected = f"{', '.join(first)} or {last}" if first else last
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})

        return core_schema.no_info_after_validator_function(check, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), "enum": list(MODALITIES)}


Modality = Annotated[str, _Registered()]
"""Name of a registered modality."""
