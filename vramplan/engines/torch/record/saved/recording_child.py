"""The program that records a saved model: a request as JSON on stdin, a tape on stdout.

It runs in a process of its own, which has bounds: configs may come from a stranger. Steps are said
on stderr, a marked line each. It ends with 0 and a tape, or with 3 and a line that says why there
is none. What libraries read of the environment is set by who starts it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vramplan.engines.torch.libraries import STEP
from vramplan.engines.torch.record.saved import models, whole_pipeline
from vramplan.engines.torch.record.saved.asked_model import generates
from vramplan.engines.torch.record.saved.build import build_part, said
from vramplan.engines.torch.record.saved.constant_tape import Recorded, write_recording
from vramplan.engines.torch.record.saved.inputs import count_forms
from vramplan.engines.torch.record.saved.remembered_calls import Calls, Memory
from vramplan.engines.torch.record.saved.request import Request, read_request
from vramplan.engines.torch.record.saved.taking_over import part_steps
from vramplan.engines.torch.record.saved.wrapped import (
    Functions,
    WrappedDevice,
    cuda_asked_for,
    place_on_device,
    without_inference_mode,
)
from vramplan.engines.torch.record.session import DTYPES
from vramplan.engines.torch.record.stream import Cast, Stream
from vramplan.errors import RecordingError, VramplanError

#: the exit status of a recording that did not succeed; its reason is the last line of stderr
FAILED = 3
#: how many new tokens are recorded: what grows with them is found from three, and proved
RECORDED_TOKENS = (5, 6, 8)

Value = Any
Tell = Callable[[str], None]
Modules = Mapping[str, torch.nn.Module]
#: sees the device and the components before they run
Watch = Callable[[WrappedDevice, Modules], None]


def main() -> int:
    """Answer one request."""
    try:
        raw = json.load(sys.stdin)
        _bound(raw.pop("seconds"), raw.pop("memory_bytes"))
        text = record(read_request(raw), _tell)
    except VramplanError as problem:
        _say(str(problem))
        return FAILED
    except Exception as problem:  # noqa: BLE001  # the code of any class fails in any way
        _say(said(problem))
        return FAILED
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0


def _bound(seconds: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tell(step: str) -> None:
    _say(f"{STEP}{step}")


def _say(line: str) -> None:
    sys.stderr.write(" ".join(line.split())[:400] + "\n")
    sys.stderr.flush()


def record(request: Request, tell: Tell) -> str:
    """Return the text of the tape of a request. Raises RecordingError, or whatever a class does."""
    torch.set_num_threads(1)
    dtype = DTYPES[request.dtype]
    modules = {}
    for part in request.parts:
        tell(f"building {part.name}")
        modules[part.name] = build_part(part, dtype)
    recorded = record_modules(request, modules, tell, watch=remembering(request))
    tell("writing the tape")
    return write_recording(request.name, recorded, modules, dtype.itemsize)


def remembering(request: Request) -> Watch:
    """Return what lets one of many layers that are alike stand for the others of a recording."""
    calls: Calls = {}

    def watch(device: WrappedDevice, modules: Modules) -> None:
        Memory(device, calls, request.dtype, request.kernel).watch(modules)

    return watch


def record_modules(
    request: Request,
    modules: Modules,
    tell: Tell,
    make_device: Callable[[set[int]], WrappedDevice] | None = None,
    *,
    new_tokens: Sequence[int] = RECORDED_TOKENS,
    watch: Watch | None = None,
    placed: set[int] | None = None,
) -> Recorded:
    """Return the recording of a request's run of modules, which are wrapped from here on.

    `make_device` makes another device than the recorder's own of the weights' identities;
    `new_tokens` are recorded of a model that generates; `watch` sees device and modules before. Of
    modules that were wrapped before (`place_on_device`), `placed` are the weights' identities.
    """
    weights = place_on_device(modules.values()) if placed is None else placed
    device = make_device(weights) if make_device else WrappedDevice(Stream("main", {}), weights)
    # code of diffusers asks for autocast, which is not there where CUDA is not
    device.is_strict = request.kind == "model" and request.class_path.startswith("transformers.")
    if watch is not None:
        watch(device, modules)
    if request.kind == "pipeline":
        pipe = whole_pipeline.put_together(request, modules)
        with _recording(request, device, {}) as stream:
            tell("running the pipeline")
            calls, loops = whole_pipeline.run_pipeline(request, pipe, device)
        loops = part_steps(stream, loops)
        return Recorded(runs=[stream], routines=list(calls.routines.values()), loops=loops)
    (model,) = modules.values()
    problem: Exception | None = None
    for form in range(count_forms(request, model)):
        try:
            return _record_model(request, model, device, tell, new_tokens, form)
        except Exception as other:  # noqa: BLE001  # any class's code, in any way
            traceback.clear_frames(other.__traceback__)  # which would keep the run's tensors alive
            problem = problem or other
    assert problem is not None
    raise problem


def _record_model(
    request: Request,
    model: Value,
    device: WrappedDevice,
    tell: Tell,
    new_tokens: Sequence[int],
    form: int,
) -> Recorded:
    """Return the recording of a lone model that is given its inputs in one form."""
    if not generates(model):
        with _recording(request, device, {}) as stream:
            tell("running the model")
            loops = models.run_once(request, model, device, form)
        return Recorded(runs=[stream], loops=loops)
    runs = []
    for new in new_tokens:
        with _recording(request, device, {"new": new}) as stream:
            tell(f"generating {new} tokens")
            models.run_generation(request, model, device, new, form)
        runs.append(stream)
    return Recorded(runs=runs, is_generation=True)


@contextmanager
def _recording(request: Request, device: WrappedDevice, dims: dict[str, int]) -> Iterator[Stream]:
    """Record what is done inside into one stream."""
    stream = device.begin_run(dims)
    gc.collect()
    gc.freeze()
    gc.disable()  # cycles would be freed at moments that differ from run to run
    try:
        asked, functions = (
            cuda_asked_for(request.kernel, device.chose),
            Functions(request.kernel, DTYPES[request.dtype], device.chose),
        )
        with asked, device, functions, torch.no_grad(), without_inference_mode():
            for part in request.parts:  # what is loaded in a width of its own is as if cast to it
                own = DTYPES[part.dtype or request.dtype].itemsize
                if own != DTYPES[request.dtype].itemsize:
                    device.write(Cast(part.name, own))
            yield stream
            device.end_loops()
    finally:
        gc.enable()
        device.births.clear()  # what outlives the run belongs to it, its later death not
    if not stream.events:
        raise RecordingError("nothing was recorded")


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
