"""The cards of this machine, or of a recorded run, look by look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

from vramplan.ask.targets import make_jobs, silent
from vramplan.catalog.cards import DEFAULT_CAPABILITY, assumed_card
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import MissingError
from vramplan.measurement.watched import Plan, Watched
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.catalog import Catalog
    from vramplan.model import SettingValue
    from vramplan.probe.nvml import Gpu
    from vramplan.probe.protocol import Probe

#: the plan for a card of a compute capability; None where there is none
Planner = Callable[[str], Plan | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a card is looked at, and when that ends: after so long, or so many looks."""

    interval_s: float = 0.5
    seconds: float | None = None
    count: int | None = None


class Watching:
    """Cards, each with the eyes on it."""

    def __init__(self, cards: Sequence[tuple[Watched, Probe]]) -> None:
        self._cards = tuple(cards)
        self.cards = tuple(card for card, _ in cards)

    @property
    def is_over(self) -> bool:
        """True where a recorded run has no look left."""
        return all(getattr(probe, "is_over", False) for _, probe in self._cards)

    def look(self) -> None:
        """Look at every card once."""
        for card, probe in self._cards:
            card.peaks.take(probe.read())

    def look_on(self, pace: Pace, show: Callable[[float], None], *, waits: bool = True) -> None:
        """Look again and again, and tell `show` how many seconds in; unless `waits` at once."""
        began = due = time.monotonic()
        looks = 0
        while True:
            self.look()
            looks += 1
            show(time.monotonic() - began)
            if self.is_over or looks == pace.count:
                return
            due = max(due + pace.interval_s, time.monotonic())
            if pace.seconds is not None and due - began > pace.seconds:
                return
            if waits:
                time.sleep(max(0.0, due - time.monotonic()))


def plan_nothing(_compute_capability: str) -> None:
    """Plan nothing for a card."""


def plan_size(size_bytes: int) -> Planner:
    """Return the plan of a budget, the same for every card."""
    return lambda _capability: Plan(label="budget", size_bytes=size_bytes)


def plan_target(
    target: str,
    catalog: Catalog,
    settings: Mapping[str, SettingValue],
    remark: Remark = silent,
) -> Planner:
    """Return the plan of a TARGET at its peak, on each card's own architecture."""
    (job,) = make_jobs([target], catalog, settings, remark=remark)
    engine = engine_of(job.pipeline)

    @lru_cache(maxsize=16)  # architectures in this machine
    def plan(compute_capability: str) -> Plan:
        found = engine.estimate(job, assumed_card(compute_capability))
        return Plan(
            label=f"{job.pipeline.name} at its peak",
            size_bytes=found.peak.device.expected_bytes,
        )

    return plan


def sample_run() -> Path:
    """Return the file of a run that ships: the real torch on a card that is not there."""
    from vramplan.catalog import profiles_dir

    return profiles_dir() / "samples" / "sd15-pretended.json"


def replay_cards(path: Path, planner: Planner = plan_nothing) -> Watching:
    """Return the card of the run in a file, to be watched once more.

    Raises MeasurementError for a file without a run, or one that did not look at a card.
    """
    from vramplan.measurement.files import read_run
    from vramplan.measurement.run import Witness
    from vramplan.probe.recorded import RecordedProbe

    saved = read_run(path)
    name = saved.gpu.name if saved.gpu is not None else "no GPU"
    if saved.witness is Witness.PRETENDED:
        name += " (pretended)"
    # the pipeline first: a label is cut where a line is short
    label = f"{saved.pipeline} on {name}, {saved.created[:10]}"
    plan = planner(saved.compute_capability or DEFAULT_CAPABILITY)
    return Watching([(Watched(label=label, plan=plan), RecordedProbe(saved))])


@contextmanager
def open_cards(selector: str | None, planner: Planner = plan_nothing) -> Iterator[Watching]:
    """Open the eyes on this machine's cards, or on the one that is named by index or UUID.

    Raises MissingError where there is no GPU, UsageError for one that is not there.
    """
    from vramplan.probe.nvml import NvmlProbe

    gpus = _gpus(selector)
    plans = [planner(gpu.compute_capability) for gpu in gpus]
    with ExitStack() as stack:
        yield Watching(
            [
                (
                    Watched(label=f"{gpu.index}: {gpu.name}", plan=plan),
                    stack.enter_context(NvmlProbe(gpu.uuid)),
                )
                for gpu, plan in zip(gpus, plans, strict=True)
            ]
        )


def _gpus(selector: str | None) -> tuple[Gpu, ...]:
    from vramplan.probe.choice import choose_gpu
    from vramplan.probe.nvml import read_inventory

    try:
        inventory = read_inventory()
    except MissingError as problem:
        hint = "vramplan watch --replay shows a run that ships, --replay RUN one that was kept"
        raise MissingError(str(problem), hint=hint) from problem
    return tuple(inventory.gpus) if selector is None else (choose_gpu(inventory, selector),)
