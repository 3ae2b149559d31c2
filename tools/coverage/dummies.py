"""The dummy components of diffusers' own tests, which lie in a folder: whose, and made.

A class without a test gets those of its relatives, by its constructor's names and types.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.coverage.fetched_instead import small_model
from vramplan.engines.torch.record.saved.stand_ins import stand_in

Value = Any

#: how many tests a class without one may borrow of: its relatives', and others that have its parts
_RELATIVES, _OTHERS = 8, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Dummies:
    """A pipeline's components, and what its test calls it with. They are new each time."""

    components: Mapping[str, Value]
    inputs: Mapping[str, Value]


def find_places(folders: Sequence[Path]) -> dict[str, str]:
    """Return where the dummies of each pipeline are made; the first folder's go before others'."""
    found: dict[str, str] = {}
    for folder in reversed(folders):
        found |= dict(places(folder.resolve()))
    return found


def places(tests: Path) -> Iterator[tuple[str, str]]:
    """Yield a pipeline's name with the file and the class that make its dummies."""
    for path in sorted((tests / "pipelines").rglob("test_*.py"), reverse=True):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}
        module = ".".join(path.relative_to(tests.parent).with_suffix("").parts)
        for name, one in classes.items():
            pipeline = _assigned(one, classes, "pipeline_class")
            if pipeline and _has(one, classes, "get_dummy_components"):
                yield _unwrapped(pipeline, classes), f"{tests.parent}:{module}:{name}"


def _unwrapped(name: str, classes: Mapping[str, ast.ClassDef]) -> str:
    """Return the library's class where a test has a subclass of its own."""
    if name not in classes:
        return name
    bases = [one.id for one in classes[name].bases if isinstance(one, ast.Name)]
    return _unwrapped(bases[0], classes) if bases and bases[0] != name else name


def _bases(one: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield one
    for base in one.bases:
        if isinstance(base, ast.Name) and base.id in classes and classes[base.id] is not one:
            yield from _bases(classes[base.id], classes)


def _assigned(one: ast.ClassDef, classes: Mapping[str, ast.ClassDef], name: str) -> str:
    for body in _bases(one, classes):
        for line in body.body:
            if (
                isinstance(line, ast.Assign)
                and isinstance(line.value, ast.Name)
                and any(isinstance(t, ast.Name) and t.id == name for t in line.targets)
            ):
                return line.value.id
    return ""


def _has(one: ast.ClassDef, classes: Mapping[str, ast.ClassDef], name: str) -> bool:
    return any(
        isinstance(line, ast.FunctionDef) and line.name == name
        for body in _bases(one, classes)
        for line in body.body
    )


def lenders(name: str, known: Mapping[str, str], packages: Mapping[str, str]) -> tuple[str, ...]:
    """Return the places of other classes' dummies, of those first that are likest to this one.

    `packages` are the folders of diffusers in which classes are.
    """

    def likeness(other: str) -> tuple[bool, int, int]:
        is_near = name in packages and packages.get(other) == packages[name]
        return is_near, _alike(name, other), -len(other)

    return tuple(known[one] for one in sorted(known, key=likeness, reverse=True))


def _alike(one: str, other: str) -> int:
    """Return how many letters two names begin with alike."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def own(place: str) -> Dummies:
    """Return the dummies that a test makes. Raises whatever the test does."""
    folder, module, name = place.rsplit(":", 2)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    for known in [one for one in sys.modules if one.split(".")[0] == "tests"]:
        del sys.modules[known]
    tester = getattr(importlib.import_module(module), name)()
    components = tester.get_dummy_components()
    wanted = inspect.signature(tester.get_dummy_inputs).parameters
    inputs = tester.get_dummy_inputs(*(["cpu"] if "device" in wanted else []))
    return Dummies(components=components, inputs=inputs)


def borrowed(cls: type, places_of_others: Sequence[str]) -> Dummies:
    """Return the parts that a class wants of those that others' tests make, and one's inputs.

    Raises LookupError where one is nowhere to be had.
    """
    wanted = {
        name: one
        for name, one in _signature(cls).parameters.items()
        if name != "self" and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    needed = {name for name, one in wanted.items() if one.default is one.empty}
    # a scheduler of another pipeline may be set up for what that one's model makes
    found: dict[str, Value] = {
        name: one.annotation() for name, one in wanted.items() if _is_scheduler(one.annotation)
    }
    inputs: Mapping[str, Value] = {}
    tried = 0
    for number, place in enumerate(places_of_others):
        missing = needed - found.keys()
        if not missing or tried >= _RELATIVES + _OTHERS:
            break
        kinds = {wanted[name].annotation for name in missing}
        if number >= _RELATIVES and not _makes_one_of(place, kinds):
            continue
        tried += 1
        try:
            theirs = own(place)
        except Exception:  # noqa: BLE001, S112  # any test may fail: the next one may not
            continue
        new = {
            name: theirs.components[name]
            for name, one in wanted.items()
            if name not in found
            and name in theirs.components
            and _is_a(theirs.components[name], one.annotation)
        }
        inputs = inputs or (theirs.inputs if new else {})
        found |= new
    for name in needed - found.keys():
        found[name] = _made(name, wanted[name].annotation)
    return Dummies(components=found, inputs=inputs)


def _signature(cls: type) -> inspect.Signature:
    """Return a constructor's signature, its types as such where their names are known."""
    try:
        return inspect.signature(cls.__init__, eval_str=True)
    except (NameError, TypeError, AttributeError):  # a name for type checkers alone
        return inspect.signature(cls.__init__)


def _makes_one_of(place: str, kinds: Iterable[Value]) -> bool:
    """Return whether a test has the name of one of these classes in it, without importing it."""
    folder, module, _ = place.rsplit(":", 2)
    text = Path(folder, *module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    return any(f"{kind.__name__}(" in text for kind in kinds if isinstance(kind, type))


def _is_scheduler(annotation: Value) -> bool:
    return (
        isinstance(annotation, type)
        and annotation.__module__.startswith("diffusers.")
        and annotation.__name__.endswith("Scheduler")
    )


def _is_a(value: Value, annotation: Value) -> bool:
    return value is None or not isinstance(annotation, type) or isinstance(value, annotation)


def _made(name: str, annotation: Value) -> Value:
    """Return a part by its type alone: a small model, a stand-in."""
    if isinstance(annotation, type):
        library, kind = annotation.__module__.partition(".")[0], annotation.__name__
        if library == "transformers" and kind.endswith(
            ("Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor")
        ):
            return stand_in(f"transformers.{kind}", {})
        if library == "transformers" and hasattr(annotation, "config_class"):
            return small_model(annotation)
    raise LookupError(f"diffusers' tests have no dummy components of it, nor any other's {name}")
