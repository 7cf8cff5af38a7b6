"""What happens beside the training steps: the best weights of each network, an early end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from geocrodino.training.learners.base import state_of


class BestNetworks(Callback):
    """Keep each network as it was when its own mIoU on ``val`` was highest, and stop when none gains any more.

    The weights are part of the checkpoint, so that a resumed run cannot mix those of two states.

    Attributes:
        best: Highest mIoU of each network, 0 to 1.
        epoch: The epoch of it, counted from 0.
        weights: The weights of each network at that epoch, by name, on the CPU.
    """

    def __init__(self, patience: int, names: Sequence[str]) -> None:
        """Start without weights.

        Args:
            patience: Validations without a gain of any network until training stops.
            names: The networks.
        """
        self.patience = patience
        self.best: dict[str, float] = dict.fromkeys(names, -1.0)
        self.epoch: dict[str, int] = dict.fromkeys(names, -1)
        self.weights: dict[str, dict[str, Tensor]] = {}

    def load(self, name: str, network: nn.Module) -> nn.Module:
        """Put the best weights of a network into it, ready for use."""
        network.load_state_dict(self.weights[name])
        return network.float().eval()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """A run that was interrupted after early stopping has no epoch left."""
        self._stop_without_gain(trainer, trainer.current_epoch - 1)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare with the best; the task holds the networks that were judged."""
        for name, network in pl_module.judged.items():
            scores = pl_module.confusion[name].scores()
            pl_module.log(f"val_miou/{name}", scores.mean_iou, prog_bar=True)
            # A score that is not a number (no labelled pixel) is never better.
            if scores.mean_iou > self.best[name]:
                self.best[name], self.epoch[name] = scores.mean_iou, trainer.current_epoch
                self.weights[name] = {key: value.clone() for key, value in state_of(network).items()}
        self._stop_without_gain(trainer, trainer.current_epoch)

    def _stop_without_gain(self, trainer: L.Trainer, finished: int) -> None:
        if finished - max(self.epoch.values()) >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": dict(self.best), "epoch": dict(self.epoch), "weights": dict(self.weights)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run."""
        self.best, self.epoch = dict(state_dict["best"]), dict(state_dict["epoch"])
        self.weights = dict(state_dict["weights"])
