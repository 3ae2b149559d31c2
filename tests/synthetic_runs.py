"""Runs that no GPU made: an estimate's own timeline, a little off. Marked synthetic throughout."""

from __future__ import annotations

from dataclasses import replace

from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.catalog.cards import assumed_card
from vramplan.engines.door import engine_of
from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.replay import Replay
from vramplan.measurement.history import (
    Action,
    History,
    HistoryBlock,
    HistoryEvent,
    HistoryMark,
    HistorySegment,
)
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, TorchMemory
from vramplan.measurement.run import (
    ContextStep,
    Held,
    MeasuredComponent,
    MeasuredGpu,
    PhaseEnd,
    Run,
    Stretch,
    Witness,
)
from vramplan.model import Estimate
from vramplan.units import GIB, MIB

PID = 4711
TOTAL_BYTES = 24 * GIB
OTHER_BYTES = 300 * MIB
RESERVED_BYTES = 420 * MIB
CONTEXT_BYTES = 310 * MIB


def an_estimate(name: str = "sd15", capability: str = "8.6", **settings: object) -> Estimate:
    catalog = load_catalog([])
    (job,) = make_jobs([name], catalog, settings)
    # a GPU of the run's size that nobody knows
    card = replace(assumed_card(capability), total_bytes=TOTAL_BYTES, multiprocessors=None)
    return engine_of(job.pipeline).estimate(job, card)


def a_run(planned: Estimate, *, off: float = 0.01, **changes: object) -> Run:
    """Return a run whose allocated bytes are `off` (a share) above the estimate's."""
    stretches, at = [], 100.0
    for turn in ("cold", "warm"):
        for point in planned.timeline:
            if point.phase == "load" and turn == "warm":
                continue
            allocated = int(point.allocated_bytes * (1 + off))
            reserved = max(allocated, int(point.reserved_bytes * (1 + off)))
            stretches.append(
                Stretch(
                    phase=point.phase,
                    component=point.component,
                    turn="load" if point.phase == "load" else turn,
                    began_s=at,
                    ended_s=at + 0.5,
                    torch=_torch(allocated, reserved),
                    device_used_bytes=OTHER_BYTES + CONTEXT_BYTES + reserved,
                    process_used_bytes=CONTEXT_BYTES + reserved,
                    device_peak_bytes=OTHER_BYTES + CONTEXT_BYTES + reserved,
                    process_peak_bytes=CONTEXT_BYTES + reserved,
                )
            )
            at += 0.5
    most = max(one.torch.reserved_bytes for one in stretches)
    run = Run(
        pipeline=planned.pipeline,
        title=planned.title,
        runtime=planned.runtime,
        settings=planned.settings,
        weights="random",
        witness=Witness.SYNTHETIC,
        created="2026-11-27T00:00:00Z",
        command=f"vramplan profile {planned.pipeline}",
        gpu=MeasuredGpu(
            name="NVIDIA Imaginary",
            compute_capability=planned.compute_capability,
            total_bytes=TOTAL_BYTES,
            reserved_bytes=RESERVED_BYTES,
            driver="000.00",
        ),
        versions={"torch": "2.13.0"},
        kernels="machine",
        period_s=0.005,
        before=a_device(OTHER_BYTES, ()),
        context=(
            ContextStep(
                name="context",
                process_used_bytes=CONTEXT_BYTES,
                device_used_bytes=OTHER_BYTES + CONTEXT_BYTES,
                reserved_bytes=0,
            ),
        ),
        components=tuple(_components(planned)),
        stretches=tuple(stretches),
        phase_ends=tuple(_phase_ends(stretches)),
        held=Held(
            device=a_device(OTHER_BYTES + CONTEXT_BYTES + most, (most,)),
            torch=_torch(int(planned.peak.allocated_bytes * 0.6), most),
            process_used_bytes=CONTEXT_BYTES + most,
            smi=None,
        ),
    )
    return replace(run, **changes)


