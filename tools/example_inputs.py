"""Tiny models and data sets for the libraries' example programs, made on the spot.

    python -m vramplan run --card 8gb -- python -m tools.example_inputs FOLDER

On a card that is not there, since torch's CUDA build does not even load without one.
"""

from __future__ import annotations

import json
import string
import sys
import wave
from pathlib import Path
from typing import Any

#: words that every tokenizer here knows, and every text is made of
_WORDS = ("a", "photo", "of", "cat", "dog", "the", "red", "blue", "house", "is", "where", "hello")
_TEXT = " ".join(_WORDS)
_SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
    "mask_token": "[MASK]", "bos_token": "[CLS]", "eos_token": "[SEP]",
}  # fmt: skip
_CLASSES = tuple(
    f"{folder}/{kind}"
    for folder in ("classes", "imagenet/train", "imagenet/val")
    for kind in ("cat", "dog")
)
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

#: metrics as `evaluate` loads them from a folder of that name, without a network
_METRIC = '''
import datasets
import evaluate


class Metric(evaluate.Metric):
    """Counts equal answers."""

    def _info(self):
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="",
            features=datasets.Features({FEATURES}),
        )

    def _compute(self, predictions, references, **more):
        same = sum(a == b for a, b in zip(predictions, references))
        return {{"NAME": same / max(1, len(predictions))}}
'''.replace("{{", "{").replace("}}", "}")
_PLAIN = '{"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}'
_SQUAD = """{
    "predictions": {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")},
    "references": {
        "id": datasets.Value("string"),
        "answers": datasets.features.Sequence(
            {"text": datasets.Value("string"), "answer_start": datasets.Value("int32")}
        ),
    },
}"""


def make_inputs(work: Path) -> None:
    """Make everything in a folder, unless it is there."""
    if (work / "made").exists():
        return
    _make_data(work)
    _make_metrics(work)
    _make_text_models(work)
    _make_picture_models(work)
    _make_diffusion_models(work)
    (work / "made").touch()


# ------------------------------------------------------------------------------------------ data
def _make_data(work: Path) -> None:
    from PIL import Image

    for name in ("pictures", "captioned", "pairs", *_CLASSES):
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for number in range(4):
            colour = (40 * number, 120, 200 - 30 * number)
            Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
            rows.append({"file_name": f"{number}.png", "text": _TEXT})
        if name == "pairs":
            for row in rows:
                row["conditioning_image_file_name"] = row["file_name"]
        if name in ("captioned", "pairs"):
            _write_rows(folder / "metadata.jsonl", rows)
    (work / "text.txt").write_text(f"{_TEXT}\n" * 200)
    lines = ["sentence1,sentence2,label", *(f"{_TEXT},{_TEXT},{n % 2}" for n in range(8))]
    (work / "labelled.csv").write_text("\n".join(lines) + "\n")
    answer = {"text": ["cat"], "answer_start": [_TEXT.index("cat")]}
    asked = [
        {"id": str(n), "title": "t", "context": _TEXT, "question": "where", "answers": answer}
        for n in range(4)
    ]
    (work / "squad.json").write_text(json.dumps({"data": asked}))
    folder = work / "instructions"
    folder.mkdir(exist_ok=True)
    rows = [{"instruction": _TEXT, "input": "", "output": "cat", "text": _TEXT}] * 16
    _write_rows(folder / "train.jsonl", rows)
    _make_glue(work)
    for label in ("yes", "no"):
        folder = work / "sounds" / "train" / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            with wave.open(str(folder / f"{number}.wav"), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(16_000)
                sound.writeframes(bytes(2 * 16_000))


def _make_glue(work: Path) -> None:
    """Make MRPC as the hub has it, under the name by which programs ask for it."""
    folder = work / "nyu-mll" / "glue"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"sentence1": _TEXT, "sentence2": _TEXT, "label": n % 2, "idx": n} for n in range(40)]
    files = []
    for split in ("train", "validation", "test"):
        _write_rows(folder / f"{split}.jsonl", rows)
        files.append(f"  - split: {split}\n    path: {split}.jsonl")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: mrpc\n  data_files:\n" + "\n".join(files) + "\n---\n"
    )


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _make_metrics(work: Path) -> None:
    for name, features in (
        ("accuracy", _PLAIN),
        ("glue", _PLAIN),
        ("squad", _SQUAD),
        ("squad_v2", _SQUAD),
    ):
        folder = work / name
        folder.mkdir(exist_ok=True)
        text = _METRIC.replace("{FEATURES}", features).replace("NAME", name)
        (folder / f"{name}.py").write_text(text)


