"""The door to the engines: what each of them answers, and which one runs a pipeline.

Nothing above imports an engine but through this; an engine is loaded when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.catalog.pipelines import GGML_RUNTIMES, TORCH_RUNTIMES
from vramplan.errors import UsageError
from vramplan.quick_typing import IO, TYPE_CHECKING, Protocol

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
    from vramplan.measurement.run import Run
    from vramplan.measurement.tried import Trial
    from vramplan.model import Advice, Card, Estimate, Job, Judgement, Pipeline, Verdict
    from vramplan.runner.tools import Tools
    from vramplan.sources.denoiser_file import DenoiserFile

#: is told in a line what a user should know of how a question was understood
Remark = Callable[[str], None]


class Engine(Protocol):
    """What runs a pipeline and so decides what it needs.

    Jobs are at complete settings, and of the engine's own pipelines. Each method raises
    VramplanError for what cannot be answered.
    """

    def open(self, entry: Entry, folders: Sequence[Path]) -> Pipeline:
        """Return the pipeline of a catalogue's entry; `folders` are the catalogue's."""

    def estimate(self, job: Job, card: Card) -> Estimate:
        """Return the budget of a job that gets all the memory it asks for, on a card's kind."""

    def judge(self, job: Job, card: Card, budget_bytes: int) -> Judgement:
        """Return what becomes of a job on a card that offers so much."""

    def grader(self, job: Job) -> Grader:
        """Return what grades a job on one card after another: the figures of `judge`, at once.

        What does not depend on the card is found once. The grader raises as `judge` does.
        """

    def changes(self, job: Job) -> Iterator[Change]:
        """Yield the changes that a job's settings leave open, cheapest first."""

    def not_modelled(self, job: Job) -> Iterator[tuple[str, str]]:
        """Yield changes that are usual for such a pipeline and cannot be tried, each with why."""

    def screen(self, job: Job, card: Card, budget_bytes: int) -> Screening:
        """Return whether a job may fit a card that offers so much: what `judge` says, sooner."""

    def pace(self, job: Job, card: Card, budget_bytes: int | None = None) -> Pace | None:
        """Return how long one result takes at least where so much is free; None: enough is.

        Nothing is returned where it cannot be told.
        """

    def advise(self, question: Question) -> tuple[Advice, ...]:
        """Return what comes nearest for a failure that no change ends; nothing helps: none."""

    def file_fit(self, job: Job, card: Card, budget_bytes: int) -> FileFit | None:
        """Return which file of a model's family is the best whose whole fits; None: it has none."""

    def smaller_file(self, question: Question) -> Advice | None:
        """Return which smaller file of the same model would fit with all else as it is."""

    def witness(
        self,
        job: Job,
        judged: tuple[Verdict, Estimate] | None = None,
        card: Card | None = None,
    ) -> Witness:
        """Return what the engine's own code says, beside ours: on the card that was judged.

        Without one, of the budget on `card`, or in host memory alone where the engine has such a
        build.
        """

    def measure(self, job: Job, tools: Tools) -> Run:
        """Run a job, look at the card meanwhile, and return the run.

        An out-of-memory error or a crash is a result.
        """

    def compare_events(self, job: Job, compute_capability: str, history: Path) -> EventComparison:
        """Return the allocator's own events in a history's file beside those that are planned."""

    def tape_name(self, pipeline: Pipeline, dtype: str | None = None) -> str:
        """Return the name of a pipeline's tape, or of its tape for another dtype than its default.

        Raises UsageError where the engine uses none, or none for a dtype alone.
        """

    def make_tape(
        self, pipeline: Pipeline, progress: Callable[[str], None], *, is_proved: bool = True
    ) -> str:
        """Return a new tape of a pipeline as the text of its file, proved unless told otherwise."""

    def tape_drift(self, pipeline: Pipeline, known: str, made: str) -> Iterable[Drift]:
        """Return what a tape made now changes of the figures of a known one, both as text."""

    def tape_versions(self, pipeline: Pipeline) -> Mapping[str, str] | None:
        """Return the versions that a pipeline's tape was recorded with; None where it has none."""

    def ours(self, pipeline: Pipeline, claim: Claim) -> int:
        """Return our figure for a published claim, at its settings, in bytes."""

    def weights(self, pipeline: Pipeline, claim: Claim, names: Sequence[str]) -> int:
        """Return the bytes of the weights of some components, at a claim's settings."""


_others: dict[str, Engine] = {}


def engine_of(pipeline: Pipeline) -> Engine:
    """Return the engine that runs a pipeline."""
    return engine_for(pipeline.runtime)


def engine_for(runtime: str) -> Engine:
    """Return the engine of a runtime; raises UsageError for one that nobody runs."""
    found = _others.get(runtime) or _shipped(runtime)
    if found is None:
        known = ", ".join((*TORCH_RUNTIMES, *GGML_RUNTIMES, *_others))
        raise UsageError(f"no engine runs {runtime!r}", hint=f"runtimes: {known}")
    return found


