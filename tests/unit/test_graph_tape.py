"""Graph tapes: what ships can be read, a stranger's is refused in words, and none is stretched."""

from __future__ import annotations

import copy
import gzip
import json
import re
from dataclasses import replace

import pytest

from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
from vramplan.engines.ggml.graph.recording import cpu_bytes
from vramplan.engines.ggml.graph.tape import (
    Composer,
    Form,
    Leaf,
    Node,
    Part,
    Ref,
    TapeDomainError,
    class_of,
    contiguous,
    extent,
    measure,
    operator_shape,
)
from vramplan.engines.ggml.graph.tape_file import FORMAT, build_tapes, read_tapes, tell_tapes
from vramplan.errors import TapeError

FILES = sorted((profiles_dir() / "graphs").glob("*.json.gz"))
MIB = 1 << 20


# ------------------------------------------------------------------------ what ships
def test_all_tapes_together_are_small() -> None:
    assert FILES
    assert sum(path.stat().st_size for path in FILES) <= 2 * MIB


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])
def test_every_tape_that_ships_can_be_read_and_told_again(path) -> None:
    tapes = read_tapes(path)
    assert tapes.architecture == path.name.removesuffix(".json.gz")
    assert tapes.build == WITNESS_ENGINE
    assert tapes.tapes
    assert build_tapes(json.loads(json.dumps(tell_tapes(tapes)))) == tapes


# ----------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("size", "values", "found"),
    [
        (((3, 1, (0, 1)),), [4, 5], 60),
        (((1, 32, (0,)), (2, 1, ())), [64, 0], 4),
        (((1, 1, (0,)), (-1, 1, (1,))), [9, 2], 7),
        ((), [], 0),
    ],
)
def test_a_size_is_a_sum_of_products(size, values, found) -> None:
    assert measure(size, values, ["a", "b"]) == found


@pytest.mark.parametrize(
    ("size", "values"),
    [
        (((1, 32, (0,)),), [33]),  # no whole number
        (((-1, 1, (0,)),), [1]),  # less than nothing
        (((1, 1, (0,) * 6),), [1 << 40]),  # larger than any memory
        (((1, 1, (0,)),), [None]),  # not in the header
    ],
)
def test_what_is_no_size_is_outside_of_a_tapes_domain(size, values) -> None:
    with pytest.raises(TapeDomainError):
        measure(size, values, ["a"])


def test_blocks_have_strides_of_their_own() -> None:
    assert contiguous("q8_0", (64, 3, 1, 1)) == (34, 68, 204, 204)
    assert extent("q8_0", (64, 3, 1, 1), (34, 68, 204, 204)) == 204
    assert extent("f16", (64, 3, 1, 1), (2, 256, 768, 768)) == 640


@pytest.mark.parametrize(
    ("op", "shapes", "found"),
    [
        ("mul_mat", [(8, 6, 1, 1), (8, 5, 2, 1)], (6, 5, 2, 1)),
        ("mul_mat_id", [(8, 6, 4, 1), (8, 1, 5, 1), (2, 5, 1, 1)], (6, 2, 5, 1)),
        ("get_rows", [(8, 100, 1, 1), (5, 1, 1, 1)], (8, 5, 1, 1)),
        ("flash_attn_ext", [(8, 5, 4, 1), (8, 9, 2, 1), (6, 9, 2, 1)], (6, 4, 5, 1)),
        ("sum_rows", [(8, 5, 1, 1)], (1, 5, 1, 1)),
        ("mul_mat", [(8, 6, 1, 1)], None),
        ("rope", [(8, 6, 1, 1)], None),
    ],
)
def test_shapes_that_an_operator_tells(op, shapes, found) -> None:
    assert operator_shape(op, shapes) == found


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "absent"), (0, "0"), (0.0, "0"), (False, "0"), (1, "1"), (True, "1"), (1.0, "1"),
     (7, "more"), (0.5, "more"), ("yarn", "'yarn'"), ((0, 3, 3), "list 0 more")],
)  # fmt: skip
def test_values_of_keys_are_told_apart_by_class(value, kind) -> None:
    assert class_of(value) == kind


# ------------------------------------------------------------------------- composing
UP = Node(
    op="mul_mat",
    type="f32",
    sources=(Ref(kind="leaf", place=0), Ref(kind="out", place=0, back=1)),
    shows=None,
    form=Form(like=-2),
)
HEAD = Part(
    nodes=(
        Node(op="sqr", type="f32", sources=(Ref(kind="leaf", place=0),), shows=None,
             form=Form(like=0)),
    ),
    leaves=(Leaf(name="inp", kind="made", type="f32", form=Form(sizes=(0, 1, 2, 2)), flags=1),),
    hands_on=(0,),
)  # fmt: skip
LAYER = Part(nodes=(UP,), leaves=(Leaf(name="blk.*.up.weight", kind="weight"),), hands_on=(0,))
SIZES = (((1, 1, (0,)),), ((1, 1, (1,)),), ((1, 1, ()),))


def composer(width: int = 32) -> Composer:
    weights = {f"blk.{one}.up.weight": ("f32", (width, width)) for one in range(3)}
    return Composer(SIZES, ["wide", "tokens"], {}, weights)


