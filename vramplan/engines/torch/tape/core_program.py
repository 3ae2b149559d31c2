"""A tape's code as numbers, for the compiled core: what `core/program.c` reads.

Names, labels and expressions are numbered once a tape; a program is what of the tape runs under
certain facts, at whichever numbers. What cannot be written so is refused by the core, and replayed
by the Python.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

from vramplan.engines.torch.diffusers_offload import CHAIN
from vramplan.engines.torch.tape.code import Code
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape, Variant, Weights
from vramplan.engines.torch.tape.convolution import product_thread
from vramplan.quick_typing import Any

# core/program.h
_STEP = -(1 << 40)
_FREE_ELSEWHERE, _SCRATCH, _PRODUCT, _PHASE, _CALL, _ENTER, _EXIT, _CAST, _LOOP = range(1, 10)
_SCRATCH_OF_PRODUCT = 10
_AT, _ALL, _BACK, _SAME = range(4)
#: labels that the core knows by number
_LABELS = ("load", "idle", "pipeline")

Place = tuple[int, ...]


class _Numbers(dict[str, int]):
    """Texts by number, in the order in which they were met."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number


class _Written:
    """What a tape's code is written with: its texts by number, and what has been written of it."""

    def __init__(self, tape: Tape) -> None:
        self.names = _Numbers()
        self.labels = _Numbers()
        self.expressions = _Numbers()
        for label in _LABELS:
            self.labels[label]  # takes its number
        for name in tape.known_numbers:
            self.names[name]
        self.routines = {name: number for number, name in enumerate(tape.routines)}
        self.components = {name: number for number, name in enumerate(tape.components)}
        self.variants: dict[tuple[int, bool, bool], tuple[array[int], frozenset[str]]] = {}


class Vocabulary:
    """What the programs of one tape have in common: its texts by number, its code as words.

    A tape whose code is that of one which is known, with other weights, shares them with it.
    """

    def __init__(self, tape: Tape, known: Iterable[Vocabulary] = ()) -> None:
        self.tape = tape
        same = next((other.written for other in known if other.has_code_of(tape)), None)
        written = same or _Written(tape)
        self.written: _Written = written
        self.names, self.labels = written.names, written.labels
        self.expressions, self._variants = written.expressions, written.variants
        self._routines, self._components = written.routines, written.components
        self._modules = {name: _tensors(weights) for name, weights in tape.components.items()}

    def has_code_of(self, tape: Tape) -> bool:
        """Return whether a tape is this one's with other weights: the very same code."""
        own = self.tape
        return (
            own.routines is tape.routines
            and own.dims is tape.dims
            and own.known_numbers is tape.known_numbers
            and list(own.components) == list(tape.components)
        )

    def program(self, conditions: Conditions) -> tuple[array[int], bytes]:
        """Return the words and the text of what runs under some conditions."""
        parts = self._parts(conditions)
        texts = [*self.names, *self.expressions]
        words = array("q", (len(self.names), len(self.expressions)))
        for part in parts:
            words.extend(part)
        return words, "".join(text + "\n" for text in texts).encode("ascii")

    def numbers(self, conditions: Conditions) -> array[int]:
        """Return the settings that the tape asks for, each a name's number and a value.

        None is below what the recorded loops need.
        """
        words = array("q")
        for name in self.tape.known_numbers:
            least = self.tape.least.get(name)
            value = conditions.numbers.get(name, least)
            if value is not None:
                words.extend((self.names[name], value if least is None else max(least, value)))
        return words

    # ---------------------------------------------------------------------- parts
    def _parts(self, conditions: Conditions) -> list[Iterable[int]]:
        tape = self.tape
        routines = self._reached(conditions)
        definitions = self._definitions(tape.dims)
        components: list[Iterable[int]] = []
        for name, modules in self._modules.items():
            is_skipped = name in conditions.skip_components
            head = self.labels[name], name in conditions.stays, is_skipped
            components += (head, (len(tape.components[name].modules),), modules)
        owners = [self._components.get(label.partition(".")[0], -1) for label in self.labels]
        return [
            (len(self.labels), len(tape.components)),
            *components,
            (len(owners), *owners),
            *routines,
            (self._routines[tape.entry],),
            definitions,
        ]

    def _reached(self, conditions: Conditions) -> list[Iterable[int]]:
        """Return the routines; of those that the entry reaches, the variants that the facts leave.

        A condition on dimensions is left to the core.
        """
        facts = conditions.facts
        is_sequential, own = conditions.offload == "sequential", conditions.has_own_convolutions
        written: dict[str, list[array[int]]] = {}
        ahead = [self.tape.entry]
        while ahead:
            name = ahead.pop()
            if name in written:
                continue
            written[name] = []
            for variant in self.tape.routines[name]:
                if all(facts.get(key) in values for key, values in variant.when.items()):
                    code, calls = self._variant(variant, is_sequential, own)
                    written[name].append(code)
                    ahead += calls
        parts: list[Iterable[int]] = [(len(self._routines),)]
        for name in self._routines:
            variants = written.get(name, [])
            parts += ((self.labels[name], *self._owner(name), len(variants)), *variants)
        return parts

    def _owner(self, routine: str) -> tuple[int, int]:
        """Return the component that a routine is of, and the one before it in model offload."""
        top = routine.partition(".")[0]
        if top not in self._components:
            return -1, -1
        chain = [name for name in CHAIN if name in self._components]
        place = chain.index(top) if top in chain else 0
        before = self._components[chain[place - 1]] if place else -1
        return self._components[top], before

    def _variant(
        self, variant: Variant, is_sequential: bool, has_own: bool
    ) -> tuple[array[int], frozenset[str]]:
        key = (id(variant), is_sequential, has_own)
        if key not in self._variants:
            coder = _Coder(self, variant, has_modules=is_sequential, has_own_convolutions=has_own)
            body = coder.part(variant.code, ())
            expressions = self.expressions
            words = [
                -1 if variant.condition is None else expressions[variant.condition],
                len(variant.indices),
                *(self.names[name] for name in variant.indices),
                *self._definitions(variant.derived),
                len(variant.sizes),
                *(expressions[text] for text in variant.sizes),
                len(variant.outputs),
                *variant.outputs,
                *body,
            ]
            self._variants[key] = array("q", words), frozenset(coder.calls)
        return self._variants[key]

    def _definitions(self, texts: Mapping[str, str]) -> list[int]:
        words = [len(texts)]
        for name, text in texts.items():
            words += (self.names[name], self.expressions[text])
        return words

    def routine_number(self, name: str) -> int:
        """Return the number of a routine."""
        return self._routines[name]

    def component_number(self, name: str) -> int:
        """Return the number of a component."""
        return self._components[name]


