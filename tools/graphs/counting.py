"""Counts the architectures whose buffers are the engine's without it, of models made elsewhere.

The models are those of the tests (`tests/engine_made.py`), of other numbers and keys than tapes are
made of. With no layer, one, half and all on a card that is not there, caches in f16 and q8_0, for
one slot and four, every compute buffer must be the engine's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.graphs.asking import Asking, EngineError
from tools.graphs.samples import request_of, run_of
from tools.model_files import sparse_module
from vramplan.engines.ggml import coverage
from vramplan.engines.ggml.figures import Figures, counted
from vramplan.engines.ggml.graph_buffer import has_tape
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import GgmlRun
from vramplan.errors import VramplanError
from vramplan.model import Origin
from vramplan.sources.gguf import GgufFile, read_gguf

#: graphs that are written by hand are held to what the engine prints, hundredths of a MiB
_ROUNDING = 0.02 * (1 << 20)


def count(name: str, card: Asking) -> str:
    """Return ``exact``, or why an architecture's buffers are not known without the engine."""
    made = sparse_module("engine_made")
    said = "the engine takes no model of it"
    with tempfile.TemporaryDirectory(prefix="vramplan-graphs-") as folder:
        for variant in range(made.VARIANTS):
            files = made.make(Path(folder), name, variant) or ()
            found = [_judge(read_gguf(path), card) for path in files]
            known = [one for one in found if one is not None]
            if "exact" in known:
                return "exact"
            if known:
                return known[0]
    return said


def _judge(header: GgufFile, card: Asking) -> str | None:
    """Return how a model's buffers are known; None where the engine does not take it."""
    for layers in ("0", "1", "half", "all"):
        try:
            runs = list(_runs(header, layers))
            told = card.buffers(header, [request_of(run, run.asked_layers) for run in runs])
        except EngineError:
            return None
        except VramplanError as problem:
            return str(problem)
        for run, buffers in zip(runs, told, strict=True):
            said = _compare(run, counted(as_asked(run)), buffers)
            if said:
                return f"{layers} layers, {run.batch.cache_type}, {run.batch.sequences}: {said}"
    return "exact"


def _runs(header: GgufFile, layers: str) -> Iterator[GgmlRun]:
    for slots in (1, 4):
        for kind in ("f16", "q8_0"):
            settings: dict[str, object] = {
                "context": 8192, "parallel": slots, "kv_unified": "off", "kv_type": kind,
                "flash_attention": "on", "engine": "b11549",
            }  # fmt: skip
            total = run_of(header, {**settings, "gpu_layers": 0}).model.total_layers
            count = {"0": 0, "1": 1, "half": total // 2, "all": total}[layers]
            yield run_of(header, {**settings, "gpu_layers": count})


def _compare(run: GgmlRun, figures: Figures, told: Mapping[str, int]) -> str:
    if not coverage.is_whole(run.model):
        return "weights or caches are assumed"
    if figures.compute.origin is Origin.ASSUMED:
        return "compute is assumed"
    theirs = told.get("CUDA0", 0), told.get("CPU", 0)
    ours = figures.compute.band.expected_bytes, figures.host_compute_bytes
    room = 0 if has_tape(run.model, run.batch, run.rules) else _ROUNDING
    if any(abs(one - other) > room for one, other in zip(ours, theirs, strict=True)):
        return (
            f"the engine holds {theirs[0]:,} and {theirs[1]:,} bytes, not {ours[0]:,} and "
            f"{ours[1]:,}"
        )
    return ""
