"""The compute buffers of an engine: from the graph where a file tells its shapes, else counted."""

from __future__ import annotations

from vramplan.estimate import compute_buffer, graph_buffer
from vramplan.estimate.compute_buffer import Batch, ComputeBuffers
from vramplan.estimate.engine_rules import EngineRules
from vramplan.estimate.ggml_model import GgmlModel, Placement


def compute_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on the GPU and in host memory."""
    from_graph = model.language is not None
    find = graph_buffer.graph_buffers if from_graph else compute_buffer.compute_buffers
    return find(model, batch, placement, rules)
