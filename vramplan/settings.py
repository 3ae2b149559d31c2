"""The settings a pipeline may have: how their text is read, written and checked.

A setting's text is the same on the command line, in YAML and in a report, so reading and writing
are inverses. Which settings a pipeline has, and within which bounds, its catalogue entry says;
this leaf knows an entry only by the three attributes of `Configurable`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from vramplan.errors import UsageError, did_you_mean
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import Protocol
from vramplan.units import parse_size

SettingValue = str | int | float | tuple[int, int]


class Bounds(Protocol):
    """Which values of a setting are accepted; `model.Constraint` is one."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it takes; empty where any will do."""

    @property
    def multiple_of(self) -> int | None:
        """What each of its numbers is a multiple of."""

    @property
    def minimum(self) -> int | None:
        """The smallest number it takes."""

    @property
    def maximum(self) -> int | None:
        """The largest number it takes."""


class Configurable(Protocol):
    """What has settings with defaults and bounds; `model.Pipeline` is one."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def defaults(self) -> Mapping[str, SettingValue]:
        """Every setting it has, with its default."""

    @property
    def constraints(self) -> Mapping[str, Bounds]:
        """The bounds of the settings that have any."""


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
_CACHE_SYNONYMS = {
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

_DTYPE_SYNONYMS = {
    "float16": "fp16",
    "f16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "f32": "fp32",
    "float": "fp32",
}
#: element types that a library holds weights in, each with the quantization that it is here
_QUANTISED_DTYPES = {
    **dict.fromkeys(("fp8", "float8", "float8_e4m3fn", "float8_e5m2"), "fp8-layerwise"),
    **dict.fromkeys(("int8", "uint8", "8bit"), "bnb-8bit"),
    **dict.fromkeys(("int4", "uint4", "fp4", "nf4", "4bit"), "bnb-4bit"),
    **{way.removeprefix("gguf-"): way for way in QUANTIZATIONS if way.startswith("gguf-")},
}
_KV_SYNONYMS = {"fp16": "f16", "fp32": "f32"}
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
_SWITCH_SYNONYMS = {"true": "on", "yes": "on", "false": "off", "no": "off"}

_MOST_CARDS = 16
# compiled where one is used: few of them are in a run
_SHARE = r"[0-9]{1,5}(?:\.[0-9]{1,4})?"
_RANGE = r"([0-9]{1,4})-([0-9]{1,4})"
_COUNT = r"[0-9]{1,9}"
_THOUSANDS = r"([0-9]{1,5})[kK]"
_NUMBER = r"[0-9]{1,4}(\.[0-9]{1,6})?"
_IMAGE = r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """How one setting is read, and the line that --help shows for it.

    `takes_more`: more than the most that there is stands for all of it.
    """

    read: Callable[[str, str], SettingValue]
    help: str
    takes_more: bool = False


def _read_image(key: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(_IMAGE, text)
    if not match:
        raise _not_a(key, text, "a size", "write WIDTHxHEIGHT in pixels, such as 768x512, or 512")
    width = int(match.group(1))
    height = int(match.group(2)) if match.group(2) else width
    if width < 1 or height < 1:
        raise UsageError(f"{key} {text}: width and height must be at least 1")
    return width, height


def _read_count(key: str, text: str) -> int:
    """Return a whole number of at least 1: no setting makes sense at 0."""
    if not re.fullmatch(_COUNT, text):
        if re.fullmatch(r"-[0-9]+", text):
            raise UsageError(f"{key} {text}: must be at least 1")
        raise _not_a(key, text, "a whole number", None)
    if int(text) < 1:
        raise UsageError(f"{key} {text}: must be at least 1")
    return int(text)


def _read_count_or_auto(key: str, text: str) -> SettingValue:
    return AUTO if text.lower() == AUTO else _read_count(key, text)


def _read_tokens(key: str, text: str) -> int:
    """Return a number of tokens: ``16k`` is 16,384, as contexts are counted."""
    found = re.fullmatch(_THOUSANDS, text)
    return _read_count(key, found[1]) * 1024 if found else _read_count(key, text)


def _read_tokens_or_auto(key: str, text: str) -> SettingValue:
    return AUTO if text.lower() == AUTO else _read_tokens(key, text)


def _read_number(key: str, text: str) -> float:
    if not re.fullmatch(_NUMBER, text):
        raise _not_a(key, text, "a number from 0 to 9999", "such as 7.5")
    return float(text)


def _read_word(key: str, text: str) -> str:
    if not re.fullmatch(_WORD, text):
        raise _not_a(key, text, "a word", "letters, digits and . _ + : - are accepted")
    return text


def _read_layers(key: str, text: str) -> SettingValue:
    if text.lower() in ALL_LAYERS:
        return text.lower()
    if not re.fullmatch(_COUNT, text):
        raise _not_a(key, text, "a number of layers", "write a number, all or auto")
    return int(text)  # 0 is meant: every layer on the CPU


def _read_experts(key: str, text: str) -> SettingValue:
    if text.lower() == ALL_EXPERTS:
        return ALL_EXPERTS
    if found := re.fullmatch(_RANGE, text):
        first, last = int(found[1]), int(found[2])
        if first > last:
            raise UsageError(f"{key} {text}: the first layer is behind the last")
        return f"{first}-{last}"
    if not re.fullmatch(_COUNT, text):
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
    return 0, int(text) if re.fullmatch(_COUNT, text) else 0


def _read_index(key: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) >= _MOST_CARDS:
        raise _not_a(key, text, f"a card's number from 0 to {_MOST_CARDS - 1}", None)
    return int(text)


def _read_split(key: str, text: str) -> str:
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


def _read_overrides(key: str, text: str) -> str:
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


def _read_share(key: str, text: str) -> str:
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


def _read_guardrail(key: str, text: str) -> str:
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


def _read_files(key: str, text: str) -> str:
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


def _read_quantization(key: str, text: str) -> str:
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
        if sign and not re.fullmatch(_WORD, component.strip()):
            raise _not_a(key, component[:80], "a component's name", "such as transformer:bnb-4bit")
        said.append(f"{component.strip()}:{way}" if sign else way)
    return ";".join(said)


def quantization_of(value: object) -> tuple[tuple[str | None, str], ...]:
    """Return the component and the way of each part of ``quantization``; None for all of them."""
    if value in (None, NONE):
        return ()
    parts = (part.rpartition(":") for part in str(value).split(";"))
    return tuple((component or None, way) for component, _, way in parts)


def _read_cache_config(key: str, text: str) -> str:
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
            said[name] = _read_count(f"{key} {name}", word)
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


class _Choice:
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
        word = self._synonyms.get(text.lower(), text.lower())
        if word not in self.words:
            other = self._elsewhere.get(word)
            hint = f"--set {other}" if other else did_you_mean(word, self.words)
            raise UsageError(f"unknown {key} {text!r}", hint=hint or "use " + ", ".join(self.words))
        return word


def _choice(
    choices: tuple[str, ...],
    synonyms: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> _Choice:
    return _Choice(choices, synonyms or {}, elsewhere or {})


def _unmodelled(word: str, what: str, hint: str) -> UsageError:
    return UsageError(
        f"{word!r} is known but not modelled: vramplan does not plan {what}", hint=hint
    )


def _not_a(key: str, text: str, wanted: str, hint: str | None) -> UsageError:
    return UsageError(f"{key} {text!r} is not {wanted}", hint=hint)


_SWITCH = _choice(SWITCHES, _SWITCH_SYNONYMS)

_SETTINGS: Mapping[str, _Setting] = {
    "image": _Setting(read=_read_image, help="image size, WIDTHxHEIGHT (a bare 512 is square)"),
    "batch": _Setting(read=_read_count, help="images or sequences computed at once"),
    "frames": _Setting(read=_read_count, help="frames of the video that is made"),
    "dtype": _Setting(
        read=_choice(
            DTYPES,
            _DTYPE_SYNONYMS,
            {word: f"quantization={way}" for word, way in _QUANTISED_DTYPES.items()},
        ),
        help="element type of the weights: fp16, bf16, fp32",
    ),
    "mode": _Setting(read=_read_word, help="what is run, such as txt2img, img2img, encode, train"),
    "steps": _Setting(read=_read_count, help="denoising or training steps"),
    "guidance": _Setting(
        read=_read_number, help="classifier-free guidance scale; above 1 it doubles the batch"
    ),
    "attention": _Setting(
        read=_choice(ATTENTIONS), help="attention kernels: sdpa (fused), math, sliced"
    ),
    "offload": _Setting(
        read=_choice(OFFLOADS),
        help="what leaves the GPU between uses: none, model, sequential, group, auto",
    ),
    "offload_type": _Setting(
        read=_choice(OFFLOAD_TYPES),
        help="what group offload moves at once: block_level, leaf_level",
    ),
    "num_blocks_per_group": _Setting(
        read=_read_count, help="blocks that group offload moves together, with block_level"
    ),
    "use_stream": _Setting(
        read=_SWITCH,
        help="group offload brings the next group while one runs, so two are there: on, off",
    ),
    "quantization": _Setting(
        read=_read_quantization,
        help="weights in 8 or 4 bits, by torch's libraries: bnb-8bit, bnb-4bit, bnb-4bit-dq, "
        "torchao-int8, quanto-int8, gguf-q8_0, fp8-layerwise and more; transformer:bnb-4bit for "
        "one component, several with semicolons; none",
    ),
    "vae_tiling": _Setting(read=_SWITCH, help="decode and encode the image in tiles: on, off"),
    "vae_slicing": _Setting(read=_SWITCH, help="decode a batch image by image: on, off"),
    "vae_upcast": _Setting(
        read=_SWITCH,
        help="in fp16 the VAE is cast to fp32 before it decodes: on; off for a VAE that needs no "
        "cast, such as sdxl-vae-fp16-fix",
    ),
    "device_map": _Setting(
        read=_choice(DEVICE_MAPS),
        help="who places a Transformers model's layers: auto or balanced (the loader, which offers "
        "itself 90 % of what is free; on one GPU they are the same), cuda (all on the GPU)",
    ),
    "safety_checker": _Setting(read=_SWITCH, help="load and run the safety checker: on, off"),
    "prompt_tokens": _Setting(
        read=_read_tokens, help="tokens of the prompt, without the image's; 2k is 2048"
    ),
    "new_tokens": _Setting(read=_read_tokens, help="tokens to generate; 1k is 1024"),
    "cache_implementation": _Setting(
        read=_choice(CACHES, _CACHE_SYNONYMS),
        help="the KV cache that transformers' generate() is told to use: dynamic (it grows), "
        "static (max_cache_len from the first token on), offloaded, offloaded_static, quantized",
    ),
    "max_cache_len": _Setting(
        read=_read_tokens_or_auto,
        help="tokens that a static cache has room for, 4k is 4096; auto for prompt and new tokens",
    ),
    "cache_config": _Setting(
        read=_read_cache_config,
        help="of a quantized cache: backend:quanto (or hqq, fp8), nbits:4, q_group_size:64, "
        "residual_length:128, with semicolons between; none for these",
    ),
    "context": _Setting(
        read=_read_tokens_or_auto,
        help="tokens the KV cache has room for, 16k is 16384; auto for what the engine takes by "
        "itself",
    ),
    "ubatch": _Setting(
        read=_read_tokens_or_auto,
        help="tokens of a prompt computed at once (llama.cpp); auto for what the engine takes",
    ),
    "batch_tokens": _Setting(
        read=_read_tokens,
        help="tokens that llama.cpp takes at once (its -b, 2,048 by itself): ubatch is no more",
    ),
    "parallel": _Setting(
        read=_read_count_or_auto,
        help="requests served at once (llama.cpp, Ollama); auto for what llama-server takes",
    ),
    "kv_unified": _Setting(
        read=_choice(KV_UNIFIEDS, _SWITCH_SYNONYMS),
        help="all requests share one KV cache (llama.cpp's --kv-unified), instead of a part for "
        "each: on, off, auto",
    ),
    "swa_full": _Setting(
        read=_SWITCH,
        help="layers that see a window hold the whole context (llama.cpp's --swa-full): on, off",
    ),
    "kv_type": _Setting(
        read=_choice(KV_TYPES, _KV_SYNONYMS),
        help="element type of the KV cache: f16, q8_0, q4_0",
    ),
    "key_type": _Setting(
        read=_choice((*KV_TYPES, SAME), _KV_SYNONYMS),
        help="element type of the cache's keys (llama.cpp's -ctk), where it is not kv_type's",
    ),
    "value_type": _Setting(
        read=_choice((*KV_TYPES, SAME), _KV_SYNONYMS),
        help="element type of the cache's values (llama.cpp's -ctv), where it is not kv_type's",
    ),
    "kv_offload": _Setting(
        read=_SWITCH,
        help="the KV cache is where its layers are (on), or in host memory (off; llama.cpp's "
        "--no-kv-offload)",
    ),
    "mmproj_offload": _Setting(
        read=_SWITCH,
        help="the projector is on the GPU (on), or computed on the CPU (off; llama.cpp's "
        "--no-mmproj-offload)",
    ),
    "load_mtp": _Setting(
        read=_SWITCH,
        help="load the layers that guess the tokens after the next, and a second context for them",
    ),
    "flash_attention": _Setting(
        read=_choice(FLASH_ATTENTIONS, _SWITCH_SYNONYMS),
        help="flash attention in llama.cpp: on, off, auto",
    ),
    "gpu_layers": _Setting(
        read=_read_layers,
        help="layers on the GPU: a number, all, auto; more than there are is all (-ngl 99)",
        takes_more=True,  # as llama.cpp and Ollama have it
    ),
    "cpu_moe": _Setting(
        read=_read_experts,
        help="layers whose experts stay in host memory: a number from the first on (llama.cpp's "
        "--n-cpu-moe), layers such as 6-39 (-ot), all, 0 for what the engine chooses",
    ),
    "override_tensor": _Setting(
        read=_read_overrides,
        help="tensors elsewhere than their layer (llama.cpp's -ot): PATTERN=CPU or =CUDA1, several "
        "with semicolons, the first that matches counts; none",
    ),
    "split_mode": _Setting(
        read=_choice(SPLIT_MODES),
        help="how several cards share a model (llama.cpp's -sm): layer, none (main_gpu has all), "
        "auto for what the engine does; row and tensor are not modelled",
    ),
    "tensor_split": _Setting(
        read=_read_split,
        help="the shares that several cards have of the layers (llama.cpp's -ts), such as 3/1; "
        "auto for what is free on each",
    ),
    "main_gpu": _Setting(
        read=_read_index,
        help="the card that has all of a model with split_mode=none (llama.cpp's -mg), from 0",
    ),
    "lora": _Setting(
        read=_read_files,
        help="LoRA adapters beside the model: .gguf files (llama.cpp's --lora), .safetensors files "
        "or a rank such as rank16 (torch; rank16:bf16, :fused for one in the weights), several "
        "with semicolons; none",
    ),
    "controlnet": _Setting(
        read=_read_files,
        help="ControlNets beside a pipeline of SD 1.5, 2.1, SDXL or FLUX.1: canny, depth and "
        "others (of FLUX.1 canny, union, union-pro-2.0), a .safetensors file, a folder or "
        "hf:ORG/NAME, several with semicolons; none",
    ),
    "ip_adapter": _Setting(
        read=_read_files,
        help="IP-Adapters of SD 1.5, SDXL or FLUX.1, with their image encoder: ip-adapter_sd15, "
        "ip-adapter-plus_sdxl_vit-h, flux-ip-adapter and others, or a .safetensors file, several "
        "with semicolons; none",
    ),
    "control_vector": _Setting(
        read=_read_files,
        help="control vectors beside the model (llama.cpp's --control-vector): .gguf files; none",
    ),
    "draft": _Setting(
        read=_read_files,
        help="a small model that guesses ahead (llama.cpp's -md), a .gguf file; none",
    ),
    "gpu_offload": _Setting(
        read=_read_share,
        help="LM Studio's share of the layers on the GPU: 0 to 1, max, off, auto for what fits",
    ),
    "expert_offload": _Setting(
        read=_read_share,
        help="LM Studio's share of the layers whose experts are forced onto the CPU: 0 to 1, max, "
        "off",
    ),
    "guardrail": _Setting(
        read=_read_guardrail,
        help="what LM Studio refuses to load: off, relaxed, balanced, strict, or a limit (12GiB)",
    ),
    "embedding": _Setting(
        read=_SWITCH,
        help="llama-server is to embed only (its --embedding): a result for every token: on, off",
    ),
    "pooling": _Setting(
        read=_choice(POOLINGS),
        help="how embeddings of tokens become one (llama.cpp's --pooling): none, mean, cls, last, "
        "rank, auto for the model's own",
    ),
    "engine": _Setting(read=_read_word, help="the engine's version whose rules apply"),
    "expandable_segments": _Setting(
        read=_SWITCH, help="PYTORCH_ALLOC_CONF=expandable_segments:True: on, off"
    ),
    "platform": _Setting(
        read=_choice(PLATFORMS), help="where it runs: linux, windows (spills to RAM), wsl"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a setting's values look like, for whoever offers them to be chosen.

    `kind` is choice (one of `words`), size (``WIDTHxHEIGHT``), count (a whole number from `least`
    on, or one of `words`), number, files (names of files on this machine) or text.
    """

    kind: str
    words: tuple[str, ...] = ()
    least: int = 1


