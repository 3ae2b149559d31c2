"""Recording any class: against the same run with real data, and against the catalogue's tapes."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
import types

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import torch
import transformers

from tools.coverage.real_run import RealDevice, laid_out_plainly
from vramplan.ask.targets import open_catalog
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.record.recorder import describe_weights
from vramplan.engines.torch.record.saved import (
    recording_child,
    remembered_calls,
    stand_ins,
    whole_pipeline,
)
from vramplan.engines.torch.record.saved.asked_model import AskedModel, generates
from vramplan.engines.torch.record.saved.build import SavedPart, build_part
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.stand_ins import stand_in
from vramplan.engines.torch.record.saved.wrapped import (
    CUDA,
    Functions,
    OnDevice,
    WrappedDevice,
    cuda_asked_for,
    place_on_device,
)
from vramplan.engines.torch.record.session import DTYPES
from vramplan.engines.torch.record.stream import Alloc, Call, Cast, Free, Stream
from vramplan.engines.torch.replayed import conditions_at, replay_run
from vramplan.engines.torch.tape.format import parse_tape
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.errors import RecordingError

BF16 = torch.bfloat16


def of(library, name: str):
    """Return a class of a library; where its installed version has none there is nothing to try."""
    found = getattr(library, name, None)
    if found is None:
        pytest.skip(f"{library.__name__} {library.__version__} has no {name}")
    return found


def events(recorded):
    """Return every size and every death of a recording, calls among them, in their order.

    Deaths with nothing between them are sorted: their order is all one to an allocator.
    """
    found = []
    for stream in (*recorded.runs, *recorded.routines):
        numbers, dead = {}, []
        for event in stream.events:
            if isinstance(event, Free):
                dead.append(numbers[id(event.birth)])
                continue
            if dead:
                found.append(("free", *sorted(dead)))
                dead = []
            if isinstance(event, Alloc):
                numbers[id(event.birth)] = len(numbers)
                found.append(("alloc", event.size_bytes))
            elif isinstance(event, Call):
                for birth in event.outputs:
                    numbers[id(birth)] = len(numbers)
                found.append(("call", event.routine, len(event.outputs)))
    return found


def config_of(module):
    config = module.config
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(plain, default=str))


def part_of(name, module):
    path = f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"
    elements = sum(one.numel() for one in module.parameters())
    return SavedPart(name=name, class_path=path, config=config_of(module), elements=elements)


@pytest.fixture(autouse=True)
def _two_layers_are_enough(monkeypatch) -> None:
    """Small models have two that are alike: the second is remembered here too."""
    monkeypatch.setattr(remembered_calls, "_LEAST_ALIKE", 2)


REQUEST = Request(
    name="tiny", kind="model", class_path="", parts=(), index={}, schedulers={}, dtype="fp32",
    kernel="efficient", batch=1, image=None, frames=None, prompt_tokens=12,
)  # fmt: skip


def request_for(modules, own=None, **more):
    """Return the request for some modules, of which some have a dtype of their own."""
    parts = tuple(
        dataclasses.replace(part_of(name, module), dtype=(own or {}).get(name))
        for name, module in modules.items()
    )
    said = {"class_path": parts[0].class_path, **more, "parts": parts}
    return dataclasses.replace(REQUEST, **said)


def record(modules, **more):
    """Return the recording of a request."""
    request = request_for(modules, **more)
    hollow = {part.name: build_part(part, DTYPES[request.dtype]) for part in request.parts}
    return recording_child.record_modules(request, hollow, lambda _: None)


def both(modules, **more):
    """Return the recording of a request, and that of the same run with real data."""
    request = request_for(modules, **more)
    torch.set_num_threads(1)
    dtype = DTYPES[request.dtype]
    hollow = {part.name: build_part(part, dtype) for part in request.parts}
    remembers = recording_child.remembering(request)
    recorded = recording_child.record_modules(request, hollow, lambda _: None, watch=remembers)
    real = {
        n: copy.deepcopy(one).to(dtype).eval().requires_grad_(False) for n, one in modules.items()
    }
    for name, module in hollow.items():  # what the class keeps in fp32, saved or not
        held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for key, tensor in (*real[name].named_parameters(), *real[name].named_buffers()):
            tensor.data = tensor.data.to(held[key].dtype)
    with laid_out_plainly():
        return recorded, recording_child.record_modules(request, real, lambda _: None, RealDevice)


def assert_same(modules, **more):
    recorded, real = both(modules, **more)
    ours, theirs = events(recorded), events(real)
    assert len(theirs) > 20
    assert ours == theirs
    return recorded


def small(cls, **config):
    torch.manual_seed(0)
    return cls(cls.config_class(**config)).eval()


TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
T5 = {
    "decoder_start_token_id": 0,
    "d_model": 32,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "d_kv": 8,
    "vocab_size": 600,
}


@pytest.mark.parametrize("kernel", ["flash", "efficient", "math"])
def test_tokens_as_with_real_data(kernel: str) -> None:
    model = small(transformers.Qwen2ForCausalLM, **TEXT)
    # in half precision the CPU keeps other numbers of a layer norm than a GPU; here is none
    dtype = "bf16" if kernel == "flash" else "fp32"
    recorded = assert_same({"model": model}, kernel=kernel, dtype=dtype, batch=2)
    assert recorded.is_generation
    assert len(recorded.runs) == len(recording_child.RECORDED_TOKENS)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("LlamaForCausalLM", TEXT),
        ("GemmaForCausalLM", {**TEXT, "head_dim": 8}),
        ("MixtralForCausalLM", {**TEXT, "num_local_experts": 4}),
        ("T5ForConditionalGeneration", T5),
        ("BertModel", {k: v for k, v in TEXT.items() if k != "num_key_value_heads"}),
        ("T5EncoderModel", T5),
    ],
)
def test_text_as_with_real_data(name: str, config) -> None:
    assert_same({"model": small(getattr(transformers, name), **config)})


def test_sound_is_recorded() -> None:
    config = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "max_source_positions": 50, "num_mel_bins": 16,
    }  # fmt: skip
    model = small(transformers.WhisperForConditionalGeneration, **config)
    recorded = record({"model": model})
    assert recorded.is_generation
    first, *_, last = recorded.runs
    assert len(last.events) > len(first.events)


def test_images_as_with_real_data() -> None:
    config = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    assert_same({"model": small(transformers.ViTModel, **config)}, batch=3)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "ASTModel",
            {"num_attention_heads": 4, "intermediate_size": 64, "max_length": 32,
             "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        ),
        ("Blip2QFormerModel", {"num_attention_heads": 4, "intermediate_size": 64,
                               "encoder_hidden_size": 48}),
        ("LayoutLMModel", {"num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 64}),
        ("LxmertModel", {"num_attention_heads": 4, "intermediate_size": 64, "l_layers": 1,
                         "x_layers": 1, "r_layers": 1, "vocab_size": 64}),
        ("VideoMAEModel", {"num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
                           "num_frames": 4}),
        ("Siglip2VisionModel", {"num_attention_heads": 4, "intermediate_size": 64,
                                "num_patches": 16}),
        ("MobileNetV1Model", {"depth_multiplier": 0.25}),
    ],
)  # fmt: skip
def test_what_a_model_has_to_be_given_is_made_by_its_name(name: str, config) -> None:
    more = {"hidden_size": 32, "num_hidden_layers": 2}
    cls = of(transformers, name)
    if not set(config) & set(vars(cls.config_class())):
        pytest.skip(f"transformers {transformers.__version__} has another config for {name}")
    assert_same({"model": small(cls, **more, **config)})


VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


def test_patches_are_made_where_a_grid_of_them_is_told() -> None:
    sides = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4}
    config = {**sides, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
    name = "Qwen2_5_VisionTransformerPretrainedModel"
    of(transformers, name)  # a recording finds what the library exports
    cls = getattr(transformers.models.qwen2_5_vl.modeling_qwen2_5_vl, name)
    assert_same({"model": small(cls, **config)})


def test_a_codec_reads_the_sizes_of_its_kernels() -> None:
    sides = {"num_filters": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {
        "intermediate_size": 32,
        "codebook_size": 16,
        "num_quantizers": 2,
        "upsample_groups": 16,
    }
    model = small(transformers.MimiModel, **sides, **more, head_dim=8, num_key_value_heads=2)
    assert_same({"model": model}, dtype="fp32", kernel="efficient")


class Ears(torch.nn.Module):
    """Says nothing of channels, and takes a sound of so many dimensions."""

    main_input_name = "input_values"
    dtype, device = torch.float32, CUDA
    config = types.SimpleNamespace()

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions, self.heard = dimensions, []

    def forward(self, input_values):
        self.heard.append(tuple(input_values.shape))
        kept = input_values + 1
        if kept.dim() != self.dimensions:
            raise ValueError(f"not of {kept.dim()} dimensions")
        return kept


def hear(ears):
    request = dataclasses.replace(REQUEST, parts=(part({}),))
    return recording_child.record_modules(request, {"model": ears}, lambda _: None)


def test_a_sound_is_given_in_the_form_that_the_class_takes() -> None:
    ears = Ears(dimensions=3)
    recorded = hear(ears)
    assert ears.heard == [(1, 16000), (1, 1, 16000)]
    # nothing is left of the form that was not taken
    allocs = [one for one in recorded.runs[0].events if isinstance(one, Alloc)]
    assert [one.size_bytes for one in allocs] == [64000, 64000]


def test_what_takes_no_form_says_why_the_first_failed() -> None:
    with pytest.raises(ValueError, match="not of 2 dimensions"):
        hear(Ears(dimensions=9))


def test_a_number_is_found_in_the_config_of_the_part_that_it_is_of() -> None:
    def config(**known):
        return types.SimpleNamespace(to_dict=dict, **known)

    whole = config(
        image_size=8,
        text_config=config(patch_size=1, vocab_size=3),
        vision_config=config(backbone_config=config(patch_size=[4, 4], image_size=64)),
    )
    model = types.SimpleNamespace(config=whole)
    asked = AskedModel(request=REQUEST, model=model, names={}, main="input_ids", generates=False)
    assert asked.said("patch_size", part="vision") == 4
    assert asked.said("patch_size") == 1
    assert asked.said("image_size", part="vision") == 64
    assert asked.said("image_size") == 8
    with pytest.raises(RecordingError, match="none of no_such_size"):
        asked.said("no_such_size")
    whole.image_size = 1 << 20
    with pytest.raises(RecordingError, match="image_size"):
        asked.said("image_size")


def test_a_product_of_two_types_is_refused_as_torch_does() -> None:
    for is_strict in (False, True):
        device = WrappedDevice(Stream("main", {}), set())
        device.is_strict = is_strict
        with device:
            one, other = torch.empty(600, 600, device="cuda"), torch.empty(600, 600, device="cuda")
            other = other.to(torch.bfloat16)
            if is_strict:
                with pytest.raises(RuntimeError, match="same dtype"):
                    torch.mm(one, other)
            else:
                torch.mm(one, other)


class Anything(torch.nn.Module):
    """As GraniteSpeech is: what it is told goes on to the library's own `generate`."""

    def can_generate(self):
        return True

    def forward(self, input_ids=None, input_features=None):
        return input_ids, input_features

    def generate(self, *args, **kwargs):
        return args, kwargs


