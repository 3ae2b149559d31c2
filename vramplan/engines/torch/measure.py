"""A measured run of a torch pipeline, from what was asked for to a `Run`.

`vramplan profile` and the campaign measure through here: this is where the probes meet the runner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from vramplan.catalog.cards import DEFAULT_CAPABILITY
from vramplan.engines.torch.checkpoint import checkpoint_of
from vramplan.engines.torch.libraries import QUIET, require_libraries
from vramplan.errors import UsageError
from vramplan.known_settings import OF_WEIGHTS, told
from vramplan.measurement.history import part_of
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Emulation, FailureKind, Run, Witness
from vramplan.model import Card, Job
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.runner.eyes import measured_gpu, open_eyes
from vramplan.runner.played_card import leave_bytes
from vramplan.settings import format_setting
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.probe.nvml import Gpu, NvmlProbe
    from vramplan.runner.outcome import Outcome
    from vramplan.runner.supervisor import Means, Measurement
    from vramplan.runner.task import Task
    from vramplan.runner.tools import Hear, Tools

#: how often a run is made again because others moved memory meanwhile
_MOST_REPEATS = 2

CHILD = "vramplan.engines.torch.run.child"

_MOVED = "other processes moved {} on the card during the run: its device figures are off by that"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be measured, and on what.

    `checkpoint` is None for random weights. `card` is a smaller card to be played; `gpu` is None
    for a dry run on the CPU. `pretended` is the card that `gpu` is only pretended to be. `history`
    is where the allocator's own events go.
    """

    job: Job
    checkpoint: str | None = None
    gpu: Gpu | None = None
    driver: str = ""
    card: Card | None = None
    pretended: Card | None = None
    turns: int = 2
    history: str | None = None
    command: str = ""

    @property
    def compute_capability(self) -> str:
        """Whose kernels run: the card's that is played, else the GPU's."""
        if self.card is not None:
            return self.card.compute_capability
        return self.gpu.compute_capability if self.gpu is not None else DEFAULT_CAPABILITY


def measure(job: Job, tools: Tools) -> Run:
    """Measure a job, again where other processes moved memory meanwhile; return the run.

    Raises UsageError for what does not go together, MissingError without the libraries or a GPU,
    or where it has not enough free to begin with, MeasurementError where no process can be started.
    """
    return measure_order(place_order(job, tools), tools.progress)


def place_order(job: Job, tools: Tools) -> Order:
    """Return what is asked for as an order, with everything looked for that it needs."""
    _refuse_unmeasured(job)
    if tools.is_dry and tools.history is not None:
        raise UsageError("--events are those of torch's allocator on a GPU: leave it out")
    checkpoint = checkpoint_of(tools.weights, job.pipeline)
    require_libraries("profiling", load=False)
    if tools.is_dry and tools.card is not None:
        raise UsageError("--dry-run plays no card: leave --as-card out")
    gpu, driver = _place(tools)
    return Order(
        job=job,
        checkpoint=checkpoint,
        gpu=gpu,
        driver=driver,
        card=tools.card,
        pretended=tools.pretended,
        history=None if tools.history is None else str(tools.history),
        command=tools.command,
    )


def _refuse_unmeasured(job: Job) -> None:
    """Raise UsageError for settings that the measured program does not have: it would be another.

    Those that are told and change nothing are none of them.
    """
    chosen = told(job.settings)
    unmeasured = [key for key in (*OF_WEIGHTS, "cache_implementation") if key in chosen]
    unmeasured += ["offload"] if chosen.get("offload") == "group" else []
    if unmeasured:
        key = unmeasured[0]
        raise UsageError(
            f"{key}={format_setting(key, chosen[key])} is estimated, and not run by a measurement",
            hint="leave it out, or measure a program of yours that does it: vramplan run --card "
            "CARD -- PROGRAM",
        )


def _place(tools: Tools) -> tuple[Gpu | None, str]:
    """Return the GPU to measure on and its driver; a dry run has none."""
    if tools.pretended is None:
        return (None, "") if tools.is_dry else tools.find_gpu()
    from vramplan.engines.torch.witness.pretended_gpu import DRIVER, pretend_gpu

    if tools.is_dry:
        raise UsageError("--dry-run measures nothing: leave --pretend out")
    if tools.card is not None:
        raise UsageError("--pretend is the card itself: leave --as-card out")
    return pretend_gpu(tools.pretended), DRIVER


