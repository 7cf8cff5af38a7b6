"""When networks can be exported to ONNX."""

from importlib.util import find_spec

import pytest

_missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]

needs_onnx = pytest.mark.skipif(bool(_missing), reason=f"{' and '.join(_missing)} not installed")
