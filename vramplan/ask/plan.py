"""The first useful advice for a verdict that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vramplan.ask.search import Question, Search
from vramplan.budget.change import NO_COST, Change, changes
from vramplan.catalog import CardChoice
from vramplan.engines.door import GGML_RUNTIMES
from vramplan.engines.ggml.smaller_file import smaller_file
from vramplan.errors import VramplanError
from vramplan.model import (
    Advice,
    Estimate,
    Pipeline,
    Settings,
    SettingValue,
    Verdict,
    VerdictKind,
)

_ORDER = list(VerdictKind)


def first_advice(
    pipeline: Pipeline,
    settings: Settings,
    verdict: Verdict,
    choice: CardChoice,
    *,
    folders: Sequence[Path],
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Advice, ...]:
    """Return the cheapest change that makes `verdict` fit; for a failure, else the nearest one.

    Nothing is returned for a verdict that fits already, and where no change helps. `progress` is
    told which change is tried.
    """
    if verdict.kind is VerdictKind.FITS:
        return ()
    question = Question(
        pipeline=pipeline,
        settings=settings,
        choice=choice,
        folders=folders,
        margin_bytes=margin_bytes,
        other_bytes=other_bytes,
    )
    if pipeline.runtime in GGML_RUNTIMES:
        return _ggml_advice(question, verdict, progress)
    search = Search(question, verdict, progress)
    for change in search.proposals():
        try:
            found, estimate = question.judge(change, search.deciding_card)
        except VramplanError:  # screened, but not recorded as a whole: try the next
            continue
        if found.kind is VerdictKind.FITS or (
            verdict.kind.is_failure and _is_useful(found, verdict)
        ):
            return (_advice(change, found, estimate, verdict),)
    return ()


def _is_useful(found: Verdict, before: Verdict) -> bool:
    """True for a change that ends the failure, or closes a tenth of the gap at least.

    A change that hardly helps is worse than none: it sends people the wrong way.
    """
    gained = before.need.expected_bytes - found.need.expected_bytes
    gap = before.need.expected_bytes - before.budget_bytes
    return gained > 0 and (not found.kind.is_failure or gained * 10 >= gap)


def _ggml_advice(
    question: Question, verdict: Verdict, progress: Callable[[str], None]
) -> tuple[Advice, ...]:
    """Return the first change that fits, or else the one that gets most layers on the GPU."""
    before, now = question.judge(None)
    best_rank = _rank(before, now)
    nearest: tuple[Change, Verdict, Estimate] | None = None
    for change in changes(question.pipeline, {**question.settings, **_settled(now)}):
        progress(change.line)
        try:
            found, estimate = question.judge(change)
        except VramplanError:  # not taken: an unknown value for this engine
            continue
        if found.kind is VerdictKind.FITS:
            return (_advice(change, found, estimate, verdict),)
        if _rank(found, estimate) < best_rank:
            best_rank = _rank(found, estimate)
            nearest = (change, found, estimate)
    if not verdict.kind.is_failure:
        return ()
    found_so_far = () if nearest is None else (_advice(*nearest, verdict),)
    smaller = _smaller_file(question, verdict, now)
    return found_so_far if smaller is None else (*found_so_far, smaller)


def _smaller_file(question: Question, verdict: Verdict, now: Estimate) -> Advice | None:
    """Return which smaller file would bring everything onto the GPU, or None."""
    everything: dict[str, SettingValue] = {"gpu_layers": "all", **_settled(now)}
    if "cpu_moe" in question.settings:
        everything["cpu_moe"] = 0
    try:
        _, whole = question.judge(Change(settings=everything, line="all of it", cost=NO_COST))
    except VramplanError:
        return None
    is_fitted = question.settings.get("gpu_layers") == "auto"
    return smaller_file(whole, verdict, is_fitted=is_fitted)


def _settled(estimate: Estimate) -> dict[str, SettingValue]:
    """Return what the engine took for settings that were left to it, as numbers to begin with."""
    return {key: estimate.settings[key] for key in ("context", "ubatch")}


def _rank(found: Verdict, estimate: Estimate) -> tuple[int, int, int]:
    """Order verdicts on ggml engines from good to bad: by kind, then by what is on the GPU."""
    layers = estimate.layers
    if layers is None:
        return _ORDER.index(found.kind), 0, 0
    return _ORDER.index(found.kind), -layers.on_gpu, layers.experts_on_cpu


def _advice(change: Change, found: Verdict, estimate: Estimate, before: Verdict) -> Advice:
    effect = "not enough yet" if found.kind is before.kind else found.kind.value
    if found.kind is VerdictKind.OFFLOAD and estimate.layers is not None:
        effect = estimate.layers.in_words()
    elif found.kind is VerdictKind.OFFLOAD and estimate.settings.get("offload", "none") != "none":
        effect = f"runs with {estimate.settings['offload']} offload"
    return Advice(
        change=change.line,
        effect=effect,
        cost=change.cost,
        need_bytes=found.need.expected_bytes,
    )


def together_advice(verdict: Verdict, estimates: Sequence[Estimate]) -> tuple[Advice, ...]:
    """Return the advice to run one after the other what fits alone but not side by side."""
    largest = max((found.need.band for found in estimates), key=lambda band: band.high_bytes)
    if verdict.kind is VerdictKind.FITS or largest.high_bytes > verdict.budget_bytes:
        return ()
    advice = Advice(
        change="run them one after the other",
        effect="each fits alone",
        cost="one process ends before the next one loads",
        need_bytes=largest.expected_bytes,
    )
    return (advice,)
