"""Does it fit? A job on every candidate of a card's choice, alone or side by side with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vramplan.budget.system_share import beside_share, system_share
from vramplan.budget.verdict import (
    Graded,
    Grader,
    candidate_budgets,
    grade,
    judged_as,
    offload_risk,
    spills,
    without_words,
)
from vramplan.budget.words import compare_with_budget, describe_room
from vramplan.catalog import CardChoice
from vramplan.engines.door import engine_of
from vramplan.errors import UsageError
from vramplan.model import (
    Asked,
    Band,
    Card,
    CardShare,
    Estimate,
    Job,
    Settings,
    Verdict,
    VerdictKind,
)
from vramplan.quick_dataclass import dataclass, replace
from vramplan.units import format_size

_RANKS = {kind: rank for rank, kind in enumerate(VerdictKind)}


def judge(
    job: Job,
    choice: CardChoice,
    *,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
    grader: Grader | None = None,
) -> tuple[Verdict, Estimate]:
    """Return the verdict on the worst of a choice's candidates, and the estimate behind it.

    `grader` is the job's, where it has graded other choices before. Raises UsageError where the
    card has no room for a CUDA context, VramplanError where there is no estimate.
    """
    kept_bytes = system_share(job.settings).expected_bytes
    candidates = list(candidate_budgets(choice, margin_bytes, other_bytes, kept_bytes))
    if len(candidates) == 1:
        return _judge_card(job, choice, *candidates[0])
    grading = grader or engine_of(job.pipeline).grader(job)
    graded = list(_graded(job.settings, grading, candidates))
    worst = max(graded, key=_rank)
    verdict, estimate = _judge_card(job, choice, *worst[:2])
    better = _elsewhere(worst, graded)
    return replace(verdict, reason=verdict.reason + better) if better else verdict, estimate


#: a candidate, its budget, and what grading it came to
_Candidate = tuple[Card, int, "Weighed", Graded]


def find_worst(
    settings: Settings, grader: Grader, candidates: Iterable[tuple[Card, int]]
) -> _Candidate:
    """Return the candidate of the worst verdict, the first of several, with its budget and figures.

    Grading is what can be told without an estimate of every line.
    """
    return max(_graded(settings, grader, candidates), key=_rank)


def _graded(
    settings: Settings, grader: Grader, candidates: Iterable[tuple[Card, int]]
) -> Iterator[_Candidate]:
    for card, budget in candidates:
        graded = grader(card, budget)
        yield card, budget, weigh(graded, settings, budget), graded


def _rank(candidate: _Candidate) -> tuple[int, float, int]:
    weighed = candidate[2]
    return badness(weighed.kind, weighed.risk, weighed.need)


def _elsewhere(worst: _Candidate, graded: Sequence[_Candidate]) -> str:
    """Return what a class's other architectures come to, where the worst does not fit.

    It is said where they have a better verdict, or need two thirds or less: kernels of attention
    that old cards do not have make most of such a need.
    """
    card, _, weighed, _ = worst
    if weighed.kind is VerdictKind.FITS:
        return ""
    need = weighed.need.expected_bytes
    better = [
        (one[0].compute_capability, one[2])
        for one in graded
        if _RANKS[one[2].kind] < _RANKS[weighed.kind] or 3 * one[2].need.expected_bytes <= 2 * need
    ]
    if not better:
        return ""
    needs = [one.need.expected_bytes for _, one in better]
    names = list(dict.fromkeys(name for name, _ in better))
    kinds = list(dict.fromkeys(one.kind for _, one in better))
    least, most = (format_size(size, up=True) for size in (min(needs), max(needs)))
    as_bad = kinds == [weighed.kind]
    return (
        f"; that is on compute capability {card.compute_capability}: on "
        f"{' or '.join((', '.join(names[:-1]), names[-1]) if names[1:] else names)} it needs "
        f"{least if least == most else f'{least} to {most}'} "
        f"({' or '.join(kind.value for kind in kinds)}{' too' * as_bad})"
    )


def judge_together(
    jobs: Sequence[Job],
    choice: CardChoice,
    *,
    margin_bytes: int = 0,
    other_bytes: int | None = None,
) -> tuple[Verdict, tuple[Estimate, ...]]:
    """Return the verdict on several pipelines side by side on one card, a process each.

    Each keeps its own CUDA context, so the needs add up.
    """
    found = []
    # one card has one system, whichever of the jobs was told of it
    shared = max((job.settings for job in jobs), key=lambda one: system_share(one).high_bytes)
    kept_bytes = system_share(shared).expected_bytes
    for card, budget in candidate_budgets(choice, margin_bytes, other_bytes, kept_bytes):
        if card.seats:
            hint = "judge each of them alone, or on one card"
            message = f"{choice.label}: pipelines side by side on several cards are not modelled"
            raise UsageError(message, hint=hint)
        estimates = tuple(replace(_beside(job, card), asked=job.asked) for job in jobs)
        largest = max(estimates, key=lambda e: e.need.band.expected_bytes)
        weighed = weigh_together(
            [e.need.band for e in estimates], [job.settings for job in jobs], budget
        )
        need, kind = weighed.need, weighed.kind
        verdict = Verdict(
            pipeline=" + ".join(job.pipeline.name for job in jobs),
            card=choice.label,
            card_title=choice.title,
            judged_as=judged_as(card),
            kind=kind,
            need=need,
            budget_bytes=budget,
            offload_risk=weighed.risk,
            peak_phase=largest.need.phase,
            peak_component=largest.need.component,
            reason=_shared_reason(estimates, need, budget, kind) + _kept(shared),
            asked=Asked(members=tuple(job.asked for job in jobs)),
        )
        found.append((verdict, estimates))
    return max(found, key=lambda pair: _badness(pair[0]))


def need_beside(job: Job, card: Card) -> Band:
    """Return what a job needs beside others on a card; raises VramplanError."""
    return _beside(job, card).need.band


def _beside(job: Job, card: Card) -> Estimate:
    return engine_of(job.pipeline).estimate(job.changed(_plain(job.settings)), card)


def weigh_together(
    needs: Sequence[Band], settings: Sequence[Settings], budget_bytes: int
) -> Weighed:
    """Return what the needs of processes side by side, at their settings, come to on a budget."""
    shared = max(settings, key=lambda one: system_share(one).high_bytes)
    need = sum(needs[1:], needs[0])
    about = beside_share(need, shared)
    return Weighed(
        kind=grade(about, budget_bytes, spills=all(spills(one) for one in settings)),
        risk=offload_risk(about, budget_bytes),
        need=need,
        budget_bytes=budget_bytes,
    )


def _plain(settings: Settings) -> Settings:
    return {"offload": "none"} if settings.get("offload") == "auto" else {}


def _judge_card(
    job: Job, choice: CardChoice, card: Card, budget_bytes: int
) -> tuple[Verdict, Estimate]:
    judgement = engine_of(job.pipeline).judge(job, card, budget_bytes)
    found = judgement.estimate
    graded = without_words(judgement)
    weighed = weigh(graded, found.settings, budget_bytes)
    verdict = Verdict(
        pipeline=job.pipeline.name,
        card=choice.label,
        card_title=choice.title,
        judged_as=judged_as(card),
        kind=weighed.kind,
        need=weighed.need,
        budget_bytes=weighed.budget_bytes,
        offload_risk=weighed.risk,
        peak_phase=found.need.phase,
        peak_component=found.need.component,
        reason=judgement.reason + _kept(found.settings),
        parts={component.name: component.weights_bytes for component in found.components},
        layers=judgement.layers or found.layers,
        buffers=found.buffers,
        context=graded.context,
        cards=weighed.cards,
        asked=job.asked,
    )
    found = replace(found, asked=job.asked)
    return verdict, replace(found, cards=weighed.cards) if weighed.cards else found


def _kept(settings: Settings) -> str:
    """Return what is said of the platform's share of the card; nothing where it keeps none."""
    share = system_share(settings)
    if not share.high_bytes:
        return ""
    expected, high = (
        format_size(size, up=True) for size in (share.expected_bytes, share.high_bytes)
    )
    return (
        f"; {expected} are taken off for Windows, which keeps up to {high} of a card that "
        "nvidia-smi does not show"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """An engine's grade with the band of the platform's share about it.

    Of several cards the need and the budget are those of the one that decides; where the engine
    keeps a part in host memory, those of all of them together.
    """

    kind: VerdictKind
    risk: float
    need: Band
    budget_bytes: int
    cards: tuple[CardShare, ...] = ()


def weigh(graded: Graded, settings: Settings, budget_bytes: int) -> Weighed:
    """Return what an engine's grade comes to on a card, or on several, beside the platform."""
    if graded.cards:
        return _weigh_cards(graded, settings, budget_bytes)
    if graded.one_budget_bytes is not None:
        budget_bytes = graded.one_budget_bytes
    kind, risk = _beside_system(graded.kind, graded.need.band, settings, budget_bytes)
    risk = 1.0 if graded.is_split else risk
    return Weighed(kind=kind, risk=risk, need=graded.need.band, budget_bytes=budget_bytes)


def _weigh_cards(graded: Graded, settings: Settings, budget_bytes: int) -> Weighed:
    """Return the worst of the cards: one that is too small fails the whole run.

    Of cards that are as good the one with least headroom decides. Their needs err alike, so the
    risk is that of the card where it is greatest.
    """
    cards, found = [], []
    for share in graded.cards:
        assert share.kind is not None
        assert share.budget_bytes is not None
        kind, risk = _beside_system(share.kind, share.need, settings, share.budget_bytes)
        left = share.budget_bytes - share.need.expected_bytes
        found.append(((_RANKS[kind], round(risk, 2), -left), kind, risk, share))
        cards.append(replace(share, kind=kind))
    _, kind, risk, worst = max(found, key=lambda one: one[0])
    if graded.is_split:
        return Weighed(
            kind=graded.kind,
            risk=1.0,
            need=graded.need.band,
            budget_bytes=budget_bytes,
            cards=tuple(cards),
        )
    assert worst.budget_bytes is not None
    return Weighed(
        kind=kind, risk=risk, need=worst.need, budget_bytes=worst.budget_bytes, cards=tuple(cards)
    )


def _beside_system(
    kind: VerdictKind, need: Band, settings: Settings, budget_bytes: int
) -> tuple[VerdictKind, float]:
    """Return a verdict and its risk with the band of the platform's share about them."""
    about = beside_share(need, settings)
    if kind is VerdictKind.FITS:  # the engine knows the platform's share as expected, not its band
        kind = grade(about, budget_bytes, spills=spills(settings))
    return kind, offload_risk(about, budget_bytes)


def badness(kind: VerdictKind, risk: float, need: Band) -> tuple[int, float, int]:
    """Rank verdicts: by kind, then by risk as far as a person tells risks apart, then by need."""
    return _RANKS[kind], round(risk, 2), need.expected_bytes


def _badness(verdict: Verdict) -> tuple[int, float, int]:
    return badness(verdict.kind, verdict.offload_risk, verdict.need)


def _shared_reason(
    estimates: Sequence[Estimate], need: Band, budget_bytes: int, kind: VerdictKind
) -> str:
    shares = " and ".join(
        f"{e.pipeline} {format_size(e.need.band.expected_bytes, up=True)}" for e in estimates
    )
    compared = (
        compare_with_budget(need, budget_bytes)
        if kind.is_failure
        else f"together it {describe_room(need, kind, budget_bytes)}"
    )
    return f"side by side, a process each ({shares}): {compared}"
