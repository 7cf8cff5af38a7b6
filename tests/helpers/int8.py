"""When int8 networks can be made."""

from importlib.metadata import version
from importlib.util import find_spec

import pytest

_OPENVINO = (2026, 4)  # the lower bound of the extra int8; the extra openvino allows older ones, which NNCF refuses


def _reason():
    missing = [name for name in ("nncf", "openvino") if find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed"
    found = tuple(map(int, version("openvino").split(".")[:2]))
    return None if found >= _OPENVINO else f"openvino {version('openvino')} is too old for nncf"


needs_nncf = pytest.mark.skipif(_reason() is not None, reason=str(_reason()))
