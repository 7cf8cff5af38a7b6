"""Distribute blocks to threads of this process or to a cluster, both through Dask."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import rasterio
from dask.base import compute
from dask.delayed import delayed

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.errors import BundleError, ConfigError, GeocrodinoError
from geocrodino.files.names import absolute_name
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.writer import EncodedPart
from geocrodino.prediction.backends.threads import one_thread, one_thread_per_network
from geocrodino.prediction.job import BlockPredictor, Job
from geocrodino.prediction.tiles.predictor import SceneInput
from geocrodino.settings.prediction import PROCESSES

if TYPE_CHECKING:
    from distributed import Client

Take = Callable[[EncodedPart], None]
"""Receives a finished part; called in the process that writes."""

GDAL_CACHE_BYTES = 64 * 2**20

_ALONE = {"dashboard": False, "dashboard_address": ":0"}  # no dashboard, and a port that no other scheduler uses
_WAIT_S = 60
_AHEAD = 2  # blocks submitted for each thread of a cluster, so that none waits for its next block


def run_threads(predict: BlockPredictor, windows: Sequence[Window], workers: int, take: Take) -> None:
    """Predict blocks with Dask's thread scheduler.

    Args:
        predict: Predicts one block.
        windows: The blocks, in the order of work.
        workers: Number of threads.
        take: Receives each finished part, in the thread that made it.
    """
    waiting = deque(windows)

    def one() -> None:
        # In the order of the blocks, because neighbours share tiles and reads; Dask starts with the last task.
        take(predict(waiting.popleft()))

    task = delayed(one, pure=False, traverse=False)
    # Set in each thread, because another prediction may end in this time and restore torch's number of threads.
    threads = ThreadPoolExecutor(workers, initializer=one_thread)
    with one_thread_per_network(), threads as pool:
        tasks = [task() for _ in windows]
        run_all: Callable[..., Any] = compute
        run_all(*tasks, scheduler="threads", pool=pool, num_workers=workers, optimize_graph=False)


def run_cluster(client: Client, job: Job, windows: Sequence[Window], take: Take) -> None:
    """Predict blocks on a cluster; parts come back as bytes and are received here, one at a time.

    If a worker dies, its unfinished blocks are computed again by others.

    Args:
        client: Client of the cluster.
        job: Everything that determines the pixels.
        windows: The blocks, in the order of work.
        take: Receives each finished part.

    Raises:
        ConfigError: If several workers die at the same block.
    """
    from distributed import KilledWorker, as_completed

    # As the result of a task, not as data: if the worker that holds it dies, another one makes it again.
    described = client.submit(_as_it_is, (uuid4().hex, _absolute(job)), pure=False)
    threads = max(1, sum(client.nthreads().values()))
    waiting = iter(windows)

    def submit(window: Window) -> Any:
        return client.submit(_predict, described, window, pure=False, retries=3)

    running = as_completed([submit(window) for window in islice(waiting, _AHEAD * threads)])
    for future in running:
        try:
            take(future.result())
        except KilledWorker as error:
            raise ConfigError(
                "scheduler: several workers in turn died at the same block, most likely because their memory ended.\n"
                "Give each more memory and go on with `resume=True`, or start anew with a smaller `block_px` or "
                "`core_px`."
            ) from error
        future.release()
        following = next(waiting, None)
        if following is not None:
            running.add(submit(following))


@contextmanager
def open_client(scheduler: str, workers: int) -> Iterator[Client]:
    """Connect to a running scheduler, or start processes for this work.

    Args:
        scheduler: ``processes``, or the address of a scheduler, for instance ``tcp://host:8786``.
        workers: Number of processes to start.

    Yields:
        A client, closed at the end; processes that were started end with it.

    Raises:
        ConfigError: If Dask's distributed scheduler is not installed, no scheduler answers, or it has no worker.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ConfigError(
            'scheduler: Dask\'s distributed scheduler is not installed.\nInstall it: pip install "geocrodino[cluster]"'
        ) from error
    if scheduler == PROCESSES:
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, scheduler_kwargs=_ALONE, silence_logs=logging.CRITICAL
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"scheduler {scheduler}: no Dask scheduler answers ({error}).\n"
            "Start one with `dask scheduler`, workers with `dask worker ADDRESS`, or take "
            "`scheduler='processes'`."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT_S)
        except TimeoutError as error:
            raise ConfigError(
                f"scheduler {scheduler}: no worker has come within {_WAIT_S} s.\n"
                f"Start some where this program's files are seen: dask worker {scheduler}"
            ) from error
        yield client


_Named = tuple[str, Job]
"""A job and a unique name: copies of one job are slow to compare, and not always equal, because NaN is not."""

_open_lock = Lock()
_kept: dict[str, BlockPredictor] = {}
"""In a worker of a cluster: the predictor of the current job, kept between blocks. Only one, because networks are
large."""


def _absolute(job: Job) -> Job:
    """The same job with absolute paths, for processes that were started in another folder."""

    def moved(source: SceneInput) -> SceneInput:
        ground = None if source.ground is None else _absolute_files(source.ground)
        return replace(source, raster=_absolute_files(source.raster), ground=ground)

    return replace(job, inputs={m: moved(source) for m, source in job.inputs.items()})


def _absolute_files(raster: RasterSource) -> RasterSource:
    if isinstance(raster, MosaicSource):
        return replace(raster, files=tuple(absolute_name(name) for name in raster.files))
    return replace(raster, name=absolute_name(raster.name))


def _as_it_is(described: _Named) -> _Named:
    return described


def _predict(described: _Named, window: Window) -> EncodedPart:
    """Runs on a worker of a cluster."""
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            return _predictor(*described)(window)
    except GeocrodinoError as error:
        error.__cause__ = error.__context__ = None  # GDAL's own exceptions cannot be pickled
        raise


def _threads() -> int:
    """Number of threads of this worker."""
    from distributed import get_worker

    threads: int = get_worker().state.nthreads
    return threads


def _predictor(name: str, job: Job) -> BlockPredictor:
    with _open_lock:
        if name not in _kept:
            _kept.clear()
            _kept[name] = BlockPredictor(job, job.backends(same_bundle(*job.bundle), _threads()))
        one_thread()
        return _kept[name]


def same_bundle(path: Path, sha256: str) -> Bundle:
    """Load a bundle and check that it is still the one of the plan.

    Args:
        path: The file.
        sha256: Hash of the bundle when the work was planned.

    Returns:
        The bundle.

    Raises:
        BundleError: If the file is missing or was replaced.
    """
    bundle = load_bundle(path)
    if bundle.sha256 != sha256:
        raise BundleError(
            f"{path}: the bundle is another one here. Expected sha256 {sha256}, found {bundle.sha256}.\n"
            "Put it where this program and all workers see the same file, and leave it until the work is done."
        )
    return bundle
