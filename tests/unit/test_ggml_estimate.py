"""The budget of a ggml engine: its lines, buffers and components, and what fits a small card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramplan.catalog.pipelines import load_pipeline_file
from vramplan.catalog.search import load_catalog
from vramplan.engines.ggml.estimate import estimate_ggml, fit_layers
from vramplan.engines.ggml.layer_fit import MARGIN_BYTES, has_projector_on_gpu
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_entry
from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.errors import CatalogError, UsageError
from vramplan.model import Band, Estimate, LineKind, Origin, SettingValue
from vramplan.report.serial import buffers_object
from vramplan.settings import resolve_settings
from vramplan.units import GIB, MIB

PROFILES = Path(__file__).parents[2] / "profiles" / "pipelines"
CONTEXT = Band(low_bytes=250 * MIB, expected_bytes=400 * MIB, high_bytes=616 * MIB)
NO_CONTEXT = Band.exactly(0)

CLIP: dict[str, object] = {
    "architecture": "clip",
    "quantisation": "f16",
    "image_size": 336,
    "patch_size": 14,
    "embedding": 1024,
    "feed_forward": 4096,
    "heads": 16,
    "layers": 23,
    "projection": 4096,
}
MISTRAL: dict[str, object] = {
    "architecture": "llama",
    "quantisation": "q4_0",
    "layers": 32,
    "embedding": 4096,
    "feed_forward": 14336,
    "heads": 32,
    "kv_heads": 8,
    "vocabulary": 32000,
    "trained_context": 32768,
    "log": "ollama/ollama#2706",
}


def pipeline(runtime: str = "ollama", *, has_projector: bool = True) -> GgmlPipeline:
    return GgmlPipeline(
        name="llava:7b",
        title="LLaVA",
        summary="x",
        runtime=runtime,
        defaults={
            "context": 4096,
            "ubatch": 512,
            "kv_type": "f16",
            "flash_attention": "auto",
            "gpu_layers": "auto",
            "parallel": 1,
            "engine": "b10488",
            "platform": "linux",
        },
        constraints={},
        source="x",
        path="x.yaml",
        model=Described(section=MISTRAL | ({"projector": CLIP} if has_projector else {})),
    )


LLAVA = pipeline()


def estimate(found: GgmlPipeline = LLAVA, **settings: SettingValue) -> Estimate:
    return estimate_ggml(found, settings, "8.6", CONTEXT, context_source="a test")


def held(ours: Estimate) -> SimpleNamespace:
    """Return the buffers under the names that they have in JSON."""
    return SimpleNamespace(**buffers_object(ours.buffers))


def mib(size_bytes: int) -> float:
    return round(size_bytes / MIB, 2)


def test_the_log_of_ollama_2706() -> None:
    """llava:7b in February 2024: 6 of 33 layers; Ollama kept the projector on the GPU then."""
    ours = estimate_ggml(
        pipeline("llama.cpp"),
        {"context": 2048, "gpu_layers": 6, "engine": "b2249"},
        "8.6",
        CONTEXT,
    )
    buffers = held(ours)
    assert ours.layers is not None
    assert (ours.layers.on_gpu, ours.layers.total) == (6, 33)
    assert mib(buffers.model_bytes) == 702.19
    assert mib(buffers.model_bytes + buffers.host_model_bytes) == 3917.87
    assert mib(buffers.kv_cache_bytes) == 48.00
    assert mib(buffers.compute_bytes) == pytest.approx(164.01, abs=0.02)
    assert mib(buffers.host_compute_bytes) == pytest.approx(168.00, abs=0.02)
    assert mib(buffers.projector_bytes) == 595.49
    assert mib(buffers.projector_compute_bytes) == pytest.approx(32.89, abs=0.01)


def test_components_are_those_of_the_contract() -> None:
    rows = {
        component.name: (component.parameters, component.weights_bytes, component.device)
        for component in estimate().components
    }
    assert rows == {
        "language_model": (7_241_732_096, 4_108_181_504, "gpu"),
        "vision_encoder": (290_909_184, 582_436_864, "gpu"),
        "projector": (20_979_712, 41_975_808, "gpu"),
    }


def test_lines_add_up_to_need_and_peak() -> None:
    ours = estimate()
    total = sum((line.band for line in ours.lines), NO_CONTEXT)
    assert total == ours.need.band == ours.peak.device
    assert ours.peak.reserved_bytes == total.expected_bytes - CONTEXT.expected_bytes
    assert ours.timeline[-1].reserved_bytes == ours.peak.reserved_bytes
    assert ours.phases[-1].device_used_bytes == total.expected_bytes


def test_every_line_says_where_it_comes_from() -> None:
    rows = [(line.name, line.component, line.origin) for line in estimate().lines]
    assert rows == [
        ("weights", "language_model", Origin.EXACT),
        ("KV cache", "language_model", Origin.EXACT),
        ("compute buffer", "language_model", Origin.PUBLISHED),
        ("weights", "vision_encoder", Origin.EXACT),
        ("weights", "projector", Origin.EXACT),
        ("projector compute", "vision_encoder", Origin.PUBLISHED),
        ("engine pools", "vision_encoder", Origin.ASSUMED),
        ("engine pools", "language_model", Origin.ASSUMED),
        ("CUDA context", None, Origin.PUBLISHED),
    ]
    for line in estimate().lines:
        assert line.source
        is_counted = line.band.low_bytes == line.band.high_bytes
        assert is_counted is (line.origin is Origin.EXACT)
    assert estimate().lines[-1].source == "a test"


def test_the_source_says_what_the_buffer_was_held_against() -> None:
    newer = {line.kind: line.source for line in estimate().lines}
    older = {line.kind: line.source for line in estimate(engine="b4480").lines}
    assert "equal to build b11549 within 0.02 MiB" in newer[LineKind.COMPUTE_BUFFER]
    assert "equal to published CUDA logs" in older[LineKind.COMPUTE_BUFFER]


def test_buffers_are_the_lines() -> None:
    ours = estimate()
    sizes = {(line.kind, line.component): line.band.expected_bytes for line in ours.lines}
    assert held(ours).model_bytes == sizes[LineKind.WEIGHTS, "language_model"]
    assert held(ours).kv_cache_bytes == sizes[LineKind.KV_CACHE, "language_model"] == 512 * MIB
    assert held(ours).compute_bytes == sizes[LineKind.COMPUTE_BUFFER, "language_model"]
    assert held(ours).projector_bytes == 624_412_672
    assert mib(held(ours).host_model_bytes) == 70.31


def test_phases_never_give_back() -> None:
    ours = estimate()
    assert [phase.name for phase in ours.phases] == ["load", "encode_image", "prefill", "generate"]
    used = [point.reserved_bytes for point in ours.timeline]
    assert used == sorted(used)


def test_ollama_asks_for_the_context_of_every_slot() -> None:
    ollama = held(estimate(parallel=4))
    shared = held(estimate(pipeline("llama.cpp"), parallel=4))
    assert ollama.kv_cache_bytes == 4 * shared.kv_cache_bytes == 4 * 512 * MIB


def test_the_log_of_llama_cpp_14363() -> None:
    """Qwen2.5-VL-7B with 32 sequences, on the build before sequences had caches of their own."""
    shapes = {"layers": 28, "embedding": 3584, "feed_forward": 18944, "heads": 28, "kv_heads": 4}
    model = {**MISTRAL, **shapes, "vocabulary": 152_064, "trained_context": 128_000}
    found = replace(pipeline("llama.cpp", has_projector=False), model=Described(section=model))
    chosen = {"context": 133_120, "ubatch": 2048, "parallel": 32, "flash_attention": "on"}
    buffers = held(estimate(found, engine="b5884", **chosen))
    assert mib(buffers.kv_cache_bytes) == 7280.00
    assert mib(buffers.host_compute_bytes) == pytest.approx(1068.05, abs=0.01)


def test_fewer_layers_move_ollamas_projector_to_the_cpu() -> None:
    ours = estimate(gpu_layers=20)
    assert {row.name: row.device for row in ours.components} == {
        "language_model": "split",
        "vision_encoder": "cpu",
        "projector": "cpu",
    }
    assert held(ours).projector_bytes == held(ours).projector_compute_bytes == 0
    assert held(ours).host_model_bytes > 624_412_672
    assert "the projector is on the CPU" in ours.notes
    assert estimate(pipeline("llama.cpp"), gpu_layers=20).components[1].device == "gpu"


def test_a_text_model_has_one_component() -> None:
    ours = estimate(pipeline(has_projector=False))
    assert [row.name for row in ours.components] == ["language_model"]
    assert "encode_image" not in [phase.name for phase in ours.phases]


def test_an_old_engine_without_layers_needs_the_context_alone() -> None:
    ours = estimate_ggml(
        pipeline("llama.cpp", has_projector=False),
        {"gpu_layers": 0, "engine": "b2249"},
        "8.6",
        CONTEXT,
    )
    assert ours.need.band == CONTEXT
    assert ours.components[0].device == "cpu"


@pytest.mark.parametrize("layers", [33, 34, 99])
def test_more_layers_than_the_model_has_are_all_as_in_the_engine(layers: int) -> None:
    asked = resolve_settings(load_catalog().pipeline("llava:7b"), {"gpu_layers": layers})
    assert asked["gpu_layers"] == layers
    ours, every = estimate(gpu_layers=layers), estimate(gpu_layers="all")
    assert (ours.lines, ours.buffers, ours.layers) == (every.lines, every.buffers, every.layers)
    said = [note for note in ours.notes if "the engine takes more for all" in note]
    assert len(said) == (layers > 33)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpu_layers": -1}, "gpu_layers -1 is not within"),
        ({"gpu_layers": "most"}, "gpu_layers 'most' is not within"),
        ({"context": 0}, "context must be a whole number of at least 1"),
        ({"parallel": "two"}, "parallel must be a whole number"),
        ({"kv_type": "q3_k"}, "unknown kv_type 'q3_k'"),
        ({"kv_type": "f17"}, "unknown kv_type 'f17'"),
        ({"kv_type": "q8_0", "flash_attention": "off"}, "kv_type q8_0 needs flash attention"),
        ({"engine": "0.30.3"}, "unknown engine '0.30.3'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, SettingValue], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        estimate(**settings)


@pytest.mark.parametrize("runtime", ["ollama", "llama.cpp"])
def test_a_card_with_room_gets_everything(runtime: str) -> None:
    found = pipeline(runtime)
    split, ours = fit_layers(found, {}, "8.6", CONTEXT, 12 * GIB, context_source="a test")
    assert (split.on_gpu, split.total) == (33, 33)
    assert ours == estimate(found)


def test_margins_are_the_engines_own() -> None:
    """The least budget for all layers is need without pools, and the engine's margin."""
    for runtime, twice in (("llama.cpp", 0), ("ollama", 596)):
        found = pipeline(runtime)
        buffers = held(estimate(found))
        asked = buffers.model_bytes + buffers.kv_cache_bytes + buffers.compute_bytes
        projector = buffers.projector_bytes + buffers.projector_compute_bytes
        least = 400 * MIB + asked + projector + (1024 + twice) * MIB
        assert fit_layers(found, {}, "8.6", CONTEXT, least)[0].on_gpu == 33
        assert fit_layers(found, {}, "8.6", CONTEXT, least - 1)[0].on_gpu < 33


