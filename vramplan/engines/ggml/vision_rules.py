"""What builds of llama.cpp do differently in vision encoders, as far as it decides sizes.

The first builds of these rules lie between two builds of the witness (xllamacpp's wheels b9538 to
b11549), both of which hold exactly what is counted here.
"""

from __future__ import annotations

from vramplan.engines.ggml.cuda_facts import HEADS_OF_ANY_COUNT
from vramplan.quick_dataclass import dataclass

_BATCHES = 9720  # ggml-org/llama.cpp#24775, June 2026; b9713 does not, b10566 does
_ROTATES_IN_PLACE = 10650  # #27521, August 2026; b10566 does not, b10809 does
_CLAMPS_ANEW = 10650  # as the line above; the change itself was not found
#: the change itself was not found: b11063 and the source of 1 October 2026 cast, b11549 does not
_HALF_MASK = 11549
_HEAD_72 = 6940  # #16962, November 2025


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionRules:
    """The behaviour of one build."""

    casts_mask: bool  # flash attention's mask of windows is f32, then f16, then copied
    halves_rotations: bool  # heads are cut in halves to be turned by two positions
    clamps_in_place: bool  # a clamped tensor is a view of what it was
    batches_tiles: bool  # squares of a fixed size are encoded several at once, where a family can
    has_head_72: bool  # SigLIP's heads on CUDA


def vision_rules(build: int) -> VisionRules:
    """Return the rules of a build, such as 10488."""
    return VisionRules(
        casts_mask=build < _HALF_MASK,
        halves_rotations=build < _ROTATES_IN_PLACE,
        clamps_in_place=build < _CLAMPS_ANEW,
        batches_tiles=build >= _BATCHES,
        has_head_72=build >= _HEAD_72,
    )


def has_cuda_kernel(head: int, rules: VisionRules) -> bool:
    """Return whether CUDA has fused attention for heads of this size."""
    return head in HEADS_OF_ANY_COUNT and (head != 72 or rules.has_head_72)
