"""What happens beside the training steps: the best weights of each branch, their average, an early end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from safetensors.torch import load_file, save_file
from torch import Tensor

from geocrodino.geo.files import whole_file
from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.models.crodino import CroDiNo


class BestBranches(Callback):
    """Keep each branch as it was when its own mIoU on ``val`` was highest, and stop when neither gains any more.

    Attributes:
        best: Highest mIoU of each branch, 0 to 1.
        epoch: The epoch of it, counted from 0.
    """

    def __init__(self, folder: Path, patience: int) -> None:
        """Keep weights in a folder.

        Args:
            folder: Where ``best-<modality>.safetensors`` goes.
            patience: Validations without a gain of either branch until training stops.
        """
        self.folder, self.patience = folder, patience
        self.best: dict[Modality, float] = dict.fromkeys(MODALITIES, -1.0)
        self.epoch: dict[Modality, int] = dict.fromkeys(MODALITIES, -1)

    def path(self, modality: Modality) -> Path:
        """The file of a branch."""
        return self.folder / f"best-{modality}.safetensors"

    def load(self, model: CroDiNo) -> None:
        """Put the best weights into a model."""
        for modality in MODALITIES:
            model.branch(modality).load_state_dict(load_file(self.path(modality)))

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """A run that was broken off after its early end has no epoch left."""
        self._stop_without_gain(trainer, trainer.current_epoch - 1)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare with the best; the averaged weights are still in place here."""
        for modality in MODALITIES:
            scores = pl_module.confusion[modality].scores()
            pl_module.log(f"val_miou/{modality}", scores.mean_iou, prog_bar=True)
            # A score that is not a number (no labelled pixel) is never better.
            if scores.mean_iou > self.best[modality]:
                self.best[modality], self.epoch[modality] = scores.mean_iou, trainer.current_epoch
                self._save(modality, pl_module.model)
        self._stop_without_gain(trainer, trainer.current_epoch)

    def _stop_without_gain(self, trainer: L.Trainer, finished: int) -> None:
        if finished - max(self.epoch.values()) >= self.patience:
            trainer.should_stop = True

    def _save(self, modality: Modality, model: CroDiNo) -> None:
        state = {k: v.detach().cpu().contiguous() for k, v in model.branch(modality).state_dict().items()}
        with whole_file(self.path(modality)) as partial:
            save_file(state, partial)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": dict(self.best), "epoch": dict(self.epoch)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run."""
        self.best, self.epoch = dict(state_dict["best"]), dict(state_dict["epoch"])


def weight_average(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights, which starts fast so that short runs do not remember their start.

    Args:
        decay: Share of the old average that a step keeps in the long run, 0 to 1.
    """

    def mix(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current  # counters of batch normalisation
        n = float(count)
        return torch.lerp(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return WeightAveraging(use_buffers=True, avg_fn=mix)