def test_the_projector_leaves_the_gpu_below_its_weights_and_a_gib() -> None:
    least = 624_412_672 + 1024 * MIB + CONTEXT.expected_bytes
    for budget, device in ((least, "gpu"), (least - 1, "cpu")):
        ours = fit_layers(LLAVA, {}, "8.6", CONTEXT, budget)[1]
        assert ours.components[1].device == device
        llama_cpp = fit_layers(pipeline("llama.cpp"), {}, "8.6", CONTEXT, budget)[1]
        assert llama_cpp.components[1].device == "gpu"


@pytest.mark.parametrize("asked", ["all", 33])
def test_what_is_asked_for_is_done(asked: SettingValue) -> None:
    split, ours = fit_layers(LLAVA, {"gpu_layers": asked}, "8.6", CONTEXT, 4 * GIB)
    assert split.on_gpu == 33
    assert ours.need.band.expected_bytes > 4 * GIB


@settings(max_examples=40, deadline=None)  # a fit builds a graph for every number that it tries
@given(
    st.sampled_from(["ollama", "llama.cpp"]),
    st.integers(300, 8000),
    st.integers(1, 4000),
    st.sampled_from(["b4480", "b10488"]),
)
def test_more_room_never_means_fewer_layers(
    runtime: str, budget: int, more: int, engine: str
) -> None:
    found, chosen = pipeline(runtime, has_projector=False), {"engine": engine}
    small, _ = fit_layers(found, chosen, "8.6", CONTEXT, budget * MIB)
    large, ours = fit_layers(found, chosen, "8.6", CONTEXT, (budget + more) * MIB)
    assert small.on_gpu <= large.on_gpu
    if large.on_gpu:
        assert ours.need.band.expected_bytes <= (budget + more) * MIB


