"""A tape against a fresh recording: the proof that its sizes and its order hold at unseen settings.

The tape's own interpreter runs on an allocator that keeps a journal; the pipeline's code runs once
more, nothing remembered. Both must ask for the same bytes in the same order and phase, and give
back the same tensors in between (the order within a run of frees means nothing to an allocator).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeAlias

from vramplan.engines.torch.record.session import Facts, Recipe, Sample, Session
from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Call,
    Cast,
    Free,
    Gemm,
    Leaf,
    Phase,
    Stream,
    Workspace,
)
from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.format import parse_tape, write_tape
from vramplan.engines.torch.tape.replay import Conditions, Listener, Replay
from vramplan.engines.torch.tape.residency import Residency
from vramplan.errors import RecordingError

#: one thing that happened: its kind and what can be compared of it; ("free", allocation) for a free
Entry: TypeAlias = tuple[object, ...]

_CUBLAS: Entry = ("gemm", "first")
_END: Entry = ("end", "of the code")


def prove(tape: Tape | Mapping[str, object], recipe: Recipe, sample: Sample) -> None:
    """Raise RecordingError at the first event in which `tape` differs from a fresh run."""
    whole = tape if isinstance(tape, Tape) else parse_tape(write_tape(tape), "the tape")
    facts = _session_facts(recipe, sample)
    compare(whole, sample, Session(recipe, facts, remember=False).record(sample))


def compare(whole: Tape, sample: Sample, stream: Stream) -> None:
    """Raise RecordingError at the first event in which a tape differs from a recorded run."""
    told = _replayed(whole, sample)
    done, kept = _recorded(stream)
    settings = ", ".join(
        f"{key}={value}" for key, value in (*sample.numbers.items(), *sample.facts.items())
    )
    where = f"{whole.pipeline} at {settings}"
    for place, (ours, theirs) in enumerate(zip_longest(_grouped(told), _grouped(done))):
        if ours == theirs:
            continue
        if (
            theirs is None
            and ours is not None
            and isinstance(ours[1], frozenset)
            and ours[1] <= kept
        ):
            continue  # after the end: what the run returned is let go
        raise RecordingError(f"{where}: event {place}: the tape has {ours}, the code did {theirs}")


def _grouped(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries with each run of frees as one set."""
    frees: set[object] = set()
    for entry in entries:
        if entry[0] == "free":
            frees.add(entry[1])
            continue
        if frees:
            yield "frees", frozenset(frees)
            frees = set()
        yield entry
    if frees:
        yield "frees", frozenset(frees)


# --------------------------------------------------------------------- what the tape does
class _Journal(CachingAllocator):
    """The allocator model, with every request and return written down."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.phase = ""
        self._numbers: dict[int, int] = {}  # by the block's identity
        self._count = 0

    def malloc(self, size_bytes: int) -> Block:
        """Return a block; 0 bytes stand for cuBLAS's workspace."""
        block = super().malloc(size_bytes)
        if size_bytes == 0:
            self.entries.append(_CUBLAS)
        else:
            self.entries.append(("alloc", self.phase, size_bytes))
            self._numbers[id(block)] = self._count
            self._count += 1
        return block

    def free(self, block: Block) -> None:
        """Take a block back."""
        self.entries.append(("free", self._numbers.pop(id(block))))
        super().free(block)


class _Places(Listener):
    """Tells a journal in which phase the replay is, and when its code has ended."""

    def __init__(self, journal: _Journal, entry: str) -> None:
        self._journal = journal
        self._entry = entry

    def began(self, phase: str, component: str) -> None:  # noqa: ARG002  # a Listener's
        self._journal.phase = phase

    def routine_ended(self, name: str) -> None:
        if name == self._entry:
            self._journal.entries.append(_END)


class _NoWeights(Residency):
    """Tells a journal which weights would come, go and change, and moves none of them."""

    def __init__(self, tape: Tape, conditions: Conditions, journal: _Journal) -> None:
        super().__init__(tape, conditions, journal)
        self._entries = journal.entries

    def cast(self, component: str, element_bytes: int) -> int:
        self._entries.append(("cast", component, element_bytes))
        return 0

    def enter_module(self, component: str, module: int) -> int:
        self._entries.append(("enter", component, module))
        return 0

    def exit_module(self, component: str, module: int) -> None:
        self._entries.append(("exit", component, module))


def _replayed(tape: Tape, sample: Sample) -> list[Entry]:
    journal = _Journal()

    def scratch(kind: str, operands: tuple[int, ...]) -> int:
        journal.entries.append(("workspace", kind, operands))
        return 0

    conditions = Conditions(
        numbers=sample.numbers,
        facts=sample.facts,
        element_bytes=1,
        workspace_bytes=scratch,
        cublas_bytes=0,
        offload="sequential",  # its code has the module borders too
    )
    Replay(
        tape,
        conditions,
        journal,
        every_iteration=True,
        listener=_Places(journal, tape.entry),
        residency=_NoWeights(tape, conditions, journal),
    ).run()
    return journal.entries


# --------------------------------------------------------------------- what the code does
@dataclass(slots=True)
class _Flat:
    """A stream with its loops flattened."""

    entries: list[Entry] = field(default_factory=list)
    numbers: dict[Birth, int] = field(default_factory=dict)
    count: int = 0
    phase: str = ""
    gemms: set[bool] = field(default_factory=set)  # of which threads

    def add(self, event: object) -> None:
        if isinstance(event, Alloc):
            self.numbers[event.birth] = self.count
            self.count += 1
            self.entries.append(("alloc", self.phase, event.size_bytes))
        elif isinstance(event, Free):
            self.entries.append(("free", self.numbers.pop(event.birth)))
        elif isinstance(event, Workspace):
            self.entries.append(("workspace", event.kind, event.operands))
        elif isinstance(event, Gemm):
            if event.is_backward not in self.gemms:
                self.gemms.add(event.is_backward)
                self.entries.append(_CUBLAS)
        elif isinstance(event, Phase):
            self.phase = event.name
        elif isinstance(event, Cast):
            self.entries.append(("cast", event.component, event.element_bytes))
        elif isinstance(event, Leaf):
            self.entries.append(
                ("enter" if event.is_enter else "exit", event.component, event.module)
            )
        elif isinstance(event, Call):
            raise RecordingError("a fresh recording remembered a call")


def _recorded(stream: Stream) -> tuple[list[Entry], frozenset[int]]:
    """Return what a fresh run did, and which allocations outlive it."""
    phases = (event.name for event in stream.events if isinstance(event, Phase))
    flat = _Flat(phase=next(phases, "idle"))  # what comes before the first phase belongs to it
    for event in stream.events:
        flat.add(event)
    return [*flat.entries, _END], frozenset(flat.numbers.values())


def _session_facts(recipe: Recipe, sample: Sample) -> Facts:
    """Return the facts of the session that this sample belongs to."""
    for facts, _ in recipe.sessions:
        if all(sample.facts.get(key) == value for key, value in facts.items()):
            return dict(facts)
    raise RecordingError(f"no session of the recipe has the facts {dict(sample.facts)}")
