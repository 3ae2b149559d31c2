"""Our figures for what others published of ggml engines, each at its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vramplan.catalog.cards import assumed_card
from vramplan.catalog.published import Claim, settings_of, sum_of
from vramplan.engines.ggml.estimate import estimate_on
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.errors import UsageError
from vramplan.model import LANGUAGE_MODEL, PROJECTOR, Estimate, LineKind, buffer_bytes

#: what a figure is about, whose it is and whether what is in host memory belongs to it
_BUFFERS: Mapping[str, tuple[LineKind, str, bool]] = {
    "model_buffer": (LineKind.WEIGHTS, LANGUAGE_MODEL, True),
    "kv_cache": (LineKind.KV_CACHE, LANGUAGE_MODEL, False),
    "compute_buffer": (LineKind.COMPUTE_BUFFER, LANGUAGE_MODEL, False),
    "projector": (LineKind.WEIGHTS, PROJECTOR, False),
    "projector_compute": (LineKind.PROJECTOR_COMPUTE, PROJECTOR, False),
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
        if metric in _BUFFERS:
            return _buffer(found, *_BUFFERS[metric])
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


def _buffer(found: Estimate, kind: LineKind, component: str, with_host: bool) -> int:
    on_gpu = buffer_bytes(found.buffers, kind, component=component)
    on_host = buffer_bytes(found.buffers, kind, component=component, on_host=True)
    return on_gpu + on_host if with_host else on_gpu
