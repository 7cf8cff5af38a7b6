"""Random geometry and radiometry for batches: pipelines of Kornia's operations, one for each modality."""

from geocrodino.data.augmentation.check import check_channels, check_operations
from geocrodino.data.augmentation.pair import PairAugmentation

__all__ = ["PairAugmentation", "check_channels", "check_operations"]
