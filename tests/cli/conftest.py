"""Runs commands: in this process, where a driver can be faked, or as a process of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vramplan.cli import main

ROOT = Path(__file__).parents[2]

_PATH = Path(__file__).parents[1] / "fake_nvml.py"
_SPEC = importlib.util.spec_from_file_location("fake_nvml", _PATH)
fake_nvml = sys.modules.setdefault("fake_nvml", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(fake_nvml)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of the error, and nothing else but a hint."""
        lines = self.err.splitlines()
        assert lines, "nothing on stderr"
        assert lines[0].startswith("error: "), self.err
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), self.err
        return lines[0].removeprefix("error: ")

    @property
    def hint(self) -> str:
        return self.err.splitlines()[1].removeprefix("hint: ")


Run = Callable[..., Result]


@pytest.fixture
def driver(monkeypatch) -> Callable[..., None]:
    """Install an NVIDIA driver with these GPUs; without any, a machine that has no driver."""

    def install(*gpus, **answers) -> None:
        if not gpus and not answers:
            answers = {"init_error": fake_nvml.real.NVML_ERROR_LIBRARY_NOT_FOUND}
        scenario = fake_nvml.Scenario(gpus=list(gpus), **answers)
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.make_pynvml(scenario))

    return install


@pytest.fixture
def gpu() -> Callable[..., Any]:
    """Make a GPU for `driver`."""
    return fake_nvml.FakeGpu


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, driver) -> Run:
    """Run a command in an empty folder of a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VRAMPLAN_CATALOG", raising=False)
    for name in [name for name in os.environ if name.startswith("OLLAMA_")]:
        monkeypatch.delenv(name)
    driver()

    def call(*words: str | Path) -> Result:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def process(tmp_path) -> Run:
    """Run a command as a process of its own, in an empty folder."""

    def call(*words: str | Path, **variables: str) -> Result:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        environment.pop("VRAMPLAN_CATALOG", None)
        done = subprocess.run(
            [sys.executable, "-m", "vramplan", *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def validate():
    """Check an object against the JSON Schema that ships."""
    jsonschema = pytest.importorskip("jsonschema")
    path = ROOT / "profiles" / "schema" / "output.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema).validate


PIPELINE = """\
name: tiny:1b
title: Tiny 1B
summary: A language model for tests.
runtime: llama.cpp
source: made up
settings: {context: 512, ubatch: 512, kv_type: f16, flash_attention: off, gpu_layers: all,
  parallel: 1, engine: b11549, platform: linux}
constraints: {context: {min: 1, max: 4096}}
ggml: {architecture: llama, quantisation: q4_0, layers: 4, embedding: 256, feed_forward: 512,
  heads: 4, kv_heads: 4, vocabulary: 1000, trained_context: 4096}
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A file of a pipeline of the user's own that needs next to nothing."""
    path = tmp_path / "tiny.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    return path
