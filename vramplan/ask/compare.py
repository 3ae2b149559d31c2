"""A run beside its estimate, or what a card shows now and how that comes about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.ask.targets import home_of, make_jobs, open_pipelines, silent
from vramplan.catalog import load_catalog
from vramplan.catalog.cards import DEFAULT_CAPABILITY, assumed_card
from vramplan.catalog.multiprocessors import find_printed
from vramplan.engines.door import Remark, engine_of
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.files import SUFFIXES, find_runs, history_of, is_run_file, read_run
from vramplan.measurement.run import Run
from vramplan.model import Card, Job, SettingValue
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.ask.observe import Seen
    from vramplan.catalog import Catalog
    from vramplan.compare.comparison import Comparison, Explanation
    from vramplan.compare.events import EventComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A run beside its estimate, and what is to be said of how it was found."""

    comparison: Comparison
    remarks: tuple[str, ...] = ()


def compare(
    target: str,
    catalog: Catalog,
    settings: Mapping[str, SettingValue],
    *,
    wants_events: bool = False,
    remark: Remark = silent,
) -> Compared:
    """Return a run beside the estimate at its settings, on the architecture whose kernels ran.

    `target` is the file of a run, or a TARGET whose newest run at its settings is taken. With
    `wants_events` its allocator's events are held against the plan's, one by one. Raises UsageError
    for a file that is not there and for settings beside one, MissingError where nothing was
    measured.
    """
    path = Path(target)
    remarks: tuple[str, ...] = ()
    if is_run_file(path):
        if settings:
            raise UsageError("a run has its settings; leave them out", hint="or name a TARGET")
        run = read_run(path)
        (pipeline,) = open_pipelines([catalog.pipeline(run.pipeline)], catalog)
        job = Job(pipeline=pipeline, settings=run.settings)
    elif path.name.endswith(SUFFIXES):
        raise UsageError(
            f"{path}: no such file", hint="vramplan profile TARGET -o run.json writes one"
        )
    else:
        (job,) = make_jobs([target], catalog, settings, remark=remark)
        homes = [] if home_of(job.pipeline) in catalog.folders else [home_of(job.pipeline)]
        path, run, remarks = _newest(job, [*homes, *catalog.folders])
    comparison = compare_measured(run, job)
    if wants_events:
        comparison = replace(comparison, events=_compare_events(run, path, job))
    return Compared(comparison=comparison, remarks=remarks)


def compare_measured(run: Run, job: Job, card: Card | None = None) -> Comparison:
    """Return `run` beside the estimate of the job it is of, on the `card` where that is known."""
    from vramplan.compare.comparison import compare_run

    same = Job(pipeline=job.pipeline, settings=run.settings)
    planned = engine_of(job.pipeline).estimate(same, card or card_that_ran(run))
    return compare_run(planned, run, smi_used_bytes=_smi_used(run))


def _newest(job: Job, folders: Sequence[Path]) -> tuple[Path, Run, tuple[str, ...]]:
    """Return the newest run at exactly these settings, its file, and which it is in words."""
    runs = find_runs(folders, job.pipeline.name, job.settings)
    if not runs:
        raise MissingError(
            f"{job.pipeline.name}: no measured run at these settings",
            hint="vramplan profile measures one, --pid looks at a process, --smi reads what "
            "nvidia-smi printed",
        )
    path, found = max(runs, key=lambda pair: pair[1].created)
    others = f"; {len(runs) - 1} others at these settings" if len(runs) > 1 else ""
    return path, found, (f"{path}{others}",)


def _compare_events(run: Run, path: Path, job: Job) -> EventComparison:
    history = history_of(path, run)
    if history is None:
        hint = "vramplan profile TARGET --events -o run.json keeps them, on a GPU"
        raise MissingError(f"{path}: the run has no allocator events", hint=hint)
    return engine_of(job.pipeline).compare_events(job, _capability(run), history)


def _capability(run: Run) -> str:
    """Return whose kernels ran; a run without a GPU is estimated as one without a card is."""
    return run.compute_capability or DEFAULT_CAPABILITY


def card_that_ran(run: Run) -> Card:
    """Return the card whose kernels ran, with the multiprocessors of the GPU that they ran on."""
    card = assumed_card(_capability(run))
    if run.gpu is None:
        return card
    known = find_printed(run.gpu.name, run.gpu.total_bytes, load_catalog().cards.values())
    return replace(
        card,
        total_bytes=run.gpu.total_bytes,
        multiprocessors=None if known is None else known.multiprocessors,
    )


def _smi_used(run: Run) -> int | None:
    """Return what nvidia-smi said was used on the run's card, where it was asked."""
    text = run.held.smi if run.held is not None else None
    if not text:
        return None
    from vramplan.probe.smi import used_bytes

    return used_bytes(text)


def explain(
    target: str | None,
    catalog: Catalog,
    settings: Mapping[str, SettingValue],
    *,
    pid: int | None = None,
    smi: str | bytes | None = None,
    gpu: str | None = None,
    remark: Remark = silent,
) -> Explanation:
    """Return how the figure comes about that a card shows for a TARGET.

    It is that of the process `pid`, or what `smi`, nvidia-smi's own text or torch's message, says;
    without a TARGET it is said whose it is.
    Raises UsageError for a run in place of a TARGET, MissingError where there is no GPU,
    MeasurementError for other text and for a card that does not hold the pipeline.
    """
    from vramplan.ask.observe import observe_process, observe_text

    if target is not None and is_run_file(Path(target)):
        raise UsageError(f"{target}: a run needs neither --pid nor --smi")
    jobs = [] if target is None else make_jobs([target], catalog, settings, remark=remark)
    if pid is not None:
        seen = observe_process(pid, gpu)
    else:
        seen = observe_text(smi or "", gpu, catalog.cards.values())
    return _explain(jobs[0], seen) if jobs else _say_whose(seen)


def _say_whose(seen: Seen) -> Explanation:
    from vramplan.compare.comparison import Explanation
    from vramplan.compare.waterfall import draw_seen

    waterfall = draw_seen(seen.observed)
    return Explanation(estimate=None, waterfall=waterfall, sentences=seen.sentences)


def _explain(job: Job, seen: Seen) -> Explanation:
    from vramplan.compare.comparison import Explanation
    from vramplan.compare.pasted import overshoot_sentence, refuse_what_is_not_there
    from vramplan.compare.waterfall import draw_waterfall

    capability = seen.compute_capability or DEFAULT_CAPABILITY
    planned = engine_of(job.pipeline).estimate(job, seen.card or assumed_card(capability))
    refuse_what_is_not_there(planned, seen.observed)
    waterfall = draw_waterfall(planned, seen.observed)
    sentences = [*seen.sentences]
    sentences += overshoot_sentence(waterfall.shown_bytes, waterfall.unaccounted_bytes)
    if not seen.compute_capability:
        teller = seen.observed.shown_by
        sentences.append(f"compute capability {capability} is assumed: {teller} does not print it")
    return Explanation(estimate=planned, waterfall=waterfall, sentences=tuple(sentences))
