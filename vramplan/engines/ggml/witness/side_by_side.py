"""Asks the real engine about a model file, and puts our figures for the same build beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.catalog.cards import DEFAULT_CAPABILITY
from vramplan.compare.pair import Pair
from vramplan.compare.witness import LayersTold, Witness, WitnessRow
from vramplan.engines.ggml.pipeline import GgmlPipeline, ModelFile
from vramplan.errors import UsageError
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vramplan.model import Estimate, Settings, Verdict


def ask_witness(pipeline: GgmlPipeline, settings: Settings) -> Witness:
    """Return the engine's buffers beside ours.

    Raises UsageError for a pipeline that is no file here, MissingError without the engine.
    """
    from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
    from vramplan.engines.ggml.load_plan import read_run
    from vramplan.engines.ggml.witness.answer import ask_engine
    from vramplan.engines.ggml.witness.cpu_build import cpu_build

    path = _file_of(pipeline)
    # the engine is asked for numbers, also where ours are the engine's own choice
    asked = {**settings, "engine": WITNESS_ENGINE}
    chosen = read_run(pipeline, asked, DEFAULT_CAPABILITY).settings
    words = {key: format_setting(key, value) for key, value in chosen.items()}
    ours = cpu_build(pipeline, settings)
    assert isinstance(pipeline.model, ModelFile)
    beside = pipeline.model.projector
    answer = ask_engine(path, words, Path(beside.path) if beside else None)

    def told(name: str) -> int | None:
        sizes = [one.size_bytes for one in answer.buffers if one.name == name]
        return sum(sizes) if sizes else None

    rows = (
        ("model", ours.model_bytes, told("model")),
        ("KV cache", ours.cache_bytes, told("KV")),
        ("recurrent state", ours.state_bytes, told("RS")),
        ("compute", ours.compute_bytes, told("compute")),
        ("projector and its compute", ours.projector_bytes, answer.projector_bytes),
    )
    return Witness(
        pipeline=pipeline.name,
        engine=answer.version,
        is_known=ours.is_known,
        rows=_rows(rows),
    )


def ask_on_card(
    pipeline: GgmlPipeline, settings: Settings, verdict: Verdict, estimate: Estimate
) -> Witness:
    """Return what the engine does on the card of `verdict`, beside what we say it does.

    The card is pretended (`engines.ggml.witness.pretended_card`); `estimate` is what the verdict
    rests on. A projector is taken off the card's memory and not asked about. Raises as
    `ask_witness` does.
    """
    from vramplan.engines.ggml.defaults import CardMemory
    from vramplan.engines.ggml.witness.answer import ask_engine
    from vramplan.engines.ggml.witness.card_build import card_build
    from vramplan.engines.ggml.witness.pretended_card import PretendedCard

    path = _file_of(pipeline)
    if settings.get("cpu_moe", 0) != 0:
        hint = "leave cpu_moe out: the engine's own fit places experts"
        raise UsageError("--engine-check: the engine cannot be asked for cpu_moe", hint=hint)
    context = sum(t.band.expected_bytes for t in estimate.terms if t.name == "CUDA context")
    free = max(verdict.budget_bytes - context, 0)
    ours = card_build(
        pipeline,
        settings,
        estimate.compute_capability,
        CardMemory(total_bytes=verdict.budget_bytes, free_bytes=free),
    )
    card = PretendedCard(
        name=verdict.card,
        total_bytes=verdict.budget_bytes,
        free_bytes=free,
        margin_bytes=ours.margin_bytes,
    )
    words = {key: format_setting(key, value) for key, value in ours.settings.items()}
    answer = ask_engine(path, words, card=card)
    gpu, host = ("CUDA0",), ("CPU", "CUDA_Host")

    def told(name: str, devices: tuple[str, ...]) -> int:
        return sum(answer.size_bytes(name, device) for device in devices)

    rows = (
        ("model", ours.model_bytes, told("model", gpu)),
        ("KV cache", ours.cache_bytes, told("KV", gpu)),
        ("recurrent state", ours.state_bytes, told("RS", gpu)),
        ("compute", ours.compute_bytes, told("compute", gpu)),
        ("model, part of the file mapped", ours.host_model_bytes, told("model", host)),
        ("KV cache in host memory", ours.host_cache_bytes, told("KV", host)),
        ("recurrent state in host memory", ours.host_state_bytes, told("RS", host)),
        ("compute in host memory", ours.host_compute_bytes, told("compute", host)),
    )
    on_gpu, total = ours.layers
    return Witness(
        pipeline=pipeline.name,
        engine=answer.version,
        is_known=ours.is_known,
        rows=_rows(rows),
        card=verdict.card,
        layers=LayersTold(
            ours=on_gpu, engine=answer.layers[0] if answer.layers else 0, total=total
        ),
    )


def _file_of(pipeline: GgmlPipeline) -> Path:
    path = Path(pipeline.path)
    if not isinstance(pipeline.model, ModelFile) or not path.is_file():
        hint = "name a .gguf file, or a model of Ollama's that is installed"
        raise UsageError(f"--engine-check: {pipeline.name} is no model file here", hint=hint)
    return path


def _rows(rows: Iterable[tuple[str, int | None, int | None]]) -> tuple[WitnessRow, ...]:
    """Return the rows in which either side has something."""
    return tuple(
        WitnessRow(name=name, size=Pair(estimate_bytes=own, measured_bytes=engine))
        for name, own, engine in rows
        if own or engine
    )
