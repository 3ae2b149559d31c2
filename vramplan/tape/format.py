"""The tape's file format: deterministic JSON, read with every count bounded.

    schema, pipeline, recorded_with {torch, diffusers, transformers}
    least       the smallest numbers at which the recorded loops hold
    dtype_facts which facts a dtype stands for
    dims        settings → the entry routine's dimensions
    components  name → its modules' tensors, in load order: element counts, or "616B" for fixed bytes
    routines    name → variants: when {fact: values}, if (a condition on dims), indices (loops),
                derived (dims), sizes, outputs (slots), code

Code is a list. A number n >= 0 allocates `sizes[n]` into the next slot, n < 0 frees slot -n-1; lists are
["f", up, path, slot or [first, last]...] free elsewhere, ["w", kind, size...] library scratch, ["g"] a matrix product,
["p", phase] or ["p", phase, component], ["c", routine, {dim: size}, outputs] call, ["e"|"x", component, module] enter and exit a module with weights, ["t", component, bytes] cast weights,
["l", name, count, before, body, after] loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import TypeAlias, cast

from vramplan.errors import TapeError
from vramplan.tape.expressions import check_expression, compile_expressions

SCHEMA = 1
_LARGEST_BYTES = 8 << 20
_MOST_CODE = 200_000
_DEEPEST = 12

Code: TypeAlias = list[object]


@dataclass(frozen=True)
class Variant:
    """A routine's code under certain facts (dtype, attention kernel) and a condition on its dims."""

    when: Mapping[str, tuple[str, ...]]
    condition: str | None
    indices: tuple[str, ...]
    derived: Mapping[str, str]
    sizes: tuple[str, ...]
    outputs: tuple[int, ...]
    code: Code

    @cached_property
    def sizes_code(self) -> CodeType:
        """The sizes, compiled once."""
        return compile_expressions(self.sizes)

    @cached_property
    def plain_code(self) -> Code:
        """The code without the marks that only sequential offload reads."""
        return _without_modules(self.code)

    @cached_property
    def peers(self) -> frozenset[str]:
        """The loops whose iterations free what the same iteration of an earlier run left."""
        return frozenset(_peers(self.code))

    @cached_property
    def names(self) -> frozenset[str]:
        """Every dimension the sizes and definitions read."""
        return frozenset().union(*map(check_expression, (*self.sizes, *self.derived.values())))


def _peers(code: Code) -> Iterator[str]:
    for op in code:
        if not isinstance(op, list):
            continue
        if op[0] == "l":
            for part in (*op[3], op[4], *op[5]):
                yield from _peers(part)
        elif op[0] == "f":
            yield from (
                step[1][1] for step in op[2] if isinstance(step[1], list) and step[1][0] == "same"
            )


def _without_modules(code: Code) -> Code:
    kept: Code = []
    for op in code:
        if isinstance(op, list) and op[0] == "l":
            before, body, after = op[3:6]
            parts = [_without_modules(part) for part in before], _without_modules(body)
            kept.append([*op[:3], *parts, [_without_modules(part) for part in after]])
        elif not (isinstance(op, list) and op[0] in ("e", "x")):
            kept.append(op)
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A component's tensors in load order, a tuple for each module that has some.

    An `int` is a count of elements of the component's dtype, a `str` such as ``616B`` fixed bytes.
    """

    parameters: int
    modules: tuple[tuple[int | str, ...], ...]
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # part -> module numbers
    part_parameters: Mapping[str, int] = field(default_factory=dict)

    def tensor_bytes(self, module: int, element_bytes: int) -> list[int]:
        """Return the bytes of each tensor of one module at `element_bytes` an element."""
        return [
            int(t[:-1]) if isinstance(t, str) else t * element_bytes for t in self.modules[module]
        ]

    def total_bytes(self, element_bytes: int) -> int:
        """Return the bytes of all tensors, unrounded."""
        return sum(sum(self.tensor_bytes(m, element_bytes)) for m in range(len(self.modules)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """A recorded pipeline: code and weights, sizes still open."""

    pipeline: str
    recorded_with: Mapping[str, str]
    dims: Mapping[str, str]
    least: Mapping[str, int]
    dtype_facts: Mapping[str, Mapping[str, str]]
    entry: str
    components: Mapping[str, Weights]
    routines: Mapping[str, tuple[Variant, ...]]

    @property
    def is_one_model(self) -> bool:
        """True where the pipeline is one model whose parts are named on their own (llava)."""
        return len(self.components) == 1 and "vae" not in self.components


def read_slots(written: Sequence[object]) -> Iterator[int]:
    """Yield the slots that a free names: numbers, and [first, last] for all from one to the other."""
    for slot in written:
        if isinstance(slot, list):
            yield from range(slot[0], slot[1] + 1)
        else:
            yield cast("int", slot)


def write_tape(tape: Mapping[str, object]) -> str:
    """Return the tape's text: the same tape always gives the same bytes, one routine variant a line."""
    head = {key: value for key, value in tape.items() if key != "routines"}
    routines = tape["routines"]
    assert isinstance(routines, dict)
    lines = [_dense(head)[:-1] + ',"routines":{']
    for i, name in enumerate(sorted(routines)):
        variants = ",\n".join(_dense(variant) for variant in routines[name])
        lines.append(("," if i else "") + json.dumps(name) + ":[\n" + variants + "\n]")
    return "\n".join(lines) + "\n}}\n"


