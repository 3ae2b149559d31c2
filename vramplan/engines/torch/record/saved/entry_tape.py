"""The tape of a catalogue's entry that no recipe knows: any class's own code, at several settings.

Each run is recorded in a process of its own, forked from one that holds the components and nothing
else: what a run leaves behind (caches of tables, a scheduler's state) is not there for the next.
What is remembered of calls (`memory`) is handed on. Runs under the same words whose events are the
same are one variant; sizes are found by `size_search`; the whole is held against runs that nothing
was found from, in which nothing is remembered.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from math import gcd
from typing import Any

import torch

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.assemble import Grammar, assemble
from vramplan.engines.torch.record.recorder import describe_weights, variants_of, versions
from vramplan.engines.torch.record.saved.build import SavedPart, build_part
from vramplan.engines.torch.record.saved.constant_tape import LEAST_TOKENS, TOKENS, Recorded
from vramplan.engines.torch.record.saved.entry_settings import groups
from vramplan.engines.torch.record.saved.held_out import hold
from vramplan.engines.torch.record.saved.memory import Memory, Remembered
from vramplan.engines.torch.record.saved.recording_child import record_modules
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.size_search import Products, SizeSearch
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice, place_on_device
from vramplan.engines.torch.record.session import DTYPES
from vramplan.engines.torch.record.stream import Call, Stream
from vramplan.engines.torch.tape.expressions import check_expression, evaluate
from vramplan.engines.torch.tape.format import SCHEMA, parse_tape, write_tape
from vramplan.errors import RecordingError

Value = Any
Facts = Mapping[str, str]
Numbers = Mapping[str, int]
Tell = Callable[[str], None]
Modules = Mapping[str, torch.nn.Module]

_MAIN = "main"
#: how settings become the tape's dimensions
_DIMS = {
    "batch": "n",
    "width": "w",
    "height": "h",
    "frames": "f",
    "prompt_tokens": "p",
    "new_tokens": "new",
    "steps": "steps",
}
#: dimensions that say how often something is done, and decide no size
_REPEATS = ("steps", "new")
#: settings that are recorded under each set of words, and runs that are held out
SETTINGS, PROOFS = 8, 1
_LEAST_STEPS = 8
_PATCHES = ("patch_size", "spatial_patch_size")
_GUIDED, _UNGUIDED = 5.0, 1.0


def record_entry(pipeline: TorchPipeline, tell: Tell, *, is_proved: bool = True) -> str:
    """Return the text of an entry's tape.

    Raises RecordingError where its events or sizes are not found, or a held-out run differs.
    """
    torch.set_num_threads(1)
    found = _Recordings(pipeline, tell)
    listed = list(groups(pipeline, settings=SETTINGS, proofs=PROOFS))
    for group in listed:
        for number, numbers in enumerate(group.recorded, 1):
            shown = " ".join((*group.facts.values(), *(f"{k}={v}" for k, v in numbers.items())))
            tell(f"{shown}  run {number} of {len(group.recorded)}")
            found.add(group.facts, numbers)
    tell("finding the sizes")
    text = write_tape(found.tape())
    if is_proved:
        tape = parse_tape(text, "the tape")
        for place, group in enumerate(listed):
            for numbers in group.held_out:
                shown = " ".join((*group.facts.values(), *(f"{k}={v}" for k, v in numbers.items())))
                tell(f"proving  {shown}")
                # the first without anything remembered, the others with what they do themselves
                fresh = found.run(group.facts, numbers, known={} if place else None)
                hold(tape, numbers, group.facts, fresh)
    return text


class _Recordings:
    """What was recorded of an entry so far."""

    def __init__(self, pipeline: TorchPipeline, tell: Tell) -> None:
        self._pipeline = pipeline
        self._tell = tell
        self._dtype, self._modules = "", dict[str, torch.nn.Module]()
        self._placed: set[int] = set()
        self._remembered: dict[Value, Remembered] = {}
        self._streams: dict[str, dict[tuple[tuple[str, str], ...], list[Stream]]] = {}
        self._loops: dict[str, dict[int, int]] = {}  # a loop's name -> its count at so many steps
        self._components: dict[str, object] = {}
        self._runs: list[dict[str, int]] = []

    # ------------------------------------------------------------------ runs
    def modules(self, dtype: str) -> Modules:
        """Return the entry's components on `meta`, in a dtype."""
        if dtype != self._dtype:
            self._modules = {
                part.name: build_part(part, DTYPES[dtype]) for part in _parts(self._pipeline)
            }
            self._dtype = dtype
            if not self._components:
                self._components = {
                    name: describe_weights(module, {}, DTYPES[dtype].itemsize)
                    for name, module in self._modules.items()
                }
            self._placed = place_on_device(self._modules.values())
            gc.collect()
            gc.freeze()  # what is forked is looked through by no collection, and so not copied
        return self._modules

    def run(
        self, facts: Facts, numbers: Numbers, known: dict[Value, Remembered] | None
    ) -> Recorded:
        """Return one run, recorded in a process forked from this one.

        `known` are calls that are remembered, and gets those of this run; None remembers none.
        """
        modules = self.modules(facts["dtype"])
        request = request_at(self._pipeline, facts, numbers)
        words = facts["dtype"], facts["kernel"]

        def work() -> tuple[Recorded, dict[Value, Remembered]]:
            memories: list[Memory] = []

            def watch(device: WrappedDevice, parts: Modules) -> None:
                if known is not None:
                    memories.append(Memory(device, known, words))
                    memories[0].watch(parts)

            new = (numbers.get("new_tokens", LEAST_TOKENS),)
            recorded = record_modules(
                request,
                modules,
                lambda _: None,
                new_tokens=new,
                watch=watch,
                placed=self._placed,
            )
            return recorded, memories[0].fresh if memories else {}

        recorded: Recorded
        recorded, fresh = _forked(work)
        if known is not None:
            known.update(fresh)
        return recorded

    def add(self, facts: Facts, numbers: Numbers) -> None:
        """Record one more run."""
        recorded = self.run(facts, numbers, self._remembered)
        (main,) = recorded.runs
        dims = {_DIMS[key]: value for key, value in numbers.items()}
        group = tuple(facts.items())
        self._runs.append(dims)
        inner = {name: value for name, value in dims.items() if name not in _REPEATS}
        for stream in (main, *recorded.routines):
            stream.dims = dims if stream is main else inner
            for event in stream.events:
                if isinstance(event, Call):
                    event.dims = inner
            self._streams.setdefault(stream.routine, {}).setdefault(group, []).append(stream)
        for name, count in recorded.loops.items():
            known = self._loops.setdefault(name, {})
            if known.setdefault(numbers.get("steps", 0), count) != count:
                raise RecordingError(f"loop {name} runs {known} times, or {count}")

    # ------------------------------------------------------------------ tape
    def tape(self) -> dict[str, object]:
        """Return the tape as JSON-ready data."""
        dims = {_DIMS[key]: key for key in self._axes()}
        counts = {name: _count(name, known) for name, known in self._loops.items()}
        is_generation = "new_tokens" in self._axes()
        if is_generation:
            counts[TOKENS] = "new-1"
        inner = [name for name in dims if name not in _REPEATS]
        outer = [*inner, *(["steps"] if "steps" in dims else [])]
        products = Products([*outer, *([TOKENS] if is_generation else [])], self._patches())
        grammar = Grammar(
            derived=products.derived,
            counts=counts,
            splits=("n==1",) if "n" in dims else (),
            fixed=frozenset(self._loops),
        )
        search = {
            True: SizeSearch(products, [*outer, *([TOKENS] if is_generation else [])]),
            False: SizeSearch(Products(inner, self._patches()), inner),
        }
        routines = {
            routine: variants_of(
                routine,
                found,
                lambda name, streams: assemble(name, streams, grammar, search[name == _MAIN]),
            )
            for routine, found in self._streams.items()
        }
        for variant in (variant for found in routines.values() for variant in found):
            _prune(variant)
        least = {"steps": _LEAST_STEPS} if "steps" in self._axes() else {}
        if is_generation:
            least["new_tokens"] = LEAST_TOKENS
        return {
            "schema": SCHEMA,
            "pipeline": self._pipeline.name,
            "recorded_with": versions(),
            "dims": dims,
            "least": least,
            "dtype_facts": {},
            "domain": self._domain(dims),
            "entry": _MAIN,
            "components": self._components,
            "routines": routines,
        }

    def _domain(self, dims: Mapping[str, str]) -> dict[str, list[int]]:
        """Return between what dimensions were recorded, and how much of them together."""
        ranges = [name for name in dims if name not in _REPEATS]
        if "h" in dims:
            ranges.append("n*h*w" if "n" in dims else "h*w")
        if "f" in dims:
            ranges.append(f"{ranges[-1]}*f" if "h" in dims else "f")
        values = {
            text: [evaluate(text, run) for run in self._runs] for text in dict.fromkeys(ranges)
        }
        domain = {text: [min(found), max(found)] for text, found in values.items()}
        if "h" in dims:
            step = gcd(*values["h"], *values["w"])
            domain |= {f"{side}%{step}": [0, 0] for side in ("h", "w") if step > 1}
        if "f" in dims and (step := gcd(*(frames - 1 for frames in values["f"]))) > 1:
            domain[f"f%{step}"] = [1, 1]
        return domain

    def _patches(self) -> set[int]:
        """Return the sides of patches, and of what is merged of them, that configs tell."""
        found: set[int] = set()
        for spec in self._pipeline.components:
            for config in (spec.config, *spec.config.values()):
                if isinstance(config, Mapping):
                    sides = [config[key] for key in _PATCHES if type(config.get(key)) is int]
                    merge = config.get("spatial_merge_size", 2)
                    found |= {side for side in sides if side > 1}
                    found |= {side * merge for side in sides if side > 1 and type(merge) is int}
        return found

    def _axes(self) -> list[str]:
        has = self._pipeline.defaults
        named = {"image": ("width", "height")}
        return [axis for key in has for axis in named.get(key, (key,)) if axis in _DIMS]


