"""The KV caches of transformers: what they hold, against its own classes and against recordings."""

from __future__ import annotations

import json

import pytest

from tests.saved_models import write
from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch.another_cache import as_grown
from vramplan.engines.torch.estimate import estimate_torch
from vramplan.engines.torch.held_cache import CacheLayer, held, layers_of, moved_bytes
from vramplan.engines.torch.kv_cache import with_cache
from vramplan.engines.torch.measure import place_order
from vramplan.engines.torch.open import open_entry
from vramplan.engines.torch.open_saved import find_saved
from vramplan.errors import UsageError
from vramplan.known_settings import told
from vramplan.model import LineKind, Origin
from vramplan.runner.tools import Tools
from vramplan.setting_values import CACHES, cache_config_of
from vramplan.settings import parse_setting

CATALOG = load_catalog()
RUN = {"prompt_tokens": 40, "new_tokens": 5, "batch": 2, "dtype": "fp32"}
FAMILIES = {
    "Cohere2": {"sliding_window": 16},
    "Cohere": {},
    "Gemma2": {"sliding_window": 16, "head_dim": 8},
    "Gemma3": {"sliding_window": 16, "head_dim": 8},
    "Gemma": {"head_dim": 8},
    "GptOss": {"sliding_window": 16, "head_dim": 8, "num_local_experts": 4},
    "Granite": {},
    "GraniteMoe": {},
    "Llama": {},
    "Mistral": {"sliding_window": 16},
    "Mixtral": {"sliding_window": None},
    "Olmo2": {},
    "Phi3": {"sliding_window": None, "pad_token_id": 0},
    "Phi": {},
    "Qwen2": {"sliding_window": 16},
    "Qwen2Moe": {},
    "Qwen3": {"head_dim": 8},
    "Qwen3Moe": {"head_dim": 8},
    "SmolLM3": {"pad_token_id": 0},
    "StableLm": {},
    "Starcoder2": {"sliding_window": None},
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}


def tiny(family):
    return {**TINY, **FAMILIES[family]}


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_those_of_the_librarys_own_cache(family):
    """Every family's layers and their shapes: what StaticCache makes of a real config."""
    transformers = pytest.importorskip("transformers")
    bare = {key: value for key, value in tiny(family).items() if key != "sliding_window"}
    for config in (tiny(family), bare):
        made = _config(transformers, family)(**config)
        layers = layers_of(f"transformers.{family}ForCausalLM", config)
        assert [(one.elements, one.window) for one in layers] == _shapes(made)


def _config(transformers, family):
    name = {"Gemma3": "Gemma3TextConfig"}.get(family, f"{family}Config")
    return getattr(transformers, name)


def _shapes(config):
    """Return of each layer the elements of a token's keys, and its window."""
    from transformers import StaticCache

    room = 1 << 20
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = StaticCache(config=config, max_cache_len=room).layers
    return [
        (heads * width, None if one.max_cache_len == room else one.max_cache_len) for one in layers
    ]


def test_every_entrys_layers_are_its_classs():
    """Of the catalogue's language models, each by its own config."""
    transformers = pytest.importorskip("transformers")
    seen = 0
    for entry in CATALOG.pipelines.values():
        if entry.runtime != "transformers" or "new_tokens" not in entry.defaults:
            continue
        (spec,) = entry.components()
        pipeline = open_entry(entry, CATALOG.folders)
        name = spec.class_path.rpartition(".")[2]
        assert bool(pipeline.cache_layers) is name.endswith("ForCausalLM")
        if not pipeline.cache_layers:
            continue
        config = getattr(transformers, name).config_class(**spec.config)
        assert [(one.elements, one.window) for one in pipeline.cache_layers] == _shapes(config)
        seen += 1
    assert seen >= 18


@pytest.mark.parametrize(
    ("family", "asked"), [("Llama", None), ("Gemma3", None), ("Gemma3", 64), ("GptOss", 64)]
)
def test_a_static_cache_holds_what_the_real_one_does(family, asked):
    """A tiny model generates for real, and its cache's tensors are measured."""
    pytest.importorskip("transformers")
    layers = layers_of(f"transformers.{family}ForCausalLM", tiny(family))
    settings = {**RUN, "cache_implementation": "static", "max_cache_len": asked or "auto"}
    there = held(layers, settings)["generate"].cache
    words = {} if asked is None else {"max_cache_len": asked}
    cache = _generate(family, cache_implementation="static", disable_compile=True, **words)
    assert there.low_bytes == there.high_bytes == _bytes(cache)


