"""Asks the real engine about a model file, and puts our figures for the same build beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vramplan.catalog.cards import DEFAULT_CAPABILITY
from vramplan.compare.pair import Pair
from vramplan.compare.witness import LayersTold, Witness, WitnessRow
from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.pipeline import GgmlPipeline, ModelFile
from vramplan.errors import UsageError
from vramplan.model import LANGUAGE_MODEL, PROJECTOR, LineKind, buffer_bytes
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vramplan.engine_buffer import EngineBuffer
    from vramplan.model import Buffer, Estimate, Settings, Verdict


def ask_witness(pipeline: GgmlPipeline, settings: Settings) -> Witness:
    """Return the engine's buffers beside ours.

    Raises UsageError for a pipeline that is no model file, MissingError without the engine.
    """
    from vramplan.engines.ggml.build_rules import WITNESS_ENGINE
    from vramplan.engines.ggml.load_plan import read_run
    from vramplan.engines.ggml.witness.answer import ask_engine
    from vramplan.engines.ggml.witness.cpu_build import cpu_build
    from vramplan.engines.ggml.witness.hollow_file import file_of

    model = _header_of(pipeline)
    # the engine is asked for numbers, also where ours are the engine's own choice
    asked = {**settings, "engine": WITNESS_ENGINE}
    chosen = read_run(pipeline, asked, DEFAULT_CAPABILITY).settings
    words = {key: format_setting(key, value) for key, value in chosen.items()}
    ours = cpu_build(pipeline, settings)
    with file_of(model.header) as path:
        if model.projector is None:
            answer = ask_engine(path, words)
        else:
            with file_of(model.projector) as beside:
                answer = ask_engine(path, words, beside)

    projector = [one.size_bytes for one in ours.buffers if one.component == PROJECTOR]
    rows = (
        *_sides(_IN_HOST, ours.buffers, answer.buffers),
        (
            "projector and its compute",
            sum(projector) if projector else None,
            answer.projector_bytes,
        ),
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
    from vramplan.engines.ggml.witness.hollow_file import file_of
    from vramplan.engines.ggml.witness.pretended_card import PretendedCard

    model = _header_of(pipeline)
    context = estimate.bytes_of(LineKind.CUDA_CONTEXT)
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
    with file_of(model.header) as path:
        answer = ask_engine(path, words, card=card)
    rows = (
        (name, own, told or 0) for name, own, told in _sides(_ON_CARD, ours.buffers, answer.buffers)
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


def _header_of(pipeline: GgmlPipeline) -> ModelFile:
    if not isinstance(pipeline.model, ModelFile):
        hint = "name a .gguf file, one on a hub, or a model of Ollama's that is installed"
        raise UsageError(f"--engine-check: {pipeline.name} is no model file", hint=hint)
    return pipeline.model


#: the rows of each comparison: what it is, whether in host memory, and what it is called
_IN_HOST = (
    (LineKind.WEIGHTS, True, "model"),
    (LineKind.KV_CACHE, True, "KV cache"),
    (LineKind.RECURRENT_STATE, True, "recurrent state"),
    (LineKind.COMPUTE_BUFFER, True, "compute"),
)
_ON_CARD = (
    (LineKind.WEIGHTS, False, "model"),
    (LineKind.KV_CACHE, False, "KV cache"),
    (LineKind.RECURRENT_STATE, False, "recurrent state"),
    (LineKind.COMPUTE_BUFFER, False, "compute"),
    (LineKind.WEIGHTS, True, "model, part of the file mapped"),
    (LineKind.KV_CACHE, True, "KV cache in host memory"),
    (LineKind.RECURRENT_STATE, True, "recurrent state in host memory"),
    (LineKind.COMPUTE_BUFFER, True, "compute in host memory"),
)


def _sides(
    rows: Iterable[tuple[LineKind, bool, str]],
    ours: Iterable[Buffer],
    printed: Iterable[EngineBuffer],
) -> Iterator[tuple[str, int, int | None]]:
    """Yield each row's name and the bytes of the language model's buffers, ours and the engine's.

    None is for what the engine prints no buffer of.
    """
    own = [one for one in ours if one.component == LANGUAGE_MODEL]
    theirs = [one for one in in_our_words(printed) if one.component == LANGUAGE_MODEL]
    for kind, on_host, name in rows:
        is_told = any(one.kind is kind and one.device.is_host == on_host for one in theirs)
        told = buffer_bytes(theirs, kind, on_host=on_host) if is_told else None
        yield name, buffer_bytes(own, kind, on_host=on_host), told


def _rows(rows: Iterable[tuple[str, int | None, int | None]]) -> tuple[WitnessRow, ...]:
    """Return the rows in which either side has something."""
    return tuple(
        WitnessRow(name=name, size=Pair(estimate_bytes=own, measured_bytes=engine))
        for name, own, engine in rows
        if own or engine
    )