@pytest.mark.parametrize(
    ("file", "name", "weights", "cache"),
    [
        ("llava-7b.yaml", "llava:7b", 3847.55, 512.00),
        ("llava-v1.5-7b.yaml", "llava-v1.5-7b", 3577.56, 2048.00),
    ],
)
def test_shipped_pipelines(file: str, name: str, weights: float, cache: float) -> None:
    found = open_entry(load_pipeline_file(PROFILES / file))
    ours = estimate_ggml(found, resolve_settings(found, {}), "8.6", CONTEXT)
    assert (found.name, ours.pipeline) == (name, name)
    assert mib(held(ours).model_bytes) == weights
    assert mib(held(ours).kv_cache_bytes) == cache
    assert mib(held(ours).projector_bytes) == 595.49
    assert ours.need.band.high_bytes < 8 * GIB


def test_a_timeline_names_what_takes_the_memory() -> None:
    """The projector and the vision encoder are parts of their own; the rest is the model's."""
    ours = estimate()
    told = [(point.phase, point.component) for point in ours.timeline]
    lines = [line.component or "language_model" for line in ours.lines]
    assert [component for _, component in told[:-1]] == lines[: len(told) - 1]
    assert told[-1] == ("generate", "language_model")
    assert ("encode_image", "vision_encoder") in told
    assert ("load", "projector") in told


