"""The tape of a catalogue's entry that no recipe knows: any class's own code, at several settings.

Each run is recorded in a process of its own, forked from one that holds the components and nothing
else: what a run leaves behind (caches of tables, a scheduler's state) is not there for the next.
What is remembered of calls (`remembered_calls`) is handed on. Runs under the same words whose
events are the same are one variant; sizes are found by `size_search`; the whole is held against
runs that nothing was found from, in the first of which no layer is remembered; what those do is
remembered for them alone.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import gcd
from typing import Any

import torch

from vramplan.engines.torch.facts import numbers_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.classes import find_class
from vramplan.engines.torch.record.recorder import Group, describe_weights, merged, versions
from vramplan.engines.torch.record.saved.build import SavedPart, build_part
from vramplan.engines.torch.record.saved.constant_tape import LEAST_TOKENS, TOKENS, Recorded
from vramplan.engines.torch.record.saved.entry_settings import (
    Draw,
    Window,
    dtypes_of,
    least_steps,
    step_of,
    stride_of,
    tile_of,
    window_of,
    words_of,
)
from vramplan.engines.torch.record.saved.finder import MAIN, Finder, GrowingResultError
from vramplan.engines.torch.record.saved.held_out import hold
from vramplan.engines.torch.record.saved.recording_child import record_modules
from vramplan.engines.torch.record.saved.remembered_calls import Calls, Memory
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.size_search import TooFewSettingsError
from vramplan.engines.torch.record.saved.taking_over import SECOND, steps_before
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice, place_on_device
from vramplan.engines.torch.record.session import DTYPES
from vramplan.engines.torch.record.stream import LOOP_MARKS, Call, Stream
from vramplan.engines.torch.tape.code import loop_parts
from vramplan.engines.torch.tape.expressions import check_expression, evaluate
from vramplan.engines.torch.tape.format import SCHEMA, parse_tape, write_tape
from vramplan.errors import RecordingError

Value = Any
Facts = Mapping[str, str]
Numbers = Mapping[str, int]
Tell = Callable[[str], None]
Modules = Mapping[str, torch.nn.Module]

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
#: how many settings are recorded under the first words, and under others, whose sizes are
#: multiples of those: more where a batch of one has code of its own, so that there are three of
#: either; and with a window, where prompts in it and beyond it have code of their own
_SETTINGS, _FEWER, _FEWER_APART, _BOTH_SIDES = 8, 4, 6, 16
#: axes given up, one after the other, where code differs along them in no way that is found; few
#: make several videos at once; steps are none of which one does as another, where noise is drawn
#: from a tree that grows with every step
_GIVEN_UP, _GIVEN_UP_OF_VIDEOS = ("image", "batch", "steps"), ("batch", "frames", "image")
#: so many runs are recorded more where code differs by whether an area is of whole blocks, every
#: other one of which is: squares of tokens take four of either
_MORE = 10
#: videos are recorded up to so many times the default one, and where that fails up to it
_TIMES = (2.5, 1.0)
#: where a run of the largest batch fails in a class's own code: an image of many tiles fills it
_FEWER_AT_ONCE = 8
_HALVES = ("fp16", "bf16")
_MOST_STEPS = 1000
#: the words that code is recorded under, in the order of `words_of`
_WORDS = ("dtype", "kernel", "guided", "mode")
_PATCHES = ("patch_size", "spatial_patch_size")
_GUIDED, _UNGUIDED = 5.0, 1.0


class FailedRunError(RecordingError):
    """A run ended in a class's own code."""


