"""Memory against time as a picture of characters: each option a number, the card a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vramplan.budget.plan import Plan
from vramplan.report import phrases
from vramplan.report.colour import Tone, paint

_HEIGHT = 9
_WIDEST = 64
_LABEL = 11
#: what stands for the job as it is
_NOW = "o"
_TIMES = "\N{MULTIPLICATION SIGN}"


def draw_trade_off(plan: Plan, *, width: int, colour: bool) -> list[str]:
    """Return the picture; nothing where a time is not known or there is nothing to compare.

    Memory goes up from 0, time to the right on a logarithmic axis from the fastest to the slowest.
    """
    times = [plan.slowdown(option) for option in plan.options]
    known = [time for time in times if time is not None and time > 0]
    if not known or len(known) != len(times):
        return []
    columns = min(_WIDEST, width - _LABEL - 2)
    if columns < 20:
        return []
    needs = [option.need_bytes for option in plan.options]
    now, budget = plan.verdict.need.expected_bytes, plan.verdict.budget_bytes
    top = max(*needs, now, budget)
    points = [(1.0, now, _NOW)]
    points += [
        (time, need, str(number))
        for number, (time, need) in enumerate(zip(known, needs, strict=True), start=1)
    ]
    slowest, fastest = max(*known, 1.0), min(*known, 1.0)
    grid = [[" "] * columns for _ in range(_HEIGHT)]
    line = _row(budget, top)
    grid[line] = ["─"] * columns
    for time, need, mark in reversed(points):  # the cheapest is seen where several meet
        grid[_row(need, top)][_column(time, fastest, slowest, columns)] = mark
    labels = {_row(top, top): phrases.axis(top), line: phrases.axis(budget)}
    drawn = []
    for row, cells in enumerate(grid):
        text = "".join(cells)
        tone = Tone.DIM if row == line else Tone.PLAIN
        drawn.append(f"{labels.get(row, ''):>{_LABEL}} │{paint(text, tone, colour)}".rstrip())
    drawn.append(" " * (_LABEL + 1) + "└" + "─" * columns)
    drawn.append(" " * (_LABEL + 2) + _axis(fastest, slowest, columns))
    return drawn


def _row(size_bytes: int, top: int) -> int:
    return _HEIGHT - 1 - round(max(0, size_bytes) / top * (_HEIGHT - 1)) if top else _HEIGHT - 1


def _column(time: float, fastest: float, slowest: float, columns: int) -> int:
    widest = max(slowest, fastest * 2)
    share = math.log(time / fastest) / math.log(widest / fastest)
    return 2 + round(share * (columns - 5))


def _axis(fastest: float, slowest: float, columns: int) -> str:
    """Return what stands below: times at the places they have, as far as they have room."""
    cells = [" "] * columns
    for time in _ticks(fastest, slowest):
        label = times(time)
        place = _column(time, fastest, slowest, columns)
        start = min(place, columns - len(label))
        taken = cells[max(0, start - 1) : start + len(label) + 1]
        if all(cell == " " for cell in taken):
            cells[start : start + len(label)] = label
    return "".join(cells).rstrip()


def _ticks(fastest: float, slowest: float) -> Iterator[float]:
    yield 1.0
    yield from (fastest, slowest)
    tick = 2.0
    while tick < slowest:
        yield tick
        tick *= 2


def times(ratio: float | None) -> str:
    """Return how many times as long something takes; a dash where nobody knows."""
    if ratio is None:
        return phrases.NOTHING
    return f"{ratio:.2g}{_TIMES}" if ratio < 10 else f"{ratio:,.0f}{_TIMES}"


def on_the_front(plan: Plan) -> Sequence[int]:
    """Return the numbers of the options beside which none needs less and is no slower."""
    return [
        number for number, option in enumerate(plan.options, start=1) if plan.is_on_front(option)
    ]
