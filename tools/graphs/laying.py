"""Lays many graphs of one architecture over each other: kinds of layer, and numbers as sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, permutations

from tools.graphs.fitting import Fitter, as_size
from tools.graphs.samples import Sample
from tools.graphs.sketch import SketchLeaf, SketchNode, SketchPart
from vramplan.engines.ggml.graph.tape import (
    BY_OPERATOR,
    FIRST,
    KEYS,
    VALUES,
    Form,
    Leaf,
    Mode,
    Node,
    Part,
    Ref,
    Size,
    contiguous,
    extent,
    operator_shape,
)
from vramplan.engines.ggml.graph.tensor import Shape
from vramplan.sources.block_sizes import BLOCKS

#: what may tell layers apart beside their tensors, what is known of them and whether they are last
_PLACES = (
    "first", "first_of_kind", "first_of_words", "second", "of_2", "of_3", "of_4", "of_5", "of_6",
    "of_8", "before", "behind",
)  # fmt: skip
_ALWAYS = ("tensors", "words", "last")
#: the order in which quantities are preferred
_PREFERRED = (
    "tokens", "tokens_each", "tokens_stream", "outputs", "sequences", "streams", "own_cells",
    "cells", "window_cells", "embedding", "heads", "kv_heads", "head_k", "head_v", "group",
    "feed_forward", "key_32", "value_32", "power_k",
    "parts_k", "layers",
)  # fmt: skip


#: parts of one kind, each of a graph
_Found = Sequence[tuple[Sample, SketchPart]]
#: the place of the size that is these values in all of them
_Number = Callable[[Sequence[int], str], int]
#: of so many models at least a kind of layer is made: of fewer an expression may be chance
_FEWEST = 4


class UnexplainedError(Exception):
    """Graphs that no tape explains."""


class Layer:
    """The table of sizes and names that all parts of an architecture share."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes: list[Size] = []
        self._places: dict[Size, int] = {}

    def place(self, size: Size) -> int:
        """Return a size's place in the table."""
        if size not in self._places:
            self._places[size] = len(self.sizes)
            self.sizes.append(size)
        return self._places[size]


