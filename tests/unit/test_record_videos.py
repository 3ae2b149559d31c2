"""What videos ask of a recording: frames by a latent one, two transformers, masks of all tokens."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
import torch

from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.record.saved.entry_settings import (
    Draw,
    least_steps,
    step_of,
    words_of,
)
from vramplan.engines.torch.record.saved.finder import Finder
from vramplan.engines.torch.record.saved.taking_over import part_steps, steps_before
from vramplan.engines.torch.record.saved.whole_pipeline import (
    _make_no_pictures,
    _stand_in_for_ftfy,
)
from vramplan.engines.torch.record.saved.wrapped import (
    CUDA,
    Functions,
    OnDevice,
    WrappedDevice,
    cuda_asked_for,
)
from vramplan.engines.torch.record.stream import (
    Alloc,
    Call,
    LoopBegin,
    LoopEnd,
    LoopNext,
    Stream,
)
from vramplan.engines.torch.tape.expressions import evaluate
from vramplan.errors import RecordingError


def denoised(*components: str) -> Stream:
    """Return a run with a step for each component, which calls that."""
    stream = Stream("main", {}, [LoopBegin("step1")])
    for one in components:
        stream.events += [LoopNext(), Call(f"{one}.2", {}, [])]
    stream.events.append(LoopEnd())
    return stream


def test_where_another_transformer_takes_over_another_loop_of_steps_begins() -> None:
    stream = denoised(*["high"] * 3, *["low"] * 4)
    assert part_steps(stream, {"step1": 7}) == {"step1": 3, "step1_2": 4}
    begun = [event.name for event in stream.events if isinstance(event, LoopBegin)]
    assert begun == ["step1", "step1_2"]
    kinds = [type(event).__name__ for event in stream.events]
    assert kinds[:7] == ["LoopBegin", *["LoopNext", "Call"] * 3]
    assert kinds[7:9] == ["LoopEnd", "LoopBegin"]
    assert kinds.count("LoopNext") == 7


@pytest.mark.parametrize(
    "components",
    [
        ["unet"] * 6,
        ["vae", *["unet"] * 5],  # what is done once before is no loop
        ["high", "low"] * 3,
        ["high", "high", "low", "low", "high", "high"],
    ],
)
def test_steps_of_one_transformer_or_of_two_by_turns_are_one_loop(components) -> None:
    stream = denoised(*components)
    assert part_steps(stream, {"step1": 6}) == {"step1": 6}
    assert sum(isinstance(event, LoopBegin) for event in stream.events) == 1


def test_how_many_steps_come_before_follows_from_the_scheduler() -> None:
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    text = steps_before(scheduler, 0.875, 8, 60)
    # sigmas are s*x/(1+(s-1)*x) of x from 1 down: at least b where x >= b/(s-(s-1)*b) = 0.7
    assert [evaluate(text, {"steps": n}) for n in (10, 40, 50)] == [4, 13, 16]
    scheduler.set_timesteps(33)
    assert evaluate(text, {"steps": 33}) == int((scheduler.timesteps >= 875).sum())


def test_what_no_whole_part_gives_is_refused() -> None:
    class Scheduler:
        config = type("Config", (), {"num_train_timesteps": 1000})

        def set_timesteps(self, steps):
            self.timesteps = torch.tensor([900] * (steps * steps))

    with pytest.raises(RecordingError, match="takes over"):
        steps_before(Scheduler(), 0.5, 8, 30)


def test_videos_differ_by_a_latent_frame_where_an_autoencoder_says_it() -> None:
    (job,) = make_jobs(["wan2.1-t2v-14b"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    (words, *_) = words_of(pipeline, "bf16")
    decoder = torch.nn.Module()
    assert step_of(decoder) is None
    decoder.config = type("Config", (), {"scale_factor_temporal": 4})
    step = step_of(decoder)
    draw = Draw(pipeline, step=step)
    frames = [draw.numbers(place, words)["frames"] for place in (*range(8), None)]
    assert frames[0] == pipeline.defaults["frames"] == 81
    assert {one % 4 for one in frames} == {1}
    shortest, next_longer, *_ = sorted(set(frames))
    assert next_longer - shortest == 4
    decoder.num_sample_frames_batch_size = 8  # CogVideoX: what is left of its batches differs
    assert step_of(decoder) is None


def test_a_routine_that_only_batches_call_has_no_code_for_one() -> None:
    streams = []
    for n in (2, 3, 4, 5):
        stream = Stream("vae.decoder.2", {"n": n})
        made = [Alloc(stream.new_birth(), 512 * n, f"a{n % 2}")]
        streams.append(stream)
        stream.events = [*made]
    with pytest.raises(RecordingError, match="differ"):
        Finder(["n"], ["n"], ()).assembled("vae.decoder.2", streams)


def test_a_mask_between_all_tokens_of_a_video_has_no_values_and_its_size() -> None:
    device = WrappedDevice(Stream("main", {}), set())
    with cuda_asked_for("flash"), device, Functions("flash"), torch.no_grad():
        numbers = torch.arange(1 << 14, dtype=torch.int32, device=CUDA)
        x, y = torch.meshgrid(numbers, numbers, indexing="xy")
        mask = torch.where(x <= y, 0, -float("inf"))
        few = torch.where(numbers[None, :64] <= numbers[:64, None], 0, -float("inf"))
    assert isinstance(mask, OnDevice)
    assert mask.content.is_meta
    assert not x.content.is_meta  # nothing is made of what is looked at in another way
    assert not few.content.is_meta
    sizes = [event.size_bytes for event in device.stream.events if isinstance(event, Alloc)]
    assert 1 << 28 in sizes  # a byte each
    assert 1 << 30 in sizes  # four of the mask


def test_a_pipeline_that_mends_letters_without_asking_is_put_together_without_it() -> None:
    from diffusers import WanImageToVideoPipeline

    module = sys.modules[WanImageToVideoPipeline.__module__]
    had = vars(module).get("ftfy")
    _stand_in_for_ftfy(WanImageToVideoPipeline)
    assert module.prompt_clean("  a &amp; b ") == "a & b"
    assert had is None or vars(module)["ftfy"] is had


def test_steps_of_two_transformers_are_recorded_with_more_of_them() -> None:
    least = {}
    for name in ("wan2.1-i2v-14b", "wan2.2-i2v-a14b"):
        (job,) = make_jobs([name], open_catalog(), {})
        pipeline = of_torch(job.pipeline)
        (words, *_) = words_of(pipeline, "bf16")
        drawn = [Draw(pipeline).numbers(place, words)["steps"] for place in (*range(8), None)]
        least[name] = min(drawn)
        assert min(drawn) == least_steps(pipeline)
    assert least == {"wan2.1-i2v-14b": 8, "wan2.2-i2v-a14b": 12}


def test_a_video_is_no_list_of_pictures_on_the_host() -> None:
    from diffusers.video_processor import VideoProcessor

    pipe = type("Pipe", (), {})()
    pipe.video_processor = VideoProcessor(vae_scale_factor=8)
    _make_no_pictures(pipe)
    video = pipe.video_processor.postprocess_video(torch.zeros(2, 3, 5, 64, 32), "pil")
    assert [len(frames) for frames in video] == [5, 5]
    assert {frame.size for frames in video for frame in frames} == {(1, 1)}
