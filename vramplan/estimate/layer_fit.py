"""How many layers an engine puts on a GPU that is too small for all, and where the projector goes.

llama.cpp (common/fit.cpp) adds up the weights, cache and compute buffer that it is about to
allocate and takes as many layers, from the last, as leave its margin free. The margin is 1 GiB and
the memory of the projector, which always goes to the GPU (#21489). Ollama (llm/llama_server.go)
sets the margin to 1 GiB and the projector's weights, to which llama.cpp adds the projector's memory
once more; it moves the projector to the CPU where less than its weights and 1 GiB are free, or when
fewer layers are asked for than there are. Both keep the context that was asked for.

CUDA contexts and pools are in nobody's sum: they come out of the margin.
"""

from __future__ import annotations

from bisect import bisect_right

from vramplan.estimate.engine_compute import compute_buffers
from vramplan.estimate.ggml_model import Placement, place_layers
from vramplan.estimate.ggml_run import GgmlRun
from vramplan.estimate.projector import projector_compute
from vramplan.units import MIB

#: llama.cpp: common/common.h (fit_params_target); Ollama: mmprojOffloadHeadroom
MARGIN_BYTES = 1024 * MIB


def place(run: GgmlRun, on_gpu: int) -> Placement:
    """Return what is where with `on_gpu` layers on the GPU, by the rules of the run's engine."""
    return place_layers(
        run.model, on_gpu, output_first=run.rules.output_layer_first, experts=run.experts
    )


def has_projector_on_gpu(run: GgmlRun, free_bytes: int | None) -> bool:
    """Return whether the projector goes to the GPU; None stands for more than enough memory."""
    if run.vision is None:
        return False
    if not run.is_ollama:
        return True
    if run.wanted_layers is not None and run.wanted_layers < run.model.total_layers:
        return False
    return free_bytes is None or free_bytes >= run.vision.weights_bytes + MARGIN_BYTES


def layers_on_gpu(run: GgmlRun, free_bytes: int) -> int:
    """Return how many layers the engine puts on a GPU with `free_bytes`.

    What is asked for in numbers is done, whether it fits or not.
    """
    if run.wanted_layers is not None:
        return run.wanted_layers
    target = free_bytes - margin_bytes(run, free_bytes)
    total = run.model.total_layers
    if _engine_sum_bytes(run, total) <= target:  # apart: all layers may need less than all but one
        return total
    within = bisect_right(range(total), target, key=lambda on_gpu: _engine_sum_bytes(run, on_gpu))
    return max(within - 1, 0)


def margin_bytes(run: GgmlRun, free_bytes: int) -> int:
    """Return what the engine wants to leave free, the projector's memory included."""
    if run.vision is None or not has_projector_on_gpu(run, free_bytes):
        return MARGIN_BYTES
    weights = run.vision.weights_bytes
    compute = projector_compute(run.vision, has_flash=run.has_vision_flash).expected_bytes
    twice = -(-weights // MIB) * MIB if run.is_ollama else 0  # Ollama passes whole MiB
    return MARGIN_BYTES + weights + compute + twice


def _engine_sum_bytes(run: GgmlRun, on_gpu: int) -> int:
    placement = place(run, on_gpu)
    compute = compute_buffers(run.model, run.batch, placement, run.rules).gpu.expected_bytes
    kept = run.batch.cache_of_last(placement.blocks_on_gpu)
    kept += run.batch.states_of_last(placement.blocks_on_gpu)
    return placement.gpu_bytes + kept + compute
