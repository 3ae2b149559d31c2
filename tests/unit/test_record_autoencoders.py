"""Autoencoders of torch.nn layers: inference and training steps, exact at unseen settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from vramplan.catalog.pipelines import load_pipeline_file
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.record.classes import build_module
from vramplan.engines.torch.record.proof import prove
from vramplan.engines.torch.record.recipes import autoencoders
from vramplan.engines.torch.record.recorder import record_tape
from vramplan.engines.torch.record.session import Sample, Session
from vramplan.engines.torch.record.stream import Alloc, Phase
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.format import parse_tape, write_tape
from vramplan.engines.torch.tape.replay import Conditions, Mark, Replay, Trace
from vramplan.errors import CatalogError, UsageError

PIPELINES = Path(__file__).parents[2] / "profiles" / "pipelines"
NAMES = ("log-anomaly-ae", "denoising-ae")
#: batch, steps, height, width
UNSEEN = ((1, 2, 72, 40), (4, 8, 56, 104), (1000, 3, 32, 32), (11, 5, 168, 96), (64, 12, 200, 32))


def pipeline_of(name):
    return open_entry(load_pipeline_file(PIPELINES / f"{name}.yaml"), ())


def sample(batch: int, steps: int, height: int = 64, width: int = 96, **facts: str) -> Sample:
    numbers = {"batch": batch, "steps": steps, "height": height, "width": width}
    return Sample(numbers=numbers, facts={"dtype": "fp32", **facts})


@pytest.fixture(scope="module", params=NAMES)
def written(request):
    recipe = autoencoders.recipe(pipeline_of(request.param))
    return request.param, recipe, write_tape(record_tape(request.param, recipe))


@pytest.fixture(scope="module")
def recorded(written):
    name, recipe, text = written
    return recipe, parse_tape(text, name)


def replayed(tape, run: Sample, *, every_iteration: bool = False, runs: int = 1) -> Trace:
    conditions = Conditions(
        numbers=run.numbers,
        facts=run.facts,
        element_bytes={"fp32": 4, "fp16": 2}[run.facts["dtype"]],
        workspace_bytes=lambda _kind, operands: sum(operands[:2]),
        cublas_bytes=1 << 20,
    )
    one = Replay(tape, conditions, CachingAllocator(), every_iteration=every_iteration)
    one.load()
    for _ in range(runs):
        one.run()
    return one.trace


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("numbers", UNSEEN)
def test_the_tape_is_exact_at_settings_it_has_not_seen(recorded, numbers, dtype, mode):
    recipe, tape = recorded
    prove(tape, recipe, sample(*numbers, dtype=dtype, mode=mode))


@pytest.mark.parametrize("name", NAMES)
def test_recording_twice_gives_the_same_bytes(name):
    recipe = autoencoders.recipe(pipeline_of(name))
    one_session = replace(recipe, sessions=recipe.sessions[:1])
    first, second = (write_tape(record_tape(name, one_session)) for _ in range(2))
    assert first == second


def test_a_tape_is_small(written):
    *_, text = written
    assert len(text) < 8_000


def test_bf16_makes_the_events_of_fp16():
    recipe = autoencoders.recipe(pipeline_of("denoising-ae"))
    half, brain = (
        Session(recipe, {"dtype": dtype}).record(sample(2, 3, dtype=dtype, mode="train"))
        for dtype in ("fp16", "bf16")
    )
    assert [type(e) for e in half.events] == [type(e) for e in brain.events]
    sizes = [[e.size_bytes for e in s.events if isinstance(e, Alloc)] for s in (half, brain)]
    assert sizes[0] == sizes[1]


# ------------------------------------------------------------------------- what training takes
def rounded(size: int) -> int:
    return -(-size // 512) * 512


def parameters(recipe) -> list[int]:
    modules = recipe.build({"dtype": "fp32"})
    return [p.numel() * 4 for name in modules for p in modules[name].parameters()]


def last_step(trace: Trace) -> Mark:
    """Return Adam's stretch of the last step but one: the last one lets everything go."""
    return [mark for mark in trace.marks if mark.component == "optimizer"][-2]


def cublas_bytes(tape, threads: int) -> int:
    """Return what cuBLAS holds: convolutions alone never make a matrix product."""
    return 0 if "h" in tape.dims else threads << 20


def test_training_holds_weights_gradients_and_two_moments(recorded):
    """After a step: weights, gradients, exp_avg, exp_avg_sq; Adam's step counts are on the CPU."""
    recipe, tape = recorded
    run = sample(3, 4, mode="train")
    trace = replayed(tape, run)
    weights = sum(map(rounded, parameters(recipe)))
    is_image = "h" in tape.dims
    batch = rounded(3 * 4 * (3 * 64 * 96 if is_image else 512))
    # what the loop's variables still name: the batch (and its noisy copy), the output, the loss,
    # a number in a storage of the output's size
    named = (4 if is_image else 3) * batch
    assert last_step(trace).allocated_bytes == 4 * weights + named + cublas_bytes(tape, 2)


