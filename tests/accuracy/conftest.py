"""What tests of accuracy share: the engine is asked in copies of a process that has loaded it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vramplan.engines.ggml import engine_process

_PATH = Path(__file__).parents[1] / "engine_forks.py"
_SPEC = importlib.util.spec_from_file_location("engine_forks", _PATH)
engine_forks = sys.modules.setdefault("engine_forks", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(engine_forks)


@pytest.fixture(autouse=True, scope="session")
def engine_server() -> Iterator[None]:
    """Let the process that is copied end with the tests."""
    yield
    engine_forks.end()


@pytest.fixture(autouse=True, scope="module")
def forked_engines() -> Iterator[None]:
    """Let the engine's processes start at once, where processes can be copied.

    `test_engine_forks` holds them to those that users start. Tests of other folders, which may run
    in between, start theirs as users do.
    """
    if sys.platform != "linux":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_process, "start", engine_forks.start)
        yield
