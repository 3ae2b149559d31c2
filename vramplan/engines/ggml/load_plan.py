"""A ggml pipeline at its settings: everything that is decided before layers are placed."""

from __future__ import annotations

from vramplan.engines.ggml import lm_studio
from vramplan.engines.ggml.build_rules import EngineRules, has_flash_attention, rules_of
from vramplan.engines.ggml.card_memory import CardMemory
from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.closed_form import Batch
from vramplan.engines.ggml.defaults import llama_cpp_choices, ollama_choices
from vramplan.engines.ggml.draft_guesses import GUESSES, OLLAMA_GUESSES
from vramplan.engines.ggml.experts import NOTHING_MOVED, HostExperts, Moved
from vramplan.engines.ggml.kv_cache import (
    QUANTISED,
    cache_tokens,
    check_heads,
    layer_cache_bytes,
    layer_caches,
    window_tokens,
)
from vramplan.engines.ggml.ollama_versions import (
    PREFIX,
    RUN_BY_OLLAMA_ALONE,
    OllamaVersion,
    said_of,
    version_of,
)
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.read_model import read_model
from vramplan.engines.ggml.recurrent_state import layer_states
from vramplan.engines.ggml.weights import GgmlModel
from vramplan.errors import UsageError, did_you_mean
from vramplan.model import Settings, SettingValue
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import (
    AUTO,
    KV_TYPES,
    NONE,
    experts_of,
    files_of,
    key_type,
    overrides_of,
    value_type,
)

if TYPE_CHECKING:
    from vramplan.engines.ggml.cards_used import CardsUsed
    from vramplan.engines.ggml.files_beside import Adapter
    from vramplan.engines.ggml.vision_model import VisionModel


#: llama.cpp: common/common.h (n_batch)
_BATCH_TOKENS = 2048
#: settings of which nothing is said where they have these values
NEUTRAL: Settings = {
    "override_tensor": NONE,
    "batch_tokens": _BATCH_TOKENS,
    "embedding": "off",
    "pooling": AUTO,
    "lora": NONE,
    "control_vector": NONE,
    "draft": NONE,
    "gpu_offload": AUTO,
    "expert_offload": "off",
    "mmproj_offload": "on",
}

