"""Tokenizers for models of which only configs are known.

They know letters and no words; how long a prompt becomes is an assumption (a token for about four
characters, where nothing pads to a fixed length), and what its ids are has no meaning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LETTERS = [chr(code) for code in range(33, 127)]
#: characters of English text that make a token, about (OpenAI, "What are tokens and how to count
#: them?")
_CHARACTERS = 4
_LONGEST = 100_000

#: what a message is written as; what is no text stands as the token that a processor looks for
_CHAT = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] in KINDS %}{{ KINDS[part['type']] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}"
)
#: in a config, the number of a token that a model's own code looks for
_NAMED = re.compile(r"(\w{1,32})_token_(?:id|index)")
_GENERAL = frozenset({"pad", "bos", "eos", "unk", "sep", "cls", "mask", "decoder_start"})
#: how such tokens are written, by the beginning of a model's type: processors and prompts in model
#: cards name them so; elsewhere <image>, <video> (transformers 5.23.0, models/*/processing_*.py)
_WRITTEN = {
    "qwen": {
        "image": "<|image_pad|>", "video": "<|video_pad|>",
        "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>",
    },
    "gemma3": {
        "boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>",
    },
    "idefics3": {"fake_image": "<fake_token_around_image>", "global_image": "<global-img>"},
}  # fmt: skip
#: which token stands in a prompt for a picture where that is not `image`
_PLACES = {"gemma3": "boi"}
_WHISPER_WORDS = 50_257
_WHISPER_STEPS = 1_501


def write_tokenizer(folder: Path, class_name: str, config: Mapping[str, Any]) -> None:
    """Write a tokenizer of a class of transformers for a model with `config`."""
    folder.mkdir(parents=True, exist_ok=True)
    size = _number(config.get("vocab_size"), 49_408)
    if class_name.startswith("CLIP"):
        _write_clip(folder, size, _number(config.get("max_position_embeddings"), 77))
    elif class_name.startswith("T5"):
        _write_t5(folder, size)
    elif config.get("model_type") == "whisper" and size > _WHISPER_WORDS:
        _write_whisper(folder, size)
    else:
        _write_plain(folder, size, config)


def text_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a model's config says of its words; None where it has none."""
    own = config.get("text_config")
    text = {**config, **(own if isinstance(own, dict) else {})}
    text["model_type"] = config.get("model_type")
    return text if isinstance(text.get("vocab_size"), int) else None


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
    named = _named_tokens(config)
    words |= {word: number for word, number in named.values() if number not in words.values()}
    words["<unk>"] = next(n for n in range(size) if n not in words.values())
    pieces = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106  # no secret
    pieces.pre_tokenizer = pre_tokenizers.Split(Regex(f".{{1,{_CHARACTERS}}}"), "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",  # noqa: S106  # as above
        unk_token="<unk>", chat_template=_chat(config, named), padding_side="left",  # noqa: S106  # as above
        model_max_length=_number(config.get("max_position_embeddings"), _LONGEST),
        extra_special_tokens={f"{name}_token": word for name, (word, _) in named.items()},
    )  # fmt: skip
    made.save_pretrained(folder)


def _named_tokens(config: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return tokens that a config numbers by name: how each is written, and its number.

    A model with an encoder of pictures has `image` where its config numbers none.
    """
    kind = str(config.get("model_type"))
    written = next((one for prefix, one in _WRITTEN.items() if kind.startswith(prefix)), {})
    numbers = {}
    for key, number in config.items():
        found = _NAMED.fullmatch(key)
        if found and found[1] not in _GENERAL and isinstance(number, int) and number >= 0:
            numbers[found[1]] = number
    taken = max([_number(config.get("vocab_size"), 0), *(one + 1 for one in numbers.values())])
    if not isinstance(config.get("vision_config"), dict):
        written = {name: word for name, word in written.items() if name in numbers}
    for name in (*written, *(["image"] if isinstance(config.get("vision_config"), dict) else ())):
        if name not in numbers:  # behind all others, as a tokenizer adds what it does not have
            numbers[name] = taken
            taken += 1
    return {name: (written.get(name, f"<{name}>"), number) for name, number in numbers.items()}


def _chat(config: Mapping[str, Any], named: Mapping[str, tuple[str, int]]) -> str:
    """Return the template of a conversation: a picture is what the model's processor looks for."""
    place = _PLACES.get(str(config.get("model_type")), "image")
    kinds = {"image": place, "image_url": place, "video": "video", "audio": "audio"}
    told = {kind: named[name][0] for kind, name in kinds.items() if name in named}
    begin, end = (named.get(f"vision_{one}", ("",))[0] for one in ("start", "end"))
    return f"{{% set KINDS = {json.dumps({k: begin + v + end for k, v in told.items()})} %}}{_CHAT}"


def _write_whisper(folder: Path, size: int) -> None:
    """Write Whisper's, as OpenAI's has it: behind its words, languages, tasks and steps of 20 ms.

    https://github.com/openai/whisper/blob/main/whisper/tokenizer.py; and what `generate` asks its
    generation_config.json for.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    marks = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    languages = list(LANGUAGES)[: size - _WHISPER_WORDS - 2 - len(marks) - _WHISPER_STEPS]
    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{one}|>" for one in (*languages, *marks)]
    steps = [f"<|{number * 0.02:.2f}|>" for number in range(_WHISPER_STEPS)]
    words = [*_LETTERS, "\u0120", *(f"<{number}>" for number in range(_WHISPER_WORDS))]
    known = {word: number for number, word in enumerate(words[:_WHISPER_WORDS])}
    places = {word: _WHISPER_WORDS + number for number, word in enumerate([*special, *steps])}
    _write(folder / "vocab.json", known | {"<|endoftext|>": _WHISPER_WORDS})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    told = {
        "tokenizer_class": "WhisperTokenizer",
        "model_max_length": 448,
        "added_tokens_decoder": {
            str(number): {"content": word, "special": word in special, "normalized": False,
                          "lstrip": False, "rstrip": False, "single_word": False}
            for word, number in places.items()
        },
    }  # fmt: skip
    _write(folder / "tokenizer_config.json", told)
    _write(
        folder / "generation_config.json",
        {
            "is_multilingual": bool(languages),
            "lang_to_id": {f"<|{one}|>": places[f"<|{one}|>"] for one in languages},
            "task_to_id": {one: places[f"<|{one}|>"] for one in marks[:2]},
            "no_timestamps_token_id": places["<|notimestamps|>"],
            "prev_sot_token_id": places["<|startofprev|>"],
            "decoder_start_token_id": places["<|startoftranscript|>"],
            "bos_token_id": _WHISPER_WORDS,
            "eos_token_id": _WHISPER_WORDS,
            "pad_token_id": _WHISPER_WORDS,
            "max_initial_timestamp_index": 50,
            "max_length": 448,
            "return_timestamps": False,
        },
    )


def _write(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told))
