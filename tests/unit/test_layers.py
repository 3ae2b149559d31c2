"""The layers of the design are kept, and the contracts in pyproject.toml can fail.

Each case copies the package, adds one import that the design forbids and expects import-linter to
name the contract that it breaks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Lint = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout of the package and its contracts that a test may spoil."""
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vramplan", tmp_path / "vramplan", ignore=without_caches)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(checkout: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a checkout, all contracts or those named."""
    chosen = [argument for contract in contracts for argument in ("--contract", contract)]
    code = "from importlinter.cli import lint_imports_command as main; main()"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo", *chosen]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(checkout)}
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def add_import(checkout: Path, module: str, line: str) -> None:
    """Append `line` to a module of the copy; a package that is not there yet is made."""
    path = checkout / Path(*module.split("."))
    if path.is_dir() or not path.with_suffix(".py").exists():
        path.mkdir(exist_ok=True)
        path /= "__init__.py"
    else:
        path = path.with_suffix(".py")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")


def test_clean_tree_keeps_every_contract(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("layers", "vramplan.model", "import vramplan.engines.torch.tape"),  # upwards
        ("layers", "vramplan.units", "from vramplan import dtypes"),  # siblings among the leaves
        ("layers", "vramplan.novelty", "import vramplan.model"),  # a module without a layer
        ("layers", "vramplan.report", "import vramplan.ask.check"),  # siblings
        ("engines", "vramplan.engines.torch", "import vramplan.engines.ggml.weights"),  # strangers
        ("door", "vramplan.ask", "import vramplan.engines.torch.tape"),  # downwards, yet behind it
        ("door", "vramplan.report", "import vramplan.engines.ggml.weights"),
        ("commands", "vramplan.commands", "import vramplan.probe.nvml"),
        ("cycles", "vramplan.catalog.shipped", "import vramplan.catalog.search"),
        (
            "frameworks",
            "vramplan.engines.torch.tape",
            "def replay():\n    import numpy",
        ),  # lazily too
        ("frameworks", "vramplan.commands", "import torch.nn"),
        ("nvml", "vramplan.engines.torch.record", "import pynvml"),
        ("rendering", "vramplan.commands", "from tabulate import tabulate"),
        ("tables", "vramplan.report", "import pyarrow"),
        ("tables", "vramplan.ask", "def sweep():\n    import ray"),
    ],
)
def test_offending_import_breaks_its_contract(
    copy: Path, contract: str, module: str, line: str
) -> None:
    add_import(copy, module, line)
    result = lint(copy, contract)
    assert result.returncode == 1, result.stdout
    assert "1 broken" in result.stdout
    assert f".{module.rpartition('.')[2]}" in result.stdout


def test_owner_of_a_library_may_import_it(copy: Path) -> None:
    add_import(
        copy, "vramplan.engines.torch.record.something", "import torch, diffusers, transformers"
    )
    add_import(copy, "vramplan.report", "import jinja2, tabulate")
    add_import(copy, "vramplan.runner.cluster", "import ray")
    add_import(copy, "vramplan.report.sweep_parquet", "import pyarrow.parquet")
    assert lint(copy, "frameworks", "rendering", "tables").returncode == 0
