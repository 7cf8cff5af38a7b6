"""A generated scene for examples and tests: a small town with image, heights, labels and areas."""

from geocrodino.settings.town import CLASSES, SceneSettings
from geocrodino.town.scene import Scene, generate_scene
from geocrodino.town.write import ScenePaths, write_scene

__all__ = ["CLASSES", "Scene", "ScenePaths", "SceneSettings", "generate_scene", "write_scene"]
