"""The compiled core, where there is one: a rehearsal that runs in C.

`rehearsal`, `replay`, `allocator` and their neighbours are the reference, and what runs where no
core was built (``VRAMPLAN_CORE=off`` turns it off). Both give the same figures. What the core does
not take (a tape that does not hold together, a figure out of range) it leaves to the reference,
which says what is wrong.
"""

from __future__ import annotations

import ctypes
import os
import sys
import zlib
from _thread import allocate_lock
from _weakref import ref
from array import array
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import cache, lru_cache
from pathlib import Path

from vramplan.engines.torch.tape.conditions import Conditions, Percents
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.core_program import Vocabulary
from vramplan.engines.torch.tape.mark import Mark
from vramplan.engines.torch.tape.plans import WorkspaceModel, plans_of
from vramplan.engines.torch.tape.rehearsed import (
    Lowered,
    Refused,
    Rehearsed,
    lower_by_attempts,
)
from vramplan.engines.torch.tape.trace import ReplayOutOfMemory, Trace
from vramplan.errors import TapeError
from vramplan.hearing import remark

FOLDER = Path(__file__).parent / "core"
LIBRARY = FOLDER / ("_core.dll" if sys.platform == "win32" else "_core.so")

# core/core.h and core/replay.c
_DONE, _REFUSED, _TOO_LONG, _AS_BASE = 0, 1, 2, 5
_OFFLOADS = {"none": 0, "model": 1, "sequential": 2}
#: no size is beyond this
_LARGEST = 1 << 60
_MOST_TAPES = 4
_MOST_PROGRAMS = 64
#: of one run so many tries are remembered
_MOST_TRIED = 1024

_LONG = ctypes.c_int64
_LONGS = ctypes.POINTER(_LONG)
_SCRATCH = ctypes.CFUNCTYPE(_LONG, ctypes.c_int32, _LONG, _LONGS, _LONG, _LONGS)
#: core/journal.h: so many plans of a library for one operator
_MOST_PLANS = 8
#: core/run.h: so many operands of one operator
_MOST_OPERANDS = 15
#: of one run so many with other scratch are told apart
_MOST_TWINS = 256


_STALE = "is older than its sources; install vramplan again"
#: what builds the core where it lies, which only a checkout has
_BUILDER = "hatch_build.py"


class CannotRun(Exception):
    """The core does not take this; the reference does, or says what is wrong."""


def sources_checksum(folder: Path = FOLDER) -> int:
    """Return the checksum of the core's sources, 0 where they are not here."""
    paths = sorted([*folder.glob("*.c"), *folder.glob("*.h")])
    checksum = 0
    for path in paths:
        # a checkout on Windows may have other line ends
        checksum = zlib.crc32(path.read_bytes().replace(b"\r\n", b"\n"), checksum)
    return checksum


@cache
def find_core() -> tuple[ctypes.CDLL | None, str]:
    """Return the core, and in words which one is in use, or why none is."""
    if os.environ.get("VRAMPLAN_CORE", "").lower() in ("off", "0", "no"):
        return None, "turned off by VRAMPLAN_CORE"
    if not LIBRARY.is_file():
        return None, "was not built (no C compiler where vramplan was installed)"
    try:
        core = ctypes.CDLL(str(LIBRARY))
        core.vramplan_sources.restype = _LONG
        built_from = core.vramplan_sources()
    except (OSError, AttributeError) as error:
        return None, f"cannot be loaded: {error}"
    if sources_checksum() not in (0, built_from):
        return None, _STALE
    _declare(core)
    return core, f"{LIBRARY.name}, built from {built_from:08x}"


@cache  # once is enough
def say_if_stale() -> None:
    """Remark where replays run in Python because the core is older than its sources."""
    if find_core()[1] != _STALE:
        return
    builder = FOLDER.parents[4] / _BUILDER
    how = f"build it with 'python {_BUILDER}'" if builder.is_file() else "install vramplan again"
    remark(
        "the compiled core is older than its sources, so replays run in Python, "
        f"up to a hundred times slower: {how}"
    )


