"""Weights in the format of compressed-tensors (llm-compressor's, vLLM's): packed until they run.

transformers loads them packed, and the first call unpacks every layer for good, whatever the
format; FP8 stays only where `use_optimized_inference` is asked for. Sources: transformers 5.23.0,
quantizers/quantizer_compressed_tensors.py; compressed-tensors 0.20.1,
compressors/pack_quantized (32 // bits of them in a word);
findings/compressed-tensors-unpacks-for-good.sh.
"""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.sources.safetensors import Tensor
from vramplan.sources.saved_model import Part

_METHOD = "compressed-tensors"
_PACKED, _WEIGHT, _SCALE = ".weight_packed", ".weight", ".weight_scale"
_ONE_BYTE = ("F8_E4M3", "F8_E5M2", "I8", "U8")
_UNPACKED = "BF16"  # a float: it is counted in the dtype that is asked for
_MOST_BITS = 8


def is_compressed(part: Part) -> bool:
    """Return whether a part's weights are so packed, and transformers loads it."""
    said = part.config.get("quantization_config")
    method = said.get("quant_method") if isinstance(said, dict) else None
    return method == _METHOD and part.class_path.startswith("transformers.")


def unpacked(part: Part) -> Iterator[Tensor]:
    """Yield the tensors that a part has once it ran; of one that is not packed, its own."""
    if not is_compressed(part):
        yield from part.tensors
        return
    bits = _bits(part)
    scaled = {one.name.removesuffix(_SCALE) for one in part.tensors if one.name.endswith(_SCALE)}
    for tensor in part.tensors:
        owner, _, last = tensor.name.rpartition(".")
        if f".{last}" == _PACKED and bits and tensor.elements:
            in_each = max(1, 8 * (tensor.size_bytes // tensor.elements) // bits)
            yield _weight(owner, tensor.elements * in_each)
        elif f".{last}" == _WEIGHT and owner in scaled and tensor.dtype in _ONE_BYTE:
            yield _weight(owner, tensor.elements)
        else:
            yield tensor


def _weight(owner: str, elements: int) -> Tensor:
    return Tensor(
        name=f"{owner}{_WEIGHT}", dtype=_UNPACKED, shape=(elements,), size_bytes=2 * elements
    )


def _bits(part: Part) -> int:
    """Return the bits of a packed weight, the fewest where groups differ; 0 where none are said."""
    said = part.config.get("quantization_config")
    groups = said.get("config_groups") if isinstance(said, dict) else None
    found = []
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
        if isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits <= _MOST_BITS:
            found.append(bits)
    return min(found, default=0)