def measure_order(order: Order, progress: Hear) -> Run:
    """Measure, again where other processes moved memory meanwhile; return the run."""
    for left in reversed(range(_MOST_REPEATS + 1)):
        outcome = _measure_once(order, progress)
        moved = _moved(outcome)
        if not moved or not left:
            break
        progress(f"other processes moved {format_size(moved)} meanwhile: measuring again")
    return _make_run(order, outcome)


def _measure_once(order: Order, progress: Hear) -> Outcome:
    with ExitStack() as stack:
        return prepare_order(order, progress, stack).measure()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An order whose process is on its way."""

    order: Order
    measurement: Measurement | None
    probe: NvmlProbe | None

    def measure(self, *, limit_seconds: float | None = None) -> Outcome:
        """Measure, once; with `limit_seconds` within so much of the clock."""
        assert self.measurement is not None
        card = self.order.card
        leave = None
        if card is not None and self.probe is not None:
            leave = leave_bytes(card, self.probe)
        with no_half_of(self.order.history):
            return self.measurement.run(leave, limit_seconds=limit_seconds)

    def make_run(self, outcome: Outcome) -> Run:
        """Return the run that `outcome` is."""
        return _make_run(self.order, outcome)


@contextmanager
def no_half_of(history: str | None) -> Iterator[None]:
    """Leave neither an older run's events nor what a process that died had written of its own."""
    if history is None:
        yield
        return
    path = Path(history)
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        part_of(path).unlink(missing_ok=True)


def prepare_order(order: Order, progress: Hear, stack: ExitStack) -> Prepared:
    """Start an order's process; `stack` ends it and whatever belongs to it."""
    from vramplan.runner.supervisor import Means, Measurement

    task = make_task(order)
    if order.gpu is None:
        means = Means(
            command=_child(),
            environment=_environment(order, task),
            progress=progress,
        )
        measurement = stack.enter_context(Measurement(task, means))
        return Prepared(order=order, measurement=measurement, probe=None)
    if order.pretended is not None:
        return _prepare_pretended(order, order.pretended, progress, stack)
    from vramplan.probe.nvml import NvmlProbe

    probe = stack.enter_context(NvmlProbe(order.gpu.uuid))
    measurement = stack.enter_context(Measurement(task, _means(order, task, probe, progress)))
    return Prepared(order=order, measurement=measurement, probe=probe)


def _prepare_pretended(order: Order, card: Card, progress: Hear, stack: ExitStack) -> Prepared:
    """Start an order's process on a card that is not there; nvidia-smi knows nothing of it."""
    from vramplan.engines.torch.witness.pretended_gpu import PretendedGpu
    from vramplan.probe.sampler import Sampler
    from vramplan.runner.eyes import PERIOD_S
    from vramplan.runner.supervisor import Means, Measurement

    gpu = stack.enter_context(PretendedGpu(card))
    task = make_task(order)
    means = Means(
        command=_child(),
        environment=gpu.environment(_environment(order, task)),
        probe=gpu,
        own_share=_own_share,
        watch=lambda: Sampler(lambda: (gpu.read_memory().used_bytes, None), PERIOD_S),
        progress=progress,
    )
    measurement = stack.enter_context(Measurement(task, means))
    return Prepared(order=order, measurement=measurement, probe=None)


def _own_share(memory: DeviceMemory, pid: int, before: DeviceMemory | None) -> int | None:
    from vramplan.probe.processes import own_process

    own = own_process(memory, pid, before=before)
    return own.used_bytes if own is not None else None