def _declare(core: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    core.vramplan_program.restype = pointer
    core.vramplan_program.argtypes = [pointer, _LONG, ctypes.c_char_p, _LONG]
    core.vramplan_program_end.restype = None
    core.vramplan_program_end.argtypes = [pointer]
    core.vramplan_run.restype = pointer
    core.vramplan_run.argtypes = [
        *(pointer, pointer, _LONG, _SCRATCH, pointer),
        *(_LONG, _LONG, _LONG, number, number, number),
    ]
    core.vramplan_sibling.restype = pointer
    core.vramplan_sibling.argtypes = [pointer, pointer, _LONG, _LONG]
    core.vramplan_asked.restype = None
    core.vramplan_asked.argtypes = [pointer, pointer]
    core.vramplan_run_end.restype = None
    core.vramplan_run_end.argtypes = [pointer]
    core.vramplan_load.argtypes = [pointer]
    core.vramplan_go.argtypes = [pointer]
    core.vramplan_figures.restype = None
    core.vramplan_figures.argtypes = [pointer, _LONGS]
    core.vramplan_marks.restype = None
    core.vramplan_marks.argtypes = [pointer, pointer, pointer]
    core.vramplan_attempt.argtypes = [pointer, _LONG, number, _LONGS]
    core.vramplan_lower.argtypes = [pointer, _LONG, number, ctypes.c_double, _LONGS]
    core.vramplan_known.argtypes = [pointer, pointer, _LONG, _LONG, _LONG, number, _LONGS]


class _Program:
    """A program in the core's memory."""

    def __init__(self, core: ctypes.CDLL, words: array[int], text: bytes) -> None:
        self._core = core
        address, count = words.buffer_info()
        self.handle: int | None = core.vramplan_program(address, count, text, len(text))
        if not self.handle:
            raise CannotRun

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._core.vramplan_program_end(self.handle)


class _Run:
    """A run in the core's memory, which is for one thread at a time."""

    def __init__(self, core: ctypes.CDLL, address: int | None) -> None:
        self._core = core
        self.address = address
        self.lock = allocate_lock()
        if not address:
            raise CannotRun

    def __del__(self) -> None:
        if self.address:
            self._core.vramplan_run_end(self.address)


class _Known:
    """A tape that the core has been told of: its vocabulary, and its programs."""

    def __init__(self, core: ctypes.CDLL, tape: Tape) -> None:
        self._core = core
        self.vocabulary = Vocabulary(tape)
        self._programs: dict[object, _Program] = {}

    def program(self, conditions: Conditions) -> _Program:
        """Return the program of what runs under some conditions; numbers do not matter to it."""
        facts = conditions.facts
        key = (
            tuple(facts.get(name) for name in self.vocabulary.tape.known_facts),
            conditions.offload == "sequential",
            conditions.has_own_convolutions,
            conditions.skip_components,
            conditions.stays,
        )
        if key not in self._programs:
            words, text = self.vocabulary.program(conditions)
            if len(self._programs) >= _MOST_PROGRAMS:
                del self._programs[next(iter(self._programs))]
            self._programs[key] = _Program(self._core, words, text)
        return self._programs[key]


#: the tapes in use, the latest last; the tape in each keeps its id its own
_known: dict[int, _Known] = {}


def _know(core: ctypes.CDLL, tape: Tape) -> _Known:
    found = _known.pop(id(tape), None) or _Known(core, tape)
    _known[id(tape)] = found
    while len(_known) > _MOST_TAPES:
        del _known[next(iter(_known))]
    return found


#: what was asked of libraries: kind, the element size that the component was cast to, operands
_Asked = tuple[tuple[str, int, tuple[int, ...]], ...]
#: the answers of `lower`, by the limit that it began with
_Answers = dict[tuple[int, Refused], Lowered]


class _Kin:
    """The runs that differ from one in scratch alone, and what was answered: by that scratch."""

    def __init__(self) -> None:
        self.asked: _Asked = ()
        self.runs: dict[bytes, ref[_Run]] = {}
        self._answers: dict[bytes, _Answers] = {}

    def answers(self, scratch: bytes) -> _Answers:
        """Return what runs of this scratch have answered, to be added to."""
        if scratch not in self._answers and len(self._answers) >= _MOST_TWINS:
            self._answers.clear()
            self.runs.clear()
        return self._answers.setdefault(scratch, {})


class NativeRehearsal:
    """A rehearsal that runs in the core (`Rehearsed`).

    `reference` makes the same in Python, loaded and run once: it is asked where the core gives up.
    `again` rehearses the tape under other conditions, for what only a run that was gone through can
    answer.
    Raises CannotRun where the core does not take it at all, TapeError where the run is too long.
    """

    def __init__(
        self,
        core: ctypes.CDLL,
        tape: Tape,
        conditions: Conditions,
        *,
        reference: Callable[[], Rehearsed],
        again: Callable[[Conditions], Rehearsed],
        expandable_segments: bool = False,
    ) -> None:
        self.tape = tape
        self._core = core
        self._reference = reference
        self._instead: Rehearsed | None = None
        self._trace: Trace | None = None
        self._warm: int | None = None
        if conditions.offload not in _OFFLOADS:
            raise CannotRun
        try:
            known = _know(core, tape)
            self._program = known.program(conditions)
            numbers = known.vocabulary.numbers(conditions)
        except (KeyError, OverflowError, TypeError, ValueError):
            raise CannotRun from None
        self._base: NativeRehearsal | None = None  # of which the core reads
        self._tried: dict[tuple[int, Refused], tuple[int, ReplayOutOfMemory | None]] = {}
        self._kin = _Kin()
        self._answers: _Answers = {}
        self._conditions = conditions
        self._again = again
        self._labels = list(known.vocabulary.labels)
        self._components = list(tape.components)
        percents = _percents(conditions)
        self._scratch = (
            _SCRATCH() if percents else _SCRATCH(_scratch_model(conditions, self._labels))
        )
        address = core.vramplan_run(
            self._program.handle,
            numbers.buffer_info()[0],
            len(numbers) // 2,
            self._scratch,
            percents.buffer_info()[0],
            len(percents) // 4,
            conditions.element_bytes,
            conditions.cublas_bytes,
            _OFFLOADS[conditions.offload],
            conditions.loading == "device_map",
            expandable_segments,
        )
        self._run = _Run(core, address)
        self._must(core.vramplan_load(address))
        self._must(core.vramplan_go(address))

    @property
    def request_count(self) -> int:
        """How many requests it holds, which says how much memory it takes."""
        return self._figures()[1] if self._base is None else 0  # they are the base's

    def warm_reserved_peak_bytes(self) -> int:
        """Return the reserved peak of this and one more run of the entry, in the same process."""
        with self._run.lock:
            return self._warm_reserved_peak_bytes()

    def _warm_reserved_peak_bytes(self) -> int:
        if self._warm is None:
            cold = self.trace  # before there are more stretches
            with suppress(CannotRun):
                if self._instead is None and self._base is None:
                    self._must(self._core.vramplan_go(self._run.address))
                    self._warm = max(mark.reserved_peak_bytes for mark in self._marks())
            if self._warm is None:
                self._warm = self._fall_back().warm_reserved_peak_bytes()
            self._trace = cold
        return self._warm

    def like(self, conditions: Conditions) -> Rehearsed | None:
        """Return the same run with other scratch; None where it may differ in more than that."""
        if self._base is not None:  # only a run that was gone through itself can be followed
            return self._base.like(conditions)
        if self._instead is not None:
            return None
        with self._run.lock:
            sizes = _sizes_under(conditions, self._asked())
            if sizes is None:
                return None
            known = self._known_search(sizes, conditions.cublas_bytes, -1, Refused.NEXT_PLAN)
            if known is not None:
                return _Alike(self, conditions, sizes, most_wanted_bytes=known[0])
            return self._twin(conditions, sizes)

    def known_search(
        self, sizes: bytes, cublas_bytes: int, limit_bytes: int, refused: Refused
    ) -> Lowered | None:
        """Return what `lower` says of this run with other scratch; None where that is not known."""
        with self._run.lock:
            known = self._known_search(sizes, cublas_bytes, limit_bytes, refused)
        return None if known is None else known[1]

    def _known_search(
        self, sizes: bytes, cublas_bytes: int, limit_bytes: int, refused: Refused
    ) -> tuple[int, Lowered] | None:
        """Return what a limit led to, after it; one below 0 is the least that refuses nothing."""
        found, words = (_LONG * 6)(), array("q", sizes)
        count = len(words) // (1 + _MOST_PLANS)
        status = self._core.vramplan_known(
            *(self._run.address, words.buffer_info()[0], count, cublas_bytes),
            *(limit_bytes, refused, found),
        )
        if status != _REFUSED:
            return None
        return found[5], self._lowered(list(found))

    def twin(self, conditions: Conditions, sizes: bytes) -> NativeRehearsal | None:
        """Return the same run with other scratch, of which the sizes are known."""
        with self._run.lock:
            return self._twin(conditions, sizes)

    def rehearse_again(self, conditions: Conditions) -> Rehearsed:
        """Return a run of its own under other conditions."""
        return self._again(conditions)

    def _twin(self, conditions: Conditions, sizes: bytes) -> NativeRehearsal | None:
        asked, kin = self._asked(), self._kin
        own = self._conditions
        run: _Run | None = None
        answers = self._answers
        if conditions.cublas_bytes == own.cublas_bytes and sizes == _sizes_under(own, asked):
            run = self._run
        else:
            scratch = conditions.cublas_bytes.to_bytes(8, "little") + sizes
            known = kin.runs.get(scratch)
            run = None if known is None else known()
            if run is None:
                words = array("q", sizes)
                cublas_bytes = conditions.cublas_bytes
                with suppress(CannotRun):
                    run = _Run(
                        self._core,
                        self._core.vramplan_sibling(
                            self._run.address, words.buffer_info()[0], len(asked), cublas_bytes
                        ),
                    )
            if run is None:
                return None
            answers = kin.answers(scratch)
            kin.runs[scratch] = ref(run)
        twin = object.__new__(NativeRehearsal)
        twin.__dict__.update(self.__dict__)
        twin._become(run, self, conditions)  # it is one of ours
        twin._answers = answers
        return twin

    def _asked(self) -> _Asked:
        """Return what was asked of libraries, for each size in the order of the core's."""
        count = self._figures()[4]
        if len(self._kin.asked) != count:  # a second run in the process asks for more
            each = 3 + _MOST_OPERANDS
            rows = array("q", bytes(8 * each * count))
            self._core.vramplan_asked(self._run.address, rows.buffer_info()[0])
            self._kin = _Kin()
            self._kin.asked = tuple(
                (
                    self._labels[rows[at]],
                    rows[at + 1],
                    tuple(rows[at + 3 : at + 3 + rows[at + 2]]),
                )
                for at in range(0, each * count, each)
            )
        return self._kin.asked

    def _become(self, run: _Run, base: NativeRehearsal, conditions: Conditions) -> None:
        """Take over a run in the core that reads `base`, or is its own."""
        self._run, self._base = run, base
        self._trace = self._warm = None
        self._tried = {}
        again = self._again  # not of this object: it would hold itself
        # a second run in the process may ask for other scratch
        self._reference = lambda: again(conditions)

    def _must(self, status: int) -> None:
        if status == _TOO_LONG:
            raise TapeError(
                f"tape {self.tape.pipeline}: the run at these settings is too long to be replayed"
            )
        if status != _DONE:
            raise CannotRun

    def _fall_back(self) -> Rehearsed:
        if self._instead is None:
            self._instead = self._reference()
        return self._instead

    def _figures(self) -> Sequence[int]:
        figures = (_LONG * 5)()
        self._core.vramplan_figures(self._run.address, figures)
        return list(figures)

    @property
    def trace(self) -> Trace:
        """The stretches of the run."""
        base = self._base
        if base is not None and base._run is self._run:  # noqa: SLF001  # one of ours
            return base.trace  # it may have gone again since
        if self._trace is None:
            self._trace = Trace(marks=self._marks())
        return self._trace

    def _marks(self) -> list[Mark]:
        count, _, weights_count, *_ = self._figures()
        rows = array("q", bytes(8 * 7 * count))
        weights = array("q", bytes(8 * weights_count))
        self._core.vramplan_marks(
            self._run.address, rows.buffer_info()[0], weights.buffer_info()[0]
        )
        labels = self._labels
        there: dict[int, tuple[tuple[str, int], ...]] = {}
        for snapshot in dict.fromkeys(rows[6::7]):
            pairs = weights[snapshot + 1 : snapshot + 1 + 2 * weights[snapshot]]
            names = (self._components[number] for number in pairs[::2])
            there[snapshot] = tuple(zip(names, pairs[1::2], strict=True))
        return [
            Mark(
                phase=labels[rows[at]],
                component=labels[rows[at + 1]],
                allocated_peak_bytes=rows[at + 2],
                reserved_peak_bytes=rows[at + 3],
                allocated_bytes=rows[at + 4],
                reserved_bytes=rows[at + 5],
                weights=there[rows[at + 6]],
            )
            for at in range(0, 7 * count, 7)
        ]

    @property
    def most_wanted_bytes(self) -> int:
        """The least limit that refuses nothing: the run under it is the run without one."""
        if self._instead is not None:
            return self._instead.most_wanted_bytes
        return self._figures()[3]

    def attempt(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> tuple[int, ReplayOutOfMemory | None]:
        """Return what a limit granted the run at most, and how the run fails under it.

        It fails with None where it completes. Under every limit from what was granted up to this
        one everything happens alike.
        """
        if self._instead is not None:
            return self._instead.attempt(limit_bytes, refused=refused)
        key = min(max(limit_bytes, -1), _LARGEST), refused
        if key not in self._tried:
            if len(self._tried) >= _MOST_TRIED:
                self._tried.clear()
            self._tried[key] = self._attempt(*key)
        return self._tried[key]

    def _attempt(self, limit_bytes: int, refused: Refused) -> tuple[int, ReplayOutOfMemory | None]:
        found = (_LONG * 4)()
        with self._run.lock:
            status = self._core.vramplan_attempt(self._run.address, limit_bytes, refused, found)
        if status == _AS_BASE:
            assert self._base is not None
            return self._base.attempt(limit_bytes, refused=refused)
        granted_bytes, phase, component, asked_bytes = found
        if status == _DONE:
            return granted_bytes, None
        if status != _REFUSED:
            return self._fall_back().attempt(limit_bytes, refused=refused)
        labels = self._labels
        return granted_bytes, ReplayOutOfMemory(labels[phase], labels[component], asked_bytes)

    def lower(self, limit_bytes: int, *, refused: Refused, seconds: float) -> Lowered:
        """Try limits downwards from one under which the run completes, until it fails."""
        key = limit_bytes, refused
        if key not in self._answers:
            found = self._lower(limit_bytes, refused, seconds)
            if found.failure is None and found.limit_bytes:  # time was up
                return found
            self._answers[key] = found
        return self._answers[key]

    def _lower(self, limit_bytes: int, refused: Refused, seconds: float) -> Lowered:
        if self._instead is None and 0 <= limit_bytes <= _LARGEST:
            found = (_LONG * 5)()
            base = self._base
            shared = nullcontext() if base is None or base._run is self._run else base._run.lock  # noqa: SLF001  # one of ours
            with shared, self._run.lock:
                status = self._core.vramplan_lower(
                    self._run.address, limit_bytes, refused, seconds, found
                )
            if status in (_DONE, _TOO_LONG):
                return Lowered(limit_bytes=found[0], failure=None, tries=found[4])
            if status == _REFUSED:
                return self._lowered(list(found))
            limit_bytes = found[0]
        return lower_by_attempts(self, limit_bytes, refused=refused, seconds=seconds)

    def _lowered(self, found: Sequence[int]) -> Lowered:
        labels = self._labels
        limit_bytes, phase, component, asked_bytes, tries = found[:5]
        failure = ReplayOutOfMemory(labels[phase], labels[component], asked_bytes)
        return Lowered(limit_bytes=limit_bytes, failure=failure, tries=tries)

    def failure(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> ReplayOutOfMemory | None:
        """Return how what was run so far fails under a limit; None where it completes."""
        return self.attempt(limit_bytes, refused=refused)[1]


class _Alike:
    """A run that differs from a base in scratch alone, and goes as one that was searched.

    What that search does not answer is asked of the run itself, which is made then (`Rehearsed`).
    """

    def __init__(
        self, base: NativeRehearsal, conditions: Conditions, sizes: bytes, *, most_wanted_bytes: int
    ) -> None:
        self.tape = base.tape
        self.most_wanted_bytes = most_wanted_bytes
        self.request_count = 0  # they are the base's
        self._base = base
        self._conditions = conditions
        self._sizes = sizes
        self._made: Rehearsed | None = None

    def _itself(self) -> Rehearsed:
        if self._made is None:
            twin = self._base.twin(self._conditions, self._sizes)
            self._made = twin or self._base.rehearse_again(self._conditions)
        return self._made

    @property
    def trace(self) -> Trace:
        """The stretches of the run."""
        return self._itself().trace

    def like(self, conditions: Conditions) -> Rehearsed | None:
        """Return the same run with other scratch."""
        return self._base.like(conditions)

    def warm_reserved_peak_bytes(self) -> int:
        """Return the reserved peak of this and one more run of the entry, in the same process."""
        return self._itself().warm_reserved_peak_bytes()

    def attempt(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> tuple[int, ReplayOutOfMemory | None]:
        """Return what a limit granted the run at most, and how the run fails under it."""
        return self._itself().attempt(limit_bytes, refused=refused)

    def failure(
        self, limit_bytes: int, *, refused: Refused = Refused.FAILS
    ) -> ReplayOutOfMemory | None:
        """Return how what was run so far fails under a limit; None where it completes."""
        return self.attempt(limit_bytes, refused=refused)[1]

    def lower(self, limit_bytes: int, *, refused: Refused, seconds: float) -> Lowered:
        """Try limits downwards from one under which the run completes, until it fails."""
        cublas_bytes = self._conditions.cublas_bytes
        known = self._base.known_search(self._sizes, cublas_bytes, limit_bytes, refused)
        return known or self._itself().lower(limit_bytes, refused=refused, seconds=seconds)


def _percents(conditions: Conditions) -> array[int]:
    """Return scratch as percents of operands: an element size, 0 for any other, and three of them.

    Nothing where a model is another function.
    """
    models = {0: conditions.workspace_bytes, **conditions.cast_workspace_bytes}
    words = array("q")
    for width, model in models.items():
        if not isinstance(model, Percents):
            return array("q")
        words.extend((width, model.input_percent, model.output_percent, model.filter_percent))
    return words


def _sizes_under(conditions: Conditions, asked: _Asked) -> bytes | None:
    cast = tuple(conditions.cast_workspace_bytes.items())
    return _sizes(conditions.workspace_bytes, cast, asked)


@lru_cache(maxsize=128)  # as many as an architecture's of some settings
def _sizes(
    model: WorkspaceModel, cast: tuple[tuple[int, WorkspaceModel], ...], asked: _Asked
) -> bytes | None:
    """Return the plans for all that was asked, as the core takes them; None where it does not."""
    models = dict(cast)
    words = array("q")
    for kind, width, operands in asked:
        try:
            found = plans_of(models.get(width, model), kind, operands)[:_MOST_PLANS]
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None
        if not found or not all(0 <= size <= _LARGEST for size in found):
            return None
        words.append(len(found))
        words.extend(found)
        words.extend([0] * (_MOST_PLANS - len(found)))
    return words.tobytes()


Model = Callable[[int, int, Sequence[int], int, "ctypes.Array[_LONG]"], int]


def _scratch_model(conditions: Conditions, labels: Sequence[str]) -> Model:
    """Return the conditions' workspace models as the core asks them: 0 for no answer.

    The bytes of the plans are put where they are asked for, and how many those are is returned.

    `width` is the element size that a component was cast to, 0 where it was not.
    """

    def model(
        kind: int, width: int, operands: Sequence[int], count: int, plans: ctypes.Array[_LONG]
    ) -> int:
        chosen = conditions.cast_workspace_bytes.get(width, conditions.workspace_bytes)
        try:
            found = plans_of(chosen, labels[kind], tuple(operands[:count]))[:_MOST_PLANS]
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return 0
        if not all(0 <= size <= _LARGEST for size in found):
            return 0
        for place, size in enumerate(found):
            plans[place] = size
        return len(found)

    return model
