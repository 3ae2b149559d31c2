"""Asks the real engine about a model file, and puts our figures for the same build beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from vramplan.commands.targets import Job
from vramplan.compare.pair import Pair
from vramplan.compare.witness import Witness, WitnessRow
from vramplan.errors import UsageError
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from vramplan.sources.gguf import GgufFile


def ask_witness(job: Job, mmproj: str | None) -> Witness:
    """Return the engine's buffers beside ours.

    Raises UsageError for a pipeline that is no file here, MissingError without the engine.
    """
    from vramplan.estimate.cpu_build import cpu_build
    from vramplan.estimate.estimator import DEFAULT_CAPABILITY
    from vramplan.estimate.ggml_run import read_run
    from vramplan.runner.engine_check import ask_engine

    path = Path(job.pipeline.path)
    if job.pipeline.header is None or not path.is_file():
        hint = "name a .gguf file, or a model of Ollama's that is installed"
        raise UsageError(f"--engine-check: {job.pipeline.name} is no model file here", hint=hint)
    # the engine is asked for numbers, also where ours are the engine's own choice
    chosen = read_run(job.pipeline, job.settings, DEFAULT_CAPABILITY).settings
    settings = {key: format_setting(key, value) for key, value in chosen.items()}
    ours = cpu_build(job.pipeline, job.settings)
    header = cast("GgufFile | None", job.pipeline.projector)
    beside = mmproj or (None if header is None else header.path)
    answer = ask_engine(path, settings, Path(beside) if beside else None)

    def told(*names: str) -> int | None:
        sizes = [one.size_bytes for one in answer.buffers if one.name in names]
        return sum(sizes) if sizes else None

    rows = (
        ("model", ours.model_bytes, told("model")),
        ("KV cache", ours.cache_bytes, told("KV")),
        *((("recurrent state", ours.state_bytes, told("RS")),) if ours.state_bytes else ()),
        ("compute", ours.compute_bytes, told("compute")),
        ("projector and its compute", ours.projector_bytes, answer.projector_bytes),
    )
    return Witness(
        engine=answer.version,
        is_known=ours.is_known,
        rows=tuple(
            WitnessRow(name=name, size=Pair(estimate_bytes=own, measured_bytes=engine))
            for name, own, engine in rows
            if own is not None or engine is not None
        ),
    )
