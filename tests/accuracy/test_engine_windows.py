"""The real llama.cpp as witness of windows: caches and compute of models that have them.

Patterns are a default of the family's, a number or a list in the header; shapes are those of real
models with few words. The engine is xllamacpp's, planning for a card that is not there.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vramplan.engine_buffer import in_our_words
from vramplan.engines.ggml.compute_buffer import compute_buffers
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import ask_engine
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.model import LineKind, buffer_bytes
from vramplan.settings import resolve_settings

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

MIB, GIB = 1 << 20, 1 << 30
#: the engine prints hundredths of a MiB, of each cache
ROUNDING = 0.006 * MIB
CARD = PretendedCard(name="pretended", total_bytes=400 * GIB, free_bytes=390 * GIB)


def exaone4():
    """EXAONE 4 32B, narrower inside: 64 layers, a window of 4,096 in three of four."""
    model = sparse.language_model(
        "exaone4", layers=64, embedding=5120, feed_forward=2048, heads=40, kv_heads=8
    )
    model.meta["attention.sliding_window"] = 4096
    return sparse.dense_layers(model, "no norm before", "no ffn norm", "norms behind", "qk norm")


def olmo3():
    """OLMo 3 7B: 32 layers with as many heads of keys as of queries."""
    model = sparse.language_model("olmo2", layers=32, kv_heads=32, feed_forward=4096)
    model.meta["attention.sliding_window"] = 4096
    return sparse.dense_layers(
        model, "no norm before", "no ffn norm", "norms behind", "qk norm wide"
    )


def gemma3(pattern: object):
    """Gemma 3 of a few layers, with a pattern in its header."""
    model = sparse.language_model(
        "gemma3", embedding=2560, heads=8, kv_heads=4, head=256, feed_forward=10240, layers=12
    )
    model.meta |= {"attention.sliding_window": 1024, "attention.sliding_window_pattern": pattern}
    return sparse.dense_layers(model, "norms behind", "qk norm", "tied")


def cohere2(pattern: object):
    """Command R7B of a few layers, with a pattern in its header."""
    model = sparse.language_model("cohere2", layers=8, kv_heads=8)
    model.meta |= {
        "attention.sliding_window": 4096,
        "logit_scale": 0.25,
        "attention.sliding_window_pattern": pattern,
    }
    return sparse.dense_layers(model, "no ffn norm", "tied")


def gpt_oss(pattern: object):
    """A gpt-oss of a few layers, with a pattern in its header."""
    model = sparse.language_model(
        "gpt-oss", layers=4, embedding=2880, heads=64, kv_heads=8, head=64, feed_forward=2880
    )
    model.meta |= {
        "attention.sliding_window": 128,
        "attention.sliding_window_pattern": pattern,
        "expert_count": 32,
        "expert_used_count": 4,
        "expert_feed_forward_length": 2880,
    }
    return sparse.dense_layers(
        model, "norm between", "qkv bias", "output bias", "sinks", "experts", "expert biases",
        "mxfp4",
    )  # fmt: skip


KNOWN = {
    "exaone4": exaone4,
    "olmo3": olmo3,
    "gemma3 every third": lambda: gemma3(3),
    "gemma3 by list": lambda: gemma3([True, False, False] * 4),
    "gemma3 by a short list": lambda: gemma3([True, False, True]),
    "cohere2 every second": lambda: cohere2(2),
    "cohere2 all": lambda: cohere2(0),
    "gpt-oss every fourth": lambda: gpt_oss(4),
}
SETTINGS = ((8192, 1, "all"), (32768, 1, "all"), (32768, 2, 2))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "-".join(map(str, one)))
@pytest.mark.parametrize("name", KNOWN)
def test_the_engine_holds_what_we_say(tmp_path, name, settings) -> None:
    context, parallel, layers = settings
    path = sparse.write(tmp_path / "model.gguf", KNOWN[name]())
    pipeline = open_model(str(path), None)
    wanted = {"context": context, "parallel": parallel, "gpu_layers": layers}
    chosen = resolve_settings(
        pipeline, {**pipeline.defaults, **wanted, "flash_attention": "on", "engine": "b11549"}
    )
    run = read_run(pipeline, chosen, "8.6")
    placement = as_asked(run).placement
    told = in_our_words(ask_engine(path, chosen, card=CARD).buffers)
    cache = run.batch.cache_of_last(placement.blocks_on_gpu)
    assert buffer_bytes(told, LineKind.KV_CACHE) == pytest.approx(cache, abs=2 * ROUNDING)
    weights = placement.gpu_bytes
    assert buffer_bytes(told, LineKind.WEIGHTS) == pytest.approx(weights, abs=0.1 * MIB)
    compute = compute_buffers(run.model, run.batch, placement, run.rules).gpu.expected_bytes
    assert buffer_bytes(told, LineKind.COMPUTE_BUFFER) == pytest.approx(compute, rel=0.001)
