"""Who hears what long work is doing, where the one who does it may not print and gets no listener.

A question that may take long is asked inside `heard_by`; whoever answers it says its steps to the
`listener`, which a thread of its own has to be given. What is said once of all answers goes to
`remark`, of every thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listen: Callable[[str], None]) -> Iterator[None]:
    """Let `listen` be told the steps of what is done inside."""
    token = _listener.set(listen)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Callable[[str], None]:
    """Return who is to be told the steps; what nobody listens to is lost."""
    return _listener.get() or _nobody


def _nobody(_step: str) -> None:
    return


class _Told:
    """Who is told remarks."""

    tell: Callable[[str], None] | None = None


@contextmanager
def remarked_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Let `tell` have what is remarked inside."""
    before = _Told.tell
    _Told.tell = staticmethod(tell)
    try:
        yield
    finally:
        _Told.tell = before if before is None else staticmethod(before)


def remark(text: str) -> None:
    """Tell whoever wants to know; where nobody does it is a warning of Python's."""
    if _Told.tell is not None:
        _Told.tell(text)
        return
    import warnings  # only then

    warnings.warn(text, RuntimeWarning, stacklevel=2)
