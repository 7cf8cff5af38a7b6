"""Tables and figure of a study: means, standard deviations and paired differences, as Markdown, CSV and PNG."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from spread import spread

from geocrodino.evaluation.metrics import ConfusionMatrix, mean_iou

_DRAWS = 2000
"""Samples of a bootstrap."""

_FEWEST_SEEDS = 3
"""With fewer seeds there is no interval."""

COLOURS = {"optical": "#2f6fb7", "elevation": "#e08a2e", "fusion": "#7a7f87"}
"""Colours of the networks in figures."""

_SOURCES = {"optical": "image", "elevation": "heights", "fusion": "one network of both"}
"""What a network predicts from, in the tables of the documentation."""


@dataclass(frozen=True)
class Row:
    """Results of one method on one scene. The lists have one entry per seed.

    Attributes:
        scene: Name of the scene.
        method: Name of the method.
        results: Content of ``result.json``.
        blocks: Confusion counts by ``network|labels``, int64, shape (blocks, K, K).
    """

    scene: str
    method: str
    results: list[dict[str, Any]]
    blocks: list[dict[str, NDArray[np.int64]]]

    def miou(self, key: str) -> NDArray[np.float64]:
        """List the mIoU of all seeds.

        Args:
            key: ``network|labels``.

        Returns:
            mIoU in %, float64, shape (seeds,).
        """
        return np.array([100 * r["test_miou"][key] for r in self.results])


def write_tables(title: str, baseline: str, rows: list[Row], root: Path) -> str:
    """Write ``results.md``, ``results.csv`` and ``results.png``.

    Args:
        title: Title of the study.
        baseline: The method that others are compared with.
        rows: Results of all methods and scenes.
        root: Output folder; created if it does not exist.

    Returns:
        The content of ``results.md``.
    """
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        f"## {title}",
        "",
        "mIoU in % on `test`, mean ± standard deviation over seeds, and on `val`, on which each network's epoch was",
        f"chosen. In brackets: the difference from `{baseline}` over the seeds that both have, and for three seeds or",
        "more its 95 % interval, from a bootstrap over seeds and spatial blocks of 128 px.",
        *_number_formats(rows),
        "",
    ]
    lines += _overview(baseline, rows)
    records = []
    for scene in dict.fromkeys(r.scene for r in rows):
        own = [r for r in rows if r.scene == scene]
        base = next((r for r in own if r.method == baseline), None)
        keys = list(dict.fromkeys(k for r in own for k in r.blocks[0]))
        for labels in dict.fromkeys(k.split("|")[1] for k in keys):
            present = [k for k in keys if k.endswith(f"|{labels}")]
            lines += [f"### {scene}, scored on {labels}", "", *_header(present)]
            for row in own:
                cells = []
                for key in present:
                    record = _record(row, base, key)
                    cells.append(_cell(record, row is base))
                    if record is not None:
                        records.append(record)
                val = [_val(row, key.split("|")[0]) for key in present]
                lines.append(f"| {row.method} | {len(row.results)} | {' | '.join([*cells, *val])} | {_cost(row)} |")
            lines.append("")
    text = "\n".join(lines)
    (root / "results.md").write_text(text)
    if records:
        with (root / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
        _draw(title, records, root / "results.png")
    return text


def compact_tables(baseline: str, rows: list[Row]) -> tuple[list[str], list[dict[str, Any]]]:
    """Make the tables of a study for a page: differences from the baseline over all scenes, then the scores.

    Args:
        baseline: The method that others are compared with.
        rows: Results of all methods and scenes.

    Returns:
        Lines of Markdown, and a record of each score; numbers are in %, None where there is none.
    """
    lines, records = _overview(baseline, rows)[2:], []  # without its heading
    networks = list(dict.fromkeys(key.split("|")[0] for row in rows for key in row.blocks[0]))
    head = ["scene", "scored on", "method", "seeds", *(_SOURCES.get(network, network) for network in networks)]
    lines += [f"| {' | '.join(head)} | minutes |", "|" + "---|" * (len(head) + 1)]
    for scene in dict.fromkeys(row.scene for row in rows):
        own = [row for row in rows if row.scene == scene]
        base = next((row for row in own if row.method == baseline), None)
        for labels in dict.fromkeys(key.split("|")[1] for row in own for key in row.blocks[0]):
            for row in own:
                found = [_record(row, base, f"{network}|{labels}") for network in networks]
                records += [record for record in found if record is not None]
                cells = [scene, labels, row.method, str(len(row.results)), *(_cell(r, row is base) for r in found)]
                lines.append(f"| {' | '.join(cells)} | {np.mean([r['minutes'] for r in row.results]):.1f} |")
    note = f"mIoU in % on `test`, mean ± standard deviation over seeds; in brackets the difference from `{baseline}`."
    return [*lines, "", note], [{key: _plain(value) for key, value in record.items()} for record in records]


def class_table(baseline: str, rows: list[Row]) -> list[str]:
    """Make a table of what each class gains or loses, on the labels of the scene.

    Args:
        baseline: The method that others are compared with.
        rows: Results of all methods and scenes.

    Returns:
        Lines of Markdown: mean differences of the IoU in points over the seeds that both have; classes that the labels
        of ``test`` lack are left out.
    """
    lines = [f"| scene | method | from | IoU of classes, difference from `{baseline}` |", "|---|---|---|---|"]
    bases = {row.scene: row for row in rows if row.method == baseline}
    for row in (r for r in rows if r.method != baseline and r.scene in bases):
        count = next(iter(row.blocks[0].values())).shape[-1]
        named = row.results[0]["settings"]["classes"]
        names = [c["name"] for c in named] if named else [f"class {index}" for index in range(count)]
        base = bases[row.scene]
        pairs = [(row.blocks[own], base.blocks[other]) for own, other in _common_seeds(row, base)]
        for network in (k.split("|")[0] for k in row.blocks[0] if k.endswith("|labels")):
            key = f"{network}|labels"
            gains = np.mean([_class_iou(own[key]) - _class_iou(other[key]) for own, other in pairs], axis=0)
            told = ", ".join(f"{n} {g:+.1f}" for n, g in zip(names, gains, strict=True) if np.isfinite(g))
            lines.append(f"| {row.scene} | {row.method} | {_SOURCES.get(network, network)} | {told} |")
    return lines


def _class_iou(blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class in %, NaN for classes that the labels lack, shape (K,)."""
    matrix = ConfusionMatrix(blocks.shape[-1])
    matrix.counts += blocks.sum(axis=0)
    return np.where(matrix.counts.sum(axis=1) > 0, 100 * np.array(matrix.scores().iou), np.nan)


