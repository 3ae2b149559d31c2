"""Published figures beside ours: each worked out at its own settings and its own architecture.

What others measured is never used as ours. Of a torch pipeline one replay gives the figure, or the
shipped result where there is one; no least limit is looked for unless the figure is about the need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import cast

from vramplan.catalog.published import Claim
from vramplan.catalog.search import load_published
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.door import GGML_RUNTIMES, estimate
from vramplan.engines.torch.estimate import find_tape, open_tape
from vramplan.engines.torch.replayed import conditions_at, parts_at, result_key
from vramplan.engines.torch.shipped_results import find_result
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.replay import Conditions, Replay
from vramplan.errors import TapeError, UsageError
from vramplan.model import Estimate, GgmlBuffers, Pipeline, PublishedFigure, Settings
from vramplan.settings import format_setting, resolve_settings

#: runs before the one that is measured, as in the benchmarks that measure above the weights
_WARM_UPS = 2

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

_BUFFERS: Mapping[str, Callable[[GgmlBuffers], int]] = {
    "model_buffer": lambda buffers: buffers.model_bytes + buffers.host_model_bytes,
    "kv_cache": lambda buffers: buffers.kv_cache_bytes,
    "compute_buffer": lambda buffers: buffers.compute_bytes,
    "projector": lambda buffers: buffers.projector_bytes,
    "projector_compute": lambda buffers: buffers.projector_compute_bytes,
}


def compare_published(pipeline: Pipeline, folders: Sequence[Path]) -> tuple[PublishedFigure, ...]:
    """Return the figures that were published about `pipeline`, each with ours beside it.

    They stand in ``published.yaml`` of the catalogue folder the pipeline is from; `folders` are
    where tapes are looked for. Raises VramplanError.
    """
    claims = claims_about(pipeline)
    comparison = Comparison(pipeline, folders)
    return tuple(comparison.figure(claim) for claim in claims)


def claims_about(pipeline: Pipeline) -> list[Claim]:
    """Return what its own catalogue folder has published about `pipeline`."""
    folder = Path(pipeline.path).parent
    home = folder.parent if folder.name == "pipelines" else folder
    return [claim for claim in load_published(home) if claim.pipeline == pipeline.name]


class Comparison:
    """Works out our figures for one pipeline."""

    def __init__(self, pipeline: Pipeline, folders: Sequence[Path]) -> None:
        self._pipeline = pipeline
        self._folders = folders
        self._is_ggml = pipeline.runtime in GGML_RUNTIMES

    def figure(self, claim: Claim) -> PublishedFigure:
        """Return the claim with ours beside it; without ours where the tape does not cover it."""
        published_bytes = claim.value_bytes
        if published_bytes is None:
            published_bytes = round(claim.times * self._weights(claim, claim.of))
        try:
            ours_bytes = self.ours(claim)
        except TapeError:  # another recording may hold less than the one that ships
            ours_bytes = None
        return PublishedFigure(
            claim=claim.claim,
            what=self._what(claim),
            published_bytes=published_bytes,
            ours_bytes=ours_bytes,
            source=claim.source,
            remark=claim.remark,
        )

    def ours(self, claim: Claim) -> int:
        """Return our figure for a claim in bytes."""
        if claim.metric in _BUFFERS:
            buffers = self._estimate(claim).buffers
            if buffers is None:
                runtime = self._pipeline.runtime
                raise UsageError(f"figure {claim.name}: {runtime} has no {claim.metric}")
            return _BUFFERS[claim.metric](buffers)
        if claim.metric == "weights":
            return self._weights(claim, claim.components)
        if claim.metric == "latents":
            return self._latents(claim)
        if claim.metric == "need" or self._is_ggml:
            whole = self._estimate(claim)
            is_need = claim.metric == "need"
            return whole.need.band.expected_bytes if is_need else whole.peak.allocated_bytes
        if claim.metric.endswith("_above_weights"):
            allocated, reserved = self._above_weights(claim)
            return allocated if claim.metric.startswith("allocated") else reserved
        return self._peak(claim)

    # ------------------------------------------------------------------ settings
    def _what(self, claim: Claim) -> str:
        settings = " ".join(f"{k}={format_setting(k, v)}" for k, v in claim.settings.items())
        parts = (_METRICS[claim.metric], ", ".join(claim.components), settings)
        named = " \N{MIDDLE DOT} ".join(part for part in parts if part)
        if claim.metric in ("weights", "latents"):
            return named
        return f"{named} \N{MIDDLE DOT} compute capability {claim.compute_capability}"

    def _settings(self, claim: Claim, changes: Settings | None = None) -> Settings:
        try:
            return resolve_settings(self._pipeline, {**claim.settings, **(changes or {})})
        except UsageError as problem:
            message = f"figure {claim.name}: {problem}"
            raise UsageError(message, hint=problem.hint) from None

    def _estimate(self, claim: Claim) -> Estimate:
        return estimate(
            self._pipeline, self._settings(claim), claim.compute_capability, folders=self._folders
        )

    # -------------------------------------------------------------------- torch
    def _conditions(self, claim: Claim, changes: Settings | None = None) -> Conditions:
        settings = self._settings(claim, changes)
        tape = self._read()
        return conditions_at(self._pipeline, settings, claim.compute_capability, tape)

    def _read(self) -> Tape:
        return open_tape(find_tape(self._pipeline, self._folders))

    def _allocator(self, claim: Claim) -> CachingAllocator:
        is_expandable = self._settings(claim).get("expandable_segments") == "on"
        return CachingAllocator(expandable_segments=is_expandable)

    def _peak(self, claim: Claim) -> int:
        path = find_tape(self._pipeline, self._folders)
        key = result_key(path, self._pipeline, self._settings(claim), claim.compute_capability)
        shipped = find_result(path.parent, key)
        if shipped is not None:
            return shipped.expected.allocated_peak_bytes
        run = Replay(self._read(), self._conditions(claim), self._allocator(claim))
        run.load()
        run.run()
        return run.trace.allocated_peak_bytes

    def _above_weights(self, claim: Claim) -> tuple[int, int]:
        """Return what a warm run allocates and reserves above what was there before it.

        As InvokeAI's VAE benchmark does it: two runs before, the cache emptied after each, so what
        cuBLAS keeps is not counted, nor what its workspace holds back. `after` ran first, likewise.
        """
        allocator = self._allocator(claim)
        own = self._conditions(claim)
        before = [own] if claim.after is None else [self._conditions(claim, claim.after), own]
        run = Replay(self._read(), own, allocator)
        run.load()
        for conditions in before:
            run.conditions = conditions
            for _ in range(_WARM_UPS):
                run.run()
                allocator.empty_cache()
        allocated, reserved, known = (
            allocator.allocated_bytes,
            allocator.reserved_bytes,
            len(run.trace.marks),
        )
        run.run()
        marks = run.trace.marks[known:]
        return (
            max(mark.allocated_peak_bytes for mark in marks) - allocated,
            max(mark.reserved_peak_bytes for mark in marks) - reserved,
        )

    # ------------------------------------------------------------------- counted
    def _weights(self, claim: Claim, names: Sequence[str]) -> int:
        rows = self._rows(claim)
        total = 0
        for name in names:
            sizes = [size for row, size in rows if row == name or row.startswith(f"{name}.")]
            if not sizes:
                known = ", ".join(row for row, _ in rows)
                message = f"figure {claim.name}: {self._pipeline.name} has no component {name!r}"
                raise UsageError(message, hint=f"it has: {known}")
            total += sum(sizes)
        return total

    def _rows(self, claim: Claim) -> list[tuple[str, int]]:
        if self._is_ggml:
            return [(c.name, c.weights_bytes) for c in self._estimate(claim).components]
        conditions = replace(self._conditions(claim), skip_components=frozenset())
        return [(part.name, part.weights_bytes) for part in parts_at(self._read(), conditions)]

    def _latents(self, claim: Claim) -> int:
        """Return the bytes of an image's latents, as the autoencoder's config has them."""
        settings = self._settings(claim)
        image = settings.get("image")
        configs = [spec.config for spec in self._pipeline.components]
        config = next((known for known in configs if "latent_channels" in known), {})
        channels, levels = config.get("latent_channels"), config.get("block_out_channels")
        is_known = isinstance(channels, int) and isinstance(levels, list)
        if not (is_known and isinstance(image, tuple)):
            raise UsageError(f"figure {claim.name}: {self._pipeline.name} has no latents")
        area = prod(side >> (len(cast("list[int]", levels)) - 1) for side in image)
        return area * cast("int", channels) * ELEMENT_BYTES[str(settings.get("dtype", "fp32"))]
