"""The stage on which a recipe's program really runs: real modules, a real device.

Phases and components are told to whoever listens, in the places where a tape has them; loops need
no marks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.marks import Marks
from vramplan.engines.torch.record.stage import Dims
from vramplan.engines.torch.record.stream import Event, Phase, Stream

Value = Any

#: hears that a component begins to work in a phase
Begin = Callable[[str, str], None]


class LiveMarks(Marks):
    """Tells phases and components to `begin`, and forgets the rest."""

    def __init__(self, dims: Dims, begin: Begin) -> None:
        super().__init__(Stream("live", dims))
        self._begin = begin
        self.phase = "load"
        self.component = "pipeline"

    def write(self, event: Event) -> None:
        """Tell a phase."""
        if isinstance(event, Phase):
            self.tell(event.name, event.component)

    def tell(self, phase: str, component: str) -> None:
        """Say which component works in which phase from here on."""
        self.phase, self.component = phase, component
        self._begin(phase, component)


class LiveRoutines:
    """Tells the component of a call, and after it the caller's again."""

    def __init__(self, marks: LiveMarks) -> None:
        self._marks = marks

    def wrap(
        self,
        name: str,
        function: Callable[..., Value],
        _dims_of: Callable[..., Dims],
        before: Callable[[], None] | None = None,
    ) -> Callable[..., Value]:
        """Return `function` as the routine `name`.

        A call that fails leaves its component at work: that is where the run ended.
        """
        marks = self._marks

        @functools.wraps(function)
        def routine(*args: Value, **kwargs: Value) -> Value:
            if before is not None:
                before()
            caller = marks.component
            marks.tell(marks.phase, name)
            result = function(*args, **kwargs)
            marks.tell(marks.phase, caller)
            return result

        return routine


class Live:
    """Modules on a real device; `offload` is how a diffusers pipeline moves them."""

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        target: torch.device,
        dims: Dims,
        begin: Begin,
        offload: str,
    ) -> None:
        self.modules = modules
        self.target = target
        self.is_new = True
        self.loop = ""
        self.marks = LiveMarks(dims, begin)
        self.routines = LiveRoutines(self.marks)
        self._offload = offload

    def place(self, pipe: Value) -> None:
        """Let a pipeline keep its components in system memory, as the settings ask.

        On a CPU (a dry run) nothing is moved layer by layer: accelerate would take a tensor that
        stays where it is for a tied one.
        """
        if self._offload == "model":
            pipe.enable_model_cpu_offload(device=self.target)
        elif self._offload == "sequential" and self.target.type != "cpu":
            pipe.enable_sequential_cpu_offload(device=self.target)

    def watch_casts(self, component: str, module: torch.nn.Module) -> None:
        """Let the program cast: the device's counters see it."""

    def cast(self, module: torch.nn.Module, dtype: torch.dtype) -> None:
        """Cast a module's weights."""
        module.to(dtype=dtype)
