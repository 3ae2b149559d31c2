"""The families of language models whose graphs are known, and what each does that no tensor tells.

A family is here once the engine itself has agreed (tests/accuracy/test_engine_witness.py).
Source: ggml-org/llama.cpp, src/models, a file per family.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from vramplan.quick_dataclass import dataclass


class Pick(Enum):
    """When the last layer leaves out the rows that logits are not needed for."""

    FIRST = "behind attention"
    BEHIND_NORM = "behind the norm that follows attention"
    BEHIND_SUM = "behind the residual"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Habits:
    """What a family does that its tensors do not tell.

    `is_parallel`: attention and feed-forward read the same norm and are added together. `is_rms`:
    norms have no mean. `softcaps_scores`, `softcaps_logits`: they go through tanh.
    `scales_queries`: queries are multiplied before attention. `scales_embedding`: the embedded
    tokens are; `scales_logits`: the logits are. `normalises_experts`: the experts' weights are made
    to add up to one; `gate` makes weights of logits; `tells_norm`, `tells_gate`: the file may tell.
    `fuses_gate`: gate and up are one matrix. `rotates`: positions turn queries and keys; `places`
    is how many numbers a position has. `gates_attention`: it is multiplied by a gate. `picks`:
    when rows are chosen in the last layer. `squares`: activations without a gate are squared.
    `is_single`: a layer has attention, a state or a feed-forward network, and no second part.
    `norms_all_heads`: queries and keys are normed over all heads at once.
    `adds_mixed_to_residual`: the residual is the first operand where attention is added to it, and
    `adds_made_to_residual` where the feed-forward network is: it is the one whose place is taken.
    `scales_text`: the embedded tokens are multiplied by a factor of each row, which images' rows
    have no part in. `divides_gate`: the shared experts' gate is a quotient. `ignores`: what is
    loaded and not computed with.
    """

    is_parallel: bool = False
    is_rms: bool = True
    softcaps_scores: bool = False
    softcaps_logits: bool = False
    scales_queries: bool = False
    scales_embedding: bool = False
    scales_logits: bool = False
    normalises_experts: bool = True
    gate: str = "softmax"
    tells_gate: bool = False
    tells_norm: bool = False
    fuses_gate: bool = False
    rotates: bool = True
    places: int = 1
    picks: Pick = Pick.FIRST
    gates_attention: bool = False
    squares: bool = False
    is_single: bool = False
    norms_all_heads: bool = False
    adds_mixed_to_residual: bool = False
    adds_made_to_residual: bool = False
    scales_text: bool = False
    divides_gate: bool = False
    ignores: frozenset[str] = frozenset()


#: what most families do
_PLAIN = Habits()

FAMILIES: Mapping[str, Habits] = {
    "llama": _PLAIN,
    "mistral3": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "qwen3moe": _PLAIN,
    "qwen2moe": Habits(normalises_experts=False, divides_gate=True),
    "olmoe": Habits(normalises_experts=False, norms_all_heads=True),
    "gemma": Habits(scales_embedding=True, scales_queries=True),
    "gemma2": Habits(
        softcaps_scores=True, softcaps_logits=True, scales_queries=True, scales_embedding=True
    ),
    "gemma3": Habits(scales_queries=True, scales_text=True),
    "phi3": Habits(scales_queries=True, fuses_gate=True, adds_made_to_residual=True),
    "command-r": Habits(is_parallel=True, is_rms=False, scales_logits=True),
    "gptneox": Habits(is_parallel=True, is_rms=False),
    "cohere2": Habits(is_parallel=True, is_rms=False, scales_logits=True),
    "deepseek2": Habits(normalises_experts=False, tells_gate=True, tells_norm=True),
    "exaone4": _PLAIN,
    "glm4": Habits(fuses_gate=True),
    "glm4moe": Habits(normalises_experts=False, gate="sigmoid", tells_gate=True, tells_norm=True),
    "gpt-oss": Habits(normalises_experts=False, gate="softmax behind"),
    "granite": _PLAIN,
    "granitemoe": _PLAIN,
    "olmo2": Habits(norms_all_heads=True),
    "qwen2vl": Habits(places=4),
    "qwen35": Habits(places=4, gates_attention=True),
    "qwen35moe": Habits(places=4, gates_attention=True),
    "qwen3next": Habits(gates_attention=True),
    "qwen3vl": Habits(places=4),
    "qwen3vlmoe": Habits(places=4),
    "seed_oss": _PLAIN,
    "smollm3": _PLAIN,
    "starcoder2": Habits(is_rms=False),
    "falcon-h1": Habits(
        picks=Pick.BEHIND_SUM, ignores=frozenset({"attn_output.bias", "rope_freqs.weight"})
    ),
    "granitehybrid": _PLAIN,
    "jamba": Habits(
        normalises_experts=False,
        rotates=False,
        adds_mixed_to_residual=True,
        adds_made_to_residual=True,
    ),
    "lfm2": Habits(adds_mixed_to_residual=True, adds_made_to_residual=True),
    "lfm2moe": Habits(
        gate="sigmoid", tells_gate=True, adds_mixed_to_residual=True, adds_made_to_residual=True
    ),
    "minimax-m2": Habits(gate="sigmoid", tells_gate=True, norms_all_heads=True),
    "nemotron_h": Habits(rotates=False, squares=True, is_single=True),
    "nemotron_h_moe": Habits(
        normalises_experts=False,
        gate="sigmoid",
        tells_norm=True,
        rotates=False,
        squares=True,
        is_single=True,
    ),
    "mamba": _PLAIN,
    "mamba2": _PLAIN,
}