def request_at(pipeline: TorchPipeline, facts: Facts, numbers: Numbers) -> Request:
    """Return what a run of an entry is asked for."""
    described = dict(pipeline.parts)
    values = {key: told for key, told in described.items() if not isinstance(told, str)}
    index: dict[str, Value] = {
        key: told.split(".", 1) for key, told in described.items() if isinstance(told, str)
    }
    if pipeline.scheduler is not None:
        index["scheduler"] = pipeline.scheduler.class_path.split(".", 1)
    guided = facts.get("guided")
    size = numbers.get("width"), numbers.get("height")
    return Request(
        name=pipeline.name,
        kind="model"
        if pipeline.class_path in (None, pipeline.components[0].class_path)
        else "pipeline",
        class_path=pipeline.class_path or pipeline.components[0].class_path,
        parts=tuple(_parts(pipeline)),
        index=index,
        schedulers={"scheduler": pipeline.scheduler.config} if pipeline.scheduler else {},
        dtype=facts["dtype"],
        kernel=facts["kernel"],
        batch=numbers.get("batch", 1),
        image=size if None not in size else None,  # type: ignore[arg-type]  # both or none
        frames=numbers.get("frames"),
        prompt_tokens=numbers.get("prompt_tokens", 0),
        steps=numbers.get("steps", _LEAST_STEPS),
        guidance=None if guided is None else _GUIDED if guided == "1" else _UNGUIDED,
        mode=facts.get("mode", "both"),
        values=values,
    )


