"""A small model of each family, with the shapes of a real one, for `sparse_gguf`."""

from __future__ import annotations

from sparse_gguf import Model, dense_layers, language_model, sibling

_RECURRENT = sibling("sparse_recurrent")
deepseek, falcon_h1, hybrid = _RECURRENT.deepseek, _RECURRENT.falcon_h1, _RECURRENT.hybrid
nemotron, qwen35, recurrent = _RECURRENT.nemotron, _RECURRENT.qwen35, _RECURRENT.recurrent
state = _RECURRENT.state


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