class Named(Anything):
    """As Nemotron's transcriber, InstructBLIP and Kosmos-2 are."""

    def generate(self, input_ids=None, input_features=None, **kwargs):
        return input_ids, input_features, kwargs


class AtOnce(Named):
    """As CTC's kind is."""

    def forward(self, input_features):
        return input_features


def test_what_hands_on_what_it_is_told_makes_tokens_too() -> None:
    assert generates(Anything())
    assert generates(Named())
    assert not generates(AtOnce())


def test_what_hears_a_sentence_at_once_is_run_once() -> None:
    sides = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = {"encoder_config": {**sides, "intermediate_size": 64}, "vocab_size": 32}
    recorded = record({"model": small(transformers.ParakeetForCTC, **config)})
    assert not recorded.is_generation
    assert len(recorded.runs) == 1


OPT = {
    "model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 128, "word_embed_proj_dim": 32,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
}  # fmt: skip
QFORMER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "encoder_hidden_size": 32, "vocab_size": 64,
}  # fmt: skip
INSTRUCT = {  # the prompt goes to what looks at the image, too
    "text_config": {**OPT, "max_position_embeddings": 256}, "vision_config": VISION,
    "qformer_config": QFORMER, "num_query_tokens": 4, "image_token_index": 5,
    "video_token_index": 5,
}  # fmt: skip
WITH_IMAGES = {
    "LlavaForConditionalGeneration": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VISION, "model_type": "clip_vision_model"},
        "image_token_index": 5,
    },
    "Gemma3ForConditionalGeneration": {
        "text_config": {**TEXT, "head_dim": 8, "sliding_window": 64},
        "vision_config": {**VISION, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
        "image_token_index": 6,
    },
    "Qwen2_5_VLForConditionalGeneration": {
        "text_config": {
            **TEXT,
            "vocab_size": 2000,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default"},
        },
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 32,
        },
        "image_token_id": 12,
        "video_token_id": 13,
        "vision_start_token_id": 9,
        "vision_end_token_id": 10,
    },
    "LlavaNextForConditionalGeneration": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VISION, "model_type": "clip_vision_model"},
        "image_token_index": 5,
        "image_grid_pinpoints": [[32, 64], [64, 64], [64, 96]],
    },
    "Idefics3ForConditionalGeneration": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": VISION,
        "image_token_id": 5,
        "scale_factor": 2,
    },
    "Blip2ForConditionalGeneration": {
        "text_config": OPT,
        "vision_config": VISION,
        "qformer_config": QFORMER,
        "num_query_tokens": 4,
        "image_token_index": 5,
    },
    "InstructBlipForConditionalGeneration": INSTRUCT,
    "InstructBlipVideoForConditionalGeneration": INSTRUCT,
    "Kosmos2ForConditionalGeneration": {  # an image is where a mask of the prompt says
        "text_config": {
            "embed_dim": 32, "layers": 2, "ffn_dim": 64, "attention_heads": 4, "vocab_size": 128,
        },
        "vision_config": VISION,
        "latent_query_num": 4,
    },
    "CLIPModel": {"text_config": {**TEXT, "vocab_size": 200}, "vision_config": VISION},
    "Mistral3ForConditionalGeneration": {  # images of any size, each said
        "text_config": {**TEXT, "model_type": "mistral"},
        "vision_config": {**VISION, "model_type": "pixtral", "image_size": 128, "head_dim": 8},
        "image_token_index": 5,
        "spatial_merge_size": 2,
    },
    "PaddleOCRVLForConditionalGeneration": {  # each patch an image of its own
        "text_config": {
            **TEXT,
            "head_dim": 16,
            "rope_parameters": {"mrope_section": [2, 3, 3], "rope_type": "default"},
        },
        "vision_config": VISION,
        "image_token_id": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_images_and_text_as_with_real_data(name: str) -> None:
    model = small(of(transformers, name), **WITH_IMAGES[name])
    recorded = assert_same({"model": model}, image=(64, 64))
    assert recorded.is_generation == (name != "CLIPModel")


def vae(channels: int = 4):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[32, 64],
        latent_channels=channels,
        sample_size=64,
        shift_factor=0.1,
    ).eval()


