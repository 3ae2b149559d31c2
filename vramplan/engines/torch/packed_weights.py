"""Weights that their files hold packed: which numbers they are, and what lies beside them.

A quantised matrix is several tensors: the packed numbers, and scales, zero points and tables, which
are no parameters and stay in their own types whatever dtype a model is loaded in. Sources:
transformers 5.23.0, quantizers/ and core_model_loading.py; bitsandbytes 0.50.2, functional.py
(absmax, quant_map, quant_state); AutoGPTQ's and AutoAWQ's qweight, qzeros, scales, g_idx.

A float of eight bits alone is no quantisation: where no config names a way, diffusers and
transformers cast such weights as they load them, to what is asked for. Source: diffusers 0.42.1,
models/model_loading_utils.py, load_model_dict_into_meta; transformers as above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vramplan.codec import Json
from vramplan.quick_dataclass import dataclass
from vramplan.sources.safetensors import Tensor
from vramplan.sources.saved_model import Part

#: types of eight bits that are floats to a library which casts them
EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
_ALWAYS = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I8", "U8", "U32")
#: of a type that positions have too, by the last part of a name
_BY_NAME = ("qweight", "qzeros", "g_idx", "weight_packed")
#: what is beside packed numbers, in the last two parts of a name
_BESIDE = re.compile(
    r"scale|zero|absmax|nested|quant_map|quant_state|g_idx|weight_shape|weight_format|SCB"
    r"|comfy_quant|\.biases$"
)
#: what describes the numbers and is never on a device
_ELSEWHERE = re.compile(r"\.quant_state\.|\.weight_format$")
_WORD_BITS = {"I32": 32, "U32": 32}
_NIBBLES = 2
_EVERYWHERE = "99.0"  # a compute capability above every card's
#: below these capabilities transformers unpacks such weights into bf16 while it loads them.
#: Source: transformers 5.23.0, quantizers/quantizer_{finegrained_fp8,mxfp4}.py,
#: validate_environment
_UNPACKED_BELOW: Mapping[str, str] = {"fp8": "8.9", "mxfp8": "8.9", "mxfp4": "7.5"}
#: what transformers can be told to load. Source: 5.23.0, quantizers/auto.py
#: (nvfp4 is not among them: what has it already is refused, quantizer_nvfp4.py)
_KNOWN = frozenset(
    (
        *("aqlm", "auto-round", "awq", "bitnet", "bitsandbytes", "compressed-tensors", "eetq"),
        *("fbgemm_fp8", "fouroversix", "fp8", "fp_quant", "gemma", "gguf", "gptq", "higgs", "hqq"),
        *("metal", "mxfp4", "mxfp8", "quanto", "quark", "sinq", "spqr", "torchao", "vptq"),
    )
)
#: whose int8 is two numbers of four bits. Source: integrations/finegrained_fp8.py, Fp8Dequantize
_FP4_IN_BYTES = ("fp8", "mxfp8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How a part's weights are packed: by whom, what is packed, and what lies beside it."""

    method: str | None
    owners: frozenset[str]
    names: frozenset[str]
    bits: int

    def is_beside(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a scale or its like, and no parameter."""
        before, _, last = tensor.name.rpartition(".")
        if not self.owners & {before, before.rpartition(".")[0]} and not _is_packed(tensor):
            return False
        if last.endswith(("weight", "bias")) and last != "qscale_weight":
            return False
        return bool(_BESIDE.search(f"{before.rpartition('.')[2]}.{last}"))

    def parameters(self, tensor: Tensor) -> int:
        """Return how many weights a tensor is."""
        if not _is_packed(tensor):
            return tensor.elements
        if tensor.dtype in _WORD_BITS:
            return tensor.elements * _WORD_BITS[tensor.dtype] // self.bits
        before, _, last = tensor.name.rpartition(".")
        is_in_halves = (tensor.dtype == "I8" and self.method in _FP4_IN_BYTES) or (
            tensor.dtype == "U8"
            and (
                last.endswith("_blocks")
                or f"{tensor.name}.absmax" in self.names
                or f"{before}.weight_scale_2" in self.names
            )
        )
        return tensor.elements * (_NIBBLES if is_in_halves else 1)


def packing_of(part: Part) -> Packing:
    """Return how a part's weights are packed, by its config and its tensors' names."""
    said = quantization_config(part.config)
    packed = [one for one in part.tensors if _is_packed(one)]
    bits = said.get("bits", said.get("w_bit"))
    is_told = isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits <= 8
    return Packing(
        method=_method(said),
        owners=frozenset(_owners(packed)),
        names=frozenset(one.name for one in part.tensors) if packed else frozenset(),
        bits=bits if is_told and isinstance(bits, int) else 4,
    )


def _owners(packed: Iterable[Tensor]) -> Iterable[str]:
    return (one.name.rpartition(".")[0] for one in packed)


def _is_packed(tensor: Tensor) -> bool:
    return tensor.dtype in _ALWAYS or (
        tensor.dtype == "I32" and tensor.name.rpartition(".")[2] in _BY_NAME
    )


def is_elsewhere(tensor: Tensor) -> bool:
    """Return whether a tensor of a file is read on the host, and never on a device."""
    return bool(_ELSEWHERE.search(tensor.name))


def quantization_config(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what a config says of how its weights are quantised; empty where it says nothing.

    MLX writes `quantization`, with no name of a way in it.
    """
    inner = config.get("text_config")
    for one in (config, inner if isinstance(inner, dict) else {}):
        said = one.get("quantization_config")
        if isinstance(said, dict) and isinstance(said.get("quant_method"), str):
            return said
        mlx = one.get("quantization")
        if isinstance(mlx, dict) and "group_size" in mlx:
            return {**mlx, "quant_method": "mlx"}
        if isinstance(said, dict) and said:
            return said
    return {}


def _method(said: Mapping[str, Json]) -> str | None:
    if said.get("load_in_4bit") is True or said.get("load_in_8bit") is True:
        return "bitsandbytes"
    method = said.get("quant_method")
    return method[:40] if isinstance(method, str) else None


def is_cast(part: Part) -> bool:
    """Return whether a library casts a part's weights of eight bits, for no config keeps them."""
    of = part.class_path.partition(".")[0]
    return of in ("diffusers", "transformers") and not quantization_config(part.config)


def unpacked_below(part: Part) -> str | None:
    """Return the compute capability below which transformers unpacks a part's weights, or None.

    A config that says `dequantize` has them unpacked on every card.
    """
    said = quantization_config(part.config)
    below = _UNPACKED_BELOW.get(_method(said) or "")
    if below is None or not part.class_path.startswith("transformers."):
        return None
    return _EVERYWHERE if said.get("dequantize") is True else below


def loading_remark(part: Part) -> str | None:
    """Return what has to be known of loading a part's packed weights, or None."""
    method = _method(quantization_config(part.config))
    if method is None or not part.class_path.startswith("transformers."):
        return None
    if method not in _KNOWN:
        return (
            f"transformers does not load weights of {method} (counted is what an engine that does "
            "would hold)"
        )
    below = unpacked_below(part)
    if below is None:
        return None
    if below == _EVERYWHERE:
        return "its config has transformers unpack them"
    kernels = ", or without triton and the package kernels," if method == "mxfp4" else ""
    return f"below compute capability {below}{kernels} transformers unpacks them to bf16"
