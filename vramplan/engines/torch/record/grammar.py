"""What a recipe says about a routine's sizes and loops."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.engines.torch.tape.expressions import derive
from vramplan.quick_dataclass import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What a recipe says about a routine's sizes.

    `derived` defines further dimensions (rounded levels, token counts; they may use loop names as
    indices), `products` are what sizes are made of, `counts` how often each loop runs, `splits` are
    conditions under which the code itself may differ. In the loops of `fixed` no size changes, so
    that no number of iterations is needed to find one. The last iteration of the loops of `apart`
    is of sizes of its own.
    """

    products: tuple[str, ...] = ()
    derived: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ("n==1",)
    fixed: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()

    def complete(self, dims: Mapping[str, int]) -> dict[str, int]:
        """Return `dims` with the derived ones; a loop's index is 0 outside of the loop."""
        return derive(self.derived, {**dict.fromkeys(self.counts, 0), **dims})
