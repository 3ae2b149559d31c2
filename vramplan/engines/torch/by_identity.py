"""What is large and never changed, as a key of what was worked out from it once."""

from __future__ import annotations

from vramplan.quick_typing import Generic, TypeVar

T = TypeVar("T")


class ById(Generic[T]):
    """Something compared by identity: what is cached holds it, so that its id stays its own."""

    __slots__ = ("of",)

    def __init__(self, of: T) -> None:
        """Stand for `of`."""
        self.of = of

    def __hash__(self) -> int:
        """Return the same for the same object."""
        return id(self.of)

    def __eq__(self, other: object) -> bool:
        """Return whether both stand for one object."""
        return isinstance(other, ById) and other.of is self.of
