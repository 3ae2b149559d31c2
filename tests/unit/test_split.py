"""Which side computes an operator, and what is copied for it."""

from __future__ import annotations

import pytest

from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.graph_allocator import _Buffer, allocate
from vramplan.engines.ggml.graph.split import GPU, HOST, Memory, schedule

WIDE, WEIGHT = 64, 1 << 20


def product(tokens: int, *, is_on_host: bool, copies_weights: bool = True) -> tuple[Graph, int]:
    """Return a scheduled product of an input with one weight, and where it is computed."""
    graph = Graph()
    x = graph.input("f32", WIDE, tokens)
    y = graph.matmul(WIDE, x, graph.weight("w"))
    y.is_output = True
    graph.expand(y)
    memories = {"w": Memory(size_bytes=WEIGHT, is_on_host=is_on_host)}
    return schedule(graph, memories, copies_weights=copies_weights), y.backend


def test_a_large_batch_is_computed_on_the_gpu_with_a_copy_of_the_weight() -> None:
    graph, backend = product(32, is_on_host=True)
    hidden = 4 * WIDE * 32
    assert backend == GPU
    assert allocate(graph, (128, 32)) == [WEIGHT + 2 * hidden, hidden]


@pytest.mark.parametrize(("tokens", "copies"), [(31, True), (32, False)])
def test_else_it_stays_where_its_weight_is(tokens: int, copies: bool) -> None:
    graph, backend = product(tokens, is_on_host=True, copies_weights=copies)
    assert backend == HOST
    assert allocate(graph, (128, 32)) == [0, 2 * 4 * WIDE * tokens]


def test_a_weight_on_the_gpu_needs_a_copy_of_the_input_only() -> None:
    graph, backend = product(8, is_on_host=False)
    hidden = 4 * WIDE * 8
    assert backend == GPU
    assert allocate(graph, (128, 32)) == [2 * hidden, hidden]


def test_attention_has_room_for_its_quantised_cache_as_f16() -> None:
    graph = Graph()
    q = graph.reshape(graph.matmul(64, graph.input("f32", 64, 16), graph.weight("w")), 64, 16, 1)
    mask = graph.input("f16", 256, 16)
    keys = graph.view(graph.external(1), (64, 256, 1, 1), (1, 1, 1, 1))
    y = graph.flash(q, keys, keys, mask, width=64)
    graph.expand(y)
    memories = {"w": Memory(size_bytes=WEIGHT, is_on_host=False)}
    schedule(graph, memories, unpacks="kv")
    assert y.backend == GPU
    assert y.size_bytes == 4 * 64 * 16 + 2 * 2 * 64 * 256


def test_a_range_of_nothing_is_given_back_as_the_engine_does() -> None:
    buffer = _Buffer(1)
    first, gap, last = buffer.take(10), buffer.take(10), buffer.take(10)
    buffer.give_back(gap, 10)
    empty = buffer.take(0)  # at the beginning of the gap, the smallest range
    assert (first, empty, last) == (0, 10, 20)
    buffer.give_back(first, 10)  # the gap grows to the front, and what begins in it is in it
    assert buffer.take(15) == 0
    buffer.give_back(empty, 0)  # in the midst of what was taken since
    assert list(zip(buffer.offsets, buffer.sizes, strict=True))[:2] == [(10, 0), (15, 5)]
    buffer.give_back(0, 15)  # joined with the range behind it, though nothing lies between them
    assert list(zip(buffer.offsets, buffer.sizes, strict=True))[:2] == [(10, 0), (0, 20)]
    assert buffer.take(20) == 0
    assert buffer.most_bytes == 30


def test_experts_stay_until_they_are_summed_up() -> None:
    def gpu_bytes(*, fuses: bool) -> int:
        graph = Graph()
        ids = graph.input("i32", 4, 32)
        made = graph.matmul_id(WIDE, graph.input("f32", WIDE, 1, 32), ids, "w")
        product = graph.same("mul", made, graph.input("f32", 1, 4, 32))
        parts = [graph.view(product, (WIDE, 32, 1, 1), product.strides) for _ in range(4)]
        for part in parts:
            graph.expand(part)
        total = parts[0]
        for part in parts[1:]:
            total = graph.same("add", total, part)
        graph.expand(total)
        memories = {"w": Memory(size_bytes=WEIGHT, is_on_host=False)}
        return allocate(schedule(graph, memories, fuses_experts=fuses), (128, 32))[0]

    assert gpu_bytes(fuses=True) - gpu_bytes(fuses=False) == 4 * WIDE * 4 * 32
