"""Whether a ggml engine puts all of a model on a card: whether its whole fits is enough to know."""

from __future__ import annotations

from vramplan.budget.verdict import Screening
from vramplan.engines.ggml.estimate import estimate_run, run_on
from vramplan.engines.ggml.gpu_seats import gpus_of
from vramplan.engines.ggml.judge import judge_ggml
from vramplan.engines.ggml.layer_fit import gives_up, least_free_bytes
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import Card, Settings, VerdictKind


def screen_ggml(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int
) -> Screening:
    """Return whether a model fits a budget; raises as `estimate_ggml` does."""
    gpus = gpus_of(card, budget_bytes)
    run = run_on(pipeline, settings, gpus)
    # the engine makes it fit, loads it otherwise after it failed, or has several cards to choose
    is_tried_again = pipeline.is_ollama and run.wanted_layers is not None
    if run.may_shrink_context or is_tried_again or len(gpus) > 1:
        judged = judge_ggml(pipeline, settings, card, budget_bytes)
        band = judged.estimate.need.band
        return Screening(
            fits=judged.kind is VerdictKind.FITS,
            completes=not judged.kind.is_failure,
            least_bytes=band.high_bytes,
            least_tight_bytes=band.expected_bytes,
        )
    _, whole = estimate_run(run, gpus, None)
    need, least = whole.need.band, 0
    if not gives_up(run):  # it keeps a margin free, or moves layers away
        least = gpus[0].context.expected_bytes + least_free_bytes(run)
    return Screening(
        fits=max(need.high_bytes, least) <= budget_bytes,
        completes=max(need.expected_bytes, least) <= budget_bytes,
        least_bytes=max(need.high_bytes, least),
        least_tight_bytes=max(need.expected_bytes, least),
    )
