"""Graph tapes as JSON, and back with every kind, count and number looked at.

A tape may come from a stranger: what can be no graph is a ValueError before anything is made of it,
and what a graph may grow to is bounded where it is put together (`tape.Composer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vramplan.codec import JsonError, Limits, read_object, rows, text_of, whole
from vramplan.engines.ggml.graph.tape import (
    BY_OPERATOR,
    FIRST,
    KEYS,
    SUM,
    VALUES,
    Domain,
    Form,
    Leaf,
    Mode,
    Node,
    Part,
    Ref,
    Size,
    Tape,
    Tapes,
)
from vramplan.errors import TapeError
from vramplan.quick_typing import Any
from vramplan.sources.block_sizes import BLOCKS
from vramplan.units import MIB

FORMAT = "graph tapes 1"
#: the tapes that ship stay a factor of five below each of these
_LIMITS = Limits(text_bytes=8 * MIB, parsed_bytes=96 * MIB, depth=12, characters=20_000)
_MOST_NAMES, _MOST_SIZES, _MOST_PARTS, _MOST_TAPES = 1_000, 20_000, 5_000, 500
_MOST_TOLD = 50_000
_MOST_NODES, _MOST_LEAVES, _MOST_SOURCES, _MOST_KINDS = 10_000, 2_000, 10, 2_000
_MOST_TERMS, _MOST_FACTORS, _LARGEST_FACTOR = 8, 8, 1 << 40
_LONGEST_NAME, _LONGEST_WORDS = 256, 20_000
#: how what is not in the same part is told
_KINDS = ("head", "out", "all")
_SHARING = ("one", "apart", "in one")
_LEAF_KINDS = ("made", "weight", "cache")


def read_tapes(path: Path) -> Tapes:
    """Return the tapes in a file. Raises TapeError for what are none."""
    try:
        return build_tapes(read_object(path, _LIMITS))
    except JsonError as problem:
        raise TapeError(str(problem)) from None
    except ValueError as problem:
        raise TapeError(f"{path}: no graph tapes: {problem}") from None


def build_tapes(raw: Mapping[str, object]) -> Tapes:
    """Return the tapes that JSON's values describe. Raises ValueError."""
    if raw.get("format") != FORMAT:
        raise ValueError(f"not of the format {FORMAT!r}")
    names = tuple(text_of(one, _LONGEST_NAME) for one in rows(raw.get("names"), _MOST_NAMES))
    sizes = tuple(_size(one, len(names)) for one in rows(raw.get("sizes"), _MOST_SIZES))
    words = tuple(_word(one) for one in rows(raw.get("words"), _MOST_KINDS))
    nodes = tuple(_node(one, len(sizes)) for one in rows(raw.get("nodes"), _MOST_TOLD))
    leaves = tuple(_leaf(one, len(sizes)) for one in rows(raw.get("leaves"), _MOST_TOLD))
    parts = tuple(_part(one, nodes, leaves) for one in rows(raw.get("parts"), _MOST_PARTS))

    def part(place: object) -> Part:
        return parts[whole(place, len(parts) - 1)]

    def mode(told: object) -> tuple[tuple[bool, str], Mode]:
        flash, sharing, inputs, head, layers = _row(told, 5)
        if sharing not in _SHARING or not isinstance(flash, bool):
            raise ValueError("a mode that is none")
        kinds: dict[tuple[object, ...], Part] = {}
        for one in rows(layers, _MOST_KINDS):
            key, place = _row(one, 2)
            kinds[tuple(words[whole(word, len(words) - 1)] for word in rows(key, 32))] = part(place)
        found = tuple(text_of(one, _LONGEST_NAME) for one in rows(inputs, _MOST_LEAVES))
        return (flash, str(sharing)), Mode(inputs=found, head=part(head), layers=kinds)

    def tape(told: object) -> Tape:
        if not isinstance(told, dict):
            raise ValueError("not a tape")  # noqa: TRY004  # as for every other fault
        return Tape(
            domain=_domain(told, len(names), len(sizes)),
            features=tuple(text_of(one, 64) for one in rows(told.get("features"), 32)),
            modes=dict(mode(one) for one in rows(told.get("modes"), 16)),
        )

    return Tapes(
        architecture=text_of(raw.get("architecture"), _LONGEST_NAME),
        build=text_of(raw.get("build"), _LONGEST_NAME),
        names=names,
        sizes=sizes,
        tapes=tuple(tape(one) for one in rows(raw.get("tapes"), _MOST_TAPES)),
    )


