"""What families whose graph is not known keep of a sequence in each layer; elements of f32.

Asked of llama.cpp b11549, which prints the sizes for each layer. Source: ggml-org/llama.cpp,
src/llama-hparams.cpp (n_embd_r, n_embd_s), src/models (is_recr_impl).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vramplan.errors import SourceError

if TYPE_CHECKING:
    from vramplan.sources.gguf import GgufFile

_MOST = 1 << 32
_SHIFTS = 2  # tokens that RWKV mixes with the one at hand, where the file does not say


def kept_elements(file: GgufFile, layers: int, embedding: int) -> tuple[int, ...]:
    """Return the elements each layer keeps of a sequence; empty for a family that keeps none here.

    Raises SourceError for sizes that cannot be a model's.
    """
    count = _KEPT.get(file.architecture)
    if count is None:
        return ()
    each = count(file, embedding)
    if not 0 <= each <= _MOST:
        raise SourceError(f"{file.path}: a state of {each:,} elements: not usable")
    heads = file.numbers(f"{file.architecture}.attention.head_count_kv", layers, 0)
    everywhere = file.architecture in _EVERYWHERE
    return tuple(each if everywhere or not one else 0 for one in heads)


def most_elements(file: GgufFile, embedding: int) -> int:
    """Return the largest state that the sizes in any header's keys would make in one layer."""
    return max((count(file, embedding) for count in (_rwkv, _delta, _mamba)), default=0)


def _rwkv(file: GgufFile, embedding: int) -> int:
    name = file.architecture
    head = file.number(f"{name}.wkv.head_size")
    if not head:
        return 0
    return embedding * (file.number(f"{name}.token_shift_count", _SHIFTS) + head)


def _delta(file: GgufFile, _: int) -> int:
    """Kimi's delta attention: three convolutions, and a matrix for each head."""
    name = file.architecture
    head, heads = file.number(f"{name}.kda.head_dim"), file.number(f"{name}.attention.head_count")
    columns = max(file.number(f"{name}.ssm.conv_kernel") - 1, 0)
    return heads * head * (3 * columns + head)


def _mamba(file: GgufFile, _: int) -> int:
    name = file.architecture
    inner, state = file.number(f"{name}.ssm.inner_size"), file.number(f"{name}.ssm.state_size")
    columns = max(file.number(f"{name}.ssm.conv_kernel") - 1, 0)
    groups = file.number(f"{name}.ssm.group_count")
    return columns * (inner + 2 * groups * state) + state * inner


_KEPT: Mapping[str, Callable[[GgufFile, int], int]] = {
    "arwkv7": _rwkv,
    "kimi-linear": _delta,
    "plamo2": _mamba,
    "rwkv6": _rwkv,
    "rwkv6qwen2": _rwkv,
    "rwkv7": _rwkv,
}
#: families whose every layer keeps a state; of others those without heads of keys
_EVERYWHERE = frozenset({"arwkv7", "rwkv6", "rwkv6qwen2", "rwkv7"})


def has_state_instead(file: GgufFile, kv_heads: int) -> bool:
    """Return whether a layer with so many heads of keys keeps a state and has no cache."""
    name = file.architecture
    return name in _KEPT and (name in _EVERYWHERE or not kv_heads)
