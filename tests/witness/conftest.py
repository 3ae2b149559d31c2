"""Programs under torch's CUDA build, on cards that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cuda_build() -> str:
    """Return the version of torch's CUDA build; skip where this Python has none."""
    from vramplan.engines.torch.witness.torch_files import find_torch
    from vramplan.errors import MissingError

    try:
        return find_torch().version
    except MissingError as problem:
        pytest.skip(str(problem))


@pytest.fixture
def on_card(cuda_build: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a program on a card; return the result of `vramplan run`, with what was printed."""
    assert cuda_build

    def run(program: str, card: str = "8gb", *options: str, **variables: str) -> dict[str, Any]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(program))
        command = [sys.executable, "-m", "vramplan", "run", "--card", card, "-q", "--json"]
        done = subprocess.run(
            [*command, *options, "--", sys.executable, "program.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["result"]
        printed = [line[2:] for line in done.stderr.splitlines() if line.startswith("> ")]
        return {**found, "code": done.returncode, "printed": printed, "stderr": done.stderr}

    return run
