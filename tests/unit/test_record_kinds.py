"""Kinds of models that are given something of their own: sessions, pairs, several senses."""

from __future__ import annotations

import dataclasses
import types

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from tests.unit.test_record_saved import (
    REQUEST,
    TEXT,
    assert_same,
    hear,
    of,
    part,
    record,
    request_for,
    small,
)
from tools.coverage.real_run import HeardDevice, compare, run_heard, run_really
from vramplan.engines.torch.record.saved import inputs, named_inputs, recording_child
from vramplan.engines.torch.record.saved.asked_model import AskedModel
from vramplan.engines.torch.record.saved.build import build_part
from vramplan.engines.torch.record.saved.constant_tape import write_recording
from vramplan.engines.torch.record.saved.wrapped import (
    CUDA,
    Functions,
    OnDevice,
    WrappedDevice,
    cuda_asked_for,
)
from vramplan.engines.torch.record.stream import Alloc, LoopNext, Phase, Stream
from vramplan.engines.torch.tape.format import parse_tape
from vramplan.errors import RecordingError

SIDES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def taped(recorded, model):
    """Return the tape of a recording, as it is read again."""
    return parse_tape(write_recording("tiny", recorded, {"model": model}, 4), "tiny")


def test_what_every_pass_leaves_is_freed_behind_the_last(monkeypatch) -> None:
    """A transducer keeps how long each token is, and joins them when it has heard all."""
    monkeypatch.setattr(named_inputs, "_SPECTRA", 160)
    ears = {**SIDES, "num_mel_bins": 8, "subsampling_conv_channels": 8}
    config = {"encoder_config": ears, "vocab_size": 64, "decoder_hidden_size": 32}
    model = small(of(transformers, "ParakeetForRNNT"), **config, num_decoder_layers=1)
    recorded = assert_same({"model": model})
    taped(recorded, model)


def test_what_ends_a_codebook_ends_no_run() -> None:
    """Made-up tokens are zeros, and so is what ends a sentence of CSM's codebooks."""
    depth = {**SIDES, "num_key_value_heads": 2, "backbone_hidden_size": 32, "vocab_size": 16}
    config = {
        **SIDES, "num_key_value_heads": 2, "num_codebooks": 3, "vocab_size": 16,
        "text_vocab_size": 64, "codebook_eos_token_id": 0,
        "depth_decoder_config": {**depth, "num_codebooks": 3},
        "codec_config": {
            **SIDES, "num_filters": 4, "hidden_size": 16, "head_dim": 4, "upsample_groups": 16,
            "num_key_value_heads": 4, "codebook_size": 16, "num_quantizers": 3,
        },
    }  # fmt: skip
    recorded = record({"model": small(of(transformers, "CsmForConditionalGeneration"), **config)})
    passes = [sum(isinstance(one, LoopNext) for one in run.events) for run in recorded.runs]
    assert passes == [4, 5, 7]


def sam() -> torch.nn.Module:
    """Return a tiny model that segments what is pointed at, through a video."""
    stages = {
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3],
    }  # fmt: skip
    eyes = {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [128, 128],
            **stages,
        },
        "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 128,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    memory = {
        "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 128, "memory_encoder_hidden_size": 128,
        "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 64, "num_maskmem": 3,
        "memory_attention_rope_feat_sizes": [8, 8], "max_object_pointers_in_encoder": 2,
    }  # fmt: skip
    config = {
        "vision_config": eyes, "image_size": 128, **memory,
        "prompt_encoder_config": {"hidden_size": 128, "image_size": 128},
        "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 32, "iou_head_hidden_dim": 32},
    }  # fmt: skip
    return small(of(transformers, "Sam2VideoModel"), **config)


def test_a_video_is_gone_through_in_the_session_of_its_class() -> None:
    model = sam()
    recorded = record({"model": model}, frames=2)
    (run,) = recorded.runs
    assert sum(isinstance(one, Phase) for one in run.events) == 2
    assert recorded.loops == {"frame": 1}
    taped(recorded, model)


@pytest.mark.slow
def test_a_session_as_with_real_data() -> None:
    model = sam()
    request = request_for({"model": model}, frames=4)
    hollow = {"model": build_part(request.parts[0], torch.float32)}
    heard = run_heard(request, hollow, HeardDevice)
    real = run_really(request, {"model": model.requires_grad_(False)})
    assert compare(heard, real) == "equal"


