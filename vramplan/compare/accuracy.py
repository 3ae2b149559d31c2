"""How far the estimates are from the measured runs, case by case and in sum."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from vramplan.compare.comparison import compare_run
from vramplan.compare.pair import Pair
from vramplan.measurement.run import FailureKind, Run
from vramplan.model import Estimate, VerdictKind
from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measured run beside its estimate; pairs of a run that failed have no measurement.

    `verdict` is what `vramplan check` says of the card that was played, `completed` whether the
    run came to its end there; both are None where no card was played.
    """

    name: str
    run: Run
    allocated: Pair
    reserved: Pair
    process: Pair
    verdict: VerdictKind | None = None
    completed: bool | None = None

    @property
    def is_false_fit(self) -> bool:
        """True where `check` says that it fits, tight or not, and the run failed."""
        said = self.verdict in (VerdictKind.FITS, VerdictKind.TIGHT)
        return said and self.completed is False

    @property
    def is_false_oom(self) -> bool:
        """True where `check` says that it fails and the run came to its end."""
        return self.verdict is VerdictKind.OOM and self.completed is True


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The sizes of the residuals of one quantity, per cent; `under` counts estimates too low."""

    cases: int
    median_percent: float
    worst_percent: float
    worst_case: str
    under: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The sum of it."""

    cases: tuple[Case, ...]
    allocated: Error | None
    reserved: Error | None
    process: Error | None
    played: int
    false_fits: tuple[str, ...]
    false_ooms: tuple[str, ...]


def make_case(name: str, run: Run, estimate: Estimate, verdict: VerdictKind | None = None) -> Case:
    """Return a run beside its estimate; a run that failed is judged by its verdict alone."""
    compared = compare_run(estimate, run)
    is_whole = run.failure is None
    empty = Pair(estimate_bytes=None, measured_bytes=None)
    is_played = run.emulation is not None
    died_of_memory = run.failure is not None and run.failure.kind is FailureKind.OOM
    return Case(
        name=name,
        run=run,
        # a card that is full makes torch give its cache back: what it reserved is then the card's
        allocated=compared.peak_allocated if is_whole else empty,
        reserved=compared.peak_reserved if is_whole and not is_played else empty,
        process=compared.peak_process if is_whole and not is_played else empty,
        verdict=verdict if is_played else None,
        completed=(is_whole or not died_of_memory) if is_played else None,
    )


def sum_up(cases: Sequence[Case]) -> Accuracy:
    """Return the errors of all cases."""
    return Accuracy(
        cases=tuple(cases),
        allocated=_error((case.name, case.allocated) for case in cases),
        reserved=_error((case.name, case.reserved) for case in cases),
        process=_error((case.name, case.process) for case in cases),
        played=sum(case.completed is not None for case in cases),
        false_fits=tuple(case.name for case in cases if case.is_false_fit),
        false_ooms=tuple(case.name for case in cases if case.is_false_oom),
    )


def _error(pairs: Iterable[tuple[str, Pair]]) -> Error | None:
    known = [
        (name, pair.residual_percent) for name, pair in pairs if pair.residual_percent is not None
    ]
    if not known:
        return None
    worst = max(known, key=lambda one: abs(one[1]))
    return Error(
        cases=len(known),
        median_percent=statistics.median(abs(percent) for _, percent in known),
        worst_percent=abs(worst[1]),
        worst_case=worst[0],
        under=sum(percent > 0 for _, percent in known),
    )
