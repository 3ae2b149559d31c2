"""`vramplan sweep`: rows that say what check says, in every format, taken up where they stopped."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vramplan.known_settings import SETTING_HELP
from vramplan.report.sweep import COLUMNS

ROOT = Path(__file__).parents[2]
SEED = 12

GRID = """\
cards: [8gb, rtx-3060-12gb]
grids:
  - targets: [denoising-ae, log-anomaly-ae]
    settings: {batch: "1..3", mode: [infer, train]}
  - targets: [llava:7b]
    settings: {context: [2048, 4096]}
"""


@pytest.fixture
def grid(tmp_path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID, encoding="utf-8")
    return path


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_targets_own_values_go_before_those_for_all(run) -> None:
    """And may be ranges; a setting that only it has needs to be nobody else's."""
    result = run(
        "sweep", "denoising-ae[batch=2..3]", "log-anomaly-ae", "llava:7b[context=2048]",
        "--set", "batch=1", "--card", "8gb", "--jobs", "1",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    found = [(row["pipeline"], row["batch"], row["context"]) for row in rows_of(result.out)]
    assert [one[:2] for one in found] == [
        ("denoising-ae", "2"), ("denoising-ae", "3"), ("log-anomaly-ae", "1"), ("llava:7b", ""),
    ]  # fmt: skip
    assert found[-1][2] == "2048"
    twice = run("sweep", "denoising-ae[batch=2]", "--batch", "9", "--card", "8gb", "--jobs", "1")
    assert [row["batch"] for row in rows_of(twice.out)] == ["2"]
    for target, error in (("llava:7b[batch=1]", "has no setting 'batch'"), ("sd15[batch=x]", "x")):
        done = run("sweep", target, "--card", "8gb", "--jobs", "1")
        assert (done.code, done.out) == (2, "")
        assert error in done.error


def test_a_row_for_every_combination_and_card_in_a_stated_order(run) -> None:
    result = run(
        "sweep", "denoising-ae", "--set", "batch=1..2,8", "--mode", "infer,train",
        "--card", "8gb", "--card", "12gb", "--jobs", "1",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    rows = rows_of(result.out)
    assert tuple(rows[0]) == COLUMNS
    assert [(row["batch"], row["mode"], row["card"]) for row in rows] == [
        (batch, mode, card)
        for batch in ("1", "2", "8")
        for mode in ("infer", "train")
        for card in ("8gb", "12gb")
    ]


def test_rows_say_what_check_says_field_by_field(run) -> None:
    words = (
        "sweep", "sd15", "sdxl", "llava:7b", "llava-1.5-7b-hf", "vit-mae-base", "--jobs", "1",
        "--set", "image=512x512,768x512", "--set", "batch=1,3", "--set", "offload=none,auto",
        "--set", "context=2048..4096:2048", "--set", "platform=linux,windows", "-q",
        "--card", "6gb", "--card", "rtx-3060-12gb", "--card", "11.6GiB", "--margin", "100MiB",
    )  # fmt: skip
    rows = rows_of(run(*words).out)
    kinds = {row["verdict"] for row in rows}
    assert kinds == {"fits", "tight", "offload", "oom"}
    for row in random.Random(SEED).sample(rows, 25):  # noqa: S311  # no secret
        given = [f"--set={key}={row[key]}" for key in SETTING_HELP if row[key]]
        told = run("check", row["pipeline"], "--card", row["card"], *given, "--margin", "100MiB",
                   "--json").json["result"]["verdicts"][0]  # fmt: skip
        layers = told["layers"] or {"total": None, "on_gpu": None}
        told |= {"layers_total": layers["total"], "layers_on_gpu": layers["on_gpu"]}
        told |= {"context_tokens": told["context"], "problem": None, "advice": None}
        for column in COLUMNS[: COLUMNS.index("problem") + 1]:
            assert row[column] == ("" if told[column] is None else str(told[column])), (row, column)


def test_the_formats_say_the_same(run, grid) -> None:
    plain = rows_of(run("sweep", grid, "--jobs", "1").out)
    lines = run("sweep", grid, "--jobs", "2", "--format", "jsonl").out.splitlines()
    objects = [json.loads(line) for line in lines]
    assert len(plain) == len(objects) == 28
    for row, one in zip(plain, objects, strict=True):
        assert tuple(one) == COLUMNS
        assert {key: "" if value is None else str(value) for key, value in one.items()} == row
    assert isinstance(objects[0]["batch"], int)


def test_parquet_says_the_same(run, grid, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run("sweep", grid, "--jobs", "1", "-o", "a.jsonl")
    result = run("sweep", grid, "--jobs", "1", "-o", "a.parquet")
    assert (result.code, result.err) == (0, "wrote a.parquet\n")
    objects = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == objects
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.parquet", "grid.yaml"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_rows_that_are_there_are_replaced_only_when_that_is_asked_for(
    run, tmp_path, name: str
) -> None:
    words = ("sweep", "log-anomaly-ae", "--card", "12gb", "--jobs", "1", "-o", name)
    (tmp_path / name).write_text("mine\n", encoding="utf-8")
    result = run(*words)
    assert (result.code, result.error) == (2, f"{name}: is there already")
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert run(*words, "--force").code == 0
    assert "log-anomaly-ae" in (tmp_path / name).read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(bool(importlib.util.find_spec("pyarrow")), reason="pyarrow is installed")
def test_parquet_without_pyarrow_is_one_line(run, grid) -> None:
    result = run("sweep", grid, "-o", "a.parquet")
    assert (result.code, result.error) == (3, "Parquet needs pyarrow")
    assert "parquet" in result.hint


@pytest.mark.skipif(bool(importlib.util.find_spec("ray")), reason="Ray is installed")
def test_ray_that_is_not_there_is_one_line(run, grid) -> None:
    result = run("sweep", grid, "--on", "ray")
    assert (result.code, result.error) == (3, "--on ray needs Ray")
    assert "cluster" in result.hint


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_a_local_ray_cluster_says_the_same(process, grid) -> None:
    here = process("sweep", grid, "--jobs", "1")
    there = process("sweep", grid, "--on", "ray", "--jobs", "2")
    assert (there.code, there.out) == (0, here.out)


def test_advice_is_checks_and_only_where_it_is_asked_for(run) -> None:
    words = ("sdxl", "--card", "12gb")
    told = run("check", *words, "--json").json["result"]["verdicts"][0]
    found = run("sweep", *words, "--jobs", "1", "--advice", "--format", "jsonl")
    assert json.loads(found.out)["advice"] == told["advice"] != []
    (row,) = rows_of(run("sweep", *words, "--jobs", "1", "--advice").out)
    assert row["advice"] == "; ".join(one["change"] for one in told["advice"])


def test_a_value_that_one_target_does_not_take_is_left_out_and_said(run) -> None:
    words = ("--set", "attention=sdpa,sliced", "--card", "8gb", "--jobs", "1")
    result = run("sweep", "sd15", "sdxl", *words)
    assert result.err == "note: sdxl does not take attention sliced: left out\n"
    found = [(row["pipeline"], row["attention"]) for row in rows_of(result.out)]
    assert found == [("sd15", "sdpa"), ("sd15", "sliced"), ("sdxl", "sdpa")]


def test_what_has_no_verdict_is_a_row_with_a_problem(run) -> None:
    words = ("--card", "8gb", "--card", "12gb", "--margin", "7.5GiB", "--jobs", "1")
    small, large = rows_of(run("sweep", "sd15", *words).out)
    assert "less than the CUDA context alone takes" in small["problem"]
    assert (small["verdict"], small["need_bytes"], large["problem"]) == ("", "", "")


# ------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sd15", "--set", "batch=3..1"), "batch 3..1: no value is in this range"),
        (("sd15", "--set", "dtype=fp16..fp32"), "dtype fp16..fp32: not a range"),
        (("sd15", "--set", "batch=1,,2"), "batch: a value is missing"),
        (("sd15", "--set", "batch"), "not a setting: 'batch'"),
        (("sd15", "--set", "batch=1..9999999"), "batch: more than 100,000 values"),
        (("sd15", "--set", "bacth=1..2"), "unknown setting 'bacth'"),
        (("sd15", "--card", "8gb", "--image", "510"), "image 510x510: width and height must be"),
        (("sd15", "--card", "8gb", "--context", "4096"), "sd15 has no setting 'context'"),
        (("sd15", "--steps", "1..1000", "--image", "64..4096:8", "--batch", "1..64", "--card",
          "8gb", "--card", "12gb", "--set", "dtype=fp16,bf16,fp32"), "are more than 100,000,000"),
        (("sd15", "--jobs", "0"), "'0' is not a number of processes"),
        (("sd15", "-o", "nowhere/a.csv"), "nowhere/a.csv: cannot be written"),
        (("sd15", "-o", "a.xlsx"), "a.xlsx: .xlsx names no format"),
        (("sd15", "-o", "a.md"), "a.md: sweep has no markdown"),
        (("grid.yaml", "sd15"), "grid.yaml: a sweep's file stands alone"),
        (("missing.yaml",), "missing.yaml: cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("grid")
def test_bad_usage_is_one_line(run, words, said) -> None:
    result = run("sweep", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert not list(Path().glob("*.sweep"))


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("targets: [sd15]\ncard: [8gb]\n", "grid.yaml:2:1: card: unknown key", "'cards'"),
        (
            "grids:\n  - targets: [sd15]\n    setings: {batch: 1}\n",
            "grid.yaml:3:5: grids[0].setings: unknown key",
            "'settings'",
        ),
        (
            "targets: [sd15]\nsettings: {batch: [1, x]}\n",
            "grid.yaml:2:19: settings.batch: batch 'x' is not a whole number",
            None,
        ),
        ("cards: [8gb]\n", "grid.yaml:1:1: needs either targets or grids", "grids is a list"),
        ("targets: [sd15]\nsettings: {batch: [[1]]}\n", "expected text or", None),
        ("targets: [sd15]\nmargin: 8G\n", "grid.yaml:2:9: margin: unclear unit", "8GB"),
        ("targets: [sd15]\ncatalog: nowhere\n", "nowhere is not a folder", None),
    ],
)
def test_a_file_with_a_mistake_names_its_place(run, grid, text, said, hint) -> None:
    grid.write_text(text, encoding="utf-8")
    result = run("sweep", "grid.yaml", "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert hint is None or hint in result.hint


# ------------------------------------------------------------------ killed, locked, taken up
def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "vramplan", "sweep", *words],
        cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


LONG = ("log-anomaly-ae", "--set", "batch=1..1500", "--card", "8gb", "--jobs", "2")


def wait_for_rows(path: Path, child: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < 20_000:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130),
                                              (signal.SIGKILL, -9)])  # fmt: skip
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_sweep_that_is_ended_leaves_whole_rows_and_goes_on_after_them(
    tmp_path, number, code
) -> None:
    path = tmp_path / "a.csv"
    child = start(tmp_path, *LONG, "-o", "a.csv")
    wait_for_rows(path, child)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert "Traceback" not in err
    left = path.read_bytes()
    whole = left[: left.rindex(b"\n") + 1]
    if number != signal.SIGKILL:
        assert left == whole
    rows = rows_of(whole.decode())
    assert 0 < len(rows) < 1500
    assert [int(row["batch"]) for row in rows] == list(range(1, len(rows) + 1))
    assert (tmp_path / "a.csv.sweep").exists()
    # what is there is not computed again: a row that is spoilt stays as it is
    spoilt = whole.replace(rows[3]["need_bytes"].encode(), b"77", 1)
    path.write_bytes(spoilt + b"log-anomaly-ae,8g")
    again = start(tmp_path, *LONG, "-o", "a.csv")
    _, err = again.communicate(timeout=120)
    assert (again.returncode, err.splitlines()[0]) == (
        0, f"{len(rows):,} of 1,500 rows are there already")  # fmt: skip
    assert path.read_bytes().startswith(spoilt)
    assert [int(row["batch"]) for row in rows_of(path.read_text())] == list(range(1, 1501))
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_two_sweeps_into_one_file_are_refused_and_another_sweeps_rows_too(run, tmp_path) -> None:
    child = start(tmp_path, *LONG, "-o", "a.csv")
    try:
        wait_for_rows(tmp_path / "a.csv", child)
        result = run("sweep", *LONG, "-o", "a.csv")
        assert (result.code, result.error) == (2, "a.csv: another sweep writes to it")
    finally:
        child.kill()
        child.communicate()
    before = (tmp_path / "a.csv").read_bytes()
    result = run("sweep", "log-anomaly-ae", "--card", "12gb", "-o", "a.csv")
    assert (result.code, result.error) == (
        2, "a.csv: has the rows of another sweep, not complete")  # fmt: skip
    assert "a.csv.sweep" in result.hint
    assert (tmp_path / "a.csv").read_bytes() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_process_outlives_a_sweep_that_was_killed(tmp_path) -> None:
    child = start(tmp_path, *LONG, "-o", "a.csv")
    wait_for_rows(tmp_path / "a.csv", child)
    task = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    workers = [int(word) for word in task.read_text().split()]
    assert len(workers) == 2
    child.kill()
    child.communicate()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_damaged_row_at_the_end_is_another_sweeps(run, tmp_path, monkeypatch) -> None:
    words = ("sweep", "log-anomaly-ae", "--set", "batch=1..9", "--card", "8gb", "--jobs", "1",
             "-o", "a.csv")  # fmt: skip

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vramplan.ask.sweep.Sweep.compute", stop)
        assert run(*words).code == 130
    with (tmp_path / "a.csv").open("a", encoding="utf-8") as file:
        file.write("something else\n")
    assert "another sweep" in run(*words).error


def test_a_reader_that_goes_away_is_no_error(tmp_path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "vramplan", "sweep", "log-anomaly-ae", "--set", "batch=1..99999",
         "--card", "8gb", "--jobs", "1"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=120) == 0
    assert child.stderr.read() == b""  # and no progress: it is not computed to its end
    child.stderr.close()
