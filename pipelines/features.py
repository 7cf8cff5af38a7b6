"""Test whether the two halves of trained branches are modality-invariant and modality-specific, as their names say.

    python pipelines/features.py runs/autzen --out runs/features
    python pipelines/features.py runs/studies/methods/autzen/"crodino, class contrast"/seed* --out runs/features

A run is a folder that ``geocrodino train`` wrote. Several runs may differ only in seed, labels and area. The features
are those of the deepest map, at positions that are valid in both modalities. Probes are fitted on positions of
``train``, all with the same number of samples; all results are for positions of ``test``. Writes and prints
``features.md``, which also explains the numbers, and draws ``features.png`` for the first run. The halves of the
method ``single`` differ only in name: a run of it shows the numbers without disentanglement.

References:
    Alain & Bengio (2017). Understanding intermediate layers using linear classifier probes.
    https://arxiv.org/abs/1610.01644
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from features_table import HALVES, Half, Number, Numbers, table
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scoring import with_margin
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import covering_windows
from geocrodino.data.scenes import AlignedScene
from geocrodino.files.access import whole_file
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.rasters.window import Window
from geocrodino.losses.contrastive import majority_labels
from geocrodino.losses.disentanglement import orthogonality_loss
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.training.folder import BUNDLE_NAME, recorded_settings
from geocrodino.training.prepare import Prepared, prepare

Features = dict[tuple[Modality, Half], NDArray[np.float32]]

_WAYS: tuple[tuple[Modality, Modality], ...] = (("optical", "elevation"), ("elevation", "optical"))
_MOST = 6000
"""Most samples that a probe is fitted on, and most positions that it is scored on."""
_FEWEST = 10
"""A class with fewer positions in ``train`` or ``test`` is left out."""
_CANDIDATES = 200
_LANDMARKS = 300
_COMPONENTS = 3
_WINDOW_PX = 512  # a multiple of every stride
_WINDOWS = 24
"""Windows of a large scene that samples are drawn from; more if these have too few positions."""
_SHOWN = 40
"""Most features along a side of the picture."""


@dataclass(frozen=True)
class Sample:
    """Features and labels at the same N positions.

    Attributes:
        features: Features by modality and half, float32, each (N, C).
        labels: Class index of each position, int64, shape (N,).
    """

    features: Features
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Pixels under each feature of the whole scene, shape (h, w).

    Attributes:
        labels: The most frequent class index, uint8, 255 where no pixel is labelled.
        seen: Whether at least half of the pixels are valid in both modalities.
        inside: For ``train`` and ``test``: whether all pixels belong to the split.
        stride: Pixels per feature.
    """

    labels: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    inside: dict[str, NDArray[np.bool_]]
    stride: int


