"""Models that diffusers and transformers saved: what is read of them, and which tape they get."""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vramplan.ask.targets import find_target, make_jobs, open_catalog
from vramplan.engines import door
from vramplan.engines.torch.counted_model import CountedPart
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.errors import SourceError
from vramplan.model import Origin
from vramplan.sources.saved_model import LocalFiles, read_saved_folder

sys.path.insert(0, str(Path(__file__).parents[1]))

import saved_models as saved  # after the path

CARD = next(card for card in open_catalog().cards.values() if card.name == "rtx-3090")


def opened(place: Path | str) -> tuple[TorchPipeline, list[str]]:
    said: list[str] = []
    found = find_target(str(place), open_catalog(), None, said.append)
    assert isinstance(found, TorchPipeline)
    return found, said


def need(target: str, **settings: object):
    (job,) = make_jobs([target], open_catalog(), settings)
    return door.engine_of(job.pipeline).estimate(job, CARD).need.band


def test_a_pipelines_schedulers_are_read(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "sd15")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"steps_offset": 1}')
    found = read_saved_folder(LocalFiles(folder))
    assert found.schedulers == {"scheduler": {"steps_offset": 1}}


# ------------------------------------------------------------------ the catalogue's architectures
@pytest.mark.parametrize("name", ["sd15", "sdxl", "llava-1.5-7b-hf", "vit-mae-base", "sd15-vae"])
def test_a_fine_tune_is_answered_by_its_architectures_tape(tmp_path, name) -> None:
    found, said = opened(saved.save(tmp_path / "mine", name))
    assert (found.name, found.counted) == ("mine", None)
    assert f"the catalogue's {name}" in said[0]
    assert need(str(tmp_path / "mine")) == need(name, dtype="fp16")


def test_it_is_taken_in_the_dtype_of_its_files(tmp_path) -> None:
    found, said = opened(saved.save(tmp_path / "mine", "sd15", "F32"))
    assert found.defaults["dtype"] == "fp32"
    assert "torch_dtype" not in said[0]
    found, said = opened(saved.save(tmp_path / "other", "sd15", "BF16"))
    assert found.defaults["dtype"] == "bf16"
    assert "torch_dtype=torch.bfloat16" in said[0]


def test_what_its_configs_say_becomes_its_settings(tmp_path) -> None:
    folder = saved.save(
        tmp_path / "mine", "sdxl", vae={"force_upcast": False}, unet={"sample_size": 96}
    )
    found, _ = opened(folder)
    assert (found.defaults["vae_upcast"], found.defaults["image"]) == ("off", (768, 768))
    found, _ = opened(saved.save(tmp_path / "odd", "sdxl", unet={"sample_size": True}))
    assert found.defaults["image"] == (1024, 1024)


def test_a_pipeline_without_its_safety_checker_is_the_same(tmp_path) -> None:
    found, _ = opened(saved.save(tmp_path / "mine", "sd15", without=["safety_checker"]))
    assert found.counted is None
    assert found.defaults["safety_checker"] == "off"


def test_without_another_component_it_is_not(tmp_path) -> None:
    found, said = opened(saved.save(tmp_path / "mine", "sd15", without=["vae"]))
    assert found.counted is not None
    assert "there is no tape" in said[0]


@pytest.mark.parametrize(("name", "layout"), [("sd15", saved.LAYOUT), ("sdxl", saved.LAYOUT_XL)])
def test_a_single_file_is_known_by_its_tensors(tmp_path, name, layout) -> None:
    found, said = opened(saved.save_checkpoint(tmp_path / "merge.safetensors", name, layout))
    assert (found.name, found.counted) == ("merge", None)
    assert f"the catalogue's {name}" in said[0]
    assert found.defaults.get("safety_checker", "off") == "off"


@pytest.mark.parametrize(
    "name", ["flux1-dev", "llama-3.1-8b", "whisper-small", "qwen-image-vae", "bge-m3"]
)
def test_a_fine_tune_of_an_entry_recorded_by_the_generic_recorder_has_its_tape(
    tmp_path, name
) -> None:
    of = open_catalog().pipelines[name]
    dtype = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}[str(of.defaults["dtype"])]
    _, said = opened(saved.save(tmp_path / "mine", name, dtype))
    assert f"the catalogue's {name}" in said[0]
    assert need(str(tmp_path / "mine")) == need(name)


@pytest.mark.parametrize(
    ("name", "configs"),
    [
        ("flux1-dev", {"text_encoder_2": {"tie_word_embeddings": True}}),
        ("sana-1.6b", {"text_encoder": {"sliding_window": 4096}}),
        ("gpt-oss-20b", {"model": {"sliding_window": 128}}),
    ],
)
def test_what_its_class_says_by_itself_makes_it_no_other(tmp_path, name, configs) -> None:
    """As transformers writes configs: T5's ties its words, Gemma 2's has its window."""
    _, said = opened(saved.save(tmp_path / "mine", name, "BF16", **configs))
    assert f"the architecture of the catalogue's {name}" in said[0]


