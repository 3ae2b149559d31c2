"""Has a measurement made in a fresh process, watches the card meanwhile, and makes a run of it.

A crash, an out-of-memory error and a process that hangs are results. Whatever happens here, an
interrupt included, no process of ours outlives it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from vramplan.errors import MeasurementError
from vramplan.measurement.reading import DeviceMemory, Reading
from vramplan.measurement.run import Failure, FailureKind, Held
from vramplan.probe.protocol import Probe
from vramplan.runner.channel import Child, Message
from vramplan.runner.outcome import Outcome, Windows, take
from vramplan.runner.phase_ends import PhaseEnds, SmiEyes
from vramplan.runner.played_card import fill
from vramplan.runner.task import Task

#: what may change on a card without a word: desktops breathe
STILL_BYTES = 8 << 20
#: how often a card is looked at, every 50 ms, until a process's memory is back; tens of GiB take
#: the driver a while
_MOST_LOOKS = 80


class PeakWatch(Protocol):
    """Samples a card from another thread while a run goes on."""

    @property
    def period_s(self) -> float | None:
        """The time between two samples as it really was."""

    def device_peak(self, began_s: float, ended_s: float) -> int | None:
        """Return the most that was used of the device in between, if it was sampled then."""

    def process_peak(self, began_s: float, ended_s: float) -> int | None:
        """Return the most that the process held in between, if that was sampled."""


def _unknown(_memory: DeviceMemory, _pid: int, _before: DeviceMemory | None) -> int | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a supervisor is handed: how to start processes, and how to look at the card.

    `probe` and what looks through it are None where there is no card (a dry run). `own_share`
    tells what a process of this number holds of a card, given the card as it was before. `smi` is
    nvidia-smi's own report, and `smi_eyes` its figures at the ends of phases. A child that says
    nothing for `silent_seconds`, or takes longer than `limit_seconds`, is ended.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    ballast_command: Sequence[str] = ()
    probe: Probe | None = None
    own_share: Callable[[DeviceMemory, int, DeviceMemory | None], int | None] = _unknown
    watch: Callable[[], AbstractContextManager[PeakWatch]] | None = None
    smi: Callable[[], str | None] = lambda: None
    smi_eyes: SmiEyes | None = None
    progress: Callable[[str], None] = lambda _text: None
    start_seconds: float = 180.0
    silent_seconds: float = 600.0
    limit_seconds: float = 3600.0


def measure(task: Task, tools: Means, *, leave_bytes: int | None = None) -> Outcome:
    """Have `task` measured; `leave_bytes` is what a smaller card would have free.

    Raises MeasurementError where not even the process could be started, or the card cannot be
    filled up to what the smaller one has.
    """
    with Measurement(task, tools) as prepared:
        return prepared.run(leave_bytes)


class Measurement:
    """A measurement whose process is on its way: it imports, and touches no card until `run`.

    A context manager: leaving it ends every process it started. Several may be on their way at a
    time, which is what a campaign saves its time by.
    """

    def __init__(self, task: Task, tools: Means) -> None:
        self._task = task
        self._tools = tools
        self._stack = ExitStack()
        self._outcome = Outcome()
        self._place = ("start", "pipeline")
        self._child = self._start(tools.command)
        self._child.send(task.line())
        # it takes as long to import; nothing of the card is touched yet
        is_filled = task.wants_limit and bool(tools.ballast_command)
        self._ballast = self._start(tools.ballast_command) if is_filled else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, leave_bytes: int | None = None, *, limit_seconds: float | None = None) -> Outcome:
        """Measure and return what came of it; `leave_bytes` is what a smaller card has free.

        `limit_seconds` is for what is known only when it is this measurement's turn.
        """
        tools, outcome, child = self._tools, self._outcome, self._child
        tools.progress("starting a process")
        if not self._is_ready(child):
            return outcome
        if leave_bytes is not None:
            self._fill(leave_bytes)
        outcome.before = self._look()
        outcome.pid = child.pid
        watch = self._watch()
        child.send("go")
        self._listen(child, watch, limit_seconds or tools.limit_seconds)
        outcome.period_s = watch.period_s if watch else None
        child.stop()
        outcome.after = self._settled()
        return outcome

    def _start(self, command: Sequence[str]) -> Child:
        try:
            child = Child(command, self._tools.environment)
        except OSError as problem:
            raise MeasurementError(f"no process can be started: {problem.strerror}") from None
        self._stack.callback(child.stop)
        return child

    def _is_ready(self, child: Child) -> bool:
        """Wait until the child has imported what it needs."""
        said = self._hear(child, self._tools.start_seconds)
        if said is None:
            return False
        if said["say"] == "failure":  # nothing of the card was touched yet
            self._take(said)
            return False
        return True

    def _fill(self, leave_bytes: int) -> None:
        self._tools.progress("filling the card up")
        ballast = self._ballast or self._start(self._tools.ballast_command)
        self._outcome.ballast_free_bytes = fill(ballast, leave_bytes, self._tools.start_seconds)

    def _watch(self) -> PeakWatch | None:
        if self._tools.watch is None:
            return None
        return self._stack.enter_context(self._tools.watch())

    def _look(self) -> DeviceMemory | None:
        return self._read().device

    def _read(self) -> Reading:
        if self._tools.probe is None:
            return Reading(at_s=time.monotonic())
        return self._tools.probe.read()

    # -------------------------------------------------------------- listening
    def _listen(self, child: Child, watch: PeakWatch | None, limit_seconds: float) -> None:
        end_s = time.monotonic() + limit_seconds
        ends = self._phase_ends(child)
        silent_s = self._tools.silent_seconds
        while True:
            left_s = max(0.0, end_s - time.monotonic())
            why = f"it took longer than {limit_seconds:.0f} s" if left_s < silent_s else None
            said = self._hear(child, min(silent_s, left_s), why)
            if said is None:
                break
            if said["say"] == "done":
                self._outcome.held = self._hold(child)
                break
            if said["say"] == "phase_end":
                ends.take(str(said["turn"]), str(said["phase"]), str(said["component"]))
                child.send("looked")
                continue
            self._take(said)
        self._outcome.phase_ends = ends.taken
        self._outcome.notes += ends.notes
        if watch is not None:
            self._add_peaks(watch)

    def _phase_ends(self, child: Child) -> PhaseEnds:
        def own(memory: DeviceMemory) -> int | None:
            return self._tools.own_share(memory, child.pid, self._outcome.before)

        return PhaseEnds(self._tools.probe, self._tools.smi_eyes, own)

    def _hear(self, child: Child, seconds: float, why: str | None = None) -> Message | None:
        """Return the next message; the end of the child, or its silence, becomes the failure.

        `why` says what more time is up with these seconds than that of silence.
        """
        phase, component = self._place
        try:
            said = child.hear(seconds)
        except TimeoutError:
            message = "it was stopped: " + (why or f"{seconds:.0f} s without a word")
            kind = FailureKind.TIMEOUT
        else:
            if said is not None:
                return said
            message, kind = child.how_it_ended(), FailureKind.CRASH
        if self._outcome.failure is None:
            self._outcome.failure = Failure(
                kind=kind, phase=phase, component=component, message=message
            )
        return None

    def _hold(self, child: Child) -> Held:
        """Look at the card by every way at the same instant, with everything still held."""
        memory = self._look()
        smi = self._tools.smi() if memory is not None else None
        last = self._outcome.ordered()[-1:]
        return Held(
            device=memory,
            torch=last[0].torch if last else None,
            process_used_bytes=(
                self._tools.own_share(memory, child.pid, self._outcome.before)
                if memory is not None
                else None
            ),
            smi=smi,
        )

    def _take(self, said: Message) -> None:
        """Take a message down, and tell where the run is."""
        if said["say"] == "phase":
            self._place = (str(said["phase"]), str(said["component"]))
            self._tools.progress(_progress(str(said["turn"]), *self._place))
        take(self._outcome, said)

    def _add_peaks(self, watch: PeakWatch) -> None:
        """Give each stretch the highest sample that was taken while it lasted."""
        stretches = self._outcome.stretches
        for key, (one, windows) in stretches.items():
            device = _highest(one.device_peak_bytes, windows, watch.device_peak)
            process = _highest(one.process_peak_bytes, windows, watch.process_peak)
            changed = replace(one, device_peak_bytes=device, process_peak_bytes=process)
            stretches[key] = (changed, windows)

    def _settled(self) -> DeviceMemory | None:
        """Return the card after the run: the driver needs a moment to take the memory back."""
        if self._tools.probe is None or self._outcome.before is None:
            return None
        memory = self._look()
        for _ in range(_MOST_LOOKS):
            if memory is None or memory.used_bytes <= self._outcome.before.used_bytes + STILL_BYTES:
                break
            time.sleep(0.05)
            memory = self._look()
        return memory


def _highest(
    known: int | None, windows: Windows, peak: Callable[[float, float], int | None]
) -> int | None:
    found = [peak(began, ended) for began, ended in windows]
    return max((one for one in (known, *found) if one is not None), default=None)


def _progress(turn: str, phase: str, component: str) -> str:
    if turn == "load":
        return f"loading {component}"
    return f"{turn} run: {phase.replace('_', ' ')}"