def choose_features(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return what tells all kinds of layer apart, as little as does. Raises UnexplainedError."""
    for count in range(4):
        for more in combinations(_PLACES, count):
            chosen = (*_ALWAYS, *more)
            if _is_enough(samples, chosen):
                return chosen
    raise UnexplainedError("layers that are told to be alike differ")


def _is_enough(samples: Sequence[Sample], chosen: tuple[str, ...]) -> bool:
    seen: dict[object, object] = {}
    for sample in samples:
        for part in sample.parts:
            key = _key(sample, part, chosen)
            outline = part.outline()
            if seen.setdefault(key, outline) != outline:
                return False
    return True


def _key(sample: Sample, part: SketchPart, chosen: tuple[str, ...]) -> tuple[object, ...]:
    if part.layer < 0:
        return ()
    told = sample.features[part.layer]
    return tuple(told[name] for name in chosen)


def lay(samples: Sequence[Sample], chosen: tuple[str, ...], table: Layer) -> Mode:
    """Return the parts of graphs of one mode.

    Raises UnexplainedError.
    """
    kinds: dict[tuple[object, ...], list[tuple[Sample, SketchPart]]] = defaultdict(list)
    for sample in samples:
        for part in sample.parts:
            kinds[_key(sample, part, chosen)].append((sample, part))
    parts = {
        key: _part(found, table)
        for key, found in kinds.items()
        if len({id(sample.header) for sample, _ in found}) >= _FEWEST
    }
    head = parts.pop((), None)
    if head is None:
        raise UnexplainedError("too few made models")
    try:
        inputs = tuple(_order([one.inputs for one in samples]))
    except UnexplainedError:
        inputs = ()  # as the parts of a model have them
    return Mode(inputs=inputs, head=head, layers=parts)


def _order(lists: Sequence[Sequence[str]]) -> list[str]:
    """Return one order of the inputs that all graphs have."""
    behind: dict[str, set[str]] = {}
    for names in lists:
        for at, name in enumerate(names):
            behind.setdefault(name, set()).update(names[at + 1 :])
    found: list[str] = []
    while len(found) < len(behind):
        free = [
            name
            for name in behind
            if name not in found
            and not any(name in behind[other] for other in behind if other not in found)
        ]
        if not free:
            raise UnexplainedError("inputs are reached in several orders")
        found.append(free[0])
    return found


def _part(found: _Found, table: Layer) -> Part:
    instances = [sample.quantities.of(part.layer) for sample, part in found]
    rest = sorted({name for one in instances for name in one} - set(_PREFERRED))
    sides = [name for name in rest if not name.startswith("key:")]
    keys = [name for name in rest if name.startswith("key:")]
    fitter = Fitter(instances, (*_PREFERRED, "token_embd.weight:1", *sides, *keys))
    types = [(sample.run.batch.cache_type, sample.run.batch.type_of_values) for sample, _ in found]

    def number(values: Sequence[int], what: str) -> int:
        terms = fitter.fit(values)
        if terms is None:
            raise UnexplainedError(f"{what}: {sorted(set(values))[:4]} in {len(values)} graphs")
        return table.place(as_size(terms, table.names))

    first = found[0][1]
    nodes = []
    for at, node in enumerate(first.nodes):
        ones = [part.nodes[at] for _, part in found]
        what = f"layer {first.layer}, node {at} {node.op}"
        nodes.append(
            Node(
                op=node.op,
                type=(
                    FIRST
                    if _shows_weight(first, node)
                    else _type([one.type for one in ones], types, what)
                ),
                sources=node.sources,
                shows=node.shows,
                form=_form_of_node(at, found, number, what),
                flags=node.flags,
            )
        )
    leaves = []
    for at, leaf in enumerate(first.leaves):
        if leaf.kind == "weight":
            leaves.append(Leaf(name=leaf.name, kind="weight"))
            continue
        own = [part.leaves[at] for _, part in found]
        what = f"layer {first.layer}, {leaf.name}"
        leaves.append(
            Leaf(
                name=leaf.name,
                kind=leaf.kind,
                type=_type([one.type for one in own], types, what),
                form=_form(own, number, what),
                flags=leaf.flags,
            )
        )
    nodes, leaves = _in_order(nodes, leaves, _order([part.fresh for _, part in found]))
    return Part(
        nodes=tuple(nodes),
        leaves=tuple(leaves),
        hands_on=tuple(first.hands_on),
        shares=tuple(first.shares),
    )


def _in_order(
    nodes: list[Node], leaves: list[Leaf], names: list[str]
) -> tuple[list[Node], list[Leaf]]:
    """Return a part with inputs as first leaves, in the order of their `names`."""
    order = sorted(
        range(len(leaves)),
        key=lambda at: names.index(leaves[at].name) if leaves[at].name in names else len(names),
    )
    places = {old: new for new, old in enumerate(order)}

    def moved(ref: Ref) -> Ref:
        return replace(ref, place=places[ref.place]) if ref.kind == "leaf" else ref

    return [
        replace(
            node,
            sources=tuple(moved(one) for one in node.sources),
            shows=None if node.shows is None else moved(node.shows),
        )
        for node in nodes
    ], [leaves[old] for old in order]


def _shows_weight(part: SketchPart, node: SketchNode) -> bool:
    """Return whether a node is a view of a weight, of the type that a file has it in."""
    ref = node.shows
    return ref is not None and ref.kind == "leaf" and part.leaves[ref.place].kind == "weight"


def _type(found: Sequence[str], types: Sequence[tuple[str, str]], what: str) -> str:
    if len(set(found)) == 1 and BLOCKS[found[0]][0] == 1:
        return found[0]
    for at, word in enumerate((KEYS, VALUES)):
        if all(one == own[at] for one, own in zip(found, types, strict=True)):
            return word
    raise UnexplainedError(f"{what}: types {sorted(set(found))}")


def _form_of_node(at: int, found: _Found, number: _Number, what: str) -> Form:
    """Return the form of a node: like what it reads, turned, or of sizes of its own."""
    ones = [part.nodes[at] for _, part in found]
    first = ones[0]
    if first.op in {"permute", "transpose"}:
        turned = _turned(at, found)
        if turned is not None:
            return Form(turned=turned)
    if all(one.shape == _by_operator(*which, at) for one, which in zip(ones, found, strict=True)):
        return _form(ones, number, what, like=BY_OPERATOR)
    for place in range(len(first.sources)):
        read = [_read(sample, part, part.nodes[at].sources[place]) for sample, part in found]
        if all(one.shape == other for one, other in zip(ones, read, strict=True)):
            return _form(ones, number, what, like=place)
    return _form(ones, number, what)


def _by_operator(sample: Sample, part: SketchPart, at: int) -> tuple[int, ...] | None:
    node = part.nodes[at]
    return operator_shape(node.op, [_read(sample, part, one) for one in node.sources])


def _turned(at: int, found: _Found) -> tuple[int, ...] | None:
    for places in permutations(range(4)):
        for sample, part in found:
            node = part.nodes[at]
            source = _node(sample, part, node.sources[0])
            if node.shape != tuple(source.shape[one] for one in places) or node.strides != tuple(
                source.strides[one] for one in places
            ):
                break
        else:
            return places
    return None


def _node(sample: Sample, part: SketchPart, ref: Ref) -> SketchNode | SketchLeaf:
    if ref.kind == "in":
        return part.nodes[ref.place]
    if ref.kind == "leaf":
        return part.leaves[ref.place]
    if ref.kind == "head":
        return sample.parts[0].nodes[ref.place]
    if ref.kind == "out":
        before = sample.parts[part.layer + 1 - ref.back]
        return before.nodes[before.hands_on[ref.place]]
    shared = [one.nodes[at] for one in sample.parts for at in one.shares]
    return shared[ref.place]


def _read(sample: Sample, part: SketchPart, ref: Ref) -> Shape:
    return _node(sample, part, ref).shape


def _free_strides(ones: Sequence[SketchNode | SketchLeaf]) -> tuple[int, ...]:
    """Return the dimensions whose strides do not follow from those before."""
    if any(
        one.strides[0] != BLOCKS[one.type][1] or one.strides[3] != one.strides[2] * one.shape[2]
        for one in ones
    ):
        return 0, 1, 2, 3
    if any(one.strides[2] != one.strides[1] * one.shape[1] for one in ones):
        return 1, 2
    return (1,)


def _form(
    ones: Sequence[SketchNode | SketchLeaf], number: _Number, what: str, like: int = -1
) -> Form:
    sizes: tuple[int, ...] = ()
    if like == -1:
        sizes = tuple(number([one.shape[at] for one in ones], f"{what} shape") for at in range(4))
    strides: tuple[int, ...] = ()
    if any(one.strides != contiguous(one.type, one.shape) for one in ones):
        strides = tuple(
            number([one.strides[at] for one in ones], f"{what} strides")
            for at in _free_strides(ones)
        )
    size = -1
    if any(one.size != extent(one.type, one.shape, one.strides) for one in ones):
        size = number([one.size for one in ones], f"{what} bytes")
    return Form(like=like, sizes=sizes, strides=strides, size=size)