def test_an_autoencoder_as_with_real_data() -> None:
    assert_same({"vae": vae()}, image=(96, 64), batch=2)


def flux():
    torch.manual_seed(0)
    clip = small(
        transformers.CLIPTextModel, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, projection_dim=32, vocab_size=600,
    )  # fmt: skip
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8], guidance_embeds=True,
    )  # fmt: skip
    modules = {
        "text_encoder": clip,
        "text_encoder_2": small(transformers.T5EncoderModel, **T5),
        "transformer": transformer.eval(),
        "vae": vae(),
    }
    index = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
    }
    more = {
        "kind": "pipeline", "class_path": "diffusers.FluxPipeline", "index": index,
        "image": (64, 64), "prompt_tokens": 0,
        "schedulers": {"scheduler": {"use_dynamic_shifting": True}},
    }  # fmt: skip
    return modules, more


def test_flux_as_with_real_data_and_its_steps_are_one() -> None:
    modules, more = flux()
    recorded = assert_same(modules, **more)
    assert set(recorded.loops.values()) == {3}
    names = [one.routine for one in recorded.routines]
    assert names == ["text_encoder", "text_encoder_2", "transformer", "vae.decoder"]


def wan():
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16,
        out_channels=16, text_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True,
        rope_max_seq_len=32,
    )  # fmt: skip
    text = small(transformers.UMT5EncoderModel, **T5)
    modules = {"text_encoder": text, "vae": autoencoder.eval(), "transformer": transformer.eval()}
    return modules, "WanPipeline", "T5TokenizerFast", {"image": (32, 32), "frames": 9}


