"""`dataclass`, as the standard library has it, made in a third of the time.

The standard library compiles six functions for a frozen class, and vramplan makes some eighty such
classes before it answers: two fifths of its start. Here one is compiled, ``__init__``, and the
others are shared code over the same ``__dataclass_fields__``, so that `fields`, `replace` and
`asdict` work as ever. Only ``@dataclass(frozen=True, slots=True, kw_only=True)`` is made so; any
other goes to the standard library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  # as is how it is made public
else:

    def dataclass(cls=None, /, **options):  # noqa: ANN001, ANN003, ANN201  # typed above
        """Return what makes a class a dataclass; see the module."""
        if cls is None and options == {"frozen": True, "slots": True, "kw_only": True}:
            return _make
        return dataclasses.dataclass(cls, **options)


_UNSET = object()
_set = object.__setattr__


def _make(cls: type) -> type:
    # eq, hash, repr and what keeps it frozen are added below, without compiling them
    plain = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)
    made: type = plain(cls)
    found: dict[str, dataclasses.Field[Any]] = made.__dataclass_fields__  # type: ignore[attr-defined]  # plain made it
    fields = [one for one in found.values() if one._field_type is dataclasses._FIELD]  # type: ignore[attr-defined]  # noqa: SLF001  # a class variable is listed too
    own: dict[str, Callable[..., object]] = {
        "__init__": _init_of(made, fields),
        **_methods(fields),
    }
    for name, function in own.items():
        if name not in cls.__dict__:
            function.__qualname__ = f"{cls.__qualname__}.{name}"
            type.__setattr__(made, name, function)
    return made


def _init_of(made: type, fields: list[dataclasses.Field[Any]]) -> Callable[..., None]:
    """Return ``__init__``, compiled: it is called for every object."""
    known: dict[str, object] = {"_set": _set, "_UNSET": _UNSET}
    parameters, body = [], []
    for field in fields:
        name = field.name
        value = name
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = field.default_factory
            parameters.append(f"{name}=_UNSET")
            value = f"_make_{name}() if {name} is _UNSET else {name}"
        elif field.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        body.append(f" _set(self,{name!r},{value})")
    if hasattr(made, "__post_init__"):
        body.append(" self.__post_init__()")
    star = "*," if parameters else ""
    lines = [f"def __init__(self,{star}{','.join(parameters)}):", *(body or [" pass"])]
    exec("\n".join(lines), known)  # noqa: S102  # names of a class's own fields, as dataclasses does
    return known["__init__"]  # type: ignore[return-value]  # what was just compiled


def _methods(fields: list[dataclasses.Field[Any]]) -> dict[str, Callable[..., object]]:
    names = [one.name for one in fields]
    shown = [one.name for one in fields if one.repr]
    compared = [one.name for one in fields if one.compare]
    if len(compared) > 1:
        key: Callable[[Any], object] = attrgetter(*compared)
    else:

        def key(value: Any) -> object:
            return tuple(getattr(value, name) for name in compared)

    def same(self: Any, other: object) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(key(self))

    def drawn(self: Any) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({inside})"

    def refuse_value(_self: Any, name: str, _value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def refuse_removal(_self: Any, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def state(self: Any) -> list[object]:
        return [getattr(self, name) for name in names]

    def take_state(self: Any, values: list[object]) -> None:
        for name, value in zip(names, values, strict=True):
            _set(self, name, value)

    return {
        "__eq__": same,
        "__hash__": hashed,
        "__repr__": drawn,
        "__setattr__": refuse_value,
        "__delattr__": refuse_removal,
        "__getstate__": state,
        "__setstate__": take_state,
    }
