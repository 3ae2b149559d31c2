"""Whether a question is one of hundreds: nobody waits some seconds for each answer of a search.

Inside `searching` an engine answers with what it has: it starts no work that takes seconds, and
says in its answer what it did without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_searches: ContextVar[bool] = ContextVar("searches", default=False)


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
