"""Keys that few architectures read, each with numbers that it takes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from vramplan.sources.gguf_header import Value

#: tensors that the engine would make of a header's keys and dies of: no file has them
UNREAL: Mapping[str, str] = {"rwkv6qwen2": ".time_mix_first.weight"}

#: what the plain keys of a made model come to, and those that its architecture alone reads
_Own = Callable[[random.Random, Mapping[str, Value]], dict[str, Value]]


def own_keys(name: str, rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    """Return the keys of one architecture; `found` are those that most have."""
    return _OWN[name](rng, found) if name in _OWN else {}


def _number(found: Mapping[str, Value], key: str) -> int:
    value = found[key]
    assert isinstance(value, int)
    return value


def _listed(count: int, *period: int) -> tuple[int, ...]:
    return tuple(period[one % len(period)] for one in range(count))


def _layers(found: Mapping[str, Value]) -> int:
    return _number(found, "block_count")


def _mixed(count: int) -> dict[str, Value]:
    """Return the keys of an embedding that is carried several times beside itself."""
    return {
        "hyper_connection.count": count, "hyper_connection.sinkhorn_iterations": 2,
        "hyper_connection.epsilon": 1e-6,
    }  # fmt: skip


def _deepseek4(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    heads = 8 * rng.choice((1, 2, 3))
    size = rng.choice((64, 128))
    return {
        **_mixed(4),
        "attention.head_count": heads, "attention.head_count_kv": 1,
        "attention.key_length": size, "attention.value_length": size,
        "attention.key_length_swa": size, "attention.value_length_swa": size,
        "rope.dimension_count": size // 2, "attention.output_group_count": 8,
        "attention.output_lora_rank": 32 * rng.choice((1, 2, 3)),
        "attention.compress_ratios": (0, 0, *_listed(_layers(found) - 2, 4, 128)),
        "attention.compress_rope_freq_base": 160000.0, "hash_layer_count": 0,
        "attention.indexer.head_count": heads, "attention.indexer.key_length": 128,
        "swiglu_clamp_exp": 10.0,
        "expert_gating_func": 4, "expert_weights_norm": True,
    }  # fmt: skip


def _dots3note(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    count, offset = _layers(found), rng.choice((0, 1))
    pattern = tuple((one + offset) % 2 for one in range(count))
    rank = 32 * rng.choice((13, 14, 17))
    return {
        "attention.kv_lora_rank_swa": rank, "attention.key_length_swa": rank + 64,
        "attention.value_length_swa": rank, "attention.key_length_mla_swa": 192,
        "attention.value_length_mla_swa": 128, "attention.indexer.key_length": 128,
        "attention.sliding_window_pattern": tuple(bool(one) for one in pattern),
        "attention.indexer.types": tuple(1 - one for one in pattern),
    }  # fmt: skip


def _glm5_next(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    pool = rng.choice((2, 4))
    rank = _number(found, "attention.kv_lora_rank")
    offset = rng.choice((0, 1))
    return {
        **_mixed(4),
        "attention.key_length": rank, "attention.value_length": rank,
        "rope.dimension_count": 0, "attention.indexer.kpool": pool,
        "attention.indexer.kpool_select_tail": True, "attention.indexer.top_k": 2 * pool,
        "attention.head_count": 2 * rng.choice((2, 3, 4)),
        "attention.head_count_kv": tuple(
            (one + offset) % 2 for one in range(_layers(found))
        ),
    }  # fmt: skip


def _delta(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    """Return heads of layers with latent attention, of every few one; the rest keep a state."""
    period = rng.choice((2, 3, 4))
    return {
        "attention.head_count": rng.choice((2, 3, 4, 6)),
        "attention.head_count_kv": _listed(_layers(found), *(0,) * (period - 1), 1),
        "leading_dense_block_count": 1,
    }


def _bailingmoe3(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    return {**_delta(rng, found), "kda.gate_lower_bound": -5.0, "kda.safe_gate": True}


def _kimi_k3(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    return {
        **_delta(rng, found),
        "attn_res.block_size": rng.choice((2, 12)), "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0, "kda.gate_lower_bound": -5.0,
    }  # fmt: skip


def _hy_v4(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    return {
        **_mixed(4),
        "hyper_connection.magnitude": 2.0, "swiglu_clamp_exp": 10.0, "expert_weights_norm": True,
        "attention.indexer.types": _listed(_layers(found), 1, 0),
        "attention.indexer.key_length": 128,
        "attention.indexer.head_count": rng.choice((4, 8)),
    }  # fmt: skip


def _qwen4exp(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    wide, words = _number(found, "embedding_length"), _number(found, "vocab_size")
    tables = 4
    return {
        **_mixed(4),
        "hyper_connection.low_rank": 8 * rng.choice((1, 2)),
        "attention.compress_ratios": _listed(_layers(found), 4),
        "ple.layers": (0,), "ple.ngram_size": 3, "ple.heads_per_ngram": 2, "ple.conv_kernel": 4,
        "ple.eos_token_id": 0, "embedding_length_per_layer_input": wide // tables,
        "ple.layer_multipliers": (1, 3, 5),
        "ple.head_offsets": tuple(one * words for one in range(tables)),
        "ple.head_vocab_sizes": (words,) * tables,
        "attention.indexer.key_length": _number(found, "rope.dimension_count"),
        "attention.indexer.block_size": 4, "attention.indexer.local_blocks": 1,
    }  # fmt: skip


def _deepseek2_ocr(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    heads = rng.choice((2, 4, 5))
    size = _number(found, "embedding_length") // heads
    return {
        "attention.head_count": heads, "attention.head_count_kv": heads,
        "attention.key_length": size, "attention.value_length": size,
        "rope.dimension_count": size,
    }  # fmt: skip


def _plm(rng: random.Random, _found: Mapping[str, Value]) -> dict[str, Value]:
    heads = rng.choice((2, 3, 5))
    return {
        "attention.head_count": heads, "attention.head_count_kv": heads,
        "attention.key_length": 64 + (size := rng.choice((64, 128))),
        "attention.value_length": size, "rope.dimension_count": 64,
    }  # fmt: skip


def _plamo2(rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    """Return heads of every other layer, as all models of it have them."""
    count, offset = _layers(found), rng.choice((0, 1))
    kv_heads = rng.choice((1, 2, 3))
    heads = kv_heads * rng.choice((2, 3, 4))
    return {
        "attention.head_count": _listed(count, *(heads, 0, heads)[offset : offset + 2]),
        "attention.head_count_kv": _listed(count, *(kv_heads, 0, kv_heads)[offset : offset + 2]),
    }


def _gemma4(rng: random.Random, _found: Mapping[str, Value]) -> dict[str, Value]:
    size = rng.choice((64, 128))
    return {
        "attention.key_length_swa": size, "attention.value_length_swa": size,
        "attention.shared_kv_layers": rng.choice((0, 2)),
    }  # fmt: skip


def _one_shift(_rng: random.Random, _found: Mapping[str, Value]) -> dict[str, Value]:
    return {"token_shift_count": 1}


def _rwkv6qwen2(_rng: random.Random, found: Mapping[str, Value]) -> dict[str, Value]:
    wide = _number(found, "wkv.head_size") * _number(found, "attention.head_count")
    return {"token_shift_count": 1, "embedding_length": wide}


_OWN: Mapping[str, _Own] = {
    "arwkv7": _one_shift,
    "bailingmoe3": _bailingmoe3,
    # it never says the words for parts of images, whose numbers end at 8,195
    "chameleon": lambda rng, _found: {"vocab_size": 32 * rng.randrange(260, 300)},
    "deepseek2-ocr": _deepseek2_ocr,
    "deepseek4": _deepseek4,
    "dots3note": _dots3note,
    "gemma4": _gemma4,
    "glm5-next": _glm5_next,
    "graniteswitch": lambda rng, _found: {
        "adapters.count": 2, "adapters.lora_rank": 32 * rng.choice((1, 2)),
        "adapters.token_ids_activate": (7, 9), "adapters.token_ids_substitute": (8, 10),
    },
    "hrm_text": lambda _rng, found: {
        "hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": _layers(found) // 2 - 1,
    },
    "hy_v4": _hy_v4,
    "kimi-k3": _kimi_k3,
    "kimi-linear": _delta,
    "plamo2": _plamo2,
    "plm": _plm,
    "qwen4exp": _qwen4exp,
    "rwkv6qwen2": _rwkv6qwen2,
}  # fmt: skip
