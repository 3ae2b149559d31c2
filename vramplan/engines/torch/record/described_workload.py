"""An entry that no recipe knows, as code for a real device: what its tape was recorded from.

The classes of its components are built from their configs, and called as the recorder that knows no
class calls them (`record.saved`). So what is measured is the very program that is on the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vramplan.engines.torch.facts import facts_at, numbers_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.live import Begin
from vramplan.engines.torch.record.pretrained import load_part
from vramplan.engines.torch.record.saved import models, whole_pipeline
from vramplan.engines.torch.record.saved.asked_model import generates
from vramplan.engines.torch.record.saved.build import build_part
from vramplan.engines.torch.record.saved.entry_tape import request_at
from vramplan.engines.torch.record.session import DTYPES
from vramplan.engines.torch.record.stream import Stream
from vramplan.errors import UsageError
from vramplan.model import Settings

Value = Any


class DescribedWorkload:
    """What an entry's components are, and what a user does with them, at some settings.

    Raises UsageError for what cannot be run without more than the entry says.
    """

    is_training = False
    #: torch chooses by itself: these entries have no setting for it
    wants_math_kernel = False

    def __init__(
        self, pipeline: TorchPipeline, settings: Settings, compute_capability: str
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        facts = facts_at(pipeline, settings, compute_capability, {})
        if facts.get("mode") == "decode":
            raise UsageError(
                f"{pipeline.name}: decode alone is not run, because the shape of what is decoded "
                "is the encoder's to say",
                hint="--mode both measures both",
            )
        self._request = request_at(pipeline, facts, numbers_at(settings))
        self._new_tokens = numbers_at(settings).get("new_tokens", 0)
        self.dtype = DTYPES[facts["dtype"]]
        self.loading = pipeline.loading
        self._offload = str(settings.get("offload", "none"))
        self.keeps_on_host = self._offload in ("model", "sequential")

    def build(self) -> dict[str, torch.nn.Module]:
        """Return the components on `meta`, in the order in which a tape loads them: by name."""
        parts = sorted(self._request.parts, key=lambda part: part.name)
        return {part.name: build_part(part, self.dtype) for part in parts}

    def load(self, name: str, checkpoint: str, device: torch.device) -> torch.nn.Module:
        """Return a component with a checkpoint's weights; see `pretrained.load_component`."""
        whole = self._request.kind == "model"
        return load_part(self._pipeline, name, checkpoint, self.dtype, device, is_whole=whole)

    def prepare(
        self, modules: Mapping[str, torch.nn.Module], target: torch.device, begin: Begin
    ) -> Callable[[], None]:
        """Return what runs the program once on `modules`, telling `begin` where it is."""
        heard: Value = _Heard(begin)
        request = self._request
        if request.kind != "pipeline":
            (model,) = modules.values()
            if generates(model):
                return lambda: models.run_generation(request, model, heard, self._new_tokens)

            def once() -> None:
                models.run_once(request, model, heard)

            return once
        pipe = whole_pipeline.put_together(request, modules)
        if self._offload == "model":
            pipe.enable_model_cpu_offload(device=target)
        elif self._offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=target)
        watched = whole_pipeline.watch_pipeline(pipe, heard)

        def run() -> None:
            watched.begin()
            result = pipe(**whole_pipeline.arguments(request, pipe))
            del result

        return run


class _Heard:
    """What the recorder's programs tell their device, as phases and the components in them."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._phase = "load"
        self._stream = Stream("pipeline", {})

    @property
    def stream(self) -> Stream:
        """The events of whoever is at work; nobody writes any here."""
        return self._stream

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self._stream = stream
        stream.events.clear()  # those of calls: nobody reads them
        self._begin(self._phase, stream.routine)

    def begin_phase(self, phase: str, component: str = "pipeline") -> None:
        """Say that a phase begins."""
        self._phase = phase
        self._begin(phase, component)

    def iterate(self, loop: str) -> None:
        """Hear of a loop's next iteration, which needs no mark."""

    def end_loop(self) -> None:
        """Hear of a loop's end."""

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Run what a model is asked before its run; its memory is given back and not counted."""
        yield
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._begin(self._phase, self._stream.routine)
