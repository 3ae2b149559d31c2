"""nvidia-smi asked at the ends of phases: a program of the test's own that answers as it does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vramplan.probe.smi_probe import SmiProbe

MIB = 1 << 20

#: nvidia-smi -i UUID -q -d MEMORY,PIDS: the log with these two sections alone
SAID = """\

==============NVSMI LOG==============

Timestamp                                 : Mon Jan  1 00:00:00 2026
Driver Version                            : 550.54.14
CUDA Version                              : 12.4

Attached GPUs                             : 2
GPU 00000000:01:00.0
    FB Memory Usage
        Total                             : 12288 MiB
        Reserved                          : 230 MiB
        Used                              : 5512 MiB
        Free                              : 6545 MiB
    BAR1 Memory Usage
        Total                             : 16384 MiB
        Used                              : 5 MiB
        Free                              : 16379 MiB
    Conf Compute Protected Memory Usage
        Total                             : 0 MiB
        Used                              : 0 MiB
        Free                              : 0 MiB
    Processes
        GPU instance ID                   : N/A
        Compute instance ID               : N/A
        Process ID                        : 4711
            Type                          : C
            Name                          : python
            Used GPU Memory               : 5100 MiB
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch):
    """Return what puts a program called nvidia-smi on the PATH; it notes each call's words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(code: str) -> Path:
        path, calls = folder / "nvidia-smi", tmp_path / "calls"
        note = f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))"
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{note}\n{code}\n")
        path.chmod(0o755)
        return calls

    return put


def test_the_card_and_who_holds_it_come_in_one_call(tool) -> None:
    calls = tool(f"print({SAID!r})")
    look = SmiProbe("GPU-1").look()
    assert look is not None
    assert look.memory.used_bytes == 5512 * MIB, "neither BAR1's nor the protected memory's"
    assert [(one.pid, one.used_bytes) for one in look.memory.processes] == [(4711, 5100 * MIB)]
    assert look.text.strip() == SAID.strip()
    assert calls.read_text() == "-i GPU-1 -q -d MEMORY,PIDS\n"


@pytest.mark.usefixtures("tool")  # a PATH with nothing on it
def test_without_the_tool_nothing_is_asked_and_nothing_told() -> None:
    probe = SmiProbe("GPU-1")
    assert (probe.look(), probe.problem) == (None, None)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.exit('No devices were found')", "exit code 1: No devices were found"),
        ("print('hello')", "not what nvidia-smi prints"),
        ("sys.stdout.buffer.write(bytes(range(256)))", "not what nvidia-smi prints"),
        ("time.sleep(3600)", "longer than 0.5 s"),
    ],
)
def test_what_fails_once_is_not_asked_again(tool, code: str, why: str) -> None:
    calls = tool(code)
    probe = SmiProbe("GPU-1", limit_s=0.5 if "sleep" in code else 20)
    assert probe.look() is None
    assert why in probe.problem
    assert probe.look() is None
    assert len(calls.read_text().splitlines()) == 1


def test_a_tool_that_cannot_be_started_is_one_line(tool) -> None:
    calls = tool("pass")
    path = calls.parent / "bin" / "nvidia-smi"
    path.write_text("#!/no/such/interpreter\n")
    probe = SmiProbe("GPU-1")
    assert probe.look() is None
    assert probe.problem == "it cannot be started: No such file or directory"


def test_the_words_of_a_crowded_card_are_cut_off_and_its_figures_are_not(tool) -> None:
    more = "\n".join(
        f"        Process ID : {pid}\n            Name : p{'x' * 80}\n"
        "            Used GPU Memory : 1 MiB"
        for pid in range(10_000, 11_000)
    )
    tool(f"print({SAID + more!r})")
    look = SmiProbe("GPU-1").look()
    assert len(look.text) == 50_000
    assert len(look.memory.processes) == 1001
