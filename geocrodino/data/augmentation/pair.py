"""Augment the modalities of a batch, together or each with its own geometry.

With decoupled geometry the branches see different views of the same place. The batch holds the transform of each
image, so that the losses can match positions across the modalities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from geocrodino.data.augmentation.geometry import Layers
from geocrodino.data.augmentation.pipeline import Pipeline
from geocrodino.data.augmentation.rows import Rows
from geocrodino.errors import ConfigError
from geocrodino.settings.augmentation import AugmentationSettings, Operation
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES, Modality


class PairAugmentation(nn.Module):
    """Augment batches on their own device. In evaluation mode values stay as they are and only keys are added.

    The random numbers come from torch's global generator: the same seed gives the same result.

    Args:
        settings: The operations of each modality; None: no operations.
        modalities: Those of the batches; by default all registered ones.

    Raises:
        ConfigError: If an operation or parameter is unknown or cannot be used.
    """

    def __init__(self, settings: AugmentationSettings | None, modalities: Iterable[Modality] = MODALITIES) -> None:
        super().__init__()
        self.settings = settings
        # A plain dictionary, not submodules: a moved Kornia module draws on its device, but draws must stay on the CPU.
        self.pipelines = {} if settings is None else build_pipelines(settings, modalities)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """Augment every modality of a batch.

        Args:
            batch: For each modality m of the batch, "m" float (B, C, H, W), 0 where invalid, and "m_valid" bool
                (B, H, W); "labels" int64 (B, H, W), class indices or ``IGNORE_INDEX``. "m_there", bool (B,), stays.
            rows: Which rows of a larger batch these are; then the draws are those of that batch. None: they are all.

        Returns:
            For each modality m: "m" and "m_valid" as above; "m_labels" int64 (B, H, W), ``IGNORE_INDEX`` where there
            is no label or m is invalid; "m_transform" float32 (B, 3, 3), source to augmented pixels (x, y).

        Raises:
            ValueError: If the batch holds no modality, or shapes do not fit.
        """
        present: list[Modality] = [m for m in MODALITIES if m in batch]
        if not present:
            raise ValueError(f"expected one of {', '.join(MODALITIES)} in the batch, found {', '.join(batch)}")
        with torch.autocast(batch[present[0]].device.type, enabled=False):
            return self._augment(present, batch, rows)

    def _augment(self, present: list[Modality], batch: Mapping[str, Tensor], rows: Rows | None) -> dict[str, Tensor]:
        labels = batch["labels"]
        settings = self.settings if self.training else None
        augmented: dict[str, Tensor] = {}
        geometry: list[Tensor] | None = None
        for modality in present:
            image, valid = batch[modality], batch[f"{modality}_valid"]
            _check_shapes(modality, image, valid, labels)
            layers, transform = Layers(image, valid, labels), torch.eye(3).repeat(len(image), 1, 1)
            if settings is not None:
                pipeline = self.pipelines[modality]
                if geometry is None or settings.decoupled:
                    geometry = pipeline.draw_geometry(image.shape, rows)
                layers, transform = pipeline.apply(layers, geometry, rows)
            augmented[modality] = layers.image
            augmented[f"{modality}_valid"] = layers.valid
            augmented[f"{modality}_labels"] = layers.labels.masked_fill(~layers.valid, IGNORE_INDEX)
            augmented[f"{modality}_transform"] = transform.to(torch.float32).to(image.device)
            if (there := f"{modality}_there") in batch:
                augmented[there] = batch[there]
        return augmented


def build_pipelines(
    settings: AugmentationSettings, modalities: Iterable[Modality] = MODALITIES
) -> dict[Modality, Pipeline]:
    """Build the pipeline of each modality.

    Args:
        settings: The operations of each modality.
        modalities: Those that are augmented; by default all registered ones.

    Returns:
        Pipelines by modality.

    Raises:
        ConfigError: If an operation or parameter is unknown or cannot be used, or geometry is shared and the
            geometric operations of the modalities differ.
    """
    pipelines = {m: Pipeline(settings.operations(m), m) for m in modalities}
    if not settings.decoupled:
        _require_same_geometry({m: pipeline.geometry for m, pipeline in pipelines.items()})
    return pipelines


def _require_same_geometry(geometry: Mapping[Modality, Sequence[Operation]]) -> None:
    """Compare the geometric operations of each modality with those of the first one."""
    (first, expected), *others = geometry.items()
    differing = next((m for m, operations in others if operations != expected), None)
    if differing is None:
        return
    wanted, found = (", ".join(o.name for o in geometry[m]) or "none" for m in (first, differing))
    if wanted == found:
        difference = f"the same parameters of {wanted} in both lists, found different ones"
    else:
        difference = (
            f"the same geometric operations in both lists, found {wanted} for {first} and {found} for {differing}"
        )
    together = "both modalities" if len(geometry) == 2 else f"{', '.join(geometry)}"
    raise ConfigError(
        f"augmentation: {together} move together, because of decoupled: false or the method; expected "
        f"{difference}.\nCopy those of one list to the other."
    )


def _check_shapes(modality: str, image: Tensor, valid: Tensor, labels: Tensor) -> None:
    expected = (image.shape[0], *image.shape[2:])
    if image.ndim != 4 or valid.shape != expected or labels.shape != expected:
        raise ValueError(
            f"expected {modality} (B, C, H, W) with validity and labels (B, H, W), found {tuple(image.shape)}, "
            f"{tuple(valid.shape)} and {tuple(labels.shape)}"
        )
