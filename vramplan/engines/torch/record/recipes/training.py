"""The training loop a user writes, step by step, with Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from vramplan.engines.torch.record.marks import Marks

Value = Any

#: the first step makes Adam's state: a run of one would not show what training takes
LEAST_STEPS = 2
STEP_COUNTS = {"train_step": "steps"}


def train(
    marks: Marks,
    parameters: Iterable[torch.nn.Parameter],
    steps: int,
    load: Callable[[], Value],
    forward: Callable[[Value], Value],
    measure: Callable[[Value, Value], torch.Tensor],
) -> None:
    """Take `steps` steps: `load` a batch, go `forward`, `measure` the loss, backward, Adam.

    Names are those of the usual loop, and so are lifetimes: the last batch and output stay until
    they are replaced, gradients until the next `zero_grad`.
    """
    trained = [p for p in parameters if p.requires_grad]
    # foreach is what a CUDA device defaults to; on `meta` it must be asked for
    optimizer = torch.optim.Adam(trained, foreach=True)
    for _ in range(steps):
        marks.iterate("train_step")
        marks.begin_phase("train_step")
        batch = load()
        optimizer.zero_grad()
        output = forward(batch)
        loss = measure(output, batch)
        marks.begin_phase("train_step", "backward")
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        marks.begin_phase("train_step", "optimizer")
        optimizer.step()
    marks.end_loops()
    del batch, output, loss
    optimizer.zero_grad()