def qwen_image():
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default"}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    text = small(
        transformers.Qwen2_5_VLForConditionalGeneration,
        text_config={**TEXT, "vocab_size": 2000, "rope_scaling": rope},
        vision_config={**vision, "out_hidden_size": 32},
    )
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=24, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1,
        temperal_downsample=[False, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=3, joint_attention_dim=32, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    modules = {"text_encoder": text, "vae": autoencoder.eval(), "transformer": transformer.eval()}
    return modules, "QwenImagePipeline", "Qwen2Tokenizer", {"image": (32, 32)}


def z_image():
    transformer = of(diffusers, "ZImageTransformer2DModel")(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        cap_feat_dim=32, axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    text = small(transformers.Qwen3Model, **{**TEXT, "vocab_size": 600, "head_dim": 8})
    modules = {"text_encoder": text, "vae": vae(), "transformer": transformer.eval()}
    return modules, "ZImagePipeline", "Qwen2Tokenizer", {"image": (32, 32)}


def asked(name, tokenizer, more):
    """Return what a pipeline is asked for."""
    index = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "tokenizer": ["transformers", tokenizer],
    }
    whole = {"kind": "pipeline", "class_path": f"diffusers.{name}", "index": index, **more}
    return {"prompt_tokens": 0, **whole}


@pytest.mark.parametrize("make", [wan, qwen_image, z_image])
def test_other_pipelines_as_with_real_data(make) -> None:
    modules, name, tokenizer, more = make()
    recorded = assert_same(modules, **asked(name, tokenizer, more))
    assert {one.routine.partition(".")[0] for one in recorded.routines} == set(modules)


def test_a_part_with_a_dtype_of_its_own_as_with_real_data() -> None:
    modules, name, tokenizer, more = wan()
    own, of_half = {"vae": "fp32"}, {"dtype": "bf16", "kernel": "flash"}
    recorded = assert_same(modules, own=own, **of_half, **asked(name, tokenizer, more))
    # so its scratch is that of fp32, and none of its weights comes or goes
    assert recorded.runs[0].events[0] == Cast("vae", 4)
    request = request_for(modules, own=own, **of_half, **asked(name, tokenizer, more))
    built = {part.name: build_part(part, BF16) for part in request.parts}
    tensors = describe_weights(built["vae"], {}, BF16.itemsize)["modules"]
    elements = sum(one.numel() for one in modules["vae"].parameters())
    assert sum(int(size[:-1]) for module in tensors for size in module) == 4 * elements


@pytest.mark.parametrize(
    ("name", "settings", "more"),
    [
        ("sd15-vae", {}, {}),
        ("vit-mae-base", {}, {"kernel": "efficient"}),
    ],
)
def test_what_the_catalogue_has_is_recorded_as_its_tape_says(name, settings, more) -> None:
    catalog = open_catalog()
    pipeline = open_entry(catalog.pipelines[name], catalog.folders)
    tape = open_tape(find_tape(pipeline))
    here = {one: sys.modules[one].__version__.partition("+")[0] for one in tape.recorded_with}
    if here != tape.recorded_with:
        pytest.skip(f"its tape is of {tape.recorded_with}")
    (spec,) = pipeline.components
    asked = {**pipeline.defaults, **settings}
    part = SavedPart(
        name=spec.name,
        class_path=spec.class_path,
        config=dict(spec.config),
        elements=tape.components[spec.name].parameters,
    )
    said = {
        "name": name, "kind": "model", "class_path": spec.class_path, "index": {},
        "schedulers": {}, "dtype": asked["dtype"], "kernel": "flash", "batch": asked["batch"],
        "image": asked.get("image"), "frames": None, "prompt_tokens": 0,
    }  # fmt: skip
    text = recording_child.record(Request(**{**said, **more, "parts": (part,)}), lambda _: None)
    found = parse_tape(text, name)
    theirs = replay_run(tape, conditions_at(pipeline, asked, "8.6", tape), "8.6")
    ours = replay_run(found, conditions_at(pipeline, asked, "8.6", found), "8.6")
    for one, other in ((ours.low, theirs.low), (ours.expected, theirs.expected)):
        assert one.allocated_peak_bytes == other.allocated_peak_bytes
        assert one.reserved_peak_bytes == other.reserved_peak_bytes
        assert one.least_limit_bytes == other.least_limit_bytes


SD15 = {
    "kind": "pipeline",
    "class_path": "diffusers.StableDiffusionPipeline",
    "index": {
        "scheduler": ["diffusers", "PNDMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    },
    "schedulers": {"scheduler": {"skip_prk_steps": True, "steps_offset": 1}},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "more"),
    [("sd15", {"safety_checker": "off"}, SD15), ("llava-1.5-7b-hf", {"new_tokens": 40}, {})],
)
def test_what_a_recipe_recorded_takes_as_much_without_one(name, settings, more) -> None:
    """Single small tensors may live otherwise: a recipe's inputs are not all a pipeline's own."""
    catalog = open_catalog()
    pipeline = open_entry(catalog.pipelines[name], catalog.folders)
    tape = open_tape(find_tape(pipeline))
    asked = {**pipeline.defaults, **settings}
    parts = tuple(
        SavedPart(
            name=spec.name,
            class_path=spec.class_path,
            config=json.loads(json.dumps(dict(spec.config))),
            elements=tape.components[spec.name].parameters,
        )
        for spec in pipeline.components
        if asked.get(spec.name) != "off"
    )
    said = {
        "name": name, "kind": "model", "class_path": parts[0].class_path, "index": {},
        "schedulers": {}, "dtype": asked["dtype"], "kernel": "flash", "batch": asked["batch"],
        "image": asked.get("image"), "frames": None,
        "prompt_tokens": asked.get("prompt_tokens", 0),
    }  # fmt: skip
    text = recording_child.record(Request(**{**said, **more, "parts": parts}), lambda _: None)
    found = parse_tape(text, name)
    theirs = replay_run(tape, conditions_at(pipeline, asked, "8.6", tape), "8.6").expected
    ours = replay_run(found, conditions_at(pipeline, asked, "8.6", found), "8.6").expected
    assert ours.reserved_peak_bytes == theirs.reserved_peak_bytes
    assert ours.least_limit_bytes == theirs.least_limit_bytes
    assert abs(ours.allocated_peak_bytes - theirs.allocated_peak_bytes) <= 32768


# ------------------------------------------------------------------------ what is refused
def part(config, elements: int = 1000, cls: str = "transformers.Qwen2ForCausalLM") -> SavedPart:
    return SavedPart(name="model", class_path=cls, config=config, elements=elements)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**TEXT, "auto_map": {"AutoModel": "x--y"}}, "auto_map"),
        ({**TEXT, "text_config": {"auto_map": {"a": "b"}}}, "auto_map"),
        ({**TEXT, "num_hidden_layers": 10**9}, "a number beyond"),
        ({**TEXT, "num_hidden_layers": 10**5}, "far more than its files hold"),
        ({**TEXT, "vocab_size": 10**8}, "far more than its files hold"),
        (TEXT, "and its files have 1,000"),
        ({**TEXT, "hidden_size": "wide"}, "model: "),
        ({**TEXT, "num_attention_heads": 0}, "model: "),
    ],
)
def test_a_config_that_builds_another_model_is_refused(config, said: str) -> None:
    with pytest.raises(RecordingError) as refusal:
        build_part(part(config), BF16)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_tensor_that_many_share_is_counted_once() -> None:
    ties = {**T5, "vocab_size": 400_000, "num_layers": 1, "tie_word_embeddings": True}
    config = transformers.T5Config(**ties)
    with torch.device("meta"):
        elements = sum(
            p.numel() for p in transformers.T5ForConditionalGeneration(config).parameters()
        )
    cls = "transformers.T5ForConditionalGeneration"
    module = build_part(part(config.to_dict(), elements, cls), BF16)
    assert sum(p.numel() for p in module.parameters()) == elements


