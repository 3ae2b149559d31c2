"""How long a token takes at least: each weight that it needs is read once, and the cache with it.

The cache is counted at the whole context, so that an empty conversation is faster. What is in host
memory is read by the CPU. Of a mixture's experts a token needs a few.
"""

from __future__ import annotations

from vramplan.budget.cuda_context import Process, context_band
from vramplan.budget.pace import HOST_BYTES_PER_S, Pace
from vramplan.catalog import usable_bytes
from vramplan.engines.ggml.defaults import CardMemory
from vramplan.engines.ggml.experts import HostPart
from vramplan.engines.ggml.layer_fit import Fit, as_asked, fit_run
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.weights import GgmlTensor, Placement, TensorRole
from vramplan.model import Card, Settings


def pace_ggml(
    pipeline: GgmlPipeline, settings: Settings, card: Card, budget_bytes: int | None
) -> Pace | None:
    """Return what one token takes on a card that offers so much; None stands for room for all.

    None is returned for a card whose bandwidth nobody knows. Raises as `estimate_ggml` does.
    """
    if not card.bandwidth_bytes_per_s:
        return None
    memory, free = None, None
    if budget_bytes is not None:
        memory = CardMemory(total_bytes=usable_bytes(card), free_bytes=budget_bytes)
        free = budget_bytes - context_band(card, Process.GGML).expected_bytes
    run = read_run(pipeline, settings, card.compute_capability, memory)
    fit = as_asked(run) if free is None else fit_run(run, free)
    on_gpu, on_host = read_for_a_token(fit)
    seconds = on_gpu / card.bandwidth_bytes_per_s + on_host / HOST_BYTES_PER_S
    return Pace(seconds=seconds, result="token")


def read_for_a_token(fit: Fit) -> tuple[int, int]:
    """Return the bytes that one token makes the GPU read, and the CPU."""
    model, batch, placement = fit.run.model, fit.run.batch, fit.placement
    on_gpu, on_host = 0, 0
    shape = model.language.experts if model.language is not None else None
    for tensor in model.tensors:
        if tensor.role is TensorRole.INPUT:  # a row of it
            continue
        size = tensor.size_bytes
        if shape is not None and HostPart.EXPERTS.has(tensor.name):
            size = size * shape.used // shape.count
        if _is_on_gpu(tensor, placement, model.layers):
            on_gpu += size
        else:
            on_host += size
    whole, here = batch.cache_of_last(model.layers), batch.cache_on_gpu(placement.blocks_on_gpu)
    return on_gpu + here // batch.streams, on_host + (whole - here) // batch.streams


def _is_on_gpu(tensor: GgmlTensor, placement: Placement, layers: int) -> bool:
    if tensor.layer is None:
        return placement.output_on_gpu
    is_late = tensor.layer >= layers - placement.blocks_on_gpu
    return is_late and not placement.experts.keeps(tensor.name, tensor.layer)
