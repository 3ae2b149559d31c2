"""Model files of any architecture, made by the engine itself out of a header's keys.

``llama_model_init_from_user`` makes the tensors that an architecture has at given sizes, and
``llama_model_save_to_file`` writes them; of what it writes only names and shapes are kept, so that
a file is a hole with a header. Of architectures that it does not write the engine's own list is
taken. A program of its own: the engine ends a process that it dislikes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter

from vramplan.sources.gguf import read_gguf

sys.path.insert(0, str(Path(__file__).parent))

import engine_forks  # after the path

WIDE, HEADS, KV_HEADS, INNER, WORDS, LAYERS = 512, 4, 2, 768, 256, 6
HEAD = WIDE // HEADS
#: families with a layer without heads of keys, and those with latent attention
_HYBRID = frozenset({
    "plamo2", "jamba", "nemotron_h", "nemotron_h_moe", "granitehybrid", "lfm2", "lfm2moe",
    "falcon-h1",
})  # fmt: skip
_LATENT = frozenset({
    "deepseek2", "deepseek32", "glm-dsa", "kimi-linear", "mistral4", "minicpm3", "plm",
})  # fmt: skip
#: families whose header must list the layers with a window
LISTED = frozenset({"gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"})
_DELTA = ("qwen3next", "qwen35", "qwen4exp")
_PLAIN = {
    "vocab_size": WORDS, "context_length": 65536, "embedding_length": WIDE, "features_length": WIDE,
    "block_count": LAYERS, "leading_dense_block_count": 1, "time_mix_extra_dim": 64,
    "time_decay_extra_dim": 128, "full_attention_interval": 2, "attention.q_lora_rank": 512,
    "attention.kv_lora_rank": 512, "attention.relative_buckets_count": 8,
    "attention.sliding_window": 512, "attention.indexer.head_count": 1,
    "attention.indexer.key_length": 64, "attention.indexer.top_k": 8, "ssm.conv_kernel": 4,
    "ssm.state_size": 128, "kda.head_dim": 128, "wkv.head_size": HEAD, "shortconv.l_cache": 3,
    "attention.group_norm_groups": 8, "token_shift_count": 2, "attention.decay_lora_rank": 64,
    "attention.iclr_lora_rank": 64, "attention.value_residual_mix_lora_rank": 32,
    "attention.gate_lora_rank": 128, "decoder_start_token_id": 0, "interleave_moe_layer_step": 2,
    "attention.chunk_size": 512, "decoder_block_count": LAYERS, "altup.num_inputs": 4,
    "hash_layer_count": 1, "embedding_length_per_layer_input": 256,
    "attention.key_length_swa": HEAD, "attention.value_length_swa": HEAD,
    "attention.layer_indices": 1, "n_deepstack_layers": 0, "nextn_predict_layers": 0,
}  # fmt: skip
_EXPERTS = {
    "expert_feed_forward_length": INNER, "expert_shared_feed_forward_length": INNER,
    "expert_count": 8, "expert_used_count": 2, "expert_shared_count": 1, "expert_gating_func": 2,
    "experts_per_group": 1, "expert_group_count": 1, "expert_group_used_count": 1,
    "expert_chunk_feed_forward_length": INNER, "moe_every_n_layers": 2, "moe_latent_size": 0,
}  # fmt: skip
_FLOATS = {
    "attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 1.0,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5, "attention.group_norm_epsilon": 1e-5,
    "expert_group_scale": 1.0, "logit_scale": 1.0, "rope.freq_base": 1e4, "rope.freq_base_swa": 1e4,
    "activation_sparsity_scale": 1.0, "expert_weights_scale": 1.0, "residual_scale": 1.0,
    "embedding_scale": 1.0, "rope.scaling.attn_factor": 1.0,
}  # fmt: skip

_MIXED = {
    "hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
}  # fmt: skip
_DELTA_HEADS = {"attention.head_count": HEADS, "attention.head_count_kv": [1, 0, 1, 0, 0, 1]}
_ROWS = {
    "attention.key_length": 576, "attention.value_length": 512,
    "attention.key_length_mla": 192, "attention.value_length_mla": 128, "rope.dimension_count": 64,
    "attention.head_count": HEADS, "attention.head_count_kv": 1,
}  # fmt: skip
_EVERY_OTHER = [0, 1, 0, 1, 0, 1]
#: keys that few architectures read
_OWN: Mapping[str, Mapping[str, object]] = {
    "arwkv7": {"token_shift_count": 1},
    "bailingmoe3": {
        **_ROWS, **_DELTA_HEADS, "kda.gate_lower_bound": -5.0, "kda.safe_gate": True,
    },
    "chameleon": {"vocab_size": 8224},
    "deepseek2-ocr": {
        "attention.head_count": HEADS, "attention.head_count_kv": HEADS,
        "rope.dimension_count": HEAD,
    },
    "deepseek4": {
        **_MIXED, "attention.head_count": 8, "attention.head_count_kv": 1,
        "attention.key_length": 64, "attention.value_length": 64, "rope.dimension_count": 32,
        "attention.key_length_swa": 64, "attention.value_length_swa": 64,
        "attention.q_lora_rank": 64, "attention.output_group_count": 8,
        "attention.output_lora_rank": 32, "attention.compress_ratios": [0, 0, 4, 128, 4, 128],
        "attention.compress_rope_freq_base": 160000.0, "hash_layer_count": 0,
        "attention.indexer.head_count": 8, "attention.indexer.key_length": 128,
        "swiglu_clamp_exp": 10.0, "expert_gating_func": 4,
        "expert_weights_norm": True,
    },
    "dots3note": {
        **_ROWS, "attention.kv_lora_rank_swa": 384, "attention.key_length_swa": 448,
        "attention.value_length_swa": 384, "attention.key_length_mla_swa": 192,
        "attention.value_length_mla_swa": 128, "attention.indexer.key_length": 128,
        "attention.sliding_window_pattern": [bool(one) for one in _EVERY_OTHER],
        "attention.indexer.types": [1 - one for one in _EVERY_OTHER],
    },
    "glm5-next": {
        **_ROWS, **_MIXED, **_DELTA_HEADS, "attention.key_length": 512, "rope.dimension_count": 0,
        "attention.indexer.kpool": 4, "attention.indexer.kpool_select_tail": True,
    },
    "graniteswitch": {
        "adapters.count": 2, "adapters.lora_rank": 32, "adapters.token_ids_activate": [7, 9],
        "adapters.token_ids_substitute": [8, 10], "expert_count": 0,
    },
    "hrm_text": {"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},
    "hy_v4": {
        **_ROWS, **_MIXED, "hyper_connection.magnitude": 2.0, "swiglu_clamp_exp": 10.0,
        "expert_weights_norm": True, "attention.indexer.types": [1, 0, 1, 0, 1, 0],
        "attention.indexer.key_length": 128, "attention.indexer.head_count": 4,
    },
    "kimi-k3": {
        **_ROWS, **_DELTA_HEADS, "attn_res.block_size": 2, "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0, "kda.gate_lower_bound": -5.0,
    },
    "kimi-linear": {**_ROWS, **_DELTA_HEADS},
    "qwen4exp": {
        **_MIXED, "hyper_connection.low_rank": 8, "attention.compress_ratios": [4] * LAYERS,
        "ple.layers": [0], "ple.ngram_size": 3, "ple.heads_per_ngram": 2, "ple.conv_kernel": 4,
        "ple.eos_token_id": 0, "embedding_length_per_layer_input": WIDE // 4,
        "ple.layer_multipliers": [1, 3, 5], "ple.head_vocab_sizes": [WORDS] * 4,
        "ple.head_offsets": [one * WORDS for one in range(4)],
        "attention.indexer.key_length": HEAD, "attention.indexer.block_size": 4,
        "attention.indexer.local_blocks": 1,
    },
    "rwkv6qwen2": {"token_shift_count": 1},
}  # fmt: skip
#: lists of which the engine takes no narrower numbers
_WIDE_LISTS = ("ple.layer_multipliers", "ple.head_offsets", "ple.head_vocab_sizes")

#: families of which few models clamp queries, keys and values
_RARELY_CLAMPED = frozenset({"mpt", "olmo"})
#: tensors that the engine makes of keys and dies of: no file has them
_UNREAL = {"rwkv6qwen2": ".time_mix_first.weight"}

#: what few files have
_RARE = ("rope_f", "cls")

_OF_QUERIES = ("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_qkv.bias")

#: name, shape, of every tensor
Tensors = list[tuple[str, tuple[int, ...]]]


VARIANTS = 6


def make(
    folder: Path, name: str, variant: int, kind: GGMLQuantizationType = GGMLQuantizationType.F32
) -> tuple[Path, ...] | None:
    """Return files of the architecture `name`, without and with biases, or None for no such model.

    The same follows without factors of rotations and classifiers, where there are any, and last the
    biases without those of queries, keys and values, which few of today's models have.

    Variants differ in experts, heads of keys and layers without them; the engine takes the keys of
    some, and computes with fewer: whoever asks tries one after another. `kind` is the matrices'.
    """
    found = _tensors(name, variant)
    if found is None:
        return None
    tensors: Tensors = list(found)
    there = {one for one, _ in tensors}
    if "token_embd.weight" not in there:  # the engine's writer leaves out an encoder's
        tensors.append(("token_embd.weight", (WIDE, WORDS)))
    if name in {"gemma4", "gemma-embedding2"}:  # and what is gemma 4's alone
        per_layer = {
            "per_layer_model_proj.weight": (WIDE, 256 * LAYERS),
            "per_layer_token_embd.weight": (256 * LAYERS, WORDS),
            "per_layer_proj_norm.weight": (256,),
        }
        if name != "gemma4":
            del per_layer["per_layer_token_embd.weight"]
        tensors += [one for one in per_layer.items() if one[0] not in there]
    unreal = (".scale", ".input_scale", _UNREAL.get(name, ".scale"))
    kept = [one for one in tensors if not one[0].endswith(unreal)]
    common = [one for one in kept if not one[0].startswith(_RARE)]
    files = []
    for stem, tensors in (
        (f"{name}-bare", [one for one in kept if not one[0].endswith(".bias")]),
        (name, kept),
        (f"{name}-common-bare", [one for one in common if not one[0].endswith(".bias")]),
        (f"{name}-common", common),
        (f"{name}-few", [one for one in common if not one[0].endswith(_OF_QUERIES)]),
    ):
        files.append(folder / f"{stem}.gguf")
        _write(files[-1], name, variant, tensors, kind)
    return tuple(files if common != kept else (*files[:2], files[-1]))


@cache
def _tensors(name: str, variant: int) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    """Return the tensors that the engine makes of keys; None where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        header, full, listed = (Path(folder) / one for one in ("keys", "full", "list"))
        _write(header, name, variant, [])
        engine_forks.make(str(header), str(full), str(listed))
        if full.is_file():
            return tuple((one.name, one.shape) for one in read_gguf(full).tensors)
        if not listed.is_file():
            return None
        # what is on two devices is told twice
        told = dict(json.loads(listed.read_text(encoding="utf-8")))
        return tuple((one, tuple(shape)) for one, shape in told.items())


