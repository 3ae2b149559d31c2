"""Where a run stops first on a card: the first request that its memory refuses.

That is not where the run would need most. A card that is far too small fails while it loads.
"""

from __future__ import annotations

from vramplan.budget.cuda_context import context_band
from vramplan.budget.verdict import spills
from vramplan.codec import Json
from vramplan.engines.torch.estimate import replayed, with_tape
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import conditions_at, on_card, parts_at, result_key
from vramplan.engines.torch.tape_files import find_tape, tape_proof
from vramplan.known_results import KnownResults
from vramplan.model import Card, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.conditions import Conditions
    from vramplan.engines.torch.tape.contents import Tape
    from vramplan.engines.torch.tape.rehearsed import Rehearsed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """The phase and the component at which a run stops; None where it completes."""

    place: tuple[str, str] | None


def _to_json(found: _Stop) -> Json:
    return list(found.place or ())


def _from_json(raw: Json) -> _Stop | None:
    match raw:
        case []:
            return _Stop(place=None)
        case [str(phase), str(component)] if max(len(phase), len(component)) <= _LONGEST:
            return _Stop(place=(phase, component))
    return None


_LONGEST = 200
_KNOWN = KnownResults[_Stop]("stop", _to_json, _from_json)


def find_first_stop(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> tuple[str, str] | None:
    """Return the phase and the component at which a run stops, or begins to spill.

    None where it completes as expected. Raises TapeError where no tape holds for the settings.
    """
    pipeline = with_tape(pipeline, settings, card)
    if pipeline.counted is not None:  # there is nothing to replay
        return None
    limit_bytes = budget_bytes - context_band(card).expected_bytes
    asked = on_card(settings, card)
    return FirstStop(pipeline, asked, card.compute_capability).under(limit_bytes)


class FirstStop:
    """Where one run stops under one limit after another."""

    def __init__(
        self, pipeline: TorchPipeline, settings: Settings, compute_capability: str
    ) -> None:
        """Raises TapeError where no tape holds for the settings."""
        self._path = find_tape(pipeline)
        self._asked = pipeline, settings, compute_capability
        self._known: dict[int, tuple[str, str] | None] = {}

    def under(self, limit_bytes: int) -> tuple[str, str] | None:
        """Return the phase and the component at which it stops where torch may have so much."""
        if limit_bytes not in self._known:
            find = self._spill if spills(self._asked[1]) else self._refusal
            self._known[limit_bytes] = find(limit_bytes)
        return self._known[limit_bytes]

    def _spill(self, limit_bytes: int) -> tuple[str, str] | None:
        """Return where what is reserved goes over the limit: the driver refuses nothing."""
        marks = replayed(*self._asked, self._path).marks
        over = (mark for mark in marks if mark.reserved_peak_bytes > limit_bytes)
        first = next(over, None)
        return None if first is None else (first.phase, first.component)

    def _refusal(self, limit_bytes: int) -> tuple[str, str] | None:
        key = f"{result_key(self._path, *self._asked)} {limit_bytes}"
        return _KNOWN.get(
            key, lambda: self._refused(limit_bytes), proof=lambda: tape_proof(self._path)
        ).place

    def _refused(self, limit_bytes: int) -> _Stop:
        return _Stop(place=stop_under(*self._asked, limit_bytes))


def stop_under(
    pipeline: TorchPipeline, settings: Settings, compute_capability: str, limit_bytes: int
) -> tuple[str, str] | None:
    """Return where a run stops that torch refuses more than a limit, known or not."""
    tape = tape_at(pipeline, settings, find_tape(pipeline))
    conditions = conditions_at(pipeline, settings, compute_capability, tape)
    is_expandable = settings.get("expandable_segments") == "on"
    stop = stop_in_load(tape, conditions, limit_bytes, expandable_segments=is_expandable)
    if stop is not None:
        return stop
    from vramplan.engines.torch.rehearsals import rehearse_once  # what fits needs none of it

    run = rehearse_once(tape, conditions, expandable_segments=is_expandable)
    return find_refusal(run, limit_bytes)


def stop_in_load(
    tape: Tape, conditions: Conditions, limit_bytes: int, *, expandable_segments: bool
) -> tuple[str, str] | None:
    """Return where a run stops whose weights alone are more than a limit; None for any other.

    A run goes through its load whatever comes behind it, and that is a hundredth of it.
    """
    from vramplan.engines.torch.tape.allocator import CachingAllocator
    from vramplan.engines.torch.tape.replay import Replay, ReplayOutOfMemory

    limit_bytes = max(0, limit_bytes)
    allocator = CachingAllocator(
        limit_bytes=limit_bytes, expandable_segments=expandable_segments, limit_is_card=True
    )
    run = Replay(tape, conditions, allocator)
    loaded = set(run.residency.at_load())
    parts = parts_at(tape, conditions)
    if sum(one.weights_bytes for one in parts if one.component in loaded) <= limit_bytes:
        return None
    try:
        run.load()
    except ReplayOutOfMemory as stop:
        return stop.phase, stop.component
    return None


def find_refusal(run: Rehearsed, limit_bytes: int) -> tuple[str, str] | None:
    """Return the phase and the component at which a limit stops a run; None where it completes."""
    from vramplan.engines.torch.tape.rehearsed import Refused

    # a convolution whose scratch does not fit runs by its next plan, so that is no stop; where
    # nothing else is refused, it is the last plan that is known
    for refused in (Refused.WITHOUT, Refused.NEXT_PLAN):
        _, failure = run.attempt(max(0, limit_bytes), refused=refused)
        if failure is not None:
            return failure.phase, failure.component
    return None
