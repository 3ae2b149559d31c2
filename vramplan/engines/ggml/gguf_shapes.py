"""The shapes of a model's graph, read from its header: layers, experts, latent rows, states.

Widths of matrices are those of the tensors themselves. Keys are those of ggml-org/ggml,
docs/gguf.md; what is left out there has the defaults of llama.cpp, src/llama-model.cpp
(load_hparams) and src/models (load_arch_hparams).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.engines.ggml.coverage import ENCODERS
from vramplan.engines.ggml.graph.shapes import (
    ExpertShape,
    LanguageShape,
    LatentShape,
    LayerShape,
    StateShape,
)
from vramplan.engines.ggml.kept_states import keeps_states, kept_elements, most_elements
from vramplan.engines.ggml.windows import Windows, layers_with_cache, window_heads
from vramplan.errors import SourceError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

_MOST_HEADS = 1 << 14
_MOST_WORDS = 1 << 24
_MOST_EXPERTS = 1 << 10  # llama.cpp, src/llama-hparams.h (LLAMA_MAX_EXPERTS)
_WIDEST = 1 << 24

_MAYBE_SECTIONS = frozenset({"glm4", "glm4moe"})
#: llama.cpp, src/llama-hparams.h (llama_expert_gating_func_type)
_GATES = {1: "softmax", 2: "sigmoid", 3: "softmax behind"}


def language_shape(
    file: GgufFile, layers: int, blocks: int, embedding: int, windows: Windows
) -> LanguageShape:
    """Return the shapes of a header's model, the first `layers` of its `blocks`.

    Raises SourceError for what cannot be a model's.
    """
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    name = file.architecture
    table = shapes.get("token_embd.weight", (embedding, 0))
    vocabulary = table[1] if len(table) > 1 else 0
    vocabulary = vocabulary or file.lengths.get("tokenizer.ggml.tokens", 0) or 1
    if vocabulary > _MOST_WORDS:
        raise SourceError(f"{file.path}: {vocabulary:,} words: not usable")
    latent = _latent(file, embedding)
    return LanguageShape(
        architecture=name,
        embedding=embedding,
        vocabulary=vocabulary,
        layers=_layers(file, blocks, embedding, shapes, windows)[:layers],
        names=frozenset(shapes),
        experts=_experts(file, shapes),
        latent=latent,
        state=_state(file, embedding),
        scaled=_scaled(file),
        deep_layers=min(file.number(f"{name}.n_deepstack_layers"), layers - 1),
        holds_keys_only=latent is None and _holds_keys_only(file),
        index=_index(file),
        is_indexed=name in INDEXED,
        is_encoder=name in ENCODERS,
        is_sequential=name == "gptneox"
        and file.metadata.get(f"{name}.use_parallel_residual") is False,
        has_sections=_has_sections(file),
        kept=kept_elements(file, blocks, embedding)[:layers],
        most_kept=most_elements(file, embedding),
    )


def _layers(
    file: GgufFile,
    count: int,
    embedding: int,
    shapes: Mapping[str, tuple[int, ...]],
    windows: Windows,
) -> tuple[LayerShape, ...]:
    name = file.architecture
    heads = file.numbers(f"{name}.attention.head_count", count, 1)
    kv_heads = file.numbers(f"{name}.attention.head_count_kv", count, 0)
    if not 0 <= min(*heads, *kv_heads) <= max(*heads, *kv_heads) <= _MOST_HEADS:
        raise SourceError(f"{file.path}: {max(*heads, *kv_heads):,} heads: not usable")
    plain = embedding // max(heads[0], 1)
    head_k = file.number(f"{name}.attention.key_length", plain) or plain
    head_v = file.number(f"{name}.attention.value_length", plain) or plain
    inner = file.numbers(f"{name}.feed_forward_length", count, 0)
    narrow = window_heads(file, head_k, head_v)
    if min(inner) < 0 or max(*inner, head_k, head_v, *narrow) > _WIDEST:
        widest = max(*inner, head_k, head_v, *narrow)
        raise SourceError(f"{file.path}: layers of {widest:,}: not usable")
    own = layers_with_cache(file, count)
    stateful, instead = _stateful(file, kv_heads, inner), keeps_states(file, count)
    turns = _TURNED.get(name)
    if name == "exaone4" and not windows.size:
        turns = None  # a model without windows turns them in every layer
    is_plain = name.startswith("granite") and not file.metadata.get(
        f"{name}.rope.scaling.finetuned", True
    )
    layers = []
    for number in range(count):
        up = shapes.get(f"blk.{number}.ffn_up.weight", ())
        state = stateful[number]
        windowed = number < len(windows.layers) and windows.layers[number]
        head = narrow if windowed else (head_k, head_v)
        layers.append(
            LayerShape(
                heads=max(heads[number], 1),
                kv_heads=kv_heads[number] or max(heads[number], 1),
                head_k=head[0],
                head_v=head[1],
                feed_forward=up[1] if len(up) > 1 and not inner[number] else inner[number],
                is_windowed=windowed,
                shares_cache=number >= own,
                is_rotated=not is_plain and (turns is None or turns(number, windowed)),
                has_attention=(not state or name in _BOTH)
                and not (name in _SINGLE and inner[number])
                and not instead[number],
                has_state=state,
            )
        )
    return tuple(layers)


def _experts(file: GgufFile, shapes: Mapping[str, tuple[int, ...]]) -> ExpertShape | None:
    name = file.architecture
    count, used = file.number(f"{name}.expert_count"), file.number(f"{name}.expert_used_count")
    if not count:
        return None
    if not 1 <= used <= count <= _MOST_EXPERTS:
        raise SourceError(f"{file.path}: {used:,} of {count:,} experts used: not usable")
    groups = max(file.number(f"{name}.expert_group_count", 1), 1)
    groups_used = max(file.number(f"{name}.expert_group_used_count", 1), 1)
    if groups > 1 and (count % groups or groups_used > groups or count // groups < 2):
        raise SourceError(f"{file.path}: {count} experts in {groups} groups: not usable")
    inner = file.number(f"{name}.expert_feed_forward_length")
    shared = _width(shapes, "ffn_up_shexp.weight")
    return ExpertShape(
        count=count,
        used=used,
        feed_forward=inner
        or _width(shapes, "ffn_up_exps.weight")
        or _width(shapes, "ffn_gate_up_exps.weight") // 2,
        shared_feed_forward=shared,
        gate=_GATES.get(file.number(f"{name}.expert_gating_func"), ""),
        normalises=bool(file.metadata.get(f"{name}.expert_weights_norm", False)),
        is_scaled=file.metadata.get(f"{name}.expert_weights_scale", 0.0) not in {0.0, 1.0},
        groups=groups,
        groups_used=groups_used,
    )


def _has_sections(file: GgufFile) -> bool:
    """Return whether positions turn sections of a head apart, in a family with a choice (GLM-4V).

    Source: llama.cpp, src/llama-hparams.cpp (use_mrope) and src/llama-model.cpp
    (llama_model_rope_type).
    """
    name = file.architecture
    if name not in _MAYBE_SECTIONS:
        return False
    return min(file.numbers(f"{name}.rope.dimension_sections", 4)[:2]) > 0


def _width(shapes: Mapping[str, tuple[int, ...]], part: str) -> int:
    """Return the rows of a matrix of the first layer that has it."""
    for name, shape in shapes.items():
        if name.endswith(part) and len(shape) > 1:
            return shape[1]
    return 0


def _latent(file: GgufFile, embedding: int) -> LatentShape | None:
    """Return the shape of latent attention, for which files have a rank."""
    name = file.architecture
    rank = file.number(f"{name}.attention.kv_lora_rank")
    if not rank or name not in _LATENT:
        return None
    heads = file.number(f"{name}.attention.head_count", 1)
    plain = embedding // max(heads, 1)
    head_k = file.number(f"{name}.attention.key_length_mla")
    head_v = file.number(f"{name}.attention.value_length_mla")
    is_absorbed = bool(head_k and head_v)
    shape = LatentShape(
        rank=rank,
        rope=file.number(f"{name}.rope.dimension_count", plain),
        head_k=head_k if is_absorbed else file.number(f"{name}.attention.key_length", plain),
        head_v=head_v if is_absorbed else file.number(f"{name}.attention.value_length", plain),
        q_rank=file.number(f"{name}.attention.q_lora_rank"),
        is_absorbed=is_absorbed,
    )
    if max(shape.rank, shape.head_k, shape.head_v, shape.q_rank) > _WIDEST or not (
        0 < shape.rope < shape.head_k
    ):
        raise SourceError(f"{file.path}: latent attention of {shape}: not usable")
    return shape


#: families whose attention keeps one row a token where the file tells its rank
_LATENT = frozenset({"deepseek2"})
#: those of which only the cache is known; the second half has an index of the tokens too
_ROWS_ONLY = frozenset({
    "bailingmoe3", "deepseek32", "glm-dsa", "kimi-k3", "kimi-linear", "mistral4",
})  # fmt: skip
INDEXED = frozenset({"deepseek32", "glm-dsa"})


def _holds_keys_only(file: GgufFile) -> bool:
    """Return whether a row of latent attention is held, of which values are a part.

    Source: llama.cpp, src/llama-hparams.cpp (is_mla), src/llama-kv-cache.cpp (has_v).
    """
    name = file.architecture
    key = f"{name}.attention"
    return name in _ROWS_ONLY and bool(
        file.number(f"{key}.key_length_mla") and file.number(f"{key}.value_length_mla")
    )


def _index(file: GgufFile) -> int:
    """Return the elements of a token in the index that sparse attention looks it up in.

    Source: llama.cpp, src/models/deepseek32.cpp, glm-dsa.cpp: one head of keys in every layer.
    """
    name = file.architecture
    size = file.number(f"{name}.attention.indexer.key_length")
    if size > _WIDEST:
        raise SourceError(f"{file.path}: an index of {size:,}: not usable")
    return size


#: which layers' queries and keys are turned, told by their number and whether they see a window.
#: Source: llama.cpp, src/models (use_rope)
_TURNED: Mapping[str, Callable[[int, bool], bool]] = {
    "cohere2": lambda _number, windowed: windowed,
    "exaone4": lambda _number, windowed: windowed,
    "smollm3": lambda number, _windowed: (number + 1) % 4 != 0,
}

#: which layers of a family keep a recurrent state, told by their number and their heads of keys.
#: Source: llama.cpp, src/models (is_recr_impl)
_STATEFUL: Mapping[str, Callable[[int, int], bool]] = {
    "falcon-h1": lambda _number, _heads: True,
    "granitehybrid": lambda _number, heads: not heads,
    "jamba": lambda _number, heads: not heads,
    "lfm2": lambda _number, heads: not heads,
    "lfm2moe": lambda _number, heads: not heads,
    "mamba": lambda _number, _heads: True,
    "mamba2": lambda _number, _heads: True,
}
#: families with one part a layer: a state where there are neither heads nor a feed-forward width
_SINGLE = frozenset({"nemotron_h", "nemotron_h_moe"})
#: families with a period of layers, all but the last of which keep a state
_PERIODIC = {"qwen35": 4, "qwen35moe": 4, "qwen3next": 4}
#: families whose states are those of the first Mamba
_FIRST = frozenset({"jamba", "mamba"})
#: families whose recurrent layers have attention too
_BOTH = frozenset({"falcon-h1"})


def _stateful(
    file: GgufFile, kv_heads: tuple[int, ...], inner: tuple[int, ...]
) -> tuple[bool, ...]:
    """Return which layers keep a recurrent state."""
    name = file.architecture
    count = len(kv_heads)
    if name in _PERIODIC:
        told = f"{name}.attention.recurrent_layers"
        if told in file.metadata:
            return tuple(bool(one) for one in file.numbers(told, count))
        period = max(file.number(f"{name}.full_attention_interval", _PERIODIC[name]), 1)
        layers = count - file.number(f"{name}.nextn_predict_layers")
        return tuple(number < layers and (number + 1) % period != 0 for number in range(count))
    if name in _SINGLE:
        return tuple(not one and not wide for one, wide in zip(kv_heads, inner, strict=True))
    tell = _STATEFUL.get(name)
    return tuple(tell is not None and tell(number, heads) for number, heads in enumerate(kv_heads))


def _state(file: GgufFile, embedding: int) -> StateShape | None:
    """Return the shape of a recurrent layer's state, for families that are known to have one."""
    name = file.architecture
    if name not in _STATEFUL and name not in _PERIODIC and name not in _SINGLE:
        return None
    short = file.number(f"{name}.shortconv.l_cache") if name.startswith("lfm2") else 0
    if short:
        shape = StateShape(kind="shortconv", kernel=short, inner=embedding)
    else:
        shape = StateShape(
            kind="delta" if name in _PERIODIC else "mamba" if name in _FIRST else "mamba2",
            kernel=file.number(f"{name}.ssm.conv_kernel"),
            inner=file.number(f"{name}.ssm.inner_size"),
            state=file.number(f"{name}.ssm.state_size"),
            groups=0 if name in _FIRST else file.number(f"{name}.ssm.group_count"),
            heads=file.number(f"{name}.ssm.time_step_rank"),
        )
    sizes = (shape.kernel, shape.inner, shape.state, shape.groups, shape.heads)
    is_usable = max(sizes) <= _WIDEST and shape.kernel > 1 and shape.inner > 0
    if shape.kind in {"mamba2", "delta"}:
        is_usable = is_usable and min(sizes) > 0
        is_usable = is_usable and not (shape.inner % shape.heads or shape.inner % shape.groups)
    if shape.kind == "delta":
        is_usable = is_usable and not shape.heads % shape.groups
    if not is_usable:
        raise SourceError(f"{file.path}: a state of {shape}: not usable")
    return shape


#: keys of factors, where 0 is none. Source: llama.cpp, src/models/granite.cpp
_FACTORS = {"embedding": "embedding_scale", "residual": "residual_scale", "logits": "logit_scale"}


def _scaled(file: GgufFile) -> frozenset[str]:
    name = file.architecture
    if not name.startswith("granite"):
        return frozenset()
    return frozenset(
        part for part, key in _FACTORS.items() if file.metadata.get(f"{name}.{key}", 0.0)
    )
