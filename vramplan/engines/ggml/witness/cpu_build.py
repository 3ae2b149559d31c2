"""What a CPU build of llama.cpp allocates for a model file: what the engine itself can be asked."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
from vramplan.engines.ggml.graph_buffer import graph_sizes, is_told
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.projector_compute import cpu_projector_bytes
from vramplan.model import HOST, PROJECTOR, Buffer, LineKind, Settings
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuBuild:
    """What a CPU build of the engine allocates for a model file, all in host memory.

    `is_known` is False where the family's graph is a guess.
    """

    buffers: tuple[Buffer, ...]
    is_known: bool


def cpu_build(pipeline: GgmlPipeline, settings: Settings) -> CpuBuild:
    """Return what llama.cpp's CPU build b11549 allocates for a model file at these settings.

    It takes flash attention where it may choose. Raises UsageError for settings that cannot be.
    """
    chosen = {**settings, "engine": WITNESS_ENGINE}
    run = read_run(pipeline, chosen, "8.6")
    assert run.model.language is not None
    is_known = is_told(run.model, run.batch, run.rules)
    return CpuBuild(buffers=tuple(_buffers(run)), is_known=is_known)


def _buffers(run: GgmlRun) -> Iterator[Buffer]:
    sizes = {
        LineKind.WEIGHTS: run.model.weights_bytes,
        LineKind.KV_CACHE: run.batch.cache_of_last(run.model.layers),
        LineKind.RECURRENT_STATE: run.batch.states_of_last(run.model.layers),
        LineKind.COMPUTE_BUFFER: graph_sizes(run.model, run.batch, run.rules),
    }
    for kind, size in sizes.items():
        yield Buffer(kind=kind, device=HOST, size_bytes=size)
    if run.vision is not None:
        compute = cpu_projector_bytes(run.vision, has_flash=run.has_vision_flash)
        for kind, size in (
            (LineKind.WEIGHTS, run.vision.weights_bytes),
            (LineKind.PROJECTOR_COMPUTE, compute),
        ):
            yield Buffer(kind=kind, device=HOST, size_bytes=size, component=PROJECTOR)
