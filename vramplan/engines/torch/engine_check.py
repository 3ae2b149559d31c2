"""Runs a pipeline with the real torch on a card that is not there, and puts our figures beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.compare.comparison import Comparison, compare_run
from vramplan.compare.pair import Pair
from vramplan.compare.witness import Witness, WitnessRow
from vramplan.engines.torch.estimate import estimate_torch
from vramplan.engines.torch.measure import measure_order, place_order
from vramplan.engines.torch.pipeline import of_torch
from vramplan.errors import MeasurementError, MissingError
from vramplan.hearing import listener
from vramplan.model import Card, Job
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import NoReturn
from vramplan.runner.tools import Tools


def ask_torch(job: Job, card: Card) -> Witness:
    """Return what torch allocates and reserves on a pretended card, beside ours, by phase.

    The program runs once, in a process of its own. Raises UsageError for a card that cannot be
    pretended, MissingError where this Python has no torch for it, MeasurementError for a run that
    does not come to its end.
    """
    order = replace(place_order(job, Tools(find_gpu=_no_gpu, pretended=card)), turns=1)
    run = measure_order(order, listener())
    if run.failure is not None:
        first = run.failure.message.partition("\n")[0]
        raise MeasurementError(f"{job.pipeline.name} on a pretended {card.title}: {first}")
    ours = estimate_torch(of_torch(job.pipeline), run.settings, card)
    return Witness(
        pipeline=job.pipeline.name,
        engine=_named(run.versions),
        rows=tuple(_rows(compare_run(ours, run))),
        is_known=True,
        card=card.name,
    )


def _named(versions: Mapping[str, str]) -> str:
    torch, cudnn = versions.get("torch", "?"), versions.get("cudnn", "")
    if not cudnn.isdecimal():
        return f"torch {torch}"
    number = int(cudnn)  # 92400 is 9.24.0
    return f"torch {torch} with cuDNN {number // 10000}.{number // 100 % 100}.{number % 100}"


def _rows(found: Comparison) -> Iterator[WitnessRow]:
    """Yield the peaks of each phase in which both have any, then those of the whole run."""
    for phase in found.phases:
        where = f"{phase.phase}, {phase.component}"
        for name, pair in (("allocated", phase.allocated), ("reserved", phase.reserved)):
            if pair.estimate_bytes is not None and pair.measured_bytes is not None:
                yield WitnessRow(name=f"{where}: {name}", size=pair)
    whole: tuple[tuple[str, Pair], ...] = (
        ("allocated", found.peak_allocated),
        ("reserved", found.peak_reserved),
    )
    yield from (WitnessRow(name=f"whole run: {name}", size=pair) for name, pair in whole)


def _no_gpu() -> NoReturn:
    raise MissingError("a pretended card needs no GPU")