def main() -> None:
    """Measure all runs, draw the first, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, help="folder for table, picture and aligned layers")
    options = parser.parse_args()
    configs = [recorded_settings(run) for run in options.runs]
    if any(_common_settings(c) != _common_settings(configs[0]) for c in configs):
        parser.error(
            "the runs differ in more than seed, labels and area: their mean has no meaning. Measure them one by one."
        )
    if configs[0].method.name == "fusion":
        parser.error("the network of the method fusion needs both modalities: it has no halves to compare.")
    found, counted = [], []
    for run, config in zip(options.runs, configs, strict=True):
        ready = prepare(config, options.out / "scene")
        bundle = load_bundle(run / BUNDLE_NAME)
        cells = find_cells(ready, bundle.manifest.network.stride_px)
        if not found:
            draw(bundle, ready, cells, f"{config.method.name}, {run}", options.out / "features.png")
        samples = [read_sample(bundle, ready, cells, split) for split in ("train", "test")]
        found.append(measure(*samples))
        counted = counted or samples
    text = table(configs[0].method.name, found, *(sample.labels for sample in counted), ready.classes.names)
    with whole_file(options.out / "features.md") as partial:
        partial.write_text(text)
    print(text)


def _common_settings(config: TrainConfig) -> object:
    """The settings in which runs must agree."""
    data = config.data.model_copy(update={"labels": Path(), "aoi": ""})
    return config.model_copy(update={"data": data, "training": config.training.model_copy(update={"seed": 0})})


def find_cells(ready: Prepared, stride: int) -> Cells:
    """Summarise the pixels under each feature of a scene. Pixels at the edges that do not fill a feature are left out.

    Args:
        ready: The prepared scene.
        stride: Pixels per feature.

    Returns:
        Labels and masks by feature.
    """
    indices, classes = ready.scenes[0].layers.class_indices(), len(ready.classes)
    height, width = (side // stride for side in indices.shape)
    labels, seen = np.full((height, width), IGNORE_INDEX, np.uint8), np.zeros((height, width), bool)
    for window in ready.scenes[0].layers.blocks():
        r0, r1, c0, c1 = (v // stride for v in window)
        if r0 == r1 or c0 == c1:
            continue
        pixels = (slice(r0 * stride, r1 * stride), slice(c0 * stride, c1 * stride))
        here = (slice(r0, r1), slice(c0, c1))
        block = torch.from_numpy(indices[pixels].astype(np.int64))[None]
        labels[here] = majority_labels(block, (r1 - r0, c1 - c0), classes)[0].numpy()
        valid = [
            _share_per_feature(np.isfinite(ready.scenes[0].layers.channels(m)[:, *pixels]).all(axis=0), stride)
            for m in MODALITIES
        ]
        seen[here] = np.minimum(*valid) >= 0.5
    test = inside_mask(ready.checked[0].aoi.polygons("test"), ready.grid)
    inside = {"train": ready.scenes[0].inside["train"], "test": test}
    return Cells(labels, seen, {s: _share_per_feature(mask, stride) == 1 for s, mask in inside.items()}, stride)


def _share_per_feature(mask: NDArray[np.bool_], stride: int) -> NDArray[np.float64]:
    """Share of True pixels under each feature."""
    height, width = (side // stride for side in mask.shape)
    whole = mask[: height * stride, : width * stride]
    shares: NDArray[np.float64] = whole.reshape(height, stride, width, stride).mean(axis=(1, 3))
    return shares


def read_sample(bundle: Bundle, ready: Prepared, cells: Cells, split: str) -> Sample:
    """Read features at labelled positions of a split.

    If there are more than 6000, a random choice of them is read, the same for every run.

    Args:
        bundle: The trained branches.
        ready: The prepared scene.
        cells: Labels and masks by feature.
        split: ``train`` or ``test``.

    Returns:
        Features and labels.
    """
    rng = np.random.default_rng(0)
    usable = cells.inside[split] & cells.seen & (cells.labels != IGNORE_INDEX)
    near, count = np.zeros(usable.shape, bool), 0
    windows = covering_windows(usable, _WINDOW_PX // cells.stride)
    for done, number in enumerate(rng.permutation(len(windows))):
        if done >= _WINDOWS and count >= _MOST:
            break
        here = (slice(*windows[number][:2]), slice(*windows[number][2:]))
        near[here] = usable[here]
        count += int(near[here].sum())
    places = np.flatnonzero(near)
    chosen = np.zeros(usable.shape, bool)
    chosen.flat[rng.permutation(places)[:_MOST]] = True
    return Sample(read_features(bundle, ready, chosen), cells.labels[chosen].astype(np.int64))


@torch.inference_mode()
def read_features(bundle: Bundle, ready: Prepared, chosen: NDArray[np.bool_]) -> Features:
    """Compute both halves of the features of both branches at chosen positions.

    Args:
        bundle: The trained branches.
        ready: The prepared scene.
        chosen: The positions, bool, shape (h, w).

    Returns:
        Features by modality and half, float32, each (N, C), row by row.
    """
    dataset = CoregisteredDataset([AlignedScene.of(ready.scenes[0].layers)], dict(bundle.manifest.modalities))
    network = bundle.manifest.network
    branches = {m: bundle.branch(m) for m in MODALITIES}
    order = np.cumsum(chosen).reshape(chosen.shape) - 1
    shape = (int(chosen.sum()), network.invariant_channels)
    features: Features = {(m, half): np.empty(shape, np.float32) for m in MODALITIES for half in HALVES}
    for window in covering_windows(chosen, _WINDOW_PX // network.stride_px):
        here = (slice(*window[:2]), slice(*window[2:]))
        rows, columns = np.nonzero(chosen[here])
        r0, r1, c0, c1 = (v * network.stride_px for v in window)
        batch, offset = with_margin(dataset, (r0, r1, c0, c1), network.stride_px)
        top, left = (v // network.stride_px for v in offset)
        for m in MODALITIES:
            # The deepest map as in forward_features, without the decoder.
            halves = branches[m].encode(batch[m])[-1][0, :, top + rows, left + columns].T.chunk(2, dim=1)
            for half, values in zip(HALVES, halves, strict=True):
                features[m, half][order[here][rows, columns]] = values.numpy()
    return features


def measure(train: Sample, test: Sample) -> dict[Half, Numbers]:
    """Compute all results of each half.

    Args:
        train: Sample to fit probes on.
        test: Sample to score on. Class probes leave out classes that are rare in either sample.

    Returns:
        Results of each half by name.

    Raises:
        ValueError: If fewer than two classes are left.
    """
    channels = next(iter(test.features.values())).shape[1]
    halves = {half: {**_probe_modality(train, test, half), **_probe_class(train, test, half)} for half in HALVES}
    candidates = min(_CANDIDATES, len(test.labels))
    for half, found in halves.items():
        for source, target in _WAYS:
            hits = retrieval(test.features[source, half], test.features[target, half])
            found[f"position, {source} to {target}"] = Number(hits, 1 / candidates, "high; chance")
        for m in MODALITIES:
            pair = [torch.from_numpy(test.features[m, h].T.copy())[None, :, None] for h in HALVES]
            cosine = float(orthogonality_loss(*pair))
            found[f"squared cosine of the halves, {m}"] = Number(cosine, 1 / channels, "0")
    return halves


def _probe_modality(train: Sample, test: Sample, half: Half) -> Numbers:
    train, scales = _random_half(train), _scales(train, half)
    plain, own = _both_modalities(train, half), _both_modalities(train, half, scales)
    channels = plain[0].shape[1]
    few = min(_COMPONENTS, channels)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(*plain)
    every = _kernel_probe(channels, len(plain[0])).fit(*own)
    main = make_pipeline(PCA(few), StandardScaler(), _kernel_probe(few, len(plain[0]))).fit(*own)
    expected = "chance; high"
    return {
        "modality, linear": Number(_balanced_accuracy(linear, *_both_modalities(test, half)), 0.5, expected),
        "modality, each standardised": Number(
            _balanced_accuracy(every, *_both_modalities(test, half, scales)), 0.5, expected
        ),
        "modality, main components": Number(
            _balanced_accuracy(main, *_both_modalities(test, half, scales)), 0.5, expected
        ),
    }


def _kernel_probe(channels: int, samples: int) -> Pipeline:
    kernel = Nystroem(gamma=1 / channels, n_components=min(_LANDMARKS, samples), random_state=0)
    return make_pipeline(kernel, LogisticRegression(C=10, max_iter=2000))


def _probe_class(train: Sample, test: Sample, half: Half) -> Numbers:
    scales = _scales(train, half)
    held = [dict(zip(*np.unique(s.labels, return_counts=True), strict=True)) for s in (train, test)]
    asked = [c for c in held[1] if min(h.get(c, 0) for h in held) >= _FEWEST]
    if len(asked) < 2:
        raise ValueError(
            f"expected two or more classes with {_FEWEST} positions in train and in test, found {len(asked)}"
        )
    known = np.isin(test.labels, asked)
    labels, chance = test.labels[known], 1 / len(asked)
    probes = {
        # Balanced class weights, because the score is the balanced accuracy.
        m: LogisticRegression(max_iter=2000, class_weight="balanced").fit(
            scales[m].transform(train.features[m, half]), train.labels
        )
        for m in MODALITIES
    }

    def accuracy(source: Modality, target: Modality, scaled_as: Modality) -> float:
        features = scales[scaled_as].transform(test.features[target, half][known])
        return _balanced_accuracy(probes[source], features, labels)

    found = {f"class, {m}": Number(accuracy(m, m, m), chance, "high; any") for m in MODALITIES}
    for s, t in _WAYS:
        found[f"class, fitted on {s}, read from {t}"] = Number(accuracy(s, t, s), chance, "high; chance")
    for s, t in _WAYS:
        found[f"class, fitted on {s}, read from {t}, each standardised"] = Number(
            accuracy(s, t, t), chance, "high; chance"
        )
    return found


def _scales(train: Sample, half: Half) -> dict[Modality, StandardScaler]:
    return {m: StandardScaler().fit(train.features[m, half]) for m in MODALITIES}


def _random_half(sample: Sample) -> Sample:
    """A random half of the positions: with both modalities, this gives as many samples as one modality has."""
    some = np.random.default_rng(0).permutation(len(sample.labels))[: (len(sample.labels) + 1) // 2]
    return Sample({key: values[some] for key, values in sample.features.items()}, sample.labels[some])


def _both_modalities(
    sample: Sample, half: Half, scales: Mapping[Modality, StandardScaler] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Features of both modalities, each scaled by its scaler if given, and the modality's number of each row."""
    own = {m: sample.features[m, half] for m in MODALITIES}
    parts = [own[m] if scales is None else scales[m].transform(own[m]) for m in MODALITIES]
    return np.concatenate(parts), np.repeat(np.arange(len(MODALITIES)), len(sample.labels))


