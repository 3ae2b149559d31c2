"""Our figures for what others published of ggml engines, each at its own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vramplan.catalog.cards import assumed_card
from vramplan.catalog.published import Claim, settings_of, sum_of
from vramplan.engines.ggml.estimate import estimate_on
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.errors import UsageError
from vramplan.model import Estimate, GgmlBuffers

_BUFFERS: Mapping[str, Callable[[GgmlBuffers], int]] = {
    "model_buffer": lambda buffers: buffers.model_bytes + buffers.host_model_bytes,
    "kv_cache": lambda buffers: buffers.kv_cache_bytes,
    "compute_buffer": lambda buffers: buffers.compute_bytes,
    "projector": lambda buffers: buffers.projector_bytes,
    "projector_compute": lambda buffers: buffers.projector_compute_bytes,
}


class Figures:
    """Works out our figures for one claim about one pipeline."""

    def __init__(self, pipeline: GgmlPipeline, claim: Claim) -> None:
        self._pipeline = pipeline
        self._claim = claim

    def ours(self) -> int:
        """Return our figure for the claim in bytes; raises UsageError for a foreign metric."""
        metric = self._claim.metric
        if metric == "weights":
            return self.weights(self._claim.components)
        found = self._estimate()
        if metric in _BUFFERS and found.buffers is not None:
            return _BUFFERS[metric](found.buffers)
        if metric == "need":
            return found.need.band.expected_bytes
        if metric == "latents" or metric.endswith("_above_weights"):
            runtime = self._pipeline.runtime
            raise UsageError(f"figure {self._claim.name}: {runtime} has no {metric}")
        return found.peak.allocated_bytes

    def weights(self, names: Sequence[str]) -> int:
        """Return the bytes of some components' weights at the claim's settings."""
        rows = [(one.name, one.weights_bytes) for one in self._estimate().components]
        return sum_of(rows, names, self._claim, self._pipeline)

    def _estimate(self) -> Estimate:
        settings = settings_of(self._claim, self._pipeline)
        return estimate_on(self._pipeline, settings, assumed_card(self._claim.compute_capability))
