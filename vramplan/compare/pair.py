"""An estimate and a measurement of the same thing, and how far they are apart."""

from __future__ import annotations

from collections.abc import Iterable

from vramplan.quick_dataclass import dataclass

#: the borders of the bands that residuals are shown in, per cent.
#: Source: node-llama-cpp's ``inspect measure`` colours its differences at the same ones.
BORDERS = (2, 6, 10, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What was estimated and what was measured, bytes; None where there is nothing to say."""

    estimate_bytes: int | None
    measured_bytes: int | None

    @property
    def residual_bytes(self) -> int | None:
        """Measurement less estimate; None where one of them is missing."""
        if self.estimate_bytes is None or self.measured_bytes is None:
            return None
        return self.measured_bytes - self.estimate_bytes

    @property
    def residual_percent(self) -> float | None:
        """The residual as a share of the measurement; None where that is nothing."""
        residual = self.residual_bytes
        if residual is None or not self.measured_bytes:
            return None
        return 100 * residual / self.measured_bytes

    @property
    def band(self) -> int | None:
        """Which band the residual is in: 0 within 2 %, 4 beyond 14 %."""
        percent = self.residual_percent
        return None if percent is None else band_of(percent)


def band_of(percent: float) -> int:
    """Return the number of the band that a residual of so many per cent is in."""
    return sum(abs(percent) > border for border in BORDERS)


def worst_of(pairs: Iterable[Pair]) -> float | None:
    """Return the largest of the residuals' sizes in per cent, or None where there are none."""
    return max(
        (abs(pair.residual_percent) for pair in pairs if pair.residual_percent is not None),
        default=None,
    )
