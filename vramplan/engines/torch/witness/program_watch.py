"""Watches a program on pretended cards from inside: what it holds, where it stops, what it reads.

Nothing here may change what the program does, or fail it: a watch that fails is a note.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from vramplan.engines.torch.witness import (
    held_memory,
    program_record,
    program_state,
    real_values,
    run_timeline,
)
from vramplan.engines.torch.witness.code_places import (
    Place,
    calling_places,
    modules_inside,
    own_place,
)

if TYPE_CHECKING:
    from vramplan.engines.torch.witness.loaded_libraries import LoadedCore

#: parts of torch that have no types
_cuda: Any = torch.cuda
_c: Any = torch._C

#: the allocator's trace is a ring of so many events; it is looked at before it comes round
_TRACED_EVENTS = 20_000
#: a launch comes with few allocations: this many are far from filling the ring
_LAUNCHES_A_LOOK = 1_500
#: of calls that give the card work, so many lie between two moments of the timeline at least
_LAUNCHES_A_MOMENT = 50
#: of failures so many are told with who held the memory, and so many at all
_MOST_DESCRIBED, _MOST_FAILURES = 8, 64
_LONGEST_SAYING = 300


def watch() -> None:
    """Watch this process from now on, with torch imported and no card in use yet."""
    watcher = _Watcher(program_record.CORE[0])
    _cuda._lazy_call(watcher.begin)
    watcher.count_errors()
    watcher.look_before_modules_go()
    atexit.register(watcher.end)


def _quietly(work: Callable[..., None]) -> Callable[..., None]:
    """Return `work` so that what goes wrong in it is a note and not the program's trouble."""

    @functools.wraps(work)
    def guarded(self: _Watcher, *arguments: Any) -> None:
        try:
            work(self, *arguments)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the program goes on
            self.note(f"{work.__name__}: {type(problem).__name__}: {problem}")

    return guarded