def _row(told: object, count: int) -> list[Any]:
    found = rows(told, count)
    if len(found) != count:
        raise ValueError(f"not a list of {count}")
    return found


def _word(told: object) -> str | int | bool:
    if isinstance(told, (bool, int)):
        return told
    return text_of(told, _LONGEST_WORDS)


def _size(told: object, names: int) -> Size:
    terms = []
    for one in rows(told, _MOST_TERMS):
        top, bottom, places = _row(one, 3)
        if type(top) is not int or abs(top) > _LARGEST_FACTOR or not whole(bottom, 1 << 20):
            raise ValueError("a size with a factor that is none")
        factors = rows(places, _MOST_FACTORS)
        terms.append((top, bottom, tuple(whole(place, names - 1) for place in factors)))
    return tuple(terms)


def _domain(told: Mapping[str, object], names: int, sizes: int) -> Domain:
    classes = told.get("classes")
    if not isinstance(classes, dict) or len(classes) > _MOST_NAMES:
        raise ValueError("classes that are none")
    outputs = [one for one in rows(told.get("outputs"), 2) if isinstance(one, bool)]
    relations = [_row(one, 2) for one in rows(told.get("relations"), _MOST_NAMES)]
    return Domain(
        outside=frozenset(
            text_of(one, _LONGEST_NAME) for one in rows(told.get("outside"), _MOST_LEAVES)
        ),
        outputs=frozenset(outputs),
        classes={
            key: frozenset(text_of(one, _LONGEST_NAME) for one in rows(values, 16))
            for key, values in classes.items()
        },
        relations=tuple(
            (whole(name, names - 1), whole(size, sizes - 1)) for name, size in relations
        ),
    )


def _part(told: object, nodes: tuple[Node, ...], leaves: tuple[Leaf, ...]) -> Part:
    own, read, hands_on, shares = _row(told, 4)
    found = tuple(nodes[whole(one, len(nodes) - 1)] for one in rows(own, _MOST_NODES))
    reached = tuple(leaves[whole(one, len(leaves) - 1)] for one in rows(read, _MOST_LEAVES))
    for number, node in enumerate(found):
        for ref in (*node.sources, *(() if node.shows is None else (node.shows,))):
            most = {"in": number + 1, "leaf": len(reached)}.get(ref.kind, _MOST_NODES)
            if ref.place >= most:
                raise ValueError("a node reads what is not there")
    return Part(
        nodes=found,
        leaves=reached,
        hands_on=tuple(whole(one, len(found) - 1) for one in rows(hands_on, _MOST_NODES)),
        shares=tuple(whole(one, len(found) - 1) for one in rows(shares, _MOST_NODES)),
    )


def _node(told: object, sizes: int) -> Node:
    op, type_name, sources, shows, form, flags = _row(told, 6)
    found = tuple(_ref(one) for one in rows(sources, _MOST_SOURCES))
    if not found and (op == SUM or type_name == FIRST):
        raise ValueError("a node of nothing")
    return Node(
        op=text_of(op, 64),
        type=_type(type_name),
        sources=found,
        shows=None if shows is None else _ref(shows),
        form=_form(form, len(found), sizes),
        flags=whole(flags, 7),
    )


def _leaf(told: object, sizes: int) -> Leaf:
    name, kind, type_name, form, flags = _row(told, 5)
    if kind not in _LEAF_KINDS:
        raise ValueError("a leaf that is none")
    is_weight = kind == "weight"
    if type_name == FIRST:
        raise ValueError("a leaf of nothing")
    return Leaf(
        name=text_of(name, _LONGEST_NAME),
        kind=str(kind),
        type="" if is_weight else _type(type_name),
        form=Form() if is_weight else _form(form, 0, sizes),
        flags=whole(flags, 3),
    )


def _type(told: object) -> str:
    found = text_of(told, 16)
    if found not in BLOCKS and found not in {KEYS, VALUES, FIRST}:
        raise ValueError(f"unknown type {found!r}")
    return found


