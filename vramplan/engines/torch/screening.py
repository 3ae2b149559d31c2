"""Whether a torch run would fit: one replay or two, to choose what is worth an estimate.

An estimate looks for least limits; a screening only tries the budget. It answers the same question
but for the gaps that a least limit closes (see `least_limit`), so what it passes is judged again.
"""

from __future__ import annotations

from vramplan.budget.cuda_context import context_band
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.estimate import estimate_torch, find_tape, open_tape, with_tape
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import at_most, conditions_at, result_key
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.rehearsal import rehearse
from vramplan.model import Card, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.settings import SPILLING_PLATFORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What a run does with a budget: with the most it may need, and with what is expected."""

    fits: bool
    completes: bool
    live_bytes: int  # at the run's peak, as expected


#: screenings of this process: cards of one architecture and size share them
_made: dict[tuple[str, int, int], Screening] = {}
_MOST_MADE = 4096


def screen(pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int) -> Screening:
    """Return whether a torch pipeline would fit a budget, the CUDA context included.

    Raises TapeError where there is no tape, or none that holds for these settings.
    """
    pipeline = with_tape(pipeline, settings, card)
    if pipeline.counted is not None:
        return _screen_counted(pipeline, settings, card, budget_bytes)
    path, compute_capability = find_tape(pipeline), card.compute_capability
    context = context_band(card)
    cublas = cublas_band(compute_capability)[0]
    extra_bytes = cublas.high_bytes - cublas.expected_bytes
    spills = settings.get("platform") in SPILLING_PLATFORMS
    key = f"{spills} {context} {result_key(path, pipeline, settings, compute_capability)}"
    if (key, budget_bytes, extra_bytes) not in _made:
        tape = open_tape(path)
        conditions = conditions_at(pipeline, settings, compute_capability, tape)
        most = at_most(conditions, compute_capability)
        expandable = settings.get("expandable_segments") == "on"
        live_bytes, completes = _try(
            tape, conditions, budget_bytes - context.expected_bytes, expandable, spills
        )
        fits = (
            completes
            and _try(
                tape, most, budget_bytes - context.high_bytes - extra_bytes, expandable, spills
            )[1]
        )
        _made[key, budget_bytes, extra_bytes] = Screening(
            fits=fits, completes=completes, live_bytes=live_bytes
        )
    found = _made[key, budget_bytes, extra_bytes]
    while len(_made) > _MOST_MADE:
        del _made[next(iter(_made))]  # the oldest
    return found


def _screen_counted(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Screening:
    """Return the same of a model without a tape, whose estimate takes no replay."""
    need = estimate_torch(pipeline, settings, card).need.band
    return Screening(
        fits=need.high_bytes <= budget_bytes,
        completes=need.expected_bytes <= budget_bytes,
        live_bytes=need.expected_bytes,
    )


def _try(
    tape: Tape, conditions: Conditions, limit_bytes: int, expandable: bool, spills: bool
) -> tuple[int, bool]:
    """Return what is live at the run's peak, and whether it completes under a limit."""
    run = rehearse(tape, conditions, expandable_segments=expandable)
    live_bytes = run.trace.allocated_peak_bytes
    if spills:  # nothing is given back there before memory spills
        return live_bytes, run.trace.reserved_peak_bytes <= limit_bytes
    return live_bytes, live_bytes <= limit_bytes and run.failure(limit_bytes) is None
