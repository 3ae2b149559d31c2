"""The first useful advice for a torch pipeline: the cheapest change of its settings that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramplan.budget.advice import Question, advise, is_useful
from vramplan.budget.change import Change, combine
from vramplan.engines.torch.changes import changes
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.screening import Screening, screen
from vramplan.errors import VramplanError
from vramplan.model import Advice, VerdictKind

#: a change helps where it takes this much off what is live at the peak
_HELPS = 0.98


def first_advice(pipeline: TorchPipeline, question: Question) -> tuple[Advice, ...]:
    """Return the cheapest change that makes the verdict fit; for a failure, else the nearest.

    Nothing is returned where no change helps.
    """
    before = question.verdict
    deciding_card = question.budgets[0][0]
    for change in Search(pipeline, question).proposals():
        try:
            found, estimate = question.with_change(change, (deciding_card,))
        except VramplanError:  # screened, but not recorded as a whole: try the next
            continue
        if found.kind is VerdictKind.FITS or (before.kind.is_failure and is_useful(found, before)):
            return (advise(change, found, estimate, before),)
    return ()


class Search:
    """The search for a change of a torch pipeline's settings.

    Changes are screened (`engines.torch.screening`) on the candidate that decided the verdict, and
    those that fit there on the others: that takes a tenth of what verdicts take.
    """

    def __init__(self, pipeline: TorchPipeline, question: Question) -> None:
        self.pipeline = pipeline
        self.settings = question.job.settings
        self.verdict = question.verdict
        self.progress = question.progress
        self.cards = question.budgets
        self._tight: Change | None = None
        self._least: tuple[int, Change] | None = None

    def proposals(self) -> Iterator[Change]:
        """Yield what seems to fit, then for a failure what seems tight, then what comes nearest."""
        known = list(changes(self.pipeline, self.settings))
        ordinary = [change for change in known if not change.is_last_resort]
        if (found := self._find(ordinary)) is not None:
            yield found
        if not self.verdict.kind.is_failure:
            return
        if self._tight is not None:
            yield self._tight
        if (found := self._find(known)) is not None:
            yield found
        if self._least is not None:
            yield self._least[1]

    def _find(self, known: Sequence[Change]) -> Change | None:
        """Return the first change that fits, or else what fits of those that help together."""
        for change in known:
            if self._fits((change,)):
                return change
        chain: tuple[Change, ...] = ()
        while (longer := self._lengthen(chain, known)) is not None:
            chain = longer
            if self._fits(chain):
                return combine(self._shorten(chain))
        return None

    def _lengthen(
        self, chain: tuple[Change, ...], known: Sequence[Change]
    ) -> tuple[Change, ...] | None:
        """Return `chain` with the first change that helps in it; None where none does."""
        before = self._screen(chain)
        for change in known:
            keys = change.settings.keys()
            tried = (*(c for c in chain if not c.settings.keys() & keys), change)
            seen = self._screen(tried)
            if before and seen and seen.live_bytes < before.live_bytes * _HELPS:
                return tried
        return None

    def _shorten(self, chain: tuple[Change, ...]) -> tuple[Change, ...]:
        """Return `chain` without the changes that it fits without."""
        for change in chain:
            rest = tuple(c for c in chain if c is not change)
            if rest and self._fits(rest):
                return self._shorten(rest)
        return chain

    def _fits(self, chain: tuple[Change, ...]) -> bool:
        for place in range(len(self.cards)):
            seen = self._screen(chain, place)
            if seen is None or not seen.fits:
                return False
        return True

    def _screen(self, chain: tuple[Change, ...], place: int = 0) -> Screening | None:
        """Return what a run with these changes does on a candidate; None where none is recorded."""
        card, budget = self.cards[place]
        change = combine(chain)
        if chain:
            self.progress(change.line)
        settings = {**self.settings, **change.settings}
        if settings.get("offload") == "auto":  # what fails has been tried with sequential offload
            is_oom = self.verdict.kind is VerdictKind.OOM
            settings["offload"] = "sequential" if is_oom else "none"
        try:
            seen = screen(self.pipeline, settings, card, budget)
        except VramplanError:
            return None
        if chain and place == 0:
            if seen.completes and self._tight is None:
                self._tight = change
            if self._least is None or seen.live_bytes < self._least[0]:
                self._least = seen.live_bytes, change
        return seen
