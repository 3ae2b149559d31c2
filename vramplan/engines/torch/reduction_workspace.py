"""What torch's sums take: partial results of blocks that share an output, before they are added up.

A step of scratch of the kind ``sum outer`` sums over outer dimensions, as the gradient of a bias
over its batch does, ``sum inner`` over inner ones. Its operands are how many outputs there are, of
how many numbers each, and how many outputs lie side by side. How many blocks share an output
follows from those, and from how many threads the card has. Source: pytorch 2.14,
aten/src/ATen/native/cuda/Reduce.cuh, `setReduceConfig` and `ReduceConfig::global_memory_size`.
"""

from __future__ import annotations

import math

from vramplan.catalog.multiprocessors import resident_threads

OUTER, INNER = "sum outer", "sum inner"

#: numbers that one thread adds up at least, where blocks share an output, and at most
_LEAST_VALUES, _MOST_VALUES = 16, 256
_THREADS, _WARP, _VECTOR = 512, 32, 4
#: partial results are kept in fp32
_ACCUMULATED_BYTES = 4

#: multiprocessors of one card of each architecture, where a card's own are not known: T4, A100,
#: A10, RTX 4090, H100 SXM, B200, RTX 5090
_MULTIPROCESSORS = {
    "7.5": 40, "8.0": 108, "8.6": 72, "8.9": 128, "9.0": 132, "10.0": 148, "12.0": 170,
}  # fmt: skip


def reduction_bytes(
    kind: str,
    operands: tuple[int, ...],
    compute_capability: str,
    multiprocessors: int | None = None,
) -> int:
    """Return the bytes that a sum takes beside its result on a card of an architecture.

    `operands` are outputs, numbers of each, and outputs side by side. Without `multiprocessors` the
    card is one that has as many as most.
    """
    outputs, inputs, innermost = operands
    is_inner = kind == INNER
    width = 1 if is_inner else math.gcd(_VECTOR, innermost)
    first, second = (inputs, outputs) if is_inner else (outputs // width, inputs)
    if is_inner and outputs == 1 and first > 128:  # one dimension: read in vectors
        first //= _VECTOR
    most = _THREADS // width
    across = min(_power_below(first), most)
    down = min(_power_below(second), most)
    block_width = min(across, _WARP)
    block_height = min(down, most // block_width)
    block_width = min(across, most // block_height)
    each = _up(inputs, block_width) if is_inner else inputs
    beside = 1 if is_inner else block_width  # outputs of one block
    if each < min(block_height * _LEAST_VALUES, _MOST_VALUES):
        return 0  # a block's rows work on other outputs: none is shared
    step = block_height * (block_width if is_inner else 1)
    each = _up(inputs, step)
    grid = _up(outputs // width, beside)
    resident = resident_threads(compute_capability) // (block_width * block_height)
    target = (multiprocessors or _MULTIPROCESSORS[compute_capability]) * resident
    if each < _MOST_VALUES or grid > target:
        return 0
    blocks = max(min(_up(target, grid), _up(each, _LEAST_VALUES)), _up(each, _MOST_VALUES))
    if blocks == 1:
        return 0
    size = _ACCUMULATED_BYTES * outputs * blocks
    return size if is_inner else size * block_width * width


def _power_below(number: int) -> int:
    """Return the largest power of two that is not above a number."""
    return 1 << (max(1, number).bit_length() - 1)


def _up(number: int, step: int) -> int:
    return -(-number // step)