def form_of(key: str) -> Form:
    """Return the form of a setting's values. Raises UsageError for a setting nobody knows."""
    read = _setting(key).read
    if isinstance(read, _Choice):
        return Form(kind="choice", words=read.words)
    forms: Mapping[Callable[[str, str], SettingValue], Form] = {
        _read_image: Form(kind="size"),
        _read_count: Form(kind="count"),
        _read_count_or_auto: Form(kind="count", words=(AUTO,)),
        _read_tokens: Form(kind="count"),
        _read_tokens_or_auto: Form(kind="count", words=(AUTO,)),
        _read_layers: Form(kind="count", words=ALL_LAYERS, least=0),
        _read_experts: Form(kind="count", words=(ALL_EXPERTS,), least=0),
        _read_index: Form(kind="count", least=0),
        _read_number: Form(kind="number"),
        _read_files: Form(kind="files"),
        _read_quantization: Form(kind="choice", words=(NONE, *QUANTIZATIONS)),
    }
    return forms.get(read, Form(kind="text"))


#: what people add to a model and vramplan does not plan, by the names that they give it
NOT_MODELLED: Mapping[str, str] = {
    **dict.fromkeys(("loras", "lora_scale", "adapter", "adapters"), "LoRA adapters"),
    **dict.fromkeys(("t2i_adapter", "t2iadapter"), "T2I-Adapters"),
    **dict.fromkeys(("textual_inversion", "embeddings", "hypernetwork"), "embeddings added later"),
    **dict.fromkeys(("refiner", "upscaler", "hires_fix"), "further models behind the first"),
    **dict.fromkeys(("torch_compile", "compile", "cuda_graphs"), "torch.compile and CUDA graphs"),
    **dict.fromkeys(("xformers", "sage_attention", "deepcache", "tome"), "attention of others"),
    **dict.fromkeys(("fps", "frame_rate"), "the speed of a video"),
    **dict.fromkeys(("tensor_parallel", "pipeline_parallel", "num_gpus"), "several GPUs"),
}