#: "flash_attn is not compatible with Grok - forcing off" (llama.cpp, src/llama-context.cpp)
NEVER_FLASH = frozenset({"grok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GgmlRun:
    """What an engine is asked to load, and the rules it follows.

    `wanted_layers` is None when the engine itself decides how many layers go to the GPU; `moved`
    is what is elsewhere than its layer because the settings say so, and `remarks` what is to be
    said of settings that the engine chose. Of several cards, `cards` are the numbers of those that
    it uses, in its order, and `shares` their parts of the layers; the first `remotes` of them are
    other machines', and `first_here` is the first one that is this machine's (0 where none is).
    `draft` is a second model, which guesses ahead.
    `version` is Ollama's where it was named; before it ran llama-server `is_own_engine` may be.
    """

    pipeline: GgmlPipeline
    settings: Settings
    compute_capability: str
    model: GgmlModel
    vision: VisionModel | None
    rules: EngineRules
    batch: Batch
    wanted_layers: int | None
    moved: Moved = NOTHING_MOVED
    cards: tuple[int, ...] = (0,)
    shares: tuple[float, ...] = ()
    remotes: int = 0
    first_here: int = 0
    adapters: tuple[Adapter, ...] = ()
    has_control_vector: bool = False
    draft: GgmlRun | None = None
    may_shrink_context: bool = False
    remarks: tuple[str, ...] = ()
    version: OllamaVersion | None = None
    is_own_engine: bool = False

    def with_context(self, tokens: int) -> GgmlRun:
        """Return the run with a context of `tokens`, of all sequences together."""
        settings = {**self.settings, "context": tokens}
        batch = batch_of(
            self.model,
            settings,
            self.rules,
            has_flash=self.batch.has_flash,
            is_shared=not self.is_ollama,
        )
        batch = replace(batch, outputs=self.batch.outputs, may_pipeline=self.batch.may_pipeline)
        draft = None if self.draft is None else self.draft.with_context(tokens)
        return replace(self, settings=settings, batch=batch, draft=draft)

    @property
    def asked_layers(self) -> int:
        """Return how many layers go to the GPU unless the engine finds that they do not fit."""
        return self.model.total_layers if self.wanted_layers is None else self.wanted_layers

    @property
    def has_own_shares(self) -> bool:
        """Return whether the settings say which card has which part of the layers."""
        return self.settings.get("tensor_split", AUTO) != AUTO

    @property
    def projector_card(self) -> int:
        """Return the number of the card that has the projector: the first of this machine's.

        Ollama hides the others where it takes one. Source: llama.cpp, tools/mtmd/clip.cpp (it takes
        the first GPU that is registered, and those of other machines are registered last).
        """
        return self.cards[0] if self.is_ollama else self.first_here

    @property
    def has_vision_flash(self) -> bool:
        """Return whether the vision encoder runs flash attention."""
        return self.batch.has_flash and self.rules.projector_has_flash

    @property
    def is_ollama(self) -> bool:
        """Return whether Ollama starts the engine, with its own rules on top."""
        return self.pipeline.is_ollama

    @property
    def guesses(self) -> int:
        """Return how many tokens a draft model guesses ahead."""
        return OLLAMA_GUESSES if self.is_ollama else GUESSES


def read_run(
    pipeline: GgmlPipeline,
    settings: Settings,
    compute_capability: str,
    card: CardMemory | None = None,
) -> GgmlRun:
    """Return the run that `settings` over the pipeline's defaults ask for.

    What is left to the engine may depend on the `card`; without one it is what a small card gets.
    Raises UsageError for a setting that cannot be, CatalogError for a `ggml` mapping that does not
    say what it must.
    """
    asked = {**pipeline.defaults, **settings}
    model = read_model(pipeline)
    said: list[str] = []
    if pipeline.is_lm_studio:
        words, said = lm_studio.in_engine_words(model, asked)
        asked |= words
    is_ollama, has_vision = pipeline.is_ollama, pipeline.has_projector
    engine = str(asked["engine"])
    version = _version(engine, is_ollama=is_ollama)
    rules = rules_of(f"b{version.build}" if version else engine)
    written_as = pipeline.model.written_as or model.architecture
    is_own = version is not None and version.runs_itself(
        written_as, has_projector_file=has_vision and not pipeline.model.has_encoder_inside
    )
    if is_ollama and written_as in RUN_BY_OLLAMA_ALONE and (version is None or version.has_server):
        hint = "Ollama until 0.24 runs it with an engine of its own: --set engine=ollama-0.24.0"
        raise UsageError(
            f"{pipeline.name}: llama-server has no architecture {written_as}", hint=hint
        )
    if version is not None:
        said.append(said_of(version, written_as, is_own=is_own))
        if asked["flash_attention"] == AUTO:
            flash = version.flash_attention(written_as, is_own=is_own)
            asked = {**asked, "flash_attention": flash}
    has_flash = has_flash_attention(str(asked["flash_attention"]), rules, compute_capability)
    has_flash = has_flash and model.architecture not in NEVER_FLASH
    seen = card.cards if card is not None else ()
    if any(one.is_remote for one in seen) and (is_ollama or pipeline.is_lm_studio):
        hint = f"llama.cpp itself takes them (--rpc): name the .gguf of {pipeline.name}"
        message = f"{pipeline.runtime} knows of no cards that other machines serve over RPC"
        raise UsageError(message, hint=hint)
    if card is not None:
        kept = pipeline.overhead_bytes * len(card.cards)
        card = replace(card, total_bytes=max(0, card.total_bytes - kept))
    choices = (
        ollama_choices(
            model, asked, card, has_images=has_vision, has_flash=has_flash, version=version
        )
        if is_ollama
        else llama_cpp_choices(
            model, asked, rules, card, is_even=lm_studio.is_even(pipeline, asked)
        )
    )
    chosen = choices.settings
    has_files = any(files_of(chosen.get(key)) for key in _FILES)
    batch = batch_of(model, chosen, rules, has_flash=has_flash, is_shared=not is_ollama)
    if choices.cards.remotes and not rules.remotes_have_events:
        batch = replace(batch, may_pipeline=False)
    run = GgmlRun(
        pipeline=pipeline,
        settings=chosen,
        compute_capability=compute_capability,
        model=model,
        vision=_vision(pipeline, rules, chosen) if has_vision else None,
        rules=rules,
        batch=batch,
        wanted_layers=_wanted_layers(model, chosen),
        moved=_moved(model, chosen, choices.cards),
        cards=choices.cards.numbers,
        shares=choices.cards.shares,
        remotes=choices.cards.remotes,
        first_here=next((at for at, one in enumerate(seen) if not one.is_remote), 0),
        may_shrink_context=asked["context"] == AUTO and not is_ollama,
        remarks=(*choices.remarks, *said, *_said_of_layers(model, chosen)),
        version=version,
        is_own_engine=is_own,
    )
    return _with_files(run, card) if has_files else run


def _version(engine: str, *, is_ollama: bool) -> OllamaVersion | None:
    """Return the version of Ollama's that `engine` names. Raises UsageError for another runtime."""
    if engine.startswith(PREFIX) and not is_ollama:
        hint = "name llama.cpp's build, such as b11549, or the model as ollama:NAME"
        raise UsageError(f"engine={engine}: not a build of what runs this model", hint=hint)
    return version_of(engine)


def _with_files(run: GgmlRun, card: CardMemory | None) -> GgmlRun:
    """Return the run with the files beside its model. Raises SourceError and UsageError."""
    from vramplan.engines.ggml.files_beside import check_vectors, read_adapters

    draft = _draft(run, card)
    sequences = run.batch.sequences
    batch = run.batch
    if draft is not None:
        # guesses are looked at with the token before them
        most = most_at_once(run.settings, is_shared=not run.is_ollama)
        batch = replace(batch, outputs=min(most, sequences * (1 + run.guesses)))
    return replace(
        run,
        batch=batch,
        adapters=read_adapters(run.settings, run.model),
        has_control_vector=check_vectors(run.settings, run.model),
        draft=draft,
    )


def _draft(run: GgmlRun, card: CardMemory | None) -> GgmlRun | None:
    """Return the run of the draft model: all of it on the GPU, its cache in f16.

    Its context is the first model's, and so is all else that its own settings do not say.
    """
    paths = files_of(run.settings.get("draft"))
    if not paths:
        return None
    if len(paths) > 1:
        raise UsageError("draft names several models", hint="one model guesses ahead")
    from vramplan.engines.ggml.open import open_draft

    pipeline = open_draft(paths[0], run.pipeline)
    settings = {
        key: value
        for key, value in run.settings.items()
        if key in pipeline.defaults and key not in _OF_ONE_MODEL
    }
    tokens: SettingValue = run.batch.context * run.batch.streams
    if run.is_ollama:  # whose context is that of each request
        tokens = run.settings["context"]
    asked = {**settings, "context": tokens, "kv_type": "f16"}
    return read_run(pipeline, asked, run.compute_capability, card)


#: settings that name files beside the model
_FILES = ("lora", "control_vector", "draft")
#: settings that are not a draft model's too
_OF_ONE_MODEL = frozenset({
    *_FILES, "gpu_layers", "cpu_moe", "override_tensor", "key_type", "value_type", "load_mtp",
    "embedding", "pooling", "image",
})  # fmt: skip


def _vision(pipeline: GgmlPipeline, rules: EngineRules, chosen: Settings) -> VisionModel | None:
    """Return the projector at the build; most models have none, so none of its code is loaded."""
    from vramplan.engines.ggml.projector_entry import read_projector
    from vramplan.engines.ggml.vision_model import at_build

    return at_build(read_projector(pipeline), rules.build, _image(chosen))


def batch_of(
    model: GgmlModel, chosen: Settings, rules: EngineRules, *, has_flash: bool, is_shared: bool
) -> Batch:
    """Return what the engine reserves for: `context`, `ubatch`, `parallel` and `kv_type`.

    Of `kv_unified` and `swa_full` only ``on`` tells something. `is_shared`: the context is for all
    sequences together, as llama.cpp has it. Raises UsageError for a setting that cannot be.
    """
    sequences = _count(chosen, "parallel")
    is_unified = chosen.get("kv_unified") == "on" or not rules.has_streams
    streams = 1 if is_unified else sequences
    context = _count(chosen, "context")
    tokens = cache_tokens(context, sequences, is_shared=is_shared, is_unified=is_unified)
    keys, values = key_type(chosen), value_type(chosen)
    ubatch = min(
        _count(chosen, "ubatch"), tokens * streams, most_at_once(chosen, is_shared=is_shared)
    )
    window = tokens
    if rules.has_window_cache and chosen.get("swa_full") != "on":
        window = window_tokens(model, tokens, ubatch, sequences // streams)
    _check_kv_type(model, keys, has_flash=True)  # keys in blocks need no flash attention
    _check_kv_type(model, values, has_flash=has_flash)
    if keys != values and model.language is not None and not model.language.holds_values:
        hint = f"set both to {keys}, or kv_type alone"
        raise UsageError(
            f"key_type {keys} and value_type {values}: {model.architecture} caches values as a "
            "part of the keys, and llama.cpp refuses two types",
            hint=hint,
        )
    caches = _caches(model, tokens, window, streams, (keys, values))
    return Batch(
        tokens=ubatch,
        context=tokens,
        sequences=sequences,
        cache_layer_bytes=max(caches),
        has_flash=has_flash,
        layer_caches=() if model.language is None else caches,
        window_context=window if model.window else 0,
        cache_type=keys,
        value_type=values,
        is_cache_on_host=chosen.get("kv_offload") == "off",
        layer_states=layer_states(model, sequences),
        is_unified=is_unified,
        pooling=_pooling(model, chosen),
        has_all_outputs=chosen.get("embedding") == "on"
        or chosen.get("pooling", AUTO) not in {AUTO, NONE},
    )


def _pooling(model: GgmlModel, chosen: Settings) -> str:
    """Return how embeddings become one; nothing where none are asked for.

    Without a word it is the model's own way, which of a model made to write is none.
    """
    if chosen.get("embedding") != "on":
        return ""
    pooling = str(chosen.get("pooling", AUTO))
    return model.pooling if pooling == AUTO else pooling


def most_at_once(chosen: Settings, is_shared: bool) -> int:  # as in `batch_of`
    """Return the tokens that llama.cpp takes at once, of which ubatch is a part (-b).

    Ollama passes one number for both. Source: llama.cpp, src/llama-context.cpp (n_ubatch).
    """
    if "batch_tokens" in chosen:
        return _count(chosen, "batch_tokens")
    return _BATCH_TOKENS if is_shared else _count(chosen, "ubatch")


def _caches(
    model: GgmlModel, tokens: int, window: int, streams: int, types: tuple[str, str]
) -> tuple[int, ...]:
    if model.language is None:
        return (layer_cache_bytes(model, tokens * streams, *types),)
    return layer_caches(model, tokens, window, streams, *types)


def _check_kv_type(model: GgmlModel, kv_type: str, *, has_flash: bool) -> None:
    if kv_type not in KV_TYPES:
        hint = did_you_mean(kv_type, KV_TYPES) or "use " + ", ".join(KV_TYPES)
        raise UsageError(f"unknown kv_type {kv_type!r}", hint=hint)
    if kv_type in QUANTISED and not has_flash:
        hint = "set flash_attention=on or kv_type=f16"
        raise UsageError(f"kv_type {kv_type} needs flash attention", hint=hint)
    try:
        check_heads(model, kv_type)
    except ValueError as problem:
        raise UsageError(f"kv_type {kv_type} does not suit the model: {problem}") from None


def _image(chosen: Settings) -> tuple[int, int] | None:
    value = chosen.get("image")
    return value if isinstance(value, tuple) else None


def _count(chosen: Settings, key: str) -> int:
    value = chosen[key]
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{key} must be a whole number of at least 1, not {value!r}")
    return value


def _wanted_layers(model: GgmlModel, chosen: Settings) -> int | None:
    wanted, total = chosen["gpu_layers"], model.total_layers
    if wanted in {"all", "auto"}:
        return total if wanted == "all" else None
    if not isinstance(wanted, int) or wanted < 0:
        hint = f"the model has {total} layers; write a number, all or auto"
        raise UsageError(f"gpu_layers {wanted!r} is not within 0 to {total}", hint=hint)
    return min(wanted, total)  # -ngl 99 is how people write all


def _said_of_layers(model: GgmlModel, chosen: Settings) -> list[str]:
    wanted, total = chosen["gpu_layers"], model.total_layers
    if not isinstance(wanted, int) or wanted <= total:
        return []
    return [f"gpu_layers={wanted}: the model has {total} layers, and the engine takes more for all"]


def _moved(model: GgmlModel, chosen: Settings, cards: CardsUsed) -> Moved:
    places = {number: place for place, number in enumerate(cards.numbers)}
    if cards.remotes:  # CUDA counts the cards of this machine alone
        here = len(cards.numbers) - cards.remotes
        places = {number: cards.remotes + number for number in range(here)}
    patterns = []
    for pattern, card in overrides_of(chosen.get("override_tensor", NONE)):
        if card is not None and card not in places:
            numbers = ", ".join(f"CUDA{number}" for number in places) or "cards of other machines"
            hint = f"the engine uses {numbers}; --card 2xrtx-3090 names several"
            raise UsageError(f"override_tensor: there is no CUDA{card}", hint=hint)
        patterns.append((pattern, HOST if card is None else places[card]))
    return Moved(experts=_host_experts(model, chosen), patterns=tuple(patterns))


def _host_experts(model: GgmlModel, chosen: Settings) -> tuple[HostExperts, ...]:
    wanted = chosen.get("cpu_moe", 0)
    if wanted == 0:
        return ()
    if not model.has_experts:
        hint = "it is for mixtures of experts; gpu_layers moves whole layers"
        raise UsageError("cpu_moe: the model has no experts", hint=hint)
    first, stop = experts_of(wanted)
    if first >= model.layers:
        hint = f"its layers are 0 to {model.layers - 1}"
        raise UsageError(f"cpu_moe {wanted}: the model has no such layer", hint=hint)
    return (HostExperts(first=first, stop=min(stop, model.layers)),)
