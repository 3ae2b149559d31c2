"""GGUF files whose header is right and whose data is a hole: gigabytes in a few kilobytes.

Shapes are those of real models, with few layers and few words so that files are made in no time.
`sparse_families` and `sparse_recurrent`, beside this, have the models.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

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


def families() -> dict[str, Model]:
    """Return a small model of each family, with the shapes of a real one."""
    return sibling("sparse_families").families()


def sibling(name: str) -> ModuleType:
    """Return a module beside this one; tests are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
