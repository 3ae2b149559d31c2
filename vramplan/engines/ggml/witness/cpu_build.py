"""What a CPU build of llama.cpp allocates for a model file: what the engine itself can be asked."""

from __future__ import annotations

from dataclasses import dataclass

from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
from vramplan.engines.ggml.graph_buffer import graph_sizes, is_known
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.projector import cpu_projector_bytes
from vramplan.engines.ggml.vision_model import VisionModel
from vramplan.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuBuild:
    """What a CPU build of the engine allocates for a model file."""

    model_bytes: int
    cache_bytes: int
    state_bytes: int
    compute_bytes: int
    is_known: bool
    projector_bytes: int | None = None  # weights and compute buffer; None without a projector

    def by_name(self) -> dict[str, int]:
        """Return the sizes under the engine's names of its buffers."""
        return {
            "model": self.model_bytes,
            "KV": self.cache_bytes,
            "RS": self.state_bytes,
            "compute": self.compute_bytes,
        }


def cpu_build(pipeline: GgmlPipeline, settings: Settings) -> CpuBuild:
    """Return what llama.cpp's CPU build b11549 allocates for a model file at these settings.

    It takes flash attention where it may choose. Raises UsageError for settings that cannot be.
    """
    chosen = {**settings, "engine": WITNESS_ENGINE}
    run = read_run(pipeline, chosen, "8.6")
    assert run.model.language is not None
    return CpuBuild(
        model_bytes=run.model.weights_bytes,
        cache_bytes=run.batch.cache_of_last(run.model.layers),
        state_bytes=run.batch.states_of_last(run.model.layers),
        compute_bytes=graph_sizes(run.model, run.batch, run.rules),
        is_known=is_known(run.model, run.rules),
        projector_bytes=None if run.vision is None else _projector_bytes(run.vision, run),
    )


def _projector_bytes(vision: VisionModel, run: GgmlRun) -> int:
    return vision.weights_bytes + cpu_projector_bytes(vision, has_flash=run.has_vision_flash)
