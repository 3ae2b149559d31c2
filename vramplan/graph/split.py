"""The part of a graph that a GPU computes, where the embedding is looked up on the host.

What the GPU reads of the host (inputs, the embedded tokens) is copied to it when its part begins,
in the order in which it is first needed, and counts there until it was read for the last time.
Source: ggml-org/ggml, src/ggml-backend.cpp (ggml_backend_sched_split_graph).
"""

from __future__ import annotations

from vramplan.graph.builder import Graph
from vramplan.graph.tensor import Tensor

HOST = 1


def gpu_part(graph: Graph) -> Graph:
    """Return the GPU's part of `graph`, whose host nodes carry the backend `HOST`.

    The graph's tensors are taken over: it cannot be allocated as a whole afterwards.
    """
    part = Graph()
    copies: dict[int, Tensor] = {}
    for node in graph.nodes:
        if node.backend == HOST:
            continue
        node.sources = tuple(
            _copied(source, copies) if _is_on_host(source) else source for source in node.sources
        )
        part.nodes.append(node)
    part.nodes[:0] = copies.values()
    return part


def _is_on_host(tensor: Tensor) -> bool:
    return tensor.is_input or tensor.backend == HOST


def _copied(tensor: Tensor, copies: dict[int, Tensor]) -> Tensor:
    if id(tensor) not in copies:
        copies[id(tensor)] = Tensor("copy", tensor.type, tensor.shape)
    return copies[id(tensor)]
