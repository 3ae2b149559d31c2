"""A tape against a fresh, unremembered recording: Stable Diffusion with small networks."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.proof import compare, prove
from vramplan.engines.torch.record.recipes import diffusion
from vramplan.engines.torch.record.recorder import record_tape
from vramplan.engines.torch.record.session import Recipe, Sample, Session
from vramplan.engines.torch.record.stream import Stream
from vramplan.engines.torch.tape.format import parse_tape, write_tape
from vramplan.errors import RecordingError
from vramplan.model import ComponentSpec, Constraint

BLOCKS = [32, 32, 32, 32]
COMPONENTS = (
    ComponentSpec(
        name="text_encoder",
        class_path="transformers.CLIPTextModel",
        config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "projection_dim": 32,
        },
    ),
    ComponentSpec(
        name="unet",
        class_path="diffusers.UNet2DConditionModel",
        config={
            "sample_size": 64, "block_out_channels": [32, 64], "layers_per_block": 1,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 32, "attention_head_dim": 2,
        },
    ),
    ComponentSpec(
        name="vae",
        class_path="diffusers.AutoencoderKL",
        config={
            "block_out_channels": BLOCKS, "layers_per_block": 1, "sample_size": 512,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
    ),
)  # fmt: skip
SCHEDULER = ComponentSpec(
    name="scheduler",
    class_path="diffusers.PNDMScheduler",
    config={"skip_prk_steps": True, "steps_offset": 1, "beta_schedule": "scaled_linear"},
)
PLAIN = {
    "mode": "txt2img", "guided": "1", "safety_checker": "off", "vae_tiling": "off",
    "vae_slicing": "off",
}  # fmt: skip
#: width, height, batch, steps: two of them with sides that are no multiples of 64
UNSEEN = ((520, 648, 1, 9), (648, 520, 3, 8), (512, 512, 2, 13), (456, 328, 1, 8), (704, 384, 4, 9))


def is_plain(sample: Sample) -> bool:
    return sample.keep_main and all(sample.facts[key] == value for key, value in PLAIN.items())


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    pipeline = TorchPipeline(
        name="small-sd", title="", summary="", runtime="diffusers", defaults={}, source="", path="",
        constraints={"mode": Constraint(choices=("txt2img",))}, components=COMPONENTS,
        scheduler=SCHEDULER,
    )  # fmt: skip
    whole = diffusion.recipe(pipeline)
    facts, samples = whole.sessions[0]
    return replace(whole, sessions=[(facts, [s for s in samples if is_plain(s)])])


@pytest.fixture(scope="module")
def tape(recipe: Recipe) -> dict[str, object]:
    return record_tape("small-sd", recipe)


def sample_at(recipe: Recipe, width: int, height: int, batch: int, steps: int) -> Sample:
    _, samples = recipe.sessions[0]
    numbers = {"width": width, "height": height, "batch": batch, "steps": steps}
    return replace(samples[0], numbers=numbers)


@pytest.mark.parametrize("numbers", UNSEEN)
def test_the_tape_is_exact_at_settings_it_has_not_seen(recipe, tape, numbers):
    prove(tape, recipe, sample_at(recipe, *numbers))


def test_recording_twice_gives_the_same_bytes(recipe, tape):
    assert write_tape(record_tape("small-sd", recipe)) == write_tape(tape)


# -------------------------------------------------- a proof that cannot fail proves nothing
def damaged(tape, change):
    copy = json.loads(json.dumps(tape))
    change(copy["routines"])
    return copy


def widen(routines):
    sizes = routines["unet"][0]["sizes"]
    place = next(i for i, size in enumerate(sizes) if "h" in size)
    sizes[place] += "+512"


def keep_longer(routines):
    """Free one tensor of the UNet after the next allocation instead of before it."""
    code = routines["unet"][0]["code"]
    place = next(
        i
        for i, (a, b) in enumerate(pairwise(code))
        if isinstance(a, int) and isinstance(b, int) and a < 0 <= b
    )
    code[place], code[place + 1] = code[place + 1], code[place]


def forget_scratch(routines):
    code = routines["vae.decoder"][0]["code"]
    code.remove(next(op for op in code if isinstance(op, list) and op[0] == "w"))


def rename_phase(routines):
    op = next(op for op in routines["main"][0]["code"] if isinstance(op, list) and op[0] == "p")
    op[1] = "idle"


@pytest.fixture(scope="module")
def run(recipe: Recipe) -> tuple[Sample, Stream]:
    """Return what the code does at settings of which tapes are proved."""
    sample = sample_at(recipe, 512, 512, 1, 8)
    facts, _ = recipe.sessions[0]
    return sample, Session(recipe, facts, remember=False).record(sample)


def parsed(tape):
    return parse_tape(write_tape(tape), "the tape")


def test_the_tape_is_right_there_before_it_is_damaged(tape, run):
    compare(parsed(tape), *run)


@pytest.mark.parametrize("change", [widen, keep_longer, forget_scratch, rename_phase])
def test_a_tape_that_is_wrong_in_one_place_is_refused(tape, run, change):
    with pytest.raises(
        RecordingError, match=r"small-sd at width=512.*the tape has .*, the code did"
    ):
        compare(parsed(damaged(tape, change)), *run)


def test_facts_that_no_session_records_are_refused(recipe, tape):
    run = sample_at(recipe, 512, 512, 1, 8)
    with pytest.raises(RecordingError, match="no session of the recipe has the facts"):
        prove(tape, recipe, replace(run, facts={**run.facts, "kernel": "none"}))
