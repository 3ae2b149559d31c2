"""One process that has imported everything, and forks for every run on a pretended card.

``python -m tools.verdicts.forked_runs`` reads requests from stdin, a line of JSON each, and answers
each by a line on stdout. It is started with the environment of a pretended card
(`tools.verdicts.asking`). CUDA is begun in the forks alone, so each run is the first of its
process, on a card of its own size. The components are built once for all cards of a request.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = dict[str, Any]

#: a run that takes longer is given up: its caller would wait for one that hangs
_CPU_SECONDS = 300


class _Heard:
    """A channel's end in the same process: keeps what is said, and answers at once."""

    def __init__(self) -> None:
        self.said: list[Answer] = []

    def say(self, kind: str, **said: Any) -> None:
        """Keep what is told."""
        self.said.append({"say": kind, **said})

    def hear(self) -> str:
        """Return an answer: nobody has to look at anything first."""
        return ""

    def tell_end(self, turn: str, phase: str, component: str) -> None:
        """Hear that a phase has ended."""


def main() -> int:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is not for whoever asked
    import torch

    # asking torch for the number of devices, as libraries do when they are imported, would keep it
    # from CUDA in every fork (torch/csrc/utils/device_lazy_init.cpp)
    core: Any = torch._C  # noqa: SLF001  # there is no other way to be asked in its place
    core._cuda_getDeviceCount = lambda: 1  # noqa: SLF001  # as above
    torch.set_num_threads(1)
    import diffusers
    import transformers

    from vramplan.engines.torch.run import child, torch_run

    del diffusers, transformers, child, torch_run  # imported for all forks
    for line in sys.stdin:
        answer = _forked(lambda: _on_all_cards(json.loads(line)))  # noqa: B023  # called at once
        answers.write(json.dumps(answer) + "\n")
    return 0


def _on_all_cards(request: Answer) -> Answer:
    """Run a task on each card of a request."""
    from vramplan.engines.torch.run.child import open_program
    from vramplan.engines.torch.run.environment import torch_environment
    from vramplan.engines.torch.witness import card_state
    from vramplan.engines.torch.witness.card_state import PretendedCard
    from vramplan.runner.task import Task
    from vramplan.settings import parse_setting

    task = Task(**request["task"])
    settings = {key: parse_setting(key, text) for key, text in task.settings.items()}
    os.environ.update(torch_environment(settings, task.kernels))
    program = open_program(task)
    built = program.build()
    program.build = lambda: built  # type: ignore[method-assign]  # the forks share it
    path = card_state.state_path()
    assert path is not None
    runs = []
    for card in request["cards"]:
        capability = tuple(card.pop("compute_capability"))
        described = PretendedCard(compute_capability=capability, **card)
        card_state.write_state(Path(path), [described])
        runs.append(_forked(lambda: _once(task, program)))
        runs[-1]["refused"] = card_state.read_use(Path(path))[0].refused
        runs[-1]["notes"] = card_state.read_notes(Path(path))
    return {"runs": runs}


def _once(task: Any, program: Any) -> Answer:
    """Run a task once, cold, on the card that is there."""
    from vramplan.engines.torch.run.torch_counters import TorchProbe
    from vramplan.engines.torch.run.torch_run import TorchRun

    heard = _Heard()
    run = TorchRun(
        task,
        program,
        heard,  # type: ignore[arg-type]  # as far as a run asks, it is one
        counters=TorchProbe(task.device),
        device=None,
        own_share=lambda _memory: None,
    )
    run.run()
    peaks = {"allocated": 0, "reserved": 0}
    failure, versions, retries = None, {}, 0
    for one in heard.said:
        if one["say"] == "failure":
            failure = one["failure"]
        elif one["say"] == "facts":
            versions |= one["versions"]
        elif one["say"] == "stretch" and one["stretch"]["torch"] is not None:
            told = one["stretch"]["torch"]
            peaks = {name: max(most, told[f"{name}_peak_bytes"]) for name, most in peaks.items()}
            retries = max(retries, told["retries"])
    return {"failure": failure, "versions": versions, "retries": retries, **peaks}


def _forked(work: Callable[[], Answer]) -> Answer:
    """Return what `work` returns in a process forked from this one."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            most = int(used) + _CPU_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
            try:
                answer = work()
            except Exception as problem:  # noqa: BLE001  # whatever a run does: said to who asked
                traceback.print_exc()
                answer = {"error": f"{type(problem).__name__}: {problem}"[:500]}
            answer["cpu_s"] = round(sum(os.times()[:4]), 2)
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "its process ended without a word"}


if __name__ == "__main__":
    sys.exit(main())