def _balanced_accuracy(
    probe: LogisticRegression | Pipeline, features: NDArray[np.float32], truth: NDArray[np.integer]
) -> float:
    predicted = probe.predict(features)
    return float(np.mean([(predicted[truth == value] == value).mean() for value in np.unique(truth)]))


def retrieval(queries: NDArray[np.float32], others: NDArray[np.float32], candidates: int = _CANDIDATES) -> float:
    """Share of rows whose nearest neighbour by cosine, among random rows of ``others``, has the same row number.

    Rows are divided into random groups of ``candidates``; an incomplete last group is left out. If several rows are
    equally near, each counts in part, so that constant features score no better than chance.

    Args:
        queries: Features, float32, shape (N, C).
        others: Features of the other modality at the same positions, same shape.
        candidates: Rows to choose from, at least 1.

    Returns:
        Share, 0 to 1.
    """
    size = min(candidates, len(queries))
    order = np.random.default_rng(0).permutation(len(queries))
    hits = []
    for group in order[: len(order) // size * size].reshape(-1, size):
        first, second = (_directions(values[group]) for values in (queries, others))
        cosines = np.round(first @ second.T, 6)
        nearest = cosines == cosines.max(axis=1, keepdims=True)
        hits.append(np.diagonal(nearest) / nearest.sum(axis=1))
    return float(np.mean(hits))


def _directions(values: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    found: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return found


def draw(bundle: Bundle, ready: Prepared, cells: Cells, title: str, path: Path) -> None:
    """Draw a window of the test area: input, labels, and both halves of both branches; paler outside ``test``.

    Colours are the first three principal components of the features in the window. The invariant halves of both
    modalities share their components, so that equal features have equal colours; each specific half has its own.

    Args:
        bundle: The trained branches.
        ready: The prepared scene.
        cells: Labels and masks by feature.
        title: Title of the figure.
        path: The PNG file; it appears complete or not at all.
    """
    window = _richest_window(cells)
    here = (slice(*window[:2]), slice(*window[2:]))
    shown = np.zeros(cells.seen.shape, bool)
    shown[here] = cells.seen[here]
    features, mask, test = read_features(bundle, ready, shown), shown[here], cells.inside["test"][here]
    invariant = _colours(np.concatenate([features[m, "invariant"] for m in MODALITIES]))
    panels = _input_panels(bundle, ready, cells, window)
    for m, colours in zip(MODALITIES, np.split(invariant, len(MODALITIES)), strict=True):
        panels[f"{m},\ninvariant"] = _placed(mask, colours)
    for m in MODALITIES:
        panels[f"{m},\nspecific"] = _placed(mask, _colours(features[m, "specific"]))
    figure = Figure(figsize=(2.1 * len(panels), 2 * mask.shape[0] / mask.shape[1] + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        inside = np.kron(test, np.ones((values.shape[0] // test.shape[0],) * 2, bool))[..., None]
        axis.imshow(np.where(inside, values, 0.55 + 0.45 * values), interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [Patch(color=c.colour, label=c.name) for c in ready.classes.classes]
    handles.append(Patch(facecolor="white", edgecolor="#999999", label="no data (paler: not in test)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)
    figure.suptitle(title, fontsize=11)
    figure.get_layout_engine().set(h_pad=0.1)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110)


def _richest_window(cells: Cells) -> Window:
    """The window of the figure, in features: where the classes of ``test`` are most evenly mixed."""
    inside = cells.inside["test"] & cells.seen
    extent = [np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0)]
    sides = [int(np.clip(e[-1] - e[0] + 1, _SHOWN // 3, _SHOWN)) for e in extent]
    height, width = (min(side, most) for side, most in zip(sides, inside.shape, strict=True))
    values = np.unique(cells.labels[inside & (cells.labels != IGNORE_INDEX)])
    held = torch.from_numpy(np.stack([inside & (cells.labels == v) for v in values]).astype(np.float32))
    shares = F.avg_pool2d(held, (height, width), stride=1)
    mixed = -(shares * shares.clamp(min=1e-9).log()).sum(dim=0)
    row, column = divmod(int(mixed.argmax()), mixed.shape[1])
    return row, row + height, column, column + width


def _input_panels(bundle: Bundle, ready: Prepared, cells: Cells, window: Window) -> dict[str, NDArray[np.float64]]:
    """Image, heights as the network reads them, and labels of a window."""
    r0, r1, c0, c1 = (v * cells.stride for v in window)
    image, elevation = (ready.scenes[0].layers.channels(m)[:, r0:r1, c0:c1] for m in MODALITIES)
    image = image[:3] if len(image) >= 3 else image[[0, 0, 0]]
    seen = [np.isfinite(values).all(axis=0) for values in (image, elevation)]
    spec = bundle.manifest.modalities["elevation"]
    heights = _stretched(spec.normalise(elevation)[0][seen[1]][:, None])[:, 0]
    legend = np.ones((IGNORE_INDEX + 1, 3))
    legend[: len(ready.classes)] = [to_rgb(c.colour) for c in ready.classes.classes]
    return {
        "image": _placed(seen[0], _stretched(image[:, seen[0]].T)),
        spec.channels[0].name.replace("_", " "): _placed(seen[1], colormaps["viridis"](heights)[:, :3]),
        "labels": legend[ready.scenes[0].layers.class_indices()[r0:r1, c0:c1]],
    }


def _colours(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first three principal components of features (N, C) as colours (N, 3); missing components are grey."""
    count = min(3, *features.shape)
    found = np.full((len(features), 3), 0.5)
    found[:, :count] = _stretched(PCA(count).fit_transform(features))
    return found


def _stretched(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns of values (N, D), scaled to 0 to 1 between the 2nd and the 98th percentile."""
    low, high = np.percentile(values, (2, 98), axis=0)
    found: NDArray[np.float64] = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return found


def _placed(mask: NDArray[np.bool_], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place N colours (N, 3) at the N set pixels of a mask (H, W), white elsewhere; shape (H, W, 3)."""
    found = np.ones((*mask.shape, 3))
    found[mask] = colours
    return found


if __name__ == "__main__":
    main()
