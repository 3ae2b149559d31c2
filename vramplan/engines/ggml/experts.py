"""Which tensors are not where their layer is: experts in host memory, most of all.

``-ot PATTERN=BUFFER`` puts those that a regular expression matches anywhere: in host memory, or on
a card. It is asked before all others here (llama.cpp takes them in the order of its arguments).

A user says it by ``--n-cpu-moe N``: the experts of the first N layers. llama.cpp's fit does it on
its own for the last layers, and cuts the first of those at a finer place; the rest of that one may
be on the next of several cards. Either way tensors are found by name. Source: llama.cpp,
common/common.h (LLM_FFN_EXPS_REGEX) and common/fit.cpp (get_overflow_pattern).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache

from vramplan.engines.ggml.card_shares import HOST
from vramplan.quick_dataclass import dataclass

_EXPERTS = tuple(
    f"ffn_{part}_{kind}exps" for part in ("up", "down", "gate_up", "gate") for kind in ("", "ch")
)


class HostPart(Enum):
    """The part of a layer that is kept in host memory: how its tensors' names begin.

    The engine has regular expressions for them; to compile those takes longer than to use them.
    """

    EXPERTS = _EXPERTS
    ALL_BUT_ATTENTION = ("ffn_gate", "ffn_up", "ffn_down")
    ALL_BUT_UP = ("ffn_gate", "ffn_down")
    ALL_BUT_GATE = ("ffn_down",)

    def has(self, name: str) -> bool:
        """Return whether the tensor ``blk.N.PART`` belongs to it."""
        block, _, rest = name.partition(".")
        return block == "blk" and rest.partition(".")[2].startswith(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostExperts:
    """The blocks from `first` on, `stop` excluded, whose experts are in host memory.

    Of the first of them `first_part` is, or is on the card `first_to`.
    """

    first: int = 0
    stop: int = 0
    first_part: HostPart = HostPart.EXPERTS
    first_to: int = HOST

    def find(self, name: str, layer: int) -> int | None:
        """Return where the tensor `name` of the block `layer` is; None for where the block is."""
        if not self.first <= layer < self.stop:
            return None
        is_first = layer == self.first
        part = self.first_part if is_first else HostPart.EXPERTS
        return (self.first_to if is_first else HOST) if part.has(name) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The tensors that are not where their layer is; of several rules the first counts."""

    experts: tuple[HostExperts, ...] = ()
    patterns: tuple[tuple[str, int], ...] = ()

    def __bool__(self) -> bool:
        """Return whether a rule was made, be it for tensors that there are or not."""
        return bool(self.experts or self.patterns)

    def find(self, name: str, layer: int | None) -> int | None:
        """Return where a tensor is: a card's number, or HOST; None for where its layer is."""
        for pattern, place in self.patterns:
            if _compiled(pattern).search(name):
                return place
        if layer is None:
            return None
        for rule in self.experts:
            found = rule.find(name, layer)
            if found is not None:
                return found
        return None


#: everything is where its layer is
NOTHING_MOVED = Moved()


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of ECMAScript's grammar, which std::regex has, as Python's.

    Digits are ASCII's there; what Python cannot read was refused with the setting.
    """
    return re.compile(pattern, re.ASCII)


def has_experts(names: Iterable[str]) -> bool:
    """Return whether a model with tensors of these names is a mixture of experts."""
    return any(HostPart.EXPERTS.has(name) for name in names)
