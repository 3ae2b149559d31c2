"""Hold the compiled core against the Python that is its reference, on random runs.

    python -m tools.core_fuzz --count 100000 [--from 0] [--dense]

Each number is a tape of its own: sizes from bytes to gigabytes, loops that free what earlier
iterations left, calls, casts, scratch, every offload, expandable segments or not. Both run it, once
more in the same process too, try it under random limits, whatever becomes of scratch that they
refuse, and look for its least limits; of another run that only takes other scratch too, and of a
long loop that repeats itself. Every figure must be the same, and so must the least limits of runs
that take over a search from one whose scratch is another. With ``--dense`` a build of the core is
taken that keeps how it stood every few requests, as others do in runs of thousands. Exit code 1
where a figure is another, 3 without a core.
"""

from __future__ import annotations

import argparse
import atexit
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hatch_build import build
from vramplan.engines.torch.least_limit import find_least_limit
from vramplan.engines.torch.tape import native
from vramplan.engines.torch.tape.conditions import Conditions, Percents, WorkspaceModel
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.plans import ComparedModel
from vramplan.engines.torch.tape.reader import build_tape
from vramplan.engines.torch.tape.rehearsal import rehearse_in_python
from vramplan.engines.torch.tape.rehearse import rehearse
from vramplan.engines.torch.tape.rehearsed import Refused, Rehearsed
from vramplan.errors import VramplanError

MIB = 1 << 20
#: around what the allocator decides by
SIZES = (1, 511, 512, 513, 4096, MIB - 1, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB)
COMPONENTS = ("text_encoder", "unet", "vae")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomRun:
    """A tape, and what it is run under."""

    tape: Tape
    conditions: Conditions
    expandable_segments: bool
    others: Conditions  # of other scratch


