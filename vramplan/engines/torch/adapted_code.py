"""A tape's code with what LoRA adapters compute beside the layers that have them.

peft runs ``result + lora_B(lora_A(x)) * scaling`` behind a layer, of ``x`` in the adapter's dtype,
and gives back the sum in the layer's own (tuners/lora/layer.py, the same from 0.17 to 0.21, which
diffusers runs too). A tape has no names of layers. An allocation is taken for a layer's result
where it has a result's bytes for some count of tokens, an input of as many is live, and as many
shapes that read so wide an input are met with that count as with the usual one. What an
activation function makes of a layer's result is as large, and takes the place of one that goes
then: between sides that differ, such a one is none. Behind each that is taken a routine is called
that allocates what peft does. Some that are as large as a layer's are taken too: it is a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from vramplan.engines.torch.module_list import LINEAR, ModuleList
from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.code import Code, loop_parts
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import OF_ADAPTERS, Tape, Variant
from vramplan.engines.torch.tape.frames import Frame
from vramplan.engines.torch.tape.replay import Replay
from vramplan.engines.torch.tape.residency import Residency
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TypeAlias, cast

#: the dimensions that it is called with
_TOKENS, _SHAPE = "tokens", "shape"
#: of a component's run so many allocations get adapters, those beside which most is live with them
_MOST_PLACES = 8

#: a layer's inputs and outputs
Shape: TypeAlias = tuple[int, int]
#: the adapters of a layer, one after the other: the rank and the bytes of an element
Ranks: TypeAlias = tuple[tuple[int, int], ...]
#: an allocation: the code that it is in, by identity, and which step
Place: TypeAlias = tuple[int, int]


def with_adapters(
    tape: Tape,
    conditions: Sequence[Conditions],
    lists: Mapping[str, ModuleList],
    adapted: Mapping[str, Mapping[Shape, Ranks]],
    element_bytes: int,
) -> Tape:
    """Return a tape whose layers have adapters, for runs under each of some conditions.

    `adapted` are the layers of each component that have some. The same tape where nothing of it is
    taken for one.
    """
    found: dict[Place, tuple[str, Shape]] = {}
    for one in conditions:
        watch = _Watch(tape, one, lists, adapted, element_bytes)
        watch.run()
        found |= watch.results()
    if not found:
        return tape
    shapes = {component: list(layers) for component, layers in adapted.items()}
    routines = {
        name: tuple(_changed(variant, found, shapes, element_bytes) for variant in variants)
        for name, variants in tape.routines.items()
    }
    for component, layers in adapted.items():
        routines[f"{component}.{OF_ADAPTERS}"] = tuple(
            _routine(number, shape, ranks, element_bytes)
            for number, (shape, ranks) in enumerate(layers.items())
        )
    return replace(tape, routines=routines)


# --------------------------------------------------------------------------- what is a result
class _Allocated:
    """An allocation of the run: which layers it may be the result of, with how many tokens."""

    __slots__ = ("block", "component", "freed", "layers", "live_bytes", "place", "size_bytes")

    def __init__(
        self,
        place: Place,
        component: str,
        block: Block,
        size_bytes: int,
        layers: Sequence[tuple[Shape, int]],
        live_bytes: int,
    ) -> None:
        self.live_bytes = live_bytes
        self.place = place
        self.component = component
        self.block = block
        self.size_bytes = size_bytes
        self.layers = layers
        self.freed: set[int] = set()  # bytes of what goes before anything else comes


class _Met:
    """What was seen of a component: shapes and tokens, and allocations by place."""

    __slots__ = ("live_bytes", "often", "places", "tokens")

    def __init__(self) -> None:
        self.live_bytes: dict[Place, int] = {}  # the most there is
        self.tokens: dict[Shape, set[int]] = {}
        self.often: dict[int, Counter[int]] = {}  # inputs -> how often so many tokens were met
        self.places: dict[Place, set[tuple[Shape, int]]] = {}


class _Sizes(CachingAllocator):
    """An allocator that counts the tensors that are live, by the bytes that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[int] = Counter()
        self.asked: dict[int, int] = {}  # by the block's identity
        self.last: _Allocated | None = None
        self.live_bytes = 0

    def malloc(self, size_bytes: int) -> Block:
        """Return a block."""
        block = super().malloc(size_bytes)
        self.live[size_bytes] += 1
        self.asked[id(block)] = size_bytes
        self.live_bytes += size_bytes
        self.last = None
        return block

    def free(self, block: Block) -> None:
        """Take a block back."""
        size_bytes = self.asked.pop(id(block))
        self.live[size_bytes] -= 1
        self.live_bytes -= size_bytes
        if self.last is not None and block is not self.last.block:
            self.last.freed.add(size_bytes)
        super().free(block)