def test_a_session_of_nobody_is_not_made() -> None:
    class Looks(torch.nn.Module):
        dtype, device, config = torch.float32, CUDA, types.SimpleNamespace()

        def forward(self, inference_session: int):
            return inference_session

    with pytest.raises(RecordingError, match="does not say what its session is"):
        hear(Looks())


def test_a_video_has_a_number_of_frames() -> None:
    class Looks(torch.nn.Module):
        dtype, device, config = torch.float32, CUDA, types.SimpleNamespace()

        def forward(self, inference_session):
            return inference_session

    request = dataclasses.replace(REQUEST, parts=(part({}),), frames=1 << 20)
    with pytest.raises(RecordingError, match="1,048,576 frames: at most 1,024"):
        recording_child.record_modules(request, {"model": Looks()}, lambda _: None)


def test_an_image_lies_below_its_example() -> None:
    config = {**SIDES, "image_size": (64, 32), "patch_size": 8, "pretrain_image_size": 32,
              "decoder_hidden_size": 16, "intermediate_hidden_state_indices": [0, 1],
              "merge_index": 0}  # fmt: skip
    assert_same({"model": small(transformers.SegGptModel, **config)})


def test_frames_go_with_a_prompt() -> None:
    eyes = {**SIDES, "image_size": 32, "patch_size": 8, "num_frames": 4, "mit_hidden_size": 32,
            "mit_intermediate_size": 64, "mit_num_attention_heads": 4}  # fmt: skip
    config = {
        "text_config": {**SIDES, "vocab_size": 64, "max_position_embeddings": 32},
        "vision_config": eyes, "projection_dim": 32, "prompt_num_attention_heads": 4,
        "prompt_layers": 1,
    }  # fmt: skip
    assert_same({"model": small(transformers.XCLIPModel, **config)})


def test_hidden_states_of_chosen_layers_lie_side_by_side() -> None:
    cls = of(transformers, "MuseGlimmerAssistantModel")
    config = {**SIDES, "num_key_value_heads": 2, "head_dim": 8, "target_layer_ids": [0, 1, 3]}
    recorded = record({"model": small(cls, **config)})
    assert len(recorded.runs[0].events) > 20


def asked_of(forward, main: str, form: int = 0, model=None, **config) -> AskedModel:
    """Return a model of no class that is asked what it takes."""
    import inspect

    config = types.SimpleNamespace(**config)
    model = model or torch.nn.Module()
    model.config = config
    names = inspect.signature(forward).parameters
    return AskedModel(
        request=REQUEST, model=model, names=names, main=main, generates=False, form=form
    )


def test_a_sound_goes_with_a_video_where_both_are_taken() -> None:
    def forward(input_values=None, pixel_values_videos=None, padding_mask=None):
        return input_values, pixel_values_videos, padding_mask

    first = named_inputs.by_name(asked_of(forward, "input_values"), frozenset())
    assert first.keys() == {"input_values", "pixel_values_videos"}
    count = named_inputs.count_forms(asked_of(forward, "input_values"))
    last = named_inputs.by_name(asked_of(forward, "input_values", count - 1), frozenset())
    assert last.keys() == {"input_values"}


def test_where_a_series_has_no_values_is_told_in_whole_numbers() -> None:
    """Of fractions that many a mask would have no values, and code asks whether any is masked."""

    def forward(past_values, past_values_padding):
        return past_values, past_values_padding

    made = named_inputs.by_name(asked_of(forward, "past_values", context_length=64), frozenset())
    assert made["past_values_padding"].dtype == torch.long
    assert made["past_values_padding"].shape == made["past_values"].shape == (1, 64)
    assert not made["past_values_padding"].any()


def test_a_video_is_as_large_as_the_layers_are_built_for() -> None:
    def forward(pixel_values_videos):
        return pixel_values_videos

    model = torch.nn.Sequential(torch.nn.Identity())
    model[0].img_size = (48, 48)  # as timm's patch embeddings say it
    asked = asked_of(forward, "pixel_values_videos", model=model)
    made = named_inputs.by_name(asked, frozenset())["pixel_values_videos"]
    assert made.shape[-2:] == (48, 48)


