"""How far long work is, in a line: what is done of how much, the time taken, and what is left."""

from __future__ import annotations

from vramplan.report.text import cut

#: cells of a bar, and columns of the line it stands in
_BAR, _WIDTH = 20, 79


def tell(step: str, done: int, total: int, first: int, taken_s: float, since_s: float = 0.0) -> str:
    """Return ``sdxl on 12gb, 3 of 8, 0:12, about 0:20 left``.

    `total` 0 stands for work of unknown length, `taken_s` 0 for time that is not worth telling.
    What was done before the work began, up to `first`, says nothing of its pace, and neither does
    the time since the last of it was done, `since_s`: what is left gets less meanwhile, and is not
    told where more than that has passed.
    """
    return ", ".join(filter(None, (step, *_how_far(done, total, first, taken_s, since_s))))


def draw(step: str, done: int, total: int, first: int, taken_s: float, since_s: float = 0.0) -> str:
    """Return the same for a terminal: a bar first, and the step as far as there is room for it."""
    if not total:
        return tell(cut(step, _WIDTH - 12), done, total, first, taken_s, since_s)
    full = _BAR * done // total
    bar = f"{'█' * full}{'·' * (_BAR - full)}"
    head = f"{bar} {', '.join(_how_far(done, total, first, taken_s, since_s))}"
    return f"{head}: {cut(step, _WIDTH - 2 - len(head))}"


def _how_far(done: int, total: int, first: int, taken_s: float, since_s: float) -> list[str]:
    parts = [f"{done:,} of {total:,}"] if total else []
    if taken_s:
        parts.append(_clock(taken_s))
    fresh = done - first
    if total and taken_s and fresh > 0:
        left_s = (taken_s - since_s) / fresh * (total - done) - since_s
        parts += [f"about {_clock(left_s)} left"] if left_s > 0 or not since_s else []
    return parts


def _clock(seconds: float) -> str:
    """Return a time as ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
