"""The KV cache: keys and values of every token the context has room for."""

from __future__ import annotations

from functools import lru_cache

from vramplan.engines.ggml.weights import GgmlModel, row_bytes
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.ggml.closed_form import Batch

#: llama.cpp rounds the context of a sequence up to this (src/llama-context.cpp, GGML_PAD(…, 256))
CONTEXT_STEP = 256

#: types that are no plain numbers; as values they need flash attention ("quantized V cache requires
#: flash_attn to be enabled", llama_init_from_model)
QUANTISED = frozenset({"q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"})


def cache_tokens(context: int, parallel: int, *, is_shared: bool, is_unified: bool = False) -> int:
    """Return the tokens that one cache holds: that of each of `parallel` sequences, or of all.

    llama.cpp shares `context` out among the sequences (`is_shared`), or gives them one cache of it
    (`is_unified`); Ollama asks it for `context` tokens times `parallel`. Either way a cache is
    rounded up to a multiple of 256. Source: llama.cpp, src/llama-context.cpp; Ollama,
    llm/llama_server.go (startLlamaServer).
    """
    total = context if is_shared else context * parallel
    share = total if is_unified else total // parallel
    return -(-max(share, 1) // CONTEXT_STEP) * CONTEXT_STEP


def layer_cache_bytes(
    model: GgmlModel, tokens: int, kv_type: str, value_type: str | None = None
) -> int:
    """Return the bytes of keys and values of `tokens` tokens in one layer.

    Grouped-query attention stores `kv_heads`, not `heads`. Source: llama.cpp,
    src/llama-kv-cache.cpp: two tensors a layer of kv_heads x head_size by tokens.
    """
    wide = model.kv_heads * model.head_size
    return tokens * (row_bytes(kv_type, wide) + row_bytes(value_type or kv_type, wide))


def window_tokens(model: GgmlModel, tokens: int, ubatch: int, sequences: int = 1) -> int:
    """Return the tokens that a windowed layer's cache holds for `sequences`; 0 where none is.

    Each one's window, and a batch, rounded up like the context, and never more than the `tokens` of
    other layers' caches. Source: llama.cpp, src/llama-kv-cache-iswa.cpp.
    """
    if not model.window:
        return 0
    padded = -(-(model.window * sequences + ubatch) // CONTEXT_STEP) * CONTEXT_STEP
    return min(tokens, padded)


@lru_cache(maxsize=1024)
def layer_caches(
    model: GgmlModel,
    tokens: int,
    window: int,
    streams: int,
    kv_type: str,
    value_type: str | None = None,
) -> tuple[int, ...]:
    """Return the bytes of keys and values of each layer, of all `streams`, which are its caches.

    A windowed layer holds `window` tokens a stream, another one `tokens`; one without attention, or
    with the cache of another layer, none. Latent attention holds keys only, of which values are a
    part. Source: llama.cpp, src/llama-kv-cache.cpp (has_v), src/llama-memory-hybrid.cpp (which
    layers).
    """
    shape = model.language
    assert shape is not None
    values = value_type or kv_type
    if shape.is_encoder:
        return (0,) * len(shape.layers)
    index = row_bytes(kv_type, shape.index) if shape.index and shape.is_indexed else 0
    return tuple(
        (window if layer.is_windowed else tokens)
        * streams
        * (
            row_bytes(kv_type, layer.kv_heads * layer.head_k)
            + (row_bytes(values, layer.kv_heads * layer.head_v) if shape.holds_values else 0)
            + index
        )
        if layer.has_attention and not layer.shares_cache
        else 0
        for layer in shape.layers
    )


def most_cache_bytes(model: GgmlModel, batch: Batch, layers: int, behind: int = 0) -> int:
    """Return the most that `layers`, the last but for `behind`, of an unknown family may cache.

    Keys and values of every token in each of them, whatever window there is, and an index.
    """
    shape = model.language
    if shape is None:
        return batch.cache_of_last(layers)
    stop = len(shape.layers) - behind
    tokens = batch.context * batch.streams
    return sum(
        tokens
        * (
            row_bytes(batch.cache_type, layer.kv_heads * layer.head_k)
            + row_bytes(batch.type_of_values, layer.kv_heads * layer.head_v)
            + (row_bytes(batch.cache_type, shape.index) if shape.index else 0)
        )
        for layer in shape.layers[stop - layers : stop]
    )


def cache_source(model: GgmlModel) -> str:
    """Return how the cache was counted, in words."""
    latent = None if model.language is None else model.language.latent
    if latent is None or not latent.is_absorbed:
        return (
            "counted: keys and values of each layer with attention, kv_heads x head size x tokens, "
            "in blocks of the cache's type"
        )
    return (
        f"counted: layers x ({latent.rank} + {latent.rope}) x tokens, in blocks of the cache's "
        "type; latent attention holds keys, of which values are a part"
    )


def check_heads(model: GgmlModel, kv_type: str) -> None:
    """Raise ValueError where the blocks of `kv_type` do not fill a head.

    Source: llama.cpp, src/llama-context.cpp (llama_init_from_model).
    """
    heads = {model.head_size}
    if model.language is not None:
        heads |= {size for layer in model.language.layers for size in (layer.head_k, layer.head_v)}
    for head in sorted(heads):
        row_bytes(kv_type, head)
