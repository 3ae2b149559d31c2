"""By how much today's libraries would change a figure that is known."""

from __future__ import annotations

from vramplan.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A figure in bytes as it is known, and as it would be now; None where there is none.

    `what` is allocated peak, reserved peak or least limit, at a pipeline's own settings.
    """

    compute_capability: str
    what: str
    before_bytes: int | None
    now_bytes: int | None

    @property
    def change_bytes(self) -> int | None:
        """What the libraries add; below 0 what they save."""
        if self.before_bytes is None or self.now_bytes is None:
            return None
        return self.now_bytes - self.before_bytes