def make_task(order: Order) -> Task:
    """Return what the measured process is told."""
    from vramplan.runner.task import MACHINE, Task

    settings = order.job.settings
    return Task(
        pipeline=order.job.pipeline.name,
        compute_capability=order.compute_capability,
        path=order.job.pipeline.path,
        settings={key: format_setting(key, value) for key, value in settings.items()},
        device="cpu" if order.gpu is None else "cuda",
        gpu=order.gpu.uuid if order.gpu is not None else None,
        kernels=MACHINE if order.card is None else order.card.compute_capability,
        checkpoint=order.checkpoint,
        wants_limit=order.card is not None,
        turns=order.turns,
        history=order.history,
    )


def _child(*more: str) -> list[str]:
    from vramplan.runner.channel import python_command

    return [*python_command(CHILD), *more]


def ballast_command(uuid: str) -> list[str]:
    """Return the command of the process that holds a GPU's rest, through torch."""
    return _child("--ballast", uuid)


def _environment(order: Order, task: Task) -> dict[str, str]:
    """Return the child's environment: one GPU, the allocator and cuBLAS as asked for."""
    from vramplan.engines.torch.run.environment import torch_environment
    from vramplan.runner.channel import child_environment

    # quiet libraries, off the network where nothing is to be fetched
    more = {
        key: value
        for key, value in QUIET.items()
        if order.checkpoint is None or key != "HF_HUB_OFFLINE"
    }
    more |= torch_environment(order.job.settings, task.kernels)
    if order.gpu is not None:
        from vramplan.probe.choice import environment_for

        more |= environment_for(order.gpu)
    return child_environment(more)


def _means(order: Order, task: Task, probe: NvmlProbe, progress: Hear) -> Means:
    from vramplan.runner.supervisor import Means

    gpu = order.gpu
    assert gpu is not None
    eyes = open_eyes(gpu, probe)
    return Means(
        command=_child(),
        ballast_command=ballast_command(gpu.uuid),
        environment=_environment(order, task),
        probe=eyes.probe,
        own_share=_own_share,
        watch=eyes.watch,
        smi=eyes.smi,
        smi_eyes=eyes.smi_eyes,
        progress=progress,
    )


def _make_run(order: Order, outcome: Outcome) -> Run:
    job, gpu = order.job, order.gpu
    moved = _moved(outcome)
    notes = [_MOVED.format(format_size(moved))] if moved else []
    emulation = None
    if order.card is not None and outcome.ballast_free_bytes is not None:
        emulation = Emulation(
            card=order.card.name,
            free_bytes=outcome.ballast_free_bytes,
            compute_capability=order.card.compute_capability,
        )
    return Run(
        pipeline=job.pipeline.name,
        title=job.pipeline.title,
        runtime=job.pipeline.runtime,
        settings=job.settings,
        weights="random" if order.checkpoint is None else "pretrained",
        checkpoint=order.checkpoint,
        witness=_witness(order),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        command=order.command,
        gpu=None if gpu is None else measured_gpu(gpu, order.driver),
        versions=outcome.versions,
        kernels="machine" if order.card is None else order.card.compute_capability,
        emulation=emulation,
        period_s=outcome.period_s,
        before=outcome.before,
        context=tuple(outcome.context),
        components=tuple(outcome.components),
        stretches=outcome.ordered(),
        phase_ends=tuple(outcome.phase_ends),
        workspaces=tuple(outcome.workspaces),
        held=outcome.held,
        failure=outcome.failure,
        history=_history_name(order, outcome),
        facts=outcome.facts,
        notes=(*outcome.notes, *notes),
    )


def _witness(order: Order) -> Witness:
    if order.gpu is None:
        return Witness.DRY
    return Witness.GPU if order.pretended is None else Witness.PRETENDED


def _history_name(order: Order, outcome: Outcome) -> str | None:
    """Return the name of the history beside the run's file, where one was written."""
    return Path(order.history).name if order.history is not None and outcome.has_history else None


def _moved(outcome: Outcome) -> int:
    """Return by how much others on the card changed, or 0 where they kept still or are unknown."""
    if outcome.before is None or outcome.after is None or _died(outcome):
        return 0
    from vramplan.probe.processes import neighbours_moved
    from vramplan.runner.supervisor import STILL_BYTES

    moved = neighbours_moved(outcome.before, outcome.after)
    return moved if moved > STILL_BYTES else 0


def _died(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.kind is FailureKind.CRASH
