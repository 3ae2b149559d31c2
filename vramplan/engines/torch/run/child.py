"""The measured process: puts a recipe, the probes and the runner together.

``python -m vramplan.engines.torch.run.child`` is started by ``vramplan profile`` and by the
campaign; it reads its task from stdin. With ``--ballast`` it is the process that holds a larger
card's rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.catalog import load_pipeline_file
from vramplan.engines.torch.open import open_entry
from vramplan.errors import VramplanError
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Failure, FailureKind
from vramplan.measurement.run_json import encode_part
from vramplan.runner.channel import Channel
from vramplan.runner.task import Task, read_task
from vramplan.settings import parse_setting, resolve_settings

if TYPE_CHECKING:
    from vramplan.engines.torch.run.meter import Counters, OwnShare
    from vramplan.engines.torch.run.program import Program
    from vramplan.probe.protocol import Probe

    #: runs a task, given torch's counters, the card, and what of it is ours
    Runner = Callable[[Counters | None, Probe | None, OwnShare], None]


def main(arguments: Sequence[str]) -> int:
    """Measure the task on stdin, or with ``--ballast UUID`` hold what stdin says."""
    if arguments[:1] == ["--ballast"]:
        _hold(arguments[1])
        return 0
    channel = Channel()
    carry_out(read_task(channel.hear()), channel)
    return 0


def carry_out(task: Task, channel: Channel) -> None:
    """Measure a task; what stops it before the card is touched is told as its failure."""
    try:
        runner = _runner(task, channel)
    except (VramplanError, ImportError) as problem:
        failure = Failure(
            kind=FailureKind.ERROR, phase="start", component="pipeline", message=str(problem)
        )
        channel.say("failure", failure=encode_part(failure))
        channel.hear()
        return
    if task.device == "cuda":
        _on_the_card(task, channel, runner)
        return
    channel.say("ready")
    channel.hear()
    runner(None, None, _nothing)


def _runner(task: Task, channel: Channel) -> Runner:
    """Return what runs a task: a pipeline, or one of the runner's own experiments."""
    from vramplan.engines.torch.run import context_run, convolution_run
    from vramplan.engines.torch.run.allocator_history import Historian
    from vramplan.engines.torch.run.torch_run import TorchRun

    if task.pipeline == context_run.TARGET:
        return lambda counters, device, own: context_run.ContextRun(
            task, channel, counters=counters, device=device, own_share=own
        ).run()
    if task.pipeline == convolution_run.TARGET:
        return lambda counters, _device, _own: convolution_run.ConvolutionRun(
            task, channel, counters=counters
        ).run()
    program = open_program(task)
    historian = None
    if task.history is not None and task.device == "cuda":
        historian = Historian(Path(task.history))
    return lambda counters, device, own: TorchRun(
        task,
        program,
        channel,
        counters=counters,
        device=device,
        own_share=own,
        historian=historian,
    ).run()


def open_program(task: Task) -> Program:
    """Return the program that a task names. Raises UsageError where it cannot be run."""
    from vramplan.engines.torch.record.described_workload import DescribedWorkload
    from vramplan.engines.torch.record.recipes.registry import find_recipe
    from vramplan.engines.torch.record.workload import Workload

    pipeline = open_entry(load_pipeline_file(Path(task.path)), ())
    given = {key: parse_setting(key, text) for key, text in task.settings.items()}
    settings = resolve_settings(pipeline, given)
    is_described = pipeline.saved is not None and find_recipe(pipeline) is None
    kind = DescribedWorkload if is_described else Workload
    return kind(pipeline, settings, task.compute_capability)


def _on_the_card(task: Task, channel: Channel, runner: Runner) -> None:
    from vramplan.engines.torch.run.torch_counters import TorchProbe
    from vramplan.probe.nvml import NvmlProbe
    from vramplan.probe.processes import own_process

    assert task.gpu is not None
    with NvmlProbe(task.gpu) as device:
        channel.say("ready")
        channel.hear()
        before = device.read().device

        def own_share(memory: DeviceMemory) -> int | None:
            own = own_process(memory, os.getpid(), before=before)
            return own.used_bytes if own else None

        runner(TorchProbe(task.device), device, own_share)


def _nothing(_memory: DeviceMemory) -> int | None:
    return None


def _hold(gpu: str) -> None:
    from vramplan.engines.torch.run.torch_ballast import hold_rest
    from vramplan.probe.nvml import NvmlProbe

    with NvmlProbe(gpu) as device:
        hold_rest(lambda: device.read_memory().free_bytes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
