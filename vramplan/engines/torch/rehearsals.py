"""Rehearsals of this process, and the least limits of their runs: what replays alike is done once.

Two architectures replay alike where the tape has the same code for both and their libraries take
the same scratch. Three least limits are looked for: with the plans that are known, of which torch
tries the next where one does not fit; with those and, after the last, without scratch; and with
the most scratch that is likely.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable, Hashable

from vramplan.engines.torch.least_limit import LeastLimit, find_least_limit
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.plans import ComparedModel
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape.rehearsed import Refused, Rehearsed
from vramplan.quick_typing import TypeVar, cast

_T = TypeVar("_T")
_Key = tuple[Hashable, ...]
_lock = allocate_lock()

#: the latest rehearsals, the oldest first: fewer where together they hold more requests than this
_recent: dict[_Key, Rehearsed] = {}
_MOST_REQUESTS = 4_000_000
_MOST_RECENT, _MOST_LARGE = 12, 4
#: of so many that differ in scratch alone one is asked for another
_MOST_ALIKE = 3

#: limits that were found, the oldest first, each with its run, whose tape keeps its id its own
_found: dict[_Key, tuple[Tape, LeastLimit, LeastLimit | None]] = {}
_MOST_FOUND = 512

#: what was read of runs, the oldest first, each with its tape, for as long as limits are
_read: dict[tuple[_Key, Callable[[Rehearsed], object]], tuple[Tape, object]] = {}


def rehearse_once(tape: Tape, conditions: Conditions, *, expandable_segments: bool) -> Rehearsed:
    """Return one run of the tape, rehearsed now or lately. Raises TapeError as `rehearse` does."""
    key = _key(tape, conditions, expandable_segments=expandable_segments)
    with _lock:
        run = None if key is None else _recent.pop(key, None)
        alike: list[Rehearsed] = []
        if run is None and key is not None:  # what differs in scratch alone
            alike = [_recent[one] for one in _recent if one[2:] == key[2:]]
    for other in alike[-_MOST_ALIKE:]:
        run = other.like(conditions)
        if run is not None:
            break
    if run is None:
        run = rehearse(tape, conditions, expandable_segments=expandable_segments)
    if key is not None:
        with _lock:
            _recent[key] = run
            held = sum(one.request_count for one in _recent.values())
            most = _MOST_RECENT if held <= _MOST_REQUESTS else _MOST_LARGE
            while len(_recent) > most:
                del _recent[next(iter(_recent))]
    return run


def read_once(
    read: Callable[[Rehearsed], _T],
    tape: Tape,
    conditions: Conditions,
    *,
    expandable_segments: bool,
) -> _T:
    """Return what `read`, a function of a module, says of one run of the tape.

    That is remembered for longer than the run, which holds all its requests: a search for advice
    has more candidates than runs are kept, and comes back to each for every budget. Raises
    TapeError as `rehearse` does.
    """
    key = _key(tape, conditions, expandable_segments=expandable_segments)
    known = None if key is None else _read.get((key, read))
    if known is not None:
        return cast("_T", known[1])
    found = read(rehearse_once(tape, conditions, expandable_segments=expandable_segments))
    if key is not None:
        with _lock:
            _read[key, read] = tape, found
            while len(_read) > _MOST_FOUND:
                del _read[next(iter(_read))]
    return found


def find_least_limits(
    tape: Tape, conditions: Conditions, most: Conditions, *, expandable_segments: bool
) -> tuple[LeastLimit, LeastLimit, LeastLimit]:
    """Return the least limits, low to high: under `conditions`, and those of the `most` scratch."""
    expected, low = _limits(tape, conditions, expandable_segments, has_bare=True)
    high, _ = _limits(tape, most, expandable_segments, has_bare=False)
    assert low is not None
    return low, expected, high


def _limits(
    tape: Tape, conditions: Conditions, expandable_segments: bool, *, has_bare: bool
) -> tuple[LeastLimit, LeastLimit | None]:
    """Return the least limit of a run, and that of the run without what no known plan fits."""
    key = _key(tape, conditions, expandable_segments=expandable_segments)
    known = None if key is None else _found.get(key)
    if known is not None and (known[2] is not None or not has_bare):
        return known[1:]
    run = rehearse_once(tape, conditions, expandable_segments=expandable_segments)
    likely = find_least_limit(run, refused=Refused.NEXT_PLAN) if known is None else known[1]
    # where the run completes no last plan was refused, so without them it is that run
    bare = (
        find_least_limit(run, refused=Refused.WITHOUT, from_bytes=likely.limit_bytes)
        if has_bare
        else None
    )
    if key is not None:
        with _lock:
            _found[key] = tape, likely, bare
            while len(_found) > _MOST_FOUND:
                del _found[next(iter(_found))]
    return likely, bare


def forget() -> None:
    """Forget what this process has rehearsed."""
    _recent.clear()
    _found.clear()
    _read.clear()


def _key(tape: Tape, conditions: Conditions, *, expandable_segments: bool) -> _Key | None:
    """Return everything that a rehearsal reads, scratch first; None where it cannot be compared."""
    models = {0: conditions.workspace_bytes, **conditions.cast_workspace_bytes}
    if not all(isinstance(model, ComparedModel) for model in models.values()):
        return None
    facts, numbers = conditions.facts, conditions.numbers
    return (
        # an element size of the same scratch as any other is none of its own
        tuple((size, one) for size, one in models.items() if not size or one != models[0]),
        conditions.cublas_bytes,
        id(tape),
        conditions.has_own_convolutions,
        tuple(facts.get(name) for name in tape.known_facts),
        tuple(numbers.get(name) for name in tape.known_numbers),
        conditions.element_bytes,
        conditions.loading,
        conditions.offload,
        conditions.stays,
        conditions.skip_components,
        expandable_segments,
    )
