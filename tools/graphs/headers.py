"""Headers of made models: an architecture's keys with numbers that are drawn, and its tensors.

The engine makes the tensors that an architecture has at the keys' sizes. Numbers differ from one
another as far as the architecture lets them, so that an expression has one reading.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tools.graphs.asking import Asking
from tools.graphs.own_keys import UNREAL, own_keys
from vramplan.sources.gguf_header import GgufFile, GgufTensor, Value

#: families with a layer without heads of keys, and those with latent attention
HYBRID = frozenset({
    "plamo2", "jamba", "nemotron_h", "nemotron_h_moe", "granitehybrid", "lfm2", "lfm2moe",
    "falcon-h1", "graniteswitch",
})  # fmt: skip
LATENT = frozenset({
    "deepseek2", "deepseek32", "glm-dsa", "kimi-linear", "mistral4", "minicpm3", "kimi-k3",
    "bailingmoe3", "dots3note", "glm5-next", "hy_v4",
})  # fmt: skip
#: families whose header must list the layers with a window
LISTED = frozenset({"gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"})
_DELTA = ("qwen3next", "qwen35", "qwen4exp")


@dataclass(frozen=True)
class Style:
    """How free numbers are: of the kinds of model that an architecture has, the freest is wanted.

    `is_wide`: the embedding is as wide as all heads. `has_experts`; `is_grouped`: heads share keys;
    `is_single`: all layers are of one kind. `is_told`: the sizes of heads stand in the header.
    """

    is_wide: bool = False
    has_experts: bool = False
    is_grouped: bool = True
    is_single: bool = False
    is_told: bool = True


STYLES = tuple(
    Style(is_wide=wide, has_experts=experts, is_grouped=grouped, is_single=single, is_told=told)
    for experts in (False, True)
    for single in (False, True)
    for grouped in (True, False)
    for wide, told in ((False, True), (True, True), (True, False))
)


class _Draws(random.Random):
    """Numbers that are drawn, those of a wide range without one that a model nearby has."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(f"{name} {seed}")
        self._number, self._count = seed, 0

    def randrange(self, start: int, stop: int) -> int:  # type: ignore[override]  # no step
        """Return a number of a range; of successive seeds all differ."""
        self._count += 1
        count = stop - start
        step = next(one for one in _STEPS[self._count % len(_STEPS) :] + _STEPS if count % one)
        return start + (self._number * step + 5 * self._count) % count


_STEPS = (3, 5, 7, 11, 13)


