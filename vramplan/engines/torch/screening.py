"""Whether a torch run would fit: one replay or two, to choose what is worth an estimate.

An estimate looks for least limits; a screening only tries the budget. It answers the same question
but for the gaps that a least limit closes (see `least_limit`), so what it passes is judged again.
"""

from __future__ import annotations

from vramplan.budget.cuda_context import context_band
from vramplan.budget.verdict import Screening
from vramplan.codec import Json
from vramplan.engines.torch.another_cache import is_told
from vramplan.engines.torch.changed_weights import are_changed, beside_at_limit
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.estimate import estimate_torch, with_tape
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import (
    at_most,
    bare,
    conditions_at,
    knows_plans,
    on_card,
    parts_at,
    result_key,
)
from vramplan.engines.torch.tape_files import find_tape, tape_proof
from vramplan.known_results import KnownResults
from vramplan.model import Band, Card, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import PLACING_MAPS, SPILLING_PLATFORMS

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.conditions import Conditions
    from vramplan.engines.torch.tape.contents import Tape
    from vramplan.engines.torch.tape.rehearsed import Rehearsed

#: no card has as much
_NEVER = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """What a run does with a budget: with the most it may need, and with what is expected."""

    fits: bool
    completes: bool
    live_bytes: int  # at the run's peak, as expected
    least_bytes: int  # no budget below this lets it fit
    is_assumed: bool = False  # nothing of the run was recorded


def _to_json(found: Screened) -> Json:
    return [found.fits, found.completes, found.live_bytes, found.least_bytes]


def _from_json(raw: Json) -> Screened | None:
    match raw:
        case [bool(fits), bool(completes), int(live), int(least)] if min(live, least) >= 0:
            return Screened(fits=fits, completes=completes, live_bytes=live, least_bytes=least)
    return None


#: cards of one architecture and size share a screening
_KNOWN = KnownResults[Screened]("screening", _to_json, _from_json, most=4096)


