"""Scripts of the repository that belong to no package, as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_script(name: str, as_module: str) -> ModuleType:
    """Run a script as a module.

    Args:
        name: Its path in the repository.
        as_module: The name of the module.

    Returns:
        The module.
    """
    spec = importlib.util.spec_from_file_location(as_module, ROOT / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
