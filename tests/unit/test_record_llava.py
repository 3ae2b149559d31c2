"""LLaVA through its own generate(): exact at unseen settings, from image to last token."""

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
from vramplan.engines.torch.record.recipes import llava
from vramplan.engines.torch.record.recorder import record_tape
from vramplan.engines.torch.record.session import Recipe, Sample, Session
from vramplan.engines.torch.record.stream import Alloc, Phase
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.format import parse_tape, write_tape
from vramplan.engines.torch.tape.replay import Conditions, Trace, replay
from vramplan.model import ComponentSpec

CATALOGUED = Path(__file__).parents[2] / "profiles" / "pipelines" / "llava-1.5-7b-hf.yaml"
#: hidden size, layers and image tokens of the small model
WIDTH, LAYERS, IMAGE = 64, 3, 64
SPEC = ComponentSpec(
    name="model",
    class_path="transformers.LlavaForConditionalGeneration",
    config={
        "image_token_id": 1999,
        "image_token_index": 1999,
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 112, "patch_size": 14,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 96,
            "vocab_size": 2000, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        },
    },
)  # fmt: skip
UNSEEN = ((1, 1, 4), (1, 250, 9), (2, 7, 4), (4, 33, 12), (7, 120, 6))


def small_recipe() -> Recipe:
    pipeline = TorchPipeline(
        name="small-llava", title="", summary="", runtime="transformers", defaults={},
        constraints={}, source="", path="", components=(SPEC,),
    )  # fmt: skip
    return llava.recipe(pipeline)


def sample(batch: int, prompt: int, new: int, dtype: str = "fp16", kernel: str = "flash") -> Sample:
    numbers = {"batch": batch, "prompt_tokens": prompt, "new_tokens": new}
    return Sample(numbers=numbers, facts={"dtype": dtype, "kernel": kernel})


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return small_recipe()


@pytest.fixture(scope="module")
def tape(recipe: Recipe) -> Tape:
    two_sessions = [recipe.sessions[0], recipe.sessions[-1]]  # fp16 flash, fp32 math
    tape = record_tape("small-llava", replace(recipe, sessions=two_sessions))
    return parse_tape(write_tape(tape), "small-llava")


def replayed(tape: Tape, run: Sample) -> Trace:
    conditions = Conditions(
        numbers=run.numbers,
        facts=run.facts,
        element_bytes=2,
        workspace_bytes=lambda _kind, _operands: 0,
        cublas_bytes=1 << 20,
    )
    return replay(tape, conditions)


@pytest.mark.parametrize("numbers", UNSEEN)
def test_the_tape_is_exact_at_settings_it_has_not_seen(recipe, tape, numbers):
    prove(tape, recipe, sample(*numbers))


def test_math_attention_has_a_recording_of_its_own(recipe, tape):
    prove(tape, recipe, sample(3, 50, 5, "fp32", "math"))


@pytest.mark.slow
def test_every_kernel_is_recorded_for_every_dtype_that_it_takes(recipe):
    tape = record_tape("small-llava", recipe)
    for facts, _ in recipe.sessions:
        prove(tape, recipe, sample(3, 50, 5, **facts))


def test_recording_twice_gives_the_same_bytes(recipe):
    one_session = replace(recipe, sessions=recipe.sessions[:1])
    first, second = (write_tape(record_tape("small-llava", one_session)) for _ in range(2))
    assert first == second


def test_bf16_makes_the_events_of_fp16(recipe):
    half, brain = (
        Session(recipe, {"dtype": dtype, "kernel": "flash"}).record(sample(2, 9, 5, dtype))
        for dtype in ("fp16", "bf16")
    )
    assert [type(e) for e in half.events] == [type(e) for e in brain.events]
    sizes = [[e.size_bytes for e in s.events if isinstance(e, Alloc)] for s in (half, brain)]
    assert sizes[0] == sizes[1]


def test_phases_follow_one_another_as_the_model_runs(recipe):
    stream = Session(recipe, {"dtype": "fp16", "kernel": "flash"}).record(sample(1, 9, 5))
    phases = [(e.name, e.component) for e in stream.events if isinstance(e, Phase)]
    assert phases == [
        ("encode_image", "vision_encoder"),
        ("encode_image", "projector"),
        ("prefill", "language_model"),
        ("prefill", "lm_head"),
        *[("generate", "language_model"), ("generate", "lm_head")] * 4,
    ]


def test_the_cache_grows_by_one_token_and_is_copied_as_it_grows(recipe):
    """DynamicCache concatenates: old and new keys of a layer live side by side for a moment."""
    batch, prompt, new = 2, 30, 6
    stream = Session(recipe, {"dtype": "fp16", "kernel": "flash"}).record(
        sample(batch, prompt, new)
    )
    caches = [
        event.size_bytes
        for event in stream.events
        if isinstance(event, Alloc) and event.operator.startswith("aten.cat")
    ]
    for token in range(1, new):
        keys = batch * (prompt + IMAGE + token) * WIDTH * 2
        assert caches.count(keys) == 2 * LAYERS  # keys and values


def test_nothing_is_left_when_the_run_is_over(tape):
    for run in (sample(1, 60, 20), sample(3, 10, 4)):
        marks = replayed(tape, run).marks
        weights = next(mark.allocated_bytes for mark in marks if mark.phase == "load")
        assert marks[-1].allocated_bytes == weights + (1 << 20)


def test_a_run_of_few_tokens_is_planned_as_the_shortest_recorded(tape):
    assert replayed(tape, sample(1, 9, 1)).marks == replayed(tape, sample(1, 9, 4)).marks


def test_prefill_computes_the_last_position_alone_and_takes_no_mask(recipe):
    """No padding: SDPA is asked for causal attention, and no (query, key) mask is made."""
    prompt = 300
    stream = Session(recipe, {"dtype": "fp16", "kernel": "flash"}).record(sample(1, prompt, 4))
    sizes = [event.size_bytes for event in stream.events if isinstance(event, Alloc)]
    assert (prompt + IMAGE) ** 2 not in sizes
    assert max(sizes) < (prompt + IMAGE) * 2000 * 2  # less than logits of every position


def test_parameters_are_those_of_the_published_model():
    pipeline = open_entry(load_pipeline_file(CATALOGUED), ())
    recipe = llava.recipe(pipeline)
    (model,) = recipe.build({"dtype": "fp16"}).values()
    counts = {
        part: sum(p.numel() for p in model.get_submodule(path).parameters())
        for part, path in recipe.parts["model"].items()
    }
    assert counts == {
        "vision_encoder": 303_507_456,
        "projector": 20_979_712,
        "language_model": 6_607_605_760,
        "lm_head": 131_334_144,
    }
    assert sum(p.numel() for p in model.parameters()) == 7_063_427_072


def test_rotary_tables_stay_in_fp32():
    (model,) = small_recipe().build({"dtype": "fp16"}).values()
    buffers = dict(model.named_buffers())
    assert str(buffers["model.language_model.rotary_emb.inv_freq"].dtype) == "torch.float32"


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(1, 512, 5), (2, 100, 4), (3, 77, 4), (1, 1500, 4), (6, 9, 5)])
def test_the_7b_model_is_exact_at_settings_it_has_not_seen(numbers):
    pipeline = open_entry(load_pipeline_file(CATALOGUED), ())
    recipe = llava.recipe(pipeline)
    one_session = replace(recipe, sessions=recipe.sessions[:1])
    prove(record_tape(pipeline.name, one_session), recipe, sample(*numbers))
