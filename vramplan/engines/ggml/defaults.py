"""What an engine takes for a setting that nobody made: context, batch, requests, their caches.

llama-server takes the context that the model was trained on, and 512 tokens a batch; its fit may
shrink that context (`layer_fit`). It serves four requests over one cache, but gives each of them
its part where it is told how many there are. Ollama tells it how many, goes by the memory of the
card, and holds whatever it is told against the model. Sources: llama.cpp, src/llama-context.cpp,
common/common.h and tools/server/server.cpp; Ollama, server/routes.go (Serve: the tiers),
server/sched.go (getRunner, load, automaticGenerationBatch), llm/server.go (NewLlamaServer),
llm/llama_server.go (startLlamaServer).
"""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.ggml.build_rules import EngineRules
from vramplan.engines.ggml.card_memory import CardMemory, together
from vramplan.engines.ggml.cards_used import CardsUsed, choose_cards
from vramplan.engines.ggml.ollama_versions import OllamaVersion
from vramplan.engines.ggml.weights import GgmlModel
from vramplan.errors import UsageError
from vramplan.model import Settings, SettingValue
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import AUTO
from vramplan.units import GIB, MIB, format_size

#: total memory from which on Ollama takes so many tokens: a card of 48 or 24 GB has a little less
_TIERS = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4_096))
#: "multimodal models require at least 2048 context" (getRunner)
_LEAST_WITH_IMAGES = 2_048
_BATCH = 512
#: "n_parallel is set to auto, using n_parallel = 4 and kv_unified = true" (llama_server)
_SLOTS = 4
#: the context above which Ollama tries such a batch, the largest first; what it counts for it; and
#: the share of free memory, in percent, that model and cache may take then
_LARGE_BATCHES = ((32_768, 2_048, 2 * GIB, 60), (4_096, 1_024, 768 * MIB, 75))
_SHARE = 80
#: without flash attention on a CUDA card of at most 8 GiB and with more context than 4,096
_BATCH_WITHOUT_FLASH = 256
#: "not safe with num_parallel > 1" (load)
_ONE_AT_A_TIME = frozenset({
    "mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe",
    "nemotron_h", "nemotron_h_moe", "nemotron_h_omni",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Settings with the engine's own in place of ``auto``, and what is to be said of them.

    `cards` are those that it uses.
    """

    settings: Settings
    remarks: tuple[str, ...]
    cards: CardsUsed = CardsUsed()


def llama_cpp_choices(
    model: GgmlModel,
    asked: Settings,
    rules: EngineRules,
    card: CardMemory | None = None,
    *,
    is_even: bool = False,
) -> Chosen:
    """Return what llama-server takes where `asked` leaves it to it.

    Raises UsageError where it would overrule what was asked for.
    """
    found: dict[str, SettingValue] = dict(asked)
    remarks = list(_share_caches(found, rules))
    parallel = found["parallel"]
    if asked["context"] == AUTO:
        each = parallel if isinstance(parallel, int) and found.get("kv_unified") != "on" else 1
        found["context"] = model.trained_context * each
        remarks.append(
            f"context=auto: llama-server takes the {model.trained_context:,} tokens that the model "
            "was trained on, and fewer where they do not fit"
        )
    if asked["ubatch"] == AUTO:
        found["ubatch"] = _BATCH
    most, ubatch = found.get("batch_tokens"), found["ubatch"]
    if isinstance(most, int) and isinstance(ubatch, int) and most < ubatch:
        remarks.append(
            f"of ubatch={ubatch:,} llama.cpp computes {most:,} tokens at once: no more than "
            f"batch_tokens (-b)"
        )
    cards = choose_cards(found, (card or _NO_CARD).cards, None, is_even=is_even)
    return Chosen(settings=found, remarks=tuple(remarks), cards=cards)


#: what an estimate that no card was named for knows of it
_NO_CARD = CardMemory(total_bytes=0, free_bytes=0)


def _share_caches(found: dict[str, SettingValue], rules: EngineRules) -> Iterator[str]:
    """Settle how many requests are served, and over how many caches; yield what is to be said."""
    is_auto = found["parallel"] == AUTO
    if is_auto and rules.serves_four and found.get("kv_unified") == "off":
        hint = f"say how many: parallel={_SLOTS} kv_unified=off"
        raise UsageError("kv_unified=off: with parallel=auto llama-server turns it on", hint=hint)
    if is_auto:
        found["parallel"] = _SLOTS if rules.serves_four else 1
    if is_auto and rules.serves_four:
        found["kv_unified"] = "on"
        yield (
            f"parallel=auto: llama-server serves {_SLOTS} requests at once, over one KV cache of "
            "the whole context; parallel=1 for one"
        )
    elif not rules.has_streams and found["parallel"] != 1:
        found["kv_unified"] = "on"
        yield f"llama.cpp b{rules.build} has one KV cache for all requests"
    elif found.get("kv_unified") == AUTO:
        found["kv_unified"] = "off"


def ollama_choices(
    model: GgmlModel,
    asked: Settings,
    card: CardMemory | None,
    *,
    has_images: bool,
    has_flash: bool,
    version: OllamaVersion | None = None,
) -> Chosen:
    """Return what Ollama makes of `asked`; without a `card` what it takes on a small one."""
    found: dict[str, SettingValue] = dict(asked)
    remarks = []
    if asked["context"] == AUTO and version is not None and version.context is not None:
        found["context"] = version.context
        remarks.append(f"context=auto: {version.context:,} tokens, on any card")
    elif asked["context"] == AUTO:
        total = card.total_bytes if card else 0
        found["context"] = next(tokens for least, tokens in _TIERS if total >= least)
        on = f"a card of {format_size(total, up=False)}" if card else "a card of less than 23 GiB"
        remarks.append(f"context=auto: {found['context']:,} tokens, which Ollama takes on {on}")
    wanted = found["context"]
    if isinstance(wanted, int) and wanted > 0:
        held = min(max(wanted, _LEAST_WITH_IMAGES) if has_images else wanted, model.trained_context)
        if held != wanted:
            found["context"] = held
            why = "at least that with images" if held > wanted else "trained on no more"
            remarks.append(f"Ollama makes the context {held:,} tokens: {why}")
    if asked["parallel"] == AUTO:
        found["parallel"] = 1  # envconfig/config.go (NumParallel)
    elif model.architecture in _ONE_AT_A_TIME and asked["parallel"] != 1:
        found["parallel"] = 1
        remarks.append(f"Ollama serves {model.architecture} one request at a time")
    cards = choose_cards(found, (card or _NO_CARD).cards, lambda: _predicted(model, found))
    remarks += [cards.remark] if cards.remark else []
    if asked["ubatch"] == AUTO and version is not None and not version.has_server:
        found["ubatch"] = _BATCH
    elif asked["ubatch"] == AUTO:
        if card is not None:
            card = together([card.cards[number] for number in cards.numbers])
        found["ubatch"] = _ollama_batch(model, found, card, has_flash=has_flash)
        if found["ubatch"] != _BATCH:
            remarks.append(f"ubatch=auto: Ollama takes {found['ubatch']:,} for such a context")
    return Chosen(settings=found, remarks=tuple(remarks), cards=cards)


def _ollama_batch(
    model: GgmlModel, chosen: Settings, card: CardMemory | None, *, has_flash: bool
) -> int:
    """Return the batch that goes with the context, unless Ollama's rough sum leaves no room."""
    context, parallel = chosen["context"], chosen["parallel"]
    if not isinstance(context, int) or not isinstance(parallel, int):
        return _BATCH
    tokens = context * parallel
    if not has_flash:
        is_small = card is not None and any(one.free_bytes <= 8 * GIB for one in card.cards)
        return _BATCH_WITHOUT_FLASH if tokens > 4_096 and is_small else _BATCH
    for least, batch, surcharge, percent in _LARGE_BATCHES:
        if tokens > least and (
            card is None or _has_room(model, tokens, card.free_bytes, surcharge, percent)
        ):
            return batch
    return _BATCH


def _has_room(model: GgmlModel, tokens: int, free: int, surcharge: int, percent: int) -> bool:
    """Return whether Ollama's rough sum leaves room for a batch."""
    predicted = _rough_bytes(model, tokens)
    return predicted <= free * percent // 100 and predicted + surcharge <= free * _SHARE // 100


def _predicted(model: GgmlModel, chosen: Settings) -> int:
    """Return Ollama's rough sum for the context that was chosen."""
    context, parallel = chosen["context"], chosen["parallel"]
    assert isinstance(context, int)
    assert isinstance(parallel, int)
    return _rough_bytes(model, context * parallel)


def _rough_bytes(model: GgmlModel, tokens: int) -> int:
    """Return the bytes of the file and of a cache in f16, counted roughly."""
    plain = model.embedding // model.heads
    least_kv_heads = model.kv_heads
    if model.language is not None:
        least_kv_heads = min(layer.kv_heads for layer in model.language.layers)
    cache = 2 * model.layers * least_kv_heads * plain * tokens * 2
    return model.weights_bytes + cache
