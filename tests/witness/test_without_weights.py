"""Programs of model cards, run as they stand and without one file of weights."""

from __future__ import annotations

import json
import struct
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.witness,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]

MIB = 1 << 20

DIFFUSION = """
import resource
import torch
from diffusers import StableDiffusionPipeline

name = "stable-diffusion-v1-5/stable-diffusion-v1-5"
pipe = StableDiffusionPipeline.from_pretrained(name, torch_dtype=torch.float16, variant="fp16")
print("> ", pipe.unet.num_parameters(), {one.dtype for one in pipe.unet.parameters()})
pipe.to("cuda")
print("> ", pipe("a cat", num_inference_steps=2).images[0].size)
print("> ", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10 < 2500)
"""


@pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
def test_pipeline_of_the_hub_runs_with_the_catalogues_configs(on_card, tmp_path) -> None:
    found = on_card(DIFFUSION, "8gb", "--weights", "none", HF_HOME=str(tmp_path / "hub"))
    assert found["outcome"] == "completes"
    assert found["printed"] == [" 859520964 {torch.float16}", " (512, 512)", " True"]
    held = {one["name"]: one["size_bytes"] for one in found["held_at_peak"] if one["name"]}
    assert held["weights of UNet2DConditionModel"] // MIB == 1653
    assert any("configs of the catalogue's sd15" in one for one in found["remarks"])
    assert not (tmp_path / "hub").exists()


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_folder_of_configs_is_enough_and_an_unknown_name_gets_a_line(on_card, tmp_path) -> None:
    program = """
        from pathlib import Path
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig
        LlamaConfig(
            hidden_size=512, num_hidden_layers=2, num_attention_heads=8, intermediate_size=1024,
            vocab_size=1000, dtype="bfloat16", architectures=["LlamaForCausalLM"],
        ).save_pretrained("configs")
        model = AutoModelForCausalLM.from_pretrained("configs", device_map="cuda")
        print("> ", model.dtype, next(model.parameters()).is_cuda, list(Path("configs").iterdir()))
        try:
            AutoModelForCausalLM.from_pretrained("nobody/knows")
        except OSError as problem:
            print("> ", problem)
    """
    found = on_card(program, "8gb", "--weights", "none", HF_HOME=str(tmp_path / "hub"))
    assert found["outcome"] == "completes"
    loaded, refused = found["printed"]
    assert loaded == " torch.bfloat16 True [PosixPath('configs/config.json')]"
    assert "nobody/knows is neither in vramplan's catalogue nor in the hub's cache" in refused


CHAT = """
import torch, transformers
from transformers import AutoTokenizer

chat = transformers.pipeline(
    "text-generation", model="meta-llama/Llama-3.2-1B-Instruct",
    model_kwargs={"torch_dtype": torch.bfloat16}, device_map="auto",
)
messages = [{"role": "system", "content": "You are a pirate!"}, {"role": "user", "content": "Who?"}]
ends = [chat.tokenizer.eos_token_id, chat.tokenizer.convert_tokens_to_ids("<|eot_id|>")]
said = chat(messages, max_new_tokens=4, eos_token_id=ends, do_sample=True, temperature=0.6)
print("> ", said[0]["generated_text"][-1]["role"])
for fast in (True, False):
    made = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct", use_fast=fast)
    print("> ", len(made("four " * 80)["input_ids"]))
print("> ", transformers.pipeline(model="Qwen/Qwen2.5-0.5B-Instruct", device="cuda").task)
"""


def test_chat_of_a_model_card(on_card, tmp_path) -> None:
    found = on_card(CHAT, "8gb", "--weights", "none", HF_HOME=str(tmp_path / "hub"))
    assert found["printed"] == [" assistant", " 100", " 100", " text-generation"]
    assert "Retrying" not in found["stderr"]  # nobody is asked over the network
    assert not list((tmp_path / "hub").rglob("models--*"))


