"""From a recipe to a tape: run every sample, group the streams by facts, assemble."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.assemble import Grammar, assemble
from vramplan.engines.torch.record.routines import module_tensors
from vramplan.engines.torch.record.session import Facts, Progress, Recipe, Session
from vramplan.engines.torch.record.stream import Stream
from vramplan.engines.torch.tape.format import SCHEMA
from vramplan.errors import RecordingError

Group = tuple[tuple[str, str], ...]


def record_tape(
    pipeline: str, recipe: Recipe, progress: Progress = lambda _: None
) -> dict[str, object]:
    """Return the tape of `pipeline` as JSON-ready data; the same recipe gives the same tape.

    Raises RecordingError where an event is not reproduced exactly by what was found.
    """
    groups: dict[str, dict[Group, list[Stream]]] = {}
    components: Mapping[str, object] = {}
    for facts, samples in recipe.sessions:
        session = Session(recipe, facts)
        components = components or _components(recipe, session)
        shown = " ".join(f"{k}={v}" for k, v in facts.items())
        for number, sample in enumerate(samples, 1):
            progress(f"{shown}  run {number} of {len(samples)}")
            before = set(session.routines.memory)
            stream = session.record(sample)
            if sample.keep_main:
                _sort_in(groups, recipe, "main", sample.facts, stream)
            for key, memory in session.routines.memory.items():
                if key not in before:
                    _sort_in(groups, recipe, memory.stream.routine, sample.facts, memory.stream)
    progress("finding the sizes")

    def assembled(name: str, streams: list[Stream]) -> list[dict[str, object]]:
        return assemble(name, streams, recipe.grammars.get(name, Grammar()))

    routines = {name: variants_of(name, found, assembled) for name, found in groups.items()}
    return {
        "schema": SCHEMA,
        "pipeline": pipeline,
        "recorded_with": versions(),
        "dims": dict(recipe.dims),
        "least": dict(recipe.least),
        "dtype_facts": {dtype: dict(facts) for dtype, facts in recipe.dtype_facts.items()},
        "entry": "main",
        "components": components,
        "routines": routines,
    }


def versions() -> dict[str, str]:
    """Return the versions a tape was recorded with."""
    import diffusers
    import transformers

    return {
        "torch": torch.__version__.partition("+")[0],
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def _sort_in(
    groups: dict[str, dict[Group, list[Stream]]],
    recipe: Recipe,
    routine: str,
    facts: Facts,
    stream: Stream,
) -> None:
    names = recipe.relevant.get(routine, ("dtype", "kernel"))
    group = tuple((name, facts[name]) for name in names if name in facts)
    groups.setdefault(routine, {}).setdefault(group, []).append(stream)


def variants_of(
    routine: str,
    groups: Mapping[Group, list[Stream]],
    assembled: Callable[[str, list[Stream]], list[dict[str, object]]],
) -> list[dict[str, object]]:
    """Return the routine's variants, as `assembled` makes them of the streams of one group."""
    found: dict[Group, list[dict[str, object]]] = {}
    for group, streams in groups.items():
        try:
            found[group] = assembled(routine, streams)
        except RecordingError as error:
            raise RecordingError(f"{error} ({', '.join(f'{k}={v}' for k, v in group)})") from None
    return merged(found)


def merged(found: Mapping[Group, list[dict[str, object]]]) -> list[dict[str, object]]:
    """Return the variants of one routine in all groups; groups with the same code share one."""
    known: dict[str, tuple[dict[str, object], list[Group]]] = {}
    order: list[str] = []
    for group, variants in found.items():
        for variant in variants:
            key = json.dumps(variant, sort_keys=True)
            if key not in known:
                known[key] = (variant, [])
                order.append(key)
            known[key][1].append(group)
    written: list[dict[str, object]] = []
    for key in order:
        variant, where = known[key]
        written.extend({**variant, "when": when} for when in _whens(where))
    return written


def _whens(groups: list[Group]) -> list[dict[str, list[str]]]:
    """Return conditions that hold for exactly these groups, one where they form a product."""
    values: dict[str, list[str]] = {}
    for group in groups:
        for name, value in group:
            if value not in values.setdefault(name, []):
                values[name].append(value)
    size = 1
    for found in values.values():
        size *= len(found)
    if size == len(groups):
        return [{name: sorted(found) for name, found in values.items()}]
    return [{name: [value] for name, value in group} for group in groups]


def _components(recipe: Recipe, session: Session) -> dict[str, object]:
    element = recipe.element_bytes(session.facts)
    return {
        name: describe_weights(module, recipe.parts.get(name, {}), element)
        for name, module in session.modules.items()
    }


def describe_weights(
    module: torch.nn.Module, parts: Mapping[str, str], element_bytes: int
) -> dict[str, object]:
    """Return a component's tensors, module by module in load order, and its parts' places."""
    groups = module_tensors(module)
    numbers = {id(tensors[0]): i for i, tensors in enumerate(groups)}
    described: dict[str, list[int]] = {}
    for part, path in parts.items():
        inside = {id(tensors[0]) for tensors in module_tensors(module.get_submodule(path))}
        described[part] = sorted(numbers[key] for key in inside)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "modules": [[_tensor(t, element_bytes) for t in tensors] for tensors in groups],
        "parts": described,
        "part_parameters": {
            part: sum(p.numel() for p in module.get_submodule(path).parameters())
            for part, path in parts.items()
        },
    }


def _tensor(tensor: Any, element_bytes: int) -> int | str:
    if tensor.is_floating_point() and tensor.element_size() == element_bytes:
        return int(tensor.numel())
    return f"{tensor.numel() * tensor.element_size()}B"
