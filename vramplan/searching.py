"""Whether a question is one of hundreds: nobody waits some seconds for each answer of a search.

Inside `searching` an engine answers with what it has: it starts no work that takes seconds, and
says in its answer what it did without. Who asks hears of it at once from `noting_left_out`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_searches: ContextVar[bool] = ContextVar("searches", default=False)
_left_out: ContextVar[dict[str, None] | None] = ContextVar("left_out", default=None)


@contextmanager
def searching() -> Iterator[None]:
    """Let what is asked inside be part of a search."""
    token = _searches.set(True)  # the variable's value
    try:
        yield
    finally:
        _searches.reset(token)


def is_search() -> bool:
    """Return whether the question is part of a search."""
    return _searches.get()


@contextmanager
def noting_left_out() -> Iterator[dict[str, None]]:
    """Give the names of pipelines of which a search inside did without a recording, in order."""
    names: dict[str, None] = {}
    token = _left_out.set(names)
    try:
        yield names
    finally:
        _left_out.reset(token)


def leave_out(name: str) -> None:
    """Note that a search does without a recording of a pipeline."""
    names = _left_out.get()
    if names is not None:
        names[name] = None
