"""Code out of alike trees: one step for each item, its sizes fitted over all the recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vramplan.engines.torch.record.grammar import Grammar
from vramplan.engines.torch.record.shape import Path, Shape, select
from vramplan.engines.torch.record.stream import Alloc, Call, Cast, Gemm, Leaf, Phase, Workspace
from vramplan.engines.torch.record.structure import FreeRun, Item, Loop, Sequence
from vramplan.engines.torch.tape.code import Code
from vramplan.engines.torch.tape.expressions import evaluate
from vramplan.errors import RecordingError

Dims = dict[str, int]
_Kind = TypeVar("_Kind", bound=Item)


@dataclass(frozen=True, slots=True)
class Place:
    """One occurrence of a sequence: in which recording, with which loop indices."""

    sequence: Sequence
    dims: tuple[tuple[str, int], ...]


class Search(Protocol):
    """What finds a size's expression: `size_fit.Fitter`, or another."""

    def fit(self, samples: list[tuple[Dims, int]], what: str) -> str:
        """Return the expression that gives each sample's size at its dimensions."""


class Writer:
    """Writes one routine's code; `sizes` are the expressions its steps point to, in their order."""

    def __init__(self, routine: str, fitter: Search, grammar: Grammar, shape: Shape) -> None:
        self.routine = routine
        self.shape = shape
        self.fitter = fitter
        self.grammar = grammar
        self.sizes: dict[str, int] = {}
        self._has_gemm: set[bool] = set()

    def sequence(self, places: list[Place], path: Path = ()) -> Code:
        """Return the code of the same sequence as the recordings have it in `places`."""
        code: Code = []
        full = [self.grammar.complete(dict(place.dims)) for place in places]
        for position in range(len(places[0].sequence.items)):
            items = [place.sequence.items[position] for place in places]
            code.extend(self._item(items, full, places, path))
        return code

    def _size(self, dims: list[Dims], sizes: list[int], what: str) -> int:
        samples = list(zip(dims, sizes, strict=True))
        text = self.fitter.fit(samples, f"{self.routine}: {what}")
        return self.sizes.setdefault(text, len(self.sizes))

    def _item(
        self, items: list[Item], dims: list[Dims], places: list[Place], path: Path
    ) -> Iterator[object]:
        first = items[0]
        if isinstance(first, Alloc):
            yield self._size(dims, [i.size_bytes for i in _all(items, Alloc)], first.operator)
        elif isinstance(first, FreeRun):
            yield from self._frees(_all(items, FreeRun))
        elif isinstance(first, Workspace):
            rows = zip(*(i.operands for i in _all(items, Workspace)), strict=True)
            yield ["w", first.kind, *(self._size(dims, [*row], first.kind) for row in rows)]
        elif isinstance(first, Gemm):
            if (
                first.is_backward not in self._has_gemm
            ):  # only the first product of a thread matters
                self._has_gemm.add(first.is_backward)
                yield ["g", "autograd"] if first.is_backward else ["g"]
        elif isinstance(first, Phase):
            part = [] if first.component == "pipeline" else [first.component]
            yield ["p", first.name, *part]
        elif isinstance(first, Leaf):
            yield ["e" if first.is_enter else "x", first.component, first.module]
        elif isinstance(first, Cast):
            yield ["t", first.component, first.element_bytes]
        elif isinstance(first, Call):
            yield self._call(_all(items, Call), dims)
        else:
            yield self._loop(_all(items, Loop), places, path)

    def _call(self, calls: list[Call], dims: list[Dims]) -> list[object]:
        first = calls[0]
        arguments = {
            name: self._size(dims, [call.dims[name] for call in calls], f"{first.routine}.{name}")
            for name in first.dims
        }
        return ["c", first.routine, arguments, len(first.outputs)]

    def _frees(self, runs: list[FreeRun]) -> Iterator[object]:
        """Yield one run of frees as all the recordings have it; slots of one place go together."""
        places: dict[str, tuple[int, list[object], list[int]]] = {}
        for addresses in zip(*(run.addresses for run in runs), strict=True):
            up, slot = addresses[0].up, addresses[0].slot
            steps: list[object] = []
            for depth, (ordinal, _) in enumerate(addresses[0].path):
                selection = select([address.path[depth][1] for address in addresses])
                if selection is None:
                    raise RecordingError(f"{self.routine}: a free names {set(addresses)}")
                steps.append([ordinal, selection])
            places.setdefault(repr((up, steps)), (up, steps, []))[2].append(slot)
        for up, steps, slots in places.values():
            written = write_slots(slots)
            if up == 0 and not steps:
                yield from (-slot - 1 for slot in written if isinstance(slot, int))
                written = [slot for slot in written if not isinstance(slot, int)]
            if written:
                yield ["f", up, steps, *written]

    def _loop(self, loops: list[Loop], places: list[Place], path: Path) -> list[object]:
        name, inner = loops[0].name, (*path, loops[0].ordinal)
        count = self.grammar.counts.get(name)
        if count is None:
            raise RecordingError(
                f"{self.routine}: the recipe does not say how often loop {name!r} runs"
            )
        parts: tuple[list[list[Place]], ...] = ([], [], [])  # before, in and after the body
        for loop, place in zip(loops, places, strict=True):
            expected, ran = (
                evaluate(count, self.grammar.complete(dict(place.dims))),
                loop.iterations,
            )
            if expected != len(ran):
                raise RecordingError(
                    f"{self.routine}: loop {name!r} ran {len(ran)} times, "
                    f"the recipe says {expected}"
                )
            for found, part in zip(parts, self.shape.fold(loop, inner), strict=True):
                found.append([Place(s, (*place.dims, (name, s.number))) for s in part])
        before, body, after = parts
        bodies = [place for each in body for place in each]
        return [
            "l",
            name,
            count,
            [self.sequence([*same], inner) for same in zip(*before, strict=True)],
            self.sequence(bodies, inner) if bodies else [],
            [self.sequence([*same], inner) for same in zip(*after, strict=True)],
        ]


def _all(items: list[Item], kind: type[_Kind]) -> list[_Kind]:
    """Return the items, which are of one kind because their forms agree."""
    return [item for item in items if isinstance(item, kind)]


def write_slots(slots: list[int]) -> list[int | list[int]]:
    """Return sorted slots, longer runs as [first, last]: an optimizer's state is one run."""
    runs: list[list[int]] = []
    for slot in sorted(slots):
        if runs and runs[-1][-1] == slot - 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    written: list[int | list[int]] = []
    for run in runs:
        written.extend([[run[0], run[-1]]] if len(run) > 3 else run)
    return written
