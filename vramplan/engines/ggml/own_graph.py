"""The compute buffers of a run from the engine's own graph, recorded where the engine is installed.

The graph is the engine's, its scheduler and allocator are ours: one recording tells the buffers for
any number of layers on a card, to the byte where the engine prints hundredths of a MiB.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from vramplan.engines.ggml.closed_form import reserved_tokens
from vramplan.engines.ggml.figures import over_cards
from vramplan.engines.ggml.graph import recording
from vramplan.engines.ggml.graph_buffer import recording_sizes
from vramplan.engines.ggml.witness.dry_run import request_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.errors import MeasurementError, MissingError
from vramplan.model import Band, Origin
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.settings import format_setting
from vramplan.units import MIB

if TYPE_CHECKING:
    from vramplan.engines.ggml.figures import Figures
    from vramplan.engines.ggml.graph.recording import Recording
    from vramplan.engines.ggml.layer_fit import Fit

_NO_CARD = PretendedCard(name="none", total_bytes=0, free_bytes=0)


#: the engine prints hundredths of a MiB
_ROUNDING_BYTES = MIB // 200


def to_the_byte(fit: Fit, planned: Figures) -> Figures:
    """Return the engine's plan with the compute buffers of its own graph, recorded.

    They are taken where they are what the plan says, which has hundredths of a MiB; where the graph
    is not told or another, and where the plan is of another build than was asked, the plan stands.
    """
    if planned.compute.origin is not Origin.WITNESSED:
        return planned
    try:
        *sizes, host = recorded_sizes(fit)
    except (MeasurementError, MissingError):
        return planned
    said = planned.compute.bands
    is_gpu = all(
        one.low_bytes <= size <= one.high_bytes for one, size in zip(said, sizes, strict=True)
    )
    if not is_gpu or abs(host - planned.host_compute_bytes) > _ROUNDING_BYTES:
        return planned
    source = (
        f"the graph that llama.cpp reserves ({recording_of(fit).build}), recorded, through a model "
        "of its scheduler and allocator; equal to its own plan"
    )
    compute = over_cards([*map(Band.exactly, sizes)], planned.compute.origin, source)
    return replace(planned, compute=compute, host_compute_bytes=host)


def recorded_sizes(fit: Fit) -> tuple[int, ...]:
    """Return the compute buffers on each card and in host memory, from a recorded graph.

    Raises MissingError without the engine, RecordingError where it does not tell its graph.
    """
    run = fit.run
    return recording_sizes(recording_of(fit), run.model, run.batch, fit.placement, run.rules)


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
    if not path.is_file():
        raise MissingError("a graph is recorded from a file, and here is only its header")
    stamp = path.stat()
    tokens = reserved_tokens(batch)
    return _recorded(
        path,
        (stamp.st_size, stamp.st_mtime_ns),
        tuple(sorted(settings.items())),
        tokens,
        min(batch.sequences, tokens),
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
