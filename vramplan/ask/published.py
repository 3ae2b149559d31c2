"""Published figures beside ours: each worked out at its own settings and its own architecture.

What others measured is never used as ours; the engine that runs a pipeline works ours out.
"""

from __future__ import annotations

from pathlib import Path

from vramplan.catalog.published import Claim
from vramplan.catalog.search import load_published
from vramplan.engines.door import engine_of
from vramplan.errors import TapeError
from vramplan.model import Pipeline, PublishedFigure
from vramplan.settings import format_setting

_METRICS = {
    "max_memory_allocated": "max_memory_allocated",
    "bound_below": "max_memory_allocated stays below",
    "bound_above": "max_memory_allocated goes above",
    "allocated_above_weights": "allocated above the weights, third run, cache emptied before it",
    "reserved_above_weights": "reserved above the weights, third run, cache emptied before it",
    "weights": "weights",
    "latents": "the latents",
    "need": "what a card must offer",
    "model_buffer": "model buffer",
    "kv_cache": "KV cache",
    "compute_buffer": "compute buffer",
    "projector": "projector file",
    "projector_compute": "projector compute",
}


def compare_published(pipeline: Pipeline) -> tuple[PublishedFigure, ...]:
    """Return the figures that were published about `pipeline`, each with ours beside it.

    They stand in ``published.yaml`` of the catalogue folder the pipeline is from. Raises
    VramplanError.
    """
    return tuple(figure_of(pipeline, claim) for claim in claims_about(pipeline))


def claims_about(pipeline: Pipeline) -> list[Claim]:
    """Return what its own catalogue folder has published about `pipeline`."""
    path = Path(pipeline.path)
    if path.suffix.lower() not in (".yaml", ".yml"):  # nobody published anything of a user's file
        return []
    folder = path.parent
    home = folder.parent if folder.name == "pipelines" else folder
    return [claim for claim in load_published(home) if claim.pipeline == pipeline.name]


def figure_of(pipeline: Pipeline, claim: Claim) -> PublishedFigure:
    """Return the claim with ours beside it; without ours where the tape does not cover it."""
    engine = engine_of(pipeline)
    published_bytes = claim.value_bytes
    if published_bytes is None:
        published_bytes = round(claim.times * engine.weights(pipeline, claim, claim.of))
    try:
        ours_bytes = engine.ours(pipeline, claim)
    except TapeError:  # another recording may hold less than the one that ships
        ours_bytes = None
    return PublishedFigure(
        claim=claim.claim,
        what=_what(claim),
        published_bytes=published_bytes,
        ours_bytes=ours_bytes,
        source=claim.source,
        remark=claim.remark,
    )


def _what(claim: Claim) -> str:
    settings = " ".join(f"{k}={format_setting(k, v)}" for k, v in claim.settings.items())
    parts = (_METRICS[claim.metric], ", ".join(claim.components), settings)
    named = " \N{MIDDLE DOT} ".join(part for part in parts if part)
    if claim.metric in ("weights", "latents"):
        return named
    return f"{named} \N{MIDDLE DOT} compute capability {claim.compute_capability}"
