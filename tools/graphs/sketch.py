"""A recorded graph in parts: a head, a part for each layer; what is read is told by its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from vramplan.engines.ggml.graph.recording import norm_of
from vramplan.engines.ggml.graph.tape import NORM, SUM, Ref
from vramplan.engines.ggml.graph.tensor import Shape

_OWN = re.compile(r"-([0-9]{1,4})(?: |$)")
_OF_WEIGHT = re.compile(r"^blk\.([0-9]{1,4})\.|^(?:cache_[a-z_]+|leaf)_l([0-9]{1,4})(?:$|:)")
_UNNAMED = re.compile(r"^leaf_[0-9]+$")

#: how far on a layer's results are told by the distance
_NEAR = 3

_TABLE, _OUTPUT = "token_embd.weight", "output.weight"


@dataclass
class SketchNode:
    """An operator: what must be alike in all graphs of a tape, and its numbers."""

    op: str
    type: str
    flags: int
    sources: tuple[Ref, ...]
    shows: Ref | None
    shape: Shape
    strides: Shape
    size: int


@dataclass
class SketchLeaf:
    """A leaf, with its layer's number left out of its name."""

    name: str
    kind: str
    type: str
    flags: int
    shape: Shape
    strides: Shape
    size: int


@dataclass
class SketchPart:
    """A part of a graph; `layer` is -1 for the head."""

    layer: int
    nodes: list[SketchNode] = field(default_factory=list)
    leaves: list[SketchLeaf] = field(default_factory=list)
    hands_on: list[int] = field(default_factory=list)
    shares: list[int] = field(default_factory=list)
    #: names of inputs that no part before reads, in the order in which they are reached
    fresh: list[str] = field(default_factory=list)

    def outline(self) -> object:
        """Return all but numbers: parts of one kind are alike in it."""
        return (
            tuple((one.op, one.flags, one.sources, one.shows) for one in self.nodes),
            tuple((one.name, one.kind, one.flags) for one in self.leaves),
            tuple(self.hands_on),
            tuple(self.shares),
        )


class UnlikeError(Exception):
    """A graph that is not made of a head and layers."""


def draw(
    told: Mapping[str, Any], windowed: Sequence[bool], cache_of: Callable[[int], int]
) -> tuple[list[SketchPart], list[str]]:
    """Return the parts of a recorded graph, and its inputs in the order in which they are reached.

    `windowed` tells of each layer whether it sees a window, `cache_of` the layer whose cache it
    reads. Raises UnlikeError.
    """
    return _Drawing(told, windowed, cache_of).draw()