def _no_scratch(_kind: str, _operands: tuple[int, ...]) -> int:
    return 0


class _NoWeights(Residency):
    """No weights: what is live is what the run computes."""

    def cast(self, component: str, element_bytes: int) -> int:
        del component, element_bytes
        return 0

    def enter_module(self, component: str, module: int) -> int:
        del component, module
        return 0

    def exit_module(self, component: str, module: int) -> None:
        del component, module


class _Watch(Replay):
    """Runs a tape's own code once, and looks at what it allocates."""

    def __init__(
        self,
        tape: Tape,
        conditions: Conditions,
        lists: Mapping[str, ModuleList],
        adapted: Mapping[str, Mapping[Shape, Ranks]],
        element_bytes: int,
    ) -> None:
        self._sizes_of = _Sizes()
        # its code is the one with the marks of modules, which the other is made from
        once = replace(
            conditions,
            offload="sequential",
            numbers={**conditions.numbers, **tape.least},
            workspace_bytes=_no_scratch,
            cast_workspace_bytes={},
            cublas_bytes=0,
        )
        residency = _NoWeights(tape, once, self._sizes_of)
        super().__init__(tape, once, self._sizes_of, residency=residency)
        self._adapted = adapted
        self._element_bytes = element_bytes
        self._only = next(iter(lists)) if len(lists) == 1 else ""
        self._shapes = {name: _shapes(lists[name], adapted[name]) for name in adapted}
        self._met = {name: _Met() for name in adapted}
        self._seen: list[_Allocated] = []

    def _sequence(
        self, code: Code, frame: Frame, variant: Variant, dims: Mapping[str, int]
    ) -> None:
        self._spend(len(code))
        self._sizes_of.last = None
        sizes = self._sizes_at(variant, dims)
        slots = frame.slots
        # one token at a time: little beside what a prompt takes, and as often as there are tokens
        is_counted = any(name in dims for name in variant.indices)
        for step, op in enumerate(code):
            if type(op) is not int:
                self._step(cast("list[object]", op), frame, variant, dims, sizes)
            elif op < 0:
                self._sizes_of.free(slots[-op - 1])
            else:
                block = self._sizes_of.malloc(sizes[op])
                slots.append(block)
                if not is_counted:
                    self._look((id(code), step), block, sizes[op])

    def _look(self, place: Place, block: Block, size_bytes: int) -> None:
        component = self.component.partition(".")[0]
        if component not in self._shapes:
            component = self._only
        shapes = self._shapes.get(component)
        if not shapes or not size_bytes:
            return
        width, live = self._element_bytes, self._sizes_of.live
        layers = []
        for inside, outside in shapes:
            tokens, rest = divmod(size_bytes, outside * width)
            asked = tokens * inside * width
            if not rest and live.get(asked, 0) > (asked == size_bytes):
                layers.append(((inside, outside), tokens))
        if layers:
            live_bytes = self._sizes_of.live_bytes
            found = _Allocated(place, component, block, size_bytes, layers, live_bytes)
            self._seen.append(found)
            self._sizes_of.last = found

    def results(self) -> dict[Place, tuple[str, Shape]]:
        """Return the allocations that are results of adapted layers, and whose."""
        for one in self._seen:
            met = self._met[one.component]
            layers = [layer for layer in one.layers if self._may_be(one, *layer)]
            for shape, tokens in layers:
                met.tokens.setdefault(shape, set()).add(tokens)
                met.often.setdefault(shape[0], Counter())[tokens] += 1
            if not self._is_anothers(one, layers):
                met.places.setdefault(one.place, set()).update(layers)
                known = met.live_bytes.get(one.place, 0)
                met.live_bytes[one.place] = max(known, one.live_bytes)
        found: dict[Place, tuple[str, Shape]] = {}
        for component, met in self._met.items():
            found |= {place: (component, shape) for place, shape in self._taken(component, met)}
        return found

    def _may_be(self, one: _Allocated, shape: Shape, tokens: int) -> bool:
        """Return whether it may be a layer's result, by what goes before anything else comes."""
        if shape[0] == shape[1] or one.size_bytes not in one.freed:
            return True
        return tokens * shape[0] * self._element_bytes in one.freed

    def _is_anothers(self, one: _Allocated, layers: Sequence[tuple[Shape, int]]) -> bool:
        """Return whether it is the result of a layer without adapters: its wide input goes then."""
        adapted, width = self._adapted[one.component], self._element_bytes
        return any(
            shape not in adapted and shape[0] > shape[1] and tokens * shape[0] * width in one.freed
            for shape, tokens in layers
        )

    def _taken(self, component: str, met: _Met) -> Iterator[tuple[Place, Shape]]:
        adapted = self._adapted[component]
        widths = Counter(inside for inside, _ in self._shapes[component])
        usual = {
            (shape, tokens)
            for shape, those in met.tokens.items()
            for tokens in those
            if self._is_usual(component, met, shape, tokens)
        }
        # a width that one shape alone reads says nothing of tokens: as many as others have, at most
        most = max((tokens for shape, tokens in usual if widths[shape[0]] > 1), default=0)
        usual = {one for one in usual if not most or one[1] <= most}
        taken: dict[Place, list[tuple[Shape, int]]] = {}
        for place, layers in met.places.items():
            for shape, tokens in layers:
                if shape in adapted and (shape, tokens) in usual:
                    taken.setdefault(place, []).append((shape, tokens))
        widest = {
            place: max(layers, key=lambda layer: self._taken_bytes(adapted, *layer))
            for place, layers in taken.items()
        }
        ranked = sorted(
            widest,
            key=lambda place: met.live_bytes[place] + self._taken_bytes(adapted, *widest[place]),
            reverse=True,
        )
        for place in ranked[:_MOST_PLACES]:
            yield place, widest[place][0]

    def _taken_bytes(self, adapted: Mapping[Shape, Ranks], shape: Shape, tokens: int) -> int:
        """Return about what a layer's adapters take at once."""
        inside, outside = shape
        width = max(width for _, width in adapted[shape])
        copied = inside * width if width != self._element_bytes else 0
        return tokens * (copied + 2 * outside * width)

    def _is_usual(self, component: str, met: _Met, shape: Shape, tokens: int) -> bool:
        """Return whether enough of the shapes with such inputs are met with so many tokens.

        As many as with the number that is met most often, half of them, and two of several.
        """
        alike = [one for one in self._shapes[component] if one[0] == shape[0]]

        def count(number: int) -> int:
            return sum(number in met.tokens.get(one, ()) for one in alike)

        usual = max(met.often[shape[0]], key=met.often[shape[0]].__getitem__)
        least = max(count(usual), -(-len(alike) // 2), min(2, len(alike)))
        if count(tokens) < least:
            return False
        # what looks like an input of so many tokens may be a wider layer's result, of fewer
        return not any(
            outside > shape[0]
            and tokens * shape[0] % outside == 0
            and tokens * shape[0] // outside in met.tokens.get((inside, outside), ())
            and tokens not in met.tokens[inside, outside]
            for inside, outside in alike
        )


def _shapes(modules: ModuleList, adapted: Collection[Shape]) -> list[Shape]:
    """Return the shapes of a component's linear layers that come more than once, and adapted ones.

    A head, which is there once, has fewer tokens than what comes before it.
    """
    counts = Counter(
        (one.columns, one.rows) for one in modules.modules if one.kind == LINEAR and one.rows
    )
    usual = [shape for shape, count in counts.items() if count > 1 and all(shape)]
    return list(dict.fromkeys((*usual, *adapted)))


# -------------------------------------------------------------------------------- the new code
def _changed(
    variant: Variant,
    found: Mapping[Place, tuple[str, Shape]],
    shapes: Mapping[str, Sequence[Shape]],
    element_bytes: int,
) -> Variant:
    sizes = list(variant.sizes)
    known: dict[str, int] = {}

    def number(text: str) -> int:
        if text not in known:
            known[text] = len(sizes)
            sizes.append(text)
        return known[text]

    def written(code: Code) -> Code:
        kept: Code = []
        for step, op in enumerate(code):
            if isinstance(op, list) and op[0] == "l":
                before, body, after = op[3:6]
                parts = [[written(one) for one in before], written(body)]
                op = [*op[:3], *parts, [written(one) for one in after]]  # noqa: PLW2901  # the same step, its codes written anew
            kept.append(op)
            if (id(code), step) in found:
                component, shape = found[id(code), step]
                size = variant.sizes[cast("int", op)]
                tokens = number(f"({size})//{shape[1] * element_bytes}")
                which = number(str(shapes[component].index(shape)))
                dims = {_TOKENS: tokens, _SHAPE: which}
                kept.append(["c", f"{component}.{OF_ADAPTERS}", dims, 0])
        return kept

    known_codes = {id(code) for code in _codes(variant.code)}
    if not any(code in known_codes for code, _ in found):
        return variant
    code = written(variant.code)
    return Variant(
        when=variant.when,
        condition=variant.condition,
        indices=variant.indices,
        derived=variant.derived,
        sizes=tuple(sizes),
        outputs=variant.outputs,
        code=code,
    )


def _codes(code: Code) -> Iterator[Code]:
    yield code
    for op in code:
        if isinstance(op, list) and op[0] == "l":
            for part in loop_parts(op):
                yield from _codes(part)


def _routine(number: int, shape: Shape, ranks: Ranks, element_bytes: int) -> Variant:
    """Return what a layer's adapters allocate, beside its result, which stays the caller's.

    In an adapter's dtype the input, where it is in another; the product of the first matrix, then
    of the second, that scaled; and the sum, which takes the result's place, wider than it or not.
    """
    inside, outside = shape
    sizes: list[str] = []
    code: Code = []
    slots = 0

    def take(elements: int, width: int) -> int:
        nonlocal slots
        text = f"{_TOKENS}*{elements * width}"
        if text not in sizes:
            sizes.append(text)
        code.append(sizes.index(text))
        slots += 1
        return -slots

    copied, wider = 0, 0  # the input in an adapter's dtype, what a sum has more than the result
    width_now = element_bytes
    for rank, width in ranks:
        if width != width_now:
            earlier, copied = copied, take(inside, width) if width != element_bytes else 0
            width_now = width
            code += [earlier] if earlier else []
        low = take(rank, width)
        product = take(outside, width)
        code.append(low)
        scaled = take(outside, width)
        code.append(product)
        total = take(outside, max(width, element_bytes))
        code += [scaled, total]
        if width > element_bytes and not wider:
            wider = take(outside, width - element_bytes)
    code += [slot for slot in (copied, wider) if slot]
    return Variant(
        when={},
        condition=f"{_SHAPE}=={number}",
        indices=(),
        derived={},
        sizes=tuple(sizes),
        outputs=(),
        code=code,
    )
