"""A measurement is a process: it may end well, fail, die or hang, and each is a result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.measurement.run import FailureKind
from vramplan.probe.smi_probe import SmiLook
from vramplan.runner.channel import ORPHANED, child_environment
from vramplan.runner.phase_ends import PhaseEnds
from vramplan.runner.supervisor import Means, Measurement, measure
from vramplan.runner.task import Task, read_task

TASK = Task(pipeline="sd15", compute_capability="8.6", settings={"batch": "2"}, path="/a/sd15.yaml")

#: what a child does: `say` and `hear` as the channel's end does
PRELUDE = """
import json, os, signal, sys, time
from vramplan.runner.channel import Channel
channel = Channel()
say, hear = channel.say, channel.hear
task = json.loads(hear())
"""

STRETCH = """
def stretch(turn, phase, component, began, peak):
    torch = dict(allocated_bytes=1, reserved_bytes=peak, allocated_peak_bytes=peak,
        reserved_peak_bytes=peak, requested_peak_bytes=1, inactive_split_bytes=0, retries=0)
    one = dict(phase=phase, component=component, turn=turn, began_s=began, ended_s=began + 1,
        torch=torch, device_used_bytes=10, process_used_bytes=None, device_peak_bytes=10,
        process_peak_bytes=None)
    say("stretch", stretch=one, windows=[[began, began + 1]])
"""


def tools(body: str, **more: object) -> Means:
    code = PRELUDE + STRETCH + textwrap.dedent(body)
    return Means(command=[sys.executable, "-c", code], environment=child_environment({}), **more)


class Card:
    """A card whose readings are as listed; the last one stays."""

    def __init__(self, *used: int) -> None:
        self.used = list(used)

    def read(self) -> Reading:
        used = self.used.pop(0) if len(self.used) > 1 else self.used[0]
        memory = DeviceMemory(
            total_bytes=100,
            used_bytes=used,
            free_bytes=100 - used,
            reserved_bytes=None,
            processes=(ProcessMemory(pid=1, name="x", used_bytes=used),),
        )
        return Reading(at_s=time.monotonic(), device=memory)


class Samples:
    """A watch that knows of one moment only."""

    period_s = 0.25

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def device_peak(self, began_s: float, ended_s: float) -> int | None:
        return 77 if began_s <= 5.5 <= ended_s else None

    def process_peak(self, *_: float) -> int | None:
        return None


class Smi:
    """nvidia-smi's eyes: they see what the card shows next, and fail where that is the last."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.problem: str | None = None

    def look(self) -> SmiLook | None:
        if self.problem is None and len(self.card.used) <= 1:
            self.problem = "it took longer than 3 s"
        if self.problem is not None:
            return None
        used = self.card.used[0]
        memory = DeviceMemory(total_bytes=9, used_bytes=used, free_bytes=0, reserved_bytes=None)
        return SmiLook(text=f"{used} MiB", memory=memory)


ENDS = """
say("ready"); hear()
say("phase_end", turn="load", phase="load", component="unet"); said = [hear()]
say("phase_end", turn="cold", phase="denoise", component=""); said += [hear()]
say("phase_end", turn="cold", phase="decode_image", component=""); said += [hear()]
say("phase_end", turn="warm", phase="denoise", component=""); said += [hear()]
say("phase_end", turn="cold", phase="more", component=""); said += [hear()]
say("note", text=" ".join(said))
say("done"); hear()
"""


def test_the_card_is_looked_at_by_nvml_and_nvidia_smi_when_a_phase_has_ended() -> None:
    card = Card(20, 30, 31, 40, 41, 42)
    own = lambda memory, _pid, before: memory.used_bytes - before.used_bytes  # noqa: E731  # one line, beside its one use
    outcome = measure(TASK, tools(ENDS, probe=card, smi_eyes=Smi(card), own_share=own))
    assert outcome.failure is None
    found = [(one.turn, one.phase, one.component) for one in outcome.phase_ends]
    assert found == [
        ("load", "load", "unet"),
        ("cold", "denoise", ""),
        ("cold", "decode_image", ""),
    ], "the warm turn is not looked at"
    first = outcome.phase_ends[0]
    assert (first.device_used_bytes, first.process_used_bytes) == (30, 10)
    assert (first.smi_used_bytes, first.smi_process_bytes, first.smi) == (31, 11, "31 MiB")
    assert outcome.notes == [
        "looked looked looked looked looked",
        "nvidia-smi was not asked again at the ends of phases: it took longer than 3 s",
    ]


