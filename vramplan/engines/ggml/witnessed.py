"""The engine's own plan, taken as the answer where a family is not known and the engine is here.

The real llama.cpp (the extra engine) plans for a card that is not there, in a process of its own,
in a fraction of a second. What it prints is the estimate then: its build stands beside each line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vramplan.engines.ggml import coverage
from vramplan.engines.ggml.build_rules import WITNESS_BUILD
from vramplan.engines.ggml.figures import Figures, counted
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.graph_buffer import has_tape
from vramplan.engines.ggml.layer_fit import Fit, as_asked, fit_run
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.next_tokens import is_loaded, with_next_tokens
from vramplan.engines.ggml.pipeline import ModelFile
from vramplan.errors import MeasurementError, MissingError
from vramplan.quick_dataclass import replace

LIBRARY = "xllamacpp"
_INSTALL = "pip install 'vramplan[engine]'"


def settle(run: GgmlRun, free_bytes: Sequence[int] | None) -> tuple[Fit, Figures]:
    """Return what is loaded where, and its figures; without `free_bytes` on cards with room.

    Raises MeasurementError where the engine was asked and refuses the file.
    """
    fit, figures = _settle(run, free_bytes)
    return fit, with_next_tokens(fit, figures, _ask_next(fit)) if is_loaded(fit) else figures


def _ask_next(fit: Fit) -> tuple[tuple[int, ...], int] | None:
    """Return what the engine itself reserves for the layers that guess ahead, if it is here."""
    if not isinstance(fit.run.pipeline.model, ModelFile) or fit.run.rules.build != WITNESS_BUILD:
        return None
    if sys.platform != "linux" or not _is_engine_here():
        return None
    from vramplan.engines.ggml.witness.engine_plan import plan_next

    try:
        return plan_next(fit)
    except (MeasurementError, MissingError):
        return None


def _settle(run: GgmlRun, free_bytes: Sequence[int] | None) -> tuple[Fit, Figures]:
    fit = as_asked(run) if free_bytes is None else fit_run(run, free_bytes)
    if is_counted(run):
        return fit, counted(fit)
    remark = f"{run.model.architecture or 'the architecture'} is not known to the last buffer"
    if not isinstance(run.pipeline.model, ModelFile):
        return fit, _remarked(fit, f"{remark}: what is assumed says so")
    if sys.platform != "linux" or not _is_engine_here():
        hint = f"; the engine itself would tell: {_INSTALL}" if sys.platform == "linux" else ""
        return fit, _remarked(fit, f"{remark}: what is assumed says so{hint}")
    return _ask(run, fit, free_bytes, remark)


def is_counted(run: GgmlRun) -> bool:
    """Return whether all that is allocated for a run is known, its graph by heart or recorded."""
    return coverage.is_known(run.model) and (
        run.model.architecture in FAMILIES
        or has_tape(run.model, run.batch, run.rules, len(run.cards))
    )


def _is_engine_here() -> bool:
    from importlib.util import find_spec

    return find_spec(LIBRARY) is not None


def _ask(
    run: GgmlRun, fit: Fit, free_bytes: Sequence[int] | None, remark: str
) -> tuple[Fit, Figures]:
    """Return the engine's plan; where it was not to be had what is counted, and why."""
    from vramplan.engines.ggml.own_graph import to_the_byte
    from vramplan.engines.ggml.witness.engine_plan import UnknownError, plan

    try:
        fit, planned = plan(run, fit, free_bytes)
    except (UnknownError, MissingError) as problem:
        return fit, _remarked(fit, f"{remark}: {problem}; what is assumed says so")
    return fit, to_the_byte(fit, planned)


def _remarked(fit: Fit, remark: str) -> Figures:
    return replace(counted(fit), remarks=(remark,))
