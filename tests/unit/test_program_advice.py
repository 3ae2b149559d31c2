"""What is advised to a program that ran out of memory, by what was alive then."""

from __future__ import annotations

from typing import Any

from vramplan.engines.torch.witness.program_advice import advise

GIB = 1 << 30


def model(name: str, size: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "bytes": int(size * GIB), "card_bytes": int(size * GIB), "single_bytes": 0,
        "frozen_bytes": 0, "trained_bytes": 0, "gradient_bytes": 0, "can_checkpoint": False,
        "checkpoints": False, "waits_for_train": False, "is_at_work": False,
        "is_training": False, **more,
    }  # fmt: skip


def failure(
    allocated: float,
    *models: dict[str, Any],
    pipelines: list[dict[str, Any]] | None = None,
    optimisers: list[dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    size = int(allocated * GIB)
    state = {"models": list(models), "pipelines": pipelines or [], "optimisers": optimisers or []}
    return {
        "asked_bytes": GIB // 4, "allocated_bytes": size, "reserved_bytes": size, "free_bytes": 0,
        "inside": [], "operator": "linear", "expandable": False, "state": state, **more,
    }  # fmt: skip


def texts(told: dict[str, Any], capacity: float = 8) -> list[str]:
    return [one.text for one in advise(told, int(capacity * GIB))]


def test_nothing_is_advised_where_nothing_is_known() -> None:
    assert advise({"state": None}, GIB) == []
    assert advise({}, GIB) == []
    assert texts(failure(4, model("Net", 4))) == []


def test_half_precision_is_half_of_what_is_in_fp32() -> None:
    told = failure(4, model("Net", 4, single_bytes=4 * GIB))
    (found,) = advise(told, 8 * GIB)
    assert found.saves_bytes == 2 * GIB
    assert "torch_dtype=torch.float16" in found.text


def pipeline(total: float, largest: float, *, offloads: bool = False) -> dict[str, Any]:
    return {
        "name": "FluxPipeline", "bytes": int(total * GIB), "largest_bytes": int(largest * GIB),
        "largest": "Transformer", "offloads": offloads,
    }  # fmt: skip


def test_offloading_frees_all_components_but_the_largest() -> None:
    told = failure(20, pipelines=[pipeline(31, 22)])
    (found,) = advise(told, 23 * GIB)
    assert found.saves_bytes == 9 * GIB
    assert "enable_model_cpu_offload" in found.text


def test_component_that_is_larger_than_the_card_is_offloaded_in_sequence() -> None:
    (found,) = texts(failure(20, pipelines=[pipeline(31, 22)]), 20)
    assert "enable_sequential_cpu_offload" in found
    (found,) = texts(failure(20, pipelines=[pipeline(31, 22, offloads=True)]), 20)
    assert "enable_sequential_cpu_offload" in found


def test_pipeline_that_offloads_already_is_not_told_to() -> None:
    assert texts(failure(20, pipelines=[pipeline(31, 22, offloads=True)]), 23) == []


def trained(activations: float, **more: Any) -> dict[str, Any]:
    """One GiB of weights that are trained, with gradients, beside so many activations."""
    net = model("Net", 1, trained_bytes=GIB, gradient_bytes=GIB, single_bytes=GIB, **more)
    adam = {"name": "AdamW", "bytes": 0, "trained_bytes": GIB, "embedding_bytes": 0}
    return failure(2 + activations, net, optimisers=[adam])


def test_training_is_told_of_activations_and_of_the_optimisers_state() -> None:
    found = advise(trained(4, can_checkpoint=True), 8 * GIB)
    saved = {one.text.split()[0]: one.saves_bytes for one in found}
    assert saved["gradient"] == 2 * GIB
    assert saved["an"] == GIB * 3 // 2  # of 2 GiB in fp32 a quarter is left
    assert [one.saves_bytes for one in found] == sorted(
        (one.saves_bytes for one in found), key=lambda size: -(size or 0)
    )
    assert not any("torch_dtype" in one.text for one in found)  # what is trained stays in fp32


def test_what_is_not_trained_of_a_model_with_adapters_goes_into_half_precision() -> None:
    told = trained(0)
    told["state"]["models"][0]["frozen_bytes"] = GIB
    (found,) = [one for one in advise(told, 8 * GIB) if "half precision" in one.text]
    assert found.saves_bytes == GIB // 2


def test_checkpointing_is_for_models_that_can_and_do_not_yet() -> None:
    for more in ({}, {"can_checkpoint": True, "checkpoints": True}):
        assert not any("checkpointing" in text for text in texts(trained(4, **more)))


def test_checkpointing_that_is_on_in_eval_is_told_of_train() -> None:
    told = trained(4, can_checkpoint=True, waits_for_train=True)
    (found,) = [one for one in advise(told, 8 * GIB) if "checkpointing" in one.text]
    assert found.text.startswith("call train() on Net")
    assert found.saves_bytes == 2 * GIB


def test_optimiser_of_8_bits_spares_nothing_of_embeddings_that_are_left_in_32() -> None:
    told = trained(0)
    told["state"]["optimisers"][0]["embedding_bytes"] = GIB // 2
    (found,) = [one for one in advise(told, 8 * GIB) if "8-bit optimiser" in one.text]
    assert found.saves_bytes == GIB * 3 // 4  # of 1 GiB in fp32 a quarter is left, beside the other
    assert found.text.endswith("Trainer leaves embeddings so")


def test_optimiser_of_8_bits_is_not_told_to_become_one() -> None:
    told = trained(0)
    told["state"]["optimisers"][0]["name"] = "AdamW8bit"
    assert not any("8-bit optimiser" in text for text in texts(told))


def test_autoencoder_at_work_is_told_of_tiles() -> None:
    told = failure(4, inside=["AutoencoderKL", "Decoder", "Conv2d"])
    (found,) = advise(told, 8 * GIB)
    assert "enable_tiling" in found.text
    assert found.saves_bytes is None


def test_attention_that_holds_all_scores_is_told_of_slices() -> None:
    told = failure(1, inside=["UNet", "Attention"], operator="baddbmm")
    assert "enable_attention_slicing" in texts(told)[0]
    other = failure(1, inside=["UNet", "Attention"], operator="scaled_dot_product_attention")
    assert texts(other) == []


def test_pieces_that_are_too_small_are_told_of_expandable_segments() -> None:
    told = failure(4, reserved_bytes=5 * GIB)
    assert "expandable_segments" in texts(told)[0]
    assert texts(failure(4, reserved_bytes=5 * GIB, expandable=True)) == []


def test_what_frees_little_is_left_out() -> None:
    assert texts(failure(40, model("Net", 40, single_bytes=GIB // 8))) == []
