"""Sizes as expressions: text such as ``5120*n*h1*w1`` evaluated at given dimensions.

A tape may come from a stranger, so an expression is plain arithmetic: names, whole numbers,
``+ - * // %``, comparisons, ``and or not``, parentheses, ``min`` and ``max``. It is read into
Python's own syntax tree and refused for any other node, before anything of it is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import CodeType

from vramplan.errors import TapeError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded where a stranger's tape is read
    import ast

Dims = Mapping[str, int]

#: no dimension, count or size is beyond this: 2^60 bytes are a million times the largest GPU
LARGEST = 1 << 60

_LONGEST = 400
_CHARACTERS = re.compile(r"[A-Za-z0-9_ +*/%()<>=!,-]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
#: ``1e9``, ``0x10``, ``1_000``, ``1if``: Python reads them, a tape's reader should not have to
_ODD_NUMBER = re.compile(r"(?<![A-Za-z0-9_])[0-9]+[A-Za-z_]")
_FUNCTIONS = frozenset({"min", "max"})
_BUILTINS = {"__builtins__": {}, "min": min, "max": max}


@lru_cache(maxsize=4096)
def check_expression(text: str) -> frozenset[str]:
    """Return the dimension names in `text`; raise TapeError for anything but plain arithmetic."""
    if not 0 < len(text) <= _LONGEST:
        raise TapeError("an expression in the tape is not a short text")
    if not _CHARACTERS.fullmatch(text) or _ODD_NUMBER.search(text):
        raise TapeError(f"an expression in the tape is not plain arithmetic: {text[:60]!r}")
    import ast

    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise TapeError(f"an expression in the tape cannot be read: {text[:60]!r}") from None
    return frozenset(_names(tree, text))


def _names(tree: ast.AST, text: str) -> Iterator[str]:
    """Yield the names below a node; the functions are no names."""
    import ast

    plain = (
        *(ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
        *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq),
        *(ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.Load),
        *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    )
    called: set[ast.AST] = set()
    for node in ast.walk(tree):  # parents before children, and without recursion
        if isinstance(node, ast.Call):
            if not _is_function_call(node):
                raise TapeError(f"an expression in the tape calls what it must not: {text[:60]!r}")
            called.add(node.func)
        elif isinstance(node, ast.Name):
            if node not in called:
                if node.id in _FUNCTIONS or not _NAME.fullmatch(node.id):
                    raise TapeError(f"an expression in the tape misuses a name: {text[:60]!r}")
                yield node.id
        elif isinstance(node, ast.Constant):
            if type(node.value) is not int or node.value > LARGEST:
                raise TapeError(f"a number in the tape is out of range: {text[:60]!r}")
        elif not isinstance(node, plain):
            raise TapeError(f"an expression in the tape is not plain arithmetic: {text[:60]!r}")


def _is_function_call(node: ast.Call) -> bool:
    import ast

    return (
        isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and len(node.args) > 1
        and not node.keywords
    )


def compile_expressions(texts: Sequence[str]) -> CodeType:
    """Return one code object that evaluates all `texts` to a tuple."""
    for text in texts:
        check_expression(text)
    try:
        return compile("(" + "".join(f"({text})," for text in texts) + ")", "<tape>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TapeError("an expression in the tape cannot be read") from error


def evaluate_all(code: CodeType, dims: Dims) -> tuple[int, ...]:
    """Return the values of compiled expressions at `dims`, each of them at most `LARGEST`."""
    try:
        values: tuple[int, ...] = eval(  # noqa: S307  # `check_expression` has seen every node
            code, _BUILTINS, dict(dims)
        )
    except NameError as error:
        raise TapeError(f"an expression in the tape reads an unknown dimension: {error}") from error
    except (ZeroDivisionError, TypeError, RecursionError, MemoryError) as error:
        raise TapeError(f"an expression in the tape cannot be evaluated: {error}") from error
    if values and (max(values) > LARGEST or min(values) < -LARGEST):
        raise TapeError("a size in the tape is out of range at these settings")
    return values


def evaluate(text: str, dims: Dims) -> int:
    """Return the value of one expression at `dims`."""
    return int(evaluate_all(_compile_one(text), dims)[0])


@lru_cache(maxsize=1024)
def _compile_one(text: str) -> CodeType:
    """Return one expression's code; the same few texts are evaluated over and over."""
    return compile_expressions([text])


def derive(definitions: Mapping[str, str], dims: Dims) -> dict[str, int]:
    """Return `dims` with each definition added, in order; later ones may use earlier ones."""
    known = dict(dims)
    for name, text in definitions.items():
        known[name] = evaluate(text, known)
    return known
