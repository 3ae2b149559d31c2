"""Thirty models that people run in 2026 at their whole depth and width, as headers without data.

Sizes are those of the authors' config.json; matrices are q4_0 and caches are not theirs to say.
"""

from __future__ import annotations

from sparse_gguf import Model, dense_layers, language_model, sibling

_NEXT = sibling("sparse_families").next_layer
_HYBRID = sibling("sparse_recurrent").hybrid


def _model(architecture: str, *sizes: int, context: int = 131_072, **more: object) -> Model:
    """Return a frame; `sizes`: layers, width, inner width, heads, heads of keys, head, words.

    Words are counted and not listed, which the engine takes from a model without a vocabulary.
    """
    layers, wide, inner, heads, kv_heads, head, words = sizes
    model = language_model(
        architecture,
        layers=layers,
        embedding=wide,
        feed_forward=inner,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        words=words,
        context=context,
    )
    model.words = 0
    model.general = {"tokenizer.ggml.model": "no_vocab"}
    model.meta |= {
        "vocab_size": words,
        **{key.replace("__", "."): one for key, one in more.items()},
    }
    return model


def _experts(count: int, used: int, inner: int, **more: object) -> dict[str, object]:
    return {
        "expert_count": count,
        "expert_used_count": used,
        "expert_feed_forward_length": inner,
        **more,
    }


_GEMMA3 = ("norms behind", "qk norm", "tied")
_GPT_OSS = ("norm between", "qkv bias", "output bias", "sinks", "experts", "expert biases", "mxfp4")
_GLM_AIR = ("norm between", "qkv bias", "qk norm", "experts", "chosen with a bias", "shared expert")


def _gemma3(*sizes: int, window: int) -> Model:
    return dense_layers(_model("gemma3", *sizes, attention__sliding_window=window), *_GEMMA3)


def _gpt_oss(layers: int, experts: int) -> Model:
    sizes = (layers, 2880, 2880, 64, 8, 64, 201_088)
    more = _experts(experts, 4, 2880, attention__sliding_window=128)
    return dense_layers(_model("gpt-oss", *sizes, **more), *_GPT_OSS)


def _lfm2() -> Model:
    kv_heads = [8 if layer in {2, 5, 8, 10, 12, 14} else 0 for layer in range(16)]
    model = _model("lfm2", 16, 2048, 8192, 32, 8, 64, 65_536, shortconv__l_cache=3)
    model.tensors = [
        (name.replace("output_norm", "token_embd_norm"), *rest) for name, *rest in model.tensors
    ]
    return _HYBRID(model, kv_heads, "qk norm", "tied")


def _glm_air() -> Model:
    more = _experts(
        128,
        8,
        1408,
        expert_shared_count=1,
        expert_weights_norm=True,
        expert_gating_func=2,
        leading_dense_block_count=1,
        nextn_predict_layers=1,
    )
    return _NEXT(
        dense_layers(_model("glm4moe", 47, 4096, 10_944, 96, 8, 128, 151_552, **more), *_GLM_AIR)
    )


