"""Which type `llama-quantize` gives each matrix of a model, for the usual quantisations.

A quantisation such as q4_k_m is a mixture: the output matrix, the values' and the last matrix of a
feed-forward get more bits in some layers. Ollama quantises with the same program. It is without an
importance matrix, with which few matrices of few bits differ, but for iq3_xxs, which wants one.
Source: llama.cpp, src/llama-quant.cpp (tensor_allows_quantization, llama_tensor_get_type_impl,
tensor_type_fallback); ollama/ollama, server/quantization.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import lru_cache

from vramplan.quick_dataclass import dataclass
from vramplan.sources.block_sizes import BLOCKS

#: quantisation -> the type that most matrices have
TYPES: Mapping[str, str] = {
    "f32": "f32", "f16": "f16", "bf16": "bf16", "q8_0": "q8_0", "q6_k": "q6_k", "q5_k_m": "q5_k",
    "q5_k_s": "q5_k", "q5_1": "q5_1", "q5_0": "q5_0", "q4_k_m": "q4_k", "q4_k_s": "q4_k",
    "q4_1": "q4_1", "q4_0": "q4_0", "iq4_nl": "iq4_nl", "iq4_xs": "iq4_xs", "q3_k_l": "q3_k",
    "q3_k_m": "q3_k", "q3_k_s": "q3_k", "q2_k": "q2_k", "iq3_xxs": "iq3_xxs",
    "mxfp4": "mxfp4",
}  # fmt: skip

#: numbers of general.file_type. Source: ggml-org/llama.cpp, include/llama.h (llama_ftype)
FILE_TYPES: Mapping[int, str] = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k",
    11: "q3_k_s", 12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s",
    17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs",
    23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m",
    30: "iq4_xs", 31: "iq1_m", 32: "bf16", 36: "tq1_0", 37: "tq2_0", 38: "mxfp4",
}  # fmt: skip

#: matrices whose rows are no whole blocks of a type get another, in the end f16
_FALLBACKS = {
    "q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0",
    "iq4_xs": "iq4_nl", "iq3_xxs": "iq4_nl", "iq3_s": "iq4_nl", "iq2_s": "iq4_nl",
}  # fmt: skip

#: small matrices that stay as the converter wrote them: f32
_KEPT = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight",
         "ssm_conv1d", "shortconv.conv.weight")  # fmt: skip

OUTPUT, TABLE = "output.weight", "token_embd.weight"
_FLOATS = ("f32", "f16", "bf16")
#: the families of 80 layers whose heads share keys: their values' matrices are small
_SEVENTY = frozenset({"llama", "qwen2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What a mixture depends on beside names and shapes."""

    quantisation: str
    architecture: str
    layers: int
    heads_a_key: int  # heads of queries that share one of keys
    experts: int = 0


def quantised(
    tensors: Iterable[tuple[str, tuple[int, ...]]], mixture: Mixture
) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield each tensor's name and shape, the contiguous dimension first, with its type.

    Raises KeyError for a quantisation that is none of `TYPES`.
    """
    listed = [(name, shape, *_layer_and_part(name)) for name, shape in tensors]
    plain = TYPES[mixture.quantisation]
    is_tied = all(name != OUTPUT for name, *_ in listed)
    values = sum(_part_of(part) is Part.VALUES for *_, part in listed)
    for name, shape, layer, part in listed:
        place = _part_of(part)
        if place is Part.KEPT or len(shape) < 2:
            yield name, shape, "f32"
        elif plain in _FLOATS:
            yield name, shape, plain
        else:
            kind = plain
            if name == OUTPUT or (is_tied and name == TABLE):
                kind = _of_output(shape, plain, mixture)
            elif mixture.quantisation == "mxfp4":
                kind = "mxfp4" if len(shape) > 2 and shape[2] > 1 else "q8_0"
            elif name == TABLE:
                kind = _TABLES.get(mixture.quantisation, plain)
            elif place is not Part.PLAIN:
                kind = _in_layer(place, layer, values, mixture) or plain
            yield name, shape, _that_fits(kind, shape[0])


def _layer_and_part(name: str) -> tuple[int, str]:
    """Return a name's layer, 0 outside them, and the rest of it."""
    if not name.startswith("blk."):
        return 0, name
    _, layer, part = name.split(".", 2)
    return int(layer), part


class Part(StrEnum):
    """What a matrix is to a mixture."""

    KEPT = "kept"  # no matrix, or one that stays as the converter wrote it: f32
    VALUES = "values"
    KEYS = "keys"
    QUERIES = "queries"
    ATTENTION = "attention"  # its output matrix
    LAST = "last"  # of the feed-forward
    PLAIN = "plain"