def test_of_pipelines_with_the_same_tensors_configs_and_names_tell_which(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "z-image", "BF16")
    (folder / "scheduler").mkdir()
    for shift, name, other in (
        (3.0, "z-image-turbo", "z-image"),
        (6.0, "z-image", "z-image-turbo"),
    ):
        (folder / "scheduler" / "scheduler_config.json").write_text(f'{{"shift": {shift}}}')
        _, said = opened(folder)
        assert f"the catalogue's {name} (or {other}: name that instead)" in said[0]
    for name, of in (("finetuning", "sdxl"), ("my-sdxl-turbo", "sdxl-turbo")):
        path = saved.save_checkpoint(tmp_path / f"{name}.safetensors", "sdxl", saved.LAYOUT_XL)
        assert f"the catalogue's {of} (or " in opened(path)[1][0]
    told = {"sample_size": 1024, "scaling_factor": 0.13025}
    _, said = opened(saved.save(tmp_path / "vae", "sd15-vae", vae=told))
    assert "the catalogue's sdxl-vae (or sd15-vae" in said[0]
    tensors = saved.tensors_of(saved.sizes("wan-vae", in_fp32=True)["vae"], "BF16")
    for name in ("wan", "qwen-image"):
        _, said = opened(saved.write(tmp_path / f"{name}_vae.safetensors", tensors))
        assert f"the catalogue's {name}-vae (or" in said[0]


def test_what_is_tied_is_counted_once(tmp_path) -> None:
    """Files of T5 for image programs have its words twice, and some language models their head."""
    words = ("encoder.embed_tokens.weight", "F16", (32, 16))
    path = tmp_path / "t5xxl_fp16.safetensors"
    saved.write(path, [("shared.weight", "F16", (32, 16)), words, ("a.weight", "F16", (4, 4))])
    assert [part.parameters for part in counted(path)] == [32 * 16 + 16]
    folder = saved.save(tmp_path / "mine", "vit-mae-base")
    tensors = [("model.embed_tokens.weight", "F16", (32, 16)), ("lm_head.weight", "F16", (32, 16))]
    saved.write(folder / "model.safetensors", tensors)
    for tied, elements in ((True, 512), (False, 1024)):
        told = {"architectures": ["XForCausalLM"], "text_config": {"tie_word_embeddings": tied}}
        (folder / "config.json").write_text(json.dumps(told))
        assert [part.parameters for part in counted(folder)] == [elements]


def test_who_quantised_weights_is_said_and_not_that_files_are_in_half_precision(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "vit-mae-base")
    tensors = [("a.weight", "U8", (512, 1)), ("a.weight.absmax", "U8", (16,))]
    saved.write(folder / "model.safetensors", [*tensors, ("words.weight", "BF16", (4096, 1))])
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    (said, *_) = opened(folder)[1]
    assert "those quantised as they are in its files (bitsandbytes), the others in bf16" in said
    path = saved.write(tmp_path / "t5_fp8.safetensors", [("a.weight", "F8_E4M3", (512, 1))])
    assert "as they are in its files (f8_e4m3), the others in fp16" in opened(path)[1][0]


def counted(place: Path) -> tuple[CountedPart, ...]:
    found = opened(place)[0].counted
    assert found is not None
    return found.parts


def test_a_single_files_encoders_and_autoencoder_are_counted_too(tmp_path) -> None:
    """As image programs put everything into one file, and of no catalogued denoiser."""
    path = saved.write(
        tmp_path / "all_in_one.safetensors",
        [
            ("model.diffusion_model.a.weight", "F16", (1000, 100)),
            ("text_encoders.t5xxl.transformer.b.weight", "F8_E4M3", (500, 100)),
            ("text_encoders.t5xxl.logit_scale", "F32", (1,)),
            ("text_encoders.qwen3_4b.transformer.b.weight", "F16", (300, 100)),
            ("vae.decoder.c.weight", "F16", (200, 100)),
            ("vocoder.d.weight", "F16", (2000, 1000)),
            ("betas", "F32", (1000,)),
            ("model_ema.a", "F32", (1000, 100)),
        ],
    )
    found = {part.name: part.parameters for part in counted(path)}
    assert found == {
        "unet": 100_000,
        "text_encoder_3": 50_000,
        "text_encoder_qwen3_4b": 30_000,
        "vae": 20_000,
        "vocoder": 2_000_000,
    }


def test_a_part_that_is_loaded_in_a_dtype_of_its_own_is_so_in_a_fine_tune_too(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "wan2.1-t2v-1.3b", "BF16", in_fp32=True)
    _, said = opened(folder)
    assert "the catalogue's wan2.1-t2v-1.3b" in said[0]
    assert "its vae in fp32" in said[0]
    assert need(str(folder)) == need("wan2.1-t2v-1.3b")


