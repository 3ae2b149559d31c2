"""What llama.cpp puts where on a card, and what it allocates: what the engine can be asked."""

from __future__ import annotations

from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.defaults import CardMemory
from vramplan.engines.ggml.graph_buffer import is_told
from vramplan.engines.ggml.layer_fit import fit_run, margin_bytes
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.model import GPU, HOST, Buffer, LineKind, Settings
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CardBuild:
    """What the build b11549 allocates for a model file on a card, and what it was asked.

    `settings` are those the engine begins with, `context` is what is left of it. Of
    weights in host memory it has what the engine prints: the part of the file that is mapped.
    """

    settings: Settings
    margin_bytes: int
    layers: tuple[int, int]  # on the GPU, of
    context: int
    buffers: tuple[Buffer, ...]
    is_known: bool


def card_build(
    pipeline: GgmlPipeline, settings: Settings, compute_capability: str, card: CardMemory
) -> CardBuild:
    """Return what llama.cpp's build b11549 does with a model file on `card`.

    `card.free_bytes` is what is free beside the CUDA context. Raises UsageError for settings that
    cannot be.
    """
    chosen = {**settings, "engine": WITNESS_ENGINE}
    run = read_run(pipeline, chosen, compute_capability, card)
    assert run.model.language is not None
    fit = fit_run(run, card.free_bytes)
    batch, placement = fit.run.batch, fit.placement
    compute = compute_buffers(run.model, batch, placement, run.rules)
    blocks, every = placement.blocks_on_gpu, run.model.layers
    cache, states = batch.cache_on_gpu(blocks), batch.states_of_last(blocks)
    sizes = {
        LineKind.WEIGHTS: (placement.gpu_bytes, placement.mapped_bytes),
        LineKind.KV_CACHE: (cache, batch.cache_of_last(every) - cache),
        LineKind.RECURRENT_STATE: (states, batch.states_of_last(every) - states),
        LineKind.COMPUTE_BUFFER: (compute.gpu.expected_bytes, compute.host_bytes),
    }
    return CardBuild(
        settings={**run.settings, "context": "auto"} if run.may_shrink_context else run.settings,
        margin_bytes=margin_bytes(run, card.free_bytes),
        layers=(placement.on_gpu, run.model.total_layers),
        context=batch.context * batch.streams,
        buffers=tuple(
            Buffer(kind=kind, device=device, size_bytes=size)
            for kind, sides in sizes.items()
            for device, size in zip((GPU, HOST), sides, strict=True)
        ),
        is_known=is_told(run.model, batch, run.rules),
    )