class _Coder:
    """Writes the code of one variant; without the marks of modules as its `plain_code` is."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        variant: Variant,
        *,
        has_modules: bool,
        has_own_convolutions: bool,
    ) -> None:
        self._vocabulary = vocabulary
        self._variant = variant
        self._left_out = () if has_modules else ("e", "x")
        self._has_own_convolutions = has_own_convolutions
        self.calls: set[str] = set()

    def part(self, code: Code, place: Place) -> list[int]:
        """Return a code with its number of steps and of words before it."""
        words: list[int] = []
        loops = 0
        steps = len(code)
        left_out = self._left_out
        for op in code:
            if type(op) is int:
                words.append(op)
                continue
            step: Any = op  # `code_check` has looked at its form
            kind = step[0]
            if kind in left_out:
                steps -= 1
            elif kind == "l":
                words += self._loop(step, (*place, loops))
                loops += 1
            else:
                words += self._step(kind, step)
        return [steps, len(words), *words]

    def _step(self, kind: str, step: Any) -> list[int]:
        known = self._vocabulary
        match kind:
            case "f":
                return self._free(step)
            case "w":
                words = [known.labels[step[1]], len(step) - 2, *step[2:]]
                thread = product_thread(step[1]) if self._has_own_convolutions else 0
                if thread:
                    return [_STEP - _SCRATCH_OF_PRODUCT, thread - 1, *words]
                return [_STEP - _SCRATCH, *words]
            case "g":
                return [_STEP - _PRODUCT, len(step) - 1]
            case "p":
                component = step[2] if len(step) > 2 else "pipeline"
                return [_STEP - _PHASE, known.labels[step[1]], known.labels[component]]
            case "c":
                self.calls.add(step[1])
                words = [_STEP - _CALL, known.routine_number(step[1]), len(step[2])]
                for name, size in step[2].items():
                    words += (known.names[name], size)
                return words
            case "t":
                return [_STEP - _CAST, known.component_number(step[1]), step[2]]
            case _:
                which = _ENTER if kind == "e" else _EXIT
                return [_STEP - which, known.component_number(step[1]), step[2]]

    def _free(self, step: Any) -> list[int]:
        words = [_STEP - _FREE_ELSEWHERE, step[1], len(step[2])]
        for loop, which in step[2]:
            if which == "all":
                words += (loop, _ALL, 0)
            elif isinstance(which, int):
                words += (loop, _AT, which)
            elif which[0] == "back":
                words += (loop, _BACK, which[1])
            else:
                words += (loop, _SAME, self._vocabulary.names[which[1]])
        words.append(len(step) - 3)
        for slots in step[3:]:
            words += (slots, slots) if isinstance(slots, int) else slots
        return words

    def _loop(self, step: Any, place: Place) -> list[int]:
        _, name, count, before, body, after = step
        window = self._variant.windows[place]
        words = [
            _STEP - _LOOP,
            self._vocabulary.names[name],
            self._vocabulary.expressions[count],
            -1 if window is None else window,
            name in self._variant.peers,
            len(before),
            len(after),
        ]
        for code in (*before, body, *after):
            words += self.part(code, place)
        return words


def _tensors(weights: Weights) -> array[int]:
    """Return the tensors of each module, elements or below 0 bytes, after how many there are."""
    words: list[int] = []
    for module in weights.modules:
        words.append(len(module))
        words += (-1 - int(t[:-1]) if isinstance(t, str) else t for t in module)
    return array("q", words)
