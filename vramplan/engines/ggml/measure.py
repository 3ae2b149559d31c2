"""A measured run of a ggml engine: a running Ollama server's, or a llama-server's of our own."""

from __future__ import annotations

from argparse import Namespace
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.gpus import find_gpu
from vramplan.commands.output import note
from vramplan.engines.ggml.pipeline import of_ggml
from vramplan.engines.torch.measure import PERIOD_S, measured_gpu
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Run, Witness
from vramplan.model import Job
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from vramplan.engines.ggml.run.served_run import EngineOutcome, EngineTools
    from vramplan.probe.nvml import Gpu


def measure_engine(args: Namespace, job: Job, show: Callable[[str], None]) -> Run:
    """Measure the pipeline in its engine.

    Raises MissingError where the engine is not there; without a GPU the engine's own figures are
    all there is, and that is said.
    """
    if args.dry_run or args.as_card:
        option = "--dry-run" if args.dry_run else "--as-card"
        raise UsageError(f"{option} is for torch pipelines: an engine runs as it is")
    with ExitStack() as stack:
        gpu, driver = _find_gpu(args)
        if job.pipeline.runtime == "ollama":
            outcome = _ollama(job, gpu, stack, show)
        else:
            outcome = _llama_server(args, job, gpu, stack, show)
    return _make_run(args, job, outcome, gpu, driver)


def _find_gpu(args: Namespace) -> tuple[Gpu | None, str]:
    try:
        return find_gpu(args.gpu)
    except MissingError as problem:
        note(f"note: the engine's own figures alone, without NVML's: {problem}")
        return None, ""


def _ollama(
    job: Job, gpu: Gpu | None, stack: ExitStack, show: Callable[[str], None]
) -> EngineOutcome:
    from vramplan.engines.ggml.run.ollama import (
        OllamaJob,
        measure_ollama,
        own_share,
        server_address,
    )

    if job.settings.get("cpu_moe", 0) != 0:
        hint = "start its server with LLAMA_ARG_N_CPU_MOE set, and measure without cpu_moe"
        raise UsageError("cpu_moe: no request can tell Ollama where experts go", hint=hint)
    tools = _tools(gpu, stack, own_share, show)
    settings = {key: _plain(key, value) for key, value in job.settings.items()}
    wanted = OllamaJob(
        model=job.pipeline.name,
        settings=settings,
        has_vision=_has_vision(job),
        address=server_address(),
    )
    return measure_ollama(wanted, tools)


def _llama_server(
    args: Namespace,
    job: Job,
    gpu: Gpu | None,
    stack: ExitStack,
    show: Callable[[str], None],
) -> EngineOutcome:
    from vramplan.engines.ggml.run.llama_server import (
        BINARY,
        ServerJob,
        find_server,
        measure_server,
    )
    from vramplan.probe.processes import own_process

    path = Path(args.weights)
    if path.suffix.lower() != ".gguf" or not path.is_file():
        hint = "name the model's file: --weights model.gguf; memory depends on it"
        raise UsageError(f"{job.pipeline.name}: llama-server needs a GGUF file", hint=hint)

    command = find_server()
    if len(command) > 1 and job.settings.get("cpu_moe", 0) != 0:
        raise UsageError(f"cpu_moe: only {BINARY} itself is told where experts go")
    started: list[int] = []

    def own(memory: DeviceMemory) -> int | None:
        found = own_process(memory, started[0]) if started else None
        if found is not None:
            return found.used_bytes
        # in a container the driver lists other numbers
        named = [one for one in memory.processes or () if BINARY in one.name.lower()]
        known = [one.used_bytes for one in named if one.used_bytes is not None]
        return sum(known) if known else None

    settings = {key: _plain(key, value) for key, value in job.settings.items()}
    mmproj = getattr(args, "mmproj", None)
    wanted = ServerJob(
        model=path,
        settings=settings,
        command=command,
        started=started.append,
        mmproj=Path(mmproj) if mmproj else None,
    )
    return measure_server(wanted, _tools(gpu, stack, own, show))


def _tools(
    gpu: Gpu | None,
    stack: ExitStack,
    own: Callable[[DeviceMemory], int | None],
    show: Callable[[str], None],
) -> EngineTools:
    from vramplan.engines.ggml.run.served_run import EngineTools

    if gpu is None:
        return EngineTools(progress=show)
    from vramplan.probe.nvml import NvmlProbe
    from vramplan.probe.sampler import Sampler
    from vramplan.probe.smi import read_smi
    from vramplan.probe.smi_probe import SmiProbe

    probe = stack.enter_context(NvmlProbe(gpu.uuid))

    def look() -> tuple[int, int | None]:
        return probe.read_memory().used_bytes, None

    return EngineTools(
        probe=probe,
        own=own,
        watch=lambda: Sampler(look, PERIOD_S),
        smi=lambda: read_smi(gpu.uuid),
        smi_eyes=SmiProbe(gpu.uuid),
        progress=show,
    )


def _plain(key: str, value: object) -> object:
    return format_setting(key, value) if isinstance(value, tuple) else value


def _has_vision(job: Job) -> bool:
    return of_ggml(job.pipeline).has_projector


def _make_run(
    args: Namespace, job: Job, outcome: EngineOutcome, gpu: Gpu | None, driver: str
) -> Run:
    return Run(
        pipeline=job.pipeline.name,
        title=job.pipeline.title,
        runtime=job.pipeline.runtime,
        settings=job.settings,
        weights="pretrained",
        witness=Witness.GPU if gpu is not None else Witness.DRY,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        command=" ".join(["vramplan", *args.words]),
        gpu=None if gpu is None else measured_gpu(gpu, driver),
        versions=outcome.versions,
        kernels="machine",
        period_s=outcome.period_s,
        before=outcome.before,
        stretches=tuple(outcome.stretches),
        phase_ends=tuple(outcome.phase_ends),
        buffers=tuple(outcome.buffers),
        held=outcome.held,
        failure=outcome.failure,
        facts=outcome.facts,
        notes=tuple(outcome.notes),
    )
