"""Land-cover maps from optical or elevation rasters: train on both, predict from whichever is there.

The names below are loaded when they are first used, so that importing the package does no work.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geocrodino.bundle.io import Bundle as Bundle
    from geocrodino.bundle.io import load_bundle as load_bundle
    from geocrodino.errors import GeocrodinoError as GeocrodinoError
    from geocrodino.evaluation.evaluate import evaluate_map as evaluate_map
    from geocrodino.evaluation.evaluate import evaluate_maps as evaluate_maps
    from geocrodino.geo.areas.aoi import read_aoi as read_aoi
    from geocrodino.geo.rasters.array import read_raster as read_raster
    from geocrodino.geo.rasters.reader import RasterSource as RasterSource
    from geocrodino.maps.preview import map_preview as map_preview
    from geocrodino.prediction.engine import predict as predict
    from geocrodino.prediction.lazy import predict_array as predict_array
    from geocrodino.settings.config import TrainConfig as TrainConfig
    from geocrodino.settings.config import load_config as load_config
    from geocrodino.settings.prediction import Execution as Execution
    from geocrodino.settings.prediction import Inputs as Inputs
    from geocrodino.settings.prediction import Outputs as Outputs
    from geocrodino.settings.prediction import Tiling as Tiling
    from geocrodino.settings.town import SceneSettings as SceneSettings
    from geocrodino.town import write_scene as write_scene
    from geocrodino.training.run import train as train

_HOMES = {
    "Bundle": "geocrodino.bundle.io",
    "Execution": "geocrodino.settings.prediction",
    "GeocrodinoError": "geocrodino.errors",
    "Inputs": "geocrodino.settings.prediction",
    "Outputs": "geocrodino.settings.prediction",
    "RasterSource": "geocrodino.geo.rasters.reader",
    "SceneSettings": "geocrodino.settings.town",
    "Tiling": "geocrodino.settings.prediction",
    "TrainConfig": "geocrodino.settings.config",
    "evaluate_map": "geocrodino.evaluation.evaluate",
    "evaluate_maps": "geocrodino.evaluation.evaluate",
    "load_bundle": "geocrodino.bundle.io",
    "load_config": "geocrodino.settings.config",
    "map_preview": "geocrodino.maps.preview",
    "predict": "geocrodino.prediction.engine",
    "predict_array": "geocrodino.prediction.lazy",
    "read_aoi": "geocrodino.geo.areas.aoi",
    "read_raster": "geocrodino.geo.rasters.array",
    "train": "geocrodino.training.run",
    "write_scene": "geocrodino.town",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one list of names, here


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geocrodino' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
