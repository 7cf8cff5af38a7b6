"""The public names, by the module that defines them."""

from .bundle.io import Bundle as Bundle
from .bundle.io import load_bundle as load_bundle
from .errors import GeocrodinoError as GeocrodinoError
from .evaluation.evaluate import evaluate_map as evaluate_map
from .evaluation.evaluate import evaluate_maps as evaluate_maps
from .export.run import export_bundle as export_bundle
from .geo.areas.aoi import read_aoi as read_aoi
from .geo.rasters.array import read_raster as read_raster
from .geo.rasters.reader import RasterSource as RasterSource
from .maps.preview import map_preview as map_preview
from .prediction.engine import predict as predict
from .prediction.lazy import predict_array as predict_array
from .project.guess import Known as Known
from .project.guess import guess_project as guess_project
from .report.tables import side_by_side as side_by_side
from .settings.config import TrainConfig as TrainConfig
from .settings.config import load_config as load_config
from .settings.prediction import Execution as Execution
from .settings.prediction import Inputs as Inputs
from .settings.prediction import Outputs as Outputs
from .settings.prediction import Tiling as Tiling
from .settings.town import SceneSettings as SceneSettings
from .town import write_scene as write_scene
from .training.quantise import quantise as quantise
from .training.run import train as train

__version__: str
