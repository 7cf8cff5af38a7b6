"""A generated scene for examples and tests: a small town with image, heights, labels and areas."""

from geocrodino.data.synthetic.scene import Scene, generate_scene
from geocrodino.data.synthetic.settings import CLASSES, SceneSettings
from geocrodino.data.synthetic.write import ScenePaths, write_scene

__all__ = ["CLASSES", "Scene", "ScenePaths", "SceneSettings", "generate_scene", "write_scene"]
