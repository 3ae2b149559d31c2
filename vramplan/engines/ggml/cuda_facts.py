"""CUDA's facts about ggml: what llama.cpp's CUDA backend pads, copies and computes, in one table.

Our model of the engine and the card that is not there (`witness.pretended_card`) both read these,
so where they agree with each other these say nothing: they are held against logs of real cards
(`profiles/engine_logs`). Source of all: ggml-org/llama.cpp, ggml/src/ggml-cuda; files are named.
"""

from __future__ import annotations

from vramplan.sources.block_sizes import BLOCKS

#: tensors in a CUDA buffer begin at multiples of this; in host memory at those of 32
#: (ggml-cuda.cu, buffer_type_get_alignment; ggml-cpu.c, TENSOR_ALIGNMENT)
ALIGNMENT = 128
HOST_ALIGNMENT = 32

#: the elements that a quantised row's end is padded to (common.cuh, MATRIX_ROW_PADDING)
ROW_STEP = 512

#: matrices in host memory are copied for a batch of at least this
#: (ggml-cuda.cu, offload_op; GGML_OP_OFFLOAD_MIN_BATCH)
WORTH_COPYING = 32

#: up to this many queries attention reads a quantised cache as it is (fattn.cu, the vector kernel)
FEW_QUERIES = 2

#: experts that a token may have for their weighted sum to be one kernel
#: (ggml-cuda.cu, ggml_cuda_match_moe_weighted_reduction)
MOST_SUMMED_EXPERTS = 15

#: head sizes that fused attention has of keys, where values have the same (fattn.cu)
HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 256, 512})
#: and of keys and of values, where they differ: latent attention's
UNEQUAL_HEADS = frozenset({(192, 128), (320, 256), (576, 512)})
#: those that any number of heads has: 512 is for groups of heads that share keys
HEADS_OF_ANY_COUNT = HEADS - {512}
#: the channels of a convolution over time are a multiple of this (ggml-cuda.cu, supports_op)
CONVOLVED_STEP = 128
#: types of a cache that it reads
CACHE_TYPES = frozenset({"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"})

#: types of no matrix that the backend multiplies (ggml-cuda.cu, supports_op)
NO_MATRIX = frozenset({"tq1_0", "tq2_0"})


def has_attention(keys: int, values: int) -> bool:
    """Return whether fused attention has a kernel for heads of these sizes."""
    return (keys, values) in UNEQUAL_HEADS or (keys in HEADS and keys == values)


def padding_bytes(type_name: str, elements: int) -> int:
    """Return what is added behind a tensor whose rows are of `elements`.

    Source: ggml-cuda.cu (ggml_backend_cuda_buffer_type_get_alloc_size).
    """
    block, size = BLOCKS[type_name.lower()]
    rest = elements % ROW_STEP
    return (ROW_STEP - rest) // block * size if rest and block > 1 else 0