def _parts(pipeline: TorchPipeline) -> Iterable[SavedPart]:
    for spec in pipeline.components:
        yield SavedPart(
            name=spec.name,
            class_path=spec.class_path,
            config=spec.config,
            elements=None,
            parameters=spec.parameters,
        )


def _count(name: str, known: Mapping[int, int]) -> str:
    """Return how often a loop runs, by the steps that are asked for."""
    steps = sorted(known)
    for scale in (1, 2):
        more = known[steps[0]] - scale * steps[0]
        if all(known[one] == scale * one + more for one in steps):
            text = "steps" if scale == 1 else f"{scale}*steps"
            return f"{text}+{more}".replace("+-", "-") if more else text
    raise RecordingError(f"how often loop {name} runs is not known: {dict(known)}")


def _prune(variant: dict[str, Any]) -> None:
    """Leave out the derived dimensions that nothing reads."""
    texts = [*variant["sizes"], *([variant["if"]] if variant["if"] else [])]
    read = frozenset().union(*map(check_expression, texts)) if texts else frozenset()
    variant["derived"] = {k: text for k, text in variant["derived"].items() if k in read}


def _forked(work: Callable[[], Value]) -> Value:
    """Return what `work` returns in a process forked from this one, whose state stays as it is."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            try:
                answer: Value = ("done", work())
            except Exception as problem:  # noqa: BLE001  # any class's code: said to whoever waits
                answer = ("failed", f"{type(problem).__name__}: {problem}"[:500])
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe, protocol=pickle.HIGHEST_PROTOCOL)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise RecordingError("its process ended without a word")
    what, answer = pickle.loads(data)  # noqa: S301  # written by our own process a moment ago
    if what == "failed":
        raise RecordingError(answer)
    return answer