def record_entry(pipeline: TorchPipeline, tell: Tell, dtype: str | None = None) -> str:
    """Return the text of an entry's tape in a dtype, or its default one.

    The tape says for which settings it holds. In half precision it is for both halves where those
    do the same. Raises RecordingError where events or sizes are not found, or a run that is held
    out differs.
    """
    torch.set_num_threads(1)
    fixed: list[str] = []
    is_video = "frames" in pipeline.defaults
    given_up = _GIVEN_UP_OF_VIDEOS if is_video else _GIVEN_UP
    whole = [axis for axis in given_up if axis in pipeline.defaults]
    axes = [*whole]
    times = list(_TIMES) if is_video else [1.0]
    at_once: int | None = None
    is_large = "batch" in axes and Draw(pipeline).largest_batch > _FEWER_AT_ONCE
    known = ""  # what it failed for where an axis was given up the last time
    while True:
        try:
            return _record(
                pipeline, tell, dtype or dtypes_of(pipeline)[0], fixed, times[0], at_once
            )
        except RecordingError as problem:
            if isinstance(problem, FailedRunError) and is_large:
                at_once, is_large = _FEWER_AT_ONCE, False
                tell(f"{problem}; and batches of at most {at_once}")
                continue
            said = re.sub(r"\d+", "0", str(problem))
            if axes and said == known:  # not for that axis
                fixed.pop()
            known = ""
            if isinstance(problem, GrowingResultError) and "batch" in axes:
                axes.remove("batch")
                fixed.append("batch")
            elif len(times) > 1:
                tell(f"{problem}; and not {times.pop(0)} of the default video")
                continue
            elif axes:
                fixed.append(axes.pop(0))
                known = said
            elif len(fixed) < len(whole):  # none alone was why
                fixed[:] = whole
            else:
                raise
            tell(f"{problem}; with {' and '.join(fixed)} as by default")


def add_kernel(pipeline: TorchPipeline, tell: Tell, dtype: str, kernel: str, text: str) -> str:
    """Return the text of an entry's tape with the code under one more kernel of attention.

    It is recorded at the settings that the tape was, found apart from the other kernels' code, and
    proved in the tape as it is then. Raises RecordingError as `record_entry` does, and for a tape
    that has the kernel, or is of other libraries or weights.
    """
    torch.set_num_threads(1)
    known = json.loads(text)
    kernels = parse_tape(text, "the tape").known_facts.get("kernel", ())
    if kernel in kernels:
        raise RecordingError(f"its tape has {kernel} attention")
    if known["recorded_with"] != versions():
        raise RecordingError(f"its tape is of {known['recorded_with']}: record all of it")
    domain: dict[str, list[int]] = known["domain"]
    names = {"batch": ("n",), "frames": ("f",), "image": ("h", "w")}
    fixed = [
        axis
        for axis, dims in names.items()
        if axis in pipeline.defaults and all(domain[dim][0] == domain[dim][1] for dim in dims)
    ]
    at_once = domain["n"][1] if "n" in domain else None
    found = _Recordings(pipeline, tell, fixed)
    found.go_on(known, dtype)
    window = found.window(dtype)
    times = _TIMES[0] if _is_beyond_default(pipeline, domain) else _TIMES[1]
    draw = found.draw(dtype, window, times, at_once)
    listed = [words for words in words_of(pipeline, dtype) if words["kernel"] == kernel]
    if not listed:
        raise RecordingError(f"no architecture prefers {kernel} attention for {dtype}")
    counts = (_FEWER, _FEWER_APART, _SETTINGS) if window is None else (_BOTH_SIDES,)
    for words in listed:
        _record_under(words, found, draw, counts, remembers=True)
    for half in known["dtype_facts"]:
        found.hold_in(half, listed, draw)
    return write_tape(found.tape())


def _is_beyond_default(pipeline: TorchPipeline, domain: Mapping[str, Sequence[int]]) -> bool:
    """Return whether videos were recorded of more pixels than the default one has."""
    image, frames = pipeline.defaults.get("image"), pipeline.defaults.get("frames")
    if not isinstance(image, tuple) or not isinstance(frames, int):
        return False
    largest = next((most for text, (_, most) in domain.items() if text.endswith("h*w*f")), 0)
    return largest > image[0] * image[1] * frames


def _record(
    pipeline: TorchPipeline,
    tell: Tell,
    dtype: str,
    fixed: Sequence[str],
    times: float,
    at_once: int | None,
) -> str:
    found = _Recordings(pipeline, tell, fixed)
    window = found.window(dtype)
    draw = found.draw(dtype, window, times, at_once)
    most = _SETTINGS if window is None else _BOTH_SIDES
    listed = list(words_of(pipeline, dtype))
    left_out: set[str] = set()  # kernels
    for place, words in enumerate(listed):
        if (kernel := words["kernel"]) in left_out:
            continue
        fewer = _FEWER_APART if found.has_code_for_one else _FEWER
        counts = (fewer, most) if place and window is None else (most,)
        try:
            _record_under(words, found, draw, counts, remembers=bool(place))
        except RecordingError as problem:
            if kernel == listed[0]["kernel"]:
                raise
            # better none for these architectures than for one size alone of the others
            tell(f"{problem}; without {kernel} attention")
            left_out.add(kernel)
            found.leave_out(kernel)
    listed = [words for words in listed if words["kernel"] not in left_out]
    for half in _HALVES:
        if dtype in _HALVES and half != dtype and half in dtypes_of(pipeline):
            found.serve(half, listed, draw)
    text = write_tape(found.tape())
    if outside := parse_tape(text, "the tape").outside(numbers_at(pipeline.defaults)):
        raise RecordingError(f"it does not hold as the entry is by default: {outside}")
    return text


