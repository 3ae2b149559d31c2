"""What a build of llama.cpp does differently from another: the rules that sizes depend on.

Ollama and LM Studio run llama.cpp, so their rules are those of the build they ship; Ollama names it
in its file LLAMA_CPP_VERSION (b10488 in August 2026).
"""

from __future__ import annotations

from functools import lru_cache

from vramplan.errors import UsageError
from vramplan.quick_dataclass import dataclass

#: the build that can be asked (xllamacpp's), and that every known graph was held against
WITNESS_BUILD = 11549
WITNESS_ENGINE = f"b{WITNESS_BUILD}"


# The first build of each rule, taken from the merge date of the pull request named. Tags of that
# day were not looked up: builds within some dozens of the number are not told apart.
_INPUTS_IN_COMPUTE = 2450  # ggml-org/llama.cpp#6017, March 2024
_HOST_WEIGHTS_OFFLOADED = 2450  # #6083, March 2024
_WINDOW_CACHE = 5430  # #13194, May 2025
_SWIGLU_FUSED = 5780  # #14158, June 2025
_FLASH_AUTO = 6330  # #15434, August 2025
_STREAMS = 5910  # #14363, July 2025
_VALUES_INDEXED = 6330  # #14285, July 2025; not the default at once
_FOUR_SLOTS = 6930  # #16736, November 2025
_PROJECTOR_FLASH = 6930  # #16837, November 2025
_OUTPUT_LAYER_FIRST = 7460  # #18148, December 2025
_FITS = 7410  # #16653, December 2025
_BOTH_INPUTS = 7780  # #18898, January 2026
#: #23861, May 2026; host buffers have an f32 mask in logs of b4863 and b5274 and no longer in one
#: of October 2026: when it changed between them was not looked up
_LOGITS_PER_SEQUENCE = 9440
_UNPACKED_CACHE = 9500  # #23907, June 2026
#: #18626: open on 7 August 2026, when b10488 was new, and in others' copies on 4 September
_REMOTES_IN_PIPELINES = 10700
#: seen in xllamacpp's b11549 and not in its b11063; which change brought it was not looked up
_MIXED_INPUTS = 11064
#: in the source of a build between those two, and not in a log of b10488
_EXPERTS_FUSED = 11064


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """The behaviour of one build of llama.cpp, as far as it decides sizes."""

    build: int
    has_input_buffer: bool  # the graph's inputs have a host buffer beside the compute buffer
    offloads_host_weights: bool  # matrices of host layers are copied to the GPU for a big batch
    has_window_cache: bool  # layers that see a window hold no more than it
    has_streams: bool  # sequences have caches of their own unless told otherwise, not one for all
    serves_four: bool  # llama-server has four slots over one cache unless told otherwise
    fuses_swiglu: bool  # gate, up and their product stand side by side
    indexes_values: bool  # without flash attention, an index for every value that is stored
    has_flash_auto: bool  # flash attention without being asked for
    projector_has_flash: bool  # flash attention in the vision encoder too
    output_layer_first: bool  # the first layer on the GPU is the output layer, not the last block
    has_wide_mask: bool  # flash attention's mask is f32 in host memory, made f16 on the GPU
    reserves_both_inputs: bool  # room for embeddings in place of tokens, whichever come
    fits: bool  # context, layers and experts that nobody set are fitted to the memory that is free
    reserves_unpacked_cache: bool  # flash attention's cache as f16 is in the compute buffer
    mixes_inputs: bool  # the graph has a way for text and images in one batch
    fuses_experts: bool  # CUDA sums up a token's experts at once, and keeps them until it did
    remotes_have_events: bool  # cards of other machines may be part of a pipeline
    logits_per_sequence: bool  # logits are reserved for one token a sequence, not for every token


@lru_cache(maxsize=256)
def rules_of(engine: str) -> EngineRules:
    """Return the rules of the build that `engine` (``b10488``) names.

    Raises UsageError for anything else.
    """
    number = engine.removeprefix("b")
    is_build = number != engine and number.isascii() and number.isdecimal()
    if not is_build or number[0] == "0" or not 3 <= len(number) <= 6:
        hint = "write llama.cpp's build, such as b10488, or of Ollama's ollama-0.32.3"
        raise UsageError(f"unknown engine {engine!r}", hint=hint)
    build = int(number)
    return EngineRules(
        build=build,
        has_input_buffer=build < _INPUTS_IN_COMPUTE,
        offloads_host_weights=build >= _HOST_WEIGHTS_OFFLOADED,
        has_window_cache=build >= _WINDOW_CACHE,
        has_streams=build >= _STREAMS,
        serves_four=build >= _FOUR_SLOTS,
        fuses_swiglu=build >= _SWIGLU_FUSED,
        indexes_values=build >= _VALUES_INDEXED,
        has_flash_auto=build >= _FLASH_AUTO,
        projector_has_flash=build >= _PROJECTOR_FLASH,
        output_layer_first=build >= _OUTPUT_LAYER_FIRST,
        has_wide_mask=build < _LOGITS_PER_SEQUENCE,
        reserves_both_inputs=build >= _BOTH_INPUTS,
        fits=build >= _FITS,
        reserves_unpacked_cache=build >= _UNPACKED_CACHE,
        mixes_inputs=build >= _MIXED_INPUTS,
        fuses_experts=build >= _EXPERTS_FUSED,
        remotes_have_events=build >= _REMOTES_IN_PIPELINES,
        logits_per_sequence=build >= _LOGITS_PER_SEQUENCE,
    )


def has_flash_attention(setting: str, rules: EngineRules, compute_capability: str) -> bool:
    """Return whether the engine runs flash attention: asked for, or `auto` and supported.

    Source: Ollama, ml/device.go (cudaFlashAttentionSupported): from compute capability 6.0 on, but
    not on 7.2; llama.cpp's `auto` asks the CUDA backend, whose kernels cover the same.
    """
    if setting != "auto":
        return setting == "on"
    major, _, minor = compute_capability.partition(".")
    return rules.has_flash_auto and int(major) >= 6 and (major, minor) != ("7", "2")
