"""The tests' model files with real shapes and no data, for the tools that show or ask them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_TESTS = Path(__file__).parents[1] / "tests"


def sparse_module(name: str) -> ModuleType:
    """Return the tests' module `name`, such as ``sparse_gguf``; tests are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _TESTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
