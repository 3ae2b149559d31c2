"""The process that records: what it is given, and every way in which it can end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from vramplan.engines.torch import recording_process
from vramplan.engines.torch.recording_process import run_child
from vramplan.errors import RecordingError


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let a program of a test's own take the recorder's place."""
    (tmp_path / "stands_in.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(recording_process, "CHILD", "stands_in")


def test_a_request_goes_in_and_a_tape_comes_out_and_steps_are_heard(tmp_path, monkeypatch) -> None:
    child(
        tmp_path,
        monkeypatch,
        "import sys\nsys.stderr.write('step: one\\na warning\\nstep: two\\n')\n"
        "print(sys.stdin.read().upper(), end='')",
    )
    steps: list[str] = []
    assert run_child(b"tape", steps.append) == "TAPE"
    assert steps == ["one", "two"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.stderr.write('a class says no\\n'); sys.exit(3)", "a class says no"),
        ("import sys; sys.stderr.write('no\\nstep: x\\n'); sys.exit(3)", "no"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "seconds of CPU time"),
        ("import os; os._exit(7)", "status 7"),
        ("print('x' * (9 << 20))", "larger than 8 MiB"),
    ],
)
def test_another_end_is_one_line(tmp_path, monkeypatch, program: str, said: str) -> None:
    child(tmp_path, monkeypatch, program)
    with pytest.raises(RecordingError) as refusal:
        run_child(b"{}", lambda _: None)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_why_it_failed_is_no_step(tmp_path, monkeypatch) -> None:
    child(tmp_path, monkeypatch, "import sys; sys.stderr.write('step: x\\nno\\n'); sys.exit(3)")
    steps: list[str] = []
    with pytest.raises(RecordingError, match=r"^no$"):
        run_child(b"{}", steps.append)
    assert steps == ["x"]


def test_it_does_not_wait_for_ever(tmp_path, monkeypatch) -> None:
    child(tmp_path, monkeypatch, "import time\ntime.sleep(600)")
    monkeypatch.setattr(recording_process, "WALL_SECONDS", 1)
    begun = time.monotonic()
    with pytest.raises(RecordingError, match="not done within 1 seconds"):
        run_child(b"{}", lambda _: None)
    assert time.monotonic() - begun < 60


def test_it_sees_no_gpu_no_token_and_no_folder_of_ours(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-nobody's-business")
    child(
        tmp_path,
        monkeypatch,
        "import json, os; print(json.dumps({**os.environ, 'cwd': os.getcwd()}))",
    )
    import json

    seen = json.loads(run_child(b"{}", lambda _: None))
    assert "HF_TOKEN" not in seen
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["HF_HUB_OFFLINE"]) == ("", "1")
    assert seen["HOME"] == seen["HF_HOME"]
    assert Path(seen["cwd"]) != Path.cwd()
    assert not Path(seen["HOME"]).exists()


def test_who_is_ended_from_outside_ends_it_too(tmp_path, monkeypatch) -> None:
    told = tmp_path / "told"
    child(
        tmp_path,
        monkeypatch,
        "import os, pathlib, signal, time\n"
        f"pathlib.Path({str(told)!r}).write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(600)",
    )
    with pytest.raises(KeyboardInterrupt):
        run_child(b"{}", lambda _: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
