"""Loads a pipeline's components one by one, runs it cold and warm, and says what each took.

This is the measured process: all it adds to the device is its CUDA context. It tells as it goes, so
that whoever asked knows where it was when it dies.
"""

from __future__ import annotations

import gc
import importlib.metadata
import platform
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from vramplan.engines.torch.run.allocator_history import Historian
from vramplan.engines.torch.run.failure import failure_of
from vramplan.engines.torch.run.kernel_choice import allow_kernels, kernel_facts
from vramplan.engines.torch.run.load_weights import make_up, parameters_of, size_of, take_one_block
from vramplan.engines.torch.run.meter import Counters, Meter, OwnShare
from vramplan.engines.torch.run.program import Program
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import ContextStep, MeasuredComponent
from vramplan.measurement.run_json import encode_part
from vramplan.probe.protocol import Probe
from vramplan.runner.channel import Channel
from vramplan.runner.task import Task

TURNS = ("cold", "warm")


class TorchRun:
    """One measured run, from the first tensor on the device to the last turn."""

    def __init__(
        self,
        task: Task,
        program: Program,
        channel: Channel,
        *,
        counters: Counters | None,
        device: Probe | None,
        own_share: OwnShare,
        historian: Historian | None = None,
    ) -> None:
        self._task = task
        self._program = program
        self._channel = channel
        self._counters = counters
        self._device = device
        self._own_share = own_share
        self._historian = historian
        self._target = torch.device(task.device)
        self._modules: dict[str, torch.nn.Module] = {}
        self._meter = Meter(
            counters=counters,
            device=device,
            own_share=own_share,
            tell=lambda stretch, windows: channel.say(
                "stretch", stretch=encode_part(stretch), windows=windows
            ),
            tell_phase=lambda turn, phase, component: channel.say(
                "phase", turn=turn, phase=phase, component=component
            ),
            tell_end=channel.tell_end,
        )

    def run(self) -> None:
        """Measure; a failure is told like any other result."""
        channel, meter = self._channel, self._meter
        try:
            self._begin_context()
            self._load()
            self._turns()
        except Exception as problem:  # noqa: BLE001  # whatever stops the run is its result
            failure = failure_of(problem, meter.phase, meter.component)
            channel.say("failure", failure=encode_part(failure))
            self._end_stretch()
        channel.say("done")
        channel.hear()  # the parent looks at the device while everything is still held

    def _end_stretch(self) -> None:
        """Tell what was held when the run failed, if it can still be asked."""
        try:
            self._meter.end()
        except Exception as problem:  # noqa: BLE001  # CUDA may be broken for good
            self._channel.say("note", text=f"no figures after the failure: {problem}"[:300])

    # ---------------------------------------------------------------- context
    def _begin_context(self) -> None:
        torch.manual_seed(0)
        allow_kernels(self._task.kernels, wants_math=self._program.wants_math_kernel)
        facts = {**kernel_facts(), **_environment_facts()}
        self._channel.say("facts", facts=facts, versions=versions())
        if self._counters is None:
            return
        self._counters.open_context()
        step = self._context_step("context")
        if step is not None:
            self._channel.say("context", step=encode_part(step))
        if self._task.wants_limit:
            free = self._counters.keep_within_free()
            self._channel.say("facts", facts={"torch_limit_bytes": str(free)}, versions={})

    def _context_step(self, name: str) -> ContextStep | None:
        memory = self._look()
        if memory is None or self._counters is None:
            return None
        held = self._counters.read().torch
        return ContextStep(
            name=name,
            process_used_bytes=self._own_share(memory),
            device_used_bytes=memory.used_bytes,
            reserved_bytes=held.reserved_bytes if held else 0,
        )

    def _look(self) -> DeviceMemory | None:
        return self._device.read().device if self._device is not None else None

    # ------------------------------------------------------------------- load
    def _load(self) -> None:
        task, program, meter = self._task, self._program, self._meter
        built = program.build()
        on_host = program.keeps_on_host
        place = torch.device("cpu") if on_host else self._target
        if program.loading == "device_map" and not on_host and task.checkpoint is None:
            first = next(iter(built))
            meter.begin("load", first)
            take_one_block(sum(map(size_of, built.values())), place)
        for name, module in built.items():
            meter.begin("load", name)
            before = self._allocated()
            loaded = self._loaded(name, module, place)
            self._modules[name] = loaded
            after = self._allocated()
            part = MeasuredComponent(
                name=name,
                parameters=parameters_of(loaded),
                weights_bytes=size_of(loaded),
                allocated_bytes=None if before is None or after is None else after - before,
            )
            self._channel.say("component", component=encode_part(part))
        meter.end()

    def _loaded(self, name: str, module: torch.nn.Module, place: torch.device) -> torch.nn.Module:
        if self._task.checkpoint is None:
            make_up(module, place)
            return module
        return self._program.load(name, self._task.checkpoint, place).to(place)

    def _allocated(self) -> int | None:
        held = self._counters.read().torch if self._counters is not None else None
        return held.allocated_bytes if held else None

    # ------------------------------------------------------------------ turns
    def _turns(self) -> None:
        meter = self._meter
        work = self._program.prepare(self._modules, self._target, self._begin)
        for number in range(self._task.turns):
            meter.turn = TURNS[min(number, 1)]
            self._once(work)
            meter.end()
        if self._historian is not None:
            meter.turn = "history"
            self._record(self._historian, work)

    def _record(self, historian: Historian, work: Callable[[], None]) -> None:
        """Take the allocator's events down in a turn of its own, which spoils no figure."""
        try:
            historian.record(lambda: self._once(work))
        except Exception as problem:  # noqa: BLE001  # what was measured stays measured
            said = f"the allocator's events were not kept: {type(problem).__name__}: {problem}"
            self._channel.say("note", text=said[:300])
        else:
            self._channel.say("history")

    def _begin(self, phase: str, component: str) -> None:
        if self._historian is not None and self._meter.turn == "history":
            self._historian.begin(phase, component)  # measuring would change what is recorded
        else:
            self._meter.begin(phase, component)

    def _once(self, work: Callable[[], None]) -> None:
        gc.collect()
        with nullcontext() if self._program.is_training else torch.no_grad():
            work()
        if self._counters is not None:
            self._counters.settle()


def versions() -> dict[str, str]:
    """Return the versions a run's figures depend on."""
    found: dict[str, str] = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("diffusers", "transformers", "accelerate"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        cudnn: Any = torch.backends.cudnn
        found["cudnn"] = str(cudnn.version())
    return found


def _environment_facts() -> dict[str, str]:
    import os

    names = ("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    return {name: os.environ[name] for name in names if name in os.environ}
