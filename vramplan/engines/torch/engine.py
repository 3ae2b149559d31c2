"""PyTorch behind the door: each question leads to the room of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vramplan.engines.torch.made_settings import as_made, told
from vramplan.engines.torch.one_card import one_of, said_of_one
from vramplan.engines.torch.pipeline import of_torch
from vramplan.errors import UsageError
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.settings import check_setting

if TYPE_CHECKING:
    from vramplan.budget.advice import Question
    from vramplan.budget.change import Change
    from vramplan.budget.drift import Drift
    from vramplan.budget.pace import Pace
    from vramplan.budget.verdict import Graded, Grader, Screening
    from vramplan.catalog.pipelines import Entry
    from vramplan.catalog.published import Claim
    from vramplan.compare.events import EventComparison
    from vramplan.compare.witness import Witness
    from vramplan.engines.torch.pipeline import TorchPipeline
    from vramplan.measurement.run import Run
    from vramplan.model import (
        Advice,
        Card,
        Estimate,
        Job,
        Judgement,
        Pipeline,
        Settings,
        Verdict,
    )
    from vramplan.runner.tools import Tools


def _settled(job: Job, card: Card | None = None) -> tuple[TorchPipeline, Settings]:
    """Return a job's pipeline, and the settings that it makes of those asked for.

    With its tape where it has one for these on a card.
    """
    from vramplan.engines.torch.estimate import settled

    pipeline = of_torch(job.pipeline)
    settings = as_made(pipeline, job.settings)
    on = () if card is None else (card.compute_capability,)
    return settled(pipeline, settings, *on), settings


class TorchEngine:
    """Pipelines of diffusers, transformers and plain torch (`engines.door.Engine`)."""

    def open(self, entry: Entry, folders: Sequence[Path]) -> TorchPipeline:
        """Return the pipeline of a catalogue's entry; its tape is looked for in `folders`."""
        from vramplan.engines.torch.open import open_entry

        return open_entry(entry, folders)

    def estimate(self, job: Job, card: Card) -> Estimate:
        """Return the budget of a job that gets all the memory it asks for."""
        from vramplan.engines.torch.estimate import estimate_torch

        card, _ = one_of(card, job.settings)
        found = estimate_torch(*_settled(job, card), card)
        said = told(of_torch(job.pipeline), job.settings)
        return replace(found, notes=(*said, *found.notes)) if said else found

    def judge(self, job: Job, card: Card, budget_bytes: int) -> Judgement:
        """Return what becomes of a job on a card that offers so much."""
        from vramplan.engines.torch.judge import judge_torch

        used, room_bytes = one_of(card, job.settings, budget_bytes)
        found = judge_torch(*_settled(job, used), used, room_bytes)
        if said := told(of_torch(job.pipeline), job.settings):
            estimate = replace(found.estimate, notes=(*said, *found.estimate.notes))
            found = replace(found, estimate=estimate)
        return said_of_one(card, found, used, room_bytes)

    def grader(self, job: Job) -> Grader:
        """Return what grades a job on one card after another."""
        from vramplan.engines.torch.judge import TorchGrader

        graders: dict[str | None, TorchGrader] = {}

        def grade(card: Card, budget_bytes: int) -> Graded:
            pipeline, settings = _settled(job, one_of(card, job.settings)[0])
            tape = None if pipeline.counted is not None else pipeline.tape or pipeline.name
            if tape not in graders:  # another architecture may have another tape, or none
                graders[tape] = TorchGrader(pipeline, settings)
            return graders[tape](card, budget_bytes)

        return grade

    def changes(self, job: Job) -> Iterator[Change]:
        """Yield the changes that a job's settings leave open, cheapest first."""
        from vramplan.engines.torch.changes import changes

        return changes(*_settled(job))

    def not_modelled(self, job: Job) -> Iterator[tuple[str, str]]:
        """Yield changes that are usual and cannot be tried, each with why."""
        from vramplan.engines.torch.changes import not_modelled

        pipeline, _ = _settled(job)
        return not_modelled(pipeline)

    def screen(self, job: Job, card: Card, budget_bytes: int) -> Screening:
        """Return whether a job may fit a card that offers so much."""
        from vramplan.engines.torch.screening import screen_job

        used, room_bytes = one_of(card, job.settings, budget_bytes)
        return screen_job(*_settled(job, used), used, room_bytes)

    def pace(self, job: Job, card: Card, budget_bytes: int | None = None) -> Pace | None:
        """Return how long one result takes at least."""
        from vramplan.engines.torch.pace import pace_torch

        used, room_bytes = one_of(card, job.settings, budget_bytes or 0)
        room = None if budget_bytes is None else room_bytes
        return pace_torch(*_settled(job, used), used, room)

    def advise(self, question: Question) -> tuple[Advice, ...]:
        """Return the changes with which least is needed, where none makes it fit."""
        from vramplan.engines.torch.advice import nearest_advice

        pipeline, _ = _settled(question.job)
        return nearest_advice(pipeline, question)

    def file_fit(self, job: Job, card: Card, budget_bytes: int) -> None:
        """Return nothing: its weights are no file of several types."""

    def smaller_file(self, question: Question) -> None:
        """Return nothing: its weights are not planned in other types than it has a setting for."""

    def witness(
        self,
        job: Job,
        judged: tuple[Verdict, Estimate] | None = None,
        card: Card | None = None,
    ) -> Witness:
        """Return what torch itself allocates on a card that is not there, beside the budget.

        Raises UsageError for a verdict: what fails has no peaks to compare.
        """
        if judged is not None or card is None:
            hint = f"vramplan estimate {job.pipeline.name} --engine-check --card CARD"
            raise UsageError("--engine-check: torch is asked about a budget", hint=hint)
        from vramplan.engines.torch.engine_check import ask_torch

        return ask_torch(job.changed(as_made(of_torch(job.pipeline), job.settings)), card)

    def ours(self, pipeline: Pipeline, claim: Claim) -> int:
        """Return our figure for a published claim, at its settings, in bytes."""
        from vramplan.engines.torch.published import Figures

        return Figures(of_torch(pipeline), claim).ours()

    def weights(self, pipeline: Pipeline, claim: Claim, names: Sequence[str]) -> int:
        """Return the bytes of the weights of some components, at a claim's settings."""
        from vramplan.engines.torch.published import Figures

        return Figures(of_torch(pipeline), claim).weights(names)

    def measure(self, job: Job, tools: Tools) -> Run:
        """Run the real components, look at the card meanwhile, and return the run."""
        from vramplan.engines.torch.measure import measure

        return measure(job, tools)

    def compare_events(self, job: Job, compute_capability: str, history: Path) -> EventComparison:
        """Return the allocator's own events in a history's file beside those of the tape."""
        from vramplan.engines.torch.event_lists import compare_event_lists

        return compare_event_lists(*_settled(job), compute_capability, history)

    def tape_name(self, pipeline: Pipeline, dtype: str | None = None) -> str:
        """Return the name of a pipeline's tape, or of its tape for another dtype than its default.

        Raises UsageError for a dtype that it does not take, or has no tape of its own.
        """
        whole = of_torch(pipeline).tape
        if dtype is None:
            return whole or pipeline.name
        if whole is not None:
            message = f"{pipeline.name}: its tape is for every dtype"
            raise UsageError(message, hint="leave out --dtype")
        check_setting(pipeline, "dtype", dtype)
        usual = pipeline.defaults.get("dtype")
        return pipeline.name if dtype == usual else f"{pipeline.name}.{dtype}"

    def make_tape(
        self, pipeline: Pipeline, progress: Callable[[str], None], *, is_proved: bool = True
    ) -> str:
        """Return a new tape as the text of its file, proved unless told otherwise."""
        from vramplan.engines.torch.make_tape import make_tape

        return make_tape(of_torch(pipeline), progress, is_proved=is_proved)

    def tape_drift(self, pipeline: Pipeline, known: str, made: str) -> Iterator[Drift]:
        """Yield what a tape made now changes of the figures of a known one, both as text."""
        from vramplan.engines.torch.tape_drift import tape_drift

        return tape_drift(of_torch(pipeline), known, made)

    def tape_versions(self, pipeline: Pipeline) -> Mapping[str, str] | None:
        """Return the versions that a pipeline's tape was recorded with; None of what is counted."""
        from vramplan.engines.torch.estimate import settled
        from vramplan.engines.torch.tape_files import find_tape, open_tape

        found = settled(of_torch(pipeline), pipeline.defaults)
        return None if found.counted is not None else open_tape(find_tape(found)).recorded_with