def test_only_classes_of_the_libraries_are_built() -> None:
    from vramplan.errors import CatalogError

    for path in (
        "os.system",
        "transformers.utils.logging",
        "torch.nn.Linear",
        "diffusers.FluxPipeline",
    ):
        with pytest.raises((RecordingError, CatalogError)):
            build_part(part({}, cls=path), BF16)


def test_what_whoever_loads_it_decides_is_not_a_configs_to_say() -> None:
    told = {"dtype": "float16", "attn_implementation": "someone/kernels"}
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default"}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    config = {
        "text_config": {**TEXT, **told, "rope_scaling": rope},
        "vision_config": {**vision, "out_hidden_size": 32, **told},
        **told,
    }
    cls = transformers.Qwen2_5_VLForConditionalGeneration
    plain = {
        k: {n: v for n, v in c.items() if n not in told} for k, c in config.items() if k not in told
    }
    elements = sum(one.numel() for one in small(cls, **plain).parameters())
    path = "transformers.Qwen2_5_VLForConditionalGeneration"
    built = build_part(part(config, elements, path), BF16)
    assert {one.dtype for one in built.parameters()} == {BF16}


def test_a_part_that_is_no_tokenizer_is_not_made() -> None:
    for name in ("Trainer", "TrainingArguments", "pipeline"):
        with pytest.raises(RecordingError, match="no stand-in"):
            stand_in(f"transformers.{name}", {})


