"""What families whose graph is not known keep of a sequence in each layer; elements of f32.

Asked of llama.cpp b11549, which prints the sizes for each layer. Source: ggml-org/llama.cpp,
src/llama-hparams.cpp (n_embd_r, n_embd_s), src/models (is_recr_impl).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.errors import SourceError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

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
    return tuple(each if one else 0 for one in keeps_states(file, layers))


def most_elements(file: GgufFile, embedding: int) -> int:
    """Return the largest state that the sizes in any header's keys would make in one layer."""
    counts = (_rwkv, _delta, _mamba, _lightning)
    return max((count(file, embedding) for count in counts), default=0)


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


def _lightning(file: GgufFile, embedding: int) -> int:
    """MiniMax-01's linear attention: a matrix for each head."""
    name = file.architecture
    heads = file.number(f"{name}.attention.head_count")
    head = file.number(f"{name}.attention.key_length", embedding // max(heads, 1))
    return heads * head * head


_KEPT: Mapping[str, Callable[[GgufFile, int], int]] = {
    "arwkv7": _rwkv,
    "bailingmoe3": _delta,
    "kimi-k3": _delta,
    "kimi-linear": _delta,
    "minimax-01": _lightning,
    "plamo2": _mamba,
    "rwkv6": _rwkv,
    "rwkv6qwen2": _rwkv,
    "rwkv7": _rwkv,
}
#: families whose every layer keeps a state; of others those without heads of keys
_EVERYWHERE = frozenset({"arwkv7", "rwkv6", "rwkv6qwen2", "rwkv7"})
#: families with a period of layers, all but the last of which keep a state
_PERIODIC = {"minimax-01": 8}


def keeps_states(file: GgufFile, layers: int) -> tuple[bool, ...]:
    """Return of each layer whether it keeps a state here, and then has no cache."""
    name = file.architecture
    if name not in _KEPT:
        return (False,) * layers
    if name in _EVERYWHERE:
        return (True,) * layers
    if name not in _PERIODIC:
        heads = file.numbers(f"{name}.attention.head_count_kv", layers, 0)
        return tuple(not one for one in heads)
    told = f"{name}.attention.recurrent_layers"
    if told in file.metadata:
        return tuple(bool(one) for one in file.numbers(told, layers))
    period = max(file.number(f"{name}.full_attention_interval", _PERIODIC[name]), 1)
    return tuple((number + 1) % period != 0 for number in range(layers))
