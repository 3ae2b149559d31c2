"""The process that runs cases on pretended cards, from the campaign's side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from vramplan.engines.torch.libraries import QUIET
from vramplan.engines.torch.measure import Order, make_task
from vramplan.engines.torch.witness.card_description import describe_card
from vramplan.engines.torch.witness.pretended_gpu import PretendedGpu, pretend_gpu
from vramplan.errors import MeasurementError
from vramplan.model import Card, Job

Answer = dict[str, Any]


class ForkedRuns:
    """A context manager around `tools.verdicts.forked_runs`, which is begun once."""

    def __init__(self, card: Card) -> None:
        self._gpu = PretendedGpu(card)  # any: each run has its own

    def __enter__(self) -> Self:
        self._gpu.__enter__()
        # torch warns of every refused allocation, of which there are thousands
        quiet = {**QUIET, "TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.verdicts.forked_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._gpu.environment({**os.environ, **quiet}),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._gpu.__exit__(kind, problem, trace)

    def run(self, job: Job, card: Card, rooms: Sequence[int]) -> list[Answer]:
        """Run a job once on the card with each of `rooms` free, its CUDA context included.

        Raises MeasurementError where a run cannot be made, or ends by another error.
        """
        order = Order(job=job, gpu=pretend_gpu(card), pretended=card, turns=1)
        described = asdict(describe_card(card))
        cards = [{**described, "total_bytes": room} for room in rooms]
        request = {"task": asdict(make_task(order)), "cards": cards}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MeasurementError("the process that runs the cases has ended")
        answer = json.loads(line)
        for one in [answer, *answer.get("runs", ())]:
            failure = one.get("failure")
            if "error" in one or (failure is not None and failure["kind"] != "oom"):
                said = one.get("error") or failure["message"]
                raise MeasurementError(f"{job.pipeline.name}: {said[:300]}")
        runs: list[Answer] = answer["runs"]
        return runs
