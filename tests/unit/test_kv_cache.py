"""The KV cache against llama.cpp's own figures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.engines.ggml.kv_cache import (
    CONTEXT_STEP,
    cache_source,
    cache_tokens,
    layer_cache_bytes,
    layer_caches,
    window_tokens,
)
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.weights import GgmlModel
from vramplan.settings import resolve_settings
from vramplan.units import KIB, MIB

MISTRAL = cast("GgmlModel", SimpleNamespace(kv_heads=8, head_size=128))
VICUNA = cast("GgmlModel", SimpleNamespace(kv_heads=32, head_size=128))


def test_bytes_a_token() -> None:
    assert 32 * layer_cache_bytes(MISTRAL, 1, "f16") == 128 * KIB
    assert 32 * layer_cache_bytes(VICUNA, 1, "f16") == 512 * KIB


@pytest.mark.parametrize(
    ("model", "tokens", "kv_type", "size"),
    [
        (MISTRAL, 2048, "f16", 256),  # ollama#2706
        (MISTRAL, 32768, "f16", 4096),  # fedora-copr/logdetective#106
        (VICUNA, 2048, "f16", 1024),  # ggml-org/llama.cpp#3616, LLaVA 1.5
        # llama.cpp's CPU build b11549, dry run
        (MISTRAL, 4096, "q8_0", 272),
        (VICUNA, 4096, "q4_0", 576),
        (MISTRAL, 2304, "f16", 288),
    ],
)
def test_whole_caches(model: GgmlModel, tokens: int, kv_type: str, size: int) -> None:
    assert 32 * layer_cache_bytes(model, tokens, kv_type) == size * MIB


def test_six_layers_of_ollama_2706() -> None:
    assert 6 * layer_cache_bytes(MISTRAL, 2048, "f16") == 48 * MIB
    assert 26 * layer_cache_bytes(MISTRAL, 2048, "f16") == 208 * MIB


@pytest.mark.parametrize(
    ("context", "parallel", "is_shared", "tokens"),
    [
        (2048, 1, True, 2048),
        (2100, 1, True, 2304),  # llama.cpp's CPU build b11549: n_ctx = 2304
        (2048, 3, True, 768),  # the same: n_ctx_seq = 768
        (2048, 4, True, 512),  # the same: n_ctx_seq = 512
        (2048, 4, False, 2048),  # Ollama asks for 4 x 2048
        (1, 1, True, 256),
        (1, 8, True, 256),
    ],
)
def test_context_is_shared_and_rounded(
    context: int, parallel: int, is_shared: bool, tokens: int
) -> None:
    assert cache_tokens(context, parallel, is_shared=is_shared) == tokens


@pytest.mark.parametrize(
    ("context", "parallel", "is_shared", "tokens"),
    [(2048, 3, True, 2048), (2100, 4, True, 2304), (2048, 4, False, 8192)],
)
def test_one_cache_for_all_has_the_whole_context(
    context: int, parallel: int, is_shared: bool, tokens: int
) -> None:
    assert cache_tokens(context, parallel, is_shared=is_shared, is_unified=True) == tokens


def test_a_cache_for_all_holds_the_window_of_each() -> None:
    model = cast("GgmlModel", SimpleNamespace(window=1024))
    assert window_tokens(model, 8192, 512) == 1536
    assert window_tokens(model, 8192, 512, 4) == 4608
    assert window_tokens(model, 4096, 512, 4) == 4096
    assert window_tokens(cast("GgmlModel", SimpleNamespace(window=0)), 8192, 512, 4) == 0


@given(st.integers(1, 1 << 20), st.integers(1, 64), st.booleans())
def test_rounding_never_takes_away(context: int, parallel: int, is_shared: bool) -> None:
    tokens = cache_tokens(context, parallel, is_shared=is_shared)
    wanted = context // parallel if is_shared else context
    assert tokens % CONTEXT_STEP == 0
    assert wanted <= tokens < wanted + 2 * CONTEXT_STEP


def test_a_row_that_no_blocks_fill_is_refused() -> None:
    narrow = cast("GgmlModel", SimpleNamespace(kv_heads=1, head_size=80))
    with pytest.raises(ValueError, match="80 is not a multiple of q8_0's block of 32"):
        layer_cache_bytes(narrow, 256, "q8_0")


@pytest.mark.parametrize(
    ("name", "said"),
    [("llama", "kv_heads x head size x tokens"), ("deepseek2", "latent attention holds keys")],
)
def test_the_source_says_how_the_cache_was_counted(
    sparse: ModuleType, tmp_path: Path, name: str, said: str
) -> None:
    found = open_model(str(sparse.write(tmp_path / "m.gguf", sparse.families()[name])), None)
    run = read_run(found, resolve_settings(found, {}), "8.6")
    assert said in cache_source(run.model)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_an_index_is_cached_beside_the_keys_of_every_layer(kv_type: str) -> None:
    """DeepSeek 3.2's: in the type of the keys, for each token."""
    layer = SimpleNamespace(
        is_windowed=False, kv_heads=1, head_k=576, head_v=512, has_attention=True,
        shares_cache=False,
    )  # fmt: skip
    sizes = {}
    for index, is_indexed in ((0, True), (128, False), (128, True)):
        shape = SimpleNamespace(
            is_encoder=False, index=index, is_indexed=is_indexed, holds_values=False,
            layers=(layer,) * 3,
        )  # fmt: skip
        model = cast("GgmlModel", type("Model", (), {"language": shape}))
        sizes[index, is_indexed] = layer_caches(model, 1024, 1024, 2, kv_type)
    assert sizes[0, True] == sizes[128, False]
    row = 128 * 2 if kv_type == "f16" else 128 // 32 * 34
    for more, plain in zip(sizes[128, True], sizes[0, True], strict=True):
        assert more - plain == 2 * 1024 * row
