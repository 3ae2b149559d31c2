"""Counts the architectures whose buffers are the engine's, without it and where it is installed.

The models are those of the tests (`tests/engine_made.py`), of other numbers and keys than tapes are
made of. With no layer, one, half and all on a card that is not there, caches in f16 and q8_0, for
one slot and four, every compute buffer must be the engine's: to the byte without it, and to what
it prints where it is asked, as are weights, caches and states then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tools.graphs.asking import Asking, EngineError
from tools.graphs.samples import request_of, run_of
from tools.model_files import sparse_module
from vramplan.engines.ggml import coverage
from vramplan.engines.ggml.figures import Figures, counted
from vramplan.engines.ggml.graph_buffer import has_tape
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import NEVER_FLASH, GgmlRun
from vramplan.engines.ggml.witnessed import settle
from vramplan.errors import VramplanError
from vramplan.model import Origin
from vramplan.sources.gguf import read_gguf
from vramplan.sources.gguf_header import GgufFile

#: how many layers are on the card
PLACED = ("0", "1", "half", "all")
#: a run's buffers beside the engine's, in bytes by backend: why they differ, or nothing
_Compare = Callable[[GgmlRun, Mapping[str, int]], str]
#: graphs that are written by hand are held to what the engine prints, hundredths of a MiB
_ROUNDING = 0.02 * (1 << 20)


def count(name: str, card: Asking) -> str:
    """Return ``exact``, or why an architecture's buffers are not known without the engine."""
    return _count(name, card, _compare)


def count_asked(name: str, card: Asking, placed: Sequence[str] = PLACED) -> str:
    """Return ``exact``, or why an architecture's buffers are not the engine's with it installed."""
    return _count(name, card, _compare_asked, placed)


def _count(name: str, card: Asking, compare: _Compare, placed: Sequence[str] = PLACED) -> str:
    made = sparse_module("engine_made")
    said = "the engine takes no model of it"
    with tempfile.TemporaryDirectory(prefix="vramplan-graphs-") as folder:
        for variant in range(made.VARIANTS):
            files = made.make(Path(folder), name, variant) or ()
            found = [_judge(read_gguf(path), card, compare, placed) for path in files]
            known = [one for one in found if one is not None]
            if "exact" in known:
                return "exact"
            if known:
                return known[0]
    return said


def _judge(header: GgufFile, card: Asking, compare: _Compare, placed: Sequence[str]) -> str | None:
    """Return how a model's buffers are known; None where the engine does not take it."""
    for layers in placed:
        for run in _runs(header, layers):
            try:
                told = card.buffers(header, [request_of(run, run.asked_layers)])[0]
            except EngineError:
                if layers == placed[0] and run.batch.sequences == 1:
                    return None
                continue  # what it refuses there is no buffer of it
            try:
                said = compare(run, told)
            except VramplanError as problem:
                said = str(problem)
            if said:
                return f"{layers} layers, {run.batch.cache_type}, {run.batch.sequences}: {said}"
    return "exact"


def _runs(header: GgufFile, layers: str) -> Iterator[GgmlRun]:
    is_never = header.architecture in NEVER_FLASH
    for slots in (1, 4):
        for kind in ("f16",) if is_never else ("f16", "q8_0"):
            settings: dict[str, object] = {
                "context": 8192, "parallel": slots, "kv_unified": "off", "kv_type": kind,
                "flash_attention": "off" if is_never else "on", "engine": "b11549",
            }  # fmt: skip
            total = run_of(header, {**settings, "gpu_layers": 0}).model.total_layers
            count = {"0": 0, "1": 1, "half": total // 2, "all": total}[layers]
            yield run_of(header, {**settings, "gpu_layers": count})


def _compare(run: GgmlRun, told: Mapping[str, int]) -> str:
    if not coverage.is_known(run.model):
        return "weights or caches are assumed"
    figures = counted(as_asked(run))
    if figures.compute.origin is Origin.ASSUMED:
        return "compute is assumed"
    room = 0 if has_tape(run.model, run.batch, run.rules) else _ROUNDING
    return _beside(figures, told, room)


def _compare_asked(run: GgmlRun, told: Mapping[str, int]) -> str:
    fit, figures = settle(run, None)
    if fit.on_gpu != run.asked_layers:
        return f"{fit.on_gpu} layers on the card, not {run.asked_layers}"
    parts = figures.weights, figures.cache, figures.states, figures.compute
    if any(one.origin is Origin.ASSUMED for one in parts):
        return "; ".join(figures.remarks) or "a part of it is assumed"
    return _beside(figures, told, _ROUNDING)


def _beside(figures: Figures, told: Mapping[str, int], room: float) -> str:
    theirs = told.get("CUDA0", 0), told.get("CPU", 0)
    ours = figures.compute.band.expected_bytes, figures.host_compute_bytes
    if any(abs(one - other) > room for one, other in zip(ours, theirs, strict=True)):
        return (
            f"the engine holds {theirs[0]:,} and {theirs[1]:,} bytes, not {ours[0]:,} and "
            f"{ours[1]:,}"
        )
    return ""
