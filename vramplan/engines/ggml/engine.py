"""ggml's engines behind the door: each question leads to the room of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vramplan.engines.ggml.pipeline import of_ggml
from vramplan.errors import UsageError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.budget.advice import Question
    from vramplan.budget.change import Change
    from vramplan.budget.drift import Drift
    from vramplan.budget.pace import Pace
    from vramplan.budget.ranked import FileFit
    from vramplan.budget.verdict import Grader, Screening
    from vramplan.catalog.pipelines import Entry
    from vramplan.catalog.published import Claim
    from vramplan.compare.events import EventComparison
    from vramplan.compare.witness import Witness
    from vramplan.engines.ggml.pipeline import GgmlPipeline
    from vramplan.measurement.run import Run
    from vramplan.model import Advice, Card, Estimate, Job, Judgement, Pipeline, Verdict
    from vramplan.runner.tools import Tools


class GgmlEngine:
    """Model files in llama.cpp and Ollama (`engines.door.Engine`)."""

    def open(self, entry: Entry, folders: Sequence[Path]) -> GgmlPipeline:  # noqa: ARG002  # a file has no tape
        """Return the pipeline of a catalogue's entry."""
        from vramplan.engines.ggml.open import open_entry

        return open_entry(entry)

    def estimate(self, job: Job, card: Card) -> Estimate:
        """Return the budget of a job when its engine gets all the memory it asks for."""
        from vramplan.engines.ggml.estimate import estimate_on

        return estimate_on(of_ggml(job.pipeline), job.settings, card)

    def judge(self, job: Job, card: Card, budget_bytes: int) -> Judgement:
        """Return what becomes of a job on a card that offers so much."""
        from vramplan.engines.ggml.judge import judge_ggml

        return judge_ggml(of_ggml(job.pipeline), job.settings, card, budget_bytes)

    def grader(self, job: Job) -> Grader:
        """Return what grades a job on one card after another."""
        from vramplan.engines.ggml.judge import GgmlGrader

        return GgmlGrader(of_ggml(job.pipeline), job.settings)

    def changes(self, job: Job) -> Iterator[Change]:
        """Yield the changes that a job's settings leave open, cheapest first."""
        from vramplan.engines.ggml.changes import changes

        return changes(of_ggml(job.pipeline), job.settings)

    def not_modelled(self, job: Job) -> Iterator[tuple[str, str]]:
        """Yield changes that are usual and cannot be tried, each with why."""
        from vramplan.engines.ggml.changes import not_modelled

        return not_modelled(of_ggml(job.pipeline))

    def screen(self, job: Job, card: Card, budget_bytes: int) -> Screening:
        """Return whether a job fits a card that offers so much."""
        from vramplan.engines.ggml.screening import screen_ggml

        return screen_ggml(of_ggml(job.pipeline), job.settings, card, budget_bytes)

    def pace(self, job: Job, card: Card, budget_bytes: int | None = None) -> Pace | None:
        """Return how long one token takes at least."""
        from vramplan.engines.ggml.pace import pace_ggml

        return pace_ggml(of_ggml(job.pipeline), job.settings, card, budget_bytes)

    def advise(self, question: Question) -> tuple[Advice, ...]:
        """Return what gets most layers on the GPU where no change brings all of them there."""
        from vramplan.engines.ggml.advice import nearest_advice

        return nearest_advice(of_ggml(question.job.pipeline), question)

    def file_fit(self, job: Job, card: Card, budget_bytes: int) -> FileFit:
        """Return which usual quantisation of the model is the largest that stays whole."""
        from vramplan.engines.ggml.smaller_file import file_fit

        return file_fit(of_ggml(job.pipeline), job.settings, card, budget_bytes)

    def smaller_file(self, question: Question) -> Advice | None:
        """Return which smaller file would bring everything onto the GPU."""
        from vramplan.engines.ggml.advice import find_smaller_file

        return find_smaller_file(of_ggml(question.job.pipeline), question)

    def witness(
        self,
        job: Job,
        judged: tuple[Verdict, Estimate] | None = None,
        card: Card | None = None,  # noqa: ARG002  # it is asked in host memory
    ) -> Witness:
        """Return llama.cpp's own buffers beside ours: on the card that was judged, else in memory.

        Raises UsageError for a pipeline that is no file here, MissingError without the engine.
        """
        from vramplan.engines.ggml.witness.side_by_side import ask_on_card, ask_witness

        pipeline = of_ggml(job.pipeline)
        if judged is None:
            return ask_witness(pipeline, job.settings)
        return ask_on_card(pipeline, job.settings, *judged)

    def ours(self, pipeline: Pipeline, claim: Claim) -> int:
        """Return our figure for a published claim, at its settings, in bytes."""
        from vramplan.engines.ggml.published import Figures

        return Figures(of_ggml(pipeline), claim).ours()

    def weights(self, pipeline: Pipeline, claim: Claim, names: Sequence[str]) -> int:
        """Return the bytes of the weights of some components, at a claim's settings."""
        from vramplan.engines.ggml.published import Figures

        return Figures(of_ggml(pipeline), claim).weights(names)

    def measure(self, job: Job, tools: Tools) -> Run:
        """Run a job in its engine, look at the card meanwhile, and return the run."""
        from vramplan.engines.ggml.measure import measure

        return measure(job, tools)

    def compare_events(self, job: Job, compute_capability: str, history: Path) -> EventComparison:
        """Raise UsageError: ggml takes a few buffers, and tells of no events."""
        del compute_capability, history
        raise UsageError(f"--events: {job.pipeline.runtime} has no allocator that tells its events")

    def tape_name(self, pipeline: Pipeline, dtype: str | None = None) -> str:
        """Raise UsageError: a model file has no tape."""
        del dtype
        hint = "its buffers follow from its model file: vramplan estimate " + pipeline.name
        message = f"{pipeline.name}: {pipeline.runtime} runs it, no tape is used"
        raise UsageError(message, hint=hint)

    def make_tape(
        self, pipeline: Pipeline, progress: Callable[[str], None], *, is_proved: bool = True
    ) -> str:
        """Raise UsageError: a model file has no tape."""
        del progress, is_proved
        return self.tape_name(pipeline)

    def tape_drift(self, pipeline: Pipeline, known: str, made: str) -> tuple[Drift, ...]:
        """Return nothing: there is no tape that could change."""
        del pipeline, known, made
        return ()

    def tape_versions(self, pipeline: Pipeline) -> None:
        """Return nothing: a model file has no tape."""