def screen_job(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Screening:
    """Return whether a job may fit a budget, all of it on the GPU unless the settings say so.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    if settings.get("offload") == "auto":  # what fits by offloading is not said to fit
        settings = {**settings, "offload": "none"}
    if not is_placed_whole(pipeline, settings, card, budget_bytes):
        return Screening(fits=False, completes=False, least_bytes=_NEVER, least_tight_bytes=_NEVER)
    seen = screen(pipeline, settings, card, budget_bytes)
    return Screening(
        fits=seen.fits,
        completes=seen.completes,
        least_bytes=seen.least_bytes,
        least_tight_bytes=seen.live_bytes + context_band(card).expected_bytes,
        is_assumed=seen.is_assumed,
    )


def is_placed_whole(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> bool:
    """Return whether no layer is left to the CPU by ``device_map=auto``, as is expected."""
    if settings.get("device_map") not in PLACING_MAPS:
        return True
    from vramplan.engines.torch.device_map import placed_at

    free_bytes = budget_bytes - context_band(card).expected_bytes
    return placed_at(pipeline, settings, free_bytes).is_whole


def screen(pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int) -> Screened:
    """Return whether a torch pipeline would fit a budget, the CUDA context included.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    pipeline = with_tape(pipeline, settings, card)
    if pipeline.counted is not None or is_told(settings):
        return _screen_counted(pipeline, settings, card, budget_bytes)
    path, compute_capability = find_tape(pipeline), card.compute_capability
    settings = on_card(settings, card)
    context = context_band(card)
    cublas = cublas_band(compute_capability)[0]
    extra_bytes = cublas.high_bytes - cublas.expected_bytes
    spills = settings.get("platform") in SPILLING_PLATFORMS
    run_key = result_key(path, pipeline, settings, compute_capability)
    key = f"{run_key} {spills} {context} {budget_bytes} {extra_bytes}"

    def find() -> Screened:
        tape = tape_at(pipeline, settings, path)
        conditions = conditions_at(pipeline, settings, compute_capability, tape)
        most = at_most(conditions, compute_capability)
        expandable = settings.get("expandable_segments") == "on"
        extra = _beside(pipeline, settings, tape, conditions, expandable)
        room_bytes = budget_bytes - context.expected_bytes - extra.expected_bytes
        live_bytes, completes = try_under(
            tape, conditions, room_bytes, expandable=expandable, spills=spills
        )
        live_bytes += extra.expected_bytes
        least_bytes, fits = context.high_bytes + live_bytes, False
        if completes:
            aside_bytes = context.high_bytes + extra_bytes + extra.high_bytes
            most_bytes, fits = try_under(
                tape, most, budget_bytes - aside_bytes, expandable=expandable, spills=spills
            )
            least_bytes = max(least_bytes, most_bytes + aside_bytes)
        return Screened(
            fits=fits, completes=completes, live_bytes=live_bytes, least_bytes=least_bytes
        )

    return _KNOWN.get(key, find, proof=lambda: tape_proof(path))


def _beside(
    pipeline: TorchPipeline,
    settings: Settings,
    tape: Tape,
    conditions: Conditions,
    expandable: bool,
) -> Band:
    """Return what layers take beside their results where weights are changed."""
    if not are_changed(settings):
        return Band.exactly(0)
    from vramplan.engines.torch.rehearsals import read_once

    component, peak_bytes = read_once(_highest, tape, conditions, expandable_segments=expandable)
    parts = parts_at(tape, conditions)
    return beside_at_limit(pipeline, settings, component, peak_bytes, parts)


def _highest(run: Rehearsed) -> tuple[str, int]:
    """Return the component with which most is live, and how much."""
    peak = max(run.trace.marks, key=lambda mark: mark.allocated_peak_bytes)
    return peak.component, peak.allocated_peak_bytes


def _screen_counted(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Screened:
    """Return the same of a model without a tape, whose estimate takes no replay."""
    need = estimate_torch(pipeline, settings, card).need.band
    return Screened(
        fits=need.high_bytes <= budget_bytes,
        completes=need.expected_bytes <= budget_bytes,
        live_bytes=need.expected_bytes - context_band(card).expected_bytes,
        least_bytes=need.high_bytes,
        is_assumed=True,
    )


def _completes(run: Rehearsed, limit_bytes: int) -> bool:
    from vramplan.engines.torch.tape.rehearsed import Refused

    return run.failure(limit_bytes, refused=Refused.NEXT_PLAN) is None


def try_under(
    tape: Tape, conditions: Conditions, limit_bytes: int, *, expandable: bool, spills: bool
) -> tuple[int, bool]:
    """Return the bytes that are live at the run's peak, and whether it completes under a limit.

    Raises TapeError as `rehearse` does.
    """
    # what is known needs none of it
    from vramplan.engines.torch.rehearsals import read_once, rehearse_once

    live_bytes, reserved_bytes, enough_bytes = read_once(
        _peaks, tape, conditions, expandable_segments=expandable
    )
    if not spills and knows_plans(conditions):  # scratch that does not fit takes less
        least = read_once(_peaks, tape, bare(conditions), expandable_segments=expandable)
        live_bytes = min(live_bytes, least[0])
    if spills:  # nothing is given back there before memory spills
        return live_bytes, reserved_bytes <= limit_bytes
    if live_bytes > limit_bytes or enough_bytes <= limit_bytes:  # the run itself is not needed
        return live_bytes, live_bytes <= limit_bytes
    run = rehearse_once(tape, conditions, expandable_segments=expandable)
    return live_bytes, _completes(run, limit_bytes)


def _peaks(run: Rehearsed) -> tuple[int, int, int]:
    """Return a run's peaks without a limit, live and reserved, and the limit that is enough."""
    trace = run.trace
    return trace.allocated_peak_bytes, trace.reserved_peak_bytes, run.most_wanted_bytes
