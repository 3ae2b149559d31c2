"""What every engine is handed to measure with: the GPU, what is wanted of it, and who hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.quick_dataclass import dataclass

if TYPE_CHECKING:
    from vramplan.model import Card
    from vramplan.probe.nvml import Gpu

#: hears, in a few words, what is being done, or what a person must know at once
Hear = Callable[[str], None]


def unheard(_text: str) -> None:
    """Let words go unheard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a measurement is made with; an engine refuses what it has no use for.

    `find_gpu` returns the GPU and its driver's version, and raises MissingError where there is
    none. `is_dry` runs everything on the CPU, `pretended` is a card that is not there, for the CUDA
    build of torch to run on, `card` is a smaller one to be played; `ballast` gives
    the command of the process that holds a GPU's rest meanwhile, by the GPU's UUID. `weights` is
    as on the command line: random, pretrained, a folder, ``hf:ORG/NAME``, or a .gguf file.
    `projector` is a file of one. `history` is where the allocator's own events go. `command` is
    what the run says it was made by.
    """

    find_gpu: Callable[[], tuple[Gpu, str]]
    is_dry: bool = False
    pretended: Card | None = None
    card: Card | None = None
    weights: str = "random"
    projector: str | None = None
    history: Path | None = None
    ballast: Callable[[str], Sequence[str]] | None = None
    command: str = ""
    progress: Hear = unheard
    remark: Hear = unheard
