"""What a recorded graph may be: a stranger's is refused in words, and a small one is replayed."""

from __future__ import annotations

import copy

import pytest

from vramplan.engines.ggml.graph.recording import cpu_bytes, read_recording, split_bytes
from vramplan.engines.ggml.graph.split import Memory

ROW = {"type": "f32", "shows": -1, "flags": 0, "kind": "made"}


def tensor(op: str, width: int, sources=(), **more):
    shape = [width, 64, 1, 1]
    strides = [4, 4 * width, 256 * width, 256 * width]
    row = {"op": op, "shape": shape, "strides": strides, "sources": list(sources), "name": op}
    return {**ROW, **row, "bytes": 256 * width, **more}


def told() -> dict[str, object]:
    """Return an input times a weight, and its square."""
    return {
        "tensors": [
            tensor("none", 32, flags=1, name="input"),
            tensor("none", 32, kind="weight", name="blk.0.ffn_up.weight"),
            tensor("mul_mat", 64, (1, 0), name="up-0"),
            tensor("sqr", 64, (2,), flags=2, name="squared-0"),
        ],
        "leaves": [0, 1],
        "nodes": [2, 3],
        "held_bytes": 24576,
    }


def test_a_square_takes_its_operands_place() -> None:
    assert cpu_bytes(read_recording(told(), "build")) == 8192 + 16384


@pytest.mark.parametrize("is_on_host", [False, True])
def test_a_weight_in_host_memory_is_copied_for_a_big_batch(is_on_host) -> None:
    weight = Memory(size_bytes=8192, is_on_host=is_on_host)
    recording = read_recording(told(), "build")
    sizes = split_bytes(recording, {"blk.0.ffn_up.weight": weight}, [0], is_cache_on_host=False)
    assert sizes == (8192 + 16384 + (8192 if is_on_host else 0), 8192)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("sources", [4]),
        ("sources", []),
        ("sources", [-1]),
        ("sources", [0] * 11),
        ("shows", 4),
        ("shows", -2),
        ("shape", [1, 2, 3]),
        ("shape", [1, 2, 3, 4, 5]),
        ("shape", [1, 2, 3, True]),
        ("bytes", -1),
        ("bytes", 1 << 63),
        ("flags", 4),
        ("type", "f33"),
        ("type", None),
        ("kind", "stolen"),
        ("name", "x" * 257),
        ("op", 7),
    ],
)
def test_what_cannot_be_a_tensor_is_refused(place, value) -> None:
    graph = copy.deepcopy(told())
    graph["tensors"][2][place] = value
    with pytest.raises(ValueError, match=r"."):
        read_recording(graph, "build")


@pytest.mark.parametrize(
    ("place", "value"),
    [("nodes", [4]), ("leaves", None), ("held_bytes", "much"), ("tensors", {})],
)
def test_what_cannot_be_a_graph_is_refused(place, value) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_recording({**told(), place: value}, "build")


def test_a_view_of_a_view_is_refused() -> None:
    graph = told()
    graph["tensors"][2]["shows"] = 0
    graph["tensors"][3]["shows"] = 2
    with pytest.raises(ValueError, match="a view shows another view"):
        read_recording(graph, "build")