@lru_cache(maxsize=1024)
def _part_of(part: str) -> Part:
    """Return what a tensor is by its name without its layer."""
    if not part.endswith("weight") or any(one in part for one in _KEPT):
        return Part.KEPT
    return next((place for words, place in _PARTS.items() if words in part), Part.PLAIN)


_PARTS = {
    "attn_v.weight": Part.VALUES,
    "attn_qkv.weight": Part.VALUES,
    "attn_kv_b.weight": Part.VALUES,
    "attn_k.weight": Part.KEYS,
    "attn_q.weight": Part.QUERIES,
    "attn_output.weight": Part.ATTENTION,
    "ffn_down": Part.LAST,
}


def _of_output(shape: tuple[int, ...], plain: str, mixture: Mixture) -> str:
    if mixture.quantisation == "mxfp4" or shape[0] % BLOCKS[plain][0]:
        return "q8_0"
    if plain == "iq3_xxs":
        return "q5_k"
    return plain if plain == "q8_0" else "q6_k"


def _that_fits(kind: str, row: int) -> str:
    """Return the type for rows of so many elements."""
    if row % BLOCKS[kind][0]:
        kind = _FALLBACKS.get(kind, "f16")
    return "f16" if row % BLOCKS[kind][0] else kind


def _in_layer(place: Part, layer: int, values: int, mixture: Mixture) -> str | None:
    """Return the type of a layer's matrix where the mixture has one of its own for it."""
    if place is Part.VALUES:
        return _of_values(layer, values, mixture)
    if place is Part.KEYS and mixture.experts == 8:
        return "q8_0"
    if place in (Part.KEYS, Part.QUERIES):
        return _LOOKED_UP.get(mixture.quantisation)
    if place is Part.LAST:
        return _of_last(layer, mixture)
    own = _OUTPUTS_OF_EIGHT if mixture.experts == 8 else _OUTPUTS
    return own.get(mixture.quantisation)


#: what the matrices of queries and keys get, and the table of words where it is no output matrix
_LOOKED_UP = {"iq3_xxs": "iq2_s"}
_TABLES = {"iq3_xxs": "iq3_s"}

#: what attention's own output matrix gets; with eight experts q5_k of whatever is smaller
_OUTPUTS = {"q2_k": "q3_k", "q3_k_m": "q4_k", "q3_k_l": "q5_k", "iq3_xxs": "iq3_s"}
_OUTPUTS_OF_EIGHT = dict.fromkeys(
    ("q2_k", "iq3_xxs", "q3_k_s", "q3_k_m", "iq4_nl", "iq4_xs", "q4_k_s", "q4_k_m"), "q5_k"
)


def _of_values(layer: int, values: int, mixture: Mixture) -> str | None:
    if mixture.experts == 8:
        return "q8_0"
    kind = None
    match mixture.quantisation:
        case "q2_k":
            kind = "q4_k" if mixture.heads_a_key >= 4 else "q3_k"
        case "q3_k_m":
            kind = "q5_k" if layer < 2 else "q4_k"
        case "q3_k_l":
            kind = "q5_k"
        case "iq4_nl" | "iq4_xs" if mixture.heads_a_key >= 4:
            kind = "q5_k"
        case "iq3_xxs" if mixture.heads_a_key >= 4:
            kind = "q4_k"
        case "q4_k_m" | "q5_k_m" if _deserves_more_bits(layer, values):
            kind = "q6_k"
        case "q4_k_s" if layer < 4:
            kind = "q5_k"
        case _:
            pass
    is_seventy = (
        mixture.layers == 80 and mixture.architecture in _SEVENTY and mixture.heads_a_key > 1
    )
    if is_seventy and (kind or TYPES[mixture.quantisation]) in ("q3_k", "q4_k"):
        return "q5_k"
    return kind


def _of_last(layer: int, mixture: Mixture) -> str | None:
    layers = mixture.layers
    match mixture.quantisation:
        case "q2_k":
            return "q3_k"
        case "q3_k_m":
            return "q5_k" if layer < layers // 16 else "q4_k"
        case "q3_k_l":
            return "q5_k"
        case "q4_k_m" | "q5_k_m" if _deserves_more_bits(layer, layers):
            return "q6_k"
        case "iq4_nl" | "iq4_xs" | "q4_k_s" if layer < layers // 8:
            return "q5_k"
        case _:
            return None


def _deserves_more_bits(layer: int, layers: int) -> bool:
    """Return whether a mixture gives a layer more bits: the first, the last, every third between.

    Source: llama-quant.cpp (use_more_bits).
    """
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