def _dense(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def read_tape(path: Path) -> Tape:
    """Return the tape in `path`; raise TapeError where it is missing, cut short, foreign or too large."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise TapeError(f"{path}: a tape larger than {_LARGEST_BYTES >> 20} MiB is not read")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TapeError(f"{path}: no such tape", hint="record it with: vramplan record") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TapeError(f"{path}: cannot be read: {error}") from None
    return parse_tape(text, str(path))


def parse_tape(text: str, path: str) -> Tape:
    """Return the tape in `text`; `path` names it in errors."""
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = f":{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise TapeError(
            f"{path}{place}: not a whole tape (cut short?)",
            hint="record it again with: vramplan record",
        ) from None
    if not isinstance(raw, dict) or "schema" not in raw:
        raise TapeError(f"{path}: not a tape")
    if raw["schema"] != SCHEMA:
        raise TapeError(
            f"{path}: tape schema {raw['schema']!r}, this vramplan reads {SCHEMA}",
            hint="record it again with: vramplan record",
        )
    try:
        return _tape(raw)
    except TapeError as error:
        raise TapeError(f"{path}: {error}", hint=error.hint) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise TapeError(
            f"{path}: a part of the tape is missing or of the wrong kind ({error})"
        ) from None


def _tape(raw: dict[str, object]) -> Tape:
    routines = raw["routines"]
    components = raw["components"]
    dims = raw["dims"]
    versions = raw["recorded_with"]
    least = raw["least"]
    dtype_facts = raw["dtype_facts"]
    if not (
        isinstance(routines, dict)
        and isinstance(components, dict)
        and isinstance(dims, dict)
        and isinstance(least, dict)
    ):
        raise TypeError("routines, components, dims and least must be mappings")
    if not (isinstance(versions, dict) and isinstance(dtype_facts, dict)):
        raise TypeError("recorded_with and dtype_facts must be mappings")
    for text in dims.values():
        check_expression(text)
    tape = Tape(
        pipeline=str(raw["pipeline"]),
        recorded_with={str(k): str(v) for k, v in versions.items()},
        dims=dims,
        least=least,
        dtype_facts=dtype_facts,
        entry=str(raw["entry"]),
        components={name: _weights(value) for name, value in components.items()},
        routines={
            name: tuple(_variant(v) for v in variants) for name, variants in routines.items()
        },
    )
    if tape.entry not in tape.routines:
        raise TapeError(f"the entry routine {tape.entry!r} is missing")
    return tape


def _weights(raw: dict[str, object]) -> Weights:
    modules = raw["modules"]
    parts = raw.get("parts", {})
    counts = raw.get("part_parameters", {})
    if not (isinstance(modules, list) and isinstance(parts, dict) and isinstance(counts, dict)):
        raise TypeError("a component's modules must be a list, its parts mappings")
    parameters = raw["parameters"]
    if not isinstance(parameters, int):
        raise TypeError("parameters must be a number")
    return Weights(
        parameters=parameters,
        modules=tuple(tuple(tensors) for tensors in modules),
        parts={name: tuple(numbers) for name, numbers in parts.items()},
        part_parameters={str(k): int(v) for k, v in counts.items()},
    )


def _variant(raw: dict[str, object]) -> Variant:
    when, derived, sizes = raw["when"], raw["derived"], raw["sizes"]
    outputs, code, condition, indices = raw["outputs"], raw["code"], raw["if"], raw["indices"]
    if not (isinstance(when, dict) and isinstance(derived, dict)):
        raise TypeError("when and derived must be mappings")
    if not all(isinstance(part, list) for part in (sizes, outputs, code, indices)):
        raise TypeError("sizes, outputs, code and indices must be lists")
    for text in (*sizes, *derived.values(), *([condition] if condition is not None else [])):
        check_expression(text)
    _check_code(code, len(sizes), [0], 0)
    return Variant(
        when={str(k): tuple(v) for k, v in when.items()},
        condition=condition if isinstance(condition, str) else None,
        indices=tuple(map(str, indices)),
        derived={str(k): str(v) for k, v in derived.items()},
        sizes=tuple(sizes),
        outputs=tuple(outputs),
        code=code,
    )


def _check_code(code: object, sizes: int, count: list[int], depth: int) -> None:
    """Refuse code whose numbers point outside of its tables; slots are checked when it runs."""
    if not isinstance(code, list) or depth > _DEEPEST:
        raise TapeError("code is not a list, or nested too deeply")
    count[0] += len(code)
    if count[0] > _MOST_CODE:
        raise TapeError(f"a routine with more than {_MOST_CODE} steps is not read")
    for op in code:
        if type(op) is int:
            if op >= sizes:
                raise TapeError(f"step {op} allocates a size that is not there")
        elif isinstance(op, list) and op:
            if op[0] == "l":
                check_expression(op[2])
                for part in (*op[3], op[4], *op[5]):
                    _check_code(part, sizes, count, depth + 1)
        else:
            raise TapeError(f"unknown step {str(op)[:40]!r}")