def test_it_is_counted_from_its_own_files_in_a_dtype_that_nobody_recorded(tmp_path) -> None:
    found, _ = opened(saved.save(tmp_path / "mine", "whisper-small", "F32"))
    assert found.defaults["dtype"] == "fp32"
    assert found.counted is not None
    assert found.counted.counted_from == "the headers of its files"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama-3.1-8b", {"num_attention_heads": 64}),
        ("mistral-7b-v0.3", {"sliding_window": 4096}),
        ("qwen2.5-7b", {"sliding_window": 4096, "use_sliding_window": True}),
        ("gemma-3-4b", {"text_config": {"sliding_window": 512}}),
    ],
)
def test_the_same_sizes_worked_with_otherwise_are_another_architecture(
    tmp_path, name, config
) -> None:
    assert (
        "there is no tape" in opened(saved.save(tmp_path / "m", name, "BF16", model=config))[1][0]
    )
    found = opened(saved.save(tmp_path / "same", name, "BF16", model={"rope_theta": 1e6}))[1]
    assert f"the catalogue's {name}" in found[0]


def test_one_tensor_of_another_size_is_another_architecture(tmp_path) -> None:
    """An inpainting UNet takes nine channels where another takes four."""
    folder = saved.save(tmp_path / "mine", "sd15")
    counts = [
        25_920 if number == 0 else count for number, count in enumerate(saved.sizes("sd15")["unet"])
    ]
    saved.write(folder / "unet" / "model.safetensors", saved.tensors_of(counts))
    assert opened(folder)[0].counted is not None


def test_weights_in_fp8_that_no_config_keeps_so_are_cast_when_they_are_loaded(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "sd15")
    counts = saved.sizes("sd15")["unet"]
    saved.write(folder / "unet" / "model.safetensors", saved.tensors_of(counts, "F8_E4M3"))
    (unet,) = (part for part in counted(folder) if part.name == "unet")
    assert unet.bytes_at(2) == 2 * sum(counts)
    assert unet.quantised is None
    path = saved.write(tmp_path / "t5_fp8.safetensors", [("a.weight", "F8_E4M3", (512, 100))])
    (alone,) = counted(path)  # image programs keep it so
    assert alone.bytes_at(2) == alone.bytes_at(4) == 512 * 100


def quantised(place: Path, said: dict[str, object], tensors: Sequence[saved.Described]) -> Path:
    words = ("model.embed_tokens.weight", "BF16", (1000, 256))
    saved.write(place / "model.safetensors", [words, *tensors])
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000}
    key = "quantization_config" if "quant_method" in said else "quantization"
    (place / "config.json").write_text(json.dumps(config | {key: said}))
    return place


_LAYER = "model.layers.0.mlp.up_proj"
_ROWS, _COLUMNS = 512, 256
_WEIGHTS = _ROWS * _COLUMNS


