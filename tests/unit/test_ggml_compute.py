"""Compute buffers against logs of CUDA builds and a dry run of llama.cpp's CPU build."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.engines.ggml.build_rules import has_flash_attention, rules_of
from vramplan.engines.ggml.closed_form import (
    Batch,
    ComputeBuffers,
    compute_buffers,
    cpu_build_bytes,
)
from vramplan.engines.ggml.compute_buffer import uses_graph
from vramplan.engines.ggml.engine_pools import language_pool
from vramplan.engines.ggml.kv_cache import layer_cache_bytes
from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.engines.ggml.read_model import read_model
from vramplan.engines.ggml.weights import GgmlModel, place_layers
from vramplan.errors import UsageError
from vramplan.units import MIB

NOW = "b11549"


def shapes(**sizes: int) -> GgmlModel:
    ggml: dict[str, object] = {"architecture": "llama", "quantisation": "q4_0"}
    return read_model(
        GgmlPipeline(
            name="x",
            title="X",
            summary="x",
            runtime="llama.cpp",
            defaults={},
            constraints={},
            source="x",
            path="x.yaml",
            model=Described(
                section=ggml | {"embedding": 4096, "heads": 32, "trained_context": 4096} | sizes
            ),
        )
    )


MISTRAL = shapes(layers=32, feed_forward=14336, kv_heads=8, vocabulary=32000)
VICUNA = shapes(layers=32, feed_forward=11008, kv_heads=32, vocabulary=32000)
LLAMA_3_2_VISION = shapes(layers=40, feed_forward=14336, kv_heads=8, vocabulary=128256)


def batch(
    model: GgmlModel, context: int, tokens: int = 512, *, flash: bool = False, sequences: int = 1
) -> Batch:
    return Batch(
        tokens=min(tokens, context),
        context=context,
        sequences=sequences,
        cache_layer_bytes=layer_cache_bytes(model, context * sequences, "f16"),
        has_flash=flash,
    )


def buffers(
    model: GgmlModel, engine: str, on_gpu: int, context: int, *, flash: bool = False
) -> ComputeBuffers:
    rules = rules_of(engine)
    placement = place_layers(model, on_gpu, output_first=rules.output_layer_first)
    return compute_buffers(model, batch(model, context, flash=flash), placement, rules)


@pytest.mark.parametrize(
    ("model", "engine", "on_gpu", "context", "gpu", "host"),
    [
        # ollama/ollama#2706: llava:7b, 23 February 2024 (llama.cpp of about b2249), RTX with 6 of
        # 33 layers; its input buffer of 13.02 MiB stands beside
        (MISTRAL, "b2249", 6, 2048, 164.01, 168.00),
        # fedora-copr/logdetective#106: Mistral 7B, 13 January 2025, all layers
        (MISTRAL, "b4480", 33, 2048, 164.00, 12.01),
        (MISTRAL, "b4480", 33, 32768, 2144.00, 72.01),
        # ollama/ollama#7440: llama3.2-vision 11B, November 2024, 31 of 41 layers
        (LLAMA_3_2_VISION, "b4000", 31, 2048, 669.48, 12.01),
    ],
)
def test_logs_of_cuda_builds(
    model: GgmlModel, engine: str, on_gpu: int, context: int, gpu: float, host: float
) -> None:
    ours = buffers(model, engine, on_gpu, context)
    assert ours.gpu.expected_bytes / MIB == pytest.approx(gpu, abs=0.02)
    assert ours.host_bytes / MIB == pytest.approx(host, abs=0.02)


#: MiB printed by a dry run of xllamacpp 2026.10.11549 (llama.cpp b11549, CPU build, no_alloc) on
#: sparse GGUFs of these shapes: (flash attention, ubatch) -> contexts 512, 2048, 4096, 16384
CPU_BUILD = {
    "mistral": (
        MISTRAL,
        {
            (True, 128): (31.13, 31.50, 32.00, 35.00),
            (True, 512): (124.52, 126.02, 128.02, 140.02),
            (True, 1024): (124.52, 252.04, 256.04, 280.04),
            (False, 128): (32.25, 46.00, 79.00, 277.00),
            (False, 512): (129.01, 184.01, 316.01, 1108.01),
            (False, 1024): (129.01, 368.03, 632.03, 2216.03),
        },
    ),
    "vicuna": (
        VICUNA,
        {
            (True, 128): (26.25, 26.63, 27.13, 30.13),
            (True, 512): (105.02, 106.52, 108.52, 120.52),
            (True, 1024): (105.02, 213.04, 217.04, 241.04),
            (False, 128): (30.38, 49.00, 82.00, 280.00),
            (False, 512): (121.51, 196.01, 328.01, 1120.01),
            (False, 1024): (121.51, 392.03, 656.03, 2240.03),
        },
    ),
}


@pytest.mark.parametrize("name", CPU_BUILD)
def test_dry_run_of_the_cpu_build(name: str) -> None:
    model, printed = CPU_BUILD[name]
    for (flash, tokens), sizes in printed.items():
        for context, size in zip((512, 2048, 4096, 16384), sizes, strict=True):
            ours = cpu_build_bytes(model, batch(model, context, tokens, flash=flash))
            assert ours / MIB == pytest.approx(size, abs=0.02), (flash, tokens, context)


def test_the_band_reaches_to_the_cpu_build() -> None:
    for flash in (True, False):
        ours = buffers(MISTRAL, NOW, 33, 4096, flash=flash).gpu
        assert ours.high_bytes >= cpu_build_bytes(MISTRAL, batch(MISTRAL, 4096, flash=flash))
        assert ours.low_bytes < ours.expected_bytes < ours.high_bytes


def test_flash_attention_saves_the_scores() -> None:
    with_flash = buffers(MISTRAL, NOW, 33, 8192, flash=True).gpu.expected_bytes
    without = buffers(MISTRAL, NOW, 33, 8192).gpu.expected_bytes
    scores = 32 * 8192 * 512 * 4
    assert without > scores > 4 * with_flash


def test_newer_builds_reserve_no_logits_for_the_whole_batch() -> None:
    model = LLAMA_3_2_VISION
    older = buffers(model, "b9272", 41, 2048, flash=True).gpu.expected_bytes
    newer = buffers(model, "b9527", 41, 2048, flash=True).gpu.expected_bytes
    assert older / MIB == pytest.approx(258.5)  # 512 x 128,256 logits and their input
    assert newer < older / 2


def test_partial_offload_takes_more_than_full() -> None:
    partial = buffers(MISTRAL, NOW, 20, 4096, flash=True).gpu.expected_bytes
    full = buffers(MISTRAL, NOW, 33, 4096, flash=True).gpu.expected_bytes
    matrix = 14336 * 4096 // 32 * 18
    assert partial == full + matrix


def test_without_layers_old_engines_leave_the_gpu_alone() -> None:
    ours = buffers(MISTRAL, "b2249", 0, 2048)
    assert ours.gpu.high_bytes == 0
    assert ours.host_bytes == cpu_build_bytes(MISTRAL, batch(MISTRAL, 2048))


@given(
    st.sampled_from(["b2249", "b4480", "b7000", "b10488"]),
    st.integers(0, 33),
    st.integers(1, 64),
    st.sampled_from([32, 128, 512, 2048]),
    st.booleans(),
)
def test_more_tokens_never_take_less(
    engine: str, on_gpu: int, steps: int, tokens: int, flash: bool
) -> None:
    rules = rules_of(engine)
    placement = place_layers(MISTRAL, on_gpu, output_first=rules.output_layer_first)

    def size(context: int, ubatch: int) -> ComputeBuffers:
        return compute_buffers(
            MISTRAL, batch(MISTRAL, context, ubatch, flash=flash), placement, rules
        )

    base = size(steps * 256, tokens)
    for larger in (size(steps * 256 + 256, tokens), size(steps * 256, tokens * 2)):
        assert larger.gpu.low_bytes >= base.gpu.low_bytes
        assert larger.gpu.expected_bytes >= base.gpu.expected_bytes
        assert larger.gpu.high_bytes >= base.gpu.high_bytes
        assert larger.host_bytes >= base.host_bytes


def test_pools_are_wide_and_grow_without_flash_attention() -> None:
    with_flash = language_pool(MISTRAL, batch(MISTRAL, 4096, flash=True), "8.6")
    without = language_pool(MISTRAL, batch(MISTRAL, 4096), "8.6")
    assert with_flash.low_bytes == 0
    assert with_flash.expected_bytes == 12 * MIB  # 7.9 MiB of q8_1 and cuBLAS's 4, in pages of 2
    assert without.expected_bytes == 132 * MIB  # 128 MiB of f16 scores and cuBLAS's 4
    assert without.high_bytes == 2 * without.expected_bytes + 32 * MIB


def test_hopper_has_a_larger_cublas_workspace() -> None:
    sizes = {
        capability: language_pool(
            MISTRAL, batch(MISTRAL, 4096, flash=True), capability
        ).expected_bytes
        for capability in ("7.5", "8.9", "9.0", "12.0")
    }
    assert sizes["7.5"] == sizes["8.9"]
    assert sizes["9.0"] == sizes["12.0"] == sizes["8.9"] + 28 * MIB


@pytest.mark.parametrize("engine", ["", "latest", "10488", "b0", "b1", "0.30.3", "b10488x"])
def test_an_engine_is_a_build(engine: str) -> None:
    with pytest.raises(UsageError, match="unknown engine"):
        rules_of(engine)


@pytest.mark.parametrize(
    ("setting", "engine", "capability", "expected"),
    [
        ("auto", NOW, "8.6", True),
        ("auto", NOW, "6.1", True),
        ("auto", NOW, "12.0", True),
        ("auto", NOW, "7.2", False),
        ("auto", NOW, "5.2", False),
        ("auto", "b2249", "8.6", False),
        ("on", "b4480", "8.6", True),
        ("off", NOW, "8.6", False),
    ],
)
def test_when_auto_is_flash_attention(
    setting: str, engine: str, capability: str, expected: bool
) -> None:
    assert has_flash_attention(setting, rules_of(engine), capability) is expected


def test_attention_of_host_layers_has_a_layers_cache_copied_to_it() -> None:
    """Where scores decide, a layer that stays on the host brings its keys and values along."""
    partial = buffers(MISTRAL, NOW, 20, 32_768).gpu.expected_bytes
    full = buffers(MISTRAL, NOW, 33, 32_768).gpu.expected_bytes
    assert partial - full == 32_768 * 2 * 8 * 128 * 2


def test_a_model_without_a_shape_has_no_graph_to_count() -> None:
    plain = replace(MISTRAL, language=None)
    for engine in ("b2249", NOW):
        assert not uses_graph(plain, rules_of(engine))
