"""`dataclass`, as the standard library has it, made in a fifth of the time, and without it.

The standard library's module is long to load, and compiles six functions for a frozen class;
vramplan makes some eighty such classes before it answers. Here ``__init__`` is compiled, once a
class has many objects, and the rest is shared code. `dataclasses.fields`, `replace` and `asdict`
work as ever: what they look for is made when they do. Only what is ``frozen=True, kw_only=True`` is
made so, with slots or without, compared or not; any other goes to the standard library.
"""

from __future__ import annotations

from operator import attrgetter

from vramplan.quick_typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  # as is how it is made public
    from dataclasses import field as field  # noqa: PLC0414  # as above
    from dataclasses import replace as replace  # noqa: PLC0414  # as above
else:

    def dataclass(cls=None, /, **options):  # noqa: ANN001, ANN003, ANN201  # typed above
        """Return what makes a class a dataclass; see the module."""
        asked = {"eq": True, "slots": False, **options}
        has_eq, has_slots = asked.pop("eq"), asked.pop("slots")
        if cls is None and asked == {"frozen": True, "kw_only": True}:
            return lambda plain: _make(plain, has_eq=has_eq, has_slots=has_slots)
        import dataclasses

        return dataclasses.dataclass(cls, **options)

    def field(**options):  # noqa: ANN003, ANN201  # typed above
        """Return what a class says of a field instead of a default."""
        return _Field(**options)

    def replace(value, /, **changes):  # noqa: ANN001, ANN003, ANN201  # typed above
        """Return a dataclass's object with some of its fields changed."""
        made = value.__class__
        if _FIELDS not in made.__dict__:
            import dataclasses

            return dataclasses.replace(value, **changes)
        for name in made.__dict__[_FIELDS]:
            if name not in changes:
                changes[name] = getattr(value, name)
        return made(**changes)


_FIELDS = "__quick_fields__"
_UNSET: Any = object()
#: compiling saves half a microsecond an object, and takes some fifty, or twice that the first time
_FEW = 100
_set = object.__setattr__


class _Field:
    """What is known of a field: its default, or what makes one, and where it counts."""

    __slots__ = ("compare", "default", "default_factory", "repr")

    def __init__(
        self,
        *,
        default: object = _UNSET,
        default_factory: Callable[[], object] | None = None,
        repr: bool = True,  # noqa: A002  # as the standard library has it
        compare: bool = True,
    ) -> None:
        self.default = default
        self.default_factory = default_factory
        self.repr = repr
        self.compare = compare


#: of a field of which nothing is said: most have no default
_PLAIN = _Field()


def _make(plain: type, *, has_eq: bool, has_slots: bool) -> type:
    """Return the class that `plain` describes: another one, because slots cannot be added."""
    inherited: dict[str, _Field] = {}
    for base in plain.__mro__[-2:0:-1]:  # `object` has none
        inherited |= base.__dict__.get(_FIELDS, {})
    attributes = {**(_METHODS if has_eq else _METHODS_WITHOUT_EQ), **plain.__dict__}
    own = {
        name: _field_of(attributes.pop(name)) if name in attributes else _PLAIN
        for name, annotation in plain.__annotations__.items()
        if not annotation.startswith("ClassVar")
    }
    found = {**inherited, **own}
    for name in ("__dict__", "__weakref__"):
        attributes.pop(name, None)
    if has_slots:
        attributes["__slots__"] = tuple(name for name in own if name not in inherited)
    attributes[_FIELDS] = found
    compared = [name for name, one in found.items() if one.compare]
    attributes["__quick_key__"] = attrgetter(*compared) if compared else staticmethod(_no_key)
    made = type(plain)(plain.__name__, plain.__bases__, attributes)
    made.__qualname__ = plain.__qualname__
    if "__init__" not in plain.__dict__:
        type.__setattr__(made, "__init__", _first_init(made))
    return made


def _field_of(given: Any) -> _Field:
    """Return a default as a field, or the field that the standard library's `field` describes."""
    if given.__class__ is _Field:
        return given
    if given.__class__.__module__ != "dataclasses":
        return _Field(default=given)
    from dataclasses import MISSING

    return _Field(
        default=_UNSET if given.default is MISSING else given.default,
        default_factory=None if given.default_factory is MISSING else given.default_factory,
        repr=given.repr,
        compare=given.compare,
    )