def test_numbers_of_the_device_make_a_tensor_of_the_host() -> None:
    """``torch.Tensor([...])``, as schedulers write tables of sigmas, switches every mode off."""
    with cuda_asked_for("flash"), WrappedDevice(Stream("main", {}), set()), Functions("flash"):
        sigmas = torch.tensor([3.0, 2.0]).to(CUDA)
        made = torch.Tensor([0.5 * one for one in sigmas])
    assert not isinstance(made, OnDevice)
    assert made.tolist() == [1.5, 1.0]


def test_a_generator_of_the_device_can_be_made_where_there_is_no_gpu() -> None:
    torchs_own = torch.Generator
    with cuda_asked_for("flash"), WrappedDevice(Stream("main", {}), set()) as device:
        drawn = torch.Generator(device="cuda").manual_seed(3)
        assert (drawn.device.type, drawn.initial_seed()) == ("cuda", 3)
        assert isinstance(drawn, torch.Generator)
        assert isinstance(torch.default_generator, torch.Generator)
        assert torch.Generator().device.type == "cpu"
        noise = torch.randn(5, generator=drawn, device="cuda")
        noise.normal_(generator=drawn)
    assert [e.size_bytes for e in device.stream.events if isinstance(e, Alloc)] == [20]
    assert torch.Generator is torchs_own