def test_without_nvidia_smi_a_phase_ends_as_it_did() -> None:
    for more in ({}, {"probe": Card(20)}):
        outcome = measure(TASK, tools(ENDS, **more))
        assert (outcome.failure, outcome.phase_ends) == (None, [])
        assert outcome.notes == ["looked looked looked looked looked"]


def test_a_card_that_is_lost_at_a_phases_end_ends_no_run_there() -> None:
    class Lost(Card):
        def read(self) -> Reading:
            raise MeasurementError("GPU is lost")

    ends = PhaseEnds(Lost(1), Smi(Card(1, 2)), lambda _: None)
    ends.take("cold", "denoise", "")
    assert (ends.taken, ends.notes) == ([], [])


def test_phases_that_take_turns_without_end_do_not_wait_for_each() -> None:
    card = Card(*range(500))
    ends = PhaseEnds(card, Smi(card), lambda _: None)
    for _ in range(300):
        ends.take("cold", "generate", "")
    assert len(ends.taken) == 100
    assert ends.notes == ["nvidia-smi was asked at the ends of the first 100 phases alone"]


def test_a_task_is_one_line_and_back() -> None:
    assert "\n" not in TASK.line()
    assert read_task(TASK.line()) == TASK


def test_a_run_is_put_together_from_what_the_child_says() -> None:
    body = """
    print("a library prints")  # goes to stderr, the channel is not disturbed
    assert task["pipeline"] == "sd15" and task["settings"] == {"batch": "2"}
    say("ready"); assert hear() == "go"
    say("facts", facts={"a": "b"}, versions={"torch": "2"})
    say("component", component=dict(name="unet", parameters=5, weights_bytes=10,
        allocated_bytes=512))
    say("phase", turn="load", phase="load", component="unet")
    stretch("load", "load", "unet", 1.0, 512)
    say("phase", turn="cold", phase="denoise", component="unet")
    stretch("cold", "denoise", "unet", 5.0, 700)
    stretch("cold", "denoise", "unet", 5.0, 900)  # told again: the later one counts
    say("done"); hear()
    """
    heard: list[str] = []
    outcome = measure(
        TASK,
        tools(
            body,
            probe=Card(20, 60, 20),
            watch=Samples,
            smi=lambda: "nvidia-smi says",
            own_share=lambda memory, _, before: memory.used_bytes - before.used_bytes,
            progress=heard.append,
        ),
    )
    assert outcome.failure is None
    assert outcome.before.used_bytes == 20
    assert outcome.held.device.used_bytes == 60
    assert outcome.held.process_used_bytes == 40
    assert outcome.held.smi == "nvidia-smi says"
    assert outcome.after.used_bytes == 20
    assert outcome.versions == {"torch": "2"}
    assert [one.name for one in outcome.components] == ["unet"]
    load, denoise = outcome.ordered()
    assert (load.phase, denoise.phase) == ("load", "denoise")
    assert denoise.torch.allocated_peak_bytes == 900
    assert outcome.held.torch == denoise.torch
    assert (load.device_peak_bytes, denoise.device_peak_bytes) == (10, 77)  # a sample between
    assert outcome.period_s == 0.25
    assert heard[1:] == ["loading unet", "cold run: denoise"]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        (
            "print('terminate called', file=sys.stderr); os._exit(3)",
            "exit code 3: terminate called",
        ),
    ],
)
def test_a_crash_is_a_result_with_the_place_it_happened_in(end: str, said: str) -> None:
    body = f"""
    say("ready"); hear()
    say("phase", turn="cold", phase="decode_image", component="vae.decoder")
    stretch("load", "load", "vae", 1.0, 512)
    {end}
    """
    outcome = measure(TASK, tools(body))
    assert outcome.failure.kind is FailureKind.CRASH
    assert (outcome.failure.phase, outcome.failure.component) == ("decode_image", "vae.decoder")
    assert said in outcome.failure.message
    assert len(outcome.ordered()) == 1, "what was told before it died is kept"


