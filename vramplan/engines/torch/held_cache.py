"""What a KV cache of transformers holds on the GPU, by its kind and the layers of its model.

The kinds are those of ``generate(cache_implementation=…)``. A growing cache is in a model's tape
already, and no line of its own; what the others hold instead is counted here. Source: transformers
5.23.0 (4.57.6 holds the same), cache_utils.py, `DynamicLayer`, `DynamicSlidingWindowLayer`,
`StaticLayer`, `StaticSlidingWindowLayer`, `QuantizedLayer` and `Cache.update`; generation/utils.py,
`_prepare_cache_for_generation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.model import Band, Origin, Settings
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import CACHE_CONFIG, cache_config_of

DYNAMIC, STATIC, QUANTIZED = "dynamic", "static", "quantized"
OFFLOADED, OFFLOADED_STATIC = "offloaded", "offloaded_static"

#: families whose layers are all alike or alternate as said here, by how their classes begin; tests
#: hold each to its own class. `_EVERY` are those where one layer of so many sees everything
_FAMILIES = (
    "Cohere2", "Cohere", "Gemma2", "Gemma3", "Gemma", "GptOss", "Granite", "GraniteMoe", "Llama",
    "Mistral", "Mixtral", "Olmo2", "Phi3", "Phi", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe",
    "SmolLM3", "StableLm", "Starcoder2",
)  # fmt: skip
_GENERATES = "ForCausalLM"
_EVERY: Mapping[str, int] = {"Gemma2": 2, "GptOss": 2, "Cohere2": 4, "Gemma3": 6}
#: windows that a class takes where its config says none
_WINDOWS: Mapping[str, int] = {
    **dict.fromkeys(("Cohere2", "Gemma2", "Gemma3", "Mistral"), 4096),
    "GptOss": 128,
}
#: families whose window is off unless their config says otherwise
_WINDOW_IS_OFF = ("Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe")
_FULL, _SLIDING = "full_attention", "sliding_attention"
#: a config's numbers: what is beyond is no model's
_LARGEST, _MOST_LAYERS = 1 << 24, 1 << 12

_FP32 = 4
#: at work in one layer, in keys of that layer, behind the first step and in it: the cache is
#: unpacked, and put together with what is new. Live tensors seen while `update` of the real classes
#: runs (optimum-quanto 0.2.7, hqq 0.2.8, transformers 5.23.0): usual, and when it is quantised anew
_WORK: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "quanto": ((1, 1), (4, 5)),
    "hqq": ((18, 18), (4, 22)),
    "fp8": ((4, 5), (6, 7)),
}
#: of a static layer's keys in half precision, what attention without a fused kernel makes of it for
#: one token: keys, scaled keys and values in fp32 (aten/src/ATen/native/transformers/attention.cpp,
#: `_scaled_dot_product_attention_math`; as recordings have it)
_COPIES = 6
#: bytes that hold so many of HQQ's 3-bit numbers
_THREE_BITS, _WORD = 10, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayer:
    """One layer: the elements of a token's keys (its values have as many), and what it sees."""

    elements: int
    window: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is on the GPU of a cache while a prompt is read, and while tokens are made.

    `grown` is what the growing cache has there in the same phase; `work` is what is live beside it
    in one layer, as usual and at most.
    """

    cache: Band
    grown: int
    layer_keys: int
    work: tuple[int, int] = (0, 0)


# ---------------------------------------------------------------------------------- the layers
def layers_of(class_path: str, config: Mapping[str, object]) -> tuple[CacheLayer, ...]:
    """Return a language model's layers by its config; none where its family is not known here."""
    name = class_path.rpartition(".")[2]
    family = name.removesuffix(_GENERATES)
    if not name.endswith(_GENERATES) or family not in _FAMILIES:
        return ()
    heads = _number(config, "num_attention_heads")
    hidden, count = _number(config, "hidden_size"), _number(config, "num_hidden_layers")
    if not (heads and hidden and 0 < count <= _MOST_LAYERS):
        return ()
    width = _number(config, "head_dim") or hidden // heads
    elements = width * (_number(config, "num_key_value_heads") or heads)
    windows = _windows(family, config, count)
    return tuple(CacheLayer(elements=elements, window=window) for window in windows)