def _plain(value: Any) -> Any:
    """A value for JSON: NaN becomes None, numbers of NumPy become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def _number_formats(rows: list[Row]) -> list[str]:
    """A line with the number formats of the trainings; no line without rows."""
    names = dict.fromkeys(result["settings"]["training"]["precision"] for row in rows for result in row.results)
    return [f"Number format of the trainings: {', '.join(names)}."] if names else []


def _overview(baseline: str, rows: list[Row]) -> list[str]:
    """For each method, the mean, lowest and highest difference from the baseline over scenes and branches."""
    bases = {row.scene: row for row in rows if row.method == baseline}
    lines = []
    for method in dict.fromkeys(row.method for row in rows if row.method != baseline):
        val, test = [], []
        for row in (r for r in rows if r.method == method and r.scene in bases):
            base = bases[row.scene]
            pairs = [(row.results[own], base.results[other]) for own, other in _common_seeds(row, base)]
            for network in ("optical", "elevation"):
                key = f"{network}|labels"
                if pairs and all(key in result["test_miou"] for pair in pairs for result in pair):
                    val.append(np.mean([100 * (a["val_miou"][network] - b["val_miou"][network]) for a, b in pairs]))
                    test.append(np.mean([100 * (a["test_miou"][key] - b["test_miou"][key]) for a, b in pairs]))
        if val:
            cells = (f"{np.mean(d):+.1f} ({np.min(d):+.1f} to {np.max(d):+.1f})" for d in (val, test))
            lines.append(f"| {method} | {len(val)} | {' | '.join(cells)} |")
    if not lines:
        return []
    head = ["| method | branches | val | test |", "|---|---|---|---|"]
    return [f"### Over all scenes, difference from {baseline}", "", *head, *lines, ""]


def _seed(result: dict[str, Any]) -> int:
    seed: int = result["settings"]["training"]["seed"]
    return seed


def _common_seeds(row: Row, base: Row) -> list[tuple[int, int]]:
    """Places of the seeds that both rows have, in the lists of the one and of the other."""
    places = {_seed(result): place for place, result in enumerate(base.results)}
    return [(place, places[_seed(r)]) for place, r in enumerate(row.results) if _seed(r) in places]


def _header(keys: list[str]) -> list[str]:
    names = [k.split("|")[0] for k in keys]
    cells = " | ".join([*names, *(f"val {n}" for n in names)])
    return [
        f"| method | seeds | {cells} | minutes | parameters, M | memory, MB |",
        "|---|---|" + "---|" * (2 * len(names) + 3),
    ]


def _cost(row: Row) -> str:
    minutes = np.mean([r["minutes"] for r in row.results])
    parameters = np.mean([max(r["parameters"].values()) for r in row.results]) / 1e6
    memory = np.mean([r["peak_memory_mb"] for r in row.results])
    return f"{minutes:.1f} | {parameters:.1f} | {memory:.0f}"


def _val(row: Row, network: str) -> str:
    scores = np.array([100 * r["val_miou"][network] for r in row.results if network in r["val_miou"]])
    return spread(scores) if scores.size else ""


def _record(row: Row, base: Row | None, key: str) -> dict[str, Any] | None:
    if any(key not in b for b in row.blocks):
        return None
    scores = row.miou(key)
    network, labels = key.split("|")
    record: dict[str, Any] = {
        "scene": row.scene,
        "labels": labels,
        "method": row.method,
        "network": network,
        "seeds": len(scores),
        "val_miou": 100 * np.mean([r["val_miou"][network] for r in row.results]),
        "miou": scores.mean(),
        "sd": scores.std(ddof=1) if len(scores) > 1 else float("nan"),
        "difference": float("nan"),
        "low": float("nan"),
        "high": float("nan"),
        "minutes": np.mean([r["minutes"] for r in row.results]),
    }
    if base is not None and row is not base and all(key in b for b in base.blocks):
        record["difference"], record["low"], record["high"] = paired_difference(row, base, key)
    return record


def paired_difference(row: Row, base: Row, key: str) -> tuple[float, float, float]:
    """Compute the mean difference in mIoU over the seeds that both rows have, and its 95 % interval.

    The bootstrap draws both seeds and blocks with replacement: an interval over blocks alone would ignore the
    randomness of the training.

    Args:
        row: Results of a method.
        base: Results of the baseline on the same scene.
        key: ``network|labels``.

    Returns:
        Mean, lower and upper end in percentage points. All are NaN without a common seed; the ends are NaN with fewer
        than three.
    """
    pairs = [(row.blocks[own][key], base.blocks[other][key]) for own, other in _common_seeds(row, base)]
    if not pairs:
        return float("nan"), float("nan"), float("nan")
    mean = float(np.mean([100 * (mean_iou(a.sum(axis=0)) - mean_iou(b.sum(axis=0))) for a, b in pairs]))
    if len(pairs) < _FEWEST_SEEDS:
        return mean, float("nan"), float("nan")
    used = np.flatnonzero(sum(a.sum(axis=(1, 2)) for a, _ in pairs))
    rng = np.random.default_rng(0)
    blocks = rng.multinomial(len(used), np.full(len(used), 1 / len(used)), _DRAWS)
    seeds_drawn = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), _DRAWS) / len(pairs)
    differences = [
        100 * (mean_iou(np.tensordot(blocks, a[used], axes=1)) - mean_iou(np.tensordot(blocks, b[used], axes=1)))
        for a, b in pairs
    ]
    low, high = np.nanquantile((seeds_drawn * np.stack(differences, axis=1)).sum(axis=1), [0.025, 0.975])
    return mean, float(low), float(high)


def _cell(record: dict[str, Any] | None, is_baseline: bool) -> str:
    if record is None:
        return ""
    text = f"{record['miou']:.1f}" + ("" if np.isnan(record["sd"]) else f" ± {record['sd']:.1f}")
    if is_baseline or np.isnan(record["difference"]):
        return text
    interval = "" if np.isnan(record["low"]) else f": {record['low']:+.1f} to {record['high']:+.1f}"
    return f"{text} ({record['difference']:+.1f}{interval})"


def _draw(title: str, records: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each scene and kind of labels, with a line for each method."""
    panels = list(dict.fromkeys((r["scene"], r["labels"]) for r in records))
    most = max(len({r["method"] for r in records if (r["scene"], r["labels"]) == p}) for p in panels)
    columns = min(3, len(panels))
    figure = Figure(figsize=(1.5 + 4 * columns, (1.2 + 0.3 * most) * -(-len(panels) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        own = [r for r in records if (r["scene"], r["labels"]) == panel]
        methods = list(dict.fromkeys(r["method"] for r in own))
        for network, colour in COLOURS.items():
            points = [r for r in own if r["network"] == network]
            if points:
                axis.errorbar(
                    [r["miou"] for r in points],
                    [methods.index(r["method"]) for r in points],
                    xerr=[np.nan_to_num(r["sd"]) for r in points],
                    fmt="o",
                    color=colour,
                    label=network,
                    capsize=2,
                )
        axis.set_yticks(range(len(methods)), methods)
        axis.invert_yaxis()
        axis.set_title(f"{panel[0]}, {panel[1]}", fontsize=10)
        axis.grid(axis="x", color="#dddddd")
        axis.set_xlabel("mIoU, %")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
