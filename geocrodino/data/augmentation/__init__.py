"""Random geometry and radiometry for batches: a pipeline of Kornia operations for each modality."""

from geocrodino.data.augmentation.check import check_channels, check_operations
from geocrodino.data.augmentation.pair import PairAugmentation

__all__ = ["PairAugmentation", "check_channels", "check_operations"]
