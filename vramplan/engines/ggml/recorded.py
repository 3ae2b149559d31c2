"""The compute buffers of a run from the engine's own graph, recorded where the engine is installed.

The graph is the engine's, its scheduler and allocator are ours: one recording tells the buffers for
any number of layers on a card, to the byte where the engine prints hundredths of a MiB.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.engines.ggml.graph import recording
from vramplan.engines.ggml.graph_buffer import (
    AS_F16,
    WITHOUT_CONTEXT,
    reserved_tokens,
    weight_memories,
)
from vramplan.engines.ggml.witness.dry_run import request_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.settings import format_setting

if TYPE_CHECKING:
    from vramplan.engines.ggml.graph.recording import Recording
    from vramplan.engines.ggml.layer_fit import Fit

_NO_CARD = PretendedCard(name="none", total_bytes=0, free_bytes=0)


def recorded_sizes(fit: Fit) -> tuple[int, int]:
    """Return the compute buffers on the GPU and in host memory, from a recorded graph.

    Raises MissingError without the engine, RecordingError where it does not tell its graph.
    """
    run, placement = fit.run, fit.placement
    unpacks = run.rules.reserves_unpacked_cache and not (
        {run.batch.cache_type, run.batch.type_of_values} <= AS_F16
    )
    return recording.split_bytes(
        recording_of(fit),
        dict(weight_memories(run.model, placement)),
        run.model.layers - placement.blocks_on_gpu,
        is_cache_on_host=run.batch.is_cache_on_host,
        copies_weights=run.rules.offloads_host_weights,
        unpacks_caches=unpacks,
        fuses_experts=run.rules.fuses_experts,
    )


def recording_of(fit: Fit) -> Recording:
    """Return the graph that the engine reserves for a fit's batch. Raises as `recorded_sizes`."""
    run, batch = fit.run, fit.run.batch
    settings = {key: format_setting(key, value) for key, value in run.settings.items()}
    settings |= {
        "load_mtp": "off",  # what guesses ahead has a context of its own
        "context": str(batch.context * batch.streams),
        "gpu_layers": "0",
        "cpu_moe": "0",
        "flash_attention": "on" if batch.has_flash else "off",
    }
    path = Path(run.pipeline.path)
    stamp = path.stat()
    tokens = reserved_tokens(batch)
    every = run.model.architecture in WITHOUT_CONTEXT
    return _recorded(
        path,
        (stamp.st_size, stamp.st_mtime_ns),
        tuple(sorted(settings.items())),
        tokens,
        tokens if every else min(batch.sequences, tokens),
    )


@lru_cache(maxsize=32)
def _recorded(  # size and time of change tell one file from another of its name
    path: Path,
    _stamp: tuple[int, int],
    settings: tuple[tuple[str, str], ...],
    tokens: int,
    outputs: int,
) -> Recording:
    request = json.loads(request_of(path, dict(settings), _NO_CARD, recording.LIBRARY))
    return recording.record(request, tokens=tokens, outputs=outputs)
