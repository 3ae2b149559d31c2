"""What runs on a card: models ranked by how they fit, and which file of each is the best."""

from __future__ import annotations

from vramplan.budget.pace import Pace
from vramplan.model import Band, Verdict, VerdictKind
from vramplan.quick_dataclass import dataclass

_RANKS = {kind: rank for rank, kind in enumerate(VerdictKind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFit:
    """A model file beside others of its family: those of the same name and shapes.

    `best` is the usual type with most bits a weight with which all of the model would be on the
    GPU, an estimate by bits alone; None where none is small enough.
    """

    family: str
    quantisation: str
    bits: float
    best: str | None
    best_bits: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A model, and how it fits; with a `problem` there is no verdict.

    `target` is what other commands take for it, `place` whose it is or in which folder. `is_best`:
    of the files of its family that are here it has most bits of those that stay whole.
    """

    name: str
    target: str
    place: str
    runtime: str
    verdict: Verdict | None = None
    pace: Pace | None = None
    file: FileFit | None = None
    is_best: bool = False
    problem: str | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether it fits."""
        return self.verdict is not None and self.verdict.kind is VerdictKind.FITS

    @property
    def rank(self) -> tuple[int, int, str]:
        """What rows are ordered by: the verdict, then the largest first."""
        if self.verdict is None:
            return len(_RANKS), 0, self.name
        return _RANKS[self.verdict.kind], -self.verdict.need.expected_bytes, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two of a ranking's models side by side on its card, a process each, by their places there."""

    places: tuple[int, int]
    kind: VerdictKind
    need: Band
    budget_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What runs on a card, the best fit first.

    `pairs` are any two of those rows that have room alone, None where nobody asked.
    """

    card: str
    card_title: str
    rows: tuple[Ranked, ...]
    pairs: tuple[Pair, ...] | None = None
