"""The campaign: every case's code runs on the CPU, and it goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tools import campaign as module
from tools import tiny
from vramplan.errors import MeasurementError
from vramplan.measurement.files import read_run
from vramplan.measurement.run import Failure, FailureKind, Witness

pytest.importorskip("diffusers")

ROOT = Path(__file__).parents[2]


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


synthetic = _load(ROOT / "tests" / "synthetic_runs.py", "synthetic_runs")


def campaign(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.campaign", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def names() -> list[str]:
    return [line.split()[0] for line in campaign("--list").stdout.splitlines()]


#: an engine has no dry run: its file is written, and looked at
ENGINES = {"llava-7b-as-8gb", "llava-7b-as-12gb"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return what the whole campaign wrote, and said."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, campaign("--dry", "--out", folder)


def test_every_case_runs_dry_and_is_written(whole) -> None:
    """No GPU minute is lost to a typo: this is the whole campaign with tiny shapes."""
    folder, done = whole
    assert done.returncode == 0, done.stdout + done.stderr
    listed = names()
    assert len(listed) > 60
    assert {"sd15-512-as-8gb", "sd15-512-as-12gb"} | ENGINES < set(listed[:8])  # what is asked most
    assert done.stdout.count("planned: 4444 MiB of weights") == len(ENGINES)
    assert {path.stem for path in folder.glob("*.json")} == set(listed) - ENGINES
    for name in [name for name in listed if name not in ENGINES]:
        run = read_run(folder / f"{name}.json")
        assert run.witness is Witness.DRY
        assert run.failure is None, name
        assert run.stretches or run.workspaces or run.pipeline == "@context"
        assert all(one.torch is None and one.device_used_bytes is None for one in run.stretches)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_case_that_was_cut_short_is_made_again_and_no_other(whole) -> None:
    folder, _ = whole
    path = folder / "log-anomaly-ae-train.json"
    data = json.loads(path.read_text())
    data["result"]["run"]["failure"] = {
        "kind": "timeout", "phase": "x", "component": "y", "message": "", "asked_bytes": None,
    }  # fmt: skip
    path.write_text(json.dumps(data))
    again = campaign("--dry", "--out", folder)
    assert again.stdout.startswith(f"{len(ENGINES) + 1} of ")
    assert read_run(path).failure is None


def test_processes_are_started_before_their_turn(tmp_path: Path) -> None:
    wanted = ["context", "convolutions", "log-anomaly-ae-train", "denoising-ae-infer"]
    done = campaign("--dry", "--processes", "--out", tmp_path, "--only", *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} == set(wanted)
    runs = [read_run(tmp_path / f"{name}.json") for name in wanted]
    assert [run.failure for run in runs] == [None] * 4
    assert len(runs[1].workspaces) == 24


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> ModuleType:
    """Return the campaign, which begins with one tiny catalogue for all of them."""
    folder = tiny.write_tiny(tmp_path_factory.mktemp("tiny"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny, "write_tiny", lambda _folder: folder)
        yield module


def a_campaign(script: ModuleType, folder: Path, **more: object):
    """Return a campaign that looks for nothing but what is in `folder`."""
    options = {"dry": True, "out": folder, "scratch": str(folder / "scratch"), "budget": 500.0}
    return script.Campaign(SimpleNamespace(**{**options, "gpu": None, **more}))


def test_what_failed_comes_again_when_all_else_is_there(script, tmp_path) -> None:
    made = a_campaign(script, tmp_path)
    cases = {name: script.Case(name, "sd15") for name in ("oom", "error", "damaged", "new", "ok")}
    planned = synthetic.an_estimate()
    for name, kind in (("oom", "oom"), ("error", "error"), ("ok", None)):
        failure = None
        if kind is not None:
            failure = Failure(kind=FailureKind(kind), phase="x", component="y", message="")
        made.write(cases[name], synthetic.a_run(planned, failure=failure, gpu=None))
    made.path(cases["damaged"]).write_text('{"result"')
    found = [case.name for case in made.todo(list(cases.values()))]
    assert found == ["new", "error", "damaged"]


class Stub:
    """A measurement that takes no time."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.limits: list[float] = []

    def measure(self, *, limit_seconds: float) -> None:
        self.limits.append(limit_seconds)
        if self.problem is not None:
            raise self.problem

    def make_run(self, _outcome: None):
        return synthetic.a_run(synthetic.an_estimate(), gpu=None)


def test_a_case_that_goes_wrong_costs_no_other(script, tmp_path, monkeypatch, capsys) -> None:
    stubs = {"a": Stub(), "b": Stub(KeyError("typo")), "d": Stub(MeasurementError("too full"))}
    stubs["e"] = Stub()

    def prepare(order, _progress, _stack):
        name = order.command.split()[-1]
        if name == "c":
            raise AttributeError("no such thing")
        return stubs[name]

    monkeypatch.setattr(script, "prepare_order", prepare)
    made = a_campaign(script, tmp_path)
    assert script.run_ahead(made, [script.Case(name, "sd15") for name in "abcde"]) == 1
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["a", "e"]
    said = capsys.readouterr().out
    assert "b                              not measured: KeyError: 'typo'" in said
    assert "c                              not measured: AttributeError: no such thing" in said
    assert "d                              not measured: too full" in said


def test_no_case_gets_more_of_the_clock_than_is_left_when_it_begins(
    script, tmp_path, monkeypatch
) -> None:
    first, second = Stub(), Stub()
    made = a_campaign(script, tmp_path)
    left = [110.0, 110.0, 40.0, 40.0]  # two looks at the clock for each
    monkeypatch.setattr(made, "left_s", lambda: left.pop(0))
    monkeypatch.setattr(
        script, "prepare_order", lambda order, *_: first if order.command.endswith("a") else second
    )
    assert script.run_ahead(made, [script.Case(name, "sd15") for name in "ab"]) == 0
    assert (first.limits, second.limits) == ([105.0], [35.0])


def test_without_a_gpu_it_is_one_line_and_3(tmp_path: Path) -> None:
    done = campaign("--out", tmp_path, "--only", "context")
    if done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 3
    assert done.stderr.startswith("error: no NVIDIA driver")
    assert not list(tmp_path.iterdir())


def test_an_unknown_case_is_refused(tmp_path: Path) -> None:
    done = campaign("--dry", "--out", tmp_path, "--only", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no case nothing" in done.stderr


def test_what_is_under_measured_came_from_a_gpu() -> None:
    for path in (ROOT / "profiles" / "measured").glob("*/*.json"):
        data = json.loads(path.read_text())
        if data.get("command") in ("profile", "campaign"):
            assert read_run(path).witness is Witness.GPU, path
