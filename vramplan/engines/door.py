"""A pipeline and its settings → its budget, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vramplan.model import Estimate, Pipeline, Settings

#: engines whose memory is a few buffers, not a tape
GGML_RUNTIMES = frozenset({"llama.cpp", "ollama"})

#: what an estimate without a card assumes
DEFAULT_CAPABILITY = "8.6"


def estimate(
    pipeline: Pipeline,
    settings: Settings,
    compute_capability: str = DEFAULT_CAPABILITY,
    *,
    folders: Sequence[Path],
) -> Estimate:
    """Return the budget of `pipeline` at complete `settings` on an architecture.

    `folders` are the catalogue's: tapes are looked for in their ``tapes/``. Raises VramplanError.
    """
    if pipeline.runtime in GGML_RUNTIMES:
        from vramplan.budget.cuda_context import SOURCE, context_band
        from vramplan.engines.ggml.estimate import estimate_ggml

        return estimate_ggml(
            pipeline, settings, compute_capability, context_band(), context_source=SOURCE
        )
    from vramplan.engines.torch.estimate import estimate_torch

    return estimate_torch(pipeline, settings, compute_capability, folders=folders)