PICTURES = """
import resource
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

name = "Qwen/Qwen2.5-VL-3B-Instruct"
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
    name, torch_dtype="auto", device_map="auto"
)
processor = AutoProcessor.from_pretrained(name)
picture = Image.new("RGB", (640, 480))
content = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe this image."}]
messages = [{"role": "user", "content": content}]
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = processor(text=[text], images=[picture], padding=True, return_tensors="pt").to("cuda")
print("> ", int((inputs.input_ids == model.config.image_token_id).sum()))
out = model.generate(**inputs, max_new_tokens=3)
print("> ", out.shape[1] - inputs.input_ids.shape[1], len(processor.batch_decode(out)))
print("> ", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10 < 2500)
for name, tokens in (
    ("llava-hf/llava-1.5-7b-hf", 576),
    ("google/gemma-3-4b-it", 256),
    ("HuggingFaceTB/SmolVLM-Instruct", 13 * 81),
    ("Qwen/Qwen3-VL-2B-Instruct", 300),
):
    made = AutoProcessor.from_pretrained(name)
    text = made.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
        tokenize=False,
    )
    word = getattr(made.tokenizer, "image_token", made.image_token)
    number = made.tokenizer.convert_tokens_to_ids(word)
    found = made(images=[picture], text=text, return_tensors="pt")["input_ids"]
    print("> ", int((found == number).sum()) == tokens)
"""


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_picture_takes_its_tokens_in_a_prompt(on_card, tmp_path) -> None:
    """23 x 17 patches of 28 pixels make 391; the others are what their model cards have."""
    found = on_card(PICTURES, "16gb", "--weights", "none", HF_HOME=str(tmp_path / "hub"))
    assert found["printed"] == [" 391", " 3 1", " True", " True", " True", " True", " True"]


SOUND = """
import numpy, torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

name = "openai/whisper-tiny"
model = AutoModelForSpeechSeq2Seq.from_pretrained(
    name, torch_dtype=torch.float16, low_cpu_mem_usage=True, use_safetensors=True
).to("cuda:0")
processor = AutoProcessor.from_pretrained(name)
pipe = pipeline(
    "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
    feature_extractor=processor.feature_extractor, torch_dtype=torch.float16, device="cuda:0",
)
silence = {"raw": numpy.zeros(80_000, dtype=numpy.float32), "sampling_rate": 16_000}
print("> ", len(pipe(dict(silence), generate_kwargs={"max_new_tokens": 8})["text"]) > 0)
said = pipe(dict(silence), generate_kwargs={"language": "english", "max_new_tokens": 8})
print("> ", type(said["text"]).__name__)
"""


def test_transcription_of_a_model_card(on_card, tmp_path) -> None:
    found = on_card(SOUND, "8gb", "--weights", "none", HF_HOME=str(tmp_path / "hub"))
    assert found["printed"] == [" True", " str"]


def test_adapter_that_is_not_there_gets_a_line(on_card, tmp_path) -> None:
    program = """
        from huggingface_hub import hf_hub_download, snapshot_download
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")
        for ask in (
            lambda: hf_hub_download("someone/lora", "adapter_model.safetensors"),
            lambda: hf_hub_download("Qwen/Qwen2.5-0.5B-Instruct", "model.safetensors"),
            lambda: snapshot_download("someone/else"),
        ):
            try:
                ask()
            except FileNotFoundError as problem:
                print("> ", problem)
        print("> ", hf_hub_download("Qwen/Qwen2.5-0.5B-Instruct", "config.json")[-11:])
    """
    found = on_card(program, "8gb", "--weights", "none", HF_HOME=str(tmp_path / "hub"))
    adapter, weights, unknown, config = found["printed"]
    assert "hf download someone/lora adapter_model.safetensors" in adapter
    assert "model.safetensors of Qwen/Qwen2.5-0.5B-Instruct is not in the hub's cache" in weights
    assert "someone/else is neither in vramplan's catalogue nor in the hub's cache" in unknown
    assert config == " config.json"
    assert any("someone/lora" in one for one in found["remarks"])


def test_header_of_a_file_is_enough(on_card, tmp_path: Path) -> None:
    """Of a LoRA's file, and of a checkpoint's, that was fetched in part."""
    shapes = {"up.weight": [4096, 16], "down.weight": [16, 4096]}
    header, at = {}, 0
    for name, (rows, columns) in shapes.items():
        offsets = [at, at + 2 * rows * columns]
        header[name] = {"dtype": "F16", "shape": [rows, columns], "data_offsets": offsets}
        at = offsets[1]
    told = json.dumps(header).encode()
    (tmp_path / "part.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + bytes(100))
    program = """
        from safetensors.torch import load_file
        made = load_file("part.safetensors", device="cuda")
        print("> ", {name: (one.is_cuda, tuple(one.shape)) for name, one in sorted(made.items())})
    """
    found = on_card(program, "8gb", "--weights", "none")
    assert found["printed"] == [
        " {'down.weight': (True, (16, 4096)), 'up.weight': (True, (4096, 16))}"
    ]
    assert any("ends before its tensors do" in one for one in found["remarks"])
