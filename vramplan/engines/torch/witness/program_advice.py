"""What to change in a program that ran out of memory: only what its run shows to hold memory.

Every piece of advice has its reason in what was alive when memory ended (`program_state`); about
how much it frees is worked out from those sizes, and what has no such size has no figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vramplan.measurement.tried import Advice

_MIB = 1 << 20
#: of what was allocated, less than such a part is not worth a change
_LEAST_SHARE = 0.05
_MOST = 6
_DECODERS = ("Decoder", "AutoencoderKL", "AutoencoderTiny", "VQModel")
#: operators whose result is every score of attention at once
_SCORES = ("baddbmm", "softmax", "bmm", "matmul", "einsum")
#: bits of an optimiser's state in 8 bits, beside fp32's
_EIGHT_BITS = 4


def advise(failure: Mapping[str, Any], capacity_bytes: int) -> list[Advice]:
    """Return what would help where an allocation failed on a card of so many bytes, the most first.

    Empty where nothing is known of what was alive then.
    """
    state = failure.get("state")
    if not state:
        return []
    least = max(_MIB, int(_LEAST_SHARE * int(failure["allocated_bytes"])))
    found = [
        *_of_pipelines(failure, state, capacity_bytes),
        *_of_precision(state),
        *_of_training(failure, state),
        *_of_work(failure),
        *_of_fragments(failure),
    ]
    kept = [one for one in found if one.saves_bytes is None or one.saves_bytes >= least]
    kept.sort(key=lambda one: -(one.saves_bytes or 0))
    return kept[:_MOST]


def _is_trained(state: Mapping[str, Any]) -> bool:
    return bool(state["optimisers"]) or any(one["gradient_bytes"] for one in state["models"])


def _of_pipelines(
    failure: Mapping[str, Any], state: Mapping[str, Any], capacity_bytes: int
) -> Iterator[Advice]:
    """Yield what diffusers' offloading frees: all components but the one at work."""
    if _is_trained(state):
        return
    for pipe in state["pipelines"]:
        if pipe["largest_bytes"] >= capacity_bytes:
            yield Advice(
                text=f"pipe.enable_sequential_cpu_offload() instead of moving {pipe['name']} to "
                f"the card: its {pipe['largest']} alone is more than the card has",
                saves_bytes=int(failure["allocated_bytes"]),
            )
        elif not pipe["offloads"]:
            yield Advice(
                text=f"pipe.enable_model_cpu_offload() instead of moving {pipe['name']} to the "
                f"card: it keeps one component there at a time, {pipe['largest']} at most",
                saves_bytes=int(pipe["bytes"]) - int(pipe["largest_bytes"]),
            )


def _of_precision(state: Mapping[str, Any]) -> Iterator[Advice]:
    """Yield what half precision frees: half of what lies on the card in fp32 and is not trained."""
    key = "frozen_bytes" if _is_trained(state) else "single_bytes"
    single = [one for one in state["models"] if one[key] > _MIB]
    saved = sum(int(one[key]) // 2 for one in single)
    if not saved:
        return
    names = ", ".join(str(one["name"]) for one in single[:3])
    if _is_trained(state):
        text = (
            f"keep what is not trained in half precision ({names} in fp32 here; "
            "--mixed_precision fp16 does it in diffusers' training scripts)"
        )
    else:
        text = f"load in half precision, torch_dtype=torch.float16 or bfloat16 ({names} in fp32)"
    yield Advice(text=text, saves_bytes=saved)


def _of_training(failure: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[Advice]:
    """Yield what is said of activations, gradients and the optimiser's state."""
    if not _is_trained(state):
        return
    trained = sum(int(one["trained_bytes"]) for one in state["models"])
    states = sum(int(one["bytes"]) for one in state["optimisers"])
    named = states + sum(
        int(one["card_bytes"]) + int(one["gradient_bytes"]) for one in state["models"]
    )
    activations = max(0, int(failure["allocated_bytes"]) - named)
    models = [one for one in state["models"] if one["trained_bytes"] or one["is_at_work"]]
    waiting = [one for one in models if one["waits_for_train"] and not one["checkpoints"]]
    plain = [one for one in models if one["can_checkpoint"] and not one["checkpoints"]]
    if waiting and activations > _MIB:
        yield Advice(
            text=f"call train() on {waiting[0]['name']}: gradient checkpointing is on, and does "
            "nothing in eval(), in which from_pretrained leaves a model of transformers",
            saves_bytes=activations // 2,
        )
    elif plain and activations > _MIB:
        yield Advice(
            text=f"gradient checkpointing of {plain[0]['name']}: --gradient_checkpointing, or "
            "enable_gradient_checkpointing() in diffusers, gradient_checkpointing_enable() in "
            "transformers; it computes activations again instead of keeping all of them",
            saves_bytes=activations // 2,
        )
    if activations > _MIB:
        yield Advice(
            text="a smaller batch (gradient accumulation keeps its effect) or shorter or smaller "
            "inputs: activations go with them",
            saves_bytes=activations // 2,
        )
    adam = [
        one for one in state["optimisers"] if "Adam" in one["name"] and "8bit" not in one["name"]
    ]
    due = sum(2 * int(one["trained_bytes"]) for one in adam)
    if due > _MIB:
        embedded = sum(2 * int(one["embedding_bytes"]) for one in adam)
        is_much = embedded > _LEAST_SHARE * due
        others = "; transformers' Trainer leaves embeddings so" if is_much else ""
        yield Advice(
            text=f"an 8-bit optimiser (bitsandbytes' AdamW8bit, --use_8bit_adam, "
            f"--optim adamw_bnb_8bit): {adam[0]['name']} keeps two numbers of 32 bits a "
            f"weight{others}",
            saves_bytes=(due - embedded) - (due - embedded) // _EIGHT_BITS,
        )
    if trained > _LEAST_SHARE * int(failure["allocated_bytes"]):
        yield Advice(
            text="train adapters (LoRA) instead of all weights: gradients and the optimiser's "
            "state of the others are never there",
            saves_bytes=int(0.95 * (trained + due)),
        )


def _of_work(failure: Mapping[str, Any]) -> Iterator[Advice]:
    """Yield what helps with the operator at which memory ended."""
    inside = [str(one) for one in failure["inside"]]
    asked = int(failure["asked_bytes"])
    if any(one in _DECODERS for one in inside):
        yield Advice(
            text="vae.enable_tiling(), or vae.enable_slicing() for several images: it ended while "
            "the autoencoder worked on whole images"
        )
    if inside and "Attention" in inside[-1] and failure.get("operator") in _SCORES:
        yield Advice(
            text="enable_attention_slicing(), or torch's scaled_dot_product_attention: it ended at "
            "the scores of attention, all at once",
            saves_bytes=asked,
        )


def _of_fragments(failure: Mapping[str, Any]) -> Iterator[Advice]:
    unused = int(failure["reserved_bytes"]) - int(failure["allocated_bytes"])
    if unused >= int(failure["asked_bytes"]) and not failure.get("expandable"):
        yield Advice(
            text="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: torch holds more than it was "
            "asked for, in pieces that are too small",
            saves_bytes=unused,
        )