@pytest.mark.parametrize("family", ["Llama", "Gemma3"])
def test_the_growing_cache_is_taken_off_as_it_is(family):
    pytest.importorskip("transformers")
    layers = layers_of(f"transformers.{family}ForCausalLM", tiny(family))
    settings = {**RUN, "cache_implementation": "static", "max_cache_len": "auto"}
    grown = held(layers, settings)
    real = _bytes(_generate(family, max_new_tokens=1))
    assert grown["prefill"].grown == real
    # later a layer with a window has less
    assert grown["generate"].grown == max(real, _bytes(_generate(family)))


def _generate(family, **words):
    import torch
    import transformers

    name = f"{family}ForCausalLM"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small waits for others longer than it works
    model = getattr(transformers, name)(_config(transformers, family)(**tiny(family))).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    ids = torch.full((RUN["batch"], RUN["prompt_tokens"]), 7)
    given = {"max_new_tokens": RUN["new_tokens"], "do_sample": False, **words}
    try:
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            return_dict_in_generate=True,
            **given,
        )
    finally:
        torch.set_num_threads(threads)
    return out.past_key_values


def _bytes(cache):
    """Return the bytes of the storages that a cache keeps: a view keeps all of what it is of."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


#: bytes of one layer's keys, 4 heads of 64, quantised: measured on the libraries' own tensors
MEASURED = [
    ("none", 512, "bf16", 73_728),
    ("none", 512, "fp32", 81_920),
    ("nbits:2", 512, "bf16", 40_960),
    ("nbits:2", 33, "bf16", 2_640),
    ("backend:hqq", 512, "bf16", 73_728),
    ("backend:hqq;nbits:1", 512, "bf16", 24_576),
    ("backend:hqq;nbits:3", 512, "bf16", 65_536),
    ("backend:hqq;nbits:8", 512, "bf16", 139_264),
    ("backend:fp8", 512, "bf16", 131_076),
]


@pytest.mark.parametrize(("config", "tokens", "dtype", "size"), MEASURED)
def test_quantised_bytes(config, tokens, dtype, size):
    layer = CacheLayer(elements=256)
    run = {"prompt_tokens": tokens, "new_tokens": 1, "batch": 1, "dtype": dtype}
    settings = {**run, "cache_implementation": "quantized", "cache_config": config}
    there = held([layer], settings)
    assert there["prefill"].cache.expected_bytes == 2 * size


@pytest.mark.parametrize("backend", ["quanto", "hqq", "fp8"])
def test_quantised_bytes_of_the_real_cache(backend):
    """Where the backend is installed: its own cache, step by step."""
    if backend != "fp8":
        pytest.importorskip({"quanto": "optimum.quanto", "hqq": "hqq"}[backend])
    torch = pytest.importorskip("torch")
    from transformers import cache_utils

    if backend == "fp8" and not hasattr(cache_utils, "Fp8QuantizedLayer"):
        pytest.skip("transformers has no fp8 cache")
    kind = {"quanto": "Quanto", "hqq": "HQQ", "fp8": "Fp8"}[backend]
    words = {} if backend == "fp8" else {"residual_length": 4}
    layer = getattr(cache_utils, f"{kind}QuantizedLayer")(**words)
    prompt, new, most = 20, 8, 0
    for step in range(new):
        shape = (1, 4, prompt if step == 0 else 1, 64)
        layer.update(torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16())
        most = max(most, _quantised_bytes(layer))
    config = f"backend:{backend}" + (";residual_length:4" if words else "")
    run = {"prompt_tokens": prompt, "new_tokens": new, "batch": 1, "dtype": "bf16"}
    settings = {**run, "cache_implementation": "quantized", "cache_config": config}
    there = held([CacheLayer(elements=256)], settings)
    assert there["generate"].cache.expected_bytes == most


def _quantised_bytes(layer):
    inside = [layer.keys, layer.values, layer._quantized_keys, layer._quantized_values]
    return sum(_tensor_bytes(one) for one in inside)


def _tensor_bytes(value):
    import torch

    if isinstance(value, tuple | list):
        return sum(map(_tensor_bytes, value))
    if isinstance(value, dict):
        return sum(map(_tensor_bytes, value.values()))
    if hasattr(value, "__tensor_flatten__"):
        return sum(_tensor_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    return value.untyped_storage().nbytes() if isinstance(value, torch.Tensor) else 0


def test_more_is_held_while_tokens_wait_than_when_they_are_quantised():
    settings = {**RUN, "cache_implementation": "quantized", "prompt_tokens": 64, "dtype": "bf16"}
    layers = [CacheLayer(elements=256)]

    def at(new):
        return held(layers, {**settings, "new_tokens": new})["generate"].cache.expected_bytes

    assert at(128) > at(2)
    assert at(130) >= at(128)  # the last state before it was quantised anew holds more


def test_an_offloaded_cache_has_two_layers_on_the_gpu():
    layers = [CacheLayer(elements=10), CacheLayer(elements=10, window=8), CacheLayer(elements=10)]
    settings = {**RUN, "dtype": "bf16"}
    one = 2 * 10 * 44 * 2 * 2
    there = held(layers, {**settings, "cache_implementation": "offloaded_static"})["generate"]
    beside = one * 8 // 44  # a static layer with a window stays
    assert there.cache.expected_bytes == 2 * one + beside
    assert there.cache.low_bytes == one + beside


def test_where_the_layers_are_not_known_there_is_no_setting():
    assert layers_of("transformers.MambaForCausalLM", TINY) == ()
    assert layers_of("transformers.LlamaForCausalLM", {**TINY, "num_hidden_layers": "7"}) == ()
    assert layers_of("transformers.LlamaForCausalLM", {**TINY, "num_hidden_layers": 1 << 30}) == ()
    assert layers_of("transformers.WhisperForConditionalGeneration", TINY) == ()


@pytest.mark.parametrize(
    "text",
    ["backend:vllm", "nbits:3", "bits:4", "backend:fp8;nbits:8", "nbits:4;nbits:2", "nbits", ":4"],
)
def test_cache_config_that_transformers_refuses(text):
    with pytest.raises(UsageError, match="cache_config"):
        parse_setting("cache_config", text)


def test_cache_config_is_read_back():
    text = parse_setting("cache_config", " nbits:8 ; backend:HQQ")
    assert text == "backend:hqq;nbits:8"
    assert parse_setting("cache_config", text) == text
    assert cache_config_of(text)["residual_length"] == 128


def test_old_names_are_todays():
    assert parse_setting("cache_implementation", "hybrid") == "static"
    with pytest.raises(UsageError, match="unknown setting 'cache'") as problem:
        parse_setting("cache", "static")
    assert problem.value.hint == "here it is called cache_implementation"


def test_what_says_nothing_is_not_told():
    settings = {"cache_implementation": "static", "max_cache_len": 64, "cache_config": "none"}
    assert told(settings) == {"cache_implementation": "static", "max_cache_len": 64}
    assert told({**settings, "cache_implementation": "dynamic"}) == {}


# -------------------------------------------------------------------------------- of a budget
def estimate(name, card="rtx-4090", **settings):
    (job,) = make_jobs([name], CATALOG, settings)
    return engine_of(job.pipeline).estimate(job, CATALOG.card(card).candidates[0])


LONG = {"prompt_tokens": 4096, "new_tokens": 512, "batch": 4}


@pytest.mark.parametrize("kind", CACHES)
def test_lines_add_up_with_any_cache(kind):
    found = estimate("llama-3.1-8b", **LONG, cache_implementation=kind)
    for end in ("low_bytes", "expected_bytes", "high_bytes"):
        assert sum(getattr(line.band, end) for line in found.lines) == getattr(
            found.peak.device, end
        )
    assert found.settings["cache_implementation"] == kind
    kinds = [line.kind for line in found.lines]
    assert (LineKind.KV_CACHE in kinds) is (kind != "dynamic")
    top = max(found.phases, key=lambda phase: phase.allocated_peak_bytes)
    assert found.need.phase == found.peak.phase == top.name


def test_a_cache_costs_what_it_holds():
    """Twice the room, twice the bytes, and nothing else of the expected need."""
    small, large = (
        estimate("llama-3.1-8b", **LONG, cache_implementation="static", max_cache_len=tokens)
        for tokens in (8192, 16384)
    )
    token = 2 * 32 * 8 * 128 * 2 * LONG["batch"]
    assert small.bytes_of(LineKind.KV_CACHE) == 8192 * token
    assert large.need.band.expected_bytes - small.need.band.expected_bytes == 8192 * token


def test_smaller_caches_need_less():
    need = {
        kind: estimate("llama-3.1-8b", **LONG, cache_implementation=kind).need.band.expected_bytes
        for kind in CACHES
    }
    assert need["offloaded"] < need["quantized"] < need["dynamic"]
    assert need["offloaded_static"] < need["static"]


def test_a_window_bounds_what_a_static_layer_holds():
    found = estimate("gpt-oss-20b", cache_implementation="static", max_cache_len=4096)
    layer = 2 * 8 * 64 * 2
    assert found.bytes_of(LineKind.KV_CACHE) == 12 * layer * (4096 + 128)
    with pytest.raises(UsageError, match="no cache_implementation 'quantized'"):
        estimate("gpt-oss-20b", cache_implementation="quantized")


def test_a_grader_says_what_a_judge_says():
    settings = {**LONG, "cache_implementation": "quantized"}
    (job,) = make_jobs(["llama-3.1-8b"], CATALOG, settings)
    engine = engine_of(job.pipeline)
    card = CATALOG.card("rtx-4090").candidates[0]
    for budget in (16 << 30, 19 << 30, 24 << 30):
        judged, graded = engine.judge(job, card, budget), engine.grader(job)(card, budget)
        assert judged.kind == graded.kind
        assert judged.estimate.need == graded.need
        assert engine.screen(job, card, budget).completes is not judged.kind.is_failure


def test_what_an_offloaded_cache_moves():
    layers = [CacheLayer(elements=10)] * 3
    run = {"prompt_tokens": 10, "new_tokens": 3, "batch": 1, "dtype": "bf16"}
    token = 2 * 10 * 2 * 3
    settings = {**run, "cache_implementation": "offloaded"}
    assert moved_bytes(layers, settings) == 2 * (10 + 12) * token  # two steps, there and back
    static = {**settings, "cache_implementation": "offloaded_static", "max_cache_len": 100}
    assert moved_bytes(layers, static) == 2 * 2 * 100 * token
    assert moved_bytes(layers, {**settings, "cache_implementation": "static"}) == 0


def test_a_plan_offers_a_smaller_cache_where_it_takes_much():
    def offered(**settings):
        (job,) = make_jobs(["llama-3.1-8b"], CATALOG, settings)
        return [change.settings for change in engine_of(job.pipeline).changes(job)]

    assert {"cache_implementation": "quantized"} in offered(**LONG)
    assert {"cache_implementation": "offloaded"} in offered(**LONG)
    assert not any("cache_implementation" in one for one in offered())  # some 100 MiB


def test_attention_without_a_fused_kernel_works_on_all_of_a_static_layer():
    layers = [CacheLayer(elements=1024)] * 2
    settings = {**RUN, "dtype": "bf16", "cache_implementation": "static", "max_cache_len": 4096}
    keys = 1024 * 4096 * RUN["batch"] * 2
    assert held(layers, settings, "math")["generate"].work == (6 * keys, 6 * keys)
    assert held(layers, settings, "flash")["generate"].work == (0, 0)
    old, new = (
        estimate("llama-3.1-8b", card, cache_implementation="static", max_cache_len=1 << 16)
        for card in ("rtx-2080-ti", "rtx-4090")
    )
    more = 6 * 1024 * (1 << 16) * 2  # 8 heads of 128
    assert old.bytes_of(LineKind.ACTIVATIONS) >= more > new.bytes_of(LineKind.ACTIVATIONS)


@pytest.mark.slow
@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("family", ["Llama", "Gemma3", "Qwen2"])
@pytest.mark.parametrize(("room", "card"), [(None, "rtx-4090"), (4096, "rtx-2080-ti")])
def test_the_band_holds_what_a_recording_says(tmp_path, family, room, card):
    """A saved model with a static cache, recorded; and the band from the growing cache's run."""
    pytest.importorskip("transformers")
    config = {
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 32000,
        "sliding_window": 256,
        "model_type": {"Gemma3": "gemma3_text"}.get(family, family.lower()),
    }
    pipeline = _saved(tmp_path, family, config)
    card = CATALOG.card(card).candidates[0]
    settings = {**pipeline.defaults, "cache_implementation": "static"}
    if room is not None:
        settings["max_cache_len"] = room
    recorded = estimate_torch(pipeline, settings, card)
    grown = estimate_torch(pipeline, as_grown(settings), card)
    for one in (recorded, grown):
        assert any(line.origin is Origin.REPLAYED for line in one.lines)
    found = with_cache(grown, pipeline.cache_layers, settings)
    assert found.peak.phase == recorded.peak.phase
    off = abs(found.peak.allocated_bytes - recorded.peak.allocated_bytes)
    assert off < 0.01 * recorded.peak.allocated_bytes
    band = found.need.band
    assert band.low_bytes <= recorded.need.band.expected_bytes <= band.high_bytes
    assert band.high_bytes - grown.need.band.high_bytes < 64 << 20


def _saved(folder, family, config):
    import torch
    import transformers

    name = f"{family}ForCausalLM"
    kind = _config(transformers, family)
    with torch.device("meta"):
        model = getattr(transformers, name)(kind(**config)).bfloat16()
    said = [(key, "BF16", tuple(one.shape)) for key, one in model.named_parameters()]
    write(folder / "model.safetensors", said)
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))
    found = find_saved(str(folder), (), (), lambda _: None)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("llama-3.2-1b", {"cache_implementation": "static"}, "cache_implementation=static"),
        ("llama-3.2-1b", {"quantization": "bnb-4bit"}, "quantization=bnb-4bit"),
        ("sd15", {"controlnet": "canny"}, "controlnet=canny"),
        ("sd15", {"offload": "group"}, "offload=group"),
    ],
)
def test_a_measurement_does_not_run_another_program_than_is_asked_for(name, settings, said):
    (job,) = make_jobs([name], CATALOG, settings)
    with pytest.raises(UsageError, match=f"{said} is estimated, and not run"):
        place_order(job, Tools(find_gpu=lambda: (_ for _ in ()).throw(AssertionError), is_dry=True))