def models() -> dict[str, Model]:
    """Return the models by the names that people know them by."""
    qwen3, qwen25, llama = "qwen3", "qwen2", "llama"
    return {
        "Llama 3.1 8B": dense_layers(_model(llama, 32, 4096, 14_336, 32, 8, 128, 128_256)),
        "Llama 3.2 1B": dense_layers(_model(llama, 16, 2048, 8192, 32, 8, 64, 128_256), "tied"),
        "Llama 3.2 3B": dense_layers(_model(llama, 28, 3072, 8192, 24, 8, 128, 128_256), "tied"),
        "Llama 3.3 70B": dense_layers(_model(llama, 80, 8192, 28_672, 64, 8, 128, 128_256)),
        "Mistral 7B v0.3": dense_layers(_model(llama, 32, 4096, 14_336, 32, 8, 128, 32_768)),
        "Mistral Nemo 12B": dense_layers(_model(llama, 40, 5120, 14_336, 32, 8, 128, 131_072)),
        "Mistral Small 3.2 24B": dense_layers(_model(llama, 40, 5120, 32_768, 32, 8, 128, 131_072)),
        "Mixtral 8x7B": dense_layers(
            _model(llama, 32, 4096, 14_336, 32, 8, 128, 32_000, **_experts(8, 2, 14_336)), "experts"
        ),
        "Qwen2.5 7B": dense_layers(
            _model(qwen25, 28, 3584, 18_944, 28, 4, 128, 152_064), "qkv bias"
        ),
        "Qwen2.5 32B": dense_layers(
            _model(qwen25, 64, 5120, 27_648, 40, 8, 128, 152_064), "qkv bias"
        ),
        "Qwen3 0.6B": dense_layers(
            _model(qwen3, 28, 1024, 3072, 16, 8, 128, 151_936), "qk norm", "tied"
        ),
        "Qwen3 4B": dense_layers(
            _model(qwen3, 36, 2560, 9728, 32, 8, 128, 151_936), "qk norm", "tied"
        ),
        "Qwen3 8B": dense_layers(_model(qwen3, 36, 4096, 12_288, 32, 8, 128, 151_936), "qk norm"),
        "Qwen3 14B": dense_layers(_model(qwen3, 40, 5120, 17_408, 40, 8, 128, 151_936), "qk norm"),
        "Qwen3 32B": dense_layers(_model(qwen3, 64, 5120, 25_600, 64, 8, 128, 151_936), "qk norm"),
        "Qwen3 30B A3B": dense_layers(
            _model("qwen3moe", 48, 2048, 6144, 32, 4, 128, 151_936, **_experts(128, 8, 768)),
            "qk norm",
            "experts",
        ),
        "Qwen3-VL 8B": dense_layers(
            _model(
                "qwen3vl",
                36,
                4096,
                12_288,
                32,
                8,
                128,
                151_936,
                n_deepstack_layers=3,
                rope__dimension_sections=[24, 20, 20, 0],
            ),
            "qk norm",
        ),
        "Gemma 2 9B": dense_layers(
            _model(
                "gemma2",
                42,
                3584,
                14_336,
                16,
                8,
                256,
                256_000,
                context=8192,
                attention__sliding_window=4096,
                attn_logit_softcapping=50.0,
                final_logit_softcapping=30.0,
            ),
            "norms behind",
            "tied",
        ),
        "Gemma 3 1B": _gemma3(26, 1152, 6912, 4, 1, 256, 262_144, window=512),
        "Gemma 3 4B": _gemma3(34, 2560, 10_240, 8, 4, 256, 262_208, window=1024),
        "Gemma 3 12B": _gemma3(48, 3840, 15_360, 16, 8, 256, 262_208, window=1024),
        "Gemma 3 27B": _gemma3(62, 5376, 21_504, 32, 16, 128, 262_208, window=1024),
        "gpt-oss 20B": _gpt_oss(24, 32),
        "gpt-oss 120B": _gpt_oss(36, 128),
        "Phi 4": dense_layers(
            _model("phi3", 40, 5120, 17_920, 40, 10, 128, 100_352, context=16_384),
            "fused qkv",
            "fused up",
        ),
        "GLM 4.5 Air": _glm_air(),
        "SmolLM3 3B": dense_layers(
            _model("smollm3", 36, 2048, 11_008, 16, 4, 128, 128_256), "tied"
        ),
        "EXAONE 4.0 32B": dense_layers(
            _model(
                "exaone4", 64, 5120, 27_392, 40, 8, 128, 102_400, attention__sliding_window=4096
            ),
            "no norm before",
            "no ffn norm",
            "norms behind",
            "qk norm",
        ),
        "Seed-OSS 36B": dense_layers(
            _model("seed_oss", 64, 5120, 27_648, 80, 8, 128, 155_136), "norm between", "qkv bias"
        ),
        "LFM2 1.2B": _lfm2(),
    }
