"""A library's plans for an operator: the scratch that each takes, in the order they are tried."""

from __future__ import annotations

from collections.abc import Callable

#: gives the scratch of an operator's first plan, in bytes, from its kind and its operands
WorkspaceModel = Callable[[str, tuple[int, ...]], int]

#: more plans of one operator than these are not kept; torch tries several times as many of cuDNN's,
#: most of which take no less than one before them
MOST_PLANS = 8


class ComparedModel:
    """A `WorkspaceModel` that is the same as another of its figures, so that runs can be shared."""

    __slots__ = ()

    def __call__(self, kind: str, operands: tuple[int, ...]) -> int:
        """Return the first plan's workspace in bytes."""
        return self.plans(kind, operands)[0]

    def plans(self, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return the workspaces of the library's plans in the order in which they are tried."""
        raise NotImplementedError


def plans_of(model: WorkspaceModel, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
    """Return the plans of a model, in bytes, the first one first; others have one plan."""
    if isinstance(model, ComparedModel):
        return model.plans(kind, operands)[:MOST_PLANS]
    return (model(kind, operands),)