class _Watcher:
    """What is known of this process."""

    def __init__(self, core: LoadedCore) -> None:
        self._core = core
        self._values = real_values.Values(core)
        self._values.begin()
        self._failures: list[dict[str, Any]] = []
        self._failure_count = 0
        self._errors = 0
        self._uncaught: str | None = None
        self._end: dict[str, Any] = {}
        self._notes: list[str] = []
        self._peaks: dict[int, dict[str, int]] = {}
        self._held: dict[int, dict[str, Any]] = {}
        self._looked_at = 0
        self._looked_at_work = 0
        self._timelines: dict[int, run_timeline.Timeline] = {}
        self._highest: dict[int, int] = {}  # torch's peak, as the last moment saw it
        self._has_begun = False

    def note(self, text: str) -> None:
        """Take down what went wrong while watching."""
        if len(self._notes) < _MOST_FAILURES and text not in self._notes:
            self._notes.append(text[:300])

    # ------------------------------------------------------------------------------- beginning
    @_quietly
    def begin(self) -> None:
        """Begin, when torch takes the card into use."""
        self._has_begun = True
        _c._cuda_attach_out_of_memory_observer(self._failed)
        torch.cuda.memory._record_memory_history(
            enabled="all", context="alloc", stacks="python", max_entries=_TRACED_EVENTS
        )
        self._keep_peaks_over_resets()
        self._core.tell(self._pass, _LAUNCHES_A_MOMENT)

    def look_before_modules_go(self) -> None:
        """Look when a module that was moved to a card dies: who held the memory is gone then."""
        kind: Any = torch.nn.Module
        apply = kind._apply

        @functools.wraps(apply)
        def apply_and_remember(module: torch.nn.Module, *arguments: Any, **more: Any) -> Any:
            moved = apply(module, *arguments, **more)
            tensors = [weakref.ref(one) for one in (*module.parameters(), *module.buffers())]
            name = type(module).__name__
            weakref.finalize(module, self._look_once_more, name, tensors).atexit = False
            return moved

        kind._apply = apply_and_remember

    @_quietly
    def _look_once_more(self, name: str, tensors: Sequence[weakref.ref[torch.Tensor]]) -> None:
        found = [one for one in (reference() for reference in tensors) if one is not None]
        if any(one.is_cuda for one in found):
            self._look_now(held_memory.name_tensors(name, found))

    def _keep_peaks_over_resets(self) -> None:
        """Look before the program sets torch's peaks back."""
        reset = _c._cuda_resetPeakMemoryStats

        @functools.wraps(reset)
        def look_and_reset(device: int) -> None:
            self._look_now()
            reset(device)
            self._highest.pop(device, None)

        _c._cuda_resetPeakMemoryStats = look_and_reset

    def count_errors(self) -> None:
        """Count the errors that reach Python, and learn which one ends the program."""
        kind: Any = torch.OutOfMemoryError
        begin = kind.__init__

        def count(error: BaseException, *arguments: object) -> None:
            begin(error, *arguments)
            self._errors += 1
            if self._failures:
                self._failures[-1]["is_raised"] = True

        kind.__init__ = count
        hook = sys.excepthook

        def remember(
            kind: type[BaseException], problem: BaseException, trace: TracebackType | None
        ) -> None:
            self._uncaught = _named(problem)
            self._remember_end(problem, trace)
            hook(kind, problem, trace)

        sys.excepthook = remember

    @_quietly
    def _remember_end(self, problem: BaseException, trace: TracebackType | None) -> None:
        """Take down where an exception came from that ends the program, and what it says."""
        places = [
            (frame.f_code.co_filename, line, frame.f_code.co_qualname)
            for frame, line in walk_tb(trace)
        ]
        first, *_ = str(problem).strip().splitlines() or [""]
        where = _place(own_place(reversed(places)))
        self._end = {"where": where, "saying": first[:_LONGEST_SAYING]}

    # -------------------------------------------------------------------------------- failures
    @_quietly
    def _failed(self, device: int, asked: int, _allocated: int, free: int) -> None:
        """Hear from torch that an allocation has failed for good; its lock is not held."""
        places = calling_places()
        self._take_moment(places)
        counted = torch.cuda.memory_stats(device)
        failure: dict[str, Any] = {
            "device": device,
            "asked_bytes": asked,
            "allocated_bytes": counted.get("allocated_bytes.all.current", 0),
            "reserved_bytes": counted.get("reserved_bytes.all.current", 0),
            "free_bytes": free,
            "where": _place(own_place(places)),
            "inside": modules_inside(places),
            "operator": self._values.operator(),
            "expandable": "expandable_segments:True" in _allocator_settings(),
            "is_raised": False,
        }
        self._failure_count += 1
        if self._failure_count <= _MOST_DESCRIBED or self._failure_count % 16 == 0:
            failure["state"] = program_state.state_of(failure["inside"])
            snapshot = torch.cuda.memory._snapshot()
            failure |= held_memory.holders(held_memory.live_blocks(snapshot, device))
        self._failures.append(failure)
        del self._failures[:-_MOST_FAILURES]

    # ----------------------------------------------------------------------------------- peaks
    @_quietly
    def _pass(self) -> None:
        """Take a moment down, and look where it is time."""
        self._take_moment()
        if self._core.work - self._looked_at_work >= _LAUNCHES_A_LOOK:
            self._looked_at_work = self._core.work
            self._look()

    def _take_moment(self, places: Sequence[Place] | None = None) -> None:
        """Add to each card's timeline what is allocated, or was at most since the last moment."""
        place = own_place(calling_places() if places is None else places)
        for device in range(torch.cuda.device_count()):
            counted = _c._cuda_memoryStats(device)
            allocated = counted["allocated_bytes"]["all"]
            held = counted["reserved_bytes"]["all"]["current"]
            has_risen = allocated["peak"] > self._highest.get(device, allocated["current"])
            self._highest[device] = allocated["peak"]
            most = allocated["peak"] if has_risen else allocated["current"]
            line = self._timelines.setdefault(device, run_timeline.Timeline())
            line.add(self._core.work, most, max(held, most), place)

    @_quietly
    def _look(self) -> None:
        """Look at the allocator, where the trace would be written over before the next look."""
        for device in range(torch.cuda.device_count()):
            counted = _c._cuda_memoryStats(device)
            events = _events(counted)
            known = self._held.get(device, {}).get("bytes", 0)
            has_grown = counted["allocated_bytes"]["all"]["peak"] > known
            if has_grown and events - self._looked_at > _TRACED_EVENTS // 2:
                self._look_now()
                return

    @_quietly
    def _look_now(self, dying: Sequence[held_memory.Named] = ()) -> None:
        snapshot: dict[str, Any] | None = None
        for device in range(torch.cuda.device_count()):
            counted = _c._cuda_memoryStats(device)
            peaks = self._peaks.setdefault(device, {"allocated": 0, "reserved": 0, "retries": 0})
            for name in ("allocated", "reserved"):
                peak = counted[f"{name}_bytes"]["all"]["peak"]
                peaks[name] = max(peaks[name], peak)
            peaks["retries"] = max(peaks["retries"], counted["num_alloc_retries"])
            self._looked_at = _events(counted)
            if peaks["allocated"] <= self._held.get(device, {}).get("bytes", 0):
                continue
            if snapshot is None:
                snapshot = torch.cuda.memory._snapshot()
            most, blocks = held_memory.blocks_at_peak(snapshot, device)
            if most > self._held.get(device, {}).get("bytes", 0):
                self._held[device] = {"bytes": most, **held_memory.holders(blocks, dying)}

    # --------------------------------------------------------------------------------- the end
    @_quietly
    def _take_last_moment(self) -> None:
        self._take_moment(())

    def end(self) -> None:
        """Tell what is known."""
        if self._has_begun:
            self._look_now()
            self._take_last_moment()
        program_record.tell(
            {
                "torch": torch.__version__,
                "cudnn": _cudnn_version() if self._has_begun else None,
                "timelines": [
                    {"device": device, "moments": one.told()}
                    for device, one in self._timelines.items()
                ],
                "peaks": [{"device": device, **peaks} for device, peaks in self._peaks.items()],
                "held": [{"device": device, **held} for device, held in self._held.items()],
                "failures": self._failures,
                "errors": self._errors,
                "uncaught": self._uncaught,
                "end": self._end,
                "value_reads": self._values.reads(),
                "notes": self._notes,
                "remarks": program_record.REMARKS,
            }
        )


def _allocator_settings() -> str:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    return ",".join(os.environ.get(name, "") for name in names)


def _events(counted: Any) -> int:
    """Return about how many events the trace has seen: a free is two."""
    allocations = counted["allocation"]["all"]
    return int(allocations["allocated"] + 2 * allocations["freed"])


def _place(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {"file": place[0], "line": place[1], "function": place[2]}


def _named(problem: BaseException) -> str:
    """Return the name of what ended a program: out of memory where that is what led to it."""
    one: BaseException | None = problem
    for _ in range(16):
        if one is None:
            break
        if isinstance(one, torch.OutOfMemoryError) or "CUDA out of memory" in str(one):
            return "OutOfMemoryError"
        one = one.__cause__ or one.__context__
    return type(problem).__name__


def _cudnn_version() -> int | None:
    cudnn: Any = torch.backends.cudnn
    version = cudnn.version()
    return None if version is None else int(version)
