"""The buffers of a vision encoder's graph, through the model of ggml's allocator.

What is said of them is `projector_compute`'s.
"""

from __future__ import annotations

from vramplan.engines.ggml.cuda_facts import ALIGNMENT, HOST_ALIGNMENT
from vramplan.engines.ggml.graph.graph_allocator import allocate, take_back
from vramplan.engines.ggml.graph.repeats import in_periods
from vramplan.engines.ggml.graph.split import gpu_part
from vramplan.engines.ggml.graph.vision import encode_graph
from vramplan.engines.ggml.graph.vision_shapes import Encoding, VisionShape

#: an encoder's layers put their results into one of two or three places in turn
_PERIODS = (2, 3)


def encoder_sizes(shape: VisionShape, encoding: Encoding) -> tuple[int, int]:
    """Return what a CPU build holds for the graph, and what a GPU holds.

    Raises UnknownGraphError for a family that is not known and for a file that lacks a tensor.
    """
    return in_periods(_PERIODS, lambda period: sizes_in(shape, encoding, period))


def sizes_in(shape: VisionShape, encoding: Encoding, period: int) -> tuple[int, int]:
    """Return the same where layers repeat after a `period`; 0 builds every one.

    Raises UnlikeError where they do not.
    """
    graph = encode_graph(shape, encoding, period=period)
    whole = allocate(graph, (HOST_ALIGNMENT,))[0]
    take_back(graph)
    part = gpu_part(graph)
    part.leaves = [leaf for leaf in graph.leaves if not leaf.is_input and not leaf.is_external]
    return whole, allocate(part, (ALIGNMENT,))[0]
