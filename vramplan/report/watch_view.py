"""The cards as they are now, line by line."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.measurement.peaks import Peaks
from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.measurement.watched import Plan, Watched
from vramplan.report import phrases
from vramplan.report.colour import Tone, paint
from vramplan.report.text import clean, cut, fit

_NARROWEST = 10
#: as many processes of a card are shown live
_SHOWN = 6


def draw_live(watched: Sequence[Watched], *, colour: bool, width: int) -> list[str]:
    """Return the lines of the live view: for each card its bar, and who holds what."""
    drawn: list[str] = []
    for one in watched:
        memory = one.peaks.last
        if memory is None:
            continue
        drawn.append(paint(cut(clean(one.label, 120), width), Tone.STRONG, colour))
        drawn.append(_bar_line(memory, one.peaks, one.plan, colour, width))
        drawn += _plan_line(memory, one.peaks, one.plan, colour, width)
        drawn += [cut(line, width) for line in _process_lines(memory)]
    return drawn


def _bar_line(
    memory: DeviceMemory, peaks: Peaks, plan: Plan | None, colour: bool, width: int
) -> str:
    used, total = phrases.nearest(memory.used_bytes), phrases.nearest(memory.total_bytes)
    figures = f"  {used} of {total}, peak {phrases.nearest(peaks.used_bytes)}"
    room = max(_NARROWEST, width - len(figures) - 4)
    filled = _cells(memory.used_bytes, memory.total_bytes, room)
    highest = max(filled, _cells(peaks.used_bytes, memory.total_bytes, room))
    mark = -1
    if plan is not None:
        mark = min(room - 1, _cells(plan.size_bytes, memory.total_bytes, room))
    cells = "".join(
        "│" if at == mark else "█" if at < filled else "░" if at < highest else " "
        for at in range(room)
    )
    is_over = plan is not None and memory.used_bytes > plan.size_bytes
    return f"  [{paint(cells, Tone.OOM if is_over else Tone.WEIGHTS, colour)}]{figures}"


def _cells(size: int, total: int, room: int) -> int:
    return max(0, min(room, -(-size * room // max(total, 1))))


def _plan_line(
    memory: DeviceMemory, peaks: Peaks, plan: Plan | None, colour: bool, width: int
) -> list[str]:
    if plan is None:
        return []
    left = plan.size_bytes - peaks.used_bytes
    said = f"{phrases.available(left)} below" if left >= 0 else f"{phrases.need(-left)} above"
    beyond = " (more than the card has)" if plan.size_bytes > memory.total_bytes else ""
    text = (
        f"  │ {clean(plan.label, 60)}: {phrases.need(plan.size_bytes)}{beyond}; the peak is {said}"
    )
    return [paint(cut(text, width), Tone.DIM if left >= 0 else Tone.OOM, colour)]


def _process_lines(memory: DeviceMemory) -> list[str]:
    if memory.processes is None:
        return ["  the driver does not list who holds it"]
    ranked = sorted(memory.processes, key=lambda one: -(one.used_bytes or 0))
    lines = [
        f"  {size_of(one):>10}  {one.pid:>7}  {fit(one.kind, 3)}  {clean(one.name, 120)}"
        for one in ranked[:_SHOWN]
    ]
    if len(ranked) > _SHOWN:
        lines.append(f"  and {len(ranked) - _SHOWN} more")
    return lines


def size_of(one: ProcessMemory) -> str:
    """Return what a process holds, where that is told."""
    return phrases.NOTHING if one.used_bytes is None else phrases.nearest(one.used_bytes)


def plain_lines(at_s: float, watched: Sequence[Watched]) -> list[str]:
    """Return one look as lines of a log, one a card, each of 80 columns at most."""
    lines = []
    for one in watched:
        last = one.peaks.last
        if last is not None:
            used, total, peak = (
                phrases.nearest(size)
                for size in (last.used_bytes, last.total_bytes, one.peaks.used_bytes)
            )
            lines.append(
                f"{at_s:7.1f} s  {cut(clean(one.label, 60), 28)}: {used} of {total}, peak {peak}"
            )
    return lines