def test_an_unknown_word_of_a_model_names_the_words_that_are_known() -> None:
    found = replace(
        pipeline(has_projector=False), model=Described(section=MISTRAL | {"quantisation": "zz"})
    )
    with pytest.raises(CatalogError, match="unknown quantisation 'zz'") as caught:
        estimate(found)
    assert "q8_0, q6_k" in str(caught.value.hint)


def test_a_projector_of_ollamas_goes_to_the_gpu_where_the_margin_is_free_beside_it() -> None:
    run = read_run(LLAVA, resolve_settings(LLAVA, {}), "8.6")
    assert run.vision is not None
    least = run.vision.weights_bytes + MARGIN_BYTES
    assert has_projector_on_gpu(run, None)
    assert has_projector_on_gpu(run, least)
    assert not has_projector_on_gpu(run, least - 1)


def test_a_build_that_fits_nothing_by_itself_says_so_where_it_is_asked_to() -> None:
    llama_cpp = pipeline("llama.cpp")
    said = "fits nothing to the card by itself"
    assert any(said in note for note in estimate(llama_cpp, engine="b4480").notes)
    assert not any(said in note for note in estimate(llama_cpp, engine="b10488").notes)
    told = estimate(llama_cpp, engine="b4480", gpu_layers=20)
    assert not any(said in note for note in told.notes)


@pytest.mark.parametrize("engine", ["b2249", "b4480", "b5600", "b6400", "b10488", "b11549"])
@pytest.mark.parametrize("flash_attention", ["on", "off"])
def test_buffers_hold_whole_numbers(engine: str, flash_attention: str) -> None:
    """Of four bytes each at least in compute buffers."""
    for layers in (0, 6, 33):
        found = estimate(
            pipeline("llama.cpp", has_projector=False),
            engine=engine,
            flash_attention=flash_attention,
            gpu_layers=layers,
        )
        sizes = held(found)
        assert sizes.compute_bytes % 4 == sizes.host_compute_bytes % 4 == 0


def test_a_wide_feed_forward_part_has_room_for_what_lives_in_it() -> None:
    """Gate, up, the residual and the normed input, in f32, of every token of a batch."""
    found = replace(
        pipeline("llama.cpp", has_projector=False),
        model=Described(section=MISTRAL | {"feed_forward": 65_536}),
    )
    sizes = held(estimate(found, engine="b4480", flash_attention="on", gpu_layers=33))
    assert sizes.compute_bytes >= 512 * (2 * 65_536 + 2 * 4096) * 4