class _Drawing:
    """One graph being taken apart."""

    def __init__(
        self, told: Mapping[str, Any], windowed: Sequence[bool], cache_of: Callable[[int], int]
    ) -> None:
        self._rows, self._nodes = _rolled(told["tensors"], told["nodes"])
        self._leaves, self._cache_of = told["leaves"], cache_of
        self._position = {number: at for at, number in enumerate(self._nodes)}
        self._names = leaf_names(told["tensors"], self._leaves, told["nodes"], windowed)
        home = _homes(self._rows, self._nodes, self._position)
        self._chunks = _chunks(home, len(windowed))
        self._chunk_of = {one: at for at, chunk in enumerate(self._chunks) for one in chunk}
        self._place = {one: at for chunk in self._chunks for at, one in enumerate(chunk)}
        self._far = self._find_far()
        self._shared = sorted(one for one in self._far if self._chunk_of[one])
        self._handed = self._find_handed()

    def draw(self) -> tuple[list[SketchPart], list[str]]:
        """Return the parts, and the names of the inputs."""
        rows = self._rows
        parts = [self._part(at) for at in range(len(self._chunks))]
        read = {one for node in self._nodes for one in _read(rows[node])}
        # what is reached and not read by any node
        parts[0].leaves += [self._leaf(one, -1) for one in self._leaves if one not in read]
        inputs = [self._names[one] for one in self._leaves if rows[one]["kind"] == "made"]
        reached: set[str] = set()
        for part in parts:
            own = {leaf.name for leaf in part.leaves if leaf.kind == "made"} - reached
            part.fresh = [name for name in inputs if name in own]
            reached |= own
        return parts, inputs

    def _reads(self) -> Iterator[tuple[int, int]]:
        """Yield a node, and another of another part that it reads."""
        for node, number in enumerate(self._nodes):
            for source in _read(self._rows[number]):
                one = self._position.get(source)
                if one is not None and self._chunk_of[one] != self._chunk_of[node]:
                    yield node, one

    def _find_far(self) -> set[int]:
        """Return the head's nodes that layers read, and a layer's that are read further on.

        What a layer leaves undone is done among the nodes of the next, which so reads one before.
        """
        backs: dict[int, set[int]] = {}
        for node, one in self._reads():
            backs.setdefault(one, set()).add(self._chunk_of[node] - self._chunk_of[one])
        return {
            one
            for one, found in backs.items()
            if not self._chunk_of[one] or (len(found) > 1 and max(found) > _NEAR)
        }

    def _find_handed(self) -> list[list[int]]:
        """Return the nodes of each part that one layer behind it reads."""
        handed: list[set[int]] = [set() for _ in self._chunks]
        for _, one in self._reads():
            if one not in self._far:
                handed[self._chunk_of[one]].add(one)
        return [sorted(found) for found in handed]

    def _part(self, at: int) -> SketchPart:
        part = SketchPart(layer=at - 1)
        table: dict[str, int] = {}
        for node in self._chunks[at]:
            row = self._rows[self._nodes[node]]
            part.nodes.append(
                SketchNode(
                    op=row["op"],
                    type=row["type"],
                    flags=row["flags"] | (NORM if norm_of(row["name"]) >= 0 else 0),
                    sources=tuple(
                        self._refer(
                            one, part, table, is_matrix=row["op"] == "mul_mat" and not number
                        )
                        for number, one in enumerate(row["sources"])
                    ),
                    shows=(self._refer(row["shows"], part, table) if row["shows"] >= 0 else None),
                    shape=tuple(row["shape"]),
                    strides=tuple(row["strides"]),
                    size=row["bytes"],
                )
            )
        part.hands_on = [self._place[one] for one in self._handed[at]]
        part.shares = [self._place[one] for one in self._shared if self._chunk_of[one] == at]
        return part

    def _refer(
        self, source: int, part: SketchPart, table: dict[str, int], *, is_matrix: bool = False
    ) -> Ref:
        at = part.layer + 1
        if source not in self._position:
            if source not in self._names:
                raise UnlikeError(f"{self._rows[source]['name']} is in neither list")
            leaf = self._leaf(source, part.layer)
            if is_matrix and leaf.name == _TABLE:
                leaf.name = _OUTPUT  # the table of words is the output's matrix too
            if leaf.name not in table:
                table[leaf.name] = len(table)
                part.leaves.append(leaf)
            return Ref(kind="leaf", place=table[leaf.name])
        one = self._position[source]
        its = self._chunk_of[one]
        if its == at:
            return Ref(kind="in", place=self._place[one])
        if one in self._far:
            if its:
                return Ref(kind="all", place=self._shared.index(one))
            return Ref(kind="head", place=self._place[one])
        return Ref(kind="out", place=self._handed[its].index(one), back=at - its)

    def _leaf(self, number: int, layer: int) -> SketchLeaf:
        return _leaf(self._rows[number], self._names[number], layer, self._cache_of)


