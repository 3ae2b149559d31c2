"""A recording session: one set of modules, run at several settings, its routines remembered."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from vramplan.dtypes import TORCH_NAMES
from vramplan.engines.torch.record.assemble import Grammar
from vramplan.engines.torch.record.attention import Attention
from vramplan.engines.torch.record.device import Device, weights_of
from vramplan.engines.torch.record.layouts import META
from vramplan.engines.torch.record.routines import Routines, watch_leaves
from vramplan.engines.torch.record.stage import Stage
from vramplan.engines.torch.record.stream import Cast, Stream
from vramplan.quick_dataclass import dataclass, field

Numbers = dict[str, int]
Facts = dict[str, str]
Value = Any

DTYPES = {name: getattr(torch, torch_name) for name, torch_name in TORCH_NAMES.items()}

#: bf16 makes the same events as fp16 (a test records both): one recording serves both
BF16_AS_FP16: Mapping[str, Facts] = {"bf16": {"dtype": "fp16"}}

#: tells the recorder's progress to whoever watches
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run to record: the settings as numbers, and the facts that hold in it."""

    numbers: Numbers
    facts: Facts
    keep_main: bool = True  # False where only the routines of the run are wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything family-specific: what to build, what to run, and what sizes are made of.

    `sessions` are samples by session facts (dtype, kernel); `relevant` names, per routine, the
    facts its code may depend on; `run` returns what executes the pipeline's own code once; `parts`
    are a component's parts and where they are in it.
    """

    dims: Mapping[str, str]
    grammars: Mapping[str, Grammar]
    relevant: Mapping[str, tuple[str, ...]]
    sessions: Sequence[tuple[Facts, Sequence[Sample]]]
    build: Callable[[Facts], Mapping[str, torch.nn.Module]]
    run: Callable[[Stage, Sample], Callable[[], None]]
    element_bytes: Callable[[Facts], int]
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    is_training: Callable[[Facts], bool] = lambda _: False
    #: whether module borders are written down: where sequential offload is a setting
    marks_modules: bool = True
    #: the smallest numbers at which the recorded loops hold; smaller ones are planned as these
    least: Mapping[str, int] = field(default_factory=dict)
    #: which facts a dtype stands for, where recordings of one dtype serve another
    dtype_facts: Mapping[str, Facts] = field(default_factory=dict)

    def known_facts(self) -> dict[str, tuple[str, ...]]:
        """Return the facts of the whole runs, and the values that are recorded of each."""
        found: dict[str, dict[str, None]] = {}
        for _, samples in self.sessions:
            for sample in samples:
                if sample.keep_main:
                    for name, value in sample.facts.items():
                        found.setdefault(name, {})[value] = None
        return {name: tuple(values) for name, values in found.items()}


class Session:
    """Modules on the recorder's device under one set of facts: the `Stage` of a recording."""

    def __init__(self, recipe: Recipe, facts: Facts, *, remember: bool = True) -> None:
        self.recipe = recipe
        self.facts = facts
        self.is_new = True
        self.loop = ""
        self.target = META
        self.modules = dict(recipe.build(facts))
        self.device = Device(Stream("", {}), weights_of(list(self.modules.values())))
        self.routines = Routines(self.device, remember=remember, relevant=recipe.relevant)
        if recipe.marks_modules:
            for name, module in self.modules.items():
                watch_leaves(self.device, name, module)
        gc.collect()
        gc.freeze()  # the classes and modules stay: no collection needs to look at them again

    @property
    def marks(self) -> Device:
        """The recorder takes down phases and loops."""
        return self.device

    def place(self, pipe: Value) -> None:
        """Leave everything where it is: offload is the replay's (`torch.tape.residency`)."""

    def watch_casts(self, component: str, module: torch.nn.Module) -> None:
        """Write down where the pipeline casts a component's weights (SDXL's `upcast_vae`)."""
        to: Callable[..., Value] = module.to

        def cast(*args: Value, dtype: torch.dtype | None = None, **kwargs: Value) -> Value:
            if dtype is None or args or kwargs:
                return to(*args, **({"dtype": dtype} if dtype is not None else {}), **kwargs)
            if dtype != next(module.parameters()).dtype:
                self.device.write(Cast(component, dtype.itemsize))
                self.cast(module, dtype)
            return module

        module.to = cast  # type: ignore[method-assign]  # the module's own cast is what is listened to

    def cast(self, module: torch.nn.Module, dtype: torch.dtype) -> None:
        """Cast a module's weights without an event for each of them."""
        weights = self.device.weights
        weights.difference_update(weights_of([module]))  # their identities may be reused
        with _disable_current_modes():
            torch.nn.Module.to(module, dtype=dtype)
        weights.update(weights_of([module]))

    def record(self, sample: Sample) -> Stream:
        """Run one sample and return its stream; routine streams gather in `routines`."""
        from vramplan.engines.torch.tape.expressions import derive

        dims = {
            name: derive({name: text}, sample.numbers)[name]
            for name, text in self.recipe.dims.items()
        }
        stream = Stream("main", dims)
        self.device.stream = stream
        self.routines.facts = sample.facts
        work = self.recipe.run(self, sample)
        self.is_new = False
        training = self.recipe.is_training(sample.facts)
        with _no_collection(), self.device, Attention(sample.facts.get("kernel", "flash")):
            with nullcontext() if training else torch.no_grad():
                work()
                del work
            self.device.end_loops()
        # what outlives the run (a scheduler's state) belongs to this stream, its later death not
        self.device.births.clear()
        return stream


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from freeing cycles at moments that differ from run to run."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
