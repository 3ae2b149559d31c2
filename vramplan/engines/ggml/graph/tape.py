"""A graph tape: an architecture's graph as llama.cpp reserves it, at any sizes within its domain.

A tape has parts: a *head*, a part for each kind of layer, and the last layer with what is behind
it. A part lists its nodes in the engine's order; what a node reads is told by its place: in the
part, in the head, among what the layer before hands on. Numbers are *sizes*: sums of products of
named quantities of a header and of the settings (`tape_quantities`). `compose` puts a graph
together from it; nothing is guessed: a size that is no whole number, a part that a layer has not
got, a name that is not there, is a `TapeDomainError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from vramplan.engines.ggml.graph.recording import Recording, Row
from vramplan.engines.ggml.graph.tensor import Shape
from vramplan.quick_dataclass import dataclass
from vramplan.sources.block_sizes import BLOCKS

#: what stands for the type of a cache of keys, of values, and of what is read first
KEYS, VALUES, FIRST = "$k", "$v", "$0"
#: a number is larger than any that is known
_LARGEST = 1 << 50

#: stands for views of all parts of a tensor along its second dimension, and their additions: the
#: sum over a token's experts. Its form is a view's
SUM = "sum of parts"
_MOST_SUMMED = 512
#: of a node's flags, beside 1 for an input and 2 for an output: a norm of its layer, which several
#: cards compute where the layer is
NORM = 4
#: tensors of the largest graph that is known, times ten
_MOST_ROWS = 400_000
_OUTPUT, _TABLE = "output.weight", "token_embd.weight"

#: numerator, denominator, and the places of the quantities that are multiplied
Term = tuple[int, int, tuple[int, ...]]
Size = tuple[Term, ...]


#: a form's `like` where the operator tells the shape
BY_OPERATOR = -2


class TapeDomainError(Exception):
    """A model or its settings are outside of what a tape was made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """What a node reads or shows.

    `kind` is ``in`` (a node of the part), ``leaf`` (of the part's leaves), ``head`` (a node of the
    head), ``out`` (what the layer `back` before hands on) or ``all`` (what is shared by layers).
    """

    kind: str
    place: int
    back: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The shape of a tensor, by the first of these that is there.

    `like` is the place among the sources of the one that is shaped alike, or `BY_OPERATOR`: the
    shape is what ggml makes of the sources'. `turned` are the places of the first source's
    dimensions; else `sizes` are places in the tape's sizes. `strides` are too: none where all
    follow from the shape, those of the second (and third) dimension where the rest does, else four;
    and `size`, where the bytes follow from neither.
    """

    like: int = -1
    turned: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    size: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator of a part."""

    op: str
    type: str
    sources: tuple[Ref, ...]
    shows: Ref | None
    form: Form
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One input, weight or cache that a part reads.

    In `name` a ``*`` is the layer's number, with what is added to it, and ``@`` is the layer whose
    cache it reads. A weight has no type and no form: the file has them.
    """

    name: str
    kind: str
    type: str = ""
    form: Form = Form()
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Nodes in their order, and the leaves that they read in the order in which they are reached.

    `hands_on` are the nodes that the next layers read, `shares` those that layers at any distance
    do.
    """

    nodes: tuple[Node, ...]
    leaves: tuple[Leaf, ...]
    hands_on: tuple[int, ...] = ()
    shares: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """The parts of a graph at one kind of settings; layers by what is told of each.

    `inputs` are the names of leaves that are filled before each run, in the engine's order.
    """

    inputs: tuple[str, ...]
    head: Part
    layers: Mapping[tuple[object, ...], Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What a model must be for a tape to be its graph.

    `outside` are its tensors outside of layers but for the output matrix; `outputs` whether that
    may be there, and may be missing. `classes` has keys of the header that change the graph, with
    the classes of value (`class_of`) that were recorded. `relations` are quantities that were
    always what a size says of others.
    """

    outside: frozenset[str]
    outputs: frozenset[bool]
    classes: Mapping[str, frozenset[str]]
    relations: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """One list of nodes, for models of one set of optional tensors.

    `features` are what tells layers apart; modes go by flash attention and by how sequences share a
    cache (``one``, ``apart``, ``in one``).
    """

    domain: Domain
    features: tuple[str, ...]
    modes: Mapping[tuple[bool, str], Mode]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tapes:
    """An architecture's tapes, recorded of one build, over one table of names and sizes."""

    architecture: str
    build: str
    names: tuple[str, ...]
    sizes: tuple[Size, ...]
    tapes: tuple[Tape, ...]


def class_of(value: object) -> str:
    """Return the class that a key's value is in: there is none, 0, 1, more, a word, a list."""
    if value is None:
        return "absent"
    if isinstance(value, tuple):
        return "list " + " ".join(sorted({class_of(one) for one in value}))
    if isinstance(value, (int, float)):
        return "0" if not value else "1" if value == 1 else "more"
    return f"'{value}'"


def measure(size: Size, values: Sequence[int | None], names: Sequence[str]) -> int:
    """Return what a size comes to. Raises TapeDomainError where that is no size."""
    total, common = 0, 1
    for top, bottom, places in size:
        product = top
        for place in places:
            value = values[place]
            if value is None:
                raise TapeDomainError(f"there is no {names[place]}")
            product *= value
        total, common = total * bottom + product * common, common * bottom
    found, rest = divmod(total, common)
    if rest or not 0 <= found <= _LARGEST:
        raise TapeDomainError("a size that is no whole number")
    return found


def contiguous(type_name: str, shape: Shape) -> Shape:
    """Return the strides of a tensor without gaps, in bytes."""
    block, first = BLOCKS[type_name]
    second = first * (shape[0] // block)
    third = second * shape[1]
    return first, second, third, third * shape[2]


def extent(type_name: str, shape: Shape, strides: Shape) -> int:
    """Return the bytes from the first element to the last (ggml.c, ggml_nbytes)."""
    block, first = BLOCKS[type_name]
    whole = first if block == 1 else shape[0] * strides[0] // block
    start = 0 if block == 1 else 1
    return whole + sum((shape[at] - 1) * strides[at] for at in range(start, 4))


def operator_shape(op: str, shapes: Sequence[Shape]) -> Shape | None:
    """Return the shape that an operator makes of its sources'; None where they do not tell.

    Source: ggml-org/ggml, src/ggml.c (ggml_mul_mat, ggml_mul_mat_id, ggml_get_rows,
    ggml_flash_attn_ext, ggml_sum_rows).
    """
    if op == "sum_rows" and shapes:
        return 1, *shapes[0][1:]
    if op == "mul_mat" and len(shapes) == 2:
        return shapes[0][1], *shapes[1][1:]
    if op == "mul_mat_id" and len(shapes) == 3:
        return shapes[0][1], shapes[2][0], shapes[1][2], 1
    if op == "get_rows" and len(shapes) == 2:
        return shapes[0][0], *shapes[1][:3]
    if op == "flash_attn_ext" and len(shapes) > 2:
        return shapes[2][0], shapes[0][2], shapes[0][1], shapes[0][3]
    return None


class Composer:
    """Puts a graph together, a part at a time.

    `values` of the quantities come with each part; `types` are those of the caches, `weights` the
    file's tensors: type and shape by name.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        names: Sequence[str],
        types: Mapping[str, str],
        weights: Mapping[str, tuple[str, tuple[int, ...]]],
    ) -> None:
        self._sizes, self._names, self._types, self._weights = sizes, names, types, weights
        self._rows: list[Row] = []
        self._nodes: list[int] = []
        self._leaves: list[int] = []
        self._by_name: dict[str, int] = {}
        self._head: list[int] = []
        self._handed: list[list[int]] = []
        self._shared: list[int] = []

    def put(self, part: Part, layer: int, values: Sequence[int | None], cache_of: int = -1) -> None:
        """Add a part; `layer` is -1 for the head, `cache_of` the layer whose cache it reads."""
        known: dict[int, int] = {}

        def number(place: int) -> int:
            if place not in known:
                known[place] = measure(self._sizes[place], values, self._names)
            return known[place]

        leaves = [self._leaf(one, layer, number, cache_of) for one in part.leaves]
        made: list[int] = []

        def find(ref: Ref) -> int:
            if ref.kind == "in" and ref.place == len(made):
                return len(self._rows)  # ggml_cast reads itself
            lists = {"in": made, "leaf": leaves, "head": self._head, "all": self._shared}
            found = lists.get(ref.kind)
            if found is None:
                if not 0 < ref.back <= len(self._handed):
                    raise TapeDomainError("a layer that is not there is read")
                found = self._handed[-ref.back]
            if not 0 <= ref.place < len(found):
                raise TapeDomainError("a node that is not there is read")
            return found[ref.place]

        for node in part.nodes:
            sources = tuple(find(one) for one in node.sources)
            shows = -1 if node.shows is None else find(node.shows)
            name = f"-{layer}" if layer >= 0 else ""
            if node.flags & NORM:
                name = f"norm{name}"
            if node.op == SUM:
                made.append(self._sum(node, number, sources[0], name))
                continue
            made.append(self._add(node.op, node.type, node.form, number, sources, shows,
                                  "made", name, node.flags))  # fmt: skip
            self._nodes.append(made[-1])
        if layer < 0:
            self._head = made
        self._handed.append([made[one] for one in part.hands_on])
        self._shared += [made[one] for one in part.shares]

    def graph(self, build: str, inputs: Sequence[str]) -> Recording:
        """Return the graph, as if it had been recorded; `inputs` are the first of its leaves."""
        known = {self._by_name[name]: None for name in inputs if name in self._by_name}
        self._leaves = list(dict.fromkeys((*known, *self._leaves)))
        return Recording(
            build=build,
            tensors=tuple(self._rows),
            leaves=tuple(self._leaves),
            nodes=tuple(self._nodes),
            held_bytes=0,
        )

    def _leaf(self, leaf: Leaf, layer: int, number: object, cache_of: int) -> int:
        name = _named(leaf.name, layer, cache_of)
        if name in self._by_name:
            return self._by_name[name]
        if leaf.kind == "weight":
            if name == _OUTPUT and name not in self._weights:
                name = _TABLE  # the table of words is the output's matrix too
                if name in self._by_name:
                    return self._by_name[name]
            found = self._weights.get(name)
            if found is None:
                raise TapeDomainError(f"the file has no {name}")
            type_name, short = found
            shape = (*short, 1, 1, 1)[:4]
            strides = contiguous(type_name, shape)  # type: ignore[arg-type]  # four
            row = self._row("none", type_name, shape, strides, -1, (), -1, "weight", name, 0)  # type: ignore[arg-type]  # four
        else:
            row = self._add("none", leaf.type, leaf.form, number, (), -1, leaf.kind, name,
                            leaf.flags)  # fmt: skip
        self._by_name[name] = row
        self._leaves.append(row)
        return row

    def _sum(self, node: Node, number: object, whole: int, name: str) -> int:
        """Add the views of a tensor's parts and what adds them up; return the last."""
        count = self._rows[whole].shape[1]
        if not 2 <= count <= _MOST_SUMMED:
            raise TapeDomainError("a sum over a number of parts that was not recorded")
        owner = self._rows[whole].shows
        shown = whole if owner < 0 else owner
        views = [
            self._add("view", node.type, node.form, number, (whole,), shown, "made", name, 0)
            for _ in range(count)
        ]
        self._nodes += views
        total, shape = views[0], self._rows[views[0]].shape
        strides = contiguous(node.type, shape)
        for part in views[1:]:
            total = self._row("add", node.type, shape, strides, -1, (total, part), -1, "made", name,
                              node.flags)  # fmt: skip
            self._nodes.append(total)
        return total

    def _add(
        self, op: str, type_name: str, form: Form, number: object, sources: tuple[int, ...],
        shows: int, kind: str, name: str, flags: int,
    ) -> int:  # fmt: skip
        assert callable(number)
        if type_name == FIRST and sources:
            type_name = self._rows[sources[0]].type
        type_name = self._types.get(type_name, type_name)
        strides: Shape | None = None
        if form.like == BY_OPERATOR:
            made = operator_shape(op, [self._rows[one].shape for one in sources])
            if made is None:
                raise TapeDomainError(f"{op} of other operands")
            shape = made
        elif form.like >= 0:
            shape = self._rows[sources[form.like]].shape
        elif form.turned:
            first = self._rows[sources[0]]
            shape = _turn(first.shape, form.turned)
            strides = _turn(first.strides, form.turned)
        else:
            shape = _four([number(one) for one in form.sizes])
        if form.strides:
            strides = _strides(type_name, shape, [number(one) for one in form.strides])
        elif strides is None:
            strides = contiguous(type_name, shape)
        size = number(form.size) if form.size >= 0 else -1
        if prod(shape) > _LARGEST:
            raise TapeDomainError("a tensor larger than any that is known")
        return self._row(op, type_name, shape, strides, size, sources, shows, kind, name, flags)

    def _row(
        self, op: str, type_name: str, shape: Shape, strides: Shape, size: int,
        sources: tuple[int, ...], shows: int, kind: str, name: str, flags: int,
    ) -> int:  # fmt: skip
        if len(self._rows) > _MOST_ROWS:
            raise TapeDomainError("a graph larger than any that is known")
        self._rows.append(
            Row(
                op=op,
                type=type_name,
                shape=shape,
                strides=strides,
                sources=sources,
                shows=shows,
                is_input=bool(flags & 1),
                is_output=bool(flags & 2),
                kind=kind,
                size_bytes=extent(type_name, shape, strides) if size < 0 else size,
                name=name,
            )
        )
        return len(self._rows) - 1


def _named(pattern: str, layer: int, cache_of: int) -> str:
    head, star, tail = pattern.partition("*")
    if star:
        if tail.startswith("{"):
            more, _, tail = tail[1:].partition("}")
            layer += int(more)
        return f"{head}{layer}{tail}"
    head, at, tail = pattern.partition("@")
    return f"{head}{cache_of}{tail}" if at else pattern


def _strides(type_name: str, shape: Shape, told: Sequence[int]) -> Shape:
    """Return all strides where those of one or two dimensions are told, or all (ggml_view_3d)."""
    if len(told) == 4:
        return _four(told)
    second = told[0]
    third = told[1] if len(told) == 2 else second * shape[1]
    return BLOCKS[type_name][1], second, third, third * shape[2]


def _turn(values: Shape, places: tuple[int, ...]) -> Shape:
    return values[places[0]], values[places[1]], values[places[2]], values[places[3]]


def _four(values: Sequence[int]) -> Shape:
    first, second, third, fourth = values
    return first, second, third, fourth
