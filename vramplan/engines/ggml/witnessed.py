"""The engine's own plan, taken as the answer where a family is not known and the engine is here.

The real llama.cpp (the extra engine) plans for a card that is not there, in a process of its own,
in a fraction of a second. What it prints is the estimate then: its build stands beside each line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vramplan.engines.ggml import coverage
from vramplan.engines.ggml.build_rules import WITNESS_BUILD
from vramplan.engines.ggml.figures import Figure, Figures, counted, over_cards
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.graph_buffer import has_tape
from vramplan.engines.ggml.layer_fit import Fit, as_asked, fit_run
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.engines.ggml.next_tokens import is_loaded, with_next_tokens
from vramplan.engines.ggml.pipeline import ModelFile
from vramplan.errors import MeasurementError, MissingError
from vramplan.model import Band, Origin
from vramplan.quick_dataclass import replace
from vramplan.units import MIB

LIBRARY = "xllamacpp"
_INSTALL = "pip install 'vramplan[engine]'"
#: the engine prints hundredths of a MiB
_ROUNDING_BYTES = MIB // 200
_RESULTS = "what adapters add to the compute buffer is assumed"


def settle(run: GgmlRun, free_bytes: Sequence[int] | None) -> tuple[Fit, Figures]:
    """Return what is loaded where, and its figures; without `free_bytes` on cards with room.

    Raises MeasurementError where the engine was asked and refuses the file.
    """
    fit, figures = _settle(run, free_bytes)
    if fit.run.adapters:
        figures = _with_adapters(fit, figures)
    if fit.run.draft is not None:
        figures = _with_draft(fit.run, fit.run.draft, figures)
    return fit, with_next_tokens(fit, figures, _ask_next(fit)) if is_loaded(fit) else figures


def _with_adapters(fit: Fit, figures: Figures) -> Figures:
    """Return `figures` with the graph that the engine reserves with LoRA adapters in it.

    Where it cannot be asked they are assumed, and say why.
    """
    why = _why_not_asked(fit.run)
    if why:
        return _without_adapters(figures, why)
    from vramplan.engines.ggml.witness.engine_plan import plan_with_adapters

    try:
        sizes, host, version = plan_with_adapters(fit)
    except (MeasurementError, MissingError) as problem:
        return _without_adapters(figures, str(problem))
    if not _is_of_build(version, fit.run):
        why = f"{version}, which is installed, is not b{fit.run.rules.build}"
        return _without_adapters(figures, why)
    source = (
        f"llama.cpp's own plan ({version}) for a CUDA card that is not there, with the adapters "
        "loaded"
    )
    return replace(
        figures,
        compute=_as_printed(sizes, source),
        host_compute_bytes=host,
        has_adapters=True,
    )


def _with_draft(run: GgmlRun, draft: GgmlRun, figures: Figures) -> Figures:
    """Return `figures` with the compute buffer that the engine has for a draft model.

    A language model that guesses ahead (draft-simple) samples on the CPU: b11549's server reserves
    nothing anew while it guesses. Layers and heads that guess for a model sample on the GPU, which
    a plan does not tell.
    """
    is_plain = draft.model.architecture in FAMILIES and not draft.model.next_tensors
    if not is_plain or run.pipeline.is_lm_studio or _why_not_asked(run):  # its own way to guess
        return figures
    from vramplan.engines.ggml.witness.engine_plan import plan_draft

    try:
        sizes, _, version = plan_draft(as_asked(draft))
    except (MeasurementError, MissingError):
        return figures
    if not _is_of_build(version, run):
        return figures
    source = (
        f"llama.cpp's own plan ({version}) of the draft model for a CUDA card that is not there"
    )
    return replace(figures, draft_compute=_as_printed(sizes, source))


def _as_printed(sizes: Sequence[int], source: str) -> Figure:
    """Return the sizes on each card that the engine prints, in hundredths of a MiB."""
    bands = [
        Band(
            low_bytes=max(size - _ROUNDING_BYTES, 0),
            expected_bytes=size,
            high_bytes=size + _ROUNDING_BYTES if size else 0,
        )
        for size in sizes
    ]
    return over_cards(bands, Origin.WITNESSED, source)


def _without_adapters(figures: Figures, why: str) -> Figures:
    """Return `figures` of the graph without adapters, which may need more than the one with them.

    Of layers in host memory b11549 was seen to take a tenth less with an adapter than without.
    """
    compute = figures.compute
    bands = [replace(band, low_bytes=band.low_bytes // 2) for band in compute.bands]
    source = f"{compute.source}; without adapters, and with them it may be less: down to half"
    return replace(
        figures,
        compute=over_cards(bands, Origin.ASSUMED, source),
        remarks=(*figures.remarks, f"{_RESULTS}: {why}"),
    )


def _is_of_build(version: str, run: GgmlRun) -> bool:
    """Return whether the engine that answered is of the build that a run is planned for."""
    return version.rpartition(".")[2] == str(run.rules.build)


def _why_not_asked(run: GgmlRun) -> str:
    """Return why the engine is not asked about adapters; nothing where it is."""
    if run.is_own_engine:
        return "Ollama's own engine cannot be asked"
    if run.rules.build != WITNESS_BUILD:
        return f"the engine that can be asked is b{WITNESS_BUILD}, not b{run.rules.build}"
    if sys.platform != "linux":
        return "the engine is asked on Linux only"
    return "" if _is_engine_here() else f"the engine itself would tell: {_INSTALL}"


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
