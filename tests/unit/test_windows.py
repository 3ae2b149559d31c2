"""Windows, shared caches and heads of windowed layers, read from headers of real models' shapes.

The sizes are llama.cpp b11549's for f16 and one request, MiB.
"""

from __future__ import annotations

import pytest

from vramplan.engines.ggml.gguf_tensors import model_from_gguf
from vramplan.engines.ggml.kv_cache import layer_caches, window_tokens
from vramplan.engines.ggml.windows import windows_of
from vramplan.errors import SourceError
from vramplan.sources.gguf_header import GgufFile, GgufTensor

MIB = 1 << 20
SIXTH = (True, True, True, True, True, False)


def header(name: str, layers: int, **keys: object) -> GgufFile:
    """Return a header of so many layers with a tensor each."""
    told = {"block_count": layers, "embedding_length": 4096, "context_length": 131072}
    told |= {key.replace("__", "."): value for key, value in keys.items()}
    return GgufFile(
        path="m.gguf",
        version=3,
        metadata={"general.architecture": name}
        | {f"{name}.{key}": value for key, value in told.items()},
        lengths={},
        tensors=tuple(
            GgufTensor(name=f"blk.{one}.attn_q.weight", shape=(4096, 4096), type="q4_0")
            for one in range(layers)
        ),
    )


def gemma4(layers: int, window: int, kv_heads: object, shared: int = 0) -> GgufFile:
    return header(
        "gemma4",
        layers,
        attention__head_count=16,
        attention__head_count_kv=kv_heads,
        attention__key_length=512,
        attention__value_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=256,
        attention__sliding_window=window,
        attention__sliding_window_pattern=SIXTH * (layers // 6),
        attention__shared_kv_layers=shared,
    )


def plain(name: str, layers: int, kv_heads: int, head: int, **keys: object) -> GgufFile:
    return header(
        name,
        layers,
        attention__head_count=32,
        attention__head_count_kv=kv_heads,
        attention__key_length=head,
        attention__value_length=head,
        **keys,
    )


REAL = (
    (gemma4(48, 1024, (8, 8, 8, 8, 8, 1) * 8), 8192, 608),
    (gemma4(48, 1024, (8, 8, 8, 8, 8, 1) * 8), 32768, 992),
    (gemma4(42, 512, 2, 18), 8192, 168),
    (gemma4(42, 512, 2, 18), 32768, 552),
    (gemma4(30, 1024, (8, 8, 8, 8, 8, 2) * 5), 32768, 940),
    (plain("exaone4", 64, 8, 128, attention__sliding_window=4096), 32768, 2912),
    (plain("olmo2", 32, 32, 128, attention__sliding_window=4096), 32768, 5824),
)


@pytest.mark.parametrize(("file", "context", "mib"), REAL)
def test_caches_of_real_models(file, context, mib) -> None:
    model = model_from_gguf(file)
    window = window_tokens(model, context, 512)
    assert sum(layer_caches(model, context, window, 1, "f16")) == mib * MIB


PATTERNS = (
    ("gemma3", None, "111110111110"),
    ("gemma3", 3, "110110110110"),
    ("gemma3", 0, "111111111111"),
    ("gemma3", (True, False, True), "101000000000"),
    ("cohere2", 2, "101010101010"),
    ("cohere2moe", None, "011101110111"),
    ("smallthinker", None, "011101110111"),
    ("lfm2", 3, "111111111111"),
    ("exaone4", 4, "000000000000"),  # windows are the 64-layer model's alone
    ("llama", 4, "000000000000"),  # the engine does not read the keys
)


@pytest.mark.parametrize(("name", "pattern", "layers"), PATTERNS)
def test_which_layers_see_a_window(name, pattern, layers) -> None:
    keys: dict[str, object] = {"attention__sliding_window": 512}
    if pattern is not None:
        keys["attention__sliding_window_pattern"] = pattern
    found = windows_of(header(name, 12, **keys), 12)
    assert "".join(str(int(one)) for one in found.layers) == layers


def test_a_family_that_must_list_its_layers_is_refused_without() -> None:
    with pytest.raises(SourceError, match="sliding_window_pattern is missing"):
        windows_of(header("gemma4", 12, attention__sliding_window=512), 12)


def test_what_a_window_is_where_the_header_says_none_or_another() -> None:
    assert windows_of(header("gemma2", 4), 4).size == 4096
    assert windows_of(header("gemma3", 4), 4).size == 0
    assert windows_of(header("llama4", 4, attention__sliding_window=100), 4).size == 8192
    assert windows_of(header("llama4", 4, attention__sliding_window=0), 4).size == 0
    assert windows_of(header("smallthinker", 4), 4).size == 0