def _record_under(
    words: Facts, found: _Recordings, draw: Draw, counts: Sequence[int], *, remembers: bool
) -> None:
    """Record and prove what an entry does under some words, in as few runs as will do.

    The first words are proved without anything remembered, others with what they do themselves.
    """
    for count in counts:
        try:
            held_out = found.record_until_known(words, draw, count, has_more=count == counts[-1])
            found.prove(words, held_out, remembers=remembers)
            for other in draw.others(words):
                found.prove(words, other, remembers=True)
            return
        except RecordingError:
            if count == counts[-1]:
                raise


class _Recordings:
    """What was recorded of an entry so far."""

    def __init__(self, pipeline: TorchPipeline, tell: Tell, fixed: Sequence[str]) -> None:
        self._pipeline = pipeline
        self._tell = tell
        self._fixed = fixed
        self._dtype, self._modules = "", dict[str, torch.nn.Module]()
        self._placed: set[int] = set()
        self._remembered: Calls = {}
        self._proved: Calls = {}  # what runs did that nothing was found from
        self._streams: dict[str, dict[Group, list[Stream]]] = {}
        self._found: dict[str, dict[Group, list[dict[str, object]]]] = {}
        self._finder: Finder | None = None
        self._dtype_facts: dict[str, dict[str, str]] = {}
        self._loops: dict[str, dict[int, int]] = {}  # a loop's name -> its count at so many steps
        self._components: dict[str, object] = {}
        self._runs: dict[Group, list[dict[str, int]]] = {}
        self._window: Window | None = None
        self._stride: int | None = None
        self._tile: int | None = None
        self._before = ""  # how many steps there are before a second transformer takes over
        self._known_domain: dict[str, list[int]] | None = None  # of a tape that is gone on with

    def go_on(self, known: Mapping[str, Any], dtype: str) -> None:
        """Begin with what is in a tape, given as JSON; it says for which settings it all holds.

        Raises RecordingError where that is of other weights.
        """
        self.modules(dtype)
        if known["components"] != self._components:
            raise RecordingError("its tape is of other weights: record all of it")
        self._known_domain = known["domain"]
        self._dtype_facts = known["dtype_facts"]
        for routine, variants in known["routines"].items():
            groups = self._found.setdefault(routine, {})
            for variant in variants:
                # facts in the order that recordings have them
                when = {name: variant["when"][name] for name in _WORDS if name in variant["when"]}
                code = {key: variant[key] for key in variant if key != "when"}
                for words in product(*when.values()):
                    groups.setdefault(tuple(zip(when, words, strict=True)), []).append(code)

    # ------------------------------------------------------------------ runs
    def modules(self, dtype: str) -> Modules:
        """Return the entry's components on `meta`, in a dtype."""
        if dtype != self._dtype:
            self._modules = {
                part.name: build_part(part, DTYPES[dtype]) for part in _parts(self._pipeline)
            }
            self._dtype = dtype
            self._components = self._components or self._components_now()
            self._placed = place_on_device(self._modules.values())
            gc.collect()
        return self._modules

    def _components_now(self) -> dict[str, object]:
        size = DTYPES[self._dtype].itemsize
        return {name: describe_weights(one, {}, size) for name, one in self._modules.items()}

    def _refuse_other_weights(self) -> None:
        if self._components_now() != self._components:
            raise RecordingError("it keeps other weights in fp32")

    def run(self, facts: Facts, numbers: Numbers, known: Calls | None) -> Recorded:
        """Return one run, recorded in a process forked from this one.

        `known` are calls that are remembered, and gets those of this run; with None no layer's are,
        and a denoising step's when it did twice the same.
        """
        modules = self.modules(facts["dtype"])
        request = request_at(self._pipeline, facts, numbers)
        words = facts["dtype"], facts["kernel"]

        def work() -> tuple[Recorded, Calls]:
            memories: list[Memory] = []

            def watch(device: WrappedDevice, parts: Modules) -> None:
                doubts = known is None
                memories.append(Memory(device, known or {}, *words, doubts=doubts))
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
            return recorded, {} if known is None else memories[0].fresh

        recorded: Recorded
        recorded, fresh = _forked(work)
        if known is not None:
            known.update(fresh)
        return recorded

    def record(self, words: Facts, settings: Sequence[Numbers]) -> None:
        """Record runs under the same words, those that were not yet, and find their code."""
        group = tuple(words.items())
        done = len(self._streams.get(MAIN, {}).get(group, ()))
        for number, numbers in enumerate(settings[done:], done + 1):
            self._tell(f"{_shown(words, numbers)}  run {number} of {len(settings)}")
            self._add(group, numbers, self.run(words, numbers, self._remembered))
        self._tell(f"{_shown(words, {})}  finding the sizes")
        finder = self._finder = self._finder or self._new_finder()
        finder.counts = self._counts()
        if self._generates():
            finder.counts[TOKENS] = "new-1"
        for routine in self._streams:
            self._found.setdefault(routine, {})
        # the run itself at last: what it calls says better why runs differ
        for routine in sorted(self._streams, key=lambda name: name == MAIN):
            if group in self._streams[routine]:
                variants = finder.assembled(routine, self._streams[routine][group])
                for variant in variants:
                    _prune(variant)
                self._found[routine][group] = variants

    def record_until_known(
        self, words: Facts, draw: Draw, count: int, *, has_more: bool
    ) -> Numbers:
        """Record `count` runs, and those it takes for the tape to have code at what is held out.

        Where it `has_more`, also those it takes for every size to be proved. Return what to hold
        out. Raises RecordingError as `record` does.
        """
        settings = [draw.numbers(number, words) for number in range(count)]
        for again in range(_MORE + 1):
            held_out = draw.numbers(None, words, again)
            try:
                self.record(words, settings)
            except TooFewSettingsError:
                if again == _MORE or not has_more:
                    raise
                settings.append(held_out)
                continue
            tape = parse_tape(write_tape(self.tape()), "the tape")
            if tape.lacks({**words}, held_out) is None:
                return held_out
            settings.append(held_out)
        raise RecordingError("it has code for too few sizes")

    def leave_out(self, kernel: str) -> None:
        """Forget what was recorded under a kernel of attention."""

        def kept(groups: Mapping[Group, Value]) -> dict[Group, Value]:
            return {one: groups[one] for one in groups if ("kernel", kernel) not in one}

        self._streams = {k: those for k, one in self._streams.items() if (those := kept(one))}
        self._found = {k: those for k, one in self._found.items() if (those := kept(one))}
        self._runs = kept(self._runs)

    def _add(self, group: Group, numbers: Numbers, recorded: Recorded) -> None:
        (main,) = recorded.runs
        loops = recorded.loops
        if "steps" in self._fixed:
            main.events = [one for one in main.events if not isinstance(one, LOOP_MARKS)]
            loops = {}
        dims = {_DIMS[key]: value for key, value in numbers.items()}
        self._runs.setdefault(group, []).append(dims)
        inner = {name: value for name, value in dims.items() if name not in _REPEATS}
        for stream in (main, *recorded.routines):
            stream.dims = dims if stream is main else inner
            for event in stream.events:
                if isinstance(event, Call):
                    event.dims = inner
            self._streams.setdefault(stream.routine, {}).setdefault(group, []).append(stream)
        for name, count in loops.items():
            known = self._loops.setdefault(name, {})
            if known.setdefault(numbers.get("steps", 0), count) != count:
                raise RecordingError(f"loop {name} runs {known} times, or {count}")

    def prove(self, words: Facts, numbers: Numbers, *, remembers: bool) -> None:
        """Hold what was found against a run that it was not found from."""
        self._tell(f"{_shown(words, numbers)}  proving")
        fresh = self.run(words, numbers, known=self._proved if remembers else None)
        hold(parse_tape(write_tape(self.tape()), "the tape"), numbers, words, fresh)

    def serve(self, dtype: str, listed: Sequence[Facts], draw: Draw) -> None:
        """Let the tape be another dtype's too, where that makes the same events and weights."""
        try:
            self.hold_in(dtype, listed, draw)
        except RecordingError as problem:
            self._tell(f"{dtype} needs a tape of its own: {problem}")
        else:
            self._dtype_facts[dtype] = {"dtype": listed[0]["dtype"]}

    def hold_in(self, dtype: str, listed: Sequence[Facts], draw: Draw) -> None:
        """Hold the tape against runs in another dtype than it was recorded in."""
        tape = parse_tape(write_tape(self.tape()), "the tape")
        for words in (one for one in listed if one.get("guided") != "0"):
            numbers = draw.numbers(None, {**words, "dtype": dtype})
            self._tell(f"{_shown({**words, 'dtype': dtype}, numbers)}  held against the tape")
            fresh = self.run({**words, "dtype": dtype}, numbers, known={})
            self._refuse_other_weights()
            hold(tape, numbers, words, fresh)

    # ------------------------------------------------------------------ tape
    def tape(self) -> dict[str, object]:
        """Return the tape as JSON-ready data."""
        dims = {_DIMS[key]: key for key in self._axes()}
        has_loop = "steps" in self._axes() and "steps" not in self._fixed
        least = {"steps": least_steps(self._pipeline)} if has_loop else {}
        if self._generates():
            least["new_tokens"] = LEAST_TOKENS
        return {
            "schema": SCHEMA,
            "pipeline": self._pipeline.name,
            "recorded_with": versions(),
            "dims": dims,
            "least": least,
            "dtype_facts": self._dtype_facts,
            "domain": self._domain(dims),
            "entry": MAIN,
            "components": self._components,
            "routines": {name: merged(found) for name, found in self._found.items()},
        }

    def _counts(self) -> dict[str, str]:
        """Return how often each loop of steps runs, as expressions."""
        seconds = [name for name in self._loops if name.endswith(SECOND)]
        if seconds and not self._before:
            self._before = self._steps_before()
        counts: dict[str, str] = {}
        for name, known in self._loops.items():
            if seconds and name.removesuffix(SECOND) + SECOND in seconds:
                is_second = name in seconds
                counts[name] = f"steps-{self._before}" if is_second else self._before
                if any(evaluate(counts[name], {"steps": k}) != v for k, v in known.items()):
                    raise RecordingError(f"loop {name} runs {known} times, not {counts[name]}")
            else:
                counts[name] = _count(name, known)
        return counts

    def _steps_before(self) -> str:
        """Return how many steps there are before a second transformer takes over."""
        boundary, scheduler = self._pipeline.parts.get("boundary_ratio"), self._pipeline.scheduler
        if not isinstance(boundary, float) or scheduler is None:
            raise RecordingError("when the second transformer takes over is not known")
        bounds = self._pipeline.constraints.get("steps")
        most = int(bounds.maximum) if bounds and bounds.maximum else _MOST_STEPS
        cls: Value = find_class(scheduler.class_path)
        return steps_before(
            cls.from_config(dict(scheduler.config)), boundary, least_steps(self._pipeline), most
        )

    @property
    def has_code_for_one(self) -> bool:
        """Whether a batch of one has code of its own in what was found so far."""
        return any(
            "n==1" in str(variant["if"])
            for groups in self._found.values()
            for variants in groups.values()
            for variant in variants
        )

    def _generates(self) -> bool:
        return "new_tokens" in self._axes()

    def _new_finder(self) -> Finder:
        named = {"batch": ("n",), "frames": ("f",), "image": ("h", "w"), "steps": ("steps",)}
        left_out = {name for key in self._fixed for name in named[key]}
        inner = [_DIMS[key] for key in self._axes() if _DIMS[key] not in (*_REPEATS, *left_out)]
        outer = [*inner, *(["steps"] if "steps" in {*self._axes()} - {*self._fixed} else [])]
        outer += [TOKENS] if self._generates() else []
        sides = self._window.sides if self._window else ()
        strides = [self._stride] if self._stride else []
        return Finder(inner, outer, self._patches(), sides, strides)

    def stride(self, dtype: str) -> int | None:
        """Return by how many frames parts of a video are apart, where it is decoded in parts."""
        if "frames" in self._axes():
            self._stride = next(filter(None, map(stride_of, self.modules(dtype).values())), None)
        return self._stride

    def step(self, dtype: str) -> int | None:
        """Return by how many frames videos may differ, where an autoencoder says it."""
        return next(filter(None, map(step_of, self.modules(dtype).values())), None)

    def draw(self, dtype: str, window: Window | None, times: float, at_once: int | None) -> Draw:
        """Return what draws the settings of runs."""
        return Draw(
            self._pipeline,
            self._fixed,
            window,
            times,
            at_once,
            stride=self.stride(dtype),
            step=self.step(dtype),
            tile=self.tile(dtype),
        )

    def tile(self, dtype: str) -> int | None:
        """Return the side of a vision model's windows, where it has any."""
        self._tile = next(filter(None, map(tile_of, self.modules(dtype).values())), None)
        return self._tile

    def window(self, dtype: str) -> Window | None:
        """Return the window of tokens that some layers see, where a language model has one."""
        if self._generates():
            self._window = next(filter(None, map(window_of, self.modules(dtype).values())), None)
        return self._window

    def _domain(self, dims: Mapping[str, str]) -> dict[str, list[int]]:
        """Return between what dimensions were recorded, and how much of them together."""
        if self._known_domain is not None:
            return self._known_domain
        ranges = [name for name in dims if name not in _REPEATS or name in self._fixed]
        if "h" in dims:
            ranges.append("n*h*w" if "n" in dims else "h*w")
        if "p" in dims and "n" in dims:
            ranges.append("n*p")
        if "f" in dims:
            ranges.append(f"{ranges[-1]}*f" if "h" in dims else "f")
        runs = [run for those in self._runs.values() for run in those]
        values = {text: [evaluate(text, run) for run in runs] for text in dict.fromkeys(ranges)}
        domain = {text: [min(found), max(found)] for text, found in values.items()}
        domain |= self._window.domain if self._window else {}
        if "h" in dims:
            step = gcd(*values["h"], *values["w"])
            domain |= {f"{side}%{step}": [0, 0] for side in ("h", "w") if step > 1}
        if "f" in dims:
            first = values["f"][0] % self._stride if self._stride else 1
            step = gcd(*(frames - first for frames in values["f"]))
            if step > 1:
                domain[f"f%{step}"] = [first % step] * 2
        return domain

    def _patches(self) -> set[int]:
        """Return the sides of patches, and of what is merged of them, that configs tell."""
        found: set[int] = set() if self._tile is None else {self._tile}
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


