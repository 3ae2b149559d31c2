"""Verdicts and phases in words for people who decide and do not run models themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vramplan.model import Estimate, Verdict, VerdictKind
from vramplan.report import phrases
from vramplan.report.colour import SIGNS, Tone

#: what each verdict is called, and what it means
WORDS: Mapping[VerdictKind, str] = {
    VerdictKind.FITS: "Fits",
    VerdictKind.TIGHT: "Only just fits",
    VerdictKind.OFFLOAD: "Slower: partly in system memory",
    VerdictKind.OOM: "Does not fit",
}
MEANINGS: Mapping[VerdictKind, str] = {
    VerdictKind.FITS: "even the high estimate of the need is within what the card offers",
    VerdictKind.TIGHT: "as expected it completes in what the card offers, by the high estimate not",
    VerdictKind.OFFLOAD: "it runs, but a part of it waits or works in system memory",
    VerdictKind.OOM: "it fails for want of memory",
}

#: what each kind of piece of a budget is called, the term in brackets
KINDS: Mapping[Tone, str] = {
    Tone.WEIGHTS: "the model itself (weights)",
    Tone.CACHE: "kept from step to step (caches, states, gradients)",
    Tone.ACTIVATIONS: "intermediate results (activations)",
    Tone.SCRATCH: "scratch space (workspace, compute buffers)",
    Tone.SLACK: "held in reserve (allocator slack)",
    Tone.CONTEXT: "the driver's own (CUDA context)",
    Tone.OTHER: "other",
}

_PHASES = {
    "load": "while the model is loaded",
    "encode_prompt": "while the prompt is read",
    "encode_image": "while the image is read",
    "denoise": "while the image is worked out, step by step",
    "decode_image": "while the finished image is decoded",
    "prefill": "while the input is read",
    "generate": "while the answer is written",
    "train_step": "during a training step",
    "idle": "while the model waits",
}

#: with so many cards or fewer each gets a clause of its own, or each verdict on one pipeline
_MOST_CLAUSES, _MOST_CARDS = 2, 6
_SINGULAR = {
    VerdictKind.FITS: "fits",
    VerdictKind.TIGHT: "only just fits",
    VerdictKind.OFFLOAD: "runs partly in system memory",
    VerdictKind.OOM: "does not fit",
}
_PLURAL = {
    VerdictKind.FITS: "fit",
    VerdictKind.TIGHT: "only just fit",
    VerdictKind.OFFLOAD: "run partly in system memory",
    VerdictKind.OOM: "do not fit",
}


def verdict(kind: VerdictKind) -> str:
    """Return a verdict's sign and its plain words."""
    return f"{SIGNS[kind]} {WORDS[kind]}"