def test_a_child_that_hangs_is_ended_and_that_is_a_result(tmp_path: Path) -> None:
    body = """
    open(task["settings"]["file"], "w").write(str(os.getpid()))
    say("ready"); hear()
    time.sleep(3600)
    """
    path = tmp_path / "pid"
    task = replace(TASK, settings={"file": str(path)})
    outcome = measure(task, tools(body, silent_seconds=0.3))
    pid = int(path.read_text())
    assert outcome.failure.kind is FailureKind.TIMEOUT
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_clock_of_a_measurement_may_be_set_when_it_is_its_turn() -> None:
    body = """
    say("ready"); hear()
    while True:
        say("note", text="busy"); time.sleep(0.05)
    """
    with Measurement(TASK, tools(body)) as prepared:
        outcome = prepared.run(limit_seconds=0.4)
    assert outcome.failure.kind is FailureKind.TIMEOUT
    assert "took longer than 0 s" in outcome.failure.message


def test_events_that_were_kept_are_told() -> None:
    body = 'say("ready"); hear(); say("history"); say("done"); hear()'
    assert measure(TASK, tools(body)).has_history
    assert not measure(TASK, tools('say("ready"); hear(); say("done"); hear()')).has_history


def test_what_fails_before_the_card_is_touched_is_told() -> None:
    body = """
    say("failure", failure=dict(kind="error", phase="start", component="pipeline",
        message="no module torch", asked_bytes=None)); hear()
    """
    outcome = measure(TASK, tools(body))
    assert outcome.failure.message == "no module torch"
    assert outcome.before is None


def test_a_process_that_cannot_start_is_one_line() -> None:
    broken = Means(command=["/no/such/python"], environment={})
    with pytest.raises(MeasurementError, match="no process can be started"):
        measure(TASK, broken)


@pytest.mark.parametrize("is_early", [False, True])
def test_the_card_is_filled_before_the_run_and_emptied_after_it(
    tmp_path: Path, is_early: bool
) -> None:
    ballast = f"""
import os, sys
from vramplan.runner.channel import Channel
channel = Channel()
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
channel.say("held", free_bytes=int(channel.hear()) + 1)
channel.hear()
"""
    wanted = tools(
        'say("ready"); hear(); say("done"); hear()',
        ballast_command=[sys.executable, "-c", ballast],
    )
    task = replace(TASK, wants_limit=is_early)
    with Measurement(task, wanted) as prepared:
        if is_early:  # it imports while another measurement runs
            _wait_for(tmp_path / "pid")
        outcome = prepared.run(1000)
    assert outcome.ballast_free_bytes == 1001
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_card_that_cannot_be_filled_is_one_line() -> None:
    wanted = tools(
        'say("ready"); hear()',
        ballast_command=[sys.executable, "-c", "raise SystemExit('no CUDA here')"],
    )
    with pytest.raises(MeasurementError, match="fills the card ended with exit code 1: no CUDA"):
        measure(TASK, wanted, leave_bytes=1000)


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C reaches the parent alone; the child goes with it."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_runner_supervisor import TASK, tools
from vramplan.runner.supervisor import measure
body = '''
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
say("ready"); hear()
time.sleep(60)
'''
measure(TASK, tools(body))
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=child_environment({}), stderr=subprocess.PIPE
    )
    pid = _wait_for(tmp_path / "pid")
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=20)
    assert parent.returncode != 0
    assert _has_gone(pid)


def test_a_child_whose_parent_was_killed_ends_by_itself(tmp_path: Path) -> None:
    code = PRELUDE + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=child_environment({}), stdin=subprocess.PIPE, text=True
    )
    child.stdin.write(json.dumps({}) + "\n")
    child.stdin.flush()
    _wait_for(tmp_path / "pid")
    child.stdin.close()  # as when the parent dies
    assert child.wait(20) == ORPHANED


def _wait_for(path: Path) -> int:
    for _ in range(400):
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError("the child did not start")


def _has_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