def keys(name: str, style: Style, seed: int, layers: int) -> dict[str, Value]:
    """Return an architecture's keys, without its name before them."""
    rng = _Draws(name, seed)
    head = (128, 64, 192, 96, 256)[seed % 5]  # models that follow each other differ
    kv_heads = (3, 2, 5, 4, 1, 7)[seed // 2 % 6] if style.is_grouped else (3, 4, 2, 5, 6)[seed % 5]
    group = (2, 3, 4)[seed % 3] if style.is_grouped else 1
    heads = kv_heads * group
    wide = heads * head if style.is_wide else 32 * rng.randrange(11, 37)
    inner = 32 * rng.randrange(20, 70)
    narrow = 32 * rng.randrange(5, 20)
    shared = 32 * rng.randrange(21, 40)
    words = 32 * rng.randrange(71, 140)
    is_latent = name in LATENT
    found: dict[str, Value] = {
        "vocab_size": words, "context_length": 65536, "embedding_length": wide,
        "features_length": wide, "block_count": layers,
        "leading_dense_block_count": rng.choice((1, 2)),
        "time_mix_extra_dim": 32 * rng.choice((1, 2, 3)),
        "time_decay_extra_dim": 32 * rng.choice((4, 5)),
        "full_attention_interval": rng.choice((2, 3, 4)),
        "attention.q_lora_rank": 32 * rng.choice((9, 10, 14)),
        "attention.kv_lora_rank": 32 * rng.choice((15, 16, 18)),
        "attention.relative_buckets_count": rng.choice((8, 16)),
        "attention.sliding_window": rng.choice((300, 512, 1100)),
        "attention.indexer.head_count": rng.choice((1, 2, 3)),
        "attention.indexer.key_length": rng.choice((64, 128)),
        "attention.indexer.top_k": rng.randrange(5, 60),
        "ssm.conv_kernel": rng.choice((3, 4, 5)), "ssm.state_size": rng.choice((16, 32, 64, 128)),
        "kda.head_dim": rng.choice((64, 128)), "wkv.head_size": head,
        "shortconv.l_cache": rng.choice((3, 4, 5)), "attention.group_norm_groups": 8,
        "token_shift_count": 2, "attention.decay_lora_rank": 32 * rng.choice((1, 2, 4)),
        "attention.iclr_lora_rank": 32 * rng.choice((1, 2, 4)),
        "attention.value_residual_mix_lora_rank": 32 * rng.choice((1, 2, 4)),
        "attention.gate_lora_rank": 32 * rng.choice((3, 5)), "decoder_start_token_id": 0,
        "interleave_moe_layer_step": 2, "attention.chunk_size": 512, "decoder_block_count": layers,
        "altup.num_inputs": 4, "hash_layer_count": 1,
        "embedding_length_per_layer_input": 32 * rng.choice((2, 3, 5)),
        "attention.layer_indices": 1, "n_deepstack_layers": 0, "nextn_predict_layers": 0,
        "attention.max_alibi_bias": 8.0,
        "attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5, "expert_group_scale": 1.0, "logit_scale": 0.5,
        "rope.freq_base": 1e4, "rope.freq_base_swa": 1e4, "activation_sparsity_scale": 1.0,
        "expert_weights_scale": 1.0, "residual_scale": 0.5, "embedding_scale": 0.5,
        "rope.scaling.attn_factor": 1.0, "use_parallel_residual": False,
    }  # fmt: skip
    if style.has_experts:
        found |= {
            "expert_feed_forward_length": narrow, "expert_shared_feed_forward_length": shared,
            "expert_count": rng.randrange(8, 25), "expert_used_count": rng.choice((2, 3, 4)),
            "expert_shared_count": rng.choice((1, 2)), "expert_gating_func": 2,
            "experts_per_group": 1,
            "expert_group_count": 1, "expert_group_used_count": 1,
            "expert_chunk_feed_forward_length": narrow, "moe_every_n_layers": 2,
            "moe_latent_size": 0,
        }  # fmt: skip
    if name.startswith(_DELTA):
        size = rng.choice((64, 128))
        groups = rng.choice((1, 2, 3))
        ranks = groups * rng.choice((1, 2, 3))
        found |= {"ssm.state_size": size, "ssm.group_count": groups, "ssm.time_step_rank": ranks}
        found["ssm.inner_size"] = size * ranks
    else:
        found["ssm.inner_size"] = 2 * wide
        groups = rng.choice((1, 2))
        found["ssm.group_count"] = 0 if name == "plamo2" else groups
        found["ssm.time_step_rank"] = 2 * rng.choice((1, 2, 4)) if (2 * wide) % 8 == 0 else 2
    found["rope.dimension_count"] = 64 if is_latent else head
    if style.is_told:
        found |= {"attention.key_length": head, "attention.value_length": head}
        found |= {"attention.key_length_swa": head, "attention.value_length_swa": head}
    if is_latent:
        rank = int(str(found["attention.kv_lora_rank"]))
        found |= {"attention.key_length": rank + 64, "attention.value_length": rank}
        found |= {"attention.key_length_mla": 192, "attention.value_length_mla": 128}
    if name in HYBRID and not style.is_single:
        bare = [rng.random() < 0.5 for _ in range(layers)]
        bare[rng.choice(range(layers - 1))] = True
        bare[-1 - rng.choice((0, 1))] = False
        found["attention.head_count"] = tuple(0 if one else heads for one in bare)
        found["attention.head_count_kv"] = tuple(0 if one else kv_heads for one in bare)
    else:
        is_one = is_latent and name != "minicpm3"
        found["attention.head_count"] = heads
        found["attention.head_count_kv"] = 1 if is_one else kv_heads
    found["feed_forward_length"] = inner
    if name.startswith("nemotron_h"):
        kinds = found["attention.head_count_kv"]
        found["feed_forward_length"] = tuple(
            inner if isinstance(kinds, tuple) and not kinds[one] and one % 2 else 0
            for one in range(layers)
        )
    if name in LISTED:
        offset = rng.choice((0, 1, 2))
        found["attention.sliding_window_pattern"] = tuple(
            (one + offset) % 3 != 0 for one in range(layers)
        )
    if name == "maple":
        found |= {"swiglu_clamp_exp": (1.0,) * layers, "swiglu_clamp_shexp": (1.0,) * layers}
    found["rope.dimension_sections"] = (head // 4,) * 4
    return found | own_keys(name, rng, found)


#: keys that are in a header only where an architecture must have them
REQUIRED: Mapping[str, Value] = {"attention.clamp_kqv": 8.0}


def header(name: str, found: dict[str, Value], tensors: Iterable[GgufTensor] = ()) -> GgufFile:
    """Return a header with an architecture's keys."""
    metadata: dict[str, Value] = {"general.architecture": name}
    metadata |= {f"{name}.{key}": value for key, value in found.items()}
    metadata |= {f"xielu.{key}": 1.0 for key in ("alpha_n", "alpha_p", "beta", "eps")}
    metadata["tokenizer.ggml.token_type_count"] = 2
    words = found.get("vocab_size", 256)
    return GgufFile(
        path=f"made/{name}.gguf", version=3, metadata=metadata,
        lengths={"tokenizer.ggml.tokens": int(str(words))}, tensors=tuple(tensors),
    )  # fmt: skip


def all_tensors(asking: Asking, made: GgufFile) -> list[GgufTensor]:
    """Return the tensors that the engine makes of a header. Raises EngineError."""
    shapes = dict(asking.tensors(made))  # one that is on two devices is told twice
    found = [
        GgufTensor(name=name, shape=shape, type="f32")
        for name, shape in shapes.items()
        if not name.endswith((".scale", ".input_scale", UNREAL.get(made.architecture, ".scale")))
    ]
    if all(one.name != "token_embd.weight" for one in found):
        wide = int(str(made.metadata[f"{made.architecture}.embedding_length"]))
        words = made.lengths["tokenizer.ggml.tokens"]
        found.append(GgufTensor(name="token_embd.weight", shape=(wide, words), type="f32"))
    return found


def fused(tensors: Iterable[GgufTensor]) -> list[GgufTensor]:
    """Return queries, keys and values as one matrix, of each layer that has them apart."""
    there = {one.name: one for one in tensors}
    found = []
    for name, queries in there.items():
        for kind in ("weight", "bias"):
            end = f".attn_q.{kind}"
            if name.endswith(end) and name.replace(end, f".attn_qkv.{kind}") not in there:
                parts = [there.get(name.replace(end, f".attn_{one}.{kind}")) for one in "qkv"]
                if all(parts):
                    rows = sum(one.shape[-1] for one in parts if one is not None)
                    found.append(
                        GgufTensor(
                            name=name.replace(end, f".attn_qkv.{kind}"),
                            shape=(*queries.shape[:-1], rows),
                            type="f32",
                        )
                    )
    return found


def suffix(tensor: str) -> str:
    """Return a tensor's name without its layer's number."""
    parts = tensor.split(".", 2)
    return f"*.{parts[2]}" if parts[0] == "blk" else tensor