def share(row: Verdict) -> str:
    """Return how much of the budget is needed as expected, in per cent, rounded up."""
    if row.budget_bytes <= 0:
        return phrases.NOTHING
    percent = -(-row.need.expected_bytes * 100 // row.budget_bytes)
    return f"{percent:,} %"


def moment(phase: str) -> str:
    """Return when something happens; a phase that is not known by its name."""
    return _PHASES.get(phase) or f"in {phrases.name(phase)}"


def effect(told: str, need: str) -> str:
    """Return what a change comes to, as a sentence: ``Then it fits and needs 2,680 MiB.``"""
    kinds = {kind.value: words for kind, words in _SINGULAR.items()}
    said = f"Then it {kinds[told]}" if told in kinds else f"{told[:1].upper()}{told[1:]}"
    return f"{said} and needs {need}." if need else f"{said}."


def need(estimate: Estimate) -> str:
    """Return what a card must have free for a pipeline, and when that is."""
    least = estimate.need
    size = phrases.need(least.band.expected_bytes)
    where = "The cards together must" if estimate.cards else "A card must"
    spread = phrases.spread(least.band)
    doubt = "" if spread == "exact" else f" ({spread} is possible)"
    return f"{where} have {size} free{doubt}. The most memory is needed {moment(least.phase)}."


def headline(verdicts: Sequence[Verdict]) -> str:
    """Return what all verdicts come to, in a sentence or two."""
    if not verdicts:
        return ""
    by_card: dict[str, dict[str, VerdictKind]] = {}
    for row in verdicts:
        by_card.setdefault(row.card, {})[row.pipeline] = row.kind
    pipelines = {row.pipeline for row in verdicts}
    if {row.kind for row in verdicts} == {VerdictKind.FITS} and len(verdicts) > 1:
        return f"{_all(len(pipelines), pipelines)} on {_cards(list(by_card))}."
    if len(pipelines) == 1 and 1 < len(by_card) <= _MOST_CARDS:
        return f"{phrases.name(verdicts[0].pipeline)} {_on_cards(verdicts)}."
    if len(by_card) <= _MOST_CLAUSES:
        clauses = [f"on {phrases.name(card)} {_clause(kinds)}" for card, kinds in by_card.items()]
        said = "; ".join(clauses)
        return f"{said[0].upper()}{said[1:]}."
    return f"{_tally(verdicts)} {_smallest(verdicts, by_card)}"


def _all(count: int, pipelines: set[str]) -> str:
    if count == 1:
        return f"{phrases.name(next(iter(pipelines)))} fits"
    return "Both models fit" if count == 2 else f"All {count} models fit"


def _cards(cards: Sequence[str]) -> str:
    if len(cards) <= 2:
        return " and ".join(phrases.name(card) for card in cards)
    return f"all {len(cards)} cards"


def _on_cards(verdicts: Sequence[Verdict]) -> str:
    """Return what one pipeline comes to: ``fits on 8gb and 12gb and does not fit on 4gb``."""
    parts = []
    for kind in VerdictKind:
        cards = [phrases.name(row.card) for row in verdicts if row.kind is kind]
        if cards:
            parts.append(f"{_SINGULAR[kind]} on {_listed(cards)}")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _clause(kinds: Mapping[str, VerdictKind]) -> str:
    """Return which pipelines come to what on one card: ``sd15 fits, sdxl does not``."""
    parts = []
    for kind in VerdictKind:
        names = [phrases.name(pipeline) for pipeline, found in kinds.items() if found is kind]
        if kind is VerdictKind.OOM and 1 < len(names) == len(kinds):
            who = "neither model" if len(names) == 2 else f"none of the {len(names)} models"
            parts.append(f"{who} fits")
        elif names:
            words = _SINGULAR if len(names) == 1 else _PLURAL
            parts.append(f"{_named(names, len(kinds))} {words[kind]}")
    return _listed(parts)


def _named(names: Sequence[str], total: int) -> str:
    if len(names) == 1:
        return names[0]
    if len(names) == total:
        return "both models" if total == 2 else f"all {total} models"
    return " and ".join(names) if len(names) == 2 else f"{len(names)} models"


def _tally(verdicts: Sequence[Verdict]) -> str:
    """Return how many combinations come to what."""
    total = len(verdicts)
    parts = []
    for kind in VerdictKind:
        count = sum(row.kind is kind for row in verdicts)
        if count:
            parts.append(f"{count} {(_SINGULAR if count == 1 else _PLURAL)[kind]}")
    return f"Of {total} combinations of model and card, {_listed(parts)}."


def _smallest(verdicts: Sequence[Verdict], by_card: Mapping[str, Mapping[str, VerdictKind]]) -> str:
    """Return which card with the least memory takes everything that was judged."""
    pipelines = {row.pipeline for row in verdicts}
    budgets = {row.card: row.budget_bytes for row in verdicts}
    enough = [
        card
        for card, kinds in by_card.items()
        if set(kinds) == pipelines and not any(kind.is_failure for kind in kinds.values())
    ]
    what = "it" if len(pipelines) == 1 else "everything"
    if not enough:
        return f"None of these cards takes {what} whole."
    least = min(enough, key=lambda card: budgets[card])
    return f"The smallest of these cards that takes {what} whole is {phrases.name(least)}."
