"""The header that a catalogue's entry stands for: sizes of a family, and a quantisation.

An entry says what config.json says of a model (layers, widths, heads) and how its file is
quantised; which tensors the family has is known here, and their types are `quantise_rules`'. What
comes out is read as a file's header is, so that nothing above knows the two apart.
Source: llama.cpp, gguf-py/gguf/constants.py (MODEL_TENSORS) and convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.engines.ggml.entry_section import Section
from vramplan.engines.ggml.pipeline import LOG, WRITTEN_AS
from vramplan.engines.ggml.quantise_rules import FILE_TYPES, TYPES, Mixture, quantised
from vramplan.quick_dataclass import dataclass
from vramplan.sources.block_sizes import BLOCKS
from vramplan.sources.gguf_header import GgufFile, GgufTensor, Value

#: key -> the largest value that is not absurd
_SIZES: Mapping[str, int] = {
    "layers": 1024,
    "embedding": 1 << 17,
    "feed_forward": 1 << 20,
    "heads": 1024,
    "kv_heads": 1024,
    "vocabulary": 1 << 21,
    "trained_context": 1 << 24,
}
#: what the authors count: held against what the sizes come to
PARAMETERS = "parameters"
#: those that most models leave out
_MORE: Mapping[str, int] = {
    "head_size": 1 << 14,
    "window": 1 << 24,
    "experts": 1024,
    "experts_used": 1024,
    "expert_feed_forward": 1 << 20,
}


_NUMBERS = {name: number for number, name in FILE_TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What the layers of a family have beside LLaMA's, or instead of it."""

    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    norms_behind: bool = False
    is_fused: bool = False  # one matrix for queries, keys and values, and one for gate and up
    has_output_bias: bool = False
    has_sinks: bool = False
    has_expert_biases: bool = False
    norm_between: bool = False  # behind attention, in place of the feed-forward's own