def _shown(words: Facts, numbers: Numbers) -> str:
    return " ".join((*words.values(), *(f"{key}={value}" for key, value in numbers.items())))


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
    size, usual = (numbers.get("width"), numbers.get("height")), pipeline.defaults.get("image")
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
        # what is edited is one size, which some round in ways of their own
        picture=usual if isinstance(usual, tuple) else None,
        prompt_tokens=numbers.get("prompt_tokens", 0),
        steps=numbers.get("steps", least_steps(pipeline)),
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
            dtype=spec.dtype,
        )


def _count(name: str, known: Mapping[int, int]) -> str:
    """Return how often a loop runs, by the steps that are asked for."""
    steps = sorted(known)
    for scale in (1, 2):
        more = known[steps[0]] - scale * steps[0]
        if all(known[one] == scale * one + more for one in steps):
            text = "steps" if scale == 1 else f"{scale}*steps"
            return f"{text}+{more}".replace("+-", "-") if more else text
    for tenths in range(1, 10):  # an image's strength leaves out the first steps
        if len(steps) > 1 and all(known[one] == one * tenths // 10 for one in steps):
            return f"{tenths}*steps//10"
    raise RecordingError(f"how often loop {name} runs is not known: {dict(known)}")


def _prune(variant: dict[str, Any]) -> None:
    """Leave out the derived dimensions that nothing reads."""
    texts = [*variant["sizes"], *_counts(variant["code"])]
    texts += [variant["if"]] if variant["if"] else []
    read = frozenset().union(*map(check_expression, texts)) if texts else frozenset()
    variant["derived"] = {k: text for k, text in variant["derived"].items() if k in read}


def _counts(code: Any) -> Iterator[str]:
    """Yield how often the loops of some code run."""
    for step in code:
        if isinstance(step, list) and step[0] == "l":
            yield step[2]
            for part in loop_parts(step):
                yield from _counts(part)


def _forked(work: Callable[[], Value]) -> Value:
    """Return what `work` returns in a process forked from this one, whose state stays as it is."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # what is forked is looked through by no collection, and so not copied
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own tree specs warn of being made
        what, answer = pickle.loads(data)  # noqa: S301  # our own process wrote it a moment ago
    if what == "failed":
        raise FailedRunError(answer)
    return answer