def _ref(told: object) -> Ref:
    if type(told) is int:
        if told >= 0:
            return Ref(kind="in", place=whole(told, _MOST_NODES))
        return Ref(kind="leaf", place=whole(-1 - told, _MOST_LEAVES))
    kind, place, back = _row(told, 3)
    return Ref(
        kind=_KINDS[whole(kind, len(_KINDS) - 1)],
        place=whole(place, _MOST_NODES),
        back=whole(back, 512),
    )


def _form(told: object, sources: int, sizes: int) -> Form:
    like, turned, shape, strides, size = _row(told, 5)
    places = [
        tuple(whole(one, most) for one in rows(found, 4))
        for found, most in ((turned, 3), (shape, sizes - 1), (strides, sizes - 1))
    ]
    if type(like) is not int or not BY_OPERATOR <= like < sources:
        raise ValueError("a form that is none")
    if any(len(one) not in {0, 4} for one in places[:2]) or len(places[2]) == 3:
        raise ValueError("a form that is none")
    if like == -1 and not (places[0] and sources) and not places[1]:
        raise ValueError("a form of nothing")
    return Form(
        like=like,
        turned=places[0],
        sizes=places[1],
        strides=places[2],
        size=-1 if size == -1 else whole(size, sizes - 1),
    )


# --------------------------------------------------------------------------- writing
def tell_tapes(tapes: Tapes) -> dict[str, object]:
    """Return tapes as JSON's values."""
    nodes, leaves, parts = _Table(), _Table(), _Table()
    words: list[object] = []

    def part(one: Part) -> int:
        return parts.place(
            [
                [nodes.place(_tell_node(node)) for node in one.nodes],
                [leaves.place(_tell_leaf(leaf)) for leaf in one.leaves],
                list(one.hands_on),
                list(one.shares),
            ]
        )

    def word(one: object) -> int:
        for place, other in enumerate(words):
            if other == one and type(other) is type(one):
                return place
        words.append(one)
        return len(words) - 1

    found = [_tell_tape(tape, part, word) for tape in tapes.tapes]
    return {
        "format": FORMAT,
        "architecture": tapes.architecture,
        "build": tapes.build,
        "names": list(tapes.names),
        "sizes": [[[top, bottom, list(places)] for top, bottom, places in one]
                  for one in tapes.sizes],
        "words": words,
        "nodes": nodes.told,
        "leaves": leaves.told,
        "parts": parts.told,
        "tapes": found,
    }  # fmt: skip


def _tell_tape(
    tape: Tape, part: Callable[[Part], int], word: Callable[[object], int]
) -> dict[str, object]:
    domain = tape.domain
    return {
        "outside": sorted(domain.outside),
        "outputs": sorted(domain.outputs),
        "classes": {key: sorted(values) for key, values in sorted(domain.classes.items())},
        "relations": [list(one) for one in domain.relations],
        "features": list(tape.features),
        "modes": [
            [
                flash,
                sharing,
                list(mode.inputs),
                part(mode.head),
                [[[word(one) for one in key], part(kind)] for key, kind in mode.layers.items()],
            ]
            for (flash, sharing), mode in tape.modes.items()
        ],
    }


class _Table:
    """Values, each told once."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self._places: dict[str, int] = {}

    def place(self, value: object) -> int:
        key = repr(value)
        if key not in self._places:
            self._places[key] = len(self.told)
            self.told.append(value)
        return self._places[key]


def _tell_node(node: Node) -> list[object]:
    shows = None if node.shows is None else _tell_ref(node.shows)
    sources = [_tell_ref(one) for one in node.sources]
    return [node.op, node.type, sources, shows, _tell_form(node.form), node.flags]


def _tell_leaf(leaf: Leaf) -> list[object]:
    return [leaf.name, leaf.kind, leaf.type, _tell_form(leaf.form), leaf.flags]


def _tell_ref(ref: Ref) -> object:
    if ref.kind == "in":
        return ref.place
    if ref.kind == "leaf":
        return -1 - ref.place
    return [_KINDS.index(ref.kind), ref.place, ref.back]


def _tell_form(form: Form) -> list[object]:
    return [form.like, list(form.turned), list(form.sizes), list(form.strides), form.size]
