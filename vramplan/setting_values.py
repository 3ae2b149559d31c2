"""What settings' values are: the words they take, and how their text is read.

A setting's text is the same on the command line, in YAML and in a report, so reading and writing
are inverses. What a value that is a text says, a function of its name ending in ``_of`` tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vramplan.errors import UsageError, did_you_mean
from vramplan.units import parse_size

SettingValue = str | int | float | tuple[int, int]

#: the settings that say how large a run is: a plan looks for the largest of each that fits
SIZES = ("image", "batch", "context", "frames")
DTYPES = ("fp16", "bf16", "fp32")
ATTENTIONS = ("sdpa", "math", "sliced")
OFFLOADS = ("none", "model", "sequential", "group", "auto")
SWITCHES = ("on", "off")
#: ways to quantise a torch model's weights, and to hold them in fp8
QUANTIZATIONS = (
    *("bnb-8bit", "bnb-4bit", "bnb-4bit-dq"),
    *("torchao-int8", "torchao-fp8", "torchao-int4"),
    *("quanto-int8", "quanto-fp8", "quanto-int4"),
    *("gguf-q8_0", "gguf-q6_k", "gguf-q5_k", "gguf-q5_1", "gguf-q5_0", "gguf-q4_k"),
    *("gguf-q4_1", "gguf-q4_0", "gguf-q3_k", "gguf-q2_k"),
    "fp8-layerwise",
)
#: transformers' `cache_implementation`, without those whose names it is giving up
CACHES = ("dynamic", "static", "offloaded", "offloaded_static", "quantized")
CACHE_SYNONYMS = {
    "default": "dynamic",
    "quantised": "quantized",
    # names of before 5.0: the layers say which of them see a window
    **dict.fromkeys(("hybrid", "sliding_window", "sliding"), "static"),
    **dict.fromkeys(("offloaded_hybrid", "offloaded_sliding"), "offloaded_static"),
}
#: what `cache_config` may say of a quantized cache, each with what transformers takes by itself
CACHE_CONFIG = "cache_config"
_CACHE_CONFIG: Mapping[str, str | int] = {
    "backend": "quanto",
    "nbits": 4,
    "q_group_size": 64,
    "residual_length": 128,
}
_CACHE_BITS: Mapping[str, tuple[int, ...]] = {"quanto": (2, 4), "hqq": (1, 2, 3, 4, 8), "fp8": ()}
#: diffusers' `offload_type` of group offload
OFFLOAD_TYPES = ("block_level", "leaf_level")
FLASH_ATTENTIONS = ("on", "off", "auto")
KV_UNIFIEDS = ("on", "off", "auto")
#: who places layers by what is free; on one GPU both are the same (transformers,
#: integrations/accelerate.py, `get_balanced_memory`)
PLACING_MAPS = ("auto", "balanced")
DEVICE_MAPS = (*PLACING_MAPS, "cuda")
PLATFORMS = ("linux", "windows", "wsl")
#: where the driver gives system memory instead of failing: Windows' own "CUDA sysmem fallback",
#: under WSL too (microsoft/WSL#11050: 30 GiB on a card of 16)
SPILLING_PLATFORMS = ("windows", "wsl")
#: llama.cpp's `--cache-type-k` (common/arg.cpp, kv_cache_types)
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
ALL_LAYERS = ("all", "auto")
ALL_EXPERTS = "all"
#: what `-ot` may put tensors on: host memory, or a CUDA card by its number
HOST_BUFFERS = ("CPU", "CUDA_Host")
_BUFFER = r"CPU|CUDA_Host|CUDA([0-9]{1,2})"
_LONGEST_PATTERN, _MOST_PATTERNS = 200, 256
_LONGEST_NAMES, _MOST_FILES = 8_192, 32
NONE = "none"
#: how much LM Studio lets a model take before it refuses to load it
GUARDRAILS = ("off", "relaxed", "balanced", "strict")
#: llama.cpp's `--pooling`
POOLINGS = ("auto", "none", "mean", "cls", "last", "rank")
#: llama.cpp's `--split-mode`
SPLIT_MODES = ("layer", "none", "auto", "row", "tensor")
#: keys or values in the type of the whole cache
SAME = "same"
#: what the engine itself takes
AUTO = "auto"

DTYPE_SYNONYMS = {
    "float16": "fp16",
    "f16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "f32": "fp32",
    "float": "fp32",
}
#: element types that a library holds weights in, each with the quantization that it is here
QUANTISED_DTYPES = {
    **dict.fromkeys(("fp8", "float8", "float8_e4m3fn", "float8_e5m2"), "fp8-layerwise"),
    **dict.fromkeys(("int8", "uint8", "8bit"), "bnb-8bit"),
    **dict.fromkeys(("int4", "uint4", "fp4", "nf4", "4bit"), "bnb-4bit"),
    **{way.removeprefix("gguf-"): way for way in QUANTIZATIONS if way.startswith("gguf-")},
}
KV_SYNONYMS = {"fp16": "f16", "fp32": "f32"}
#: the libraries' names of their back ends, and what the numbers are called
_QUANTIZATION_SYNONYMS = {
    "bitsandbytes_4bit": "bnb-4bit",
    "bitsandbytes_8bit": "bnb-8bit",
    "4bit": "bnb-4bit",
    "8bit": "bnb-8bit",
    "nf4": "bnb-4bit",
    "fp4": "bnb-4bit",
    "llm.int8": "bnb-8bit",
    "quanto": "quanto-int8",
    "torchao": "torchao-int8",
    "fp8": "fp8-layerwise",
}
#: YAML's and people's other words for the same two positions
SWITCH_SYNONYMS = {"true": "on", "yes": "on", "false": "off", "no": "off"}

_MOST_CARDS = 16
# compiled where one is used: few of them are in a run
_SHARE = r"[0-9]{1,5}(?:\.[0-9]{1,4})?"
_RANGE = r"([0-9]{1,4})-([0-9]{1,4})"
# what every run has is read without a pattern
_MOST_DIGITS = 9
_LONGEST_WORD = 64
_WORD_SIGNS = dict.fromkeys(map(ord, "._+:-"))


def _is_count(text: str, digits: int = _MOST_DIGITS) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def _is_word(text: str) -> bool:
    """Return whether a text begins with a letter or a digit and has those and ``._+:-`` alone."""
    is_plain = text.isascii() and len(text) <= _LONGEST_WORD
    return is_plain and text[:1].isalnum() and text.translate(_WORD_SIGNS).isalnum()


def read_image(key: str, text: str) -> tuple[int, int]:
    """Return a size in pixels; one number is a square."""
    sides = text.replace("X", "x").split("x")
    if len(sides) > 2 or not all(_is_count(side, 6) for side in sides):
        raise _not_a(key, text, "a size", "write WIDTHxHEIGHT in pixels, such as 768x512, or 512")
    width, height = int(sides[0]), int(sides[-1])
    if width < 1 or height < 1:
        raise UsageError(f"{key} {text}: width and height must be at least 1")
    return width, height


def read_count(key: str, text: str) -> int:
    """Return a whole number of at least 1: no setting makes sense at 0."""
    if not _is_count(text):
        if re.fullmatch(r"-[0-9]+", text):
            raise UsageError(f"{key} {text}: must be at least 1")
        raise _not_a(key, text, "a whole number", None)
    if int(text) < 1:
        raise UsageError(f"{key} {text}: must be at least 1")
    return int(text)


def read_count_or_auto(key: str, text: str) -> SettingValue:
    """Return a whole number of at least 1, or ``auto``."""
    return AUTO if text.lower() == AUTO else read_count(key, text)


def read_tokens(key: str, text: str) -> int:
    """Return a number of tokens: ``16k`` is 16,384, as contexts are counted."""
    number, sign = text[:-1], text[-1:]
    is_thousands = sign in ("k", "K") and _is_count(number, 5)
    return read_count(key, number) * 1024 if is_thousands else read_count(key, text)


def read_tokens_or_auto(key: str, text: str) -> SettingValue:
    """Return a number of tokens, or ``auto``."""
    return AUTO if text.lower() == AUTO else read_tokens(key, text)


def read_number(key: str, text: str) -> float:
    """Return a number that may have decimals."""
    whole, point, part = text.partition(".")
    if not _is_count(whole, 4) or (point and not _is_count(part, 6)):
        raise _not_a(key, text, "a number from 0 to 9999", "such as 7.5")
    return float(text)


def read_word(key: str, text: str) -> str:
    """Return a word as it is."""
    if not _is_word(text):
        raise _not_a(key, text, "a word", "letters, digits and . _ + : - are accepted")
    return text


def read_layers(key: str, text: str) -> SettingValue:
    """Return a number of layers, 0 among them, or a word for as many as there are."""
    if text.lower() in ALL_LAYERS:
        return text.lower()
    if not _is_count(text):
        raise _not_a(key, text, "a number of layers", "write a number, all or auto")
    return int(text)  # 0 is meant: every layer on the CPU


def read_experts(key: str, text: str) -> SettingValue:
    """Return a number of layers, the first and the last of them, or ``all``."""
    if text.lower() == ALL_EXPERTS:
        return ALL_EXPERTS
    if found := re.fullmatch(_RANGE, text):
        first, last = int(found[1]), int(found[2])
        if first > last:
            raise UsageError(f"{key} {text}: the first layer is behind the last")
        return f"{first}-{last}"
    if not _is_count(text):
        hint = "write a number, layers such as 6-39, or all; 0 keeps none there"
        raise _not_a(key, text, "a number of layers", hint)
    return int(text)


def experts_of(value: object) -> tuple[int, int]:
    """Return the layers whose experts ``cpu_moe`` keeps in host memory: the first, and the end.

    ``6-39`` is (6, 40), a number counts from the first layer, all has no end to speak of.
    """
    if value == ALL_EXPERTS:
        return 0, 1 << 20
    text = str(value)
    if found := re.fullmatch(_RANGE, text):
        return int(found[1]), int(found[2]) + 1
    return 0, int(text) if _is_count(text) else 0


def read_index(key: str, text: str) -> int:
    """Return a card's number, from 0 on."""
    if not _is_count(text, 2) or int(text) >= _MOST_CARDS:
        raise _not_a(key, text, f"a card's number from 0 to {_MOST_CARDS - 1}", None)
    return int(text)


