"""What helps a torch pipeline most where no change of its settings makes it fit."""

from __future__ import annotations

from collections.abc import Sequence

from vramplan.budget.advice import Question, advise, is_useful
from vramplan.budget.change import Change, combine
from vramplan.budget.combinations import Chain
from vramplan.engines.torch.changes import changes
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.screening import screen
from vramplan.errors import VramplanError
from vramplan.model import Advice

#: a change helps where it takes this much off what is live at the peak
_HELPS = 0.98


def nearest_advice(pipeline: TorchPipeline, question: Question) -> tuple[Advice, ...]:
    """Return the changes with which least is alive at the peak; none where they do not help.

    They are looked for on the candidate that decided the verdict.
    """
    known = list(changes(pipeline, question.job.settings))
    chain: Chain = ()
    while (longer := _lengthen(pipeline, question, chain, known)) is not None:
        chain = longer
    if not chain:
        return ()
    change = combine(chain)
    try:
        found, estimate = question.with_change(change, (question.budgets[0][0],))
    except VramplanError:  # screened, but not recorded as a whole
        return ()
    if not is_useful(found, question.verdict):
        return ()
    return (advise(change, found, estimate, question.verdict),)


def _lengthen(
    pipeline: TorchPipeline, question: Question, chain: Chain, known: Sequence[Change]
) -> Chain | None:
    """Return `chain` with the first change that helps in it; None where none does."""
    before = _live_bytes(pipeline, question, chain)
    for change in known:
        keys = change.settings.keys()
        tried = (*(one for one in chain if not one.settings.keys() & keys), change)
        live = _live_bytes(pipeline, question, tried)
        if before is not None and live is not None and live < before * _HELPS:
            return tried
    return None


def _live_bytes(pipeline: TorchPipeline, question: Question, chain: Chain) -> int | None:
    """Return what is alive at a run's peak with some changes; None where none is recorded."""
    card, budget = question.budgets[0]
    change = combine(chain)
    if chain:
        question.progress(change.line)
    settings = {**question.job.settings, **change.settings}
    if settings.get("offload") == "auto":  # what fails has been tried with sequential offload
        settings["offload"] = "sequential"
    try:
        return screen(pipeline, settings, card, budget).live_bytes
    except VramplanError:
        return None
