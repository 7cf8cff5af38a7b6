"""Who works on the blocks: threads of this process, or a cluster; both through Dask."""

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
from geocrodino.prediction.job import BlockPredictor, Job
from geocrodino.prediction.tiles.predictor import SceneInput, one_thread, one_thread_per_network
from geocrodino.settings.prediction import PROCESSES

if TYPE_CHECKING:
    from distributed import Client

Take = Callable[[EncodedPart], None]
"""What is done with a finished part; called in the process that writes."""

GDAL_CACHE_BYTES = 64 * 2**20

_ALONE = {"dashboard": False, "dashboard_address": ":0"}  # no page, at a port that no other scheduler has
_WAIT_S = 60
_AHEAD = 2  # blocks for each thread of a cluster that are handed out, so that none waits for the next one


def run_threads(predict: BlockPredictor, windows: Sequence[Window], workers: int, take: Take) -> None:
    """All blocks through Dask's thread scheduler; each thread makes its own parts and hands them over."""
    waiting = deque(windows)

    def one() -> None:
        # Not as Dask orders its tasks, which is from the last one to the first: neighbours share tiles and reads.
        take(predict(waiting.popleft()))

    task = delayed(one, pure=False, traverse=False)
    # Each thread is told by itself: a prediction beside this one may end before and give torch its threads back.
    threads = ThreadPoolExecutor(workers, initializer=one_thread)
    with one_thread_per_network(), threads as pool:
        tasks = [task() for _ in windows]
        run_all: Callable[..., Any] = compute
        run_all(*tasks, scheduler="threads", pool=pool, num_workers=workers, optimize_graph=False)


def run_cluster(client: Client, job: Job, windows: Sequence[Window], take: Take) -> None:
    """All blocks on a cluster; parts come back as bytes and are taken here, one at a time.

    A worker that dies costs the blocks that it was at: they are computed again elsewhere.
    """
    from distributed import KilledWorker, as_completed

    # As the result of a task rather than data: what a dead worker held is then made again.
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
                "Give each more memory and go on with --resume, or start anew with a smaller --block-px or --tile-px."
            ) from error
        future.release()
        following = next(waiting, None)
        if following is not None:
            running.add(submit(following))


@contextmanager
def open_client(scheduler: str, workers: int) -> Iterator[Client]:
    """A client of a running scheduler, or of processes started for this work.

    Args:
        scheduler: ``processes``, or the address of a scheduler, for instance ``tcp://host:8786``.
        workers: Number of processes to start.

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
            "Start one with `dask scheduler`, workers with `dask worker ADDRESS`, or take --scheduler processes."
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
"""A work, and a name of its own: two copies of one are not always equal, as NaN is not, and slow to compare."""

_opening = Lock()
_kept: dict[str, BlockPredictor] = {}
"""Of a worker of a cluster: the networks at work, from one block to the next. One at a time, they are large."""


def _absolute(job: Job) -> Job:
    """The same work for processes that were started in another folder."""

    def moved(source: SceneInput) -> SceneInput:
        ground = None if source.ground is None else _absolute_files(source.ground)
        return replace(source, raster=_absolute_files(source.raster), ground=ground)

    return replace(job, inputs={m: moved(source) for m, source in job.inputs.items()})


def _absolute_files(raster: RasterSource) -> RasterSource:
    if isinstance(raster, MosaicSource):
        return replace(raster, files=tuple(absolute_name(name) for name in raster.files))
    return replace(raster, path=Path(absolute_name(raster.path)))


def _as_it_is(described: _Named) -> _Named:
    return described


def _predict(described: _Named, window: Window) -> EncodedPart:
    """Runs on a worker of a cluster."""
    try:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            return _predictor(*described)(window)
    except GeocrodinoError as error:
        error.__cause__ = error.__context__ = None  # GDAL's own, which cannot cross to another process
        raise


def _threads() -> int:
    """Threads of this worker."""
    from distributed import get_worker

    threads: int = get_worker().state.nthreads
    return threads


def _predictor(name: str, job: Job) -> BlockPredictor:
    with _opening:
        if name not in _kept:
            _kept.clear()
            _kept[name] = BlockPredictor(job, job.backends(same_bundle(*job.bundle), _threads()))
        one_thread()
        return _kept[name]


def same_bundle(path: Path, sha256: str) -> Bundle:
    """A bundle as it was when the work was planned.

    Raises:
        BundleError: If the file is gone, or another one.
    """
    bundle = load_bundle(path)
    if bundle.sha256 != sha256:
        raise BundleError(
            f"{path}: the bundle is another one here. Expected sha256 {sha256}, found {bundle.sha256}.\n"
            "Put it where this program and all workers see the same file, and leave it until the work is done."
        )
    return bundle
