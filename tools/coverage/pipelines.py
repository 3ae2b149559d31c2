"""Pipelines of diffusers with dummy components, recorded and run with real data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.coverage import dummies
from tools.coverage.dummies import Dummies
from tools.coverage.results import Report, Subject

Value = Any

KIND = "pipeline"
_NOT_ONE = ("DiffusionPipeline", "ModularPipeline")
_STEPS = 3
#: the largest side, and the most frames, that dummies are run with
_LARGEST_SIDE, _MOST_FRAMES = 512, 64
BY_NAME, BY_TEST = "its arguments by name", "its test's inputs"


def subjects(folders: Sequence[Path]) -> Iterator[Subject]:
    """Yield every pipeline class that the installed diffusers exports, with its test's file.

    A modular pipeline is put together of blocks, and has no ``__call__`` of its own.
    """
    import diffusers

    known = dummies.find_places(folders)
    packages = _packages()
    for name in sorted(set(dir(diffusers))):
        if name.endswith("Pipeline") and not name.endswith(_NOT_ONE):
            others = () if name in known else dummies.lenders(name, known, packages)
            yield Subject(
                kind=KIND, name=name, class_name=name, place=known.get(name, ""), lenders=others
            )


def _packages() -> dict[str, str]:
    """Return the folder of diffusers in which each of its pipelines is."""
    from diffusers import pipelines

    return {
        name: folder
        for folder, names in vars(pipelines)["_import_structure"].items()
        for name in names
    }


def record(subject: Subject, report: Report) -> None:
    """Record a pipeline with dummies. Raises whatever its class, or its test, does.

    Dummies count as built where they were recorded, or at least run on a CPU.
    """
    import diffusers

    from tools.coverage.fetched_instead import make_instead_of_fetching
    from vramplan.engines.torch.record.saved.build import said

    make_instead_of_fetching()
    cls = getattr(diffusers, subject.class_name)

    def make() -> Dummies:
        if subject.place:
            return dummies.own(subject.place)
        return dummies.borrowed(cls, subject.lenders)

    runs = [_Run(subject, cls, make, how, dtype) for dtype in ("bf16", "fp32") for how in _HOW]
    runs[0].modules(hollow=False)
    problem: Exception | None = None
    for run in runs:
        try:
            run.record()
        except Exception as other:  # noqa: BLE001  # any class, any failure
            problem = problem or other
            continue
        report(stage="recorded", how=run.said, reason=said(problem) if problem else "")
        if subject.is_compared:
            report(fidelity=run.fidelity())
        return
    if problem is not None:
        _raise(problem, runs[2:], report)


def _raise(problem: Exception, runs: Sequence[_Run], report: Report) -> None:
    """Say why a pipeline was not recorded: it does not run on a CPU either, or the recorder."""
    from vramplan.engines.torch.record.saved.build import said

    on_cpu: Exception = problem
    for run in runs:
        try:
            run.on_cpu()
        except Exception as other:  # noqa: BLE001  # as above
            on_cpu = other
            continue
        report(stage="built")
        raise problem
    raise LookupError(f"its dummies do not run on a CPU either: {said(on_cpu)}") from problem


_HOW = (BY_NAME, BY_TEST)


class _Run:
    """A pipeline in one type of numbers, called in one way."""

    def __init__(
        self, subject: Subject, cls: Value, make: Callable[[], Dummies], how: str, dtype: str
    ) -> None:
        self._subject, self._cls, self._make = subject, cls, make
        self._how, self._dtype = how, dtype
        self._inputs: Mapping[str, Value] = {}

    @property
    def said(self) -> str:
        """Say how the pipeline is called."""
        return self._how + (", in fp32" if self._dtype == "fp32" else "")

    def modules(self, *, hollow: bool) -> tuple[dict[str, Value], dict[str, Value]]:
        """Return a new pipeline's modules, and its other parts."""
        import torch

        from tools.coverage.fetched_instead import made_for
        from vramplan.engines.torch.record.saved.build import load_as
        from vramplan.engines.torch.record.session import DTYPES

        made = self._make()
        self._inputs = made.inputs
        # some put their parts together anew when they are made: they are run as they then are
        parts = self._cls(**made.components).components
        modules = {name: one for name, one in parts.items() if isinstance(one, torch.nn.Module)}
        dtype = DTYPES[self._dtype]
        to = torch.nn.Module.to  # a test's own module may have another
        for one in modules.values():
            to(one, dtype).eval().requires_grad_(requires_grad=False)
            load_as(one, dtype, is_of_diffusers=type(one).__module__.startswith("diffusers."))
            if hollow:
                to(one, "meta")
        others = {
            name: made_for(one, modules.values())
            for name, one in made.components.items()
            if name not in modules
        }
        return modules, others

    def _request(self, others: Mapping[str, Value]) -> Value:
        from vramplan.engines.torch.record.saved.request import Request

        frames = self._inputs.get("num_frames")
        return Request(
            name="small",
            kind="pipeline",
            class_path=f"diffusers.{self._subject.class_name}",
            parts=(),
            index={},
            schedulers={},
            dtype=self._dtype,
            kernel="flash" if self._dtype == "bf16" else "efficient",
            batch=1,
            image=sides(self._inputs),
            frames=min(frames, _MOST_FRAMES) if type(frames) is int else None,
            prompt_tokens=0,
            steps=_STEPS,
            values=others,
        )

    def record(self) -> None:
        """Record it, as far as a tape."""
        from vramplan.engines.torch.record.saved.constant_tape import write_recording
        from vramplan.engines.torch.record.saved.recording_child import record_modules
        from vramplan.engines.torch.tape.format import parse_tape

        modules, others = self.modules(hollow=True)
        with self._arguments():
            recorded = record_modules(self._request(others), modules, lambda _: None)
        parse_tape(write_recording("small", recorded, modules, 2), "small")

    def fidelity(self) -> str:
        """Return how the recording is like the same run with real data."""
        from tools.coverage.real_run import HeardDevice, compare, run_heard
        from vramplan.engines.torch.record.saved.build import said

        try:
            real = self.really()
        except Exception as problem:  # noqa: BLE001  # any class, any failure
            if self._how == BY_NAME:  # as large as its class likes images: a test has small ones
                small = _Run(self._subject, self._cls, self._make, BY_TEST, self._dtype)
                return small.fidelity()
            return f"no real run: {said(problem)}"
        modules, others = self.modules(hollow=True)
        with self._arguments():
            recorded = run_heard(self._request(others), modules, HeardDevice)
        return compare(recorded, real)

    def really(self) -> Value:
        """Run it with real data. Raises whatever its class does."""
        from tools.coverage.real_run import run_really

        modules, others = self.modules(hollow=False)
        with self._arguments():
            return run_really(self._request(others), modules)

    def on_cpu(self) -> None:
        """Run it on a CPU, without any device of ours. Raises whatever its class does."""
        import torch

        from vramplan.engines.torch.record.saved import whole_pipeline

        modules, others = self.modules(hollow=False)
        request = self._request(others)
        pipe = whole_pipeline.put_together(request, modules)
        with self._arguments(), torch.no_grad():
            pipe(**whole_pipeline.arguments(request, pipe))

    @contextmanager
    def _arguments(self) -> Iterator[None]:
        """Call a pipeline with its test's inputs, where these are asked for.

        A class without a test of its own takes not all of another's.
        """
        from vramplan.engines.torch.record.saved import whole_pipeline

        before = whole_pipeline.arguments
        if self._how == BY_TEST:
            taken = inspect.signature(self._cls.__call__).parameters
            given = {name: one for name, one in self._inputs.items() if name in taken}
            if "num_inference_steps" in given:
                given["num_inference_steps"] = whole_pipeline.steps_of(
                    {}, _STEPS, given.get("strength")
                )
            whole_pipeline.arguments = lambda _request, _pipe: given
        try:
            yield
        finally:
            whole_pipeline.arguments = before


def sides(inputs: Mapping[str, Value]) -> tuple[int, int] | None:
    """Return the width and the height that a test asks for, or those of an image that it gives."""
    asked = inputs.get("width"), inputs.get("height")
    if all(type(one) is int for one in asked):
        return asked  # type: ignore[return-value]  # both are
    for name, value in inputs.items():
        if any(word in name for word in ("image", "video", "pixel")):
            found = _sides_of(value)
            if found is not None:
                return found
    return None


def _sides_of(value: Value) -> tuple[int, int] | None:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    shape = tuple(getattr(value, "shape", ()))
    size = getattr(value, "size", None)
    if len(shape) >= 3:
        height, width = shape[-3:-1] if shape[-1] in (1, 3, 4) else shape[-2:]
    elif isinstance(size, tuple) and len(size) == 2:
        width, height = size
    else:
        return None
    return (int(width), int(height)) if 0 < max(width, height) <= _LARGEST_SIDE else None
