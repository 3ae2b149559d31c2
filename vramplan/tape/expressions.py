"""Sizes as expressions: text such as ``5120*n*h1*w1`` evaluated at given dimensions.

A tape may come from a stranger, so an expression is made of names, whole numbers, ``+ - * //  %``,
comparisons, parentheses, ``min`` and ``max`` only: there is no attribute, index, string or power in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import CodeType

from vramplan.errors import TapeError

_LONGEST = 400
_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z_0-9]{0,31})|(\d{1,18})|(//|<=|>=|==|!=|[-+*%(),<>]))")
_WORDS = frozenset({"min", "max", "and", "or", "not"})
_BUILTINS = {"__builtins__": {}, "min": min, "max": max}

Dims = Mapping[str, int]


def check_expression(text: str) -> frozenset[str]:
    """Return the dimension names in `text`; raise TapeError for anything but plain arithmetic."""
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise TapeError("an expression in the tape is not a short text")
    names: set[str] = set()
    position, previous = 0, ""
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match:
            raise TapeError(
                f"an expression in the tape has a character it must not have: {text[:60]!r}"
            )
        name, _, sign = match.groups()
        if sign == "*" and previous == "*":
            raise TapeError(f"an expression in the tape has a power: {text[:60]!r}")
        if name and name not in _WORDS:
            names.add(name)
        previous = sign or ""
        position = match.end()
    return frozenset(names)


def compile_expressions(texts: Sequence[str]) -> CodeType:
    """Return one code object that evaluates all `texts` to a tuple."""
    for text in texts:
        check_expression(text)
    try:
        return compile("(" + "".join(f"({text})," for text in texts) + ")", "<tape>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TapeError("an expression in the tape cannot be read") from error


def evaluate_all(code: CodeType, dims: Dims) -> tuple[int, ...]:
    """Return the values of compiled expressions at `dims`."""
    try:
        values: tuple[int, ...] = eval(code, _BUILTINS, dict(dims))  # noqa: S307 - checked token by token
    except (NameError, ZeroDivisionError, TypeError) as error:
        raise TapeError(f"an expression in the tape cannot be evaluated: {error}") from error
    return values


def evaluate(text: str, dims: Dims) -> int:
    """Return the value of one expression at `dims`."""
    return int(evaluate_all(compile_expressions([text]), dims)[0])


def derive(definitions: Mapping[str, str], dims: Dims) -> dict[str, int]:
    """Return `dims` with each definition added, in order; later ones may use earlier ones."""
    known = dict(dims)
    for name, text in definitions.items():
        known[name] = evaluate(text, known)
    return known