# ---------------------------------------------------------------------------------------- models
def _word_tokenizer(folder: Path, length: int = 64) -> int:
    """Save a tokenizer of words; return how many tokens it knows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate((*_MARKS, *_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **_SPECIAL)
    made.save_pretrained(folder)
    return len(vocabulary)


def _make_text_models(work: Path) -> None:
    import transformers as library

    small = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64,
    }  # fmt: skip
    for name, kind in (
        ("bert", library.BertForSequenceClassification),
        ("bert-base-cased", library.BertForSequenceClassification),
        ("bert-mlm", library.BertForMaskedLM),
        ("bert-qa", library.BertForQuestionAnswering),
    ):
        size = _word_tokenizer(work / name)
        kind(library.BertConfig(vocab_size=size, **small)).save_pretrained(work / name)
    size = _word_tokenizer(work / "gpt2")
    config = library.GPT2Config(
        vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=2,
        eos_token_id=3,
    )  # fmt: skip
    library.GPT2LMHeadModel(config).save_pretrained(work / "gpt2")
    size = _word_tokenizer(work / "llama")
    llama = library.LlamaConfig(
        vocab_size=size, num_key_value_heads=2, bos_token_id=2, eos_token_id=3, pad_token_id=0,
        **small,
    )  # fmt: skip
    library.LlamaForCausalLM(llama).save_pretrained(work / "llama")
    sound = library.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, classifier_proj_size=32,
        vocab_size=20,
    )  # fmt: skip
    library.Wav2Vec2ForSequenceClassification(sound).save_pretrained(work / "wav2vec2")
    library.Wav2Vec2FeatureExtractor().save_pretrained(work / "wav2vec2")


def _make_picture_models(work: Path) -> None:
    import transformers as library

    small = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    library.ViTForImageClassification(library.ViTConfig(**small)).save_pretrained(work / "vit")
    mae = library.ViTMAEConfig(
        decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, **small,
    )  # fmt: skip
    library.ViTMAEForPreTraining(mae).save_pretrained(work / "vit-mae")
    for name in ("vit", "vit-mae"):
        processor = library.ViTImageProcessor(size={"height": 32, "width": 32})
        processor.save_pretrained(work / name)


def _clip_tokenizer(folder: Path) -> int:
    """Save a CLIP tokenizer of letters; return how many tokens it knows."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *(f"{one}</w>" for one in string.ascii_lowercase)]
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: n for n, word in enumerate([*letters, *special])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder, model_max_length=77).save_pretrained(folder)
    return len(vocabulary)


def _make_diffusion_models(work: Path) -> None:
    import diffusers
    import transformers as library

    size = _clip_tokenizer(work / "clip")
    text = library.CLIPTextConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=32, bos_token_id=size - 2, eos_token_id=size - 1,
    )  # fmt: skip
    tokenizer = library.CLIPTokenizer.from_pretrained(work / "clip")
    decoder = {
        "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    levels = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1,
              "attention_head_dim": 4, "sample_size": 32}  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=32, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **levels,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear")
    diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**decoder), text_encoder=library.CLIPTextModel(text),
        tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(work / "sd")  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=64, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=80, **levels,
    )  # fmt: skip
    diffusers.StableDiffusionXLPipeline(
        vae=diffusers.AutoencoderKL(**decoder), text_encoder=library.CLIPTextModel(text),
        text_encoder_2=library.CLIPTextModelWithProjection(text), tokenizer=tokenizer,
        tokenizer_2=tokenizer, unet=unet, scheduler=scheduler,
    ).save_pretrained(work / "sdxl")  # fmt: skip
    plain = diffusers.UNet2DModel(
        sample_size=64, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    plain.save_config(work / "ddpm")


if __name__ == "__main__":
    make_inputs(Path(sys.argv[1]))