def test_the_second_moments_root_is_taken_of_all_parameters_at_once(recorded):
    """torch._foreach_sqrt gives a fifth copy of the weights' size at the end of a step."""
    recipe, tape = recorded
    trace = replayed(tape, sample(1, 4, mode="train"))
    last = last_step(trace)
    weights = sum(map(rounded, parameters(recipe)))
    assert last.allocated_peak_bytes - last.allocated_bytes == weights


def test_the_first_step_makes_adams_state_and_later_ones_keep_it(recorded):
    recipe, tape = recorded
    run = sample(3, 4, mode="train")
    trace = replayed(tape, run, every_iteration=True)
    ends = [m.allocated_bytes for m in trace.marks if m.component == "optimizer"]
    assert len(ends) == 4
    assert ends[0] == ends[1] == ends[2]
    backward = [m.allocated_bytes for m in trace.marks if m.component == "backward"]
    assert backward[1] - backward[0] == 2 * sum(map(rounded, parameters(recipe)))


def test_everything_is_let_go_at_the_end(recorded):
    recipe, tape = recorded
    weights = sum(map(rounded, parameters(recipe)))
    for mode, threads in (("infer", 1), ("train", 2)):  # a backward pass has one of its own
        marks = replayed(tape, sample(5, 6, mode=mode), runs=2).marks
        assert marks[-1].allocated_bytes == weights + cublas_bytes(tape, threads)


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_cutting_the_quiet_steps_short_changes_no_peak(recorded, steps):
    _, tape = recorded
    run = sample(16, steps, mode="train")
    short, long = replayed(tape, run), replayed(tape, run, every_iteration=True)
    assert short.allocated_peak_bytes == long.allocated_peak_bytes
    assert short.reserved_peak_bytes == long.reserved_peak_bytes


def test_inference_saves_no_activations(recorded):
    _, tape = recorded
    run = sample(4000, 3)
    infer, train = (
        replayed(tape, replace(run, facts={**run.facts, "mode": mode})).allocated_peak_bytes
        for mode in ("infer", "train")
    )
    assert infer < train


def test_phases_are_named_for_what_is_encoded():
    expected = {
        "log-anomaly-ae": ("encode", "decode"),
        "denoising-ae": ("encode_image", "decode_image"),
    }
    for name, phases in expected.items():
        recipe = autoencoders.recipe(pipeline_of(name))
        stream = Session(recipe, {"dtype": "fp32"}).record(sample(2, 2, mode="infer"))
        found = [(e.name, e.component) for e in stream.events if isinstance(e, Phase)]
        assert found == [(phases[0], "encoder"), (phases[1], "decoder")]


# ------------------------------------------------------------------------------- bad catalogue
def with_layers(layers):
    pipeline = pipeline_of("log-anomaly-ae")
    first, second = pipeline.components
    return replace(pipeline, components=(replace(first, config={"layers": layers}), second))


LINEAR = {"class": "torch.nn.Linear", "config": {"in_features": 8, "out_features": 4}}


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "has a list of layers"),
        ("torch.nn.Linear", "has a list of layers"),
        (["torch.nn.Linear"], r"layers\[0\]: a layer has a class"),
        ([LINEAR, {"config": {}}], r"layers\[1\]: a layer has a class"),
        ([{"class": "transformers.CLIPTextModel"}], "a class of torch.nn"),
        ([{"class": "torch.nn.Linier"}], "is not in the installed torch.nn"),
        ([{"class": "torch.nn.Linear", "config": {"in": 8}}], "does not take these arguments"),
        ([{"class": "torch.nn.ModuleList", "config": {"modules": 3}}], "does not take these"),
        ([{"class": "torch.nn.Parameter"}], "is not a module"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_built_are_refused(layers, words):
    with pytest.raises(CatalogError, match=words):
        build_module(with_layers(layers).components[0], torch.float32)


def test_an_encoder_that_takes_neither_rows_nor_images_is_refused():
    recipe = autoencoders.recipe(with_layers([{"class": "torch.nn.ReLU"}]))
    with pytest.raises(UsageError, match="begins with ReLU"):
        recipe.build({"dtype": "fp32"})


def test_other_components_than_an_encoder_and_a_decoder_are_refused():
    pipeline = pipeline_of("log-anomaly-ae")
    alone = replace(pipeline, components=pipeline.components[:1])
    with pytest.raises(UsageError, match="has an encoder and a decoder"):
        autoencoders.recipe(alone)
