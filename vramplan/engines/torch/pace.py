"""How long a torch run takes at least, by the bytes that its tape says it moves."""

from __future__ import annotations

from vramplan.budget.pace import PCIE_BYTES_PER_S, Pace
from vramplan.engines.torch.another_cache import is_told
from vramplan.engines.torch.changed_weights import is_grouped
from vramplan.engines.torch.estimate import with_tape
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.screening import is_placed_whole
from vramplan.engines.torch.tape_files import find_tape
from vramplan.engines.torch.work import traffic
from vramplan.model import Card, Settings


def pace_torch(
    pipeline: TorchPipeline, settings: Settings, card: Card, budget_bytes: int | None = None
) -> Pace | None:
    """Return what one result of a batch takes, all of the model on the GPU.

    ``offload=auto`` is taken for none. None without a card, for a model that has no tape and is not
    recorded, and where ``device_map=auto`` leaves layers to the CPU: who computes them, and how
    often they move, is not modelled. Raises TapeError where no tape holds for these settings.
    """
    if not card.bandwidth_bytes_per_s:
        return None
    if budget_bytes is not None and not is_placed_whole(pipeline, settings, card, budget_bytes):
        return None
    pipeline = with_tape(pipeline, settings, card)
    if pipeline.counted is not None:
        return None
    whole = {**settings, "offload": "none"} if is_grouped(settings) else settings
    tape = tape_at(pipeline, whole, find_tape(pipeline))
    moved = traffic(tape, conditions_at(pipeline, whole, card.compute_capability, tape))
    pcie_bytes = moved.pcie_bytes
    if is_grouped(settings):
        # groups come whenever their component runs; without a stream they are copied back too
        # (diffusers, hooks/group_offloading.py, `_offload_to_memory`)
        pcie_bytes = moved.weight_bytes * (1 if settings.get("use_stream") == "on" else 2)
    if pipeline.cache_layers and is_told(settings):
        from vramplan.engines.torch.held_cache import moved_bytes

        pcie_bytes += moved_bytes(pipeline.cache_layers, settings)
    seconds = moved.memory_bytes / card.bandwidth_bytes_per_s + pcie_bytes / PCIE_BYTES_PER_S
    results, name = _results(settings)
    return Pace(seconds=seconds / results, result=name)


def _results(settings: Settings) -> tuple[int, str]:
    """Return how many results a run has, and what one is called."""
    batch, tokens = settings.get("batch", 1), settings.get("new_tokens")
    count = batch if isinstance(batch, int) else 1
    if isinstance(tokens, int):
        return count * tokens, "token"
    is_image = "image" in settings and settings.get("mode") != "train"
    return count, "image" if is_image else "item"
