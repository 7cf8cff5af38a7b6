"""Lightning callbacks: keep the best weights of each network, and stop early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from geocrodino.training.learners.base import state_of

_SMOOTHED = 3
"""Validations whose mean mIoU decides when training stops."""

_LOW_RATE = 0.8
"""Share of the epochs after which the learning rate is low: about an eighth of its highest value, and falling."""


class BestNetworks(Callback):
    """Keeps the weights of each network at its own highest mIoU on ``val``; stops when no network improves any more.

    Training stops when the mean mIoU of the last three validations has not risen for any network for ``patience``
    epochs, so that a single unusual validation does not end the training.

    The weights are part of the checkpoint, so a resumed run cannot mix weights of two states.

    Attributes:
        best: Highest mIoU of each network by name, 0 to 1; -1 before the first validation.
        epoch: Epoch of the highest mIoU by name, counted from 0; -1 before the first validation.
        weights: Weights of each network at that epoch by name, on the CPU.
        patience: Epochs without an improvement of any network until training stops.
        earliest: Finished epochs before which training does not stop.
        recent: The last scores of each network, at most three.
        smoothed: Highest mean of three consecutive scores of each network, 0 to 1; -1 before the first validation.
        gained: Epoch of that mean by name, counted from 0; -1 before the first validation.
        on_part: Whether the scores come from a part of ``val``. Scores of a part and of the whole do not compare.
    """

    def __init__(self, patience: int, names: Sequence[str], earliest: int = 0, *, on_part: bool = False) -> None:
        """Start without weights.

        Args:
            patience: Epochs without an improvement of any network until training stops, at least 1.
            names: Names of the networks.
            earliest: Finished epochs before which training does not stop.
            on_part: Whether a part of ``val`` is validated.
        """
        self.patience, self.earliest, self.on_part = patience, earliest, on_part
        self.best: dict[str, float] = dict.fromkeys(names, -1.0)
        self.epoch: dict[str, int] = dict.fromkeys(names, -1)
        self.weights: dict[str, dict[str, Tensor]] = {}
        self.recent: dict[str, list[float]] = {name: [] for name in names}
        self.smoothed: dict[str, float] = dict.fromkeys(names, -1.0)
        self.gained: dict[str, int] = dict.fromkeys(names, -1)

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
            score = pl_module.confusion[name].scores().mean_iou
            pl_module.log(f"val_miou/{name}", score, prog_bar=True)
            # The plain score chooses the weights: all epochs are scored on the same windows, so it compares exactly
            # these weights, while a mean of three epochs would also score weights that are not kept.
            # NaN (no labelled pixel) compares as not better.
            if score > self.best[name]:
                self.best[name], self.epoch[name] = score, trainer.current_epoch
                self.weights[name] = {key: value.clone() for key, value in state_of(network).items()}
            self._note(name, score, trainer.current_epoch)
        self._stop_without_gain(trainer, trainer.current_epoch)

    def _note(self, name: str, score: float, epoch: int) -> None:
        """Update the mean of the last scores of a network."""
        if math.isnan(score):
            return
        self.recent[name] = [*self.recent[name], score][-_SMOOTHED:]
        mean = math.fsum(self.recent[name]) / len(self.recent[name])
        if mean > self.smoothed[name]:
            self.smoothed[name], self.gained[name] = mean, epoch

    def _stop_without_gain(self, trainer: L.Trainer, finished: int) -> None:
        if finished + 1 >= self.earliest and finished - max(self.gained.values()) >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint.

        Returns:
            The attributes ``best``, ``epoch``, ``weights``, ``recent``, ``smoothed``, ``gained`` and ``on_part``.
        """
        return {
            "best": dict(self.best),
            "epoch": dict(self.epoch),
            "weights": dict(self.weights),
            "recent": {name: list(scores) for name, scores in self.recent.items()},
            "smoothed": dict(self.smoothed),
            "gained": dict(self.gained),
            "on_part": self.on_part,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a resumed run.

        Args:
            state_dict: As returned by `state_dict`. Without ``recent``, ``smoothed`` and ``gained``, which version 0.1
                did not write, the best scores take the place of the best means. Without ``on_part``, which it did not
                write either, the scores come from the whole ``val``.
        """
        self.best, self.epoch = dict(state_dict["best"]), dict(state_dict["epoch"])
        self.weights = dict(state_dict["weights"])
        self.smoothed = dict(state_dict.get("smoothed", self.best))
        self.gained = dict(state_dict.get("gained", self.epoch))
        recent = state_dict.get("recent", {})
        self.recent = {name: list(recent.get(name, [])) for name in self.best}
        self.on_part = scores_are_of_part(state_dict)


def scores_are_of_part(state: dict[str, Any]) -> bool:
    """Find out from the state of `BestNetworks` on what its networks were scored.

    Args:
        state: As returned by `BestNetworks.state_dict`, of any version.

    Returns:
        True for a part of ``val``; False for the whole, as always in version 0.1.
    """
    return bool(state.get("on_part", False))


def earliest_stop(epochs: int) -> int:
    """Finished epochs before which a training does not stop early.

    The learning rate falls in one cycle over all epochs, and a training that stops while the rate is high has not
    converged.

    Args:
        epochs: Epochs of the cycle.

    Returns:
        Four fifths of them, rounded up.

    Examples:
        >>> earliest_stop(30)
        24
    """
    return math.ceil(_LOW_RATE * epochs - 1e-9)