def _keys(name: str, variant: int) -> dict[str, object]:
    kv_heads = HEADS if variant & 2 else KV_HEADS
    keys: dict[str, object] = _PLAIN | _FLOATS | (_EXPERTS if variant & 1 else {})
    is_delta = name.startswith(_DELTA)
    keys["ssm.inner_size"] = 256 if is_delta else 2 * WIDE
    keys["ssm.time_step_rank"] = 2 if is_delta else HEADS
    keys["ssm.group_count"] = 0 if name == "plamo2" else 2
    keys["rope.dimension_count"] = 64 if name in _LATENT else HEAD
    if name in _LATENT:
        keys |= {"attention.key_length": 576, "attention.value_length": 512}
        keys |= {"attention.key_length_mla": 192, "attention.value_length_mla": 128}
    if name in _HYBRID and not variant & 4:
        keys["attention.head_count"] = [0 if one == 1 else HEADS for one in range(LAYERS)]
        keys["attention.head_count_kv"] = [0 if one == 1 else kv_heads for one in range(LAYERS)]
    else:
        is_single = name in _LATENT and name != "minicpm3"
        keys["attention.head_count"] = HEADS
        keys["attention.head_count_kv"] = 1 if is_single else kv_heads
    is_nemotron = name.startswith("nemotron_h")
    keys["feed_forward_length"] = (
        [0 if one < 2 else INNER for one in range(LAYERS)] if is_nemotron else INNER
    )
    if name in LISTED:
        keys["attention.sliding_window_pattern"] = [(one + 1) % 3 != 0 for one in range(LAYERS)]
    if name == "maple":
        keys |= {"swiglu_clamp_exp": [1.0] * LAYERS, "swiglu_clamp_shexp": [1.0] * LAYERS}
    if name in _RARELY_CLAMPED and not variant & 4:
        del keys["attention.clamp_kqv"]
    keys["rope.dimension_sections"] = [HEAD // 4] * 4
    keys["use_parallel_residual"] = False
    return keys | _OWN.get(name, {})


def _is_matrix(tensor: str, shape: tuple[int, ...]) -> bool:
    """Return whether a file of today would hold a tensor in fewer bits than f32."""
    is_small = any(part in tensor for part in ("ssm_", "time_mix", "conv", "_gate_inp", "norm"))
    return len(shape) > 1 and tensor.endswith(".weight") and not is_small


def _write(
    path: Path,
    name: str,
    variant: int,
    tensors: Tensors,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> None:
    writer = GGUFWriter(path, name)
    puts: Mapping[type, Callable[[str, object], None]] = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
        list: writer.add_array,
    }  # fmt: skip
    for key, value in _keys(name, variant).items():
        if key.endswith(_WIDE_LISTS):
            writer.add_key_value(
                f"{name}.{key}", value, GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT64
            )
        else:
            puts[type(value)](f"{name}.{key}", value)
    for key in ("alpha_n", "alpha_p", "beta", "eps"):
        writer.add_float32(f"xielu.{key}", 1.0)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    writer.add_uint32("tokenizer.ggml.token_type_count", 2)
    total = 0
    for tensor, shape in tensors:
        own = kind if _is_matrix(tensor, shape) else GGMLQuantizationType.F32
        block, block_bytes = GGML_QUANT_SIZES[own]
        size = int(np.prod(shape)) // block * block_bytes
        writer.add_tensor_info(
            tensor, list(reversed(shape)), np.dtype(np.float32), size, raw_dtype=own
        )
        total += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    if tensors:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(-(-size // 32) * 32 + total)
