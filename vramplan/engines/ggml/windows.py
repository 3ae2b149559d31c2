"""Which layers of a model see a window of the tokens only, how wide it is, and which share a cache.

A header says it by ``attention.sliding_window`` and ``attention.sliding_window_pattern``, a number
or a list with a word for each layer; what it leaves out has a default of the family's. Asked of
llama.cpp b11549, which prints both for each layer (tests/accuracy/test_engine_caches.py). Source:
ggml-org/llama.cpp, src/models (load_arch_hparams) and src/llama-hparams.cpp (set_swa_pattern).
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile

_WIDEST = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """What a family does where its header says little.

    Every `period` layers one sees everything, the last of them or, `is_first`, the first; 0 has a
    window in every layer, None wants a list from the header. `size` is the window where the header
    names none, 0 for no window at all; `is_fixed`: also where it names another one. `layers`: a
    model of another depth has no windows. `reads_pattern`: the header's pattern counts.
    """

    period: int | None
    size: int = 0
    is_first: bool = False
    is_fixed: bool = False
    layers: int = 0
    reads_pattern: bool = True


#: families that have windows; of others the engine does not read the keys
RULES: Mapping[str, WindowRule] = {
    "afmoe": WindowRule(period=4),
    "cohere2": WindowRule(period=4, size=4096),
    "cohere2moe": WindowRule(period=4, is_first=True),
    "exaone-moe": WindowRule(period=4),
    "exaone4": WindowRule(period=4, layers=64),
    "gemma-embedding": WindowRule(period=6),
    "gemma2": WindowRule(period=2, size=4096),
    "gemma3": WindowRule(period=6),
    "gemma3n": WindowRule(period=5),
    "gemma4": WindowRule(period=None),
    "gpt-oss": WindowRule(period=2, size=128),
    "granite_swa": WindowRule(period=None),
    "laguna": WindowRule(period=4, is_first=True),
    "lfm2": WindowRule(period=0, reads_pattern=False),
    "llama4": WindowRule(period=4, size=8192, is_fixed=True),
    "maple": WindowRule(period=None),
    "mellum": WindowRule(period=4),
    "mimo2": WindowRule(period=None),
    "modern-bert": WindowRule(period=3, is_first=True),
    "olmo2": WindowRule(period=4),
    "plamo3": WindowRule(period=8),
    "smallthinker": WindowRule(period=4, size=4096, is_first=True, is_fixed=True),
    "spark2_5": WindowRule(period=None),
    "step35": WindowRule(period=None),
}

#: families whose window has a size of its own only where the header has the key, whatever its value
_ONLY_WHERE_TOLD = frozenset({"smallthinker"})
#: families whose last layers use the caches of layers before, and how many layers have their own
#: where the header does not say how many do not
_SHARING = {"gemma3n": 20, "gemma4": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The window in tokens, 0 where no layer has one, and which layers have it."""

    size: int
    layers: tuple[bool, ...]


def windows_of(file: GgufFile, layers: int) -> Windows:
    """Return the windows of a header's `layers`.

    Raises SourceError where the family wants a list of layers and the header has none, which the
    engine refuses too.
    """
    name = file.architecture
    none = Windows(size=0, layers=(False,) * layers)
    rule = RULES.get(name)
    if rule is None or (rule.layers and layers != rule.layers):
        return none
    key = f"{name}.attention.sliding_window"
    size = file.number(key, 0 if name in _ONLY_WHERE_TOLD else rule.size)
    if rule.is_fixed and size:
        size = rule.size
    told = file.metadata.get(f"{key}_pattern")
    if not rule.reads_pattern:
        told = None
    if rule.period is None and not isinstance(told, tuple):
        message = f"{file.path}: the list {key}_pattern is missing, which {name} must have"
        raise SourceError(message, hint="llama.cpp refuses the file: convert it anew")
    if not 0 < size <= _WIDEST:
        return none
    if isinstance(told, tuple):
        listed = [bool(one) for one in told[:layers]]  # layers behind the list see everything
        return Windows(size=size, layers=(*listed, *(False,) * (layers - len(listed))))
    period = rule.period or 0
    if isinstance(told, int):
        period = file.number(f"{key}_pattern", period)
    return Windows(
        size=size,
        layers=tuple(_is_windowed(number, period, rule.is_first) for number in range(layers)),
    )


def _is_windowed(number: int, period: int, is_first: bool) -> bool:
    if not period:
        return True
    return number % period != 0 if is_first else number % period < period - 1


def window_heads(file: GgufFile, head_k: int, head_v: int) -> tuple[int, int]:
    """Return the sizes of heads of keys and of values in windowed layers (gemma 4 has others)."""
    key = f"{file.architecture}.attention"
    return (
        file.number(f"{key}.key_length_swa", head_k) or head_k,
        file.number(f"{key}.value_length_swa", head_v) or head_v,
    )


def layers_with_cache(file: GgufFile, layers: int) -> int:
    """Return how many layers, from the first, have a cache of their own.

    Those behind read that of the last one of their kind. Source: llama.cpp,
    src/models/gemma3n.cpp, gemma4.cpp (n_layer_kv_from_start).
    """
    name = file.architecture
    if name not in _SHARING:
        return layers
    own = _SHARING[name]
    if own is None:
        own = layers - file.number(f"{name}.attention.shared_kv_layers")
    return max(1, min(own, layers))