@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
def test_one_of_chances_that_nobody_has_can_be_drawn(place: str) -> None:
    with cuda_asked_for("flash"), WrappedDevice(Stream("main", {}), set()), Functions("flash"):
        chances = torch.zeros(2, 5).to(place)
        drawn = torch.multinomial(chances, 1).cpu()
    assert drawn.shape == (2, 1)
    assert ((drawn >= 0) & (drawn < 5)).all()


def test_a_number_of_the_device_is_written_as_one() -> None:
    with WrappedDevice(Stream("main", {}), set()), Functions("flash"):
        assert f"expert_{torch.tensor(3).to(CUDA)}" == "expert_3"
        assert "(2,)" in f"{torch.zeros(2).to(CUDA)}"


def test_a_part_of_two_modules_is_placed_once() -> None:
    part = torch.nn.Linear(4, 4)
    modules = torch.nn.Sequential(part), torch.nn.ModuleList([part, torch.nn.Linear(4, 2)])
    placed = place_on_device(modules)
    assert len(placed) == 4
    assert type(part.weight.content) is not type(part.weight)


def test_a_pipeline_with_a_mask_is_given_an_image_and_a_batch_of_images_without_prompts() -> None:
    class FillsWhatIsMasked:
        def __call__(self, prompt=None, image=None, mask_image=None):
            """Take an image, as `arguments` reads it of the signature."""

    class MakesItMove:
        def __call__(self, image):
            """Take images alone."""

    request = dataclasses.replace(REQUEST, image=(64, 32), batch=2)
    filled = whole_pipeline.arguments(request, FillsWhatIsMasked())
    assert filled["image"].size == filled["mask_image"].size == (64, 32)
    assert len(filled["prompt"]) == 2
    moved = whole_pipeline.arguments(request, MakesItMove())
    assert [one.size for one in moved["image"]] == [(64, 32)] * 2


