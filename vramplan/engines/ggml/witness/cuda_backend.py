"""What llama.cpp's CUDA backend says of a tensor: is it computed, worth copying, and its size.

Asked for one tensor at a time while the engine plans; nothing is computed. Kernels that only small
batches run are left out: the graph of a whole batch is the larger one. Source: ggml-org/llama.cpp,
ggml/src/ggml-cuda/ggml-cuda.cu (supports_op, offload_op, buffer_type_get_alloc_size) and fattn.cu.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_void_p

from vramplan.engines.ggml.cuda_facts import (
    ALIGNMENT,
    CACHE_TYPES,
    CONVOLVED_STEP,
    FEW_QUERIES,
    MOST_SUMMED_EXPERTS,
    NO_MATRIX,
    ROW_STEP,
    WORTH_COPYING,
    has_attention,
)
from vramplan.engines.ggml.witness.ggml_backend import Tensor
from vramplan.quick_typing import Any

_F16 = "f16"
_NEVER = frozenset(
    {"SET", "DIAG_MASK_ZERO", "IM2COL_BACK", "POOL_2D_BACK", "FLASH_ATTN_BACK", "WIN_PART",
     "WIN_UNPART", "GET_REL_POS", "ADD_REL_POS", "MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3",
     "CUSTOM"}
)  # fmt: skip


class _Names(dict[int, str]):
    """The engine's names by number, each asked for once."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, number: int) -> str:
        """Ask the engine."""
        name: bytes = self._ask(number)
        self[number] = found = name.decode("ascii")
        return found


class CudaRules:
    """The answers, with the engine's own library to ask for sizes and names."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._bytes = _function(library, "ggml_nbytes", c_size_t, c_void_p)
        self._row_bytes = _function(library, "ggml_row_size", c_size_t, c_int, ctypes.c_int64)
        self._is_quantised = _function(library, "ggml_is_quantized", c_bool, c_int)
        # asked for tens of thousands of tensors, of some dozens of kinds
        self._op_name = _Names(_function(library, "ggml_op_name", c_char_p, c_int))
        self._type_name = _Names(_function(library, "ggml_type_name", c_char_p, c_int))

    def supports(self, address: int) -> bool:
        """Return whether a kernel computes the tensor."""
        tensor = Tensor.from_address(address)
        op = self._op(tensor)
        if op == "FLASH_ATTN_EXT":
            return self._supports_attention(tensor)
        if op in {"MUL_MAT", "MUL_MAT_ID", "GET_ROWS"}:
            return self._type(tensor.sources[0].contents) not in NO_MATRIX
        if op == "SSM_CONV":
            return bool(tensor.sources[0].contents.shape[1] % CONVOLVED_STEP == 0)
        return op not in _NEVER

    def is_worth_copying(self, address: int) -> bool:
        """Return whether weights in host memory are copied to the card for the tensor."""
        tensor = Tensor.from_address(address)
        shape, op = tensor.shape, self._op(tensor)
        if op == "GET_ROWS":
            return False
        if op == "MUL_MAT":
            return bool(shape[1] >= WORTH_COPYING)
        if op in {"MUL_MAT_ID", "ROPE", "ROPE_BACK"}:
            return bool(shape[2] >= WORTH_COPYING)
        return bool(shape[1] * shape[2] * shape[3] >= WORTH_COPYING)

    def size_bytes(self, address: int) -> int:
        """Return what a tensor takes: rows are padded, and attention has room for its cache as f16.

        The latter since #23907 (June 2026).
        """
        tensor = Tensor.from_address(address)
        size = int(self._bytes(address))
        if self._op(tensor) == "FLASH_ATTN_EXT":
            return size + self._attention_extra_bytes(tensor, size)
        rest = tensor.shape[0] % ROW_STEP
        if rest and self._is_quantised(tensor.type):
            size += int(self._row_bytes(tensor.type, ROW_STEP - rest))
        return size

    def fused_sums(self, nodes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield what the weighted sum over experts, one kernel, reads, and its last node.

        The sum is a product with the experts' weights, a view of each expert, and their additions.
        Source: ggml-cuda.cu (ggml_cuda_match_moe_weighted_reduction, graph_optimize).
        """
        for number, node in enumerate(nodes):
            product = Tensor.from_address(node)
            used = product.shape[1]
            end = number + 2 * used
            if (
                self._op(product) != "MUL"
                or not 2 <= used <= MOST_SUMMED_EXPERTS
                or end > len(nodes)
            ):
                continue
            sources = [product.sources[place].contents for place in range(2)]
            if list(sources[1].shape) != [1, *product.shape[1:]]:
                continue
            names = [self._op(Tensor.from_address(one)) for one in nodes[number + 1 : end]]
            if sorted(names) == ["ADD"] * (used - 1) + ["VIEW"] * used:
                for source in sources:
                    yield ctypes.addressof(source), nodes[end - 1]

    def _supports_attention(self, tensor: Tensor) -> bool:
        keys, values = tensor.sources[1].contents, tensor.sources[2].contents
        if not has_attention(keys.shape[0], values.shape[0]):
            return False
        return {self._type(keys), self._type(values)} <= CACHE_TYPES

    def _attention_extra_bytes(self, tensor: Tensor, size: int) -> int:
        if tensor.sources[0].contents.shape[1] <= FEW_QUERIES:
            return 0
        end = size
        for source in (tensor.sources[1].contents, tensor.sources[2].contents):
            if self._type(source) != _F16:
                shape = source.shape
                end = -(-end // ALIGNMENT) * ALIGNMENT
                end += 2 * shape[0] * shape[1] * shape[2] * shape[3]
        return end - size

    def _op(self, tensor: Tensor) -> str:
        return self._op_name[tensor.op]

    def _type(self, tensor: Tensor) -> str:
        return self._type_name[tensor.type]


def _function(
    library: ctypes.CDLL, name: str, result: object, *arguments: object
) -> Callable[..., Any]:
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found  # type: ignore[no-any-return]  # a foreign function