@pytest.mark.parametrize(
    ("said", "tensors", "held"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            [
                ("qweight", "I32", (_COLUMNS // 8, _ROWS)),
                ("qzeros", "I32", (2, _ROWS // 8)),
                ("scales", "F16", (2, _ROWS)),
                ("g_idx", "I32", (_COLUMNS,)),
            ],
            _WEIGHTS // 2 + _ROWS + 4 * _ROWS + 4 * _COLUMNS,
        ),
        (
            {"quant_method": "awq", "w_bit": 4},
            [
                ("qweight", "I32", (_COLUMNS, _ROWS // 8)),
                ("qzeros", "I32", (2, _ROWS // 8)),
                ("scales", "F16", (2, _ROWS)),
            ],
            _WEIGHTS // 2 + _ROWS + 4 * _ROWS,
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            [
                ("weight", "U8", (_WEIGHTS // 2, 1)),
                ("weight.absmax", "F32", (_WEIGHTS // 64,)),
                ("weight.quant_map", "F32", (16,)),
                ("weight.quant_state.bitsandbytes__nf4", "U8", (90,)),  # JSON: for the host
            ],
            _WEIGHTS // 2 + _WEIGHTS // 16 + 64,
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            [
                ("weight", "I8", (_ROWS, _COLUMNS)),
                ("SCB", "F32", (_ROWS,)),
                ("weight_format", "U8", ()),
            ],
            _WEIGHTS + 4 * _ROWS,
        ),
        (
            {"quant_method": "fp8"},
            [
                ("weight", "F8_E4M3", (_ROWS, _COLUMNS)),
                ("weight_scale_inv", "F32", (_ROWS // 128, _COLUMNS // 128)),
            ],
            _WEIGHTS + 4 * _WEIGHTS // 128**2,
        ),
        (
            {"quant_method": "mxfp4"},
            [
                ("gate_up_proj_blocks", "U8", (_ROWS, _COLUMNS // 32, 16)),
                ("gate_up_proj_scales", "U8", (_ROWS, _COLUMNS // 32)),
                ("gate_up_proj_bias", "BF16", (0,)),
            ],
            _WEIGHTS // 2 + _WEIGHTS // 32,
        ),
        (
            {"quant_method": "modelopt"},
            [
                ("weight", "U8", (_ROWS, _COLUMNS // 2)),
                ("weight_scale", "F8_E4M3", (_ROWS, _COLUMNS // 16)),
                ("weight_scale_2", "F32", ()),
            ],
            _WEIGHTS // 2 + _WEIGHTS // 16 + 4,
        ),
        (
            {"quant_method": "fp8"},
            [  # two numbers of four bits in a byte, as DeepSeek's experts
                ("weight", "I8", (_ROWS, _COLUMNS // 2)),
                ("qscale_weight", "F32", (_ROWS, _COLUMNS // 32)),
            ],
            _WEIGHTS // 2 + 4 * _WEIGHTS // 32,
        ),
        (
            {"bits": 4, "group_size": 64},  # MLX names no way
            [
                ("weight", "U32", (_ROWS, _COLUMNS // 8)),
                ("scales", "BF16", (_ROWS, _COLUMNS // 64)),
                ("biases", "BF16", (_ROWS, _COLUMNS // 64)),
            ],
            _WEIGHTS // 2 + 4 * _WEIGHTS // 64,
        ),
    ],
)
def test_packed_weights_are_as_many_as_before_and_their_scales_keep_their_types(
    tmp_path, said, tensors, held
) -> None:
    """A stranger's sum: scales in fp32 were counted in bf16, and packed bytes as parameters."""
    named = [(f"{_LAYER}.{name}", *rest) for name, *rest in tensors]
    (part,) = counted(quantised(tmp_path / "mine", said, named))
    words = 1000 * 256
    assert part.bytes_at(2) == 2 * words + held
    assert part.parameters == words + _WEIGHTS


def test_a_config_that_says_dequantize_has_weights_unpacked_on_every_card(tmp_path) -> None:
    said = {"quant_method": "mxfp4", "dequantize": True}
    tensors = [
        (f"{_LAYER}_blocks", "U8", (_ROWS, _COLUMNS // 32, 16)),
        (f"{_LAYER}_scales", "U8", (_ROWS, _COLUMNS // 32)),
    ]
    folder = quantised(tmp_path / "mine", said, tensors)
    (part,) = counted(folder)
    assert part.on("12.0").bytes_at(2) == 2 * (1000 * 256 + _WEIGHTS)
    assert "its config has transformers unpack them" in opened(folder)[1][0]


@pytest.mark.parametrize(
    ("method", "below", "enough"), [("fp8", "8.6", "8.9"), ("mxfp4", "7.0", "7.5")]
)
def test_a_card_that_has_no_such_numbers_holds_them_unpacked(
    tmp_path, run, monkeypatch, method, below, enough
) -> None:
    monkeypatch.setenv("VRAMPLAN_RECORD", "off")
    tensors = [
        (f"{_LAYER}.weight", "F8_E4M3", (_ROWS, _COLUMNS)),
        (f"{_LAYER}.weight_scale_inv", "F32", (4, 2)),
    ]
    if method == "mxfp4":
        tensors = [
            (f"{_LAYER}_blocks", "U8", (_ROWS, _COLUMNS // 32, 16)),
            (f"{_LAYER}_scales", "U8", (_ROWS, _COLUMNS // 32)),
        ]
    folder = quantised(tmp_path / "mine", {"quant_method": method}, tensors)
    (part,) = counted(folder)
    assert part.on(enough) is part
    assert part.on(below).bytes_at(2) == 2 * (1000 * 256 + _WEIGHTS)
    assert f"below compute capability {enough}" in opened(folder)[1][0]
    card = {"8.6": "rtx-3090", "7.0": "v100-16gb"}[below]
    (shown,) = run("estimate", folder, "--card", card, "--json").json["result"]["components"]
    assert shown["weights_bytes"] == 2 * (1000 * 256 + _WEIGHTS)
    assert shown["dtype"] == "bf16"


def test_a_way_of_quantising_that_transformers_does_not_know_is_said(tmp_path) -> None:
    tensors = [(f"{_LAYER}.weight", "U8", (_ROWS, _COLUMNS // 2))]
    for method in ("modelopt", "nvfp4"):  # transformers quantises to nvfp4, and loads none
        folder = quantised(tmp_path / method, {"quant_method": method}, tensors)
        assert f"transformers does not load weights of {method}" in opened(folder)[1][0]


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_transformers_loads_in_the_dtype_that_a_config_names_whatever_its_files(
    tmp_path, key
) -> None:
    folder = tmp_path / "half"
    saved.write(folder / "model.safetensors", [("model.embed_tokens.weight", "F16", (1000, 64))])
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", key: "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    found, said = opened(folder)
    assert found.defaults["dtype"] == "fp32"
    assert "in fp32, as its config says (its files are in fp16)" in said[0]
    (folder / "config.json").write_text(json.dumps(config | {key: "of mine"}))
    assert opened(folder)[0].defaults["dtype"] == "fp16"


@pytest.mark.parametrize(
    ("kind", "columns", "name", "bits"),
    [("I32", 256 // 8, "weight_packed", 4), ("F8_E4M3", 256, "weight", 8)],
)
def test_what_compressed_tensors_packed_is_counted_as_the_first_call_unpacks_it(
    tmp_path, kind, columns, name, bits
) -> None:
    folder = tmp_path / "packed"
    layer = "model.layers.0.mlp.up_proj"
    tensors = [
        ("model.embed_tokens.weight", "BF16", (1000, 256)),
        (f"{layer}.{name}", kind, (512, columns)),
        (f"{layer}.weight_scale", "BF16", (512, 2)),
        (f"{layer}.weight_shape", "I64", (2,)),
    ]
    saved.write(folder / "model.safetensors", tensors)
    config: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    weights = {"num_bits": bits, "strategy": "group", "group_size": 128}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    said = {"quant_method": "compressed-tensors", "config_groups": groups}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    found, remarks = opened(folder)
    assert found.counted is not None
    (part,) = found.counted.parts
    # findings/compressed-tensors-unpacks-for-good.sh: scales and shapes stay beside the weights
    assert part.bytes_at(2) == 2 * (1000 * 256 + 512 * 256 + 512 * 2) + 16
    assert part.quantised is None
    assert "unpacks what compressed-tensors packed" in remarks[0]
    assert "quantization" not in found.defaults
    (folder / "config.json").write_text(json.dumps(config))  # what nobody says how to unpack
    found, _ = opened(folder)
    assert found.counted is not None
    size = 512 * columns * (4 if kind == "I32" else 2)  # fp8 is cast then
    assert found.counted.parts[0].bytes_at(2) == 2 * (1000 * 256 + 512 * 2) + size + 16


def test_what_is_of_no_known_class_is_counted_and_says_so(tmp_path, run) -> None:
    folder = tmp_path / "qwen"
    tensors = [("model.embed_tokens.weight", "BF16", (1000, 64)), ("w", "BF16", (1 << 20, 64))]
    saved.write(folder / "model-00001-of-00002.safetensors", tensors[:1])
    saved.write(folder / "model-00002-of-00002.safetensors", tensors[1:])
    config = {
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1000,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (job,) = make_jobs([str(folder)], open_catalog(), {})
    found = door.engine_of(job.pipeline).estimate(job, CARD)
    origins = {line.name: line.origin for line in found.lines}
    assert (origins["weights"], origins["activations"]) == (Origin.EXACT, Origin.ASSUMED)
    assert found.components[0].weights_bytes == 2 * (64_000 + (64 << 20))
    # keys and values of four layers, two heads of eight, 768 tokens, in two bytes
    assert found.bytes_of(found.lines[1].kind) > 2 * 4 * 2 * 8 * 768 * 2
    said = run("check", folder, "--card", "8gb")
    assert "its weights are counted, the rest is assumed" in " ".join(said.out.split())
    assert "no tape of Qwen2ForCausalLM" in said.err


@pytest.mark.parametrize(
    ("dtype", "wide"), [("fp16", 4), ("bf16", 2), ("fp32", 4)], ids=["fp16", "bf16", "fp32"]
)
def test_what_t5_keeps_in_fp32_is_counted_so(tmp_path, monkeypatch, dtype, wide) -> None:
    """transformers 5.23.0: `wo` stays in fp32 where the rest is loaded in fp16, a third of a T5."""
    monkeypatch.setenv("VRAMPLAN_RECORD", "off")
    names = ("encoder.block.0.layer.1.DenseReluDense.wo.weight", "shared.weight")
    saved.write(tmp_path / "model.safetensors", [(name, "BF16", (512, 1000)) for name in names])
    (tmp_path / "config.json").write_text('{"architectures": ["T5EncoderModel"]}')
    (job,) = make_jobs([str(tmp_path)], open_catalog(), {"dtype": dtype})
    found = door.engine_of(job.pipeline).estimate(job, CARD)
    rest = 4 if dtype == "fp32" else 2
    assert found.components[0].weights_bytes == 512_000 * (wide + rest)
    assert found.lines[0].band.expected_bytes == 512_000 * (wide + rest)
    assert found.lines[0].origin is Origin.EXACT


@pytest.mark.parametrize(("dtype", "origin"), [("bf16", Origin.ASSUMED), ("fp32", Origin.EXACT)])
def test_exact_is_not_said_of_a_class_that_keeps_modules_in_fp32(
    tmp_path, monkeypatch, dtype, origin
) -> None:
    monkeypatch.setenv("VRAMPLAN_RECORD", "off")
    saved.write(tmp_path / "diffusion_pytorch_model.safetensors", [("a", "BF16", (64, 64))])
    config = '{"_class_name": "WanTransformer3DModel", "_diffusers_version": "0.42.1"}'
    (tmp_path / "config.json").write_text(config)
    (job,) = make_jobs([str(tmp_path)], open_catalog(), {"dtype": dtype})
    found = door.engine_of(job.pipeline).estimate(job, CARD)
    assert found.lines[0].origin is origin


def test_weights_beside_their_config_stand_for_the_folder(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "vit-mae-base")
    found, _ = opened(folder / "model.safetensors")
    assert (found.name, found.counted) == ("mine", None)


def test_model_offload_holds_one_component_at_a_time(tmp_path) -> None:
    folder = saved.save(tmp_path / "mine", "sdxl", without=["text_encoder"])
    whole, one = need(str(folder)), need(str(folder), offload="model")
    parts = {part.name: part.bytes_at(2) for part in opened(folder)[0].counted.parts}
    assert whole.expected_bytes - one.expected_bytes == sum(parts.values()) - parts["unet"]


# --------------------------------------------------------------------------------------- bad input
def refused(run, place: Path) -> str:
    result = run("check", place, "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    assert len(result.error.splitlines()) <= 2
    return result.error


def test_pickles_are_not_opened(tmp_path, run) -> None:
    folder = saved.save(tmp_path / "mine", "sd15")
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "model.bin")
    said = run("check", folder)
    assert "model.bin: not read" in said.error
    assert "save_pretrained" in said.hint


def test_a_missing_part_is_named(tmp_path, run) -> None:
    folder = saved.save(tmp_path / "mine", "vit-mae-base")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    assert "1 of 3 parts" in refused(run, folder)


def test_an_index_names_the_parts_however_they_are_called(tmp_path, run) -> None:
    folder = saved.save(tmp_path / "mine", "vit-mae-base")
    whole = saved.tensors_of(next(iter(saved.sizes("vit-mae-base").values())))
    (folder / "model.safetensors").unlink()
    parts = [f"model.safetensors-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    for part, tensors in zip(parts, (whole[:90], whole[90:]), strict=True):
        saved.write(folder / part, tensors)
    index = folder / "model.safetensors.index.json"
    told = {name: parts[number >= 90] for number, (name, _, _) in enumerate(whole)}
    index.write_text(json.dumps({"weight_map": told}))
    assert "the catalogue's vit-mae-base" in opened(folder)[1][0]
    (folder / parts[1]).unlink()
    assert "1 of 2 parts of its weights are there, by its model.safetensors" in refused(run, folder)
    assert run("check", folder, "--card", "8gb").hint == f"{parts[1]} is missing"
    for said, message in (
        ({}, "no weight_map"),
        ({"weight_map": {"a": "../../x.safetensors"}}, "not a file of weights beside it"),
        ({"weight_map": {"a": 1}}, "not a file of weights beside it"),
    ):
        index.write_text(json.dumps(said))
        assert message in refused(run, folder)


@pytest.mark.parametrize("name", ["controlnet_cond_embedding.a", "control_model.zero_convs.0.a"])
def test_a_controlnet_alone_says_what_plans_both(tmp_path, name) -> None:
    path = saved.write(tmp_path / "canny.safetensors", [(name, "F16", (64, 64))])
    assert f"'sdxl[controlnet={path}]' plans both, where it is SDXL's" in opened(path)[1][1]
    assert not opened(saved.write(tmp_path / "other.safetensors", [("a", "F16", (8, 8))]))[1][1:]


def test_a_folder_of_models_names_them(tmp_path, run) -> None:
    folder = saved.save(tmp_path / "models" / "mine", "vit-mae-base")
    assert "no model itself, but some are in it" in refused(run, tmp_path / "models")
    assert run("check", tmp_path / "models", "--card", "8gb").hint == f"name one: {folder}"


def test_a_folder_that_is_called_as_the_catalogues_model_is_said(
    tmp_path, run, monkeypatch
) -> None:
    saved.save(tmp_path / "sd15", "vit-mae-base")
    monkeypatch.chdir(tmp_path)
    result = run("check", "sd15", "--card", "8gb", "--format", "markdown")
    assert "sd15: the catalogue's; the folder is ./sd15" in result.err


def test_code_of_its_own_is_not_run(tmp_path, run) -> None:
    folder = saved.save(tmp_path / "mine", "vit-mae-base")
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    assert "auto_map" in refused(run, folder)


def test_a_lora_is_no_model(tmp_path, run) -> None:
    path = saved.write(
        tmp_path / "l.safetensors",
        [("a.lora_A.weight", "F16", (4, 8)), ("a.lora_B.weight", "F16", (8, 4))],
    )
    assert "a LoRA, no model by itself" in refused(run, path)
    assert run("check", path, "--card", "8gb").hint.endswith(f"this file with --set lora={path}")


@pytest.mark.parametrize(
    "names",
    [
        ("a.processor.to_q_lora.down.weight", "a.processor.to_q_lora.up.weight"),
        ("unet.a.to_q.lora.down.weight", "unet.a.to_q.lora_linear_layer.up.weight"),
        ("lora_unet_a.hada_w1_a", "lora_unet_a.hada_w2_b", "lora_unet_a.alpha"),
        ("lycoris_a.lokr_w1", "lycoris_a.lokr_w2_a"),
        ("diffusion_model.a.diff", "diffusion_model.a.diff_b"),
    ],
)
def test_other_adapters_are_no_models_either(tmp_path, run, names) -> None:
    tensors = [(name, "F16", (4, 8)) for name in names]
    path = saved.write(tmp_path / "l.safetensors", tensors)
    said = refused(run, path)
    assert "no model by itself" in said
    assert ("a LoRA," in said) == ("lora." in names[0]) == ("lora=" in run("check", path).hint)


def test_learnt_words_are_no_model(tmp_path, run) -> None:
    tensors = [("clip_l", "F16", (4, 768)), ("clip_g", "F16", (4, 1280))]
    path = saved.write(tmp_path / "words.safetensors", tensors)
    assert "an embedding (textual inversion)" in refused(run, path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{}", "names no component"),
        ('{"_class_name": "X", "../../etc": ["diffusers", "Y"]}', "not a component's name"),
        ('{"_class_name": 1, "vae": ["diffusers", "Y"]}', "names no class"),
        ("[]", "not an object"),
        ("{", "not JSON"),
    ],
)
def test_an_index_that_is_none(tmp_path, run, index, said) -> None:
    folder = saved.save(tmp_path / "mine", "sd15-vae")
    (folder / "vae").mkdir()
    saved.write(folder / "vae" / "model.safetensors", [("t", "F16", (4,))])
    (folder / "vae" / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(index)
    assert said in refused(run, folder)


def _file(head: object, rest: int = 0, length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(rest)


ONE = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"1234", "ends in its first 8 bytes"),
        (_file({}, length=1 << 40), "a header of"),
        (_file(b"{}", length=100), "a header of 100 bytes"),
        (_file(b"nothing"), "not JSON"),
        (_file([]), "no object"),
        (_file({"a": 1}), "not described"),
        (_file({"a": {**ONE, "dtype": "F17"}}, 8), "no element type"),
        (_file({"a": {**ONE, "shape": [-4]}}, 8), "no shape"),
        (_file({"a": {**ONE, "shape": [5]}}, 8), "in 8 bytes"),
        (_file({"a": {**ONE, "data_offsets": [8, 0]}}, 8), "in -8 bytes"),
        (_file({"a": ONE, "b": ONE}, 8), "overlaps"),
        (_file({"a": {**ONE, "data_offsets": [2, 10]}}, 10), "leaves a hole"),
        (_file({"a": ONE}, 9), "9 bytes of tensors for 8"),
        (_file({"a": {**ONE, "shape": [1 << 62] * 8}}, 8), "in 8 bytes"),
        (_file({}), "no tensors"),
    ],
)
def test_a_file_that_lies_is_one_line(tmp_path, run, data, said) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    assert said in refused(run, path)


# ----------------------------------------------------------------------------------------- the hub
class Hub(ThreadingHTTPServer):
    """A hub with one repository, which is a folder here."""

    folder: Path
    asked: list[tuple[str, str | None]]
    page: int
    elsewhere: str
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        root = self.server.folder
        if "/api/models/" in self.path:
            listed = [
                {"type": "file", "path": str(path.relative_to(root))}
                for path in sorted(root.rglob("*"))
                if path.is_file()
            ]
            self.list(listed)
            return
        path = root / self.path.partition("/resolve/main/")[2]
        if not path.is_file():
            self.reply(404, b"")
            return
        with path.open("rb") as file:
            if self.headers["Range"] is None:
                self.reply(200, file.read(1 << 20))
                return
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            file.seek(first)
            self.reply(206, file.read(last - first + 1))

    def list(self, listed: list[dict[str, str]]) -> None:
        """Answer with a page of them, and where it goes on."""
        first = int(self.path.partition("&cursor=")[2] or 0)
        last = first + self.server.page
        self.send_response(200)
        if last < len(listed):
            here = self.path.partition("&")[0]
            to = self.server.elsewhere or here
            self.send_header("Link", f'<{to}&cursor={last}>; rel="next"')
        self.end_headers()
        self.wfile.write(json.dumps(listed[first:last]).encode())

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Handler) as server:
        server.folder, server.asked = tmp_path / "there", []
        server.page, server.elsewhere = 1000, ""
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server
        server.shutdown()


def test_a_repository_is_answered_by_the_beginnings_of_its_files(hub) -> None:
    saved.save(hub.folder, "sd15", "BF16")
    found, said = opened("hf:org/fine-tune")
    assert (found.name, found.counted) == ("fine-tune", None)
    assert "hf:org/fine-tune: the architecture of the catalogue's sd15, in bf16" in said[0]
    ranges = [asked for path, asked in hub.asked if path.endswith(".safetensors")]
    assert ranges == ["bytes=0-262143"] * 4, "a header each, at once, and no data"


def test_a_list_of_files_is_read_to_its_last_page(hub, run) -> None:
    """The hub tells a thousand at once: what is on the next page is no part that is not there."""
    saved.save(hub.folder, "sd15", "BF16")
    hub.page = 3
    assert "the catalogue's sd15" in opened("hf:org/fine-tune")[1][0]
    hub.elsewhere = "http://elsewhere.example/list?"
    assert "goes on at another host" in refused(run, "hf:org/fine-tune")
    hub.elsewhere, hub.page = "", 0
    assert "more files than 100 pages" in refused(run, "hf:org/fine-tune")


def test_a_component_that_is_named_and_not_there_is_no_smaller_model(tmp_path, run) -> None:
    folder = saved.save(tmp_path / "mine", "sd15")
    for path in sorted((folder / "text_encoder").iterdir()):
        path.unlink()
    assert "text_encoder: not there, and model_index.json names it" in refused(run, folder)


def test_a_file_of_a_repository_is_read_as_one_here(hub, run, monkeypatch) -> None:
    saved.save_checkpoint(hub.folder / "a" / "merge.safetensors", "sd15", saved.LAYOUT)
    endpoint = os.environ["HF_ENDPOINT"]
    for target in ("hf:org/name:a/merge.safetensors", "hf:org/name"):
        found, said = opened(target)
        assert "the catalogue's sd15" in said[0]
        assert found.name in ("merge", "name")
    _, said = opened(f"{endpoint}/org/name/blob/main/a/merge.safetensors")
    assert "hf:org/name/a/merge.safetensors: the architecture" in said[0]
    tensors = [("a.lora_A.weight", "F16", (4, 8)), ("a.lora_B.weight", "F16", (8, 4))]
    saved.write(hub.folder / "b.safetensors", tensors)
    assert "name a file" in refused(run, "hf:org/name")
    told = run("check", "hf:org/name", "--card", "8gb").hint
    assert told == "hf:org/name:a/merge.safetensors, b.safetensors"
    told = run("check", "hf:org/name:b.safetensors", "--card", "8gb").hint
    assert told.endswith("--set lora=FILE, once it is here")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not in the local cache" in refused(run, "hf:org/name:b.safetensors")


def test_a_copy_in_the_cache_goes_before(hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceError, match="not in the local cache"):
        opened("hf:org/name")
    saved.save(tmp_path / "cache" / "hub" / "models--org--name" / "snapshots" / "1", "vit-mae-base")
    assert opened("hf:org/name")[0].counted is None
    assert hub.asked == []


def test_a_repository_of_other_files_is_left_to_the_readers_of_those(hub, run) -> None:
    hub.folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (hub.folder / name).write_bytes(b"")
    assert "name a file" in refused(run, "hf:org/name")
    (hub.folder / "b.gguf").unlink()
    assert "a.gguf: not a GGUF file, but an empty file" in refused(run, "hf:org/name")


def test_a_saved_model_may_be_loaded_in_four_bits(run, tmp_path, monkeypatch) -> None:
    """Its layers are told by names: tables, norms and the head stay as they are."""
    monkeypatch.setenv("VRAMPLAN_RECORD", "off")
    tensors = [
        ("model.embed_tokens.weight", "BF16", (256, 64)),
        ("model.layers.0.self_attn.q_proj.weight", "BF16", (64, 64)),
        ("model.layers.0.self_attn.q_proj.bias", "BF16", (64,)),
        ("model.norm.weight", "BF16", (64,)),
        ("lm_head.weight", "BF16", (256, 64)),
    ]
    saved.write(tmp_path / "mine" / "model.safetensors", tensors)
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 256}
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    words = ("estimate", tmp_path / "mine", "--card", "rtx-4090", "--json")
    plain = run(*words).json["result"]
    found = run(*words, "--set", "quantization=bnb-4bit").json["result"]
    (before,), (after,) = plain["components"], found["components"]
    assert after["dtype"] == "bnb-4bit"
    matrix = 64 * 64
    packed = matrix // 2 + matrix // 64 * 4 + 64
    assert before["weights_bytes"] - after["weights_bytes"] == 2 * matrix - packed
    (line,) = [line for line in found["terms"] if line["kind"] == "weights"]
    assert line["origin"] == "assumed"
    assert "names" in line["source"]


@pytest.mark.parametrize("is_named", [True, False])
def test_a_folder_of_the_hubs_cache_stands_for_the_revision_in_it(run, tmp_path, is_named) -> None:
    folder = tmp_path / "models--me--mine"
    saved.save(folder / "snapshots" / ("a" * 40), "sd15")
    if is_named:
        (folder / "snapshots" / ("b" * 40)).mkdir()
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
    result = run("estimate", folder, "--json")
    assert result.code == 0
    shown = result.json["result"]
    assert shown["pipeline"] == "mine"
    assert "unet" in [part["name"] for part in shown["components"]]
