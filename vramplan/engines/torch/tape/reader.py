"""From JSON to a tape, with every kind, count and number looked at: it may come from a stranger."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from vramplan.engines.torch.tape.code_check import (
    MOST_SLOTS,
    CodeCheck,
    check_calls,
    is_name,
    shorten,
)
from vramplan.engines.torch.tape.contents import Tape, Variant, Weights, find_facts
from vramplan.engines.torch.tape.expressions import check_expression
from vramplan.errors import TapeError
from vramplan.quick_typing import TypeVar

_T = TypeVar("_T")

#: how many of a thing a tape may have; the tapes that ship stay a factor of ten below
_MOST_NAMES = 1_000
_MOST_SIZES = 10_000
_MOST_TENSORS = 200_000
#: elements, parameters, bytes or settings: 2^43 bytes are 8 TiB
_LARGEST = 1 << 43
_FIXED_BYTES = re.compile(r"[0-9]{1,13}B")


def build_tape(raw: Mapping[str, object]) -> Tape:
    """Return the tape that `raw` describes; raise TapeError for the first thing that is wrong."""
    components = _components(raw)
    modules = {name: len(weights.modules) for name, weights in components.items()}
    calls: dict[str, set[tuple[str, int]]] = {}

    def routine(value: object, what: str) -> tuple[Variant, ...]:
        variants = _sequence(value, what, _variant)
        called = calls[what.removeprefix("routines.")] = set[tuple[str, int]]()
        for variant in variants:
            called |= _called(variant, modules, what)
        return variants

    tape = _tape(raw, components, _mapping(_part(raw, "routines"), "routines", routine))
    if tape.entry not in tape.routines:
        raise TapeError(f"the entry routine {shorten(tape.entry)} is missing")
    for name, called in calls.items():
        for callee, outputs in called:
            _check_call(tape, name, callee, outputs)
    check_calls({name: {callee for callee, _ in called} for name, called in calls.items()})
    return tape


def build_checked_tape(
    head: Mapping[str, object], routines: Mapping[str, tuple[Variant, ...]]
) -> Tape:
    """Return the tape of a head and of routines that have been looked at before."""
    return _tape(head, _components(head), routines)


def _components(raw: Mapping[str, object]) -> dict[str, Weights]:
    components = _mapping(_part(raw, "components"), "components", _weights)
    tensors = sum(len(module) for weights in components.values() for module in weights.modules)
    if tensors > _MOST_TENSORS:
        raise TapeError(f"{tensors} tensors are more than {_MOST_TENSORS}")
    return components


def _tape(
    raw: Mapping[str, object],
    components: Mapping[str, Weights],
    routines: Mapping[str, tuple[Variant, ...]],
) -> Tape:
    dims = _mapping(_part(raw, "dims"), "dims", _expression)
    for text in _object(raw.get("domain", {}), "domain"):
        _expression(text, "domain")
    return Tape(
        pipeline=_name(_part(raw, "pipeline"), "pipeline"),
        recorded_with=_mapping(_part(raw, "recorded_with"), "recorded_with", _name),
        dims=dims,
        least=_mapping(_part(raw, "least"), "least", _whole),
        dtype_facts=_mapping(_part(raw, "dtype_facts"), "dtype_facts", _words),
        entry=_name(_part(raw, "entry"), "entry"),
        components=components,
        routines=routines,
        known_facts=find_facts(routines),
        domain=_mapping(raw.get("domain", {}), "domain", _range),
        known_numbers=tuple(sorted(frozenset().union(*map(check_expression, dims.values())))),
    )


def _called(variant: Variant, modules: Mapping[str, int], what: str) -> set[tuple[str, int]]:
    check = CodeCheck(sizes=len(variant.sizes), modules=modules)
    try:
        check.check(variant.code)
    except TapeError as error:
        raise TapeError(f"{what}: {error}") from None
    return check.calls


def _check_call(tape: Tape, name: str, callee: str, outputs: int) -> None:
    if callee not in tape.routines:
        raise TapeError(f"routine {shorten(name)} calls {shorten(callee)}, which is missing")
    if any(len(variant.outputs) != outputs for variant in tape.routines[callee]):
        raise TapeError(f"routine {shorten(callee)} does not leave the {outputs} outputs it should")


def _weights(value: object, what: str) -> Weights:
    raw = _object(value, what)
    modules = _sequence(_part(raw, "modules", what), f"{what}.modules", _tensors, _MOST_TENSORS)

    def numbers(part: object, where: str) -> tuple[int, ...]:
        found = _sequence(part, where, _whole, _MOST_TENSORS)
        if found and max(found) >= len(modules):
            raise TapeError(f"{where}: a module that is not there")
        return found

    return Weights(
        parameters=_whole(_part(raw, "parameters", what), f"{what}.parameters"),
        modules=modules,
        parts=_mapping(raw.get("parts", {}), f"{what}.parts", numbers),
        part_parameters=_mapping(raw.get("part_parameters", {}), f"{what}.part_parameters", _whole),
    )


def _tensors(value: object, what: str) -> tuple[int | str, ...]:
    return _sequence(value, what, _tensor, _MOST_TENSORS)


def _tensor(value: object, what: str) -> int | str:
    if isinstance(value, str):
        if not _FIXED_BYTES.fullmatch(value):
            raise TapeError(f"{what}: {shorten(value)} is not a size in bytes")
        return value
    return _whole(value, what)


def _variant(value: object, what: str) -> Variant:
    raw = _object(value, what)
    condition = _part(raw, "if", what)
    outputs = _sequence(_part(raw, "outputs", what), f"{what}.outputs", _whole, _MOST_SIZES)
    if outputs and max(outputs) > MOST_SLOTS:
        raise TapeError(f"{what}.outputs: a slot that cannot be")
    code = _part(raw, "code", what)
    if not isinstance(code, list):
        raise TapeError(f"{what}.code is not a list")
    return Variant(
        when=_mapping(
            _part(raw, "when", what), f"{what}.when", lambda v, w: _sequence(v, w, _name)
        ),
        condition=None if condition is None else _expression(condition, f"{what}.if"),
        indices=_sequence(_part(raw, "indices", what), f"{what}.indices", _name),
        derived=_mapping(_part(raw, "derived", what), f"{what}.derived", _expression),
        sizes=_sequence(_part(raw, "sizes", what), f"{what}.sizes", _expression, _MOST_SIZES),
        outputs=outputs,
        code=code,
    )


# --------------------------------------------------------------------------- plain kinds
def _part(raw: Mapping[str, object], key: str, where: str = "") -> object:
    if key not in raw:
        raise TapeError(f"{where + ': ' if where else ''}{key} is missing")
    return raw[key]


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TapeError(f"{what} is not a mapping")
    return value


def _mapping(value: object, what: str, read: Callable[[object, str], _T]) -> dict[str, _T]:
    found = _object(value, what)
    if len(found) > _MOST_NAMES:
        raise TapeError(f"{what} has more than {_MOST_NAMES} entries")
    return {_name(key, what): read(part, f"{what}.{key}") for key, part in found.items()}


def _sequence(
    value: object, what: str, read: Callable[[object, str], _T], most: int = _MOST_NAMES
) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise TapeError(f"{what} is not a list")
    if len(value) > most:
        raise TapeError(f"{what} has more than {most} entries")
    return tuple([read(part, what) for part in value])


def _words(value: object, what: str) -> dict[str, str]:
    return _mapping(value, what, _name)


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise TapeError(f"{what}: {shorten(value)} is not a short text")
    return value


def _whole(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise TapeError(f"{what}: {shorten(value)} is not a number from 0 to {_LARGEST}")
    return value


def _range(value: object, what: str) -> tuple[int, int]:
    found = _sequence(value, what, _whole, 2)
    if len(found) != 2:
        raise TapeError(f"{what}: not the least and the most")
    return found[0], found[1]


def _expression(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TapeError(f"{what}: {shorten(value)} is not an expression")
    try:
        check_expression(value)
    except TapeError as error:
        raise TapeError(f"{what}: {error}") from None
    return value
