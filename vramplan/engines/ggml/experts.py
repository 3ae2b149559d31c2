"""Which experts of a mixture stay in host memory while their layers' other parts are on the GPU.

A user says it by ``--n-cpu-moe N``: the experts of the first N layers. llama.cpp's fit does it on
its own for the last layers, and cuts the first of those at a finer place. Either way tensors are
found by name. Source: llama.cpp, common/common.h (LLM_FFN_EXPS_REGEX) and common/fit.cpp
(get_overflow_pattern).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

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

    Of the first of them `first_part` is.
    """

    first: int = 0
    stop: int = 0
    first_part: HostPart = HostPart.EXPERTS

    def keeps(self, name: str, layer: int | None) -> bool:
        """Return whether the tensor `name` of the block `layer` is kept in host memory."""
        if layer is None or not self.first <= layer < self.stop:
            return False
        part = self.first_part if layer == self.first else HostPart.EXPERTS
        return part.has(name)


#: every expert is where its layer is
NO_HOST_EXPERTS = HostExperts()


def has_experts(names: Iterable[str]) -> bool:
    """Return whether a model with tensors of these names is a mixture of experts."""
    return any(HostPart.EXPERTS.has(name) for name in names)
