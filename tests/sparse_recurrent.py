"""Models with latent attention or recurrent states, for `sparse_gguf`."""

from __future__ import annotations

from sparse_gguf import F32, Model, dense_layers, language_model


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
