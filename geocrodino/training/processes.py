"""What Lightning needs to train in several processes that geocrodino has started: strategy, group, agreement."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import psutil
import torch
import torch.distributed
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.distributed import FileStore  # type: ignore[attr-defined]

from geocrodino.training.learners.base import Learner
from geocrodino.training.parts import Processes

_PATIENCE = timedelta(days=7)
"""How long a connected process waits for the others: the first one validates alone. A dead one is noticed otherwise."""

_TO_CONNECT = timedelta(minutes=2)
"""How long the first process waits for the others, which have imported all that they need, to connect with it.

They themselves wait longer, since each may be ready long before the last one, and are ended by the first.
"""


class _Started(ClusterEnvironment):
    """Processes of one machine that exist already and are connected."""

    creates_processes_externally = True
    main_address = "localhost"
    main_port = 0

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.processes.count

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.processes.number

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.processes.number

    def node_rank(self) -> int:
        return 0


def strategy_of(processes: Processes, learner: Learner | None = None, *, some_lack: bool = False) -> Strategy | str:
    """Create Lightning's strategy.

    Args:
        processes: The processes that share each batch.
        learner: What is trained; None: something whose parameters all get a gradient in every step.
        some_lack: Whether scenes lack a modality: a batch may then leave out the parameters of a branch.

    Returns:
        ``auto`` for a single process; else DDP, which averages the gradients of the processes.
    """
    if processes.count == 1:
        return "auto"
    # Buffers are the same in all processes without a broadcast in each step: batch statistics are shared, and
    # `Together` passes on the others.
    return DDPStrategy(
        cluster_environment=_Started(processes),
        find_unused_parameters=some_lack or (learner is not None and learner.leaves_parameters_out),
        broadcast_buffers=False,
    )


@contextmanager
def connected(processes: Processes, meeting: Path, device: str) -> Iterator[None]:
    """Connect with the other processes of a training.

    Args:
        processes: This process and how many there are.
        meeting: A file that all name, and that does not exist before; they find each other there.
        device: ``cuda`` for GPUs, else the processes exchange values on the CPU.

    Yields:
        Nothing; inside the block all processes are connected.
    """
    name = "GLOO_SOCKET_IFNAME"
    added = None if name in os.environ else _loopback()
    if added is not None:
        os.environ[name] = added  # all are on this machine, whose own name may not be known to any name server
    store = FileStore(str(meeting), processes.count)
    try:
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=store,
            rank=processes.number,
            world_size=processes.count,
            timeout=_PATIENCE if processes.number else _TO_CONNECT,
        )
        store.set_timeout(_PATIENCE)
        _set_timeout(_PATIENCE)
        yield
    finally:
        if added is not None:
            os.environ.pop(name, None)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _set_timeout(timeout: timedelta) -> None:
    """Set how long the connected processes wait for each other."""
    own: Any = torch.distributed
    (own.set_timeout if hasattr(own, "set_timeout") else own.distributed_c10d._set_pg_timeout)(timeout)


def is_lost_connection(error: Exception) -> bool:
    """Tell errors that a process meets when another has ended from errors of its own.

    Args:
        error: An error of a training in several processes.

    Returns:
        Whether another process is its cause.
    """
    return any(word in str(error) for word in ("gloo", "NCCL", "Connection"))


def _loopback() -> str | None:
    """Name of the network interface of this machine to itself."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == "127.0.0.1" for address in addresses):
            return name
    return None


class Together(Callback):
    """Makes the other processes follow the first, which alone validates: when to stop, what the learner measured."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Follow the first process.

        Args:
            trainer: The running trainer.
            pl_module: The training task.
        """
        self._follow(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Follow the first process.

        Args:
            trainer: The running trainer.
            pl_module: The training task.
        """
        self._follow(trainer, pl_module)

    @staticmethod
    def _follow(trainer: L.Trainer, pl_module: Any) -> None:
        trainer.should_stop = bool(trainer.strategy.broadcast(trainer.should_stop))
        for buffer in pl_module.learner.buffers():
            torch.distributed.broadcast(buffer, src=0)
