"""The compute buffers of an engine: from the graph where a file tells its shapes, else counted.

The graph is that of a build after #23861. Before it logits were reserved for every token and decide
most buffers; what is counted then equals the logs of that time (``profiles/engine_logs``), which
today's graph does not. Of what is not built like LLaMA only the graph knows.
"""

from __future__ import annotations

from vramplan.engines.ggml import closed_form as compute_buffer
from vramplan.engines.ggml import graph_buffer
from vramplan.engines.ggml.build_rules import EngineRules
from vramplan.engines.ggml.closed_form import Batch, ComputeBuffers
from vramplan.engines.ggml.weights import GgmlModel, Placement

#: families whose buffers of old builds are counted: dense ones, built like those that logs are of
_COUNTED = frozenset(
    {
        "llama",
        "mistral3",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3",
        "phi3",
        "command-r",
        "gptneox",
    }
)


def uses_graph(model: GgmlModel, rules: EngineRules, cards: int = 1) -> bool:
    """Return whether a model's buffers on a build come from its graph, as on several cards."""
    if model.language is None:
        return False
    if cards > 1:
        return True
    is_counted = model.language.experts is None and model.architecture in _COUNTED
    return rules.logits_per_sequence or not is_counted


def compute_buffers(
    model: GgmlModel, batch: Batch, placement: Placement, rules: EngineRules
) -> ComputeBuffers:
    """Return what the graph of `batch` takes on the GPU and in host memory."""
    is_graph = uses_graph(model, rules, len(placement.cards))
    find = graph_buffer.graph_buffers if is_graph else compute_buffer.compute_buffers
    return find(model, batch, placement, rules)
