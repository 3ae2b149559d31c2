"""``vramplan run``: programs on cards that are not there, without a CUDA build of torch."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vramplan.ask.run import Answer, Order, find_smallest
from vramplan.measurement.tried import Trial, TrialOutcome

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def test_program_that_never_uses_the_card_completes(process, validate) -> None:
    code = "print('my', 'output')"
    result = process("run", "--card", "8gb", "--json", "--", PYTHON, "-c", code)
    assert result.code == 0
    assert "my output" in result.err
    assert "my output" not in result.out
    validate(result.json)
    found = result.json["result"]
    assert found["outcome"] == "completes"
    assert found["program"] == [PYTHON, "-c", code]
    assert (found["status"], found["device_peak_bytes"], found["errors"]) == (0, 0, 0)
    assert found["where"] is None
    assert [one["card"] for one in found["runs"]] == ["8gb"]


def test_table_says_that_the_card_was_not_used_and_the_output_stays_on_stdout(process) -> None:
    result = process("run", "--card", "rtx-3060-12gb", "--", PYTHON, "-c", "print('my output')")
    assert result.code == 0
    assert result.out.startswith("my output\n")
    assert "NVIDIA GeForce RTX 3060 12GB: completes; it never used the card" in result.out
    assert "running on NVIDIA GeForce RTX 3060 12GB" in result.err
    quiet = process("run", "--card", "8gb", "-q", "--", PYTHON, "-c", "")
    assert quiet.err == ""


def test_result_goes_to_a_file_and_the_output_stays(process, tmp_path) -> None:
    words = ("run", "--card", "8gb", "-o", "r.json", "--", PYTHON, "-c", "print('my output')")
    result = process(*words)
    assert result.out == "my output\n"
    assert json.loads((tmp_path / "r.json").read_text())["result"]["outcome"] == "completes"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(7)", 7, "status 7"),
        ("raise ValueError('mine')", 1, "status 1"),
        ("import os; os.kill(os.getpid(), 9)", -9, "killed by SIGKILL"),
    ],
)
def test_program_that_fails_by_itself_is_exit_2_and_its_status_is_told(
    code: str, status: int, said: str, process
) -> None:
    result = process("run", "--card", "8gb", "--json", "--", PYTHON, "-c", code)
    assert result.code == 2
    assert result.json["result"]["outcome"] == "failed"
    assert result.json["result"]["status"] == status
    table = process("run", "--card", "8gb", "--", PYTHON, "-c", code)
    assert f"it failed by itself: {said}" in table.out


def test_several_cards_are_tried_one_after_the_other(process) -> None:
    words = ("run", "--card", "8gb", "--card", "rtx-4090", "--json", "--", PYTHON, "-c", "")
    result = process(*words)
    assert [one["card"] for one in result.json["result"]["runs"]] == ["8gb", "rtx-4090"]


def test_all_tries_a_class_on_each_architecture_that_torch_runs_on(process) -> None:
    result = process("run", "--card", "8gb", "--all", "--json", "--", PYTHON, "-c", "")
    found = [one["compute_capability"] for one in result.json["result"]["runs"]]
    assert "8.6" in found
    assert "7.5" in found
    assert "6.1" not in found
    assert len(set(found)) == len(found)


def test_smallest_card_is_the_smallest_class_where_any_does(process, validate) -> None:
    result = process("run", "--smallest-card", "--json", "--", PYTHON, "-c", "")
    assert result.code == 0
    validate(result.json)
    smallest = result.json["result"]["smallest_card"]
    assert smallest.endswith("gb")
    assert int(smallest[:-2]) <= 4
    failed = process("run", "--smallest-card", "--json", "--", PYTHON, "-c", "raise SystemExit(3)")
    assert failed.code == 2
    assert len(failed.json["result"]["runs"]) == 1


def test_program_keeps_its_own_options(process) -> None:
    code = "import sys; print(sys.argv[1:])"
    words = ("--debug", "--x=--", "--json", "--", "-o", "y")
    result = process("run", "--card", "8gb", "--", PYTHON, "-c", code, *words)
    assert result.out.splitlines()[0] == str(list(words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--card", "8gb"), "no PROGRAM was named"),
        (("--card", "8gb", "--", "no-such-program"), "no-such-program: there is no such program"),
        (("--", "python"), "no card was named"),
        (("--card", "amd-rx-7900", "--", "python"), "only NVIDIA's cards can be pretended"),
        (("--card", "mi300", "--", "python"), "only NVIDIA's cards can be pretended"),
        (("--card", "8gbb", "--", "python"), "8gbb"),
        (("--card", "gtx-1080", "--", "python"), "has no kernels for compute capability 6.1"),
        (("--card", "64MiB", "--", "python"), "64 MiB are less than a CUDA context"),
        (("--card", "8gb", "--gpus", "0", "--", "python"), "--gpus: from 1 to 16, not 0"),
        (("--card", "8gb", "-o", "x.csv", "--", "python"), "run has no csv"),
    ],
)
def test_bad_input_gets_a_line(words: tuple[str, ...], said: str, process) -> None:
    words = tuple(PYTHON if word == "python" else word for word in words)
    result = process("run", *words)
    assert result.code == 2
    assert said in result.error
    assert result.out == ""


def test_file_that_is_no_program_gets_a_line(process, tmp_path) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\0\1\2")
    path.chmod(0o755)
    result = process("run", "--card", "8gb", "-q", "--", path)
    assert (result.code, result.out) == (2, "")
    assert "it cannot be run: Exec format error" in result.error


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_script_that_cannot_be_run_by_itself_is_named_with_python(process, tmp_path) -> None:
    script = tmp_path / "mine.py"
    script.write_text("print(1)")
    result = process("run", "--card", "8gb", "--", str(script))
    assert result.code == 2
    assert f"-- python {script}" in result.err


def test_torch_without_cuda_is_nothing_to_measure_with(process) -> None:
    import torch

    if torch.version.cuda:
        pytest.skip("this torch is a CUDA build")
    result = process("run", "--card", "8gb", "-q", "--", PYTHON, "-c", "import torch")
    assert result.code == 3
    assert f"torch {torch.__version__} is a build without CUDA" in result.err
    assert result.out == ""


def test_sitecustomize_of_the_user_still_runs(process, tmp_path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/sitecustomize.py").write_text("import sys; sys.mine = 'it ran'")
    code = "import sys; print(sys.mine, 'startup' in ' '.join(sys.path))"
    path = f"{tmp_path / 'own'}{os.pathsep}{ROOT}"
    result = process("run", "--card", "8gb", "--", PYTHON, "-c", code, PYTHONPATH=path)
    assert result.out.splitlines()[0] == "it ran False"


def test_programs_below_the_program_have_the_cards_too(process) -> None:
    inner = "import sys; print(type(sys.meta_path[0]).__name__)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    result = process("run", "--card", "8gb", "--", PYTHON, "-c", code)
    assert result.out.splitlines()[0] == "_Finder"


@pytest.mark.parametrize("uses", ["import jax", "import importlib.util as u; u.find_spec('jax')"])
def test_what_has_its_own_way_to_a_gpu_is_said_where_it_is_imported(
    uses, process, tmp_path
) -> None:
    (tmp_path / "jax.py").write_text("")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    result = process("run", "--card", "8gb", "--json", "--", PYTHON, "-c", uses, PYTHONPATH=path)
    said = result.json["result"]["remarks"]
    assert any("JAX talks to a GPU by itself" in one for one in said) is uses.startswith(
        "import jax"
    )


# ------------------------------------------------------------------------------- nothing is left
def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_program_leaves_running_is_ended(process) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '100']).pid)"
    result = process("run", "--card", "8gb", "--", PYTHON, "-c", code)
    assert not _is_running(int(result.out.splitlines()[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_nothing_behind(number: signal.Signals, tmp_path) -> None:
    code = "import os, time; print(os.getpid(), os.environ['VRAMPLAN_PRETENDED_CARDS'], flush=True)"
    program = [PYTHON, "-c", f"{code}; time.sleep(100)"]
    with subprocess.Popen(
        [PYTHON, "-m", "vramplan", "run", "--card", "8gb", "-q", "--", *program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        pid, cards = command.stdout.readline().split()
        assert _is_running(int(pid))
        command.send_signal(number)
        assert command.wait(20) == 130
        said = command.stderr.read()
    assert said.splitlines()[-1] == "interrupted"
    assert not _is_running(int(pid))
    assert not Path(cards).parent.exists()


def test_program_that_ignores_an_interrupt_is_ended_all_the_same(tmp_path) -> None:
    code = "import os, signal, time; signal.signal(2, signal.SIG_IGN); signal.signal(15, 1)"
    program = [PYTHON, "-c", f"{code}; print(os.getpid(), flush=True); time.sleep(100)"]
    with subprocess.Popen(
        [PYTHON, "-m", "vramplan", "run", "--card", "8gb", "-q", "--", *program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as command:
        assert command.stdout is not None
        pid = int(command.stdout.readline())
        began = time.monotonic()
        command.send_signal(signal.SIGINT)
        assert command.wait(30) == 130
    assert time.monotonic() - began < 20
    assert not _is_running(pid)


# ------------------------------------------------------------------------------ the smallest card
def trial(card: str, outcome: TrialOutcome) -> Trial:
    return Trial(
        outcome=outcome, card=card, card_title=card, compute_capability="8.6", total_bytes=0,
        context_bytes=(0, 0, 0), status=0, allocated_peak_bytes=0, reserved_peak_bytes=0,
        device_peak_bytes=0,
    )  # fmt: skip


@pytest.mark.parametrize("least", range(1, 12))
def test_smallest_card_is_found_in_few_trials(least: int, monkeypatch) -> None:
    from dataclasses import replace

    from vramplan.catalog.cards import assumed_card

    tried = []

    def fake(_command, card, **_more) -> Trial:
        tried.append(card.total_bytes)
        fits = card.total_bytes >= least
        return trial(card.name, TrialOutcome.COMPLETES if fits else TrialOutcome.OUT_OF_MEMORY)

    monkeypatch.setattr("vramplan.ask.run.try_program", fake)
    cards = [replace(assumed_card(), name=str(n), total_bytes=n) for n in range(10, 0, -1)]
    answer = find_smallest(Order(command=("x",)), cards, lambda _: None)
    assert (answer.smallest.card if answer.smallest else None) == (
        str(least) if least <= 10 else None
    )
    assert answer.fits is (least <= 10)
    assert len(tried) <= 4


def test_one_card_that_does_not_do_is_a_failure() -> None:
    good, bad = trial("a", TrialOutcome.COMPLETES), trial("b", TrialOutcome.OUT_OF_MEMORY)
    assert Answer(trials=(good,)).fits
    assert not Answer(trials=(good, bad)).fits
    assert not Answer(trials=(good, bad)).has_failed