@dataclass(frozen=True)
class Halving(ComparedModel):
    """Scratch whose every next plan takes a part of the one before; the last may take nothing."""

    count: int
    part: int
    ends: bool

    def __call__(self, _kind: str, operands: tuple[int, ...]) -> int:
        """Return the first plan's bytes."""
        return self.plans("", operands)[0]

    def plans(self, _kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return every plan's bytes."""
        first = sum(operands[:3])
        found = tuple(first // self.part**place for place in range(self.count))
        return (*found, 0) if self.ends else found


@dataclass(frozen=True)
class Drawn(ComparedModel):
    """Scratch of sizes that a seed draws, for each of seven kinds of operands; of one, others."""

    seed: int
    other: int  # which of the seven, if it is below 7
    other_seed: int = 0

    def __call__(self, kind: str, operands: tuple[int, ...]) -> int:
        """Return the first plan's bytes."""
        return self.plans(kind, operands)[0]

    def plans(self, _kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return every plan's bytes."""
        which = sum(operands) % 7
        seed = self.other_seed if which == self.other else self.seed
        chance = random.Random(f"{seed} {which}")  # noqa: S311  # the same ones every time
        sizes = (0, 512, MIB // 2, MIB, 2 * MIB, 9 * MIB, 10 * MIB, 12 * MIB, 21 * MIB, 64 * MIB)
        wanted = sorted(chance.choices(sizes, k=chance.randint(1, 3)), reverse=True)
        return tuple(size + chance.choice((0, 0, 1, 600)) for size in wanted)


class _Writer:
    """Writes random code that holds together."""

    def __init__(self, chance: random.Random, sizes: int) -> None:
        self.chance = chance
        self.sizes = sizes

    def code(self, depth: int, *, calls: bool) -> tuple[list[object], list[int]]:
        """Return some steps, and the slots that are in use after them."""
        chance = self.chance
        code: list[object] = []
        used: list[int] = []
        slots = loops = 0
        for _ in range(chance.randint(1, 9)):
            kind = chance.random()
            if kind < 0.5:
                code.append(chance.randrange(self.sizes))
                used.append(slots)
                slots += 1
            elif kind < 0.75 and used:
                code.append(-1 - used.pop(chance.randrange(len(used))))
            elif kind < 0.8:
                count = chance.choice((3, 3, 6))
                code.append(["w", "conv", *(chance.randrange(self.sizes) for _ in range(count))])
            elif kind < 0.82:
                code.append(chance.choice((["g"], ["g", "autograd"])))
            elif kind < 0.86:
                code.append(["p", chance.choice(("denoise", "decode")), "unet"])
            elif kind < (0.93, 0.88, 0)[depth]:
                code.extend(self._loop(depth, loops, calls=calls))
                loops += 1
            elif calls:
                name = chance.choice(COMPONENTS)
                code.append(["c", name, {"n": chance.randrange(3)}, 1])
                used.append(slots)
                slots += 1
            elif used and chance.random() < 0.5:
                code.append(["f", 0, [], [used[0], used[0]]])
                used.pop(0)
        return code, used

    def _loop(self, depth: int, number: int, *, calls: bool) -> list[object]:
        """Return a loop that leaves what its next iteration, or the code after it, frees."""
        chance = self.chance
        name = f"loop{depth}"
        body, used = self.code(depth + 1, calls=calls)
        if not used:
            body.append(0)
            used = [sum((type(op) is int and op >= 0) or _is_call(op) for op in body) - 1]
        count = chance.choice(("n%3+1", "n%4+2", "2", "min(n,7)+1"))
        if chance.random() < 0.5:
            back = [*body, ["f", 1, [[number, ["back", 1]]], *used]]
            last: object = ["f", 0, [[number, -1]], *used]
            return [["l", name, count, [body], back, []], last]
        return [["l", name, count, [], body, []], ["f", 0, [[number, "all"]], *used]]


def _is_call(op: object) -> bool:
    return isinstance(op, list) and op[0] == "c"


def _routine(chance: random.Random, *, calls: bool, component: str | None) -> dict[str, object]:
    sizes = [str(chance.choice((1, 2, 3)))] * 3  # the first three are small: dims of calls
    for _ in range(chance.randint(2, 8)):
        size = chance.choice(SIZES) + chance.choice((0, 0, 1, 512, 7777))
        form = chance.choice(("{}*n", "{}", "{}*(n+loop0)", "{}+512*(n%3)", "min({},n*4096)"))
        sizes.append(form.format(size))
    code, used = _Writer(chance, len(sizes)).code(0, calls=calls)
    if component is not None:
        output = sum((type(op) is int and op >= 0) or _is_call(op) for op in code)
        code = [["e", component, 0], *code, len(sizes) - 1, ["x", component, 0]]
        code.extend(-1 - slot for slot in used)
        outputs = [output]
    else:
        if chance.random() < 0.3:
            code.append(["t", "vae", chance.choice((2, 4))])
        code.extend(-1 - slot for slot in used if chance.random() < 0.8)
        outputs = []
    return {
        "when": {},
        "if": None,
        "indices": ["loop0", "loop1"],
        "derived": {"k": "n+1"},
        "sizes": sizes,
        "outputs": outputs,
        "code": code,
    }


def draw(number: int) -> RandomRun:
    """Return the random run of a number."""
    chance = random.Random(number)  # noqa: S311  # the same runs every time
    components: dict[str, object] = {}
    for name in COMPONENTS:
        modules = [
            [
                chance.choice((chance.choice(SIZES), "616B", 4096))
                for _ in range(chance.randint(1, 4))
            ]
            for _ in range(chance.randint(1, 3))
        ]
        components[name] = {"parameters": 1, "modules": modules}
    routines: dict[str, object] = {"main": [_routine(chance, calls=True, component=None)]}
    for name in COMPONENTS:
        routines[name] = [_routine(chance, calls=False, component=name)]
    tape = _tape(f"random {number}", components, routines)
    percent = chance.choice((0, 50, 100, 125))
    shares = Percents(
        input_percent=percent,
        output_percent=chance.choice((0, percent)),
        filter_percent=chance.choice((percent, 556)),
    )

    def workspace_bytes(_kind: str, operands: tuple[int, ...]) -> int:
        return sum(operands) * percent // 100

    def cast_workspace_bytes(_kind: str, operands: tuple[int, ...]) -> int:
        return operands[0]

    is_share = chance.random() < 0.4
    cast: WorkspaceModel = replace(shares, input_percent=0) if is_share else cast_workspace_bytes
    halving = Halving(
        count=chance.randint(1, 4), part=chance.choice((1, 2, 7, 100)), ends=chance.random() < 0.5
    )
    other_model = halving if chance.random() < 0.7 else workspace_bytes

    conditions = Conditions(
        numbers={"batch": chance.randint(1, 9)},
        facts={},
        element_bytes=chance.choice((2, 4)),
        workspace_bytes=shares if is_share else other_model,
        cast_workspace_bytes={4: cast} if chance.random() < 0.5 else {},
        cublas_bytes=8_519_680,
        loading=chance.choice(("to", "device_map")),
        offload=chance.choice(("none", "none", "model", "sequential")),
        skip_components=frozenset({"text_encoder"}) if chance.random() < 0.1 else frozenset(),
    )
    other = replace(
        shares,
        input_percent=chance.choice((0, 1, 125)),
        filter_percent=chance.choice((0, 1, 100, 125)),
    )
    others = replace(
        conditions,
        workspace_bytes=other if chance.random() < 0.5 else replace(halving, count=2),
        cast_workspace_bytes={4: shares} if chance.random() < 0.5 else {},
        cublas_bytes=chance.choice((8_519_680, 32 * MIB)),
    )
    expandable, has_own = chance.random() < 0.4, chance.random() < 0.3
    return RandomRun(
        tape=tape,
        conditions=replace(conditions, has_own_convolutions=has_own),
        expandable_segments=expandable,
        others=replace(others, has_own_convolutions=has_own),
    )


#: sizes of what a long loop works with
_WORK = (MIB // 2, 2 * MIB, 3 * MIB, 9 * MIB, 12 * MIB, 31 * MIB, 64 * MIB)


def draw_repeating(number: int) -> RandomRun:
    """Return a run of one loop of which many iterations ask for the same.

    It keeps some of an iteration until the next one's end. Every eighth is of thousands of
    requests, so that a try keeps how it stood several times.
    """
    chance = random.Random(f"repeating {number}")  # noqa: S311  # the same runs every time
    sizes = [str(chance.choice(_WORK) + chance.choice((0, 512, 70_000))) for _ in range(8)]

    def some(count: int) -> list[int]:
        return [chance.randrange(len(sizes)) for _ in range(count)]

    body: list[object] = []
    used: list[int] = []
    slots = 0
    for _ in range(chance.randint(6, 16) if number % 8 else chance.randint(200, 300)):
        kind = chance.random()
        if kind < 0.55:
            body.extend(some(1))
            used.append(slots)
            slots += 1
        elif kind < 0.85 and used:
            body.append(-1 - used.pop(chance.randrange(len(used))))
        else:
            body.append(["w", "conv", *some(3)])
    while len(used) > 2:
        body.append(-1 - used.pop(chance.randrange(len(used))))
    back = [["f", 1, [[0, ["back", 1]]], *used]] if used else []
    last = [["f", 0, [[0, -1]], *used]] if used else []
    before, after = some(3), some(chance.randint(0, 3))
    loop = ["l", "loop0", "n", [body], [*body, *back], []]
    freed = [-4 - place for place in range(len(after))]
    main: dict[str, object] = {
        "when": {}, "if": None, "indices": [], "derived": {}, "sizes": sizes, "outputs": [],
        "code": [*before, -2, loop, *after, *freed, *last, -1, -3],
    }  # fmt: skip
    components: dict[str, object] = {"unet": {"parameters": 1, "modules": [[4096, 3 * MIB]]}}
    tape = _tape(f"repeating {number}", components, {"main": [main]})
    conditions = Conditions(
        numbers={"batch": chance.randint(7, 12)},
        facts={},
        element_bytes=2,
        workspace_bytes=Drawn(seed=number, other=7),
        cast_workspace_bytes={},
        cublas_bytes=8_519_680,
        loading="to",
        offload="none",
        skip_components=frozenset(),
    )
    others = replace(conditions, workspace_bytes=Drawn(seed=number, other=1, other_seed=1))
    return RandomRun(tape=tape, conditions=conditions, expandable_segments=False, others=others)


def _tape(name: str, components: dict[str, object], routines: dict[str, object]) -> Tape:
    return build_tape(
        {
            "pipeline": name,
            "recorded_with": {},
            "dims": {"n": "batch"},
            "least": {},
            "dtype_facts": {},
            "entry": "main",
            "components": components,
            "routines": routines,
        }
    )


def answers(run: Rehearsed, number: int) -> Iterator[object]:
    """Yield everything that a rehearsal says, in an order that a number decides."""
    chance = random.Random(-1 - number)  # noqa: S311  # the same limits every time
    yield tuple(run.trace.marks)
    yield (most := run.most_wanted_bytes)
    live = run.trace.allocated_peak_bytes
    when_warm = chance.randrange(8)
    for place in range(8):
        if place == when_warm:
            yield run.warm_reserved_peak_bytes()
        between = (live + most) // 2
        limit = max(0, chance.choice((most - 1, live, chance.randint(0, most + MIB), between)))
        granted, failure = run.attempt(limit, refused=chance.choice(list(Refused)))
        yield (
            limit,
            granted,
            failure
            and (
                failure.phase,
                failure.component,
                failure.asked_bytes,
            ),
        )
    for refused in reversed(Refused):
        try:
            yield find_least_limit(run, refused=refused)
        except VramplanError as problem:
            yield str(problem)
    yield tuple(run.trace.marks)


def difference(number: int, drawn: RandomRun | None = None) -> str | None:
    """Return where the core says something else about a number's run, or one drawn by it.

    None where nowhere. Raises CannotRun for a run that the core leaves to the reference.
    """
    drawn = drawn or draw(number)
    core, _ = native.find_core()
    assert core is not None

    def reference(conditions: Conditions) -> Rehearsed:
        return rehearse_in_python(
            drawn.tape, conditions, expandable_segments=drawn.expandable_segments
        )

    def must_not() -> Rehearsed:
        raise native.CannotRun

    fast = native.NativeRehearsal(
        core,
        drawn.tape,
        drawn.conditions,
        reference=must_not,
        again=reference,
        expandable_segments=drawn.expandable_segments,
    )

    def differs(conditions: Conditions, quick: Rehearsed) -> str | None:
        slow = list(answers(reference(conditions), number))
        for place, (one, other) in enumerate(zip(slow, answers(quick, number), strict=True)):
            if one != other:
                kind = "sibling of run" if quick is not fast else "run"
                return f"{kind} {number}, answer {place}: {one} and {other}"
        return None

    found = differs(drawn.conditions, fast)
    if found is None and (twin := fast.like(drawn.others)) is not None:
        found = differs(drawn.others, twin)
    return found


def kin(conditions: Conditions, number: int) -> Iterator[Conditions]:
    """Yield conditions of which one operator's scratch is another than in the first of them."""
    yield replace(conditions, workspace_bytes=Drawn(number, 7), cast_workspace_bytes={})
    for other in range(12):
        model = Drawn(number, other % 7, -1 - other)
        yield replace(conditions, workspace_bytes=model, cast_workspace_bytes={})


def taken_over(number: int) -> int:
    """Return how many runs of a number took a search over that was made in another.

    Raises AssertionError where it is not what the run itself says.
    """
    drawn = draw(number)
    first, *others = kin(drawn.conditions, number)
    run, found = rehearse(drawn.tape, first), 0
    try:
        for refused in Refused:
            find_least_limit(run, refused=refused)
    except VramplanError:  # it needs no memory
        return 0
    for conditions in others:
        twin = run.like(conditions)
        if twin is None or isinstance(twin, native.NativeRehearsal):
            continue  # a run of its own
        found += 1
        slow = rehearse_in_python(drawn.tape, conditions)
        assert twin.most_wanted_bytes == slow.most_wanted_bytes, number
        for refused in Refused:
            limit = find_least_limit(twin, refused=refused)
            assert limit == find_least_limit(slow, refused=refused), number
    return found


def use_dense_core() -> None:
    """Compile a core that keeps how a run stood every few requests, and take it from now on."""
    folder = Path(tempfile.mkdtemp(prefix="vramplan-core-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / native.LIBRARY.name
    build(library, ("APART=4", "LEAST_INTERVAL=3", "LEAST_STEPS=3", "STEPS_A_BLOCK=0"))
    native.LIBRARY = library
    native.find_core.cache_clear()


def main() -> int:
    """Compare, and say where the two differ."""
    parser = argparse.ArgumentParser(prog="python -m tools.core_fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--dense", action="store_true")
    args = parser.parse_args()
    if args.dense:
        use_dense_core()
    core, words = native.find_core()
    if core is None:
        print(f"no core: it {words}", file=sys.stderr)
        return 3
    wrong = alike = shared = 0
    for number in range(args.first, args.first + args.count):
        found = difference(number) or difference(number, draw_repeating(number))
        try:
            shared += taken_over(number)
        except AssertionError as problem:
            found = found or f"search of another run: {problem}"
        if found is None:
            alike += 1
        else:
            wrong += 1
            print(found[:2000])
    print(f"{alike} of {args.count} random runs alike, {shared} searches taken over")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
