"""What every probe can do: look once."""

from __future__ import annotations

from typing import Protocol

from vramplan.measurement.reading import Reading


class Probe(Protocol):
    """Eyes on one GPU: the driver's, torch's, or those of a recorded run."""

    def read(self) -> Reading:
        """Return what can be seen now; what this probe cannot see is None.

        Raises MeasurementError where what could be seen before cannot be seen any more.
        """
