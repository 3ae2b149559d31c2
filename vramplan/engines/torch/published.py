"""Our figures for what others published of torch pipelines, each at its own settings.

One replay gives the figure, or the shipped result where there is one; no least limit is looked for
unless the figure is about the need.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from vramplan.catalog.cards import assumed_card
from vramplan.catalog.published import Claim, settings_of, sum_of
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.estimate import estimate_torch, settled
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.rehearsals import rehearse_once
from vramplan.engines.torch.replayed import conditions_at, parts_at, result_key
from vramplan.engines.torch.shipped_results import find_result
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.replay import Conditions, Replay
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.errors import UsageError
from vramplan.model import Settings
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import cast

#: runs before the one that is measured, as in the benchmarks that measure above the weights
_WARM_UPS = 2


class Figures:
    """Works out our figures for one claim about one pipeline."""

    def __init__(self, pipeline: TorchPipeline, claim: Claim) -> None:
        self._pipeline = settled(pipeline, settings_of(claim, pipeline))
        self._claim = claim

    def ours(self) -> int:
        """Return our figure for the claim in bytes; raises UsageError for a foreign metric."""
        metric = self._claim.metric
        if metric == "weights":
            return self.weights(self._claim.components)
        if metric == "latents":
            return self._latents()
        if metric == "need":
            card = assumed_card(self._claim.compute_capability)
            found = estimate_torch(self._pipeline, self._settings(), card)
            return found.need.band.expected_bytes
        if metric.endswith("_above_weights"):
            allocated, reserved = self._above_weights()
            return allocated if metric.startswith("allocated") else reserved
        if metric not in ("max_memory_allocated", "bound_below", "bound_above"):
            runtime = self._pipeline.runtime
            raise UsageError(f"figure {self._claim.name}: {runtime} has no {metric}")
        return self._peak()

    def weights(self, names: Sequence[str]) -> int:
        """Return the bytes of some components' weights at the claim's settings."""
        conditions = replace(self._conditions(), skip_components=frozenset())
        parts = parts_at(self._read(), conditions)
        rows = [(part.name, part.weights_bytes) for part in parts]
        return sum_of(rows, names, self._claim, self._pipeline)

    def _settings(self, changes: Settings | None = None) -> Settings:
        return settings_of(self._claim, self._pipeline, changes)

    def _conditions(self, changes: Settings | None = None) -> Conditions:
        settings = self._settings(changes)
        tape = self._read()
        return conditions_at(self._pipeline, settings, self._claim.compute_capability, tape)

    def _read(self) -> Tape:
        return open_tape(find_tape(self._pipeline))

    def _allocator(self) -> CachingAllocator:
        is_expandable = self._settings().get("expandable_segments") == "on"
        return CachingAllocator(expandable_segments=is_expandable)

    def _peak(self) -> int:
        path = find_tape(self._pipeline)
        key = result_key(path, self._pipeline, self._settings(), self._claim.compute_capability)
        shipped = find_result(path.parent, key)
        if shipped is not None:
            return shipped.expected.allocated_peak_bytes
        is_expandable = self._settings().get("expandable_segments") == "on"
        run = rehearse_once(self._read(), self._conditions(), expandable_segments=is_expandable)
        return run.trace.allocated_peak_bytes

    def _above_weights(self) -> tuple[int, int]:
        """Return what a warm run allocates and reserves above what was there before it.

        As InvokeAI's VAE benchmark does it: two runs before, the cache emptied after each, so what
        cuBLAS keeps is not counted, nor what its workspace holds back. `after` ran first, likewise.
        """
        allocator = self._allocator()
        own = self._conditions()
        before = [own] if self._claim.after is None else [self._conditions(self._claim.after), own]
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

    def _latents(self) -> int:
        """Return the bytes of an image's latents, as the autoencoder's config has them."""
        settings = self._settings()
        image = settings.get("image")
        configs = [spec.config for spec in self._pipeline.components]
        config = next((known for known in configs if "latent_channels" in known), {})
        channels, levels = config.get("latent_channels"), config.get("block_out_channels")
        is_known = isinstance(channels, int) and isinstance(levels, list)
        if not (is_known and isinstance(image, tuple)):
            raise UsageError(f"figure {self._claim.name}: {self._pipeline.name} has no latents")
        area = prod(side >> (len(cast("list[int]", levels)) - 1) for side in image)
        return area * cast("int", channels) * ELEMENT_BYTES[str(settings.get("dtype", "fp32"))]
