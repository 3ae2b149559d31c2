"""GGUF files whose header is right and whose data is a hole: gigabytes in a few kilobytes.

Shapes are those of real models, with few layers and few words so that files are made in no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

Q4, Q6, F32, F16 = (
    GGMLQuantizationType.Q4_0,
    GGMLQuantizationType.Q6_K,
    GGMLQuantizationType.F32,
    GGMLQuantizationType.F16,
)
WORDS = 1024


@dataclass
class Model:
    """A model to be written; `meta` has keys below the architecture's name."""

    architecture: str
    meta: dict[str, object] = field(default_factory=dict)
    tensors: list[tuple[str, tuple[int, ...], GGMLQuantizationType]] = field(default_factory=list)
    general: dict[str, object] = field(default_factory=dict)
    words: int = WORDS

    def add(self, name: str, *shape: int, kind: GGMLQuantizationType | None = None) -> None:
        """Add a tensor; vectors are f32, matrices q4_0 unless said otherwise."""
        if kind is None:
            kind = F32 if len(shape) == 1 or shape[0] % 32 else Q4
        self.tensors.append((name, shape, kind))


def write(path: Path, model: Model) -> Path:
    """Write a model's header and make a hole of its data."""
    writer = GGUFWriter(path, model.architecture)
    for key, value in model.general.items():
        _put(writer, key, value)
    for key, value in model.meta.items():
        _put(writer, f"{model.architecture}.{key}", value)
    if model.words:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([f"t{number}" for number in range(model.words)])
        writer.add_token_scores([0.0] * model.words)
        writer.add_token_types([1] * model.words)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    total = 0
    for name, shape, kind in model.tensors:
        block, size = GGML_QUANT_SIZES[kind]
        count = int(np.prod(shape)) // block * size
        writer.add_tensor_info(
            name, list(reversed(shape)), np.dtype(np.float32), count, raw_dtype=kind
        )
        total += -(-count // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(-(-size // 32) * 32 + total)
    return path


def _put(writer: GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def language_model(
    architecture: str = "llama",
    *,
    layers: int = 2,
    embedding: int = 4096,
    feed_forward: int = 14336,
    heads: int = 32,
    kv_heads: int = 8,
    head: int = 128,
    context: int = 32768,
    words: int = WORDS,
) -> Model:
    """Return a model's frame: its keys, embedding and output; layers are `dense_layers`'."""
    model = Model(architecture, words=words)
    model.meta = {
        "context_length": context,
        "embedding_length": embedding,
        "block_count": layers,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": head,
    }
    model.add("token_embd.weight", embedding, words)
    model.add("output_norm.weight", embedding)
    model.add("output.weight", embedding, words, kind=Q4 if embedding % 256 else Q6)
    return model


def dense_layers(model: Model, *parts: str) -> Model:  # noqa: C901  # a list of parts
    """Add every layer's tensors; `parts` say what differs from LLaMA's."""
    meta = model.meta
    wide, inner = int(meta["embedding_length"]), int(meta["feed_forward_length"])
    heads, kv_heads = int(meta["attention.head_count"]), int(meta["attention.head_count_kv"])
    head = int(meta["attention.key_length"])
    for layer in range(int(meta["block_count"])):
        at = f"blk.{layer}"
        if "no norm before" not in parts:
            model.add(f"{at}.attn_norm.weight", wide)
        if "norm bias" in parts:
            model.add(f"{at}.attn_norm.bias", wide)
        if "sinks" in parts:
            model.add(f"{at}.attn_sinks.weight", heads)
        if "fused qkv" in parts:
            model.add(f"{at}.attn_qkv.weight", wide, (heads + 2 * kv_heads) * head)
            if "qkv bias" in parts:
                model.add(f"{at}.attn_qkv.bias", (heads + 2 * kv_heads) * head)
        else:
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                model.add(f"{at}.attn_{name}.weight", wide, count * head)
                if "qkv bias" in parts:
                    model.add(f"{at}.attn_{name}.bias", count * head)
        if "qk norm" in parts:
            model.add(f"{at}.attn_q_norm.weight", head)
            model.add(f"{at}.attn_k_norm.weight", head)
        if "qk norm wide" in parts:
            model.add(f"{at}.attn_q_norm.weight", heads * head)
            model.add(f"{at}.attn_k_norm.weight", kv_heads * head)
        model.add(f"{at}.attn_output.weight", heads * head, wide)
        if "output bias" in parts:
            model.add(f"{at}.attn_output.bias", wide)
        if "norms behind" in parts:
            model.add(f"{at}.post_attention_norm.weight", wide)
            model.add(f"{at}.post_ffw_norm.weight", wide)
        if "norm between" in parts:
            model.add(f"{at}.post_attention_norm.weight", wide)
        elif "no ffn norm" not in parts:
            model.add(f"{at}.ffn_norm.weight", wide)
            if "norm bias" in parts:
                model.add(f"{at}.ffn_norm.bias", wide)
        if "experts" in parts and layer >= int(meta.get("leading_dense_block_count", 0)):
            experts = int(meta["expert_count"])
            own = int(meta.get("expert_feed_forward_length", inner))
            model.add(f"{at}.ffn_gate_inp.weight", wide, experts, kind=F32)
            kind = GGMLQuantizationType.MXFP4 if "mxfp4" in parts else Q4
            model.add(f"{at}.ffn_gate_exps.weight", wide, own, experts, kind=kind)
            model.add(f"{at}.ffn_up_exps.weight", wide, own, experts, kind=kind)
            model.add(f"{at}.ffn_down_exps.weight", own, wide, experts, kind=kind)
            if "expert biases" in parts:
                model.add(f"{at}.ffn_gate_inp.bias", experts)
                for name, width in (("gate", own), ("up", own), ("down", wide)):
                    model.add(f"{at}.ffn_{name}_exps.bias", width, experts, kind=F32)
            if "chosen with a bias" in parts:
                model.add(f"{at}.exp_probs_b.bias", experts)
            if "shared expert" in parts:
                size = int(meta.get("expert_shared_feed_forward_length", own))
                if "gated" in parts:
                    model.add(f"{at}.ffn_gate_inp_shexp.weight", wide)
                model.add(f"{at}.ffn_gate_shexp.weight", wide, size)
                model.add(f"{at}.ffn_up_shexp.weight", wide, size)
                model.add(f"{at}.ffn_down_shexp.weight", size, wide)
            continue
        if "no gate" not in parts and "fused up" not in parts:
            model.add(f"{at}.ffn_gate.weight", wide, inner)
        model.add(f"{at}.ffn_up.weight", wide, inner * (2 if "fused up" in parts else 1))
        model.add(f"{at}.ffn_down.weight", inner, wide)
        if "ffn bias" in parts:
            model.add(f"{at}.ffn_up.bias", inner)
            model.add(f"{at}.ffn_down.bias", wide)
    if "norm bias" in parts:
        model.add("output_norm.bias", wide)
    if "tied" in parts:
        model.tensors = [one for one in model.tensors if one[0] != "output.weight"]
    return model


def deepseek(*parts: str, layers: int = 27, **changes: object) -> Model:
    """Return a model with latent attention; `parts` are of those that the full-sized ones have.

    The engine takes 27 layers for a sign that queries come of one matrix (DeepSeek-V2-Lite).
    """
    model = language_model(
        "deepseek2", embedding=2048, heads=16, kv_heads=1, feed_forward=10944, layers=layers
    )
    meta = model.meta
    rank, rope, plain, head_v = 512, 64, 128, 128
    is_packed = "old" not in parts
    wide, heads, inner, experts, shared = 2048, 16, 1408, 16, 2
    meta |= {
        "attention.kv_lora_rank": rank,
        "attention.head_count_kv": 1 if is_packed else heads,
        "attention.key_length": rank + rope if is_packed else plain + rope,
        "attention.value_length": rank if is_packed else head_v,
        "rope.dimension_count": rope,
        "leading_dense_block_count": 1,
        "expert_count": experts,
        "expert_used_count": 6,
        "expert_shared_count": shared,
        "expert_feed_forward_length": inner,
        "expert_weights_scale": 1.0,
    } | changes
    if is_packed:
        meta |= {"attention.key_length_mla": plain + rope, "attention.value_length_mla": head_v}
    q_rank = 1536 if "packed queries" in parts else 0
    if q_rank:
        meta["attention.q_lora_rank"] = q_rank
    for layer in range(layers):
        at = f"blk.{layer}"
        model.add(f"{at}.attn_norm.weight", wide)
        if q_rank:
            model.add(f"{at}.attn_q_a.weight", wide, q_rank)
            model.add(f"{at}.attn_q_a_norm.weight", q_rank)
            model.add(f"{at}.attn_q_b.weight", q_rank, heads * (plain + rope))
        else:
            model.add(f"{at}.attn_q.weight", wide, heads * (plain + rope))
        model.add(f"{at}.attn_kv_a_mqa.weight", wide, rank + rope)
        model.add(f"{at}.attn_kv_a_norm.weight", rank)
        if is_packed:
            model.add(f"{at}.attn_k_b.weight", plain, rank, heads)
            model.add(f"{at}.attn_v_b.weight", rank, head_v, heads)
        else:
            model.add(f"{at}.attn_kv_b.weight", rank, heads * (plain + head_v))
        model.add(f"{at}.attn_output.weight", heads * head_v, wide)
        model.add(f"{at}.ffn_norm.weight", wide)
        if not layer:
            model.add(f"{at}.ffn_gate.weight", wide, 10944)
            model.add(f"{at}.ffn_up.weight", wide, 10944)
            model.add(f"{at}.ffn_down.weight", 10944, wide)
            continue
        model.add(f"{at}.ffn_gate_inp.weight", wide, experts, kind=F32)
        if "chosen with a bias" in parts:
            model.add(f"{at}.exp_probs_b.bias", experts)
        for name, size, last in (("exps", inner, (experts,)), ("shexp", inner * shared, ())):
            model.add(f"{at}.ffn_gate_{name}.weight", wide, size, *last)
            model.add(f"{at}.ffn_up_{name}.weight", wide, size, *last)
            model.add(f"{at}.ffn_down_{name}.weight", size, wide, *last)
    return model


def mamba2_layers(model: Model, layer: int) -> None:
    """Add the tensors of a layer with a Mamba 2 state."""
    meta, at = model.meta, f"blk.{layer}"
    wide, inner = int(meta["embedding_length"]), int(meta["ssm.inner_size"])
    state, groups = int(meta["ssm.state_size"]), int(meta["ssm.group_count"])
    heads, kernel = int(meta["ssm.time_step_rank"]), int(meta["ssm.conv_kernel"])
    channels = inner + 2 * groups * state
    model.add(f"{at}.ssm_in.weight", wide, inner + channels + heads)
    model.add(f"{at}.ssm_conv1d.weight", kernel, channels)
    model.add(f"{at}.ssm_conv1d.bias", channels)
    model.add(f"{at}.ssm_dt.bias", heads)
    model.add(f"{at}.ssm_a", 1, heads)
    model.add(f"{at}.ssm_d", 1, heads)
    model.add(f"{at}.ssm_norm.weight", inner // groups, groups, kind=F32)
    model.add(f"{at}.ssm_out.weight", inner, wide)


def state(kernel: int, inner: int, size: int, heads: int, groups: int) -> dict[str, object]:
    """Return the keys of a state's sizes."""
    return {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": size,
        "ssm.time_step_rank": heads,
        "ssm.group_count": groups,
    }


def falcon_h1() -> Model:
    """Return a model whose layers all have attention and a state (Falcon-H1-1.5B)."""
    model = language_model(
        "falcon-h1", embedding=2048, heads=8, kv_heads=2, head=128, feed_forward=4096, layers=2
    )
    model.meta |= state(4, 3072, 256, 48, 1)
    dense_layers(model)
    for layer in range(2):
        mamba2_layers(model, layer)
        model.tensors = [
            (name.replace("ffn_norm.weight", "ffn_norm"), *rest) for name, *rest in model.tensors
        ]
    return model


def hybrid(model: Model, kv_heads: list[int], *parts: str) -> Model:
    """Add layers of which those without heads of keys have a state instead of attention."""
    dense_layers(model, *parts)
    model.meta["attention.head_count_kv"] = kv_heads
    wide = int(model.meta["embedding_length"])
    for layer, heads in enumerate(kv_heads):
        if heads:
            continue
        at = f"blk.{layer}"
        model.tensors = [
            one
            for one in model.tensors
            if not one[0].startswith(
                (f"{at}.attn_q", f"{at}.attn_k", f"{at}.attn_v", f"{at}.attn_o")
            )
        ]
        if model.architecture == "jamba":
            mamba_layers(model, layer, int(model.meta["ssm.time_step_rank"]), "norms")
        elif kernel := model.meta.get("shortconv.l_cache"):
            model.add(f"{at}.shortconv.conv.weight", int(kernel), wide)
            model.add(f"{at}.shortconv.in_proj.weight", wide, 3 * wide)
            model.add(f"{at}.shortconv.out_proj.weight", wide, wide)
        else:
            mamba2_layers(model, layer)
    return model


def recurrent(architecture: str) -> Model:
    """Return a model without attention (mamba-2.8b, mamba2-2.7b)."""
    model = language_model(architecture, embedding=2560, feed_forward=0, heads=1, kv_heads=1)
    model.meta = {
        key: value
        for key, value in model.meta.items()
        if not key.startswith(("attention.head", "attention.key", "attention.value", "rope"))
    }
    inner = 5120
    is_first = architecture == "mamba"
    rank = 160
    model.meta |= state(4, inner, 16 if is_first else 128, rank if is_first else 80, 1)
    if is_first:
        del model.meta["ssm.group_count"]
    for layer in range(2):
        model.add(f"blk.{layer}.attn_norm.weight", 2560)
        if is_first:
            mamba_layers(model, layer, rank)
        else:
            mamba2_layers(model, layer)
    return model


def mamba_layers(model: Model, layer: int, rank: int, *parts: str) -> None:
    """Add the tensors of a layer with a state of the first Mamba."""
    meta, at = model.meta, f"blk.{layer}"
    wide, inner = int(meta["embedding_length"]), int(meta["ssm.inner_size"])
    size = int(meta["ssm.state_size"])
    model.add(f"{at}.ssm_in.weight", wide, 2 * inner)
    model.add(f"{at}.ssm_conv1d.weight", 4, inner)
    model.add(f"{at}.ssm_conv1d.bias", inner)
    model.add(f"{at}.ssm_x.weight", inner, rank + 2 * size)
    if "norms" in parts:
        model.add(f"{at}.ssm_dt_norm.weight", rank)
        model.add(f"{at}.ssm_b_norm.weight", size)
        model.add(f"{at}.ssm_c_norm.weight", size)
    model.add(f"{at}.ssm_dt.weight", rank, inner)
    model.add(f"{at}.ssm_dt.bias", inner)
    model.add(f"{at}.ssm_a", size, inner)
    model.add(f"{at}.ssm_d", inner)
    model.add(f"{at}.ssm_out.weight", inner, wide)


def nemotron(architecture: str) -> Model:
    """Return a model of single parts: two states, attention, and between them feed-forward."""
    model = language_model(
        architecture, embedding=3136, heads=40, kv_heads=8, head=128, feed_forward=12544, layers=5
    )
    meta, wide, inner = model.meta, 3136, 12544
    is_moe = architecture.endswith("moe")
    own, shared = 1856, 3712
    meta |= state(4, 7680, 128, 96, 8) | {
        "attention.head_count_kv": [0, 0, 8, 0, 0],
        "feed_forward_length": [0, own if is_moe else inner] * 2 + [0],
    }
    meta["feed_forward_length"][2] = 0
    if is_moe:
        meta |= {
            "expert_count": 16,
            "expert_used_count": 6,
            "expert_shared_count": 1,
            "expert_feed_forward_length": own,
            "expert_shared_feed_forward_length": shared,
            "expert_weights_norm": True,
            "expert_weights_scale": 2.5,
        }
    for layer in range(5):
        at = f"blk.{layer}"
        model.add(f"{at}.attn_norm.weight", wide)
        if layer in {0, 4}:
            mamba2_layers(model, layer)
        elif layer == 2:
            for name, count in (("q", 40), ("k", 8), ("v", 8)):
                model.add(f"{at}.attn_{name}.weight", wide, count * 128)
            model.add(f"{at}.attn_output.weight", 40 * 128, wide)
        elif is_moe:
            model.add(f"{at}.ffn_gate_inp.weight", wide, 16, kind=F32)
            model.add(f"{at}.exp_probs_b.bias", 16)
            model.add(f"{at}.ffn_up_exps.weight", wide, own, 16)
            model.add(f"{at}.ffn_down_exps.weight", own, wide, 16)
            model.add(f"{at}.ffn_up_shexp.weight", wide, shared)
            model.add(f"{at}.ffn_down_shexp.weight", shared, wide)
        else:
            model.add(f"{at}.ffn_up.weight", wide, inner)
            model.add(f"{at}.ffn_down.weight", inner, wide)
    return model


def qwen35(architecture: str, *parts: str, embedding: int, feed_forward: int) -> Model:
    """Return a model of which every fourth layer has attention, the others a delta rule's state."""
    model = language_model(
        architecture,
        embedding=embedding,
        heads=16,
        kv_heads=4,
        head=256,
        feed_forward=feed_forward,
        layers=4,
    )
    inner, size, heads, groups = 4096, 128, 32, 16
    meta = model.meta
    meta |= state(4, inner, size, heads, groups)
    meta |= {"rope.dimension_count": 64, "rope.dimension_sections": [11, 11, 10, 0]}
    layer_parts = ["norm between", "qk norm"]
    if architecture != "qwen35":
        meta |= {
            "expert_count": 32,
            "expert_used_count": 8,
            "expert_feed_forward_length": 512,
            "expert_shared_feed_forward_length": 512,
        }
        layer_parts += ["experts", "shared expert", "gated"]
    dense_layers(model, *layer_parts)
    kept = []
    for name, shape, kind in model.tensors:
        layer, _, part = name.removeprefix("blk.").partition(".")
        is_attention = part.startswith("attn_") and part != "attn_norm.weight"
        if is_attention and int(layer) % 4 != 3:
            continue
        both = (shape[0], 2 * shape[1]) if part == "attn_q.weight" else shape
        kept.append((name, both, kind))
    model.tensors = kept
    for layer in range(3):
        at = f"blk.{layer}"
        channels = inner + 2 * groups * size
        if "one matrix" in parts:
            model.add(f"{at}.ssm_in.weight", embedding, channels + inner)
        else:
            model.add(f"{at}.attn_qkv.weight", embedding, channels)
            model.add(f"{at}.attn_gate.weight", embedding, inner)
        model.add(f"{at}.ssm_conv1d.weight", 4, channels)
        model.add(f"{at}.ssm_dt.bias", heads)
        model.add(f"{at}.ssm_a", heads)
        if architecture == "qwen3next":
            model.add(f"{at}.ssm_ba.weight", embedding, 2 * heads)
        else:
            model.add(f"{at}.ssm_beta.weight", embedding, heads)
            model.add(f"{at}.ssm_alpha.weight", embedding, heads)
        model.add(f"{at}.ssm_norm.weight", size)
        model.add(f"{at}.ssm_out.weight", inner, embedding)
    return model


def next_layer(model: Model) -> Model:
    """Make the last layer one that guesses the token after the next, which is not loaded."""
    at, wide = f"blk.{int(model.meta['block_count']) - 1}.nextn", model.meta["embedding_length"]
    model.add(f"{at}.eh_proj.weight", 2 * int(wide), int(wide))
    model.add(f"{at}.enorm.weight", int(wide))
    model.add(f"{at}.hnorm.weight", int(wide))
    return model


def other_families() -> dict[str, Model]:
    """Return a small model of each family that differs from one of `families` in a habit."""
    cohere2 = language_model(
        "cohere2", embedding=4096, heads=32, kv_heads=8, feed_forward=14336, layers=4
    )
    cohere2.meta |= {"attention.sliding_window": 4096, "logit_scale": 0.25}
    exaone4 = language_model("exaone4", embedding=2048, heads=32, kv_heads=8, head=64, layers=2)
    glm4moe = language_model(
        "glm4moe", embedding=4096, heads=96, kv_heads=8, feed_forward=10944, layers=4
    )
    glm4moe.meta |= {
        "leading_dense_block_count": 1,
        "nextn_predict_layers": 1,
        "expert_count": 16,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 1408,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
    }
    gpt_oss = language_model(
        "gpt-oss", embedding=2880, heads=64, kv_heads=8, head=64, feed_forward=2880
    )
    gpt_oss.meta |= {
        "attention.sliding_window": 128,
        "expert_count": 32,
        "expert_used_count": 4,
        "expert_feed_forward_length": 2880,
    }
    granite = language_model("granite", embedding=2048, heads=32, kv_heads=8, head=64)
    factors = {
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "logit_scale": 8.0,
        "attention.scale": 0.0078125,
    }
    granite.meta |= factors
    granitemoe = language_model(
        "granitemoe", embedding=1536, heads=24, kv_heads=8, head=64, feed_forward=512
    )
    granitemoe.meta |= factors | {"expert_count": 40, "expert_used_count": 8}
    qwen2moe = language_model("qwen2moe", embedding=2048, heads=16, kv_heads=16, feed_forward=5632)
    qwen2moe.meta |= {
        "expert_count": 60,
        "expert_used_count": 4,
        "expert_feed_forward_length": 1408,
        "expert_shared_feed_forward_length": 5632,
    }
    qwen2vl = language_model("qwen2vl", embedding=3584, heads=28, kv_heads=4, feed_forward=18944)
    qwen2vl.meta |= {"rope.dimension_sections": [16, 24, 24, 0]}
    jamba = language_model(
        "jamba", embedding=2560, heads=20, kv_heads=1, feed_forward=8192, layers=3
    )
    jamba.meta |= state(4, 5120, 16, 160, 0)
    del jamba.meta["ssm.group_count"]
    lfm2moe = language_model(
        "lfm2moe", embedding=2048, heads=32, kv_heads=8, head=64, feed_forward=7168, layers=3
    )
    lfm2moe.meta |= {
        "shortconv.l_cache": 3,
        "leading_dense_block_count": 1,
        "expert_count": 32,
        "expert_used_count": 4,
        "expert_feed_forward_length": 1792,
        "expert_gating_func": 2,
    }
    lfm2moe.tensors = [
        (name.replace("output_norm", "token_embd_norm"), *rest) for name, *rest in lfm2moe.tensors
    ]
    minimax = language_model("minimax-m2", embedding=3072, heads=48, kv_heads=8, feed_forward=1536)
    minimax.meta |= {
        "rope.dimension_count": 64,
        "expert_count": 32,
        "expert_used_count": 8,
        "expert_feed_forward_length": 1536,
        "expert_gating_func": 2,
    }
    qwen3vl = language_model(
        "qwen3vl", embedding=2560, heads=32, kv_heads=8, feed_forward=9728, layers=5
    )
    qwen3vl.meta |= {"rope.dimension_sections": [24, 20, 20, 0], "n_deepstack_layers": 3}
    qwen3vlmoe = language_model(
        "qwen3vlmoe", embedding=2048, heads=32, kv_heads=4, feed_forward=6144, layers=5
    )
    qwen3vlmoe.meta |= {
        "rope.dimension_sections": [24, 20, 20, 0],
        "n_deepstack_layers": 3,
        "expert_count": 32,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    return {
        "cohere2": dense_layers(cohere2, "no ffn norm", "tied"),
        "exaone4": dense_layers(
            exaone4, "no norm before", "no ffn norm", "norms behind", "qk norm"
        ),
        "gemma": dense_layers(
            language_model("gemma", embedding=3072, heads=16, kv_heads=16, head=256), "tied"
        ),
        "glm4": dense_layers(
            language_model("glm4", embedding=4096, heads=32, kv_heads=2, feed_forward=13696),
            "norms behind",
            "qkv bias",
            "fused up",
        ),
        "glm4moe": next_layer(
            dense_layers(
                glm4moe,
                "norm between",
                "qkv bias",
                "qk norm",
                "experts",
                "chosen with a bias",
                "shared expert",
            )
        ),
        "gpt-oss": dense_layers(
            gpt_oss,
            "norm between",
            "qkv bias",
            "output bias",
            "sinks",
            "experts",
            "expert biases",
            "mxfp4",
        ),
        "granite": dense_layers(granite, "tied"),
        "granitemoe": dense_layers(granitemoe, "tied", "experts"),
        "jamba": hybrid(jamba, [0, 1, 0]),
        "lfm2moe": hybrid(lfm2moe, [0, 8, 0], "qk norm", "tied", "experts", "chosen with a bias"),
        "minimax-m2": dense_layers(minimax, "qk norm wide", "experts", "chosen with a bias"),
        "nemotron_h": nemotron("nemotron_h"),
        "nemotron_h_moe": nemotron("nemotron_h_moe"),
        "mistral3": dense_layers(language_model("mistral3", embedding=5120)),
        "olmo2": dense_layers(
            language_model("olmo2", embedding=4096, kv_heads=32, feed_forward=11008),
            "no norm before",
            "no ffn norm",
            "norms behind",
            "qk norm wide",
        ),
        "qwen2moe": dense_layers(qwen2moe, "qkv bias", "experts", "shared expert", "gated"),
        "qwen2vl": dense_layers(qwen2vl, "qkv bias"),
        "qwen35": qwen35("qwen35", embedding=4096, feed_forward=12288),
        "qwen3vl": dense_layers(qwen3vl, "qk norm", "tied"),
        "qwen3vlmoe": dense_layers(qwen3vlmoe, "qk norm", "experts"),
        "seed_oss": dense_layers(
            language_model("seed_oss", embedding=5120, heads=80, feed_forward=27648),
            "norm between",
            "qkv bias",
        ),
        "qwen3next": qwen35("qwen3next", embedding=2048, feed_forward=512),
        "qwen3next-first": qwen35("qwen3next", "one matrix", embedding=2048, feed_forward=512),
        "qwen35moe": qwen35("qwen35moe", embedding=2048, feed_forward=512),
        "smollm3": dense_layers(
            language_model("smollm3", embedding=2048, heads=16, kv_heads=4, layers=4), "tied"
        ),
        "starcoder2": dense_layers(
            language_model("starcoder2", embedding=3072, heads=24, kv_heads=2, feed_forward=12288),
            "norm bias",
            "qkv bias",
            "output bias",
            "no gate",
            "ffn bias",
        ),
    }


def families() -> dict[str, Model]:
    """Return a small model of each family, with the shapes of a real one."""
    mixtral = language_model()
    mixtral.meta |= {"expert_count": 8, "expert_used_count": 2}
    qwen3moe = language_model(
        "qwen3moe", embedding=2048, feed_forward=6144, heads=32, kv_heads=4, head=128
    )
    qwen3moe.meta |= {
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    olmoe = language_model("olmoe", embedding=2048, feed_forward=1024, heads=16, kv_heads=16)
    olmoe.meta |= {"expert_count": 64, "expert_used_count": 8}
    gemma2 = language_model(
        "gemma2", embedding=3584, heads=16, kv_heads=8, head=256, feed_forward=14336, layers=4
    )
    gemma2.meta |= {
        "attention.sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    gemma3 = language_model(
        "gemma3", embedding=2560, heads=8, kv_heads=4, head=256, feed_forward=10240, layers=6
    )
    gemma3.meta |= {"attention.sliding_window": 1024}
    phi3 = language_model(
        "phi3", embedding=3072, heads=32, kv_heads=32, head=96, feed_forward=8192, context=4096
    )
    command_r = language_model(
        "command-r", embedding=4096, heads=32, kv_heads=8, head=128, feed_forward=14336
    )
    command_r.meta |= {"logit_scale": 0.0625}
    gptneox = language_model(
        "gptneox", embedding=2560, heads=32, kv_heads=32, head=80, feed_forward=10240, context=2048
    )
    gptneox.meta |= {"use_parallel_residual": True, "rope.dimension_count": 20}
    granite = language_model(
        "granitehybrid", embedding=1536, heads=12, kv_heads=4, head=128, feed_forward=4096, layers=3
    )
    granite.meta |= state(4, 3072, 128, 48, 1) | {
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "logit_scale": 8.0,
        "attention.scale": 0.0078125,
        "rope.scaling.finetuned": False,
    }
    lfm2 = language_model(
        "lfm2", embedding=2048, heads=32, kv_heads=8, head=64, feed_forward=8192, layers=3
    )
    lfm2.meta |= {"shortconv.l_cache": 3}
    lfm2.tensors = [
        (name.replace("output_norm", "token_embd_norm"), *rest) for name, *rest in lfm2.tensors
    ]
    return {
        "llama": dense_layers(language_model()),
        "mistral": dense_layers(language_model(kv_heads=8, context=32768)),
        "vicuna": dense_layers(language_model(kv_heads=32, feed_forward=11008, context=4096)),
        "qwen2": dense_layers(
            language_model("qwen2", embedding=3584, heads=28, kv_heads=4, feed_forward=18944),
            "qkv bias",
        ),
        "qwen3": dense_layers(
            language_model("qwen3", embedding=2560, heads=32, kv_heads=8, feed_forward=9728),
            "qk norm",
            "tied",
        ),
        "qwen3moe": dense_layers(qwen3moe, "qk norm", "experts"),
        "mixtral": dense_layers(mixtral, "experts"),
        "gemma2": dense_layers(gemma2, "norms behind", "tied"),
        "gemma3": dense_layers(gemma3, "norms behind", "qk norm", "tied"),
        "phi3": dense_layers(phi3, "fused qkv", "fused up"),
        "command-r": dense_layers(command_r, "no ffn norm", "tied"),
        "gptneox": dense_layers(
            gptneox, "norm bias", "fused qkv", "qkv bias", "output bias", "no gate", "ffn bias"
        ),
        "deepseek2-lite": deepseek(),
        "deepseek2-old": deepseek("old"),
        "deepseek2": deepseek(
            "packed queries",
            "chosen with a bias",
            layers=3,
            expert_weights_scale=2.5,
            expert_weights_norm=True,
            expert_gating_func=2,
            expert_group_count=8,
            expert_group_used_count=4,
        ),
        "falcon-h1": falcon_h1(),
        "granitehybrid": hybrid(granite, [0, 4, 0]),
        "lfm2": hybrid(lfm2, [0, 8, 0], "qk norm", "tied"),
        "mamba": recurrent("mamba"),
        "mamba2": recurrent("mamba2"),
        "olmoe": dense_layers(olmoe, "qk norm wide", "experts"),
    } | other_families()
