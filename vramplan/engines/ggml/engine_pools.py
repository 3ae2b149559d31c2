"""The CUDA backend's pools: temporaries of single operations, which no graph allocator sees.

A matrix product on a quantised matrix first quantises its input; one through cuBLAS converts its
input to f16 and has a result in f16. The pools grow to the largest of these and stay. No engine
reports them and nobody publishes them, so every figure here is an assumption: counted from the
rules in ggml/src/ggml-cuda/ggml-cuda.cu and mmq.cu, with a wide band.
"""

from __future__ import annotations

from vramplan.engines.ggml.closed_form import Batch
from vramplan.engines.ggml.weights import GgmlModel
from vramplan.model import Band
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.units import MIB

if TYPE_CHECKING:
    from vramplan.engines.ggml.vision_model import VisionModel

SOURCE = (
    "assumed: counted from ggml-cuda.cu's conversions (q8_1 inputs, f16 for cuBLAS) and cuBLAS's "
    "default workspace; no engine reports its pools"
)

_F16 = 2
#: a virtual-memory pool grows by the driver's granularity
_GRANULARITY = 2 * MIB
#: beyond twice what was counted: rounding of the engine's five buffers to 2 MiB, CUDA graphs
_SLACK = 32 * MIB


def language_pool(model: GgmlModel, batch: Batch, compute_capability: str) -> Band:
    """Return the pool of the language model, with cuBLAS's workspace of the process.

    An input row is quantised to q8_1: 36 bytes for 32 elements. Without flash attention, cuBLAS
    wants the scores as f16 too.
    """
    widest = max(model.embedding, model.feed_forward)
    inputs = batch.tokens * widest * 36 // 32
    scores = 0 if batch.has_flash else batch.tokens * model.heads * batch.context * _F16
    return _band(max(inputs, scores) + _cublas_bytes(compute_capability))


def vision_pool(vision: VisionModel, *, has_flash: bool) -> Band:
    """Return the pool of the vision encoder: f16 input and f16 result of its largest product."""
    up = vision.tokens * (vision.embedding + vision.feed_forward) * _F16
    projection = vision.outputs * 2 * vision.projection * _F16
    scores = 0 if has_flash else vision.heads * vision.tokens**2 * _F16
    return _band(max(up, projection, scores))


def _cublas_bytes(compute_capability: str) -> int:
    """Return cuBLAS's default workspace: 32 MiB from Hopper on, 4 MiB before (its manual)."""
    major = int(compute_capability.partition(".")[0])
    return 32 * MIB if major >= 9 else 4 * MIB


def _band(counted_bytes: int) -> Band:
    expected = -(-counted_bytes // _GRANULARITY) * _GRANULARITY
    return Band(low_bytes=0, expected_bytes=expected, high_bytes=2 * expected + _SLACK)