def _windows(family: str, config: Mapping[str, object], count: int) -> list[int | None]:
    """Return the tokens that each layer sees; None for all of them."""
    told = config.get("sliding_window", _WINDOWS.get(family))
    window = _number({"window": told}, "window") or None
    if not config.get("use_sliding_window", family not in _WINDOW_IS_OFF):
        window = None
    said = config.get("layer_types")
    if isinstance(said, Sequence) and len(said) == count:
        return [window if kind == _SLIDING else None for kind in said]
    every = _number(config, "sliding_window_pattern") or _EVERY.get(family, 0)
    return [None if every and (n + 1) % every == 0 else window for n in range(count)]


def _number(config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 < value < _LARGEST else 0


# ---------------------------------------------------------------------------------- what is held
def held(
    layers: Sequence[CacheLayer], settings: Settings, kernel: str = "flash"
) -> dict[str, Held]:
    """Return what is held in each phase that has a cache: prefill and generate.

    `kernel` is the attention's: without a fused one a step works on all of a static layer, in fp32.
    """
    run = _run(layers, settings)
    kind = str(settings["cache_implementation"])
    if kind == QUANTIZED:
        return dict(_quantized(run))
    if kind in (STATIC, OFFLOADED_STATIC):
        room = static_tokens(settings)
        sizes = [2 * run.layer(one, min(room, one.window or room)) for one in layers]
    else:
        sizes = [2 * run.layer(one, run.last) for one in layers]
    there = _there(sizes, layers, kind)
    # both halves of a layer are in its size, and copies are counted in keys
    copies = _COPIES * max(sizes) // 2 if kernel == "math" and "static" in kind else 0
    return {
        "prefill": run.held(there, "prefill"),
        "generate": run.held(there, "generate", (copies, copies)),
    }


def static_tokens(settings: Settings) -> int:
    """Return the tokens that a static cache has room for: never fewer than are put in."""
    put_in = _count(settings, "prompt_tokens") + _count(settings, "new_tokens") - 1
    asked = settings.get("max_cache_len")
    return max(put_in, asked) if isinstance(asked, int) else put_in


def moved_bytes(layers: Sequence[CacheLayer], settings: Settings) -> int:
    """Return what an offloaded cache moves over PCIe in a run: each layer, both ways, each step."""
    kind = str(settings["cache_implementation"])
    if kind not in (OFFLOADED, OFFLOADED_STATIC):
        return 0
    run = _run(layers, settings)
    steps = run.last - run.prompt
    if kind == OFFLOADED_STATIC:
        room = static_tokens(settings)
        whole = 2 * sum(run.layer(one, room) for one in layers if one.window is None)
        return 2 * steps * whole
    return (
        steps
        * 2
        * sum(
            run.layer(one, min(tokens, one.window or tokens))
            for one in layers
            for tokens in (run.prompt, run.last)  # half of it at the first step, so to say
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    layers: Sequence[CacheLayer]
    settings: Settings
    prompt: int
    last: int

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[str(self.settings.get("dtype", "fp32"))]

    @property
    def batch(self) -> int:
        return _count(self.settings, "batch")

    def layer(self, one: CacheLayer, tokens: int) -> int:
        """Return the bytes of so many tokens' keys in a layer."""
        return one.elements * tokens * self.batch * self.element_bytes

    def held(self, cache: Band, phase: str, work: tuple[int, int] = (0, 0)) -> Held:
        """Return what is held in a phase, beside what the growing cache would have there."""
        # a layer with a window keeps the whole prompt until the next token: it is a view of that
        whole = 2 * sum(self.layer(one, self.prompt) for one in self.layers)
        cut = 2 * sum(
            self.layer(one, min(self.last, one.window or self.last)) for one in self.layers
        )
        tokens = self.prompt if phase == "prefill" else self.last
        keys = max(self.layer(one, tokens) for one in self.layers)
        grown = whole if phase == "prefill" else max(whole, cut)
        return Held(cache=cache, grown=grown, layer_keys=keys, work=work)


def _run(layers: Sequence[CacheLayer], settings: Settings) -> _Run:
    prompt, new = (_count(settings, key) for key in ("prompt_tokens", "new_tokens"))
    # the token made last is never put in
    return _Run(layers=layers, settings=settings, prompt=prompt, last=prompt + new - 1)


def _there(sizes: Sequence[int], layers: Sequence[CacheLayer], kind: str) -> Band:
    """Return what of layers of these sizes is on the GPU: all, or the one at work and the next."""
    if kind == STATIC:
        return Band.exactly(sum(sizes))
    # StaticCache leaves layers with a window where they are; DynamicCache moves them too
    stay = kind == OFFLOADED_STATIC
    fixed = sum(size for size, one in zip(sizes, layers, strict=True) if stay and one.window)
    moved = [size for size, one in zip(sizes, layers, strict=True) if not (stay and one.window)]
    most = sorted(moved, reverse=True)
    # the copy to the CPU of the one before may not have ended
    low, expected, high = (fixed + sum(most[:count]) for count in (1, 2, 3))
    return Band(low_bytes=low, expected_bytes=expected, high_bytes=high)


def _quantized(run: _Run) -> Iterator[tuple[str, Held]]:
    config = cache_config_of(run.settings.get(CACHE_CONFIG))
    backend = str(config["backend"])
    first, later = _WORK[backend]
    whole = 2 * sum(_packed(run, one, run.prompt, config) for one in run.layers)
    keys = max(run.layer(one, run.prompt) for one in run.layers)
    work = first[0] * keys, first[1] * keys
    yield "prefill", run.held(Band.exactly(whole), "prefill", work)
    most = 2 * max(
        sum(_packed(run, one, packed, config) + run.layer(one, waiting) for one in run.layers)
        for packed, waiting in _states(run, config)
    )
    keys = max(run.layer(one, run.last) for one in run.layers)
    work = later[0] * keys, later[1] * keys
    yield "generate", run.held(Band.exactly(most), "generate", work)


def _states(run: _Run, config: Mapping[str, str | int]) -> Iterator[tuple[int, int]]:
    """Yield how many tokens are quantised, and how many are not yet, where most may be held.

    New ones wait until there are `residual_length` of them; then all of the cache is quantised
    anew. Most is held at the end, or just before it was done last.
    """
    if config["backend"] == "fp8":  # each as it comes
        yield run.last, 0
        return
    made, room = run.last - run.prompt, int(config["residual_length"])
    times, waiting = divmod(made, room)
    yield run.last - waiting, waiting
    if times:
        yield run.prompt + (times - 1) * room, room - 1


def _packed(run: _Run, one: CacheLayer, tokens: int, config: Mapping[str, str | int]) -> int:
    """Return the bytes of a layer's keys of so many tokens, quantised, with their scales.

    Measured on the libraries' own tensors; on which axis makes no difference to their sizes.
    """
    numbers = one.elements * tokens * run.batch
    if config["backend"] == "fp8":
        return numbers + _FP32  # one scale
    bits, group = int(config["nbits"]), int(config["q_group_size"])
    groups = -(-numbers // group)
    if bits == 3:
        packed = -(-group // _THREE_BITS) * _WORD * groups
    else:
        packed = -(-groups * bits // 8) * group
    return packed + 2 * groups * run.element_bytes  # a scale and a zero each, in the keys' type


def how_sure(kind: str, config: Mapping[str, str | int]) -> tuple[Origin, str]:
    """Return how sure the bytes of a cache are, and why."""
    if kind in (OFFLOADED, OFFLOADED_STATIC):
        return Origin.ASSUMED, "of the cache, the layer at work and the next: the others are in RAM"
    if kind == QUANTIZED:
        said = ", ".join(f"{key} {value}" for key, value in config.items())
        return Origin.EXACT, f"transformers' QuantizedCache, {said}: counted with scales"
    return Origin.EXACT, "transformers' StaticCache, all of it from the first token on"


def _count(settings: Settings, key: str) -> int:
    value = settings.get(key, 1)
    return value if isinstance(value, int) else 1
