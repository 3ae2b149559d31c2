"""The parts of sentences that verdicts share."""

from __future__ import annotations

from vramplan.model import Band, VerdictKind
from vramplan.units import format_size


def compare_with_budget(need: Band, budget_bytes: int) -> str:
    """Return by how much a need that does not fit is larger."""
    needed, free = format_size(need.expected_bytes, up=True), format_size(budget_bytes, up=False)
    return f"it needs {needed}, and {free} are available"


def describe_room(need: Band, kind: VerdictKind, budget_bytes: int) -> str:
    """Return how much of the budget a need takes that fits."""
    needed, free = format_size(need.expected_bytes, up=True), format_size(budget_bytes, up=False)
    if kind is VerdictKind.TIGHT and need.expected_bytes > budget_bytes:
        return (
            f"completes in {free} as expected, but not with every amount above: "
            f"from {needed} on it always does"
        )
    if kind is VerdictKind.TIGHT:
        high = format_size(need.high_bytes, up=True)
        return f"needs {needed} of {free} as expected, but {high} at the high end of the estimate"
    return f"needs {needed} of {free}"
