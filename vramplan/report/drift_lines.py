"""What today's libraries change of a tape's figures, a line each."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.budget.drift import Drift
from vramplan.units import format_size


def drift_text(drift: Sequence[Drift]) -> str:
    """Return a line a figure: ``8.6 allocated peak  675 MiB, now 677 MiB (+2,097,152 bytes)``."""
    lines = (f"{one.compute_capability:>4} {one.what:14}  {_words(one)}\n" for one in drift)
    return "".join(lines)


def _words(one: Drift) -> str:
    if one.before_bytes is None:
        return "the tape has no recording for it"
    before = format_size(one.before_bytes, up=True)
    if one.now_bytes is None:
        return f"{before}, now there is no recording for it"
    change = one.now_bytes - one.before_bytes
    if not change:
        return f"{before}, unchanged"
    return f"{before}, now {format_size(one.now_bytes, up=True)} ({change:+,} bytes)"
