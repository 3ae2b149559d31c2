"""Run the libraries' own example programs, unchanged, on a card that is not there.

    python -m tools.example_programs FOLDER                  all of them; FOLDER has the checkouts
    python -m tools.example_programs FOLDER --only run_glue --card 8gb --out FILE

FOLDER has one checkout a library, by its name: diffusers, transformers, accelerate, peft, and
pytorch (pytorch/examples). Models are tiny and made on the spot, with the libraries' own classes,
and so are the data sets; nothing is fetched. It is run by the Python that has torch's CUDA build,
the libraries and what their examples need (datasets, evaluate, torchvision, scikit-learn).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

_SHORT = "--max_train_steps 2 --learning_rate 5e-4 --output_dir {out} --report_to tensorboard"
_DIFFUSION = f"--resolution 64 --train_batch_size 1 {_SHORT}"
_TRAINER = (
    "--do_train --do_eval --max_steps 2 --per_device_train_batch_size 2 "
    "--per_device_eval_batch_size 2 --report_to none --output_dir {out}"
)


@dataclass(frozen=True, slots=True)
class Example:
    """A program: the library's checkout, the file in it, and its arguments.

    {out} stands for a folder that it may write to; everything else is in the folder it runs in.
    """

    library: str
    file: str
    arguments: str

    @property
    def name(self) -> str:
        """What --only calls it."""
        return Path(self.file).stem if self.library != "pytorch" else self.file.replace("/", "-")


_TEXT = "examples/pytorch"
EXAMPLES = (
    Example(
        "diffusers",
        "examples/text_to_image/train_text_to_image.py",
        f"--pretrained_model_name_or_path sd --train_data_dir captioned {_DIFFUSION} "
        "--mixed_precision fp16 --gradient_checkpointing",
    ),
    Example(
        "diffusers",
        "examples/text_to_image/train_text_to_image_lora.py",
        f"--pretrained_model_name_or_path sd --train_data_dir captioned {_DIFFUSION} "
        "--mixed_precision fp16 --num_validation_images 1 --validation_prompt a",
    ),
    Example(
        "diffusers",
        "examples/text_to_image/train_text_to_image_sdxl.py",
        f"--pretrained_model_name_or_path sdxl --train_data_dir captioned {_DIFFUSION}",
    ),
    Example(
        "diffusers",
        "examples/text_to_image/train_text_to_image_lora_sdxl.py",
        f"--pretrained_model_name_or_path sdxl --train_data_dir captioned {_DIFFUSION}",
    ),
    Example(
        "diffusers",
        "examples/dreambooth/train_dreambooth.py",
        f"--pretrained_model_name_or_path sd --instance_data_dir pictures --instance_prompt a "
        f"{_DIFFUSION} --train_text_encoder",
    ),
    Example(
        "diffusers",
        "examples/dreambooth/train_dreambooth_lora.py",
        f"--pretrained_model_name_or_path sd --instance_data_dir pictures --instance_prompt a "
        f"{_DIFFUSION}",
    ),
    Example(
        "diffusers",
        "examples/textual_inversion/textual_inversion.py",
        f"--pretrained_model_name_or_path sd --train_data_dir pictures --placeholder_token <cat> "
        f"--initializer_token a --learnable_property object {_DIFFUSION}",
    ),
    Example(
        "diffusers",
        "examples/unconditional_image_generation/train_unconditional.py",
        "--model_config_name_or_path ddpm --train_data_dir classes --resolution 64 "
        "--train_batch_size 2 --num_epochs 1 --ddpm_num_inference_steps 2 --output_dir {out}",
    ),
    Example(
        "diffusers",
        "examples/controlnet/train_controlnet.py",
        f"--pretrained_model_name_or_path sd --train_data_dir pairs {_DIFFUSION}",
    ),
    Example(
        "diffusers",
        "examples/instruct_pix2pix/train_instruct_pix2pix.py",
        "--pretrained_model_name_or_path sd --dataset_name pairs --original_image_column image "
        f"--edited_image_column conditioning_image --edit_prompt_column text --seed 0 {_DIFFUSION}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/text-classification/run_glue.py",
        "--model_name_or_path bert --train_file labelled.csv --validation_file labelled.csv "
        f"--max_seq_length 32 {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/text-classification/run_glue_no_trainer.py",
        "--model_name_or_path bert --train_file labelled.csv --validation_file labelled.csv "
        "--max_length 32 --max_train_steps 2 --output_dir {out}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/language-modeling/run_clm.py",
        "--model_name_or_path gpt2 --train_file text.txt --validation_file text.txt "
        f"--block_size 32 {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/language-modeling/run_mlm.py",
        "--model_name_or_path bert-mlm --train_file text.txt --validation_file text.txt "
        f"--max_seq_length 32 {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/image-classification/run_image_classification.py",
        f"--model_name_or_path vit --train_dir classes --validation_dir classes "
        f"--remove_unused_columns False --ignore_mismatched_sizes {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/image-pretraining/run_mae.py",
        "--model_name_or_path vit-mae --dataset_name classes --remove_unused_columns False "
        f"--train_val_split 0.2 {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/question-answering/run_qa.py",
        "--model_name_or_path bert-qa --train_file squad.json --validation_file squad.json "
        f"--max_seq_length 48 --doc_stride 16 {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/audio-classification/run_audio_classification.py",
        "--model_name_or_path wav2vec2 --dataset_name sounds --train_split_name train "
        "--eval_split_name train --max_length_seconds 1 --remove_unused_columns False "
        f"--freeze_feature_encoder False {_TRAINER}",
    ),
    Example(
        "transformers",
        f"{_TEXT}/text-generation/run_generation.py",
        "--model_type gpt2 --model_name_or_path gpt2 --prompt hello --length 5",
    ),
    Example("accelerate", "examples/nlp_example.py", ""),
    Example("accelerate", "examples/complete_nlp_example.py", "--checkpointing_steps epoch"),
    Example(
        "peft",
        "examples/olora_finetuning/olora_finetuning.py",
        "--base_model llama --data_path instructions --output_dir {out} --batch_size 4 "
        "--cutoff_len 32 --val_set_size 4 --lora_r 4 --device_map cuda "
        "--init_lora_weights gaussian",
    ),
    Example(
        "pytorch",
        "imagenet/main.py",
        "imagenet --arch resnet18 --batch-size 4 --epochs 1 --workers 0",
    ),
)

#: what the versions of are told
_PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "datasets",
    "evaluate",
)  # fmt: skip


def run_example(one: Example, checkout: Path, work: Path, card: str) -> dict[str, Any]:
    """Run a program in `work` and return what became of it."""
    script = checkout / one.library / one.file
    found: dict[str, Any] = {"library": one.library, "file": one.file}
    if not script.is_file():
        return found | {"outcome": "not there"}
    out = tempfile.mkdtemp(prefix="out-", dir=work)
    arguments = one.arguments.format(out=out).split()
    log = Path(out) / "log"
    found["log"] = str(log)
    printed = _run(card, work, [str(script), *arguments], log)
    if not printed:
        said = log.read_text(errors="replace").splitlines()
        return found | {"outcome": "no result", "said": said[-1:]}
    result = json.loads(printed)["result"]
    keys = ("outcome", "ended_by", "allocated_peak_bytes", "reserved_peak_bytes", "not_known")
    return found | {key: result[key] for key in keys} | {"reads": result["value_reads"]["count"]}


def _run(card: str, work: Path, words: Sequence[str], log: Path) -> str:
    """Run this Python with `words` in `work` on a card; return the result as JSON, or ""."""
    with log.open("w") as told:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "vramplan", "run", "--card", card, "-q", "--json", "--"),
                *(sys.executable, *words),
            ],
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            timeout=1200,
            check=False,
        )
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Run the programs one after another; 1 where one did not complete."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--card", default="8gb")
    parser.add_argument("--work", type=Path, help="where inputs are made and kept")
    parser.add_argument("--out", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="examples-") as name:
        work = args.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        _run(args.card, work, ["-m", "tools.example_inputs", str(work)], work / "inputs.log")
        found = []
        for one in EXAMPLES:
            if args.only and one.name not in args.only:
                continue
            told = run_example(one, args.folder.resolve(), work, args.card)
            found.append(told)
            peak = told.get("allocated_peak_bytes", 0) >> 20
            print(f"{one.library}: {one.file}: {told['outcome']}, {peak} MiB", flush=True)
    if args.out:
        made = {"card": args.card, "versions": _versions(), "programs": found}
        args.out.write_text(json.dumps(made, indent=1) + "\n")
    return int(any(one["outcome"] != "completes" for one in found))


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
