"""Whether a ggml engine puts all of a model on a card: whether its whole fits is enough to know."""

from __future__ import annotations

from vramplan.budget.cuda_context import Process, context_band
from vramplan.budget.verdict import Screening
from vramplan.catalog import usable_bytes
from vramplan.engines.ggml.defaults import CardMemory
from vramplan.engines.ggml.estimate import estimate_ggml
from vramplan.engines.ggml.judge import judge_ggml
from vramplan.engines.ggml.layer_fit import least_free_bytes
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import Card, Settings, VerdictKind


def screen_ggml(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Screening:
    """Return whether a model fits a budget; raises as `estimate_ggml` does."""
    memory = CardMemory(total_bytes=usable_bytes(card), free_bytes=budget_bytes)
    run = read_run(pipeline, settings, card.compute_capability, memory)
    if run.may_shrink_context:  # the engine makes it fit
        judged = judge_ggml(pipeline, settings, card, budget_bytes)
        band = judged.estimate.need.band
        return Screening(
            fits=judged.kind is VerdictKind.FITS,
            completes=not judged.kind.is_failure,
            least_bytes=band.high_bytes,
            least_tight_bytes=band.expected_bytes,
        )
    context = context_band(card, Process.GGML)
    whole = estimate_ggml(pipeline, settings, card.compute_capability, context, card=memory)
    need, least = whole.need.band, 0
    if run.wanted_layers is None:  # it keeps a margin free, or moves layers away
        least = context.expected_bytes + least_free_bytes(run)
    return Screening(
        fits=max(need.high_bytes, least) <= budget_bytes,
        completes=max(need.expected_bytes, least) <= budget_bytes,
        least_bytes=max(need.high_bytes, least),
        least_tight_bytes=max(need.expected_bytes, least),
    )
