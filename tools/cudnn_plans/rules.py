"""From cuDNN's answers to rules: sums that give every answer exactly, and what they hold for.

A layer's answers are put in the order of the positions of its output, or of one image of it; those
of one image and of several together, or each by themselves: what takes fewest lists. Neighbours
share a list of plans as long as the same sums explain all of them; a single one between two that
agree is an exception and stands by itself. Nothing is rounded to fit: an answer is known to 512
bytes, as torch's allocator rounds it, and each sum gives exactly that.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.tape.convolution import read_kind
from vramplan.engines.torch.tape.plans import MOST_PLANS
from vramplan.engines.torch.witnessed_files import SCHEMA_VERSION
from vramplan.engines.torch.witnessed_plans import (
    LayerPlans,
    Plans,
    Ranges,
    Shape,
    Sizes,
    size_name,
    work_out,
)

#: a layer's kind, its batch and the sides of its input
Case = tuple[str, int, tuple[int, ...]]
Question = tuple[Case, str]  # and the dtype
Answers = Sequence[tuple[Question, list[int] | None]]

_ROUND = 512
#: after the first plan, those below this are as good as none
_SMALL = 2 << 20
#: what may be added to a sum of operands, the likeliest first
_USUAL = (16, 0, 128, 144, 147)
_SUMS = (
    "", "x+y", "x", "y", "2x+y", "x+2y", "2x", "2y", "2x+2y",
    "x+4y", "4y", "4x+y", "6p", "x+6p", "y+6p", "x+y+6p", "x4+y4", "x4", "y4",
    "x8+y8", "x8", "y8", "x8+y", "x+y8", "x8+6p", "y8+6p", "x8+y8+6p", "x32+y32",
)  # fmt: skip

#: more bytes a position than these are an image's columns
_POSITIONS = 6

#: for each sum the constants that could be added to it: from, to
Candidates = dict[str, tuple[int, int]]


def tried_plans(answer: Sequence[int]) -> tuple[int, ...]:
    """Return the plans that can matter: each takes less than all that were tried before it."""
    found: list[int] = []
    for size in answer:
        if not found or size < found[-1]:
            found.append(size)
    if found[-1] == 0:
        found = [
            size for place, size in enumerate(found) if place == 0 or size >= _SMALL or not size
        ]
    return (*found[: MOST_PLANS - 1], found[-1]) if len(found) > MOST_PLANS else tuple(found)


@dataclass
class _Run:
    """Neighbours that the same sums explain."""

    shapes: list[Shape]
    candidates: list[Candidates]
    exceptions: list[tuple[Shape, tuple[int, ...]]] = field(default_factory=list)

    def with_run(self, other: _Run) -> _Run | None:
        """Return both as one; None where no sums explain both."""
        if len(self.candidates) != len(other.candidates):
            return None
        both = [_both(one, two) for one, two in zip(self.candidates, other.candidates, strict=True)]
        if not all(both):
            return None
        return _Run(self.shapes + other.shapes, both, self.exceptions + other.exceptions)

    def text(self) -> str:
        """Return the plans as a rule has them."""
        return " > ".join(_written(one, self.shapes[0]) for one in self.candidates)


def _both(one: Candidates, other: Candidates) -> Candidates:
    found = {}
    for name in one.keys() & other.keys():
        low, high = max(one[name][0], other[name][0]), min(one[name][1], other[name][1])
        if low <= high:
            found[name] = (low, high)
    return found


def _candidates(size: int, shape: Shape) -> Candidates:
    """Return what explains a size that was rounded up."""
    if size == 0:
        return {"": (0, 0)}
    layer = shape.layer
    column = layer.in_channels // layer.groups * math.prod(layer.kernel) * shape.element_bytes
    found = {}
    for name in (*_SUMS, f"{column}p"):
        base = work_out(name, shape) if name else 0
        low, high = size - _ROUND + 1 - base, size - base
        if high >= 0:
            found[name] = (max(0, low), high)
    return found


def _written(candidates: Candidates, shape: Shape) -> str:
    """Return the plainest of the sums that explain a run."""
    return min((_sum(name, *between, shape) for name, between in candidates.items()), key=_cost)


def _sum(name: str, low: int, high: int, shape: Shape) -> str:
    for times, letter in ((0, "f"), (1, "f"), (2, "f"), (1, "f8"), (1, "f4"), (3, "f")):
        filters = times * shape.measure("f", int(letter[1:] or 1))
        for number in _USUAL:
            if low <= filters + number <= high:
                parts = [name] if name else []
                if times:
                    parts.append(letter if times == 1 else f"{times}{letter}")
                if number or not parts:
                    parts.append(str(number))
                return "+".join(parts)
    return f"{name}+{high}" if name else str(high)


def _cost(text: str) -> tuple[int, int, str]:
    """Return how far-fetched a sum is: the larger a number of its own, the more so.

    What is found from one answer is used for others near it, where operands grow and numbers do
    not.
    """
    terms = text.split("+")
    odd = max(
        (int(term) for term in terms if term.isdecimal() and int(term) not in _USUAL), default=0
    )
    filled = sum(not term.isdecimal() and not term.endswith(("x", "y", "f", "p")) for term in terms)
    # an image's columns are as large as some sums of operands at sides and batches of powers of two
    columns = sum(term.endswith("p") and int(term[:-1] or 1) > _POSITIONS for term in terms)
    return (
        (2 + odd.bit_length() if odd else 0) + filled + 3 * columns + len(terms), len(text), text
    )  # fmt: skip


def _by_positions(shape: Shape) -> int:
    return shape.positions


def _by_image(shape: Shape) -> int:
    return shape.image_positions


Rows = list[tuple[Shape, tuple[int, ...]]]
Count = Callable[[Shape], int]


def _runs(rows: Rows, count: Count) -> list[_Run]:
    runs: list[_Run] = []
    for shape, plans in sorted(rows, key=lambda row: (count(row[0]), row[0].batch)):
        one = _Run([shape], [_candidates(size, shape) for size in plans])
        joined = runs[-1].with_run(one) if runs else None
        if joined is not None:
            runs[-1] = joined
            continue
        if len(runs) > 1 and len(runs[-1].shapes) == 1:  # one between two that agree?
            around = runs[-2].with_run(one)
            if around is not None:
                runs.pop()
                runs[-1] = around
                continue
        runs.append(one)
    return runs


def _ranges(rows: Rows, count: Count) -> Ranges:
    """Return the lists that hold for some rows, in the order of what `count` counts."""
    runs = _runs(rows, count)
    lists: list[tuple[int, str]] = []
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        most = 0
        if following is not None:
            most = math.isqrt(count(run.shapes[-1]) * count(following.shapes[0]))
        if lists and lists[-1][1] == run.text():
            lists[-1] = (most, run.text())
        else:
            lists.append((most, run.text()))
    return Ranges(lists=tuple(lists), is_by_image=count is _by_image)


def _forms(rows: Rows) -> Iterator[LayerPlans]:
    """Yield a layer's plans in every form, the plainest first, without exceptions."""
    counts = (_by_positions, _by_image)
    for count in counts:
        yield LayerPlans(ranges=_ranges(rows, count), exceptions={})
    one = [row for row in rows if row[0].batch == 1]
    several = [row for row in rows if row[0].batch > 1]
    if one and several:
        for count in counts:
            yield LayerPlans(
                ranges=_ranges(one, count), several=_ranges(several, count), exceptions={}
            )


