"""Check that every public function and method documents its arguments, result, errors, and shapes.

    python docs/check_docstrings.py            a table of the rooms, then what is missing; exit code 1 if anything is
    python docs/check_docstrings.py --table    the table alone

A docstring needs ``Args:`` with each argument if there are any, ``Returns:`` or ``Yields:`` if there is a result,
``Raises:`` if the body raises, and a shape if an argument or the result is an array or tensor. Properties need one
line.
Commands of the command line are documented by their options.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "geocrodino"
UNDOCUMENTED_ROOMS = {"cli"}
_ARRAY = re.compile(r"\b(NDArray|Tensor|ndarray|DataArray)\b")
_SIDE = r"[A-Za-z0-9.][A-Za-z0-9 *+/.-]*"
_SHAPE = re.compile(rf"\bshape\b|\bscalar\b|\([A-Z0-9]({_SIDE})?(, *{_SIDE})+,?\)|\([A-Z],\)")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """One public function.

    Attributes:
        place: File and line.
        name: Qualified name.
        needs: Sections that its signature and body ask for.
        lacks: Those that its docstring does not have.
    """

    place: str
    name: str
    needs: frozenset[str]
    lacks: frozenset[str]


def main() -> None:
    """Print the table and what is missing."""
    package = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), PACKAGE)
    found: dict[str, list[Documented]] = {}
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0] if path.parent != package else "(root)"
        if room not in UNDOCUMENTED_ROOMS:
            found.setdefault(room, []).extend(public_functions(path, str(path.relative_to(package.parent))))
    print("| room | public functions | Args % | Returns % | Raises % | shapes % |\n|---|---|---|---|---|---|")
    everything = [each for functions in found.values() for each in functions]
    for room, functions in [*found.items(), ("all", everything)]:
        shares = (_share(functions, section) for section in ("Args", "Returns", "Raises", "shape"))
        print(f"| {room} | {len(functions)} | {' | '.join(shares)} |")
    if "--table" in sys.argv:
        return
    lacking = [each for each in everything if each.lacks]
    for each in lacking:
        print(f"{each.place}: {each.name} lacks {', '.join(sorted(each.lacks))}")
    sys.exit(bool(lacking))


def public_functions(path: Path, shown: str) -> Iterator[Documented]:
    """The public functions and methods of a file.

    Args:
        path: The file.
        shown: Its name in the report.

    Yields:
        Each function, properties left out.
    """
    scopes: list[tuple[str, list[ast.stmt]]] = [("", ast.parse(path.read_text(encoding="utf-8")).body)]
    for prefix, body in scopes:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                scopes.append((f"{prefix}{node.name}.", node.body))
            elif isinstance(node, Function) and _is_public(node):
                needs = _needs(node)
                yield Documented(f"{shown}:{node.lineno}", prefix + node.name, needs, needs - _has(node))


def _is_public(node: Function) -> bool:
    if node.name.startswith("_") and node.name != "__call__":
        return False
    decorators = {ast.unparse(d).split("(")[0].split(".")[-1] for d in node.decorator_list}
    return not decorators & {"property", "cached_property", "overload", "setter"}


def _needs(node: Function) -> frozenset[str]:
    arguments = _arguments(node)
    result = "None" if node.returns is None else ast.unparse(node.returns)
    annotations = [ast.unparse(a.annotation) for a in arguments if a.annotation] + [result]
    needs = {
        "Args": bool(arguments),
        "Returns": result not in {"None", "NoReturn", "Never"},
        "Raises": any(isinstance(n, ast.Raise) and n.exc is not None for n in _own(node)),
        "shape": any(_ARRAY.search(annotation) for annotation in annotations),
    }
    return frozenset(name for name, needed in needs.items() if needed)


def _has(node: Function) -> frozenset[str]:
    text = ast.get_docstring(node) or ""
    has = {
        "Args": "Args:" in text and all(re.search(rf"\b{a.arg}\b", text) for a in _arguments(node)),
        "Returns": "Returns:" in text or "Yields:" in text,
        "Raises": "Raises:" in text,
        "shape": bool(_SHAPE.search(text)),
    }
    return frozenset(name for name, there in has.items() if there)


def _arguments(node: Function) -> list[ast.arg]:
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a for a in found if a.arg not in {"self", "cls"} and not a.arg.startswith("_")]


def _own(node: Function) -> Iterator[ast.AST]:
    """Nodes of a function's body, those of functions inside it left out."""
    todo: list[ast.AST] = list(node.body)
    while todo:
        each = todo.pop()
        yield each
        if not isinstance(each, Function | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(each))


def _share(functions: list[Documented], section: str) -> str:
    asked = [each for each in functions if section in each.needs]
    return f"{100 * sum(section not in each.lacks for each in asked) / len(asked):.0f}" if asked else ""


if __name__ == "__main__":
    main()
