"""Asks the real engine about a model file, and puts our figures for the same build beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vramplan.catalog.card_groups import is_remote
from vramplan.catalog.cards import DEFAULT_CAPABILITY
from vramplan.compare.pair import Pair
from vramplan.compare.witness import LayersTold, Witness, WitnessRow
from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.pipeline import GgmlPipeline, ModelFile
from vramplan.errors import UsageError
from vramplan.model import GPU, HOST, LANGUAGE_MODEL, PROJECTOR, Device, LineKind
from vramplan.setting_values import NONE
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
    from vramplan.engines.ggml.card_memory import CardMemory, together
    from vramplan.engines.ggml.witness.answer import ask_engine
    from vramplan.engines.ggml.witness.card_build import card_build
    from vramplan.engines.ggml.witness.hollow_file import file_of
    from vramplan.engines.ggml.witness.pretended_card import PretendedCard

    model = _header_of(pipeline)
    if settings.get("draft", NONE) != NONE:
        hint = "leave draft out: the engine is asked about one model at a time"
        raise UsageError("--engine-check: a model with a draft model beside it", hint=hint)
    seen = [
        CardMemory(
            total_bytes=budget,
            free_bytes=budget,
            context_bytes=estimate.bytes_of(LineKind.CUDA_CONTEXT, device=device),
            is_remote=is_remote(name),
        )
        for device, budget, name in _budgets(verdict)
    ]
    ours = card_build(pipeline, settings, estimate.compute_capability, together(seen))
    used = [seen[number] for number in ours.cards]
    first, *others = (
        PretendedCard(
            name=verdict.card,
            total_bytes=one.total_bytes,
            free_bytes=one.beside_context_bytes,
            margin_bytes=margin,
            is_remote=one.is_remote,
        )
        for one, margin in zip(used, ours.margins_bytes, strict=True)
    )
    words = {key: format_setting(key, value) for key, value in ours.settings.items()}
    words |= {"split_mode": "layer", "main_gpu": "0"}  # of the cards that are used
    with file_of(model.header) as path:
        answer = ask_engine(path, words, card=first, others=others)
    rows = (
        (name, own, told or 0)
        for name, own, told in _sides(_on_cards(len(used)), ours.buffers, answer.buffers)
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


def _budgets(verdict: Verdict) -> list[tuple[Device, int, str]]:
    """Return the cards of a verdict, each with what a process may use of it, and its name."""
    if not verdict.cards:
        return [(GPU, verdict.budget_bytes, verdict.card)]
    return [(share.device, share.budget_bytes or 0, share.card) for share in verdict.cards]


def _header_of(pipeline: GgmlPipeline) -> ModelFile:
    if not isinstance(pipeline.model, ModelFile):
        hint = "name a .gguf file, one on a hub, or a model of Ollama's that is installed"
        raise UsageError(f"--engine-check: {pipeline.name} is no model file", hint=hint)
    return pipeline.model


#: what is compared, and what it is called
_KINDS = (
    (LineKind.WEIGHTS, "model"),
    (LineKind.KV_CACHE, "KV cache"),
    (LineKind.RECURRENT_STATE, "recurrent state"),
    (LineKind.COMPUTE_BUFFER, "compute"),
)
_IN_HOST = tuple((kind, HOST, name) for kind, name in _KINDS)


def _on_cards(cards: int) -> Iterator[tuple[LineKind, Device, str]]:
    """Yield the rows of each card, and of what is in host memory beside."""
    for number in range(cards):
        behind = f" on card {number}" if cards > 1 else ""
        for kind, name in _KINDS:
            yield kind, Device(gpu=number), name + behind
    for kind, name in _KINDS:
        mapped = kind is LineKind.WEIGHTS
        yield kind, HOST, f"{name}, part of the file mapped" if mapped else f"{name} in host memory"


def _sides(
    rows: Iterable[tuple[LineKind, Device, str]],
    ours: Iterable[Buffer],
    printed: Iterable[EngineBuffer],
) -> Iterator[tuple[str, int, int | None]]:
    """Yield each row's name and the bytes of the language model's buffers, ours and the engine's.

    None is for what the engine prints no buffer of.
    """
    own = [one for one in ours if one.component == LANGUAGE_MODEL]
    theirs = [one for one in in_our_words(printed) if one.component == LANGUAGE_MODEL]

    def sizes(held: Iterable[Buffer], kind: LineKind, device: Device) -> list[int]:
        return [one.size_bytes for one in held if one.kind is kind and one.device == device]

    for kind, device, name in rows:
        told = sizes(theirs, kind, device)
        yield name, sum(sizes(own, kind, device)), sum(told) if told else None


def _rows(rows: Iterable[tuple[str, int | None, int | None]]) -> tuple[WitnessRow, ...]:
    """Return the rows in which either side has something."""
    return tuple(
        WitnessRow(name=name, size=Pair(estimate_bytes=own, measured_bytes=engine))
        for name, own, engine in rows
        if own or engine
    )
