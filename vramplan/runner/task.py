"""One measurement to be made, as the process that makes it is told: plain words and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from vramplan.quick_dataclass import dataclass, field

MACHINE = "machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to run, and how.

    `pipeline` is a name, described in the catalogue's file `path`; one without a file is an
    experiment of the runner's own. `settings` are all of them, as on the command line. `kernels` is
    ``machine``, or the compute capability whose kernels alone may be used; `checkpoint` is None for
    random weights; `turns` is
    how often the program runs in its process, the first of them cold. `wants_limit` keeps torch
    within what the card had free at the start. `history` is a file for the allocator's own events.
    """

    pipeline: str
    compute_capability: str
    path: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    device: str = "cuda"  # cuda | cpu: the same code with nothing to measure
    gpu: str | None = None  # its UUID
    kernels: str = MACHINE
    checkpoint: str | None = None
    wants_limit: bool = False
    turns: int = 2
    history: str | None = None

    def line(self) -> str:
        """Return the task as one line."""
        return json.dumps(asdict(self))


def read_task(line: str) -> Task:
    """Return the task that `Task.line` wrote."""
    return Task(**json.loads(line))