def read_split(key: str, text: str) -> str:
    """Return shares with slashes between them, which llama.cpp takes too: lists have commas."""
    if text.lower() == AUTO:
        return AUTO
    shares = re.split(r"[,/]+", text)
    hint = "write a share for each card, such as 3/1; auto shares out by what is free on each"
    if len(shares) > _MOST_CARDS or not all(re.fullmatch(_SHARE, share) for share in shares):
        raise _not_a(key, text, "a list of shares", hint)
    if not any(map(float, shares)):
        raise UsageError(f"{key} {text}: no card has a share", hint=hint)
    return "/".join(shares)


def read_overrides(key: str, text: str) -> str:
    """Return ``PATTERN=BUFFER`` with semicolons between them; llama.cpp's commas are read too."""
    if text.lower() == NONE:
        return NONE
    parts = [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    hint = r"write PATTERN=BUFFER, such as blk\.[0-9]+\.ffn_.*=CPU, as for llama.cpp's -ot"
    if not parts or len(parts) > _MOST_PATTERNS:
        raise _not_a(key, text[:80], "a list of patterns", hint)
    for part in parts:
        pattern, sign, buffer = part.partition("=")
        if not sign or not pattern or len(part) > _LONGEST_PATTERN or not part.isprintable():
            raise _not_a(key, part[:80], "a pattern and a buffer", hint)
        if not re.fullmatch(_BUFFER, buffer):
            known = "CPU, CUDA0, CUDA1 and so on"
            raise UsageError(f"{key}: no buffer is called {buffer[:40]!r}", hint=f"known: {known}")
        from vramplan.pattern_cost import check_pattern

        try:
            re.compile(pattern)
            check_pattern(pattern)
        except (re.error, ValueError, RecursionError, OverflowError) as problem:
            raise UsageError(f"{key}: {pattern!r} is no pattern: {problem}", hint=hint) from None
    return ";".join(parts)


def read_share(key: str, text: str) -> str:
    """Return ``max``, ``off``, ``auto`` or a share of 0 to 1, as LM Studio has them."""
    word = text.lower()
    if word in {AUTO, "max", "off"}:
        return word
    if not re.fullmatch(r"(?:0|1|0?\.[0-9]{1,4}|[01]\.[0-9]{1,4})", text) or float(text) > 1:
        raise _not_a(key, text, "a share", "write max, off, or a number from 0 to 1, such as 0.5")
    return f"{float(text):.4f}".rstrip("0").rstrip(".")


def share_of(value: object) -> float | None:
    """Return the share of 0 to 1 that a setting says; None where it leaves it open."""
    if value == AUTO:
        return None
    return {"max": 1.0, "off": 0.0}.get(str(value)) if str(value).isalpha() else float(str(value))


def read_guardrail(key: str, text: str) -> str:
    """Return the name of a limit, or one of its own in whole MiB."""
    if text.lower() in GUARDRAILS:
        return text.lower()
    try:
        size = parse_size(text)
    except UsageError as problem:
        hint = "write off, relaxed, balanced, strict, or a limit such as 12GiB"
        raise UsageError(f"{key} {text[:40]!r}: {problem}", hint=hint) from None
    if size < 1 << 20:
        raise UsageError(f"{key} {text[:40]}: a limit is 1MiB at least")
    return f"{size >> 20}MiB"


def limit_of(guardrail: str) -> int | None:
    """Return the limit in bytes that a guardrail of one's own is; None for one with a name."""
    return None if guardrail in GUARDRAILS else parse_size(guardrail)


def read_files(key: str, text: str) -> str:
    """Return names of files with semicolons between them."""
    if text.lower() == NONE:
        return NONE
    names = [part.strip() for part in text.split(";")]
    if len(names) > _MOST_FILES or not all(names) or len(text) > _LONGEST_NAMES:
        raise _not_a(key, text[:80], "a list of files", "several have semicolons between them")
    if not text.isprintable():
        raise _not_a(key, text[:80], "a file's name", None)
    return ";".join(names)


def files_of(value: object) -> tuple[str, ...]:
    """Return the files that a setting names."""
    return () if value in (None, NONE) else tuple(str(value).split(";"))


def read_quantization(key: str, text: str) -> str:
    """Return a way to quantise, or ``COMPONENT:WAY`` with semicolons between them."""
    if text.lower() == NONE:
        return NONE
    said: list[str] = []
    for part in (one.strip() for one in text.split(";")):
        component, sign, word = part.rpartition(":")
        word = word.strip().lower()
        way = _QUANTIZATION_SYNONYMS.get(word, word)
        if way not in QUANTIZATIONS or len(said) >= _MOST_FILES:
            hint = did_you_mean(way, QUANTIZATIONS) or "it takes: " + ", ".join(QUANTIZATIONS)
            raise UsageError(f"{key} {part[:80]!r}: no way to quantise", hint=hint)
        if sign and not _is_word(component.strip()):
            raise _not_a(key, component[:80], "a component's name", "such as transformer:bnb-4bit")
        said.append(f"{component.strip()}:{way}" if sign else way)
    return ";".join(said)


def quantization_of(value: object) -> tuple[tuple[str | None, str], ...]:
    """Return the component and the way of each part of ``quantization``; None for all of them."""
    if value in (None, NONE):
        return ()
    parts = (part.rpartition(":") for part in str(value).split(";"))
    return tuple((component or None, way) for component, _, way in parts)


def read_cache_config(key: str, text: str) -> str:
    """Return ``NAME:VALUE`` with semicolons between them, as transformers' dictionary has them."""
    if text.lower() == NONE:
        return NONE
    said: dict[str, str | int] = {}
    hint = "such as backend:hqq;nbits:8;residual_length:64"
    for part in (one.strip() for one in text.split(";")):
        name, _, word = (piece.strip() for piece in part.partition(":"))
        if name not in _CACHE_CONFIG:
            near = did_you_mean(name, _CACHE_CONFIG) or "it takes: " + ", ".join(_CACHE_CONFIG)
            raise UsageError(f"{key} {part[:80]!r}: no such word", hint=near)
        if name in said:
            raise UsageError(f"{key}: {name} is said twice", hint=hint)
        if name != "backend":
            said[name] = read_count(f"{key} {name}", word)
        elif word.lower() in _CACHE_BITS:
            said[name] = word.lower()
        else:
            raise UsageError(f"{key}: no backend {word[:40]!r}", hint="quanto, hqq or fp8")
    backend = str(said.get("backend", _CACHE_CONFIG["backend"]))
    if backend == "fp8" and len(said) > 1:
        raise UsageError(f"{key}: the backend fp8 takes nothing else", hint="backend:fp8")
    bits = said.get("nbits", _CACHE_CONFIG["nbits"])
    if backend != "fp8" and bits not in _CACHE_BITS[backend]:
        takes = ", ".join(map(str, _CACHE_BITS[backend]))
        raise UsageError(f"{key}: {backend} has no {bits} bits", hint=f"nbits: {takes}")
    return ";".join(f"{name}:{said[name]}" for name in _CACHE_CONFIG if name in said)


def cache_config_of(value: object) -> dict[str, str | int]:
    """Return what ``cache_config`` says of a quantized cache, and what it leaves to transformers.

    Of the backend fp8 there is nothing else to say.
    """
    parts = [] if value in (None, NONE) else str(value).split(";")
    said = dict(part.split(":") for part in parts)
    if said.get("backend") == "fp8":
        return {"backend": "fp8"}
    return {
        name: said.get(name, usual) if name == "backend" else int(said.get(name, usual))
        for name, usual in _CACHE_CONFIG.items()
    }


def overrides_of(value: object) -> tuple[tuple[str, int | None], ...]:
    """Return the patterns of ``override_tensor`` and the card of each; None for host memory."""
    if value == NONE:
        return ()
    found = []
    for part in str(value).split(";"):
        pattern, _, buffer = part.partition("=")
        card = re.fullmatch(_BUFFER, buffer)
        found.append((pattern, int(card[1]) if card and card[1] else None))
    return tuple(found)


def split_of(value: object) -> tuple[float, ...]:
    """Return the shares of ``tensor_split``, one a card; none where the engine chooses them."""
    return () if value == AUTO else tuple(float(share) for share in str(value).split("/"))


def key_type(settings: Mapping[str, object]) -> str:
    """Return the type of the cache's keys: ``key_type``, else ``kv_type``."""
    return _cache_type(settings, "key_type")


def value_type(settings: Mapping[str, object]) -> str:
    """Return the type of the cache's values: ``value_type``, else ``kv_type``."""
    return _cache_type(settings, "value_type")


def _cache_type(settings: Mapping[str, object], key: str) -> str:
    own = settings.get(key, SAME)
    return str(settings.get("kv_type", "f16") if own == SAME else own)


class Choice:
    """Reads one of some words; `synonyms` are other words for them.

    `elsewhere` are words for what another setting says, each with that.
    """

    def __init__(
        self, words: tuple[str, ...], synonyms: Mapping[str, str], elsewhere: Mapping[str, str]
    ) -> None:
        self.words = words
        self._synonyms = synonyms
        self._elsewhere = elsewhere

    def __call__(self, key: str, text: str) -> str:
        """Return the word that a text stands for; raises UsageError for none of them."""
        word = self._synonyms.get(text.lower(), text.lower())
        if word not in self.words:
            other = self._elsewhere.get(word)
            hint = f"--set {other}" if other else did_you_mean(word, self.words)
            raise UsageError(f"unknown {key} {text!r}", hint=hint or "use " + ", ".join(self.words))
        return word


def choice(
    choices: tuple[str, ...],
    synonyms: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> Choice:
    """Return what reads one of some words; see `Choice`."""
    return Choice(choices, synonyms or {}, elsewhere or {})


def _not_a(key: str, text: str, wanted: str, hint: str | None) -> UsageError:
    return UsageError(f"{key} {text!r} is not {wanted}", hint=hint)


SWITCH = choice(SWITCHES, SWITCH_SYNONYMS)
