"""The CUDA contexts that out-of-memory messages tell, ours beside them, and the fit of our rule.

    python -m tools.contexts            every message, what our rule gives, and whether it is inside
    python -m tools.contexts --check    exit 1 where the rule's constants are not the fit's

The rule is in `vramplan.budget.cuda_context`; the messages are in `profiles/cuda_contexts.yaml`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from vramplan.budget import cuda_context
from vramplan.catalog import load_catalog, profiles_dir
from vramplan.catalog.contexts import ToldContext, load_contexts
from vramplan.catalog.multiprocessors import resident_threads
from vramplan.model import Band, Card
from vramplan.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A message beside the band of its card."""

    told: ToldContext
    card: Card
    band: Band

    @property
    def threads(self) -> int:
        """Return how many threads the card holds at once."""
        assert self.card.multiprocessors is not None
        return self.card.multiprocessors * resident_threads(self.card.compute_capability)

    @property
    def residual_bytes(self) -> int:
        """Return the message's figure less ours."""
        return self.told.size_bytes - self.band.expected_bytes

    @property
    def is_inside(self) -> bool:
        """True where the band holds the message's figure."""
        return self.band.low_bytes <= self.told.size_bytes <= self.band.high_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The constants of `cuda_context`."""

    base_bytes: int
    thread_bytes: int
    low_permille: int
    high_permille: int


def compare() -> list[Compared]:
    """Return every shipped message beside our band; raises KeyError for a card nobody knows."""
    cards = load_catalog().cards
    return [
        Compared(told=told, card=cards[told.card], band=cuda_context.context_band(cards[told.card]))
        for told in load_contexts(profiles_dir())
    ]


def fit(compared: Sequence[Compared]) -> Rule:
    """Return the least-squares line of context over threads, and how far messages are from it.

    Base and slope are rounded to 100 kB and one byte; the ratios outwards, to a thousandth.
    """
    points = [(one.threads, one.told.size_bytes) for one in compared if not one.told.is_held_out]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    thread = round(slope)
    base = round(mean_y - slope * mean_x, -5)
    ratios = [y / (base + thread * x) for x, y in points]
    return Rule(
        base_bytes=int(base),
        thread_bytes=thread,
        low_permille=int(min(ratios) * 1000),
        high_permille=-int(-max(ratios) * 1000 // 1),
    )


def in_force() -> Rule:
    """Return the constants that vramplan uses."""
    return Rule(
        base_bytes=cuda_context.BASE_BYTES,
        thread_bytes=cuda_context.THREAD_BYTES,
        low_permille=cuda_context.LOW_PERMILLE,
        high_permille=cuda_context.HIGH_PERMILLE,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the messages and the fit; return 1 for --check where the constants are others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only compare the constants")
    options = parser.parse_args(arguments)
    compared = compare()
    found, used = fit(compared), in_force()
    if not options.check:
        for is_held_out in (False, True):
            _show("kept out of the fit" if is_held_out else "the fit",
                  [one for one in compared if one.told.is_held_out is is_held_out])  # fmt: skip
    print(f"fit      {found}\nin force {used}")
    return int(options.check and found != used)


def _show(title: str, compared: Sequence[Compared]) -> None:
    print(f"{title}: MiB\n{'message':28} {'card':16} SMs  told  low ours high  residual  inside")
    for one in compared:
        low, ours, high = (
            size / MIB
            for size in (one.band.low_bytes, one.band.expected_bytes, one.band.high_bytes)
        )
        print(
            f"{one.told.name:28} {one.card.name:16} {one.card.multiprocessors:3} "
            f"{one.told.size_bytes / MIB:5.0f} {low:4.0f} {ours:4.0f} {high:4.0f} "
            f"{one.residual_bytes / MIB:+9.0f}  {'yes' if one.is_inside else 'NO'}"
        )
    print(f"{sum(one.is_inside for one in compared)} of {len(compared)} inside\n")


if __name__ == "__main__":
    sys.exit(main())
