"""A measured run of a ggml engine: a running Ollama server's, or a llama-server's of our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from vramplan.engines.ggml.pipeline import ModelFile, of_ggml
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Emulation, Run, Witness
from vramplan.model import Job
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.runner.eyes import measured_gpu, open_eyes
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from vramplan.engines.ggml.run.served_run import EngineOutcome, EngineTools
    from vramplan.probe.nvml import Gpu
    from vramplan.runner.tools import Hear, Tools


def measure(job: Job, tools: Tools) -> Run:
    """Measure a job in its engine, and return the run.

    Raises UsageError for what an engine cannot be asked, MissingError where it is not there.
    Without a GPU the engine's own figures are all there is, and that is remarked.
    """
    _refuse(tools)
    with ExitStack() as stack:
        gpu, driver = _find_gpu(tools)
        emulation = None
        if tools.card is not None:
            emulation = stack.enter_context(_playing(tools, gpu))
        run = _ollama if of_ggml(job.pipeline).is_ollama else _llama_server
        outcome = run(job, tools, gpu, stack)
    found = _make_run(job, tools.command, outcome, gpu, driver)
    return found if emulation is None else replace(found, emulation=emulation)


def _refuse(tools: Tools) -> None:
    if tools.history is not None:
        raise UsageError("--events are those of torch's allocator on a GPU: leave it out")
    if tools.pretended is not None:
        hint = "vramplan check TARGET --card CARD --engine-check lets llama.cpp plan for a card"
        raise UsageError("--pretend is for torch pipelines", hint=hint)
    if tools.is_dry:
        raise UsageError("--dry-run is for torch pipelines: an engine runs as it is")


@contextmanager
def _playing(tools: Tools, gpu: Gpu | None) -> Iterator[Emulation]:
    """Let the GPU play a smaller card: the engine asks the driver what is free, and sees less.

    Raises MissingError where it is not larger, MeasurementError where it cannot be filled.
    """
    assert gpu is not None
    assert tools.card is not None
    assert tools.ballast is not None, "who wants a card played says who fills the rest"
    from vramplan.probe.choice import environment_for
    from vramplan.probe.nvml import NvmlProbe
    from vramplan.runner.channel import child_environment
    from vramplan.runner.played_card import playing

    tools.progress("filling the card up")
    environment = child_environment(environment_for(gpu))
    with (
        NvmlProbe(gpu.uuid) as probe,
        playing(tools.card, probe, tools.ballast(gpu.uuid), environment) as emulation,
    ):
        yield emulation


def _find_gpu(tools: Tools) -> tuple[Gpu | None, str]:
    try:
        return tools.find_gpu()
    except MissingError as problem:
        if tools.card is not None:
            hint = (
                "without a GPU: vramplan check FILE --engine-check lets llama.cpp plan for a card"
            )
            message = f"no GPU to play {tools.card.title}: {problem}"
            raise MissingError(message, hint=hint) from None
        tools.remark(f"the engine's own figures alone, without NVML's: {problem}")
        return None, ""


def _ollama(job: Job, tools: Tools, gpu: Gpu | None, stack: ExitStack) -> EngineOutcome:
    from vramplan.engines.ggml.run.ollama import (
        OllamaJob,
        measure_ollama,
        own_share,
        server_address,
    )

    if job.settings.get("cpu_moe", 0) != 0:
        hint = "start its server with LLAMA_ARG_N_CPU_MOE set, and measure without cpu_moe"
        raise UsageError("cpu_moe: no request can tell Ollama where experts go", hint=hint)
    wanted = OllamaJob(
        model=job.pipeline.name,
        settings=_plain(job),
        has_vision=sees(job),
        address=server_address(),
    )
    return measure_ollama(wanted, _engine_tools(gpu, stack, own_share, tools.progress))


def _llama_server(job: Job, tools: Tools, gpu: Gpu | None, stack: ExitStack) -> EngineOutcome:
    from vramplan.engines.ggml.run.llama_server import (
        BINARY,
        ServerJob,
        find_server,
        measure_server,
    )
    from vramplan.probe.processes import own_process

    path = _model_file(job, tools.weights)
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

    wanted = ServerJob(
        model=path,
        settings=_plain(job),
        command=command,
        started=started.append,
        mmproj=_projector_file(job, path, tools),
    )
    return measure_server(wanted, _engine_tools(gpu, stack, own, tools.progress))


def sees(job: Job) -> bool:
    """Return whether there is a vision encoder beside the language model: then it gets a picture.

    It may be known from the catalogue or from a file's own header.
    """
    return of_ggml(job.pipeline).has_projector


def _model_file(job: Job, weights: str) -> Path:
    """Return the file to be loaded: the one that is named, else the one that is the pipeline."""
    is_own = weights == "random" and isinstance(of_ggml(job.pipeline).model, ModelFile)
    path = Path(job.pipeline.path if is_own else weights)
    if path.suffix.lower() != ".gguf" or not path.is_file():
        hint = "name the model's file: --weights model.gguf; memory depends on it"
        raise UsageError(f"{job.pipeline.name}: llama-server needs a GGUF file", hint=hint)
    return path


def _projector_file(job: Job, model: Path, tools: Tools) -> Path | None:
    """Return the projector that is named, else the pipeline's own, else the one beside the model.

    None for a model that does not see; for one that does and has none here, that is remarked.
    """
    from vramplan.sources.model_folder import find_projector_file

    if tools.projector is not None:
        return Path(tools.projector)
    if not sees(job):
        return None
    file = of_ggml(job.pipeline).model
    if isinstance(file, ModelFile) and file.projector is not None:
        own = Path(file.projector.path)
        if own.is_file():
            return own
    found = find_projector_file(model)
    if found is None:
        tools.remark(
            f"measured without a picture: no projector beside {model.name}; --mmproj names one"
        )
    return found


def _engine_tools(
    gpu: Gpu | None,
    stack: ExitStack,
    own: Callable[[DeviceMemory], int | None],
    progress: Hear,
) -> EngineTools:
    from vramplan.engines.ggml.run.served_run import EngineTools

    if gpu is None:
        return EngineTools(progress=progress)
    from vramplan.probe.nvml import NvmlProbe

    eyes = open_eyes(gpu, stack.enter_context(NvmlProbe(gpu.uuid)))
    return EngineTools(
        probe=eyes.probe,
        own=own,
        watch=eyes.watch,
        smi=eyes.smi,
        smi_eyes=eyes.smi_eyes,
        progress=progress,
    )


def _plain(job: Job) -> dict[str, object]:
    """Return a job's settings as an engine takes them: plain words and numbers."""
    return {
        key: format_setting(key, value) if isinstance(value, tuple) else value
        for key, value in job.settings.items()
    }


def _make_run(job: Job, command: str, outcome: EngineOutcome, gpu: Gpu | None, driver: str) -> Run:
    return Run(
        pipeline=job.pipeline.name,
        title=job.pipeline.title,
        runtime=job.pipeline.runtime,
        settings=job.settings,
        weights="pretrained",
        witness=Witness.GPU if gpu is not None else Witness.DRY,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        command=command,
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
