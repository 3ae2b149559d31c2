"""An engine of one number: for tests and for showing what vramplan says, with nothing behind it.

Its pipelines need so many bytes for each of a batch, all of them weights, beside a CUDA context of
its own. ``door.install(FAKE, FakeEngine())`` lets it run those whose runtime is `FAKE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.budget.advice import Question, advise
from vramplan.budget.change import SOME, Change
from vramplan.budget.pace import Pace
from vramplan.budget.verdict import Grader, Screening, grade, spills, without_words
from vramplan.catalog.pipelines import Entry
from vramplan.compare.pair import Pair
from vramplan.compare.witness import Witness, WitnessRow
from vramplan.errors import UsageError
from vramplan.measurement.reading import TorchMemory
from vramplan.measurement.run import Run, Stretch
from vramplan.measurement.run import Witness as Witnessed
from vramplan.model import (
    GPU,
    Advice,
    Band,
    Card,
    Component,
    Estimate,
    Job,
    Judgement,
    Line,
    LineKind,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Pipeline,
    Verdict,
    VerdictKind,
)
from vramplan.quick_dataclass import dataclass
from vramplan.units import MIB

if TYPE_CHECKING:
    from vramplan.budget.drift import Drift
    from vramplan.catalog.published import Claim
    from vramplan.compare.events import EventComparison
    from vramplan.runner.tools import Tools

FAKE = "fake"
CONTEXT_BYTES = 256 * MIB
MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakePipeline(Pipeline):
    """Something that needs `size_bytes` for each of its batch."""

    size_bytes: int


def fake_pipeline(size_bytes: int, *, name: str = FAKE, batch: int = 1) -> FakePipeline:
    """Return a pipeline of one number."""
    return FakePipeline(
        name=name,
        title=name,
        summary="an engine of one number",
        runtime=FAKE,
        defaults={"batch": batch},
        constraints={},
        source="made up",
        path="",
        size_bytes=size_bytes,
    )


class FakeEngine:
    """What runs nothing and needs what it is told (`engines.door.Engine`)."""

    def open(self, entry: Entry, folders: Sequence[Path]) -> FakePipeline:  # noqa: ARG002  # no tapes
        """Return the pipeline of an entry whose body has `size_bytes`."""
        size_bytes = entry.body.get("size_bytes")
        if not isinstance(size_bytes, int):
            raise UsageError(f"{entry.name}: size_bytes is not a number of bytes")
        return fake_pipeline(size_bytes, name=entry.name)

    def estimate(self, job: Job, card: Card) -> Estimate:
        """Return a budget of two lines: the number, and a CUDA context."""
        return _estimate(job, card)

    def judge(self, job: Job, card: Card, budget_bytes: int) -> Judgement:
        """Return whether the number fits."""
        found = _estimate(job, card)
        kind = grade(found.need.band, budget_bytes, spills=spills(job.settings))
        return Judgement(estimate=found, kind=kind, reason=f"it {kind.value}s, being a number")

    def grader(self, job: Job) -> Grader:
        """Return what grades the number on one card after another."""
        return lambda card, budget_bytes: without_words(self.judge(job, card, budget_bytes))

    def changes(self, job: Job) -> Iterator[Change]:
        """Yield the one change there is, half the batch."""
        batch = job.settings.get("batch")
        if isinstance(batch, int) and batch > 1:
            yield Change(
                settings={"batch": batch // 2}, line="half the batch", cost="time", price=SOME
            )

    def not_modelled(self, job: Job) -> Iterator[tuple[str, str]]:  # noqa: ARG002  # of any number
        """Yield what cannot be done with a number."""
        yield "a smaller number", "it is as large as it is"

    def screen(self, job: Job, card: Card, budget_bytes: int) -> Screening:
        """Return whether the number fits."""
        need = _estimate(job, card).need.band
        return Screening(
            fits=need.high_bytes <= budget_bytes,
            completes=need.expected_bytes <= budget_bytes,
            least_bytes=need.high_bytes,
            least_tight_bytes=need.expected_bytes,
        )

    def pace(self, job: Job, card: Card, budget_bytes: int | None = None) -> Pace | None:  # noqa: ARG002  # it is read whole
        """Return how long the card takes to read the number."""
        seconds = _size(job) / card.bandwidth_bytes_per_s
        return Pace(seconds=seconds, result="item")

    def advise(self, question: Question) -> tuple[Advice, ...]:
        """Return the first change that fits."""
        for change in self.changes(question.job):
            found, estimate = question.with_change(change)
            if found.kind is VerdictKind.FITS:
                return (advise(change, found, estimate, question.verdict),)
        return ()

    def file_fit(self, job: Job, card: Card, budget_bytes: int) -> None:
        """Return nothing: a number is not in a file."""

    def smaller_file(self, question: Question) -> None:
        """Return nothing: a number is not in a file."""

    def witness(
        self,
        job: Job,
        judged: tuple[Verdict, Estimate] | None = None,
        card: Card | None = None,  # noqa: ARG002  # a number is the same on every card
    ) -> Witness:
        """Return the number as its own witness."""
        size = _size(job)
        row = WitnessRow(name=MODEL, size=Pair(estimate_bytes=size, measured_bytes=size))
        return Witness(
            pipeline=job.pipeline.name,
            engine=FAKE,
            rows=(row,),
            is_known=True,
            card=judged[0].card if judged else None,
        )

    def measure(self, job: Job, tools: Tools) -> Run:
        """Return a run that took the number, and no more."""
        size = _size(job)
        torch = TorchMemory(
            allocated_bytes=size,
            reserved_bytes=size,
            allocated_peak_bytes=size,
            reserved_peak_bytes=size,
            requested_peak_bytes=size,
            inactive_split_bytes=0,
            retries=0,
        )
        tools.progress("loading model")
        return Run(
            pipeline=job.pipeline.name,
            title=job.pipeline.title,
            runtime=FAKE,
            settings=job.settings,
            weights=tools.weights,
            witness=Witnessed.SYNTHETIC,
            created="2026-01-01T00:00:00Z",
            command=tools.command,
            gpu=None,
            versions={},
            kernels="machine",
            stretches=(
                Stretch(
                    phase="load",
                    component=MODEL,
                    turn="load",
                    began_s=0.0,
                    ended_s=1.0,
                    torch=torch,
                ),
            ),
        )

    def compare_events(self, job: Job, compute_capability: str, history: Path) -> EventComparison:
        """Raise UsageError: a number has no events."""
        del compute_capability, history
        raise UsageError(f"{job.pipeline.name}: a number has no events")

    def tape_name(self, pipeline: Pipeline, dtype: str | None = None) -> str:
        """Raise UsageError: a number has no tape."""
        del dtype
        raise UsageError(f"{pipeline.name}: a number has no tape")

    def make_tape(
        self, pipeline: Pipeline, progress: Callable[[str], None], *, is_proved: bool = True
    ) -> str:
        """Raise UsageError: a number has no tape."""
        del progress, is_proved
        return self.tape_name(pipeline)

    def tape_drift(self, pipeline: Pipeline, known: str, made: str) -> tuple[Drift, ...]:
        """Return nothing: there is no tape that could change."""
        del pipeline, known, made
        return ()

    def tape_versions(self, pipeline: Pipeline) -> None:
        """Return nothing: a number has no tape."""

    def ours(self, pipeline: Pipeline, claim: Claim) -> int:  # noqa: ARG002  # one number for all
        """Return the number, whatever is claimed."""
        return _size(Job(pipeline=pipeline, settings=pipeline.defaults))

    def weights(self, pipeline: Pipeline, claim: Claim, names: Sequence[str]) -> int:  # noqa: ARG002  # as above
        """Return the number: all of it is weights."""
        return _size(Job(pipeline=pipeline, settings=pipeline.defaults))


def _size(job: Job) -> int:
    if not isinstance(job.pipeline, FakePipeline):
        raise TypeError(f"{job.pipeline.name}: not a pipeline of one number")
    batch = job.settings.get("batch", 1)
    return job.pipeline.size_bytes * (batch if isinstance(batch, int) else 1)


def _estimate(job: Job, card: Card) -> Estimate:
    size = _size(job)
    whole = Band.exactly(size + CONTEXT_BYTES)
    return Estimate(
        pipeline=job.pipeline.name,
        title=job.pipeline.title,
        runtime=job.pipeline.runtime,
        settings=job.settings,
        compute_capability=card.compute_capability,
        components=(
            Component(name=MODEL, parameters=size, dtype="int8", weights_bytes=size, device="gpu"),
        ),
        phases=(
            PhaseUse(
                name="load",
                component=MODEL,
                allocated_peak_bytes=size,
                reserved_peak_bytes=size,
                device_used_bytes=whole.expected_bytes,
            ),
        ),
        lines=(
            _line(LineKind.WEIGHTS, "weights", MODEL, size),
            _line(LineKind.CUDA_CONTEXT, "CUDA context", None, CONTEXT_BYTES),
        ),
        peak=Peak(
            phase="load",
            component=MODEL,
            allocated_bytes=size,
            reserved_bytes=size,
            device=whole,
        ),
        need=Need(band=whole, phase="load", component=MODEL),
    )


def _line(kind: LineKind, name: str, component: str | None, size_bytes: int) -> Line:
    return Line(
        kind=kind,
        device=GPU,
        name=name,
        phase=None,
        component=component,
        band=Band.exactly(size_bytes),
        origin=Origin.EXACT,
        source="made up",
    )