def test_a_mask_of_stacked_spectra_is_as_long_as_these() -> None:
    def forward(input_features, input_features_mask):
        return input_features, input_features_mask

    model = torch.nn.Sequential(torch.nn.Linear(560, 512))
    asked = asked_of(forward, "input_features", form=2, model=model)
    made = named_inputs.by_name(asked, frozenset())
    assert made["input_features"].shape == (1, 428, 560)
    assert made["input_features_mask"].shape == (1, 428)


def test_unknown_elements_may_all_be_chosen() -> None:
    stream = Stream("main", {})
    device = WrappedDevice(stream, set())
    with device, Functions("flash"):
        unknown = torch.empty(70, 70, device="cuda") > 0.5
        assert isinstance(unknown, OnDevice)
        places = torch.nonzero(unknown)
        assert places.shape == (4900, 2)
        assert int(places[-1, 0]) == int(places[-1, 1]) == 69
        huge = torch.nonzero(torch.empty(4096, 4096, device="cuda") > 0.5)
        assert huge.shape == (1 << 24, 2)
    sizes = [one.size_bytes for one in stream.events if isinstance(one, Alloc)]
    assert 4900 * 2 * 8 in sizes
    assert (1 << 24) * 2 * 8 in sizes
    assert device.unknown_reads == 2


def test_what_holds_of_all_that_nobody_has_is_taken_to_hold() -> None:
    """Checks of a class's own (is a root real?) are of numbers that a real run has."""
    with WrappedDevice(Stream("main", {}), set()), Functions("flash"):
        few, many = (torch.empty(n, n, device="cuda") for n in (8, 600))
        small_product = many[:8] @ many[:, :8]
        assert bool(torch.all(small_product >= 0))
        assert bool(torch.all(many >= 0))
        assert not bool(torch.all(few * 0 + 1 < 0))  # numbers that are there decide


def test_a_sound_is_so_many_tokens_before_a_prompt() -> None:
    """Ninety-six spectra are halved by the encoder, and four of what it makes are one token."""
    ears = {
        **SIDES, "model_type": "voxtral_encoder", "hidden_size": 16, "num_mel_bins": 8,
        "max_source_positions": 48,
    }  # fmt: skip
    config = {"audio_config": ears, "text_config": {**TEXT, "model_type": "llama"}}
    cls = of(transformers, "VoxtralForConditionalGeneration")
    recorded = assert_same({"model": small(cls, **config, audio_token_id=5)})
    first = next(
        one
        for one in recorded.runs[0].events
        if isinstance(one, Alloc) and one.operator.startswith("aten.embedding")
    )
    assert first.size_bytes == (12 + REQUEST.prompt_tokens) * TEXT["hidden_size"] * 4


class HearsNothing(torch.nn.Module):
    """Says how many tokens a sound is, and takes none."""

    dtype, device = torch.float32, CUDA
    config = types.SimpleNamespace(audio_token_id=5, max_position_embeddings=64)

    def can_generate(self):
        return True

    def get_audio_features(self, input_features):
        return input_features[:, :4]

    def forward(self, input_ids=None, input_features=None, **_):
        return input_ids, input_features

    def generate(self, input_ids=None, input_features=None, **kwargs):
        return self(input_ids, input_features, **kwargs)


def test_a_sound_that_is_not_taken_leaves_the_prompt_alone() -> None:
    model = HearsNothing()
    device = WrappedDevice(Stream("main", {}), set())
    with cuda_asked_for("flash"), device, Functions("flash"):
        count = inputs.count_forms(REQUEST, model)
        first, last = (inputs.inputs(REQUEST, model, device, form) for form in (0, count - 1))
    assert first["input_ids"].shape == (1, 4 + REQUEST.prompt_tokens)
    assert "input_features" in first
    assert last.keys() == {"input_ids", "attention_mask"}
    assert last["input_ids"].shape == (1, REQUEST.prompt_tokens)


def test_inference_mode_is_no_obstacle() -> None:
    class Careful(torch.nn.Module):
        main_input_name = "input_values"
        dtype, device, config = torch.float32, CUDA, types.SimpleNamespace()

        @torch.inference_mode()
        def forward(self, input_values):
            return (input_values + 1).to(torch.float16)

    recorded = hear(Careful())
    assert any(isinstance(one, Alloc) for one in recorded.runs[0].events)
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()  # it is as it was
