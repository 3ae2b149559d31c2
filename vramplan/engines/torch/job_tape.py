"""A job's tape: with the weights its settings leave on the device, and what adapters compute."""

from __future__ import annotations

from pathlib import Path

from vramplan.engines.torch.by_identity import ById
from vramplan.engines.torch.changed_weights import (
    changed_tape,
    changes_at,
    element_bytes_of,
    has_adapters,
)
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import EACH_KERNEL, conditions_at, has_code_at
from vramplan.model import Settings
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.contents import Tape

#: tapes with what adapters compute, the latest last: a plan asks for one at many budgets
_adapted: dict[tuple[ById[Tape], str], Tape] = {}
_MOST = 16


def tape_at(pipeline: TorchPipeline, settings: Settings, path: Path) -> Tape:
    """Return the tape in `path` as it runs at settings.

    Raises UsageError for what the pipeline cannot have.
    """
    tape = changed_tape(pipeline, settings, path)
    return _with_adapters(pipeline, settings, tape) if has_adapters(settings) else tape


def _with_adapters(pipeline: TorchPipeline, settings: Settings, tape: Tape) -> Tape:
    """Return a tape with what adapters compute, on an architecture of each kind of kernel."""
    from vramplan.engines.torch.adapted_code import with_adapters
    from vramplan.engines.torch.adapters import adapted_layers
    from vramplan.engines.torch.facts import numbers_at

    found, element_bytes = changes_at(pipeline, settings), element_bytes_of(settings)
    adapted = {
        name: layers
        for name in tape.components
        if name in found.lists
        and (layers := adapted_layers(name, found.lists[name], found.adapters, element_bytes))
    }
    conditions = {
        repr(sorted(one.facts.items())): one
        for capability in EACH_KERNEL
        if has_code_at(pipeline, settings, capability, tape)
        for one in [conditions_at(pipeline, settings, capability, tape)]
    }
    key = ById(tape), repr((adapted, [*conditions], sorted(numbers_at(settings).items())))
    if key not in _adapted:
        while len(_adapted) >= _MOST:
            del _adapted[next(iter(_adapted))]
        lists = {name: found.lists[name] for name in tape.components if name in found.lists}
        _adapted[key] = with_adapters(
            tape, list(conditions.values()), lists, adapted, element_bytes
        )
    return _adapted[key]
