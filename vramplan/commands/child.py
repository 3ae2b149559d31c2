"""The measured process: puts a recipe, the probes and the runner together.

``python -m vramplan.commands.child`` is started by ``vramplan profile`` and by the campaign; it
reads its task from stdin. With ``--ballast`` it is the process that holds a larger card's rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vramplan.catalog import load_catalog, user_folders
from vramplan.commands.targets import make_jobs
from vramplan.errors import VramplanError
from vramplan.measurement.codec import encode_part
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Failure, FailureKind
from vramplan.runner.channel import Channel
from vramplan.runner.task import Task, read_task
from vramplan.settings import parse_setting


def main(arguments: Sequence[str]) -> int:
    """Measure the task on stdin, or hold what ``--ballast UUID BYTES`` says."""
    if arguments[:1] == ["--ballast"]:
        _hold(arguments[1], int(arguments[2]))
        return 0
    channel = Channel()
    task = read_task(channel.hear())
    try:
        _run(task, channel)
    except (VramplanError, ImportError) as problem:
        failure = Failure(
            kind=FailureKind.ERROR, phase="start", component="pipeline", message=str(problem)
        )
        channel.say("failure", failure=encode_part(failure))
        channel.hear()
    return 0


def _run(task: Task, channel: Channel) -> None:
    from vramplan.record.workload import Workload
    from vramplan.runner.torch_run import TorchRun

    catalog = load_catalog(user_folders(task.catalog))
    settings = {key: parse_setting(key, text) for key, text in task.settings.items()}
    (found,) = make_jobs([task.target], catalog, settings)
    program = Workload(found.pipeline, found.settings, task.compute_capability)
    if task.device != "cuda":
        channel.say("ready")
        channel.hear()
        TorchRun(task, program, channel, counters=None, device=None, own_share=_nothing).run()
        return
    from vramplan.probe.nvml import NvmlProbe
    from vramplan.probe.processes import own_process
    from vramplan.probe.torch_cuda import TorchProbe

    assert task.gpu is not None
    with NvmlProbe(task.gpu) as device:
        channel.say("ready")
        channel.hear()
        before = device.read().device

        def own_share(memory: DeviceMemory) -> int | None:
            own = own_process(memory, os.getpid(), before=before)
            return own.used_bytes if own else None

        counters = TorchProbe(task.device)
        TorchRun(
            task, program, channel, counters=counters, device=device, own_share=own_share
        ).run()


def _nothing(_memory: DeviceMemory) -> int | None:
    return None


def _hold(gpu: str, leave_bytes: int) -> None:
    from vramplan.probe.nvml import NvmlProbe
    from vramplan.runner.ballast import hold

    with NvmlProbe(gpu) as device:
        hold(leave_bytes, lambda: device.read_memory().free_bytes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