_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(),  # Mistral, Mixtral, Vicuna and many more are written as it
    "mistral3": _Family(),
    "gemma": _Family(),
    "gemma2": _Family(norms_behind=True),
    "gemma3": _Family(norms_behind=True, has_qk_norm=True),
    "gpt-oss": _Family(
        has_qkv_bias=True,
        has_output_bias=True,
        has_sinks=True,
        has_expert_biases=True,
        norm_between=True,
    ),
    "phi3": _Family(is_fused=True),  # Phi 4 too
    "qwen2": _Family(has_qkv_bias=True),
    "qwen2vl": _Family(has_qkv_bias=True),
    "qwen3": _Family(has_qk_norm=True),
    "qwen3moe": _Family(has_qk_norm=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """The numbers of a section; `experts` and `window` are 0 where there are none."""

    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int
    trained_context: int
    head_size: int
    window: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    is_tied: bool = False
    has_rotation_factors: bool = False


def described_header(section: Section, path: str) -> GgufFile:
    """Return the header of the file that an entry's `ggml` mapping describes.

    Raises CatalogError for a key that is missing, unknown or has no usable value.
    """
    switches = ("tied", "rotation_factors", "types")
    section.refuse_others(
        *_SIZES, *_MORE, *switches, "architecture", "quantisation", "projector", PARAMETERS, LOG,
        WRITTEN_AS,
    )  # fmt: skip
    section.text(LOG)
    section.text(WRITTEN_AS)
    architecture = section.word("architecture", _FAMILIES)
    quantisation = section.word("quantisation", TYPES)
    sizes = _sizes(section)
    _check(section, sizes, quantisation)
    mixture = Mixture(
        quantisation=quantisation,
        architecture=architecture,
        layers=sizes.layers,
        heads_a_key=sizes.heads // sizes.kv_heads,
        experts=sizes.experts,
    )
    own = _own_types(section)
    named = quantised(_tensors(sizes, _FAMILIES[architecture]), mixture)
    tensors = tuple(
        GgufTensor(name=name, shape=shape, type=own.get(_part(name), kind) if own else kind)
        for name, shape, kind in named
    )
    _check_parameters(section, sum(one.elements for one in tensors))
    return GgufFile(
        path=path,
        version=3,
        metadata=dict(_keys(architecture, quantisation, sizes)),
        lengths={"tokenizer.ggml.tokens": sizes.vocabulary},
        tensors=tensors,
        identity=section.spelt(),
    )


def _sizes(section: Section) -> _Sizes:
    told = {key: section.count(key, most=most) for key, most in _SIZES.items()}
    for key, most in _MORE.items():
        if section.has(key):
            told[key] = section.count(key, most=most)
    heads, kv_heads, embedding = told["heads"], told["kv_heads"], told["embedding"]
    if "head_size" not in told and embedding % heads:
        raise section.error("heads", f"{heads} does not divide the embedding of {embedding}")
    if heads % kv_heads:
        raise section.error("kv_heads", f"{kv_heads} does not divide the {heads} heads")
    if told.get("experts_used", 0) > told.get("experts", 0):
        message = f"{told['experts_used']} of {told.get('experts', 0)} experts cannot be used"
        raise section.error("experts_used", message)
    if section.has("experts") and not section.has("experts_used"):
        raise section.error("", "the key 'experts_used' is missing")
    return _Sizes(
        **{"head_size": embedding // heads, **told},
        is_tied=section.flag("tied"),
        has_rotation_factors=section.flag("rotation_factors"),
    )


def _check_parameters(section: Section, counted: int) -> None:
    """Raise where an entry says another number of parameters than its sizes come to."""
    if section.has(PARAMETERS):
        said = section.count(PARAMETERS, most=1 << 44)
        if said != counted:
            raise section.error(PARAMETERS, f"{said:,} are said, and its sizes make {counted:,}")


def _own_types(section: Section) -> Mapping[str, str]:
    """Return the types of matrices that are not what the quantisation gives them, by their part.

    Ollama's own program of 2025 left the values' matrices of Qwen3 in f16: ollama/ollama#14774.
    """
    told = section.section("types")
    if told is None:
        return {}
    told.refuse_others(*_PARTS)
    return {part: told.word(part, BLOCKS, what="type") for part in _PARTS if told.has(part)}


def _part(name: str) -> str:
    """Return what a matrix is called in its layer, or outside them."""
    return name.removesuffix(".weight").rpartition(".")[2]


#: the matrices whose types an entry may tell
_PARTS = (
    "token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate",
    "ffn_up", "ffn_down", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
)  # fmt: skip


def _check(section: Section, sizes: _Sizes, quantisation: str) -> None:
    """Raise for rows that no file of the quantisation has.

    A row of another length falls back to a type of smaller blocks, as 896 does in Qwen2.5 0.5B.
    """
    least = 32 if BLOCKS[TYPES[quantisation]][0] > 1 else 1
    for key in ("embedding", "feed_forward"):
        if getattr(sizes, key) % least:
            message = f"{getattr(sizes, key)} is not a multiple of {quantisation}'s {least}"
            raise section.error(key, message)


def _keys(architecture: str, quantisation: str, sizes: _Sizes) -> Iterator[tuple[str, Value]]:
    """Yield the header's keys, of which what is read tells memory."""
    yield "general.architecture", architecture
    named = {
        "block_count": sizes.layers,
        "context_length": sizes.trained_context,
        "embedding_length": sizes.embedding,
        "feed_forward_length": sizes.feed_forward,
        "attention.head_count": sizes.heads,
        "attention.head_count_kv": sizes.kv_heads,
        "attention.key_length": sizes.head_size,
        "attention.value_length": sizes.head_size,
        "attention.sliding_window": sizes.window,
        "expert_count": sizes.experts,
        "expert_used_count": sizes.experts_used,
        "expert_feed_forward_length": sizes.expert_feed_forward,
    }
    for key, value in named.items():
        if value:
            yield f"{architecture}.{key}", value
    yield "general.file_type", _NUMBERS[quantisation]


def _tensors(sizes: _Sizes, family: _Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors' names and shapes in the order of a file."""
    wide, head = sizes.embedding, sizes.head_size
    yield "token_embd.weight", (wide, sizes.vocabulary)
    if sizes.has_rotation_factors:
        yield "rope_freqs.weight", (head // 2,)
    for layer in range(sizes.layers):
        for part, shape in _attention(sizes, family):
            yield f"blk.{layer}.{part}", shape
        for part, shape in _feed_forward(sizes, family):
            yield f"blk.{layer}.{part}", shape
    yield "output_norm.weight", (wide,)
    if not sizes.is_tied:
        yield "output.weight", (wide, sizes.vocabulary)


def _attention(sizes: _Sizes, family: _Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, head = sizes.embedding, sizes.head_size
    queries, keys = sizes.heads * head, sizes.kv_heads * head
    yield "attn_norm.weight", (wide,)
    if family.is_fused:
        yield "attn_qkv.weight", (wide, queries + 2 * keys)
    else:
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"attn_{name}.weight", (wide, rows)
            if family.has_qkv_bias:
                yield f"attn_{name}.bias", (rows,)
    if family.has_qk_norm:
        yield "attn_q_norm.weight", (head,)
        yield "attn_k_norm.weight", (head,)
    yield "attn_output.weight", (queries, wide)
    if family.has_output_bias:
        yield "attn_output.bias", (wide,)
    if family.has_sinks:
        yield "attn_sinks.weight", (sizes.heads,)
    if family.norm_between:
        yield "post_attention_norm.weight", (wide,)
        return
    if family.norms_behind:
        yield "post_attention_norm.weight", (wide,)
        yield "post_ffw_norm.weight", (wide,)
    yield "ffn_norm.weight", (wide,)


def _feed_forward(sizes: _Sizes, family: _Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, inner = sizes.embedding, sizes.feed_forward
    if sizes.experts:
        own = sizes.expert_feed_forward or inner
        yield "ffn_gate_inp.weight", (wide, sizes.experts)
        yield "ffn_gate_exps.weight", (wide, own, sizes.experts)
        yield "ffn_up_exps.weight", (wide, own, sizes.experts)
        yield "ffn_down_exps.weight", (own, wide, sizes.experts)
        if family.has_expert_biases:
            yield "ffn_gate_inp.bias", (sizes.experts,)
            for name, rows in (("gate", own), ("up", own), ("down", wide)):
                yield f"ffn_{name}_exps.bias", (rows, sizes.experts)
        return
    if family.is_fused:
        yield "ffn_up.weight", (wide, 2 * inner)
    else:
        yield "ffn_gate.weight", (wide, inner)
        yield "ffn_up.weight", (wide, inner)
    yield "ffn_down.weight", (inner, wide)
