"""Lightning callbacks: keep the best weights of each network, and stop early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from geocrodino.training.learners.base import state_of


class BestNetworks(Callback):
    """Keeps the weights of each network at its own highest mIoU on ``val``; stops when no network improves any more.

    The weights are part of the checkpoint, so a resumed run cannot mix weights of two states.

    Attributes:
        best: Highest mIoU of each network by name, 0 to 1; -1 before the first validation.
        epoch: Epoch of the highest mIoU by name, counted from 0; -1 before the first validation.
        weights: Weights of each network at that epoch by name, on the CPU.
        patience: Epochs without an improvement of any network until training stops.
    """

    def __init__(self, patience: int, names: Sequence[str]) -> None:
        """Start without weights.

        Args:
            patience: Epochs without an improvement of any network until training stops, at least 1.
            names: Names of the networks.
        """
        self.patience = patience
        self.best: dict[str, float] = dict.fromkeys(names, -1.0)
        self.epoch: dict[str, int] = dict.fromkeys(names, -1)
        self.weights: dict[str, dict[str, Tensor]] = {}

    def load(self, name: str, network: nn.Module) -> nn.Module:
        """Load the best weights of a network into it.

        Args:
            name: Name of the network.
            network: The network; changed in place.

        Returns:
            The same network in float32 and evaluation mode.
        """
        network.load_state_dict(self.weights[name])
        return network.float().eval()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Stop at once when a run is resumed that was interrupted after early stopping.

        Args:
            trainer: The running trainer.
            pl_module: The training task.
        """
        self._stop_without_gain(trainer, trainer.current_epoch - 1)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the mIoU of each network, keep the weights of those that improved, and stop if none did for long.

        Args:
            trainer: The running trainer.
            pl_module: The training task, with the validated networks and their confusion matrices.
        """
        for name, network in pl_module.validated.items():
            scores = pl_module.confusion[name].scores()
            pl_module.log(f"val_miou/{name}", scores.mean_iou, prog_bar=True)
            # NaN (no labelled pixel) compares as not better.
            if scores.mean_iou > self.best[name]:
                self.best[name], self.epoch[name] = scores.mean_iou, trainer.current_epoch
                self.weights[name] = {key: value.clone() for key, value in state_of(network).items()}
        self._stop_without_gain(trainer, trainer.current_epoch)

    def _stop_without_gain(self, trainer: L.Trainer, finished: int) -> None:
        if finished - max(self.epoch.values()) >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint.

        Returns:
            The attributes ``best``, ``epoch`` and ``weights``.
        """
        return {"best": dict(self.best), "epoch": dict(self.epoch), "weights": dict(self.weights)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a resumed run.

        Args:
            state_dict: As returned by `state_dict`.
        """
        self.best, self.epoch = dict(state_dict["best"]), dict(state_dict["epoch"])
        self.weights = dict(state_dict["weights"])
