"""How full a card was over a run: a bounded number of moments, none of the peaks lost."""

from __future__ import annotations

from typing import Any

from vramplan.engines.torch.witness.code_places import Place

#: moments that are kept; where there would be more, neighbours become one
_MOST = 512


class Timeline:
    """Moments of a run, in the order of what the card was given to do; each is a stretch's most."""

    def __init__(self) -> None:
        self._moments: list[tuple[int, int, int, Place | None]] = []
        self._stretch = 1

    def add(self, work: int, allocated: int, reserved: int, place: Place | None) -> None:
        """Add a moment: calls that gave the card work so far, and bytes."""
        last = self._moments[-1] if self._moments else None
        if last is not None and work - last[0] < self._stretch:
            self._moments[-1] = _larger(last, (last[0], allocated, reserved, place))
            return
        self._moments.append((work, allocated, reserved, place))
        if len(self._moments) > _MOST:
            pairs = zip(self._moments[::2], self._moments[1::2], strict=False)
            self._moments = [_larger(*pair) for pair in pairs]
            self._stretch = max(2 * self._stretch, 2 * (work // _MOST))

    def told(self) -> list[dict[str, Any]]:
        """Return the moments, as a record has them."""
        return [
            {
                "launches": work,
                "allocated_bytes": allocated,
                "reserved_bytes": reserved,
                "where": None
                if place is None
                else {"file": place[0], "line": place[1], "function": place[2]},
            }
            for work, allocated, reserved, place in self._moments
        ]


def _larger(
    one: tuple[int, int, int, Place | None], other: tuple[int, int, int, Place | None]
) -> tuple[int, int, int, Place | None]:
    """Return a stretch of two: where it began, the most of both, where the fuller one was."""
    fuller = other if other[1] > one[1] else one
    return one[0], fuller[1], max(one[2], other[2]), fuller[3]