#: what some pipelines have a setting for, and others do not
_MODELLED_BY_SOME: Mapping[str, str] = {
    "lora": "LoRA adapters here",
    "quantization": "weights quantised by torch here",
    "controlnet": "ControlNets here",
    "ip_adapter": "IP-Adapters here",
}

#: how like a setting's name a word must be to be taken for it: 'controlnet' is not 'context'
_LIKENESS = 0.75

#: one line on every setting, for --help, in the order they are shown
SETTING_HELP: dict[str, str] = {key: setting.help for key, setting in _SETTINGS.items()}


#: settings that torch's pipelines have and most runs leave alone, at what changes nothing
IDLE: Mapping[str, SettingValue] = {
    "quantization": NONE,
    "lora": NONE,
    "controlnet": NONE,
    "ip_adapter": NONE,
    "cache_implementation": CACHES[0],
}
#: those of them that change weights
OF_WEIGHTS = ("quantization", "lora", "controlnet", "ip_adapter")
#: and those that say how group offload works
OF_GROUPS: Mapping[str, SettingValue] = {
    "offload_type": OFFLOAD_TYPES[0],
    "num_blocks_per_group": 1,
    "use_stream": "off",
}

#: and those that say how another cache than the growing one works
OF_CACHES: Mapping[str, SettingValue] = {"max_cache_len": AUTO, CACHE_CONFIG: NONE}
_TELLS: Mapping[str, tuple[str, ...]] = {
    "max_cache_len": ("static", "offloaded_static"),
    CACHE_CONFIG: ("quantized",),
}


