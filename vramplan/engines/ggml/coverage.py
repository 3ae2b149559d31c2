"""Which part of a family's memory is known, because the engine itself was asked.

A family is in a set where llama.cpp b11549 allocates what is counted here, for models with windows,
shared caches, experts and states where the family has them, with no layer, one, half and all on a
card (tests/accuracy/test_engine_families.py; `python -m tools.architectures` asks all of them).
What is in no set is assumed, and the engine is asked where it is installed.
"""

from __future__ import annotations

from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.ggml.weights import GgmlModel


#: families that cache nothing: each text is computed at once
ENCODERS = frozenset({
    "bert", "dream", "eurobert", "gemma-embedding", "gemma-embedding2", "jina-bert-v2",
    "jina-bert-v3", "llada", "llada-moe", "modern-bert", "neo-bert", "nomic-bert",
    "nomic-bert-moe", "rnd1",
})  # fmt: skip

#: families whose attention reads no more than the batch itself
WITHOUT_CONTEXT = ENCODERS | {"llama-embed", "t5encoder"}

#: families without an output matrix: a table of words is not copied for one
NO_OUTPUT = frozenset({
    "bert", "bitnet", "eurobert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
    "nomic-bert", "nomic-bert-moe",
})  # fmt: skip


#: families whose weights, caches and states the engine has where they are counted
KNOWN = frozenset({
    "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2",
    "bailingmoe3", "bert", "bitnet", "bloom", "chameleon", "chatglm", "codeshell", "cogvlm",
    "cohere2", "cohere2moe", "command-r", "dbrx", "deci", "deepseek", "deepseek2", "deepseek2-ocr",
    "deepseek32", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "eurobert", "exaone", "exaone-moe",
    "exaone4", "falcon", "falcon-h1", "gemma", "gemma-embedding", "gemma-embedding2", "gemma2",
    "gemma3", "gemma3n", "gemma4", "glm-dsa", "glm4", "glm4moe", "gpt-oss", "gpt2", "gptneox",
    "granite", "granite_swa", "granitehybrid", "granitemoe", "grok", "grovemoe", "hrm_text",
    "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais", "jais2", "jamba",
    "jina-bert-v2", "jina-bert-v3", "k2-horizon", "kimi-k3", "kimi-linear", "laguna", "lfm2",
    "lfm2moe", "llada", "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "mamba",
    "mamba2", "maple", "mellum", "mimo2", "minicpm", "minicpm3", "minimax-01", "minimax-m2",
    "mistral3", "mistral4", "modern-bert", "mpt", "nanbeige", "nemotron", "nemotron_h",
    "nemotron_h_moe", "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo", "olmo2", "olmoe",
    "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo", "plamo2",
    "plamo3", "pockettts", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe",
    "qwen3moe", "qwen3next", "qwen3tts", "qwen3vl", "qwen3vlmoe", "refact", "rnd1", "rwkv6",
    "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker", "smollm3", "spark2_5", "stablelm",
    "starcoder", "starcoder2", "step35", "t5encoder", "talkie", "xverse",
})  # fmt: skip


def is_known(model: GgmlModel) -> bool:
    """Return whether weights, caches and states of a model's family are known.

    Whatever the catalogue describes without a file's shapes is built like LLaMA.
    """
    return model.architecture in KNOWN
