"""The compute buffers of an engine: from the graph where a file tells its shapes, else counted.

The graph is that of a build after #23861. Before it logits were reserved for every token and decide
most buffers; what is counted then equals the logs of that time (``profiles/engine_logs``), which
today's graph does not. Of experts only the graph knows.

Experts that are kept in host memory are copied to the GPU for a big batch, one matrix of all of a
layer's experts at a time (ggml-backend.cpp: a split begins at every such weight). No log of a CUDA
build shows that buffer with every layer on the GPU.
"""

from __future__ import annotations

from dataclasses import replace

from vramplan.estimate import compute_buffer, graph_buffer
from vramplan.estimate.compute_buffer import OFFLOAD_BATCH, Batch, ComputeBuffers
from vramplan.estimate.engine_rules import EngineRules
from vramplan.estimate.ggml_model import GgmlModel, Placement
from vramplan.model import Band


def uses_graph(model: GgmlModel, rules: EngineRules) -> bool:
    """Return whether a model's buffers on a build come from its graph."""
    if model.language is None:
        return False
    is_dense = not model.language.experts and graph_buffer.is_known(model)
    return rules.logits_per_sequence or not is_dense


def compute_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on the GPU and in host memory."""
    find = (
        graph_buffer.graph_buffers if uses_graph(model, rules) else compute_buffer.compute_buffers
    )
    found = find(model, batch, placement, rules)
    # with blocks in host memory the largest matrix is counted already, and it is an expert's
    is_counted = placement.blocks_on_gpu < model.layers
    if is_counted or not rules.offloads_host_weights or batch.tokens < OFFLOAD_BATCH:
        return found
    copied = Band.exactly(placement.largest_expert_bytes)
    return replace(found, gpu=found.gpu + copied)
