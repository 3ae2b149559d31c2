"""What a run moves, from its tape: tensors and weights in the GPU's memory, weights over PCIe.

A run takes at least the time that its bytes take to move. Each tensor that the tape allocates is
counted as written once and read once, each weight as read whenever its module runs; a convolution
or a long prompt computes longer than that, so that what offload adds weighs more here than in
truth. Loading is left out, and so is what a library does in its scratch.

What crosses PCIe: under model offload each component comes when it is called and goes back
(accelerate.hooks.CpuOffload moves it both ways), under sequential offload a module's weights come
whenever it runs and are dropped afterwards (accelerate.hooks.AlignDevicesHook).
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.engines.torch.tape.code import Code, Step
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape, Variant
from vramplan.engines.torch.tape.expressions import evaluate, evaluate_all
from vramplan.errors import TapeError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import cast

#: a tape may come from a stranger: calls within calls, and steps that are gone through
_DEEPEST = 32
_MOST_STEPS = 2_000_000
#: iterations whose sizes differ are gone through one by one, if they are no more than these
_FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Bytes that one run moves; `tensor_bytes` and `weight_bytes` are in the GPU's own memory."""

    tensor_bytes: int = 0
    weight_bytes: int = 0
    module_bytes: int = 0  # of weights of modules that offload moves, each time one is entered
    called: frozenset[str] = frozenset()  # components

    def __add__(self, other: Work) -> Work:
        return Work(
            tensor_bytes=self.tensor_bytes + other.tensor_bytes,
            weight_bytes=self.weight_bytes + other.weight_bytes,
            module_bytes=self.module_bytes + other.module_bytes,
            called=self.called | other.called,
        )

    def times(self, count: float) -> Work:
        """Return the work of doing it `count` times."""
        return Work(
            tensor_bytes=round(self.tensor_bytes * count),
            weight_bytes=round(self.weight_bytes * count),
            module_bytes=round(self.module_bytes * count),
            called=self.called,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes that one run moves in the GPU's memory, and over PCIe."""

    memory_bytes: int
    pcie_bytes: int
    weight_bytes: int  # of weights that are read, each time their component runs


def traffic(tape: Tape, conditions: Conditions) -> Traffic:
    """Return what one run of a tape moves.

    Raises TapeError where the tape does not hold for these settings.
    """
    work = _Walk(tape, conditions).whole()
    pcie_bytes = 0
    if conditions.offload == "sequential":
        pcie_bytes = work.module_bytes
    elif conditions.offload == "model":
        moved = (name for name in work.called if name not in conditions.stays)
        pcie_bytes = 2 * sum(
            tape.components[name].total_bytes(conditions.element_bytes) for name in moved
        )
    return Traffic(
        memory_bytes=2 * work.tensor_bytes + work.weight_bytes,
        pcie_bytes=pcie_bytes,
        weight_bytes=work.weight_bytes,
    )


class _Walk:
    """Goes through a tape's code once for each routine and size, loops multiplied."""

    def __init__(self, tape: Tape, conditions: Conditions) -> None:
        self._tape = tape
        self._conditions = conditions
        self._widths: dict[str, int] = {}  # of components that the pipeline casts
        self._known: dict[object, Work] = {}
        self._steps = 0

    def whole(self) -> Work:
        """Return the work of one run."""
        numbers = dict(self._conditions.numbers)
        for name, least in self._tape.least.items():
            numbers[name] = max(least, numbers.get(name, least))
        dims = {name: evaluate(text, numbers) for name, text in self._tape.dims.items()}
        try:
            return self._routine(self._tape.entry, dims, 0)
        except (IndexError, KeyError, ValueError) as error:
            raise TapeError(
                f"tape {self._tape.pipeline}: its code does not hold together ({error})"
            ) from error

    def _routine(self, name: str, dims: Mapping[str, int], depth: int) -> Work:
        if depth > _DEEPEST:
            raise TapeError(f"tape {self._tape.pipeline}: calls go too deep")
        top = name.partition(".")[0]
        key = name, tuple(sorted(dims.items())), self._widths.get(top, 0)
        if key not in self._known:
            variant = self._choose(name, dims)
            called = frozenset({top} & self._tape.components.keys())
            work = Work(called=called) + self._code(variant.code, variant, dims, depth)
            if called and not work.weight_bytes:  # its tape marks no modules
                work += self._whole(top, name.removeprefix(f"{top}."))
            self._known[key] = work
        return self._known[key]

    def _whole(self, component: str, part: str) -> Work:
        """Return the work of reading all weights of a component, or of the part that runs."""
        weights = self._tape.components[component]
        modules = weights.parts.get(part, range(len(weights.modules)))
        width = self._width(component)
        size = sum(sum(weights.tensor_bytes(module, width)) for module in modules)
        return Work(weight_bytes=size)

    def _choose(self, name: str, dims: Mapping[str, int]) -> Variant:
        for variant in self._tape.routines[name]:
            if variant.holds(self._conditions.facts, dims):
                return variant
        raise TapeError(f"tape {self._tape.pipeline} has no recording of {name} at these settings")

    def _code(self, code: Code, variant: Variant, dims: Mapping[str, int], depth: int) -> Work:
        self._steps += len(code) + len(variant.sizes)
        if self._steps > _MOST_STEPS:
            raise TapeError(f"tape {self._tape.pipeline}: too long to be gone through")
        sizes = evaluate_all(variant.sizes_code, variant.complete(dims))
        tensor_bytes = sum(sizes[op] for op in code if type(op) is int and op >= 0)
        work = Work(tensor_bytes=tensor_bytes)
        for op in code:
            if type(op) is not int:
                work += self._step(cast("Step", op), variant, dims, sizes, depth)
        return work

    def _step(
        self,
        op: Step,
        variant: Variant,
        dims: Mapping[str, int],
        sizes: tuple[int, ...],
        depth: int,
    ) -> Work:
        kind = op[0]
        if kind == "c":
            arguments = {key: sizes[n] for key, n in cast("dict[str, int]", op[2]).items()}
            return self._routine(cast("str", op[1]), arguments, depth + 1)
        if kind == "l":
            return self._loop(op, variant, dims, depth)
        if kind == "e":
            return self._module(cast("str", op[1]), cast("int", op[2]))
        if kind == "p" and len(op) > 2:
            return self._part(cast("str", op[2]))
        if kind == "t":
            self._widths[cast("str", op[1])] = cast("int", op[2])
        return Work()

    def _module(self, component: str, module: int) -> Work:
        size = sum(self._tape.components[component].tensor_bytes(module, self._width(component)))
        moved = 0 if component in self._conditions.stays else size
        return Work(weight_bytes=size, module_bytes=moved)

    def _part(self, name: str) -> Work:
        """Return the work of a part that a phase names, in a tape that marks no modules."""
        for component, weights in self._tape.components.items():
            modules = weights.parts.get(name)
            if name == component:
                modules = tuple(range(len(weights.modules)))
            if modules is not None:
                width = self._width(component)
                size = sum(sum(weights.tensor_bytes(module, width)) for module in modules)
                return Work(weight_bytes=size)
        return Work()

    def _width(self, component: str) -> int:
        return self._widths.get(component, self._conditions.element_bytes)

    def _loop(self, op: Step, variant: Variant, dims: Mapping[str, int], depth: int) -> Work:
        name = cast("str", op[1])
        before, body, after = (
            cast("list[Code]", op[3]),
            cast("Code", op[4]),
            cast("list[Code]", op[5]),
        )
        count = evaluate(cast("str", op[2]), variant.complete(dims))
        repeats = count - len(before) - len(after)
        is_indexed = name in variant.names

        def at(code: Code, number: int) -> Work:
            inner = {**dims, name: number} if is_indexed else dims
            return self._code(code, variant, inner, depth)

        work = Work()
        for number, code in enumerate(before):
            work += at(code, number)
        if repeats > 0 and body:
            first = len(before)
            if not is_indexed:
                work += at(body, first).times(repeats)
            elif repeats > _FEW and _is_polynomial(variant):
                # Simpson's rule: exact where a size is a polynomial of the third degree at most
                ends = at(body, first) + at(body, first + repeats - 1)
                middle = at(body, first + (repeats - 1) // 2)
                work += (ends + middle.times(4)).times(repeats / 6)
            else:
                for number in range(first, first + repeats):
                    work += at(body, number)
        for number, code in enumerate(after, count - len(after)):
            work += at(code, number)
        return work


def _is_polynomial(variant: Variant) -> bool:
    """True where no size jumps from one iteration to another, as tiles at an image's edge do."""
    texts = (*variant.sizes, *variant.derived.values())
    return not any(sign in text for text in texts for sign in ("%", "min", "max"))
