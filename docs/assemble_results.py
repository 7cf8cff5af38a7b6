"""Put the tables of docs/results into the pages.

    python docs/assemble_results.py            write the tables into the pages
    python docs/assemble_results.py --check    change nothing; exit code 1 if a page differs from its tables
    python docs/assemble_results.py --list     every table: where it stands, whether it is made, by which command

A page holds places such as

    <!-- table: default-autzen -->
    <!-- end of table -->

Each table is made by one command, which writes ``NAME.md`` and ``NAME.json`` to docs/results. The tables of several
scenes are made here from those numbers. If a table is missing, no page is changed, the command that makes it is
printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "pipelines"))

from spread import spread  # noqa: E402

PAGES = ("README.md", "docs/results.md", "docs/choosing.md")
"""Pages with tables, relative to the root of the repository."""

SCENES = {
    "default-autzen": "Autzen",
    "default-zion": "Zion",
    "default-mars": "Mars",
    "default-town": "Generated town",
}
"""Tables of the scenes, with the name of the scene."""

COMMANDS = {
    "default-autzen": "python pipelines/real_scenes.py configs/autzen.yaml",
    "default-zion": "python pipelines/real_scenes.py configs/zion.yaml",
    "default-mars": "python pipelines/real_scenes.py configs/mars.yaml",
    "default-town": "python pipelines/real_scenes.py town --no-forest",
    "unseen-towns": "python pipelines/real_scenes.py town --no-forest",
    "labels": "python pipelines/study.py configs/studies/default_labels.yaml --fragment labels --classes",
    "methods": "python pipelines/study.py configs/studies/default_methods.yaml --fragment methods",
    "networks": "python pipelines/study.py configs/studies/networks.yaml --fragment networks",
    "peers-autzen": "python benchmarks/accuracy.py --scene configs/autzen.yaml --steps 400 --geoai-python PYTHON",
    "peers-zion": "python benchmarks/accuracy.py --scene configs/zion.yaml --steps 400 --seeds 0",
    "networks-cost": "python benchmarks/networks.py --fragment networks-cost",
    "rates": "python pipelines/study.py configs/studies/rates.yaml --fragment rates",
    "training": "python pipelines/study.py configs/studies/training.yaml --fragment training",
}
"""The command that makes each table."""

_PLACE = re.compile(r"<!-- table: (?P<name>[^\n]*?) -->\n(?P<content>.*?)<!-- end of table -->", re.DOTALL)
_MARK = re.compile(r"<!-- table: |<!-- end of table -->")

Numbers = Mapping[str, Mapping[str, Any]]
"""Contents of the JSON files by name of the table."""


class PageError(Exception):
    """A page or a table cannot be used; the text says why and what to do."""


def main() -> None:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="change nothing; fail if a page differs from its tables")
    action.add_argument("--list", action="store_true", help="list the tables and the commands that make them")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the repository")
    options = parser.parse_args()
    try:
        if options.list:
            print("\n".join(listing(options.root)))
            return
        changed = assemble(options.root, write=not options.check)
    except PageError as error:
        sys.exit(str(error))
    if options.check and changed:
        sys.exit(
            f"{', '.join(changed)}: the tables differ from those in docs/results. Expected the same text.\n"
            "Write them into the pages: python docs/assemble_results.py"
        )
    print(f"{'Written' if changed else 'Up to date'}: {', '.join(changed or PAGES)}")


def assemble(root: Path, *, write: bool) -> list[str]:
    """Put the tables into the pages.

    Args:
        root: Folder of the repository.
        write: Whether to write the pages.

    Returns:
        The pages that differ, or differed, from their tables.

    Raises:
        PageError: If a table is missing or cannot be used, or a place in a page has no end or no known name.
    """
    pages = {page: (root / page).read_text(encoding="utf-8") for page in PAGES}
    needed = list(dict.fromkeys(name for page, text in pages.items() for name in places(page, text)))
    missing = _missing(needed, root)
    if missing:
        commands = "\n".join(f"  {command}    # {', '.join(names)}" for command, names in missing.items())
        raise PageError(f"Tables are missing in {root / 'docs' / 'results'}. These commands make them:\n{commands}")
    tables = {name: _table(name, root) for name in needed}
    filled = {page: _PLACE.sub(lambda m: _filled(m["name"], tables), text) for page, text in pages.items()}
    changed = [page for page, text in filled.items() if text != pages[page]]
    for page in changed if write else ():
        (root / page).write_text(filled[page], encoding="utf-8")
    return changed


def places(page: str, text: str) -> list[str]:
    """List the places of a page.

    Args:
        page: Name of the page, for messages.
        text: Its content.

    Returns:
        Names of the tables, in their order.

    Raises:
        PageError: If a place has no end, or a name is not known.
    """
    found = [match["name"] for match in _PLACE.finditer(text)]
    if len(_MARK.findall(text)) != 2 * len(found):
        raise PageError(
            f"{page}: expected each line <!-- table: NAME --> to be followed by a line <!-- end of table -->; found "
            f"{len(_MARK.findall(text))} such lines, of which {2 * len(found)} form pairs. Add the missing line."
        )
    known = [*COMMANDS, *COMBINED]
    for name in found:
        if name not in known:
            raise PageError(f"{page}: expected a table of {', '.join(known)}; found {name!r}. Correct the name.")
    return found


def listing(root: Path) -> list[str]:
    """Describe all tables.

    Args:
        root: Folder of the repository.

    Returns:
        A line for each table: name, state, pages, command.
    """
    where: dict[str, list[str]] = {name: [] for name in [*COMMANDS, *COMBINED]}
    for page in PAGES:
        for name in places(page, (root / page).read_text(encoding="utf-8")):
            where[name].append(page)
    return [
        f"{name}: {'missing' if _missing([name], root) else 'made'}; in {', '.join(pages) or 'no page'}; "
        + (COMMANDS[name] if name in COMMANDS else f"from {', '.join(_parts(name))}")
        for name, pages in where.items()
    ]


def summary_table(numbers: Numbers) -> list[str]:
    """Make the table of the mean IoU from the image, the heights and both, for all scenes.

    Args:
        numbers: Numbers of the scenes.

    Returns:
        Lines of Markdown.

    Raises:
        PageError: If the scenes were not trained with one network and one method.
    """
    _require_one_network(numbers)
    lines = ["| scene | image | heights | both | seeds |", "|---|---|---|---|---|"]
    for name, shown in SCENES.items():
        rows = [row for row in numbers[name]["rows"] if row["method"] == "geocrodino"]
        kinds = list(dict.fromkeys(row["labels"] for row in rows))
        for kind in kinds:
            found = {row["from"]: row["miou_same_pixels"] for row in rows if row["labels"] == kind}
            scene = f"{shown}, {'dense labels' if kind == 'labels' else kind}" if len(kinds) > 1 else shown
            cells = [spread(found[source]) for source in ("image", "heights", "both")]
            lines.append(f"| {scene} | {' | '.join(cells)} | {len(found['both'])} |")
    return lines


COMBINED: dict[str, tuple[Callable[[Numbers], list[str]], tuple[str, ...]]] = {
    "summary": (summary_table, tuple(SCENES)),
}
"""Tables made from the numbers of several others, with the names of those."""


def _require_one_network(numbers: Numbers) -> None:
    keys = ("network", "method", "encoder_weights")
    used = {name: [numbers[name]["settings"].get(key) for key in keys] for name in SCENES}
    first = next(iter(used))
    differing = [name for name, settings in used.items() if settings != used[first]]
    if differing:
        raise PageError(
            f"docs/results: expected one network, method and start of the weights for all scenes; "
            f"{', '.join(differing)} differ from {first}. Make them anew:\n"
            + "\n".join(f"  {COMMANDS[name]}" for name in differing)
        )


def _parts(name: str) -> tuple[str, ...]:
    return COMBINED[name][1] if name in COMBINED else (name,)


def _missing(names: list[str], root: Path) -> dict[str, list[str]]:
    """Tables that are not made yet, by the command that makes them."""
    missing: dict[str, list[str]] = {}
    for part in dict.fromkeys(part for name in names for part in _parts(name)):
        if not all((root / "docs" / "results" / f"{part}.{suffix}").exists() for suffix in ("md", "json")):
            missing.setdefault(COMMANDS[part], []).append(part)
    return missing


def _table(name: str, root: Path) -> str:
    """The lines between the marks of a place."""
    folder = root / "docs" / "results"
    numbers = {part: json.loads((folder / f"{part}.json").read_text(encoding="utf-8")) for part in _parts(name)}
    if name in COMBINED:
        return "\n".join(COMBINED[name][0](numbers))
    text = (folder / f"{name}.md").read_text(encoding="utf-8").strip()
    if not text:
        raise PageError(f"{folder / name}.md: expected a table, found an empty file. Make it anew:\n  {COMMANDS[name]}")
    return f"{text}\n\n{_made_by(numbers[name])}"


def _made_by(numbers: Mapping[str, Any]) -> str:
    """A line with the command, the seeds and the device of a table."""
    seeds = numbers.get("seeds")
    told = [f"seeds {', '.join(map(str, seeds))}"] if isinstance(seeds, list) else []
    return f"*Made by `{numbers['command']}`; {'; '.join([*told, numbers['device']])}.*"


def _filled(name: str, tables: Mapping[str, str]) -> str:
    return f"<!-- table: {name} -->\n\n{tables[name]}\n\n<!-- end of table -->"


if __name__ == "__main__":
    main()
