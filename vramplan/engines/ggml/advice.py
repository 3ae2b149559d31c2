"""The first useful advice for a ggml engine: less to hold, more on the GPU, or a smaller file."""

from __future__ import annotations

from vramplan.budget.advice import Question, advise
from vramplan.budget.change import NO_COST, Change
from vramplan.engines.ggml.changes import changes
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.smaller_file import smaller_file
from vramplan.errors import VramplanError
from vramplan.model import Advice, Estimate, SettingValue, Verdict, VerdictKind

_ORDER = list(VerdictKind)


def first_advice(pipeline: GgmlPipeline, question: Question) -> tuple[Advice, ...]:
    """Return the first change that fits, or else the one that gets most layers on the GPU.

    Beside the latter stands the smaller file with which all of them would be there, if there is
    one. Nothing is returned where no change helps.
    """
    verdict = question.verdict
    before, now = question.with_change(None)
    best_rank = _rank(before, now)
    nearest: tuple[Change, Verdict, Estimate] | None = None
    for change in changes(pipeline, {**question.job.settings, **_settled(now)}):
        question.progress(change.line)
        try:
            found, estimate = question.with_change(change)
        except VramplanError:  # not taken: an unknown value for this engine
            continue
        if found.kind is VerdictKind.FITS:
            return (advise(change, found, estimate, verdict),)
        if _rank(found, estimate) < best_rank:
            best_rank = _rank(found, estimate)
            nearest = (change, found, estimate)
    if not verdict.kind.is_failure:
        return ()
    found_so_far = () if nearest is None else (advise(*nearest, verdict),)
    smaller = _smaller_file(pipeline, question, now)
    return found_so_far if smaller is None else (*found_so_far, smaller)


def _smaller_file(pipeline: GgmlPipeline, question: Question, now: Estimate) -> Advice | None:
    """Return which smaller file would bring everything onto the GPU, or None."""
    everything: dict[str, SettingValue] = {"gpu_layers": "all", **_settled(now)}
    if "cpu_moe" in question.job.settings:
        everything["cpu_moe"] = 0
    try:
        _, whole = question.with_change(Change(settings=everything, line="all of it", cost=NO_COST))
    except VramplanError:
        return None
    is_fitted = question.job.settings.get("gpu_layers") == "auto"
    return smaller_file(whole, question.verdict, is_fitted=is_fitted, is_ollama=pipeline.is_ollama)


def _settled(estimate: Estimate) -> dict[str, SettingValue]:
    """Return what the engine took for settings that were left to it, as numbers to begin with."""
    return {key: estimate.settings[key] for key in ("context", "ubatch")}


def _rank(found: Verdict, estimate: Estimate) -> tuple[int, int, int]:
    """Order verdicts on ggml engines from good to bad: by kind, then by what is on the GPU."""
    layers = estimate.layers
    if layers is None:
        return _ORDER.index(found.kind), 0, 0
    return _ORDER.index(found.kind), -layers.on_gpu, layers.experts_on_cpu
