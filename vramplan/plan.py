"""What to change so that it fits: settings tried one after the other, cheapest first.

Each change is said in the user's own language: the line of Python, the flag or the variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from vramplan.catalog import CardChoice
from vramplan.errors import VramplanError
from vramplan.estimate.estimator import GGML_RUNTIMES
from vramplan.model import (
    Advice,
    Card,
    Estimate,
    Pipeline,
    Settings,
    SettingValue,
    Verdict,
    VerdictKind,
)
from vramplan.verdict import candidate_budgets, judge, judged_as

_ORDER = list(VerdictKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings to change, how a user says it, and what it costs."""

    settings: Mapping[str, SettingValue]
    line: str
    cost: str

    def __add__(self, other: Change) -> Change:
        return Change(
            settings={**self.settings, **other.settings},
            line=f"{self.line}; {other.line}",
            cost=f"{self.cost}; {other.cost}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was judged: a pipeline at its settings on a card, and what is taken off the card."""

    pipeline: Pipeline
    settings: Settings
    choice: CardChoice
    folders: Sequence[Path]
    margin_bytes: int = 0
    other_bytes: int | None = None

    def judge(self, change: Change | None = None) -> tuple[Verdict, Estimate]:
        """Return the verdict as things are, or with a change. Raises VramplanError."""
        return judge(
            self.pipeline,
            {**self.settings, **(change.settings if change else {})},
            self.choice,
            folders=self.folders,
            margin_bytes=self.margin_bytes,
            other_bytes=self.other_bytes,
        )

    def candidates(self) -> list[tuple[Card, int]]:
        """Return the cards the verdict must hold on, each with its budget."""
        return list(candidate_budgets(self.choice, self.margin_bytes, self.other_bytes))


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
    """Return the cheapest change that makes `verdict` fit, or else the one that comes nearest.

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
        tries = _judged(question, changes(pipeline, settings), progress)
        before = _rank(*question.judge())
    else:
        tries = _screened(question, verdict, progress)
        before = _rank(verdict, None)
    nearest: tuple[Change, Verdict, Estimate] | None = None
    for change, found, estimate in tries:
        if found.kind is VerdictKind.FITS:
            return (_advice(change, found, estimate, verdict),)
        best = before if nearest is None else _rank(nearest[1], nearest[2])
        if _rank(found, estimate) < best:
            nearest = (change, found, estimate)
    return () if nearest is None else (_advice(*nearest, verdict),)


def _judged(
    question: Question, tried: Iterator[Change], progress: Callable[[str], None]
) -> Iterator[tuple[Change, Verdict, Estimate]]:
    """Yield the changes with their verdicts, but for those that are not recorded or not taken."""
    for change in tried:
        progress(change.line)
        try:
            found, estimate = question.judge(change)
        except VramplanError:
            continue
        yield change, found, estimate


def _screened(
    question: Question, verdict: Verdict, progress: Callable[[str], None]
) -> Iterator[tuple[Change, Verdict, Estimate]]:
    """Yield the verdicts of the changes that seem to fit, then of the one that comes nearest.

    A change is screened on the candidate that decided, then on the others; that takes a tenth of
    what a verdict takes.
    """
    from vramplan.estimate.screening import screen

    cards = sorted(question.candidates(), key=lambda pair: judged_as(pair[0]) != verdict.judged_as)
    others: list[tuple[bool, int, Change]] = []
    for change in changes(question.pipeline, question.settings):
        progress(change.line)
        settings = {**question.settings, **change.settings}
        try:
            for card, budget in cards:
                capability = card.compute_capability
                seen = screen(
                    question.pipeline, settings, capability, budget, folders=question.folders
                )
                if not seen.fits:
                    others.append((not seen.completes, seen.live_bytes, change))
                    break
            else:
                yield from _judged(question, iter([change]), progress)
        except VramplanError:  # this change is not recorded for these settings
            continue
    if verdict.kind.is_failure:  # the cheapest that is tight, for want of one that fits
        tight = (change for is_failure, _, change in others if not is_failure)
        yield from _judged(question, iter(list(tight)[:1]), progress)
    if others:
        _, _, change = min(others, key=lambda other: other[:2])
        yield from _judged(question, iter([change]), progress)


def _rank(found: Verdict, estimate: Estimate | None) -> tuple[int, int, int]:
    """Order verdicts from good to bad: by kind, by layers on the GPU, by need."""
    layers = estimate.layers.on_gpu if estimate is not None and estimate.layers is not None else 0
    return _ORDER.index(found.kind), -layers, found.need.expected_bytes


def _advice(change: Change, found: Verdict, estimate: Estimate, before: Verdict) -> Advice:
    effect = found.kind.value
    if found.kind is before.kind:
        effect = "still tight, with less" if found.kind is VerdictKind.TIGHT else "not enough yet"
    if found.kind is VerdictKind.OFFLOAD and estimate.layers is not None:
        effect = f"{estimate.layers.on_gpu} of {estimate.layers.total} layers on the GPU"
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


# --------------------------------------------------------------------------- the changes
def changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    """Yield the changes these settings leave open, cheapest first, then what they give together."""
    if pipeline.runtime in GGML_RUNTIMES:
        yield from _ggml_changes(pipeline, settings)
        return
    single = list(_torch_changes(pipeline, settings))
    yield from single
    decoding = [c for c in single if c.settings.keys() & {"vae_slicing", "vae_tiling"}]
    offload = [c for c in single if "offload" in c.settings]
    both = [first + second for first, second in combinations(decoding, 2)]
    yield from both
    for last in offload:
        yield from (first + last for first in [*decoding, *both])


def _torch_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    yield from _free_changes(settings)
    yield from _decoding_changes(pipeline, settings)
    yield from _dtype_changes(pipeline, settings)
    yield from _smaller_batches(settings)
    if settings.get("safety_checker") == "on":
        yield Change(
            settings={"safety_checker": "off"},
            line="safety_checker=None",
            cost="images are no longer checked",
        )
    if settings.get("offload") == "none":
        yield Change(
            settings={"offload": "model"},
            line="pipe.enable_model_cpu_offload()",
            cost="components wait in system memory and move for every image",
        )
    if settings.get("offload") in ("none", "model"):
        yield Change(
            settings={"offload": "sequential"},
            line="pipe.enable_sequential_cpu_offload()",
            cost="every layer moves for every step: many times slower",
        )


def _free_changes(settings: Settings) -> Iterator[Change]:
    if settings.get("attention") in ("math", "sliced"):
        yield Change(
            settings={"attention": "sdpa"},
            line="leave attention at its default (fused kernels)",
            cost="nothing: it is faster too",
        )
    # torch has no expandable segments on Windows: c10/cuda/CUDACachingAllocator.cpp
    if settings.get("expandable_segments") == "off" and settings.get("platform") != "windows":
        yield Change(
            settings={"expandable_segments": "on"},
            line="PYTORCH_ALLOC_CONF=expandable_segments:True",
            cost="nothing",
        )


def _decoding_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    vae = "pipe.vae" if len(pipeline.components) > 1 else "vae"
    batch = settings.get("batch", 1)
    if isinstance(batch, int) and batch > 1 and settings.get("vae_slicing") == "off":
        yield Change(
            settings={"vae_slicing": "on"},
            line=f"{vae}.enable_slicing()",
            cost="images are decoded one by one",
        )
    if settings.get("vae_tiling") == "off":
        yield Change(
            settings={"vae_tiling": "on"},
            line=f"{vae}.enable_tiling()",
            cost="a slower decode; seams are blended and may show in smooth areas",
        )


def _dtype_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    model = "pipe" if len(pipeline.components) > 1 else "model"
    if settings.get("dtype") == "fp32" and settings.get("mode") != "train":
        yield Change(
            settings={"dtype": "fp16"},
            line=f"{model}.to(torch.float16)",
            cost="half precision; faster on every card since Volta",
        )
    # SDXL's pipeline casts such a VAE to fp32 before it decodes, in fp16 only
    upcasts = any(spec.config.get("force_upcast") is True for spec in pipeline.components)
    if settings.get("dtype") == "fp16" and upcasts:
        yield Change(
            settings={"dtype": "bf16"},
            line=f"{model}.to(torch.bfloat16)",
            cost="slow on cards before Ampere (compute capability 8.0)",
        )


def _smaller_batches(settings: Settings) -> Iterator[Change]:
    batch = settings.get("batch", 1)
    while isinstance(batch, int) and batch > 1:
        batch //= 2
        yield Change(
            settings={"batch": batch},
            line=f"a batch of {batch}",
            cost="more runs for as many results",
        )


def _ggml_changes(pipeline: Pipeline, settings: Settings) -> Iterator[Change]:
    is_ollama = pipeline.runtime == "ollama"
    if settings.get("kv_type") == "f16" and settings.get("flash_attention") != "off":
        yield Change(
            settings={"kv_type": "q8_0"},
            line="OLLAMA_KV_CACHE_TYPE=q8_0" if is_ollama else "-ctk q8_0 -ctv q8_0",
            cost="a KV cache of half the size, with little loss",
        )
    ubatch = settings.get("ubatch")
    if isinstance(ubatch, int) and ubatch > 128:
        yield Change(
            settings={"ubatch": 128},
            line='"num_batch": 128 in the request\'s options' if is_ollama else "-ub 128",
            cost="prompts are read more slowly",
        )
    context = settings.get("context")
    while isinstance(context, int) and context > 2048:
        context //= 2
        yield Change(
            settings={"context": context},
            line=f"OLLAMA_CONTEXT_LENGTH={context}" if is_ollama else f"-c {context}",
            cost=f"the conversation and its images must fit {context} tokens",
        )
    if settings.get("gpu_layers", "auto") != "auto":
        yield Change(
            settings={"gpu_layers": "auto"},
            line="no num_gpu in the request's options" if is_ollama else "no -ngl",
            cost="layers that do not fit run on the CPU",
        )
