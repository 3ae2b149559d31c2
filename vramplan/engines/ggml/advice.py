"""What helps a ggml engine most where nothing brings all of a model onto the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.budget.advice import Question, advise
from vramplan.budget.change import MUCH, NO_COST, Change, combine
from vramplan.engines.ggml.changes import changes
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.read_model import read_model
from vramplan.engines.ggml.smaller_file import smaller_file
from vramplan.errors import VramplanError
from vramplan.model import Advice, Estimate, Settings, SettingValue, Verdict


def nearest_advice(pipeline: GgmlPipeline, question: Question) -> tuple[Advice, ...]:
    """Return the change that gets most layers on the GPU, where none brings all of them there.

    Nothing is returned where no change helps.
    """
    verdict = question.verdict
    before, now = question.with_change(None)
    best_rank = _rank(before, now)
    nearest: tuple[Change, Verdict, Estimate] | None = None
    for change in _changes(pipeline, {**question.job.settings, **_settled(now)}):
        question.progress(change.line)
        try:
            found, estimate = question.with_change(change)
        except VramplanError:  # not taken: an unknown value for this engine
            continue
        if _rank(found, estimate) < best_rank:
            best_rank = _rank(found, estimate)
            nearest = (change, found, estimate)
    return () if nearest is None else (advise(*nearest, verdict),)


def _changes(pipeline: GgmlPipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes that leave the layers to the engine, then more and more of them at once.

    Without caches that make answers worse, or all of them slow: a few layers are not worth it.
    """
    single = [
        change
        for change in changes(pipeline, settings)
        if change.settings.get("gpu_layers") != "all"
        and (change.price < MUCH or change.ladder == "cpu_moe" or change.is_last_resort)
    ]
    yield from single
    smaller = [change for change in single if "gpu_layers" not in change.settings]
    yield from (combine(smaller[:count]) for count in range(2, len(smaller) + 1))


def find_smaller_file(pipeline: GgmlPipeline, question: Question) -> Advice | None:
    """Return which smaller file would bring everything onto the GPU, or None."""
    _, now = question.with_change(None)
    everything: dict[str, SettingValue] = {"gpu_layers": "all", **_settled(now)}
    if "cpu_moe" in question.job.settings:
        everything["cpu_moe"] = 0
    try:
        _, whole = question.with_change(Change(settings=everything, line="all of it", cost=NO_COST))
    except VramplanError:
        return None
    is_fitted = question.job.settings.get("gpu_layers") == "auto"
    return smaller_file(
        read_model(pipeline),
        whole,
        question.verdict,
        is_fitted=is_fitted,
        is_ollama=pipeline.is_ollama,
    )


def _settled(estimate: Estimate) -> dict[str, SettingValue]:
    """Return what the engine took for settings that were left to it, as numbers to begin with."""
    return {key: estimate.settings[key] for key in ("context", "ubatch")}


def _rank(found: Verdict, estimate: Estimate) -> tuple[int, int, int]:
    """Order verdicts on ggml engines from good to bad: by kind, then by what is on the GPU."""
    layers = estimate.layers
    if layers is None:
        return found.kind.rank, 0, 0
    return found.kind.rank, -layers.on_gpu, layers.experts_on_cpu