def _phase_ends(stretches: list[Stretch]):
    """Yield what nvidia-smi says, in whole MiB, after each component loaded and each phase."""
    cold = [s for s in stretches if s.turn != "warm"]
    last = {(s.turn, s.phase, s.component if s.turn == "load" else ""): s for s in cold}
    for (turn, phase, component), one in last.items():
        yield PhaseEnd(
            phase=phase,
            component=component,
            turn=turn,
            at_s=one.ended_s,
            device_used_bytes=one.device_used_bytes,
            process_used_bytes=one.process_used_bytes,
            smi_used_bytes=one.device_used_bytes // MIB * MIB,
            smi_process_bytes=one.process_used_bytes // MIB * MIB,
            smi="made up",
        )


def a_device(used: int, held: tuple[int, ...]) -> DeviceMemory:
    others = (ProcessMemory(pid=1, name="Xorg", used_bytes=OTHER_BYTES, kind="G"),)
    own = tuple(
        ProcessMemory(pid=PID, name="python", used_bytes=CONTEXT_BYTES + size) for size in held
    )
    return DeviceMemory(
        total_bytes=24 * GIB,
        used_bytes=used,
        free_bytes=24 * GIB - used - RESERVED_BYTES,
        reserved_bytes=RESERVED_BYTES,
        used_with_reserve_bytes=used + RESERVED_BYTES,
        processes=others + own,
    )


def _components(planned: Estimate):
    totals: dict[str, list[int]] = {}
    for part in planned.components:
        sums = totals.setdefault(part.name.partition(".")[0], [0, 0])
        sums[0] += part.parameters
        sums[1] += part.weights_bytes
    for name, (parameters, size) in totals.items():
        yield MeasuredComponent(
            name=name, parameters=parameters, weights_bytes=size, allocated_bytes=size + 512
        )


def _torch(allocated: int, reserved: int) -> TorchMemory:
    return TorchMemory(
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        allocated_peak_bytes=allocated,
        reserved_peak_bytes=reserved,
        requested_peak_bytes=allocated,
        inactive_split_bytes=0,
        retries=0,
    )


class _Recorder(CachingAllocator):
    """An allocator whose doings are taken down as torch takes its own down."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[HistoryEvent] = []

    def malloc(self, size_bytes: int) -> Block:
        before = self.reserved_bytes
        block = super().malloc(size_bytes)
        if size_bytes:
            grown = self.reserved_bytes - before
            if grown:
                self._note(Action.SEGMENT_ALLOC, grown, block)
            self._note(Action.ALLOC, size_bytes, block)
        return block

    def free(self, block: Block) -> None:
        if block.size_bytes:
            self._note(Action.FREE_REQUESTED, block.size_bytes, block)
            self._note(Action.FREE_COMPLETED, block.size_bytes, block)
        super().free(block)

    def _note(self, action: Action, size_bytes: int, block: Block) -> None:
        self.events.append(HistoryEvent(action, size_bytes, block.address))

    def segments(self) -> tuple[HistorySegment, ...]:
        return tuple(
            HistorySegment(
                address=chain[0].address,
                size_bytes=sum(block.size_bytes for block in chain),
                is_small=pool is self._small,
                is_expandable=False,
                blocks=tuple(
                    HistoryBlock(
                        address=block.address, size_bytes=block.size_bytes, is_used=not block.free
                    )
                    for block in chain
                ),
            )
            for pool in (self._small, self._large)
            for chain in map(list, pool.walk())
        )


class _Recorded(Replay):
    """A replay that marks where a component begins to work, as the runner does."""

    def __init__(self, tape: Tape, conditions: Conditions, recorder: _Recorder) -> None:
        super().__init__(tape, conditions, recorder, every_iteration=True)
        self.marks: list[HistoryMark] = []
        self.recorder = recorder

    def begin(self, phase: str, component: str) -> None:
        self.marks.append(HistoryMark(len(self.recorder.events), phase, component))
        super().begin(phase, component)


def a_history(tape: Tape, conditions: Conditions, *, is_cold: bool = False) -> History:
    """Return the events of a run that does exactly what the tape says, a warm one unless cold."""
    recorder = _Recorder()
    run = _Recorded(tape, conditions, recorder)
    run.load()
    if not is_cold:
        run.run()
    segments = recorder.segments()
    recorder.events.clear()
    run.marks.clear()
    run.run()
    return History(segments=segments, events=tuple(recorder.events), marks=tuple(run.marks))


__all__ = ["a_device", "a_history", "a_run", "an_estimate"]
