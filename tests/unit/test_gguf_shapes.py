"""Shapes out of a header: states and caches as the engine printed them, and hostile counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vramplan.engines.ggml.estimate import estimate_ggml
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.open import open_model
from vramplan.errors import SourceError
from vramplan.model import Band, Estimate, LineKind, Origin, buffer_bytes

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

deepseek = sparse.sibling("sparse_recurrent").deepseek
MIB = 1 << 20


def estimate_of(folder: Path, model, **settings: object) -> Estimate:
    pipeline = open_model(str(sparse.write(folder / "m.gguf", model)), None)
    chosen = {**pipeline.defaults, "context": 4096, "parallel": 1, **settings}
    return estimate_ggml(pipeline, chosen, "8.6", Band.exactly(0))


def on_gpu(estimate: Estimate) -> int:
    """Return the bytes of the model buffer on the GPU."""
    return buffer_bytes(estimate.buffers, LineKind.WEIGHTS)


@pytest.mark.parametrize(
    ("name", "state_mib", "cache_mib"),
    [
        # llama_memory_recurrent: CPU RS buffer size, llama_kv_cache: CPU KV buffer size (b11549)
        ("falcon-h1", 6.08, 8.00),
        ("granitehybrid", 3.08, 8.00),
        ("lfm2", 0.03, 8.00),
        ("mamba", 0.74, 0),
        ("mamba2", 5.12, 0),
    ],
)
def test_states_are_a_term_beside_the_cache(tmp_path, name, state_mib, cache_mib) -> None:
    estimate = estimate_of(tmp_path, sparse.families()[name])
    assert estimate.bytes_of(LineKind.RECURRENT_STATE) == pytest.approx(
        state_mib * MIB, abs=0.006 * MIB
    )
    assert estimate.bytes_of(LineKind.KV_CACHE) == cache_mib * MIB
    assert buffer_bytes(estimate.buffers, LineKind.RECURRENT_STATE) == estimate.bytes_of(
        LineKind.RECURRENT_STATE
    )
    origins = {one.kind: one.origin for one in estimate.lines}
    assert origins[LineKind.RECURRENT_STATE] is Origin.EXACT


def test_states_are_kept_of_each_sequence_and_not_of_its_tokens(tmp_path) -> None:
    model = sparse.families()["mamba2"]
    one = estimate_of(tmp_path, model)
    two = estimate_of(tmp_path, model, parallel=2)
    longer = estimate_of(tmp_path, model, context=16384)
    assert two.bytes_of(LineKind.RECURRENT_STATE) == 2 * one.bytes_of(LineKind.RECURRENT_STATE)
    assert longer.bytes_of(LineKind.RECURRENT_STATE) == one.bytes_of(LineKind.RECURRENT_STATE)


def test_the_states_of_layers_on_the_host_are_there(tmp_path) -> None:
    model = sparse.families()["mamba2"]
    whole, part = estimate_of(tmp_path, model), estimate_of(tmp_path, model, gpu_layers=2)
    assert 2 * part.bytes_of(LineKind.RECURRENT_STATE) == whole.bytes_of(LineKind.RECURRENT_STATE)


def test_a_latent_cache_holds_one_row_a_token(tmp_path) -> None:
    # DeepSeek-V2-Lite: 512 + 64 elements of f16 a token and layer; the engine prints 121.50 MiB
    packed = estimate_of(tmp_path, deepseek())
    assert packed.bytes_of(LineKind.KV_CACHE) == 27 * 4096 * 576 * 2 == 121.5 * MIB
    # files from before June 2025 hold 16 heads of 192 and 128
    old = estimate_of(tmp_path, deepseek("old"))
    assert old.bytes_of(LineKind.KV_CACHE) == 27 * 4096 * 16 * (192 + 128) * 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("ssm.conv_kernel", 1), ("ssm.inner_size", 1 << 31), ("ssm.time_step_rank", 0)],
)
def test_a_state_that_cannot_be_is_refused(tmp_path, key, value) -> None:
    model = sparse.families()["mamba2"]
    model.meta[key] = value
    with pytest.raises(SourceError, match=r"a state of .* not usable"):
        estimate_of(tmp_path, model)


@pytest.mark.parametrize(
    ("key", "value"),
    [("expert_used_count", 99), ("expert_count", 1 << 20), ("expert_group_count", 7)],
)
def test_experts_that_cannot_be_are_refused(tmp_path, key, value) -> None:
    model = deepseek()
    model.meta[key] = value
    with pytest.raises(SourceError, match="expert"):
        estimate_of(tmp_path, model)


def test_a_latent_row_that_is_longer_than_its_head_is_refused(tmp_path) -> None:
    model = deepseek()
    model.meta["rope.dimension_count"] = 4096
    with pytest.raises(SourceError, match="latent attention"):
        estimate_of(tmp_path, model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", (1 << 32) - 1),
        ("nextn_predict_layers", 99),
        ("attention.head_count_kv", [1 << 20, 1]),
        ("feed_forward_length", [1 << 30, 1]),
        ("attention.key_length", 1 << 31),
    ],
)
def test_layers_that_cannot_be_are_refused(tmp_path, key, value) -> None:
    model = sparse.families()["llama"]
    model.meta[key] = value
    with pytest.raises(SourceError, match=r"not usable|not a language model"):
        estimate_of(tmp_path, model)


def test_what_guesses_the_next_token_is_not_loaded(tmp_path) -> None:
    whole = sparse.families()["glm4moe"]
    estimate = estimate_of(tmp_path, whole)
    kept = [one for one in whole.tensors if not one[0].startswith("blk.3.")]
    whole.tensors, whole.meta["block_count"], whole.meta["nextn_predict_layers"] = kept, 3, 0
    assert estimate_of(tmp_path, whole).bytes_of(LineKind.WEIGHTS) == estimate.bytes_of(
        LineKind.WEIGHTS
    )


@pytest.mark.parametrize(
    ("layers", "said"), [(513, "513 layers of 4,096"), (9, "of layer 2 there")]
)
def test_layers_that_are_not_there_are_refused_before_a_graph_is_made(
    tmp_path, layers, said
) -> None:
    model = sparse.dense_layers(sparse.language_model())
    model.meta["block_count"] = layers
    with pytest.raises(SourceError, match=said):
        estimate_of(tmp_path, model)


def test_an_encoders_layers_are_layers_too(tmp_path) -> None:
    model = sparse.dense_layers(sparse.language_model("t5"))
    model.tensors = [
        (name.replace("blk.", f"{part}.blk."), shape, kind)
        for name, shape, kind in model.tensors
        for part in (("enc", "dec") if name.startswith("blk.") else ("",))
    ]
    whole = on_gpu(estimate_of(tmp_path, model, gpu_layers="all"))
    half = on_gpu(estimate_of(tmp_path, model, gpu_layers=2))
    output = on_gpu(estimate_of(tmp_path, model, gpu_layers=1))
    assert half - output == whole - half > 0


def test_a_chain_of_operators_is_longer_than_pythons_stack() -> None:
    graph = Graph()
    x = first = graph.input("f32", 4, 4)
    for _ in range(5_000):
        x = graph.same("add", x, first)
    graph.expand(x)
    assert len(graph.nodes) == 5_000
    assert graph.nodes[-1] is x
    assert graph.leaves == [first]
