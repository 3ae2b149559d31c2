"""Where a run stops first on a card: the first request that its memory refuses.

That is not where the run would need most. A card that is far too small fails while it loads.
"""

from __future__ import annotations

from vramplan.budget.cuda_context import context_band
from vramplan.budget.verdict import spills
from vramplan.engines.torch.estimate import find_tape, open_tape, replayed
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import conditions_at
from vramplan.model import Card, Settings


def find_first_stop(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int
) -> tuple[str, str] | None:
    """Return the phase and the component at which a run stops, or begins to spill.

    None where it completes as expected. Raises TapeError where no tape holds for the settings.
    """
    from vramplan.engines.torch.tape.rehearsal import rehearse  # what fits needs none of it

    path, capability = find_tape(pipeline), card.compute_capability
    limit_bytes = budget_bytes - context_band(card).expected_bytes
    if spills(settings):  # the driver refuses nothing: what is reserved goes over the budget
        marks = replayed(pipeline, settings, capability, path).marks
        over = (mark for mark in marks if mark.reserved_peak_bytes > limit_bytes)
        first = next(over, None)
        return None if first is None else (first.phase, first.component)
    tape = open_tape(path)
    is_expandable = settings.get("expandable_segments") == "on"
    run = rehearse(
        tape,
        conditions_at(pipeline, settings, capability, tape),
        expandable_segments=is_expandable,
    )
    # a convolution whose scratch does not fit runs by its next plan, so that is no stop; where
    # nothing else is refused, it is that next plan of which no more is known
    for is_elastic in (True, False):
        _, failure = run.attempt(max(0, limit_bytes), is_elastic=is_elastic)
        if failure is not None:
            return failure.phase, failure.component
    return None