@lru_cache(maxsize=8)  # a handful of names
def _shipped(runtime: str) -> Engine | None:
    if runtime in TORCH_RUNTIMES:
        from vramplan.engines.torch.engine import TorchEngine

        return TorchEngine()
    if runtime in GGML_RUNTIMES:
        from vramplan.engines.ggml.engine import GgmlEngine

        return GgmlEngine()
    return None


def open_saved(
    text: str, entries: Iterable[Entry], folders: Sequence[Path], remark: Remark
) -> Pipeline | None:
    """Return the pipeline of a model that diffusers or transformers saved, here or on the hub.

    The catalogue's `entries` may be of its architecture, their tapes are in `folders`. None for
    what is no such model. Raises SourceError where it is one, and not usable.
    """
    if not _may_be_saved(text):
        return None  # without loading what would look at it
    from vramplan.engines.torch.open_saved import find_saved

    return find_saved(text, entries, folders, remark)


def _may_be_saved(text: str) -> bool:
    """Return whether a TARGET may be a saved model: on the hub, a folder, or such a file."""
    return text.startswith("hf:") or text.lower().endswith(".safetensors") or Path(text).is_dir()


def open_denoiser(
    file: DenoiserFile, entries: Iterable[Entry], folders: Sequence[Path], remark: Remark
) -> Pipeline | None:
    """Return the catalogue's pipeline that a denoiser's own file belongs to; None for no one's."""
    from vramplan.engines.torch.open_denoiser import open_denoiser as find

    return find(file, entries, folders, remark)


def find_quantised(name: str, find: Callable[[str], Entry]) -> Entry | None:
    """Return the entry of a model in another quantisation, by Ollama's name; None for no such.

    `find` returns the catalogue's entry of a name; raises UsageError.
    """
    from vramplan.engines.ggml.quantised_name import read_name, requantised

    read = read_name(name)
    if read is None:
        return None
    plain, quantisation = read
    try:
        entry = find(plain)
    except UsageError:
        return None
    return requantised(entry, name, quantisation)


def is_installed(name: str) -> bool:
    """Return whether Ollama has a model of the name, such as ``qwen3:8b``, on this machine."""
    from vramplan.engines.ggml.stores import is_installed as find

    return find(name)


def find_file(text: str, remark: Remark) -> str | None:
    """Return what `open_file` takes for a TARGET; None for a name that is no model here."""
    from vramplan.engines.ggml.open import find_local

    return find_local(text, remark)


def open_file(text: str, mmproj: str | None, remark: Remark) -> Pipeline:
    """Return the pipeline of a model file, wherever it is; `mmproj` is its projector.

    Raises SourceError where it is not there or not usable.
    """
    from vramplan.engines.ggml.open import open_model

    return open_model(text, mmproj, remark)


def stored_models() -> Iterator[tuple[str, str]]:
    """Yield the models that programs keep on this machine: whose, and what `open_file` takes."""
    from vramplan.engines.ggml import stores

    return stores.stored_models()


def models_below(folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield the model files in folders and below them: in which, and what `open_file` takes."""
    from vramplan.engines.ggml import stores

    return stores.models_below(folders)


def ballast_command(uuid: str) -> list[str]:
    """Return the command of the process that holds the rest of a GPU that plays a smaller card."""
    from vramplan.engines.torch import measure

    return measure.ballast_command(uuid)


def check_program(command: Sequence[str], cards: Sequence[Card]) -> None:
    """Raise UsageError where a program cannot be run, or a card cannot be pretended."""
    from vramplan.engines.torch.witness import pretended_run

    pretended_run.check_program(command, cards)


def try_program(
    command: Sequence[str],
    card: Card,
    *,
    gpus: int = 1,
    output: IO[str] | None = None,
    known: Iterable[Entry] | None = None,
) -> Trial:
    """Run any program on a card that is not there, and return what became of it.

    What it prints to stdout goes to `output`, where one is given. With `known`, entries of a
    catalogue, models that it loads are met with configs alone. Raises UsageError for what cannot be
    run or pretended, MissingError where the torch it uses cannot be.
    """
    from vramplan.engines.torch.witness import pretended_run

    return pretended_run.try_program(command, card, gpus=gpus, output=output, known=known)


def can_pretend(card: Card) -> bool:
    """True for a card on which today's builds of torch run."""
    from vramplan.engines.torch.witness.card_description import has_kernels

    return has_kernels(card)


def core_in_words() -> tuple[bool, str]:
    """Return whether replays run in the compiled core, and in words which one, or why none."""
    from vramplan.engines.torch.tape.native import find_core

    core, words = find_core()
    return core is not None, words


def say_if_core_is_stale() -> None:
    """Remark, once, where the compiled core is older than its sources, and not in use."""
    from vramplan.engines.torch.tape.native import say_if_stale

    say_if_stale()


def install(runtime: str, engine: Engine) -> None:
    """Let `engine` run the pipelines of `runtime` in this process; the last one installed wins."""
    _others[runtime] = engine


def open_entry(entry: Entry, folders: Sequence[Path]) -> Pipeline:
    """Return the pipeline of a catalogue's entry, as the engine that runs it has it."""
    return engine_for(entry.runtime).open(entry, folders)
