"""Settings: text to value and back, and what a pipeline refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan import known_settings
from vramplan import setting_values as values
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.errors import UsageError
from vramplan.known_settings import SETTING_HELP
from vramplan.model import Constraint, Pipeline
from vramplan.setting_values import SettingValue
from vramplan.settings import (
    check_setting,
    format_setting,
    parse_assignment,
    parse_setting,
    resolve_settings,
)

counts = st.integers(min_value=1, max_value=999_999_999)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}", fullmatch=True)
sides = st.integers(min_value=1, max_value=999_999)
switches = st.sampled_from(values.SWITCHES)

VALUES: dict[str, st.SearchStrategy[SettingValue]] = {
    "image": st.tuples(sides, sides),
    "batch": counts,
    "frames": counts,
    "dtype": st.sampled_from(values.DTYPES),
    "mode": words,
    "steps": counts,
    "guidance": st.integers(min_value=0, max_value=9_999_999_999).map(lambda n: n / 1_000_000),
    "attention": st.sampled_from(values.ATTENTIONS),
    "offload": st.sampled_from(values.OFFLOADS),
    "offload_type": st.sampled_from(values.OFFLOAD_TYPES),
    "num_blocks_per_group": counts,
    "use_stream": switches,
    "quantization": st.just(values.NONE)
    | st.sampled_from(values.QUANTIZATIONS)
    | st.tuples(words, st.sampled_from(values.QUANTIZATIONS)).map(":".join),
    "vae_tiling": switches,
    "vae_slicing": switches,
    "vae_upcast": switches,
    "device_map": st.sampled_from(values.DEVICE_MAPS),
    "safety_checker": switches,
    "prompt_tokens": counts,
    "new_tokens": counts,
    "context": st.just(values.AUTO) | counts,
    "ubatch": st.just(values.AUTO) | counts,
    "parallel": st.just(values.AUTO) | counts,
    "kv_unified": st.sampled_from(values.KV_UNIFIEDS),
    "swa_full": switches,
    "kv_type": st.sampled_from(values.KV_TYPES),
    "key_type": st.sampled_from((*values.KV_TYPES, values.SAME)),
    "value_type": st.sampled_from((*values.KV_TYPES, values.SAME)),
    "kv_offload": switches,
    "mmproj_offload": switches,
    "load_mtp": switches,
    "flash_attention": st.sampled_from(values.FLASH_ATTENTIONS),
    "gpu_layers": st.sampled_from(values.ALL_LAYERS) | st.integers(0, 999_999_999),
    "cpu_moe": st.just(values.ALL_EXPERTS)
    | st.integers(0, 999_999_999)
    | st.tuples(st.integers(0, 9_999), st.integers(0, 9_999)).map(
        lambda two: "{}-{}".format(*sorted(two))
    ),
    "batch_tokens": counts,
    "override_tensor": st.just(values.NONE)
    | st.lists(
        st.tuples(
            st.from_regex(r"[a-z0-9_.]{1,20}", fullmatch=True),
            st.sampled_from(("CPU", "CUDA0", "CUDA12", "CUDA_Host")),
        ).map("=".join),
        min_size=1,
        max_size=4,
    ).map(";".join),
    "gpu_offload": st.sampled_from(("auto", "max", "off"))
    | st.integers(0, 10_000).map(lambda n: f"{n / 10_000:.4f}".rstrip("0").rstrip(".")),
    "expert_offload": st.sampled_from(("auto", "max", "off", "0.5")),
    "guardrail": st.sampled_from(values.GUARDRAILS)
    | st.integers(1, 1 << 24).map(lambda mib: f"{mib}MiB"),
    "embedding": switches,
    "pooling": st.sampled_from(values.POOLINGS),
    "cache_implementation": st.sampled_from(values.CACHES),
    "max_cache_len": st.just(values.AUTO) | st.integers(1, 10**9 - 1),
    "cache_config": st.sampled_from(
        (values.NONE, "backend:fp8", "nbits:2", "backend:hqq;nbits:8;residual_length:64")
    ),
    **dict.fromkeys(
        ("lora", "controlnet", "ip_adapter", "control_vector", "draft"),
        st.just(values.NONE)
        | st.lists(st.from_regex(r"[A-Za-z0-9_/.-]{1,20}", fullmatch=True), min_size=1, max_size=4)
        .map(";".join)
        .filter(lambda text: text.lower() != values.NONE),
    ),
    "split_mode": st.sampled_from(values.SPLIT_MODES),
    "tensor_split": st.just(values.AUTO)
    | st.lists(st.integers(1, 99_999), min_size=1, max_size=16).map(
        lambda shares: "/".join(map(str, shares))
    ),
    "main_gpu": st.integers(0, 15),
    "engine": words,
    "expandable_segments": switches,
    "platform": st.sampled_from(values.PLATFORMS),
}


def pipeline(**defaults: SettingValue) -> Pipeline:
    return Pipeline(
        name="sd15",
        title="Stable Diffusion 1.5",
        summary="",
        runtime="diffusers",
        defaults=defaults
        or {
            "image": (512, 512),
            "batch": 1,
            "mode": "txt2img",
            "guidance": 7.5,
            "vae_tiling": "off",
        },
        constraints={
            "image": Constraint(multiple_of=8, minimum=64, maximum=4096),
            "batch": Constraint(minimum=1, maximum=64),
            "mode": Constraint(choices=("txt2img", "img2img")),
            "guidance": Constraint(minimum=1, maximum=30),
        },
        source="",
        path="",
    )


def test_every_setting_has_a_line_of_help_and_values_to_try() -> None:
    assert set(SETTING_HELP) == set(VALUES)
    assert all(text and "\n" not in text for text in SETTING_HELP.values())


@given(st.data())
def test_reading_what_was_written_gives_the_same_value(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(VALUES)))
    value = data.draw(VALUES[key])
    read = parse_setting(key, format_setting(key, value))
    assert read == value
    assert type(read) is type(value)


@given(st.sampled_from(sorted(VALUES)), st.text(max_size=20))
def test_any_text_is_a_value_or_one_line_that_names_the_setting(key: str, text: str) -> None:
    refusal: UsageError | None = None
    try:
        value = parse_setting(key, text)
    except UsageError as problem:
        refusal = problem
    if refusal is None:
        assert parse_setting(key, format_setting(key, value)) == value
    else:
        assert key in str(refusal)
        assert len(str(refusal).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("image", "768x512", (768, 512)),
        ("image", "512", (512, 512)),
        ("image", " 512X640 ", (512, 640)),
        ("dtype", "float16", "fp16"),
        ("dtype", "FP16", "fp16"),
        ("dtype", "bfloat16", "bf16"),
        ("dtype", "float32", "fp32"),
        ("guidance", "7.50", 7.5),
        ("guidance", "0", 0.0),
        ("vae_tiling", "ON", "on"),
        ("vae_tiling", "true", "on"),
        ("vae_slicing", "no", "off"),
        ("flash_attention", "false", "off"),
        ("kv_type", "fp16", "f16"),
        ("kv_type", "Q8_0", "q8_0"),
        ("gpu_layers", "0", 0),
        ("gpu_layers", "ALL", "all"),
        ("engine", "b8753", "b8753"),
    ],
)
def test_people_write_values_in_several_ways(key: str, text: str, value: SettingValue) -> None:
    assert parse_setting(key, text) == value


@pytest.mark.parametrize(
    ("key", "text", "message", "hint"),
    [
        ("imgae", "512", "unknown setting 'imgae'", "did you mean 'image'?"),
        ("zzz", "1", "unknown setting 'zzz'", "settings: image, batch"),
        ("dtype", "fp17", "unknown dtype 'fp17'", "did you mean 'fp16'?"),
        ("offload", "disk", "unknown offload 'disk'", "use none, model, sequential, group, auto"),
        ("image", "512*512", "image '512*512' is not a size", "WIDTHxHEIGHT"),
        ("image", "512x", "image '512x' is not a size", "WIDTHxHEIGHT"),
        ("image", "0x512", "image 0x512: width and height must be at least 1", ""),
        ("batch", "0", "batch 0: must be at least 1", ""),
        ("batch", "-2", "batch -2: must be at least 1", ""),
        ("batch", "1.5", "batch '1.5' is not a whole number", ""),
        ("batch", "1_000", "batch '1_000' is not a whole number", ""),
        ("batch", "١", "batch '١' is not a whole number", ""),
        ("batch", "9" * 30, "is not a whole number", ""),
        ("guidance", "nan", "guidance 'nan' is not a number", ""),
        ("guidance", "-1", "guidance '-1' is not a number", ""),
        ("gpu_layers", "most", "gpu_layers 'most' is not a number of layers", "all or auto"),
        ("mode", "a b", "mode 'a b' is not a word", ""),
        ("engine", "", "engine '' is not a word", ""),
    ],
)
def test_bad_text_is_refused_in_one_line(key: str, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_setting(key, text)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_assignments_are_read_whole() -> None:
    assert parse_assignment("image=512x640") == ("image", (512, 640))
    assert parse_assignment(" batch = 2") == ("batch", 2)
    for text in ("batch", "batch=", "=2", "="):
        with pytest.raises(UsageError, match="not a setting"):
            parse_assignment(text)


def test_dtypes_are_those_with_a_known_size() -> None:
    assert set(values.DTYPES) == set(ELEMENT_BYTES)


@pytest.mark.parametrize(
    ("key", "value", "message", "hint"),
    [
        ("context", 4096, "sd15 has no setting 'context'", "it has: image, batch, mode"),
        ("vae_slicing", "on", "sd15 has no setting 'vae_slicing'", "did you mean 'vae_tiling'?"),
        ("batsh", 1, "unknown setting 'batsh'", "did you mean 'batch'?"),
        (
            "image",
            (500, 500),
            "image 500x500: width and height must be multiples of 8",
            "nearest that work: 496x496, 504x504",
        ),
        ("image", (512, 500), "must be multiples of 8", "nearest that work: 512x496, 512x504"),
        ("image", (32, 512), "must be at least 64", "nearest that work: 64x512"),
        ("image", (9000, 512), "must be at most 4096", "nearest that work: 4096x512"),
        ("batch", 0, "batch 0: must be at least 1", ""),
        ("batch", -1, "batch -1: must be at least 1", ""),
        ("batch", 65, "batch 65: must be at most 64", "nearest that work: 64"),
        ("guidance", 0.5, "guidance 0.5: must be at least 1", "nearest that work: 1"),
        ("mode", "txt2mg", "sd15 has no mode 'txt2mg'", "did you mean 'txt2img'?"),
        ("mode", "train", "sd15 has no mode 'train'", "it takes txt2img, img2img"),
        ("image", 512, "image 512 is not in its plain form", "write 512"),
        ("batch", (1, 1), "batch '1x1' is not a whole number", ""),
    ],
)
def test_a_pipeline_refuses_what_it_does_not_take(
    key: str, value: SettingValue, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_setting(pipeline(), key, value)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


@given(st.tuples(sides, sides))
def test_the_sizes_it_suggests_work(image: tuple[int, int]) -> None:
    try:
        check_setting(pipeline(), "image", image)
    except UsageError as problem:
        suggested = (problem.hint or "").removeprefix("nearest that work: ").split(", ")
        for text in suggested:
            check_setting(pipeline(), "image", parse_setting("image", text))
    else:
        assert all(side % 8 == 0 and 64 <= side <= 4096 for side in image)


def test_overrides_are_checked_and_win_over_defaults() -> None:
    found = resolve_settings(pipeline(), {"image": (768, 512), "mode": "img2img"})
    assert found == {
        "image": (768, 512),
        "batch": 1,
        "mode": "img2img",
        "guidance": 7.5,
        "vae_tiling": "off",
    }
    assert list(found) == list(pipeline().defaults)
    with pytest.raises(UsageError, match="multiples of 8"):
        resolve_settings(pipeline(), {"image": (500, 500)})


def test_a_setting_without_constraints_takes_any_of_its_values() -> None:
    check_setting(pipeline(), "vae_tiling", "on")
    check_setting(pipeline(batch=1), "batch", 64)


@pytest.mark.parametrize(
    "word", ["loras", "adapters", "t2i-adapter", "tome", "fps", "torch_compile"]
)
def test_what_is_known_and_not_modelled_is_said_to_be_so(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_assignment(f"{word}=on")
    assert "known but not modelled" in str(caught.value)
    assert "did you mean" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("word", ["LoRA", "ControlNet", "ip-adapter", "batch-tokens"])
def test_a_setting_in_other_letters_is_told_how_it_is_written(word: str) -> None:
    with pytest.raises(UsageError, match="unknown setting") as caught:
        parse_setting(word, "1")
    written = word.lower().replace("-", "_")
    assert caught.value.hint == f"here it is called {written}"


def test_no_word_is_both_a_setting_and_not_modelled() -> None:
    assert not known_settings.NOT_MODELLED.keys() & SETTING_HELP.keys()


@pytest.mark.parametrize(("word", "near"), [("bacth", "batch"), ("stepps", "steps")])
def test_a_misspelt_setting_is_guessed(word: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_setting(word, "1")
    assert caught.value.hint == f"did you mean {near!r}?"


@pytest.mark.parametrize("word", ["cfg_rescale_control", "contrast", "loudness"])
def test_a_word_that_is_only_somewhat_alike_is_not_taken_for_a_setting(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_setting(word, "1")
    assert (caught.value.hint or "").startswith("settings: ")


@pytest.mark.parametrize("key", ["prompt_tokens", "new_tokens", "ubatch", "batch_tokens"])
def test_tokens_may_be_in_thousands(key: str) -> None:
    assert parse_setting(key, "2k") == 2048
    assert parse_setting(key, "300") == 300
    with pytest.raises(UsageError):
        parse_setting(key, "2.5k")


def test_a_context_may_be_in_thousands() -> None:
    assert parse_setting("context", "16k") == 16384
    assert parse_setting("context", "1K") == 1024
    for text in ("0k", "k", "16kk", "1.5k", "999999k"):
        with pytest.raises(UsageError):
            parse_setting("context", text)
    with pytest.raises(UsageError):
        parse_setting("batch", "2k")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ffn", "not a pattern and a buffer"),
        ("=CPU", "not a pattern and a buffer"),
        (";;", "not a list of patterns"),
        ("ffn=Vulkan0", "no buffer is called 'Vulkan0'"),
        ("ffn(=CPU", "is no pattern"),
        ("(a+)+b=CPU", "a group in it is repeated"),
        ("(a|a)*b=CPU", "a group in it is repeated"),
        (".*a.*b.*c.*d.*e.*f=CPU", "too many repeats"),
        ("a?" * 40 + "a" * 40 + "=CPU", "too many repeats"),
        ("(a|a)" * 30 + "=CPU", "too many repeats"),
        (r"(a)\1=CPU", "refers back"),
        ("(?i)ffn=CPU", "not in ECMAScript's grammar"),
        ("a" * 300 + "=CPU", "not a pattern and a buffer"),
        (";".join(["a=CPU"] * 300), "not a list of patterns"),
        ("a\x1b[2J=CPU", "not a pattern and a buffer"),
    ],
)
def test_what_is_no_override_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_setting("override_tensor", text)


def test_overrides_are_read_as_llama_cpp_writes_them() -> None:
    """Its -ot has commas between, and the first = of each ends the pattern."""
    read = parse_setting("override_tensor", r"blk\.[0-9]\.ffn_.*=CPU,attn=CUDA1")
    assert values.overrides_of(read) == ((r"blk\.[0-9]\.ffn_.*", None), ("attn", 1))
    assert values.overrides_of(values.NONE) == ()


@pytest.mark.parametrize(
    "pattern",
    [
        r"blk\.(1[0-9]|2[0-9]|3[0-9])\.ffn_.*_exps\.",
        r"blk\.[0-9]+\.ffn_(gate|up|down)_.*exps.*",
        r".*\.ffn_.*_exps.*",
        r"blk\.\d+\.ffn_(?:up|down)_(ch)?exps\.weight",
        "([4-9]+).ffn_.*_exps.",
        r"\.[0-9]{1}\.ffn_[^_]*?_exps",
        "^(output|token_embd)",
    ],
)
def test_patterns_that_people_write_are_taken(pattern: str) -> None:
    read = parse_setting("override_tensor", f"{pattern}=CPU")
    assert values.overrides_of(read) == ((pattern, None),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0/0", "no card has a share"),
        ("1//", "not a list of shares"),
        ("-1/2", "not a list of shares"),
        ("/".join("1" * 17), "not a list of shares"),
        ("1e9/1", "not a list of shares"),
    ],
)
def test_what_is_no_split_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_setting("tensor_split", text)


def test_shares_have_commas_or_slashes_between_them() -> None:
    assert parse_setting("tensor_split", "3,1") == parse_setting("tensor_split", "3/1") == "3/1"
    assert values.split_of("3/1.5") == (3.0, 1.5)
    assert values.split_of(values.AUTO) == ()


@pytest.mark.parametrize("text", ["a;;b", ";", "a\nb", "x" * 9_000, ";".join("a" * 40)])
def test_what_is_no_list_of_files_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=r"lora .* is not"):
        parse_setting("lora", text)


def test_what_one_engine_plans_is_known_to_be_unmodelled_by_another() -> None:
    with pytest.raises(UsageError, match="'lora' is known but not modelled"):
        check_setting(pipeline(), "lora", "adapter.gguf")


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("gpu_offload", "1.5", "not a share"),
        ("gpu_offload", "-1", "not a share"),
        ("gpu_offload", "half", "not a share"),
        ("gpu_offload", "1e-9", "not a share"),
        ("guardrail", "lax", "guardrail 'lax'"),
        ("guardrail", "8G", "guardrail '8G'"),
        ("guardrail", "0GiB", "at least"),
        ("guardrail", "-1GiB", "guardrail"),
    ],
)
def test_what_lm_studio_has_no_word_for_is_said(key: str, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_setting(key, text)


def test_shares_and_limits_are_numbers() -> None:
    assert parse_setting("gpu_offload", "0.50") == "0.5"
    assert [values.share_of(one) for one in ("auto", "max", "off", "0.5")] == [
        None,
        1.0,
        0.0,
        0.5,
    ]
    assert parse_setting("guardrail", "8GiB") == "8192MiB"
    assert values.limit_of("8192MiB") == 8 << 30
    assert values.limit_of("strict") is None