def _rolled(rows: list[dict[str, Any]], nodes: list[int]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return a graph in which the sum over a token's experts is one node.

    The engine has a view of each expert and then adds them up, so its list of nodes goes with their
    number; `tape.SUM` stands for all of them, with the form of a view.
    """
    rows, kept = list(rows), []
    readers: Counter[int] = Counter()
    for node in nodes:
        readers.update(_read(rows[node]))
    at = 0
    while at < len(nodes):
        count = _summed(rows, nodes, at, readers)
        if count:
            view, last = rows[nodes[at]], nodes[at + 2 * count - 2]
            rows[last] = {
                **view, "op": SUM, "name": rows[last]["name"], "flags": rows[last]["flags"],
                "shows": -1, "type": rows[last]["type"],
            }  # fmt: skip
            kept.append(last)
            at += 2 * count - 1
        else:
            kept.append(nodes[at])
            at += 1
    return rows, kept


def _summed(
    rows: list[dict[str, Any]], nodes: list[int], at: int, readers: Mapping[int, int]
) -> int:
    """Return how many parts of one tensor are added up from a node on, 0 for none."""
    view = rows[nodes[at]]
    if view["op"] != "view":
        return 0
    whole = view["sources"][0]
    count = rows[whole]["shape"][1]
    run = nodes[at : at + 2 * count - 1]
    if count < 2 or len(run) < 2 * count - 1:
        return 0
    alike = ("op", "type", "shape", "strides", "sources", "shows", "flags")
    views = run[:count]
    if any(rows[one][key] != view[key] for one in views for key in alike):
        return 0
    total = views[0]
    for part, node in zip(views[1:], run[count:], strict=True):
        row = rows[node]
        if row["op"] != "add" or row["sources"] != [total, part] or row["shows"] >= 0:
            return 0
        total = node
    inner = run[:-1]
    if any(readers[one] != 1 for one in inner):
        return 0
    return int(count)


def _read(row: Mapping[str, Any]) -> list[int]:
    return [*row["sources"], *([row["shows"]] if row["shows"] >= 0 else [])]


def _homes(rows: list[dict[str, Any]], nodes: list[int], position: Mapping[int, int]) -> list[int]:
    """Return the layer of each node: by its name, its weights, or what it reads."""
    home: list[int] = []
    for node in nodes:
        row = rows[node]
        own = _OWN.search(row["name"])
        if own:
            home.append(int(own[1]))
            continue
        found = [-1]
        for source in _read(row):
            if source in position:
                if position[source] < len(home):
                    found.append(home[position[source]])
                continue
            told = _OF_WEIGHT.match(rows[source]["name"])
            if told:
                found.append(int(told[1] or told[2]))
        home.append(max(found))
    return home


def _chunks(home: list[int], layers: int) -> list[list[int]]:
    """Return the nodes of the head and of each layer: those from the first of its own on."""
    chunks: list[list[int]] = [[] for _ in range(layers + 1)]
    current = -1
    for node, layer in enumerate(home):
        if layer >= layers:
            raise UnlikeError(f"a layer {layer} of {layers}")
        current = max(current, layer)
        chunks[current + 1].append(node)
    return chunks


def leaf_names(
    rows: list[dict[str, Any]], leaves: list[int], nodes: list[int], windowed: Sequence[bool]
) -> dict[int, str]:
    """Return a name for each leaf that is its own, and the same in graphs of other depths.

    Of two of one name one is for layers with a window; `windowed` tells which those are.
    """
    position = {number: at for at, number in enumerate(nodes)}
    home = list(accumulate(_homes(rows, nodes, position), max))
    readers: dict[int, list[int]] = {}
    for node, number in enumerate(nodes):
        for source in rows[number]["sources"]:
            readers.setdefault(source, []).append(home[node])
    names: dict[int, str] = {}
    for one in leaves:
        name, layers = rows[one]["name"], set(readers.get(one, [-1]))
        if rows[one]["kind"] == "made" and _UNNAMED.match(name):
            name = f"leaf_l{layers.pop()}" if len(layers) == 1 and min(layers) >= 0 else "leaf"
        names[one] = name
    counts, seen = Counter(names.values()), Counter[str]()
    for one in leaves:
        if counts[names[one]] > 1:
            layer = readers.get(one, [-1])[0]
            kind = "window" if 0 <= layer < len(windowed) and windowed[layer] else "all"
            name = f"{names[one]}:{kind}"
            seen[name] += 1
            names[one] = name if seen[name] == 1 else f"{name}:{seen[name]}"
    return names


def _leaf(row: Mapping[str, Any], name: str, layer: int, cache_of: Any) -> SketchLeaf:
    found = _OF_WEIGHT.match(name)
    if found and layer >= 0:
        group = 1 if found[1] else 2
        its = int(found[group])
        if group == 2 and its != layer and cache_of(layer) == its:
            word = "@"
        else:
            word = "*" if its == layer else f"*{{{its - layer}}}"
        name = name[: found.start(group)] + word + name[found.end(group) :]
    return SketchLeaf(
        name=name,
        kind=row["kind"],
        type=row["type"] if row["kind"] != "weight" else "",
        flags=row["flags"],
        shape=tuple(row["shape"]),
        strides=tuple(row["strides"]),
        size=row["bytes"],
    )
