"""The campaign: every case's code runs on the CPU, and it goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.measurement.files import read_run
from vramplan.measurement.run import Witness

pytest.importorskip("diffusers")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "campaign.py"


def campaign(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def names() -> list[str]:
    return [line.split()[0] for line in campaign("--list").stdout.splitlines()]


def test_every_case_runs_dry_and_is_written(tmp_path: Path) -> None:
    """No GPU minute is lost to a typo: this is the whole campaign with tiny shapes."""
    done = campaign("--dry", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = names()
    assert len(listed) > 60
    assert {path.stem for path in tmp_path.glob("*.json")} == set(listed)
    for name in listed:
        run = read_run(tmp_path / f"{name}.json")
        assert run.witness is Witness.DRY
        assert run.failure is None, name
        assert run.stretches or run.workspaces or run.pipeline == "@context"
        assert all(one.torch is None and one.device_used_bytes is None for one in run.stretches)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    again = campaign("--dry", "--out", tmp_path)
    assert again.stdout.startswith("0 of ")


def test_a_case_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    words = ("--dry", "--out", tmp_path, "--only", "log-anomaly-ae-train")
    assert campaign(*words).returncode == 0
    path = tmp_path / "log-anomaly-ae-train.json"
    data = json.loads(path.read_text())
    data["result"]["run"]["failure"] = {
        "kind": "timeout", "phase": "x", "component": "y", "message": "", "asked_bytes": None,
    }  # fmt: skip
    path.write_text(json.dumps(data))
    assert campaign(*words).stdout.startswith("1 of 1 ")
    assert read_run(path).failure is None


def test_processes_are_started_before_their_turn(tmp_path: Path) -> None:
    wanted = ["context", "convolutions", "log-anomaly-ae-train", "denoising-ae-infer"]
    done = campaign("--dry", "--processes", "--out", tmp_path, "--only", *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} == set(wanted)
    runs = [read_run(tmp_path / f"{name}.json") for name in wanted]
    assert [run.failure for run in runs] == [None] * 4
    assert len(runs[1].workspaces) == 24


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