def _first_init(made: type) -> Callable[..., None]:
    """Return an ``__init__`` for the first objects of a class: most classes have few.

    What it has no plain answer to, and every object of a class that has many, is for the compiled
    one, which takes its place.
    """
    fields: Mapping[str, _Field] = made.__dict__[_FIELDS]
    names = fields.keys()
    has_more = hasattr(made, "__post_init__")
    count = 0

    def __init__(self: Any, /, *args: object, **values: object) -> None:  # noqa: N807  # it becomes one
        nonlocal count
        count += 1
        if len(values) < len(names) and not args:
            for name, one in fields.items():
                if name in values:
                    continue
                if one.default is not _UNSET:
                    values[name] = one.default
                elif one.default_factory is not None:
                    values[name] = one.default_factory()
        if count > _FEW or args or values.keys() != names:  # which raises what is right
            type.__setattr__(made, "__init__", _init_of(made))
            made.__init__(self, *args, **values)  # type: ignore[misc]  # the compiled one
            return
        for name, value in values.items():
            _set(self, name, value)
        if has_more:
            self.__post_init__()

    return __init__


def _init_of(made: type) -> Callable[..., None]:
    """Return ``__init__``, compiled: it is called for every object."""
    known: dict[str, object] = {"_set": _set, "_UNSET": _UNSET}
    parameters, body = [], []
    fields: Mapping[str, _Field] = made.__dict__[_FIELDS]
    for name, one in fields.items():
        value = name
        if one.default_factory is not None:
            known[f"_make_{name}"] = one.default_factory
            parameters.append(f"{name}=_UNSET")
            value = f"_make_{name}() if {name} is _UNSET else {name}"
        elif one.default is not _UNSET:
            known[f"_default_{name}"] = one.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        body.append(f" _set(self,{name!r},{value})")
    if hasattr(made, "__post_init__"):
        body.append(" self.__post_init__()")
    star = "*," if parameters else ""
    lines = [f"def __init__(self,{star}{','.join(parameters)}):", *(body or [" pass"])]
    exec("\n".join(lines), known)  # noqa: S102  # names of a class's own fields, as dataclasses does
    function: Any = known["__init__"]
    function.__qualname__ = f"{made.__qualname__}.__init__"
    return function  # type: ignore[no-any-return]  # what was just compiled


# ------------------------------------------------------------------- what all classes share
def _no_key(_self: object) -> tuple[()]:
    return ()


def _same(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self.__quick_key__(self) == self.__quick_key__(other)


def _hashed(self: Any) -> int:
    return hash(self.__quick_key__(self))


def _drawn(self: Any) -> str:
    fields = self.__quick_fields__
    inside = ", ".join(
        f"{name}={getattr(self, name)!r}" for name, one in fields.items() if one.repr
    )
    return f"{self.__class__.__qualname__}({inside})"


def _refuse_value(_self: Any, name: str, _value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_removal(_self: Any, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:
    return [getattr(self, name) for name in self.__quick_fields__]


def _take_state(self: Any, values: list[object]) -> None:
    for name, value in zip(self.__quick_fields__, values, strict=True):
        _set(self, name, value)


def _twin(owner: Any) -> Any:
    """Return the class of the standard library that has the same fields."""
    import dataclasses
    from inspect import get_annotations

    annotations: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        annotations |= get_annotations(base)
    described = []
    for name, one in owner.__quick_fields__.items():
        options: dict[str, Any] = {"repr": one.repr, "compare": one.compare}
        if one.default_factory is not None:
            options["default_factory"] = one.default_factory
        elif one.default is not _UNSET:
            options["default"] = one.default
        described.append((name, annotations[name], dataclasses.field(**options)))
    return dataclasses.make_dataclass("Twin", described, kw_only=True)


class _StandardFields:
    """A class's fields as the standard library keeps them, made when it looks for them."""

    def __get__(self, _value: object, owner: type) -> dict[str, Any]:
        found: dict[str, Any] = _twin(owner).__dataclass_fields__
        type.__setattr__(owner, "__dataclass_fields__", found)
        return found


class _Signature:
    """What a class takes, for `inspect.signature`: its ``__init__`` may not have been compiled."""

    def __get__(self, _value: object, owner: type) -> Any:
        import inspect

        return inspect.signature(_twin(owner))


_METHODS_WITHOUT_EQ: dict[str, object] = {
    "__repr__": _drawn,
    "__setattr__": _refuse_value,
    "__delattr__": _refuse_removal,
    "__getstate__": _state,
    "__setstate__": _take_state,
    "__replace__": replace,
    "__match_args__": (),
    "__dataclass_fields__": _StandardFields(),
    "__signature__": _Signature(),
}
_METHODS = {**_METHODS_WITHOUT_EQ, "__eq__": _same, "__hash__": _hashed}
