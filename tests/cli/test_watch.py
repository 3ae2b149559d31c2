"""``vramplan watch``: live cards, recorded ones, and the summary."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vramplan.measurement.peaks import Peaks
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.measurement.watched import Plan, Watched
from vramplan.report.watch_view import draw_live

ROOT = Path(__file__).parents[2]
MIB = 1 << 20

_SPEC = importlib.util.spec_from_file_location(
    "synthetic_runs", ROOT / "tests" / "synthetic_runs.py"
)
synthetic = sys.modules.setdefault("synthetic_runs", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(synthetic)


@pytest.fixture
def saved(tmp_path) -> Path:
    from vramplan.compare.comparison import compare_run
    from vramplan.report.comparison_serial import comparison_result
    from vramplan.report.serial import to_json

    planned = synthetic.an_estimate()
    result = comparison_result(compare_run(planned, synthetic.a_run(planned)), None)
    path = tmp_path / "run.json"
    path.write_text(to_json("profile", result), encoding="utf-8")
    return path


def test_without_a_gpu_a_recorded_run_is_offered(run) -> None:
    result = run("watch")
    assert (result.code, result.out) == (3, "")
    assert "no NVIDIA driver" in result.error
    assert "--replay shows a run that ships" in result.hint


def test_every_card_is_looked_at_and_peaks_are_kept(run, driver, gpu, validate) -> None:
    cards = (
        gpu(uuid="GPU-a", computing=[(10, 600 * MIB)]),
        gpu(uuid="GPU-b", name="NVIDIA A100", used=5 * MIB),
    )
    driver(*cards, names={10: "python"})
    result = run("watch", "--count", "2", "--interval", "0.01", "--json")
    assert result.code == 0
    validate(result.json)
    first, second = result.json["result"]["cards"]
    assert (first["peak_bytes"], first["looks"]) == (900 * MIB, 2)
    assert first["processes"] == [
        {"pid": 10, "name": "python", "kind": "C", "peak_bytes": 600 * MIB}
    ]
    assert second["card"] == "1: NVIDIA A100"
    assert len(result.err.splitlines()) == 4  # a line for each card at each look
    one = run("watch", "--gpu", "GPU-b", "--count", "1", "--json")
    assert [card["card"] for card in one.json["result"]["cards"]] == ["1: NVIDIA A100"]


@pytest.mark.parametrize(("budget", "within"), [("1000MiB", True), ("800MiB", False)])
def test_a_planned_budget_is_held_against_the_peak(run, driver, gpu, budget, within) -> None:
    driver(gpu(uuid="GPU-a"))
    result = run("watch", "--budget", budget, "--count", "1", "--json")
    assert result.json["result"]["cards"][0]["within_plan"] is within


def test_a_target_is_a_plan(run, driver, gpu) -> None:
    driver(gpu(uuid="GPU-a"))
    plan = run("watch", "sd15", "--count", "1", "--json").json["result"]["plan"]
    assert plan["name"] == "sd15 at its peak"
    ours = json.loads(run("estimate", "sd15", "--json").out)["result"]["peak"]
    assert plan["bytes"] == ours["device_bytes"]


def test_a_plan_is_that_of_each_cards_own_architecture(run, driver, gpu, validate) -> None:
    driver(gpu(uuid="GPU-a"), gpu(uuid="GPU-b", name="NVIDIA H100", capability=(9, 0)))
    result = run("watch", "sd15", "--count", "1", "--json")
    validate(result.json)
    expected = [
        json.loads(run("estimate", "sd15", "--card", card, "--json").out)["result"]["peak"]
        for card in ("rtx-3060-12gb", "h100-80gb")
    ]
    plans = [card["plan_bytes"] for card in result.json["result"]["cards"]]
    assert plans == [peak["device_bytes"] for peak in expected]
    assert plans[0] != plans[1]
    shown = run("watch", "sd15", "--count", "1").out
    assert "planned on 0: NVIDIA GeForce RTX 3060: sd15 at its peak" in shown
    assert "planned on 1: NVIDIA H100: sd15 at its peak" in shown


def test_a_recorded_run_is_watched_on_any_machine(run, saved) -> None:
    result = run("watch", "--replay", saved, "--budget", "4GiB")
    assert result.code == 0
    assert "planned: budget, 4,096 MiB" in result.out
    assert "python (4711)" in result.out


def test_a_run_ships_to_be_watched_without_a_gpu(run) -> None:
    result = run("watch", "sd15", "--steps", "4", "--replay")
    assert result.code == 0
    assert "sd15 on NVIDIA GeForce RTX 3060" in result.out
    assert "planned: sd15 at its peak" in result.out
    (card,) = run("watch", "--replay", "--json").json["result"]["cards"]
    assert re.fullmatch(r"sd15 on NVIDIA .* 12GB \(pretended\), \d{4}-\d\d-\d\d", card["card"])
    # what torch itself took there, a process's context included
    assert card["looks"] > 20
    assert 3_500 << 20 < card["peak_bytes"] < 4_500 << 20


def test_the_live_view_draws_use_peak_plan_and_holders() -> None:
    peaks = Peaks()
    python = ProcessMemory(pid=10, name="python", used_bytes=4 * MIB)
    for at, used in enumerate((8, 4)):
        memory = DeviceMemory(
            total_bytes=16 * MIB,
            used_bytes=used * MIB,
            free_bytes=0,
            reserved_bytes=None,
            processes=(python,),
        )
        peaks.take(Reading(at_s=float(at), device=memory))
    plan = Plan(label="mine", size_bytes=12 * MIB)
    lines = draw_live([Watched(label="0: A", peaks=peaks, plan=plan)], colour=False, width=60)
    assert lines[0] == "0: A"
    bar = lines[1][lines[1].index("[") + 1 : lines[1].index("]")]
    assert bar.count("█") == -(-len(bar) // 4)
    assert bar.count("█") + bar.count("░") == -(-len(bar) // 2)
    assert bar.index("│") == -(-len(bar) * 3 // 4)
    assert "the peak is 4 MiB below" in lines[2]
    assert "python" in lines[3]
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--interval", "0"], "not a time in seconds"),
        (["--count", "0"], "not a number of looks"),
        (["--budget", "8G"], "unclear unit"),
        (["--batch", "2"], "settings belong to a TARGET"),
        (["sd15", "--budget", "1GiB"], "two plans"),
        (["--replay", "no.json"], "no.json: cannot be read"),
    ],
)
def test_bad_use_is_one_line(run, driver, gpu, words, said) -> None:
    driver(gpu(uuid="GPU-a"))
    result = run("watch", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.error


def test_ctrl_c_shows_the_summary_and_is_no_error(tmp_path) -> None:
    """On the fake driver, in a process of its own."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import fake_nvml
scenario = fake_nvml.Scenario(gpus=[fake_nvml.FakeGpu(uuid="GPU-a")])
sys.modules["pynvml"] = fake_nvml.make_pynvml(scenario)
from vramplan.cli import main
sys.exit(main(["watch", "--interval", "0.05"]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "RTX 3060" in child.stderr.readline()
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 0
    assert "the whole card" in out


def test_a_log_has_lines_of_80_columns_one_a_card(run) -> None:
    done = run("watch", "--replay")
    lines = [line for line in done.err.splitlines() if " s  " in line]
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80