def test_layers_are_put_behind_each_other() -> None:
    made = composer()
    made.put(HEAD, -1, [32, 64])
    for layer in range(3):
        made.put(LAYER, layer, [32, 64])
    graph = made.graph("b1", ["inp"])
    assert [graph.tensors[one].op for one in graph.nodes] == ["sqr", *["mul_mat"] * 3]
    assert graph.tensors[graph.nodes[-1]].shape == (32, 64, 1, 1)
    assert [graph.tensors[one].name for one in graph.leaves][:2] == ["inp", "blk.0.up.weight"]
    assert cpu_bytes(graph) == 2 * 4 * 32 * 64


def reading(ref: Ref) -> Node:
    return replace(UP, sources=(UP.sources[0], ref))


@pytest.mark.parametrize(
    "layer",
    [
        replace(LAYER, leaves=(Leaf(name="blk.*.down.weight", kind="weight"),)),
        replace(LAYER, nodes=(reading(Ref(kind="out", place=1, back=1)),)),
        replace(LAYER, nodes=(reading(Ref(kind="out", place=0, back=2)),)),
        replace(LAYER, nodes=(replace(UP, sources=UP.sources[:1]),)),
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_guessed(layer) -> None:
    made = composer()
    made.put(HEAD, -1, [32, 64])
    with pytest.raises(TapeDomainError):
        made.put(layer, 0, [32, 64])


# -------------------------------------------------------------------------- hostile
def told() -> dict[str, object]:
    """Return the smallest tape."""
    node = ["sqr", "f32", [-1], None, [0, [], [], [], -1], 0]
    return {
        "format": FORMAT,
        "architecture": "made",
        "build": "b11549",
        "names": ["tokens"],
        "sizes": [[[1, 1, [0]]], [[1, 1, []]]],
        "words": [True, "a"],
        "nodes": [node],
        "leaves": [["inp", "made", "f32", [-1, [], [0, 1, 1, 1], [], -1], 1]],
        "parts": [[[0], [0], [0], []]],
        "tapes": [
            {
                "outside": [],
                "outputs": [True],
                "classes": {},
                "relations": [],
                "features": ["last"],
                "modes": [[True, "one", ["inp"], 0, [[[0], 0]]]],
            }
        ],
    }


def test_the_smallest_tape_is_read() -> None:
    assert tell_tapes(build_tapes(told()))["parts"] == told()["parts"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "another"),
        (("names",), ["x"] * 1_001),
        (("names", 0), 3),
        (("sizes", 0, 0, 2), [1]),
        (("sizes", 0, 0, 2), [-1]),
        (("sizes", 0, 0, 2), [0] * 9),
        (("sizes", 0, 0, 1), 0),
        (("sizes", 0, 0, 0), 1 << 41),
        (("sizes", 0, 0, 0), 1.5),
        (("words", 0), None),
        (("nodes", 0, 0), "x" * 65),
        (("nodes", 0, 1), "f12"),
        (("nodes", 0, 2), [1]),
        (("nodes", 0, 2), [-2]),
        (("nodes", 0, 2), [-1] * 11),
        (("nodes", 0, 2), [[3, 0, 0]]),
        (("nodes", 0, 2), [[0, 0]]),
        (("nodes", 0, 3), 5),
        (("nodes", 0, 4, 0), 1),
        (("nodes", 0, 4, 0), -3),
        (("nodes", 0, 4, 0), "0"),
        (("nodes", 0, 4, 2), [0, 0]),
        (("nodes", 0, 4, 3), [9]),
        (("nodes", 0, 4, 4), 9),
        (("nodes", 0, 5), 8),
        (("leaves", 0, 1), "mine"),
        (("leaves", 0, 2), "$0"),
        (("leaves", 0, 3), [-1, [], [], [], -1]),
        (("parts", 0, 0), [1]),
        (("parts", 0, 1), []),
        (("parts", 0, 2), [1]),
        (("tapes", 0, "modes", 0, 0), 1),
        (("tapes", 0, "modes", 0, 1), "never"),
        (("tapes", 0, "modes", 0, 3), 1),
        (("tapes", 0, "modes", 0, 4), [[[7], 0]]),
        (("tapes", 0, "classes"), []),
        (("tapes", 0, "relations"), [[1, 0]]),
        (("tapes", 0), []),
    ],
)
def test_a_strangers_tape_is_refused_in_words(path, value, tmp_path) -> None:
    raw = copy.deepcopy(told())
    inner = raw
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=re.compile(".")):
        build_tapes(raw)
    file = tmp_path / "made.json.gz"
    file.write_bytes(gzip.compress(json.dumps(raw).encode(), mtime=0))
    with pytest.raises(TapeError, match=r"made\.json\.gz.*no graph tapes"):
        read_tapes(file)


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", gzip.compress(b"[]", mtime=0), gzip.compress(b"{", mtime=0)]
)
def test_what_is_no_file_of_tapes_is_a_line(tmp_path, data) -> None:
    file = tmp_path / "made.json.gz"
    file.write_bytes(data)
    with pytest.raises(TapeError):
        read_tapes(file)


def test_a_bomb_is_not_unpacked(tmp_path) -> None:
    file = tmp_path / "made.json.gz"
    file.write_bytes(gzip.compress(b" " * (64 * MIB)))
    with pytest.raises(TapeError, match="larger than 8 MiB"):
        read_tapes(file)