def told(chosen: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
    """Return settings without those that have nothing to say: idle ones, and how to do nothing."""
    is_grouped = chosen.get("offload") == "group"
    cache = chosen.get("cache_implementation")
    return {
        key: value
        for key, value in chosen.items()
        if value != IDLE.get(key)
        and (is_grouped or key not in OF_GROUPS)
        and (key not in OF_CACHES or cache in _TELLS[key])
    }


def parse_setting(key: str, text: str) -> SettingValue:
    """Return the value that `text` stands for: ``parse_setting("image", "512")`` is (512, 512).

    Raises UsageError for a setting nobody knows and for text that the setting does not take.
    """
    return _setting(key).read(key, text.strip())


def parse_assignment(text: str) -> tuple[str, SettingValue]:
    """Return the key and the value of a ``key=value`` from the command line."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise UsageError(f"not a setting: {text!r}", hint="write key=value, such as batch=2")
    return key.strip(), parse_setting(key.strip(), value)


def format_setting(key: str, value: SettingValue) -> str:
    """Return the text of a setting's value; `parse_setting` reads it back to the same value."""
    _setting(key)
    if isinstance(value, tuple):
        return f"{value[0]}x{value[1]}"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


def write_target(text: str, settings: Mapping[str, SettingValue]) -> str:
    """Return a TARGET with settings of its own, as the command line takes it: ``sd15[batch=2]``."""
    if not settings:
        return text
    said = ",".join(f"{key}={format_setting(key, value)}" for key, value in settings.items())
    return f"{text}[{said}]"


def _setting(key: str) -> _Setting:
    setting = _SETTINGS.get(key)
    if setting is None:
        _refuse_unmodelled(key, NOT_MODELLED)
        plain = key.lower().replace("-", "_").strip("_")
        theirs = plain if plain in _SETTINGS else _OF_OTHERS.get(plain)
        near = did_you_mean(key, _SETTINGS, likeness=_LIKENESS)
        hint = near or "settings: " + ", ".join(_SETTINGS)
        if theirs is not None:
            hint = f"here it is called {theirs}"
        raise UsageError(f"unknown setting {key!r}", hint=hint)
    return setting


#: what llama.cpp's options and Ollama's parameters are called here (common/arg.cpp; api/types.go)
_OF_OTHERS = {
    **dict.fromkeys(("c", "ctx", "ctx_size", "n_ctx", "num_ctx"), "context"),
    **dict.fromkeys(("b", "batch_size", "n_batch"), "batch_tokens"),
    **dict.fromkeys(("ub", "ubatch_size", "n_ubatch", "num_batch"), "ubatch"),
    **dict.fromkeys(("np", "n_parallel", "num_parallel"), "parallel"),
    **dict.fromkeys(("ngl", "n_gpu_layers", "num_gpu"), "gpu_layers"),
    **dict.fromkeys(("ncmoe", "n_cpu_moe", "cmoe"), "cpu_moe"),
    **dict.fromkeys(("ctk", "cache_type_k", "type_k"), "key_type"),
    **dict.fromkeys(("ctv", "cache_type_v", "type_v"), "value_type"),
    **dict.fromkeys(("nkvo", "no_kv_offload"), "kv_offload (kv_offload=off)"),
    **dict.fromkeys(("no_mmproj_offload",), "mmproj_offload (mmproj_offload=off)"),
    **dict.fromkeys(("fa", "flash_attn"), "flash_attention"),
    "kvu": "kv_unified",
    **dict.fromkeys(("cache", "kv_cache", "cache_class"), "cache_implementation"),
    "max_cache_length": "max_cache_len",
    "ts": "tensor_split",
    "sm": "split_mode",
    "mg": "main_gpu",
    "ot": "override_tensor",
    "embeddings": "embedding",
    "lora_scaled": "lora",
    **dict.fromkeys(("control_net", "controlnets"), "controlnet"),
    **dict.fromkeys(("ipadapter", "ip_adapters", "ip_adapter_image"), "ip_adapter"),
    **dict.fromkeys(("md", "model_draft"), "draft"),
    "rpc": "a card: --card rtx-4090+rpc:rtx-3090, with the card that the other machine serves",
}


def _refuse_unmodelled(key: str, unmodelled: Mapping[str, str]) -> None:
    """Raise UsageError for what people add to a model and nobody plans."""
    what = unmodelled.get(key.lower().replace("-", "_"))
    if what is not None:
        hint = "leave it out; what it takes comes on top, and --margin keeps room for it"
        raise _unmodelled(key, what, hint)


def check_setting(pipeline: Configurable, key: str, value: SettingValue) -> None:
    """Raise UsageError when `pipeline` has no setting `key` or does not take `value` for it."""
    if key not in pipeline.defaults:
        _setting(key)
        _refuse_unmodelled(key, _MODELLED_BY_SOME)
        known = ", ".join(pipeline.defaults)
        near = did_you_mean(key, pipeline.defaults, likeness=_LIKENESS)
        hint = f"{near} it has: {known}" if near else f"it has: {known}"
        raise UsageError(f"{pipeline.name} has no setting {key!r}", hint=hint)
    _check_type(key, value)
    bounds = pipeline.constraints.get(key)
    if bounds is None:
        return
    if bounds.choices and isinstance(value, str) and value not in bounds.choices:
        near = did_you_mean(value, bounds.choices)
        takes = "takes " + ", ".join(bounds.choices)
        hint = f"{near} it {takes}" if near else f"it {takes}"
        raise UsageError(f"{pipeline.name} has no {key} {value!r}", hint=hint)
    if not isinstance(value, str):
        _check_numbers(key, value, bounds)


def _check_type(key: str, value: SettingValue) -> None:
    """Raise where a caller passes what `parse_setting` could not have returned."""
    text = format_setting(key, value)
    if parse_setting(key, text) != value and not isinstance(value, float):
        raise UsageError(f"{key} {value!r} is not in its plain form", hint=f"write {text}")


def _check_numbers(key: str, value: int | float | tuple[int, int], bounds: Bounds) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    what = "width and height must be" if isinstance(value, tuple) else "must be"
    text = f"{key} {format_setting(key, value)}"
    low, high, step = bounds.minimum, bounds.maximum, bounds.multiple_of
    if low is not None and min(numbers) < low:
        raise UsageError(f"{text}: {what} at least {low}", hint=_nearest(key, value, bounds))
    if high is not None and max(numbers) > high and not _SETTINGS[key].takes_more:
        raise UsageError(f"{text}: {what} at most {high}", hint=_nearest(key, value, bounds))
    if step is not None and any(number % step for number in numbers):
        kind = "multiples" if isinstance(value, tuple) else "a multiple"
        raise UsageError(f"{text}: {what} {kind} of {step}", hint=_nearest(key, value, bounds))


def _nearest(key: str, value: int | float | tuple[int, int], bounds: Bounds) -> str:
    """Return the values next to `value`, below and above, that the bounds accept."""
    sides = value if isinstance(value, tuple) else (value,)
    below = tuple(_fit(side, bounds, up=False) for side in sides)
    above = tuple(_fit(side, bounds, up=True) for side in sides)
    found = dict.fromkeys(
        format_setting(key, (near[0], near[1]) if len(near) == 2 else near[0])
        for near in (below, above)
    )
    return "nearest that work: " + ", ".join(found)


def _fit(number: float, bounds: Bounds, *, up: bool) -> int:
    step = bounds.multiple_of or 1
    low = -(-(bounds.minimum or 1) // step) * step
    rounded = math.ceil(number / step) * step if up else math.floor(number / step) * step
    if bounds.maximum is not None:
        rounded = min(rounded, bounds.maximum // step * step)
    return max(rounded, low)


def resolve_settings(
    pipeline: Configurable, overrides: Mapping[str, SettingValue]
) -> dict[str, SettingValue]:
    """Return the pipeline's defaults with `overrides` over them, each of them checked."""
    for key, value in overrides.items():
        check_setting(pipeline, key, value)
    return {**pipeline.defaults, **overrides}
