"""Tokenizers and processors for models of which only configs are known.

They know letters and no words; how long a prompt becomes is an assumption (a token for about four
characters, where nothing pads to a fixed length), and what its ids are has no meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LETTERS = [chr(code) for code in range(33, 127)]
#: characters of English text that make a token, about (OpenAI, "What are tokens and how to count
#: them?")
_CHARACTERS = 4
_LONGEST = 100_000

_CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def write_tokenizer(folder: Path, class_name: str, config: Mapping[str, Any]) -> None:
    """Write a tokenizer of a class of transformers for a model with `config`."""
    folder.mkdir(parents=True, exist_ok=True)
    size = _number(config.get("vocab_size"), 49_408)
    if class_name.startswith("CLIP"):
        _write_clip(folder, size, _number(config.get("max_position_embeddings"), 77))
    elif class_name.startswith("T5"):
        _write_t5(folder, size)
    else:
        _write_plain(folder, size, config)


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 30 else default


def _write_clip(folder: Path, size: int, length: int) -> None:
    """Write CLIP's: its last two tokens begin and end a text, and it pads to a length."""
    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]
    words += [f"<{number}>" for number in range(size - 2 - len(words))]
    words = [*words[: size - 2], "<|startoftext|>", "<|endoftext|>"]
    _write(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    told = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length}
    _write(folder / "tokenizer_config.json", told)


def _write_t5(folder: Path, size: int) -> None:
    from transformers import T5TokenizerFast

    extra = 100
    words = ["<pad>", "</s>", "<unk>", "▁", *_LETTERS]
    words += [f"<{number}>" for number in range(size - extra - len(words))]
    pieces = [(word, -1.0 if number > 2 else 0.0) for number, word in enumerate(words)]
    pieces += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(extra))]
    made = T5TokenizerFast(vocab=pieces, extra_ids=extra, model_max_length=512)
    made.save_pretrained(folder)


def _write_plain(folder: Path, size: int, config: Mapping[str, Any]) -> None:
    """Write one of equal pieces, with the config's own numbers for what begins, ends and pads."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {}
    for name, default in (("pad", 0), ("bos", 1), ("eos", 2)):
        said = config.get(f"{name}_token_id")
        said = said[0] if isinstance(said, list) and said else said
        special[name] = said if isinstance(said, int) and 0 <= said < size else default
    words = {f"<{name}>": number for name, number in special.items()}
    words["<unk>"] = next(n for n in range(size) if n not in words.values())
    pieces = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106  # no secret
    pieces.pre_tokenizer = pre_tokenizers.Split(Regex(f".{{1,{_CHARACTERS}}}"), "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",  # noqa: S106  # as above
        unk_token="<unk>", chat_template=_CHAT, padding_side="left",  # noqa: S106  # as above
        model_max_length=_number(config.get("max_position_embeddings"), _LONGEST),
    )  # fmt: skip
    made.save_pretrained(folder)


def write_processor(folder: Path, config: Mapping[str, Any]) -> bool:
    """Write what prepares pictures or sounds for a model, by its kind; False where none does."""
    from transformers import CONFIG_MAPPING, FEATURE_EXTRACTOR_MAPPING, IMAGE_PROCESSOR_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return False
    for mapping in (IMAGE_PROCESSOR_MAPPING, FEATURE_EXTRACTOR_MAPPING):
        found = mapping.get(CONFIG_MAPPING[kind], None)
        if isinstance(found, dict):  # by backend: of Pillow and of torchvision
            found = next((one for one in found.values() if one is not None), None)
        if isinstance(found, tuple):  # slow and fast
            found = next((one for one in found if one is not None), None)
        if found is None:
            continue
        given: dict[str, Any] = {}
        vision = config.get("vision_config")
        side = (vision if isinstance(vision, dict) else config).get("image_size")
        if isinstance(side, int):
            given["size"] = {"height": side, "width": side}
        if isinstance(config.get("num_mel_bins"), int):
            given["feature_size"] = config["num_mel_bins"]
        found(**given).save_pretrained(folder)
        return True
    return False


def _write(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told))
