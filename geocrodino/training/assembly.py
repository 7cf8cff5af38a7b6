"""The networks and batches of a training, created from its configuration and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
import torch

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.data.class_weights import class_weights
from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
from geocrodino.data.statistics import count_classes_by_scene
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.method import MethodSettings
from geocrodino.training import number_format
from geocrodino.training.batch_size import TRIED_PATCHES, step_memory, with_fitting_batch
from geocrodino.training.checks import SCENES, augmentation_of
from geocrodino.training.devices import processes_of
from geocrodino.training.listener import Listener
from geocrodino.training.networks import Beginning, create_networks
from geocrodino.training.prepare import Prepared
from geocrodino.training.task import TrainingTask


def parts_of(
    config: TrainConfig, method: MethodSettings, ready: Prepared, tell: Listener
) -> tuple[TrainingTask, CoregisteredDataModule]:
    """Create the networks and batches of a method from the seed.

    Args:
        config: The configuration.
        method: The method: that of the training, or that of its teacher.
        ready: Inputs of the training.
        tell: Called with lines for the user.

    Returns:
        The task, and its batches.

    Raises:
        GeocrodinoError: One of its kinds, see `create_networks` and `CoregisteredDataModule`.
    """
    settings = config.training
    L.seed_everything(settings.seed, verbose=False)
    data = _batches(config, method, ready, tell)
    counts = count_classes_by_scene(ready.scenes, "train", len(ready.classes))
    power, beta = settings.class_weight_power, settings.class_weight_beta
    weights = torch.from_numpy(class_weights(counts, settings.class_weights, power=power, beta=beta))
    beginning = Beginning(method, ready.start, ready.encoder_weights)
    learner = create_networks(config, beginning, ready.specs, ready.classes, weights, tell)
    decoupled = config.augmentation.decoupled and not learner.coupled
    settled = augmentation_of(config).model_copy(update={"decoupled": decoupled})
    augmentation = PairAugmentation(settled, ready.specs)
    task = TrainingTask(
        learner,
        augmentation,
        settings.optimiser,
        ema_decay=settings.ema_decay,
        batch_norm_batches=settings.batch_norm_batches,
        seed=settings.seed,
        accumulate=settings.accumulate,
    )
    return task, data


def _batches(config: TrainConfig, method: MethodSettings, ready: Prepared, tell: Listener) -> CoregisteredDataModule:
    settings = config.training
    unlabelled = round(settings.unlabelled_share * settings.patches) if method.learns_without_labels else 0
    if any("unlabelled" in scene.inside for scene in ready.scenes) and not method.learns_without_labels:
        tell(f"The split unlabelled is not used: the method {method.name} learns from labels alone.")
    plan = BatchPlan(
        settings.patch_px,
        settings.patches,
        settings.steps_per_epoch,
        settings.balance,
        settings.seed,
        settings.workers if isinstance(settings.workers, int) else 0,
        unlabelled,
        settings.balance_by,
        processes_of(settings) * settings.accumulate,
    )
    data = CoregisteredDataModule(ready.scenes, ready.specs, plan, config.data.aoi or SCENES)
    data.process, data.on_device = (0, processes_of(settings)), ready.on_device
    if ready.on_device is not None and not ready.on_device.is_loaded:
        tell.stage("Loading the layers")
        ready.on_device.load(data.dataset, number_format.device_of(settings.accelerator), tell.progress)
    if data.unlabelled:
        tell(f"A batch holds {settings.patches} patches with labels and {data.unlabelled} without.")
    return data


def measured_batch(
    config: TrainConfig, trainings: Sequence[tuple[MethodSettings, Prepared]], tell: Callable[[str], None]
) -> TrainConfig:
    """Measure how many patches fit into the memory of the device.

    Args:
        config: The configuration, with ``batch_size: auto``.
        trainings: Method and inputs of each training that the batch is for.
        tell: Called with a line for the user.

    Returns:
        The configuration with the number, see `with_batch_size`.
    """
    tried = config.model_copy(update={"training": config.training.model_copy(update={"batch_size": TRIED_PATCHES})})
    found = [step_memory(*parts_of(tried, method, own, Listener()), config.training) for method, own in trainings]
    return with_fitting_batch(config, found, tell)
