"""What modules take from `typing` when they run, without loading it: 2 ms of a start of 70.

Type checkers see the standard library's own. What is here are its names, which nothing reads before
somebody asks for annotations (`typing.get_type_hints` finds these, and is of no use then).
"""

from __future__ import annotations

TYPE_CHECKING = False

__all__ = [
    "IO",
    "TYPE_CHECKING",
    "Any",
    "BinaryIO",
    "Generic",
    "NoReturn",
    "Protocol",
    "TextIO",
    "TypeAlias",
    "TypeVar",
    "cast",
]

if TYPE_CHECKING:
    from typing import (
        IO,
        Any,
        BinaryIO,
        Generic,
        NoReturn,
        Protocol,
        TextIO,
        TypeAlias,
        TypeVar,
        cast,
    )
else:
    IO = Any = BinaryIO = NoReturn = TextIO = TypeAlias = object

    class Protocol:
        """Methods that something has."""

        __slots__ = ()

    class Generic:
        """A class of which there are several kinds, by what stands in brackets behind it."""

        __slots__ = ()

        def __class_getitem__(cls, _kind):  # noqa: ANN001, ANN204  # typed above
            return cls

    def TypeVar(name, *_kinds, **_options):  # noqa: ANN001, ANN002, ANN003, ANN201, N802  # as above
        """Return what stands for a type."""
        return name

    def cast(_kind, value, /):  # noqa: ANN001, ANN201  # typed above
        """Return `value`, whose type is known to be another."""
        return value
