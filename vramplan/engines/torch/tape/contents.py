"""What a tape holds: routines, and the weights of components."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from types import CodeType

from vramplan.engines.torch.tape.code import Code, find_peers, find_windows, without_modules
from vramplan.engines.torch.tape.expressions import check_expression, compile_expressions, evaluate
from vramplan.quick_dataclass import dataclass, field

#: how a part is called that goes with a component and is another model
ON_ITS_OWN = "+"
#: how a routine is called, behind its component, that is of no part: what adapters compute
OF_ADAPTERS = "lora"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A routine's code under certain facts (dtype, attention kernel) and a condition on its dims.

    `indices` are its loops, whose numbers sizes may use; `derived` are dimensions made of others.
    """

    when: Mapping[str, tuple[str, ...]]
    condition: str | None
    indices: tuple[str, ...]
    derived: Mapping[str, str]
    sizes: tuple[str, ...]
    outputs: tuple[int, ...]
    code: Code

    @cached_property
    def sizes_code(self) -> CodeType:
        """The sizes, compiled once."""
        return compile_expressions(self.sizes)

    @cached_property
    def plain_code(self) -> Code:
        """The code without the marks that only sequential offload reads."""
        return without_modules(self.code)

    @cached_property
    def peers(self) -> frozenset[str]:
        """The loops whose iterations free what the same iteration of an earlier run left."""
        return frozenset(find_peers(self.code))

    @cached_property
    def windows(self) -> Mapping[tuple[int, ...], int | None]:
        """How many iterations back of each loop are still needed (`code.find_windows`)."""
        return find_windows(self.code)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every dimension the sizes and definitions read."""
        return frozenset().union(*map(check_expression, (*self.sizes, *self.derived.values())))

    def complete(self, dims: Mapping[str, int]) -> dict[str, int]:
        """Return `dims` with the derived ones; a loop's index is 0 outside of the loop."""
        known = {**dict.fromkeys(self.indices, 0), **dims}
        for name, text in self.derived.items():
            known[name] = evaluate(text, known)
        return known

    def holds(self, facts: Mapping[str, str], dims: Mapping[str, int]) -> bool:
        """True where this is the code that runs under `facts` at `dims`."""
        return all(facts.get(key) in values for key, values in self.when.items()) and (
            self.condition is None or bool(evaluate(self.condition, self.complete(dims)))
        )

    def may_hold(self, facts: Mapping[str, str], dims: Mapping[str, int]) -> bool:
        """True where nothing that is known says that this is not the code that runs."""
        if not all(facts[key] in values for key, values in self.when.items() if key in facts):
            return False
        if self.condition is None or not self.names_of_condition <= dims.keys():
            return True
        return bool(evaluate(self.condition, dims))

    @cached_property
    def names_of_condition(self) -> frozenset[str]:
        """Every dimension the condition reads."""
        return frozenset() if self.condition is None else check_expression(self.condition)


#: facts that decide which routines are called
_CHOOSE_CALLS = frozenset({"mode", "guided"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A component's tensors in load order, a tuple for each module that has some.

    An `int` is a count of elements of the component's dtype, a `str` such as ``616B`` fixed bytes.
    """

    parameters: int
    modules: tuple[tuple[int | str, ...], ...]
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # part -> module numbers
    part_parameters: Mapping[str, int] = field(default_factory=dict)

    def tensor_bytes(self, module: int, element_bytes: int) -> list[int]:
        """Return the bytes of each tensor of one module at `element_bytes` an element."""
        return [
            int(t[:-1]) if isinstance(t, str) else t * element_bytes for t in self.modules[module]
        ]

    def total_bytes(self, element_bytes: int) -> int:
        """Return the bytes of all tensors, unrounded."""
        return sum(sum(self.tensor_bytes(m, element_bytes)) for m in range(len(self.modules)))


def find_facts(routines: Mapping[str, tuple[Variant, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the facts that some recordings depend on, and the values there are of each."""
    found: dict[str, dict[str, None]] = {}
    for variants in routines.values():
        for variant in variants:
            for name, values in variant.when.items():
                found.setdefault(name, {}).update(dict.fromkeys(values))
    return {name: tuple(values) for name, values in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """A recorded pipeline: code and weights, sizes still open.

    `known_facts` are the facts that the recordings depend on, and the values there are of each;
    `known_numbers` are the settings that its dimensions are made of. `domain` are expressions of
    the dimensions and between what they have to be; without any the tape holds wherever its
    expressions do.
    """

    pipeline: str
    recorded_with: Mapping[str, str]
    dims: Mapping[str, str]
    least: Mapping[str, int]
    dtype_facts: Mapping[str, Mapping[str, str]]
    entry: str
    components: Mapping[str, Weights]
    routines: Mapping[str, tuple[Variant, ...]]
    known_facts: Mapping[str, tuple[str, ...]]
    known_numbers: tuple[str, ...]
    domain: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def outside(self, numbers: Mapping[str, int]) -> str | None:
        """Return what of the settings was not recorded and proved, in words, or None."""
        if not self.domain:
            return None
        known = {name: evaluate(text, numbers) for name, text in self.dims.items()}
        for text, (low, high) in self.domain.items():
            value = evaluate(text, known)
            if not low <= value <= high:
                words = re.sub(r"[a-z]+", lambda one: self.dims.get(one[0], one[0]), text)
                return f"{words} is {value}, and the tape holds from {low} to {high}"
        return None

    def lacks(self, facts: Mapping[str, str], numbers: Mapping[str, int]) -> str | None:
        """Return a routine that has no recording under these facts together, or None.

        Each may be known, and not one with the other. What a mode does not call may lack it.
        """
        dims = {name: evaluate(text, numbers) for name, text in self.dims.items()}
        wanted = {name: word for name, word in facts.items() if name not in _CHOOSE_CALLS}
        for name, variants in self.routines.items():
            if not any(variant.may_hold(wanted, dims) for variant in variants):
                return name
        return None

    def part_name(self, component: str, part: str) -> str:
        """Return what a part of a component is called: with the component's name before it.

        Where the pipeline is one model (llava) its parts are named on their own, unless they are
        routines of that component's (an autoencoder's decoder).
        """
        if not part:
            return component
        if part.startswith(ON_ITS_OWN):
            return part.removeprefix(ON_ITS_OWN)
        own = f"{component}."
        has_routines = any(
            name.startswith(own) and name != f"{own}{OF_ADAPTERS}" for name in self.routines
        )
        return part if len(self.components) == 1 and not has_routines else f"{component}.{part}"
