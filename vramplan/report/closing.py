"""What a comparison comes to, in a sentence of plain words at its end."""

from __future__ import annotations

from vramplan.compare.comparison import Comparison, Explanation
from vramplan.compare.pair import Pair
from vramplan.compare.waterfall import Waterfall
from vramplan.report import phrases

#: a share of which nobody would ask where it is, in per cent
_NEGLIGIBLE = 2.0


def close_comparison(comparison: Comparison) -> str:
    """Return how near the estimate of a run was, or that nothing tells."""
    failed = "" if comparison.run.failure is None else " up to where the run stopped"
    for pair, whose in (
        (comparison.peak_reserved, "torch held at most"),
        (comparison.peak_process, "the process held at most"),
        (_buffers(comparison), "the engine's buffers took"),
    ):
        if pair.measured_bytes:
            said = _near(pair, f"{whose}{failed}")
            return f"In short: {said}{_worst(comparison)}."
    return "In short: nothing was measured, so there is nothing to hold the estimate against."


def _buffers(comparison: Comparison) -> Pair:
    """Return the sums of the buffers on the GPU that both sides know."""
    sizes = [
        (row.size.estimate_bytes, row.size.measured_bytes)
        for row in comparison.buffers
        if not row.is_on_host
    ]
    known = [(ours, theirs) for ours, theirs in sizes if ours is not None and theirs is not None]
    if not known:
        return Pair(estimate_bytes=None, measured_bytes=None)
    return Pair(
        estimate_bytes=sum(ours for ours, _ in known),
        measured_bytes=sum(theirs for _, theirs in known),
    )


def _near(pair: Pair, what: str) -> str:
    assert pair.measured_bytes is not None
    measured = phrases.nearest(pair.measured_bytes)
    percent = pair.residual_percent
    if pair.estimate_bytes is None or percent is None:
        return f"{what} {measured}, of which there is no estimate"
    if abs(percent) < 0.05:
        return f"{what} {measured}, as was estimated"
    side = "too little" if percent > 0 else "too much"
    ours = phrases.nearest(pair.estimate_bytes)
    return f"{what} {measured}, and the estimate said {ours}: {abs(percent):.1f} % {side}"


def _worst(comparison: Comparison) -> str:
    worst = comparison.worst_percent
    return "" if worst is None or worst < 0.05 else f"; no figure is off by more than {worst:.1f} %"


def close_explanation(explained: Explanation) -> str:
    """Return how much of the figure that was seen is explained, and what most of it is."""
    waterfall = explained.waterfall
    shown = phrases.nearest(waterfall.shown_bytes)
    of = f"In short: of the {shown} that {waterfall.shown_by} shows"
    left, percent = waterfall.unaccounted_bytes, explained.worst_percent
    most = _most(waterfall)
    if explained.estimate is None:
        rest = "" if left <= 0 else f", and {phrases.nearest(left)} are nobody's that is told"
        return f"{of}, {most}{rest}; with a TARGET it is shown what they are made of."
    if percent <= _NEGLIGIBLE:
        return f"{of}, all is accounted for to {_NEGLIGIBLE:.0f} %, and {most}."
    if left < 0:
        over = phrases.nearest(-left)
        return f"{of}, {most}; the steps come to {over} ({percent:.0f} %) more than is shown."
    return f"{of}, {most}; {phrases.nearest(left)} ({percent:.0f} %) are not accounted for."


def _most(waterfall: Waterfall) -> str:
    largest = max(waterfall.steps, key=lambda step: step.bytes, default=None)
    if largest is None or largest.bytes <= 0:
        return "nothing is told"
    return f"{phrases.nearest(largest.bytes)} are {_WHOSE.get(largest.name, largest.name)}"


_WHOSE = {
    "process": "the largest process's",
    "other processes": "other processes'",
    "live tensors": "torch's live tensors",
    "system reserved": "the system's own",
}