def _exceptions(form: LayerPlans, rows: Rows) -> dict[str, str]:
    """Return the rows that a form does not give, each by itself."""
    found = {}
    for shape, plans in rows:
        sizes = tuple(-(-size // _ROUND) * _ROUND for size in form.sizes_at(shape))
        if sizes != plans:
            own = _Run([shape], [_candidates(size, shape) for size in plans])
            found["x".join(map(str, (shape.batch, *shape.sides)))] = own.text()
    return found


def _layer(rows: Rows) -> object:
    """Return a layer's plans as the file has them: in the form that takes the fewest lists."""
    tried = [(form, _exceptions(form, rows)) for form in _forms(rows)]
    form, but = min(tried, key=lambda one: _lists(one[0]) + len(one[1]))
    if form.several is not None:
        described = {"one image": _described(form.ranges), "several": _described(form.several)}
    else:
        described = _described(form.ranges)
        if len(form.ranges.lists) == 1 and not but:
            return form.ranges.lists[0][1]
    return {**described, **({"but": but} if but else {})}


def _lists(form: LayerPlans) -> int:
    return len(form.ranges.lists) + (len(form.several.lists) if form.several else 0)


def _described(ranges: Ranges) -> dict[str, object]:
    name = "image up to" if ranges.is_by_image else "up to"
    return {name: [list(one) for one in ranges.lists]}


def _shape(question: Question) -> Shape:
    (kind, batch, sides), dtype = question
    layer = read_kind(kind)
    if layer is None:
        raise ValueError(kind)
    return Shape(layer=layer, batch=batch, sides=sides, element_bytes=ELEMENT_BYTES[dtype])


def plans_text(
    answers: Answers, versions: Mapping[str, object], capability: str
) -> tuple[str, str]:
    """Return the text of an architecture's file, and what is in it in words."""
    grouped: dict[str, dict[str, list[tuple[Shape, tuple[int, ...]]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for question, plans in answers:
        if plans:  # there are layers that cuDNN finds nothing for (depthwise in bf16 on 7.5)
            (kind, _, _), dtype = question
            grouped[dtype][kind].append((_shape(question), tried_plans(plans)))
    layers = {
        dtype: {kind: _layer(rows) for kind, rows in sorted(kinds.items())}
        for dtype, kinds in sorted(grouped.items())
    }
    rows = "\n".join(
        f'    "{dtype}": {{\n'
        + ",\n".join(f"      {json.dumps(kind)}: {json.dumps(one)}" for kind, one in kinds.items())
        + "\n    }" + ("," if dtype != max(layers) else "")
        for dtype, kinds in layers.items()
    )  # fmt: skip
    text = (
        f'{{\n  "schema_version": {SCHEMA_VERSION},\n'
        f'  "command": "python -m tools.cudnn_plans",\n'
        f'  "compute_capability": {json.dumps(capability)},\n'
        f'  "versions": {json.dumps(_versions(versions))},\n  "layers": {{\n{rows}\n  }}\n}}\n'
    )
    described = [one for kinds in layers.values() for one in kinds.values()]
    exceptions = sum(len(one.get("but", ())) for one in described if isinstance(one, dict))
    count = sum(len(rows) for kinds in grouped.values() for rows in kinds.values())
    return text, f"{count} answers, {len(described)} rules, {exceptions} exceptions"


def _versions(said: Mapping[str, object]) -> dict[str, str]:
    number = int(str(said["cudnn"]))
    return {
        "torch": str(said["torch"]),
        "cudnn": f"{number // 10000}.{number // 100 % 100}.{number % 100}",
    }


def asked_cases(plans: Plans, answers: Answers) -> set[Case]:
    """Return what an architecture was asked in every dtype, where the rules say what it answered.

    What cuDNN finds nothing for is no answer of its own: torch goes another way (`is_own`).
    """
    dtypes: dict[Case, set[str]] = defaultdict(set)
    for question, answer in answers:
        case, dtype = question
        if not answer or _said(plans, question) == tried_plans(answer):
            dtypes[case].add(dtype)
    return {case for case, found in dtypes.items() if len(found) == len(plans.layers)}


def asked_text(asked: Iterable[Case]) -> str:
    """Return the text of the file of what all architectures were asked."""
    sizes: dict[str, list[str]] = defaultdict(list)
    for kind, batch, sides in sorted(asked):
        sizes[kind].append(size_name(batch, sides))
    rows = ",\n".join(
        f"    {json.dumps(kind)}: {json.dumps(' '.join(sizes[kind]))}" for kind in sizes
    )
    return (
        f'{{\n  "schema_version": {SCHEMA_VERSION},\n'
        f'  "command": "python -m tools.cudnn_plans",\n  "sizes": {{\n{rows}\n  }}\n}}\n'
    )


def _said(plans: Plans, question: Question) -> Sizes:
    """Return what the rules say, as torch's allocator rounds it; nothing of an unknown layer."""
    (kind, batch, sides), dtype = question
    shape = _shape(question)
    sizes = [shape.measure(letter) for letter in "xyf"]
    if shape.layer.product == "dgrad":
        sizes[:2] = sizes[1::-1]
    said = plans.sizes(dtype, kind, (*sizes, batch, *sides))
    return tuple(-(-size // _ROUND) * _ROUND for size in said or ())


def score(plans: Plans, answers: Answers) -> str:
    """Return in words how many drawn answers the rules give exactly."""
    first = whole = count = 0
    off: list[tuple[float, str]] = []
    for question, answer in answers:
        if not answer:
            continue
        (kind, batch, sides), dtype = question
        count += 1
        expected = tried_plans(answer)
        found = _said(plans, question) or (0,)
        first += found[0] == expected[0]
        whole += found == expected
        if found[0] != expected[0]:
            off.append(((found[0] - expected[0]) / (1 << 20), f"{kind} {batch}x{sides} {dtype}"))
    worst = max(off, key=lambda one: abs(one[0]), default=(0.0, ""))
    return (
        f"{count} drawn: first plan exact in {first}, all plans in {whole}; "
        f"farthest off {worst[0]:+.1f} MiB {worst[1]}"
    )
