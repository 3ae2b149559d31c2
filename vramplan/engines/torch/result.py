"""What replays of one run say: peaks and least limits, low to high. Nothing here replays."""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.mark import Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The peaks of one replay with one workspace model, and its least limit. Bytes."""

    allocated_peak_bytes: int
    reserved_peak_bytes: int
    least_limit_bytes: int
    phase: str  # where it fails first below the least limit
    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWeights:
    """A row of the component table."""

    name: str
    component: str
    parameters: int
    weights_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Three replays of one run: without scratch, with the expected scratch, with the most.

    `is_asked` says that cuDNN was asked about all layers that can decide what scratch adds.
    """

    low: Scenario
    expected: Scenario
    high: Scenario
    marks: tuple[Mark, ...]  # of the expected one
    warm_reserved_peak_bytes: int  # after a second run in the same process
    parts: tuple[PartWeights, ...]
    is_asked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastLimits:
    """The least limits of a run, and where it fails first below the expected one. Bytes."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int
    phase: str
    component: str