def test_a_stand_in_has_the_special_tokens_that_a_processor_of_its_family_asks_for() -> None:
    of(transformers, "GlmImageProcessor")
    made = stand_in("transformers.GlmImageProcessor", {})
    assert made.tokenizer.grid_bos_token == "<|grid_bos|>"
    assert made.tokenizer("<|grid_bos|>").input_ids[-1] == made.tokenizer.grid_bos_token_id


def test_an_empty_prompt_is_a_token_where_prompts_begin_with_one() -> None:
    """Else there is nothing to pad, and to embed."""
    assert stand_in("transformers.LlamaTokenizer", {})("").input_ids == [1]
    assert stand_in("transformers.Qwen2Tokenizer", {})("").input_ids == []


def test_a_stand_in_has_special_tokens_where_its_model_looks_for_them() -> None:
    """A model counts the tokens of its images by their number."""
    ids = {"image_token_id": 151655, "vision_start_token_id": 2, "video_token_id": -5}
    made = stand_in("transformers.Qwen2Tokenizer", ids)
    assert made("<|vision_start|><|image_pad|>a").input_ids[:2] == [2, 151655]
    assert made.image_token_id == 151655
    known = made.get_vocab()
    assert len(set(known.values())) == len(known)


def test_prompts_need_no_library_that_reads_images(monkeypatch) -> None:
    def lacks(*_):
        raise ImportError("requires the Torchvision library")

    monkeypatch.setattr(stand_ins, "find_class", lambda _: lacks)
    made = stand_in("transformers.PixtralProcessor", {})
    asked = [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]
    assert "a cat" in made.apply_chat_template(asked, tokenize=False)
    with pytest.raises(RecordingError, match="Torchvision"):
        stand_in("transformers.PixtralImageProcessor", {})


def test_a_spectrum_is_laid_out_as_its_model_takes_it() -> None:
    """Whisper's kind wants its bins first, others one frame after the other."""
    config = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "vocab_size": 64, "num_conv_layers": 1, "conv_kernel_sizes": (3,), "conv_channels": 64,
    }  # fmt: skip
    recorded = record({"model": small(transformers.Speech2TextForConditionalGeneration, **config)})
    assert recorded.is_generation
