"""ViT-MAE: rebuilding and training, exact at unseen batches for every attention kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from vramplan.catalog.pipelines import load_pipeline_file
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.proof import prove
from vramplan.engines.torch.record.recipes import vit_mae
from vramplan.engines.torch.record.recorder import record_tape
from vramplan.engines.torch.record.session import Recipe, Sample, Session
from vramplan.engines.torch.record.stream import Alloc, Phase
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.format import parse_tape, write_tape
from vramplan.model import ComponentSpec

CATALOGUED = Path(__file__).parents[2] / "profiles" / "pipelines" / "vit-mae-base.yaml"
SPEC = ComponentSpec(
    name="model",
    class_path="transformers.ViTMAEForPreTraining",
    config={
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "decoder_hidden_size": 32,
        "decoder_intermediate_size": 64, "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 1,
    },
)  # fmt: skip

EFFICIENT = "aten._scaled_dot_product_efficient_attention.default"


def sample(
    batch: int, steps: int = 3, mode: str = "train", dtype: str = "fp32", kernel: str = "efficient"
) -> Sample:
    facts = {"dtype": dtype, "kernel": kernel, "mode": mode}
    return Sample(numbers={"batch": batch, "steps": steps}, facts=facts)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return vit_mae.recipe(
        TorchPipeline(
            name="small-mae",
            title="",
            summary="",
            runtime="transformers",
            defaults={},
            constraints={},
            source="",
            path="",
            components=(SPEC,),
        )
    )


@pytest.fixture(scope="module")
def tape(recipe: Recipe) -> Tape:
    two_sessions = [recipe.sessions[0], recipe.sessions[2]]  # fp32 efficient, fp16 flash
    tape = record_tape("small-mae", replace(recipe, sessions=two_sessions))
    return parse_tape(write_tape(tape), "small-mae")


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("numbers", [(1, 2), (4, 7), (8, 3), (17, 5), (100, 2)])
def test_the_tape_is_exact_at_settings_it_has_not_seen(recipe, tape, numbers, mode):
    prove(tape, recipe, sample(*numbers, mode=mode))


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_tape_holds_a_recording_for_each_dtype(recipe, tape, mode):
    prove(tape, recipe, sample(6, 4, mode, "fp16", "flash"))


@pytest.mark.slow
def test_every_kernel_is_recorded_for_every_dtype_that_it_takes(recipe):
    tape = record_tape("small-mae", recipe)
    for facts, _ in recipe.sessions:
        for mode in ("infer", "train"):
            prove(tape, recipe, sample(6, 4, mode, **facts))


def test_recording_twice_gives_the_same_bytes(recipe):
    one_session = replace(recipe, sessions=recipe.sessions[:1])
    first, second = (write_tape(record_tape("small-mae", one_session)) for _ in range(2))
    assert first == second


def operators(recipe: Recipe, kernel: str, mode: str, dtype: str = "fp16") -> list[str]:
    stream = Session(recipe, {"dtype": dtype, "kernel": kernel}).record(
        sample(2, 2, mode, dtype, kernel)
    )
    return [event.operator for event in stream.events if isinstance(event, Alloc)]


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn"])
def test_training_goes_back_through_the_kernel_it_came_by(recipe, kernel):
    backward = f"aten._scaled_dot_product_{kernel}_attention_backward.default"
    assert backward in operators(recipe, kernel, "train")
    assert backward not in operators(recipe, kernel, "infer")


def test_a_kernel_that_is_asked_for_its_gradient_keeps_the_log_sum_exp(recipe):
    """The memory-efficient kernel gives its log-sum-exp for backward, and none for inference."""
    sizes = {}
    for mode in ("infer", "train"):
        facts = {"dtype": "fp32", "kernel": "efficient"}
        stream = Session(recipe, facts).record(sample(2, 2, mode))
        sizes[mode] = sum(
            event.size_bytes
            for event in stream.events
            if isinstance(event, Alloc) and event.operator == EFFICIENT
        )
    assert sizes["train"] > sizes["infer"]


def test_phases_name_the_part_at_work(recipe):
    session = Session(recipe, {"dtype": "fp32", "kernel": "efficient"})
    for mode, expected in {
        "infer": [("encode_image", "encoder"), ("decode_image", "decoder")],
        "train": [
            ("train_step", "pipeline"), ("train_step", "encoder"), ("train_step", "decoder"),
            ("train_step", "backward"), ("train_step", "optimizer"),
        ] * 2,
    }.items():  # fmt: skip
        events = session.record(sample(2, 2, mode)).events
        assert [(e.name, e.component) for e in events if isinstance(e, Phase)] == expected


def test_parameters_are_those_of_the_published_model():
    """facebook/vit-mae-base: 111,907,840, with the position tables, which are not trained."""
    recipe = vit_mae.recipe(open_entry(load_pipeline_file(CATALOGUED), ()))
    (model,) = recipe.build({"dtype": "fp32"}).values()
    assert sum(p.numel() for p in model.parameters()) == 111_907_840
    tables = [p for p in model.parameters() if not p.requires_grad]
    assert sum(p.numel() for p in tables) == 197 * 768 + 197 * 512


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(1, 2), (4, 3), (8, 2), (16, 2), (64, 3)])
def test_the_base_model_is_exact_at_settings_it_has_not_seen(numbers):
    pipeline = open_entry(load_pipeline_file(CATALOGUED), ())
    recipe = vit_mae.recipe(pipeline)
    tape = record_tape(pipeline.name, replace(recipe, sessions=recipe.sessions[:1]))
    for mode in ("infer", "train"):
        prove(tape, recipe, sample(*numbers, mode=mode))
