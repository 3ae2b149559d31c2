"""LoRA adapters, control vectors and draft models: bytes by hand, and files that are another's."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vramplan.engines.ggml.build_rules import WITNESS_BUILD
from vramplan.engines.ggml.estimate import estimate_ggml, estimate_on
from vramplan.engines.ggml.layer_fit import MARGIN_BYTES, as_asked, fit_run
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import open_model
from vramplan.errors import SourceError, UsageError, VramplanError
from vramplan.model import Band, Estimate, Line, LineKind, Origin, Pipeline, SettingValue
from vramplan.report.serial import buffers_object
from vramplan.settings import resolve_settings
from vramplan.units import GIB, MIB

WIDE, INNER, LAYERS, RANK, WORDS = 4096, 14336, 4, 16, 1024
CONTEXT = Band.exactly(300 * MIB)

Write = Callable[..., str]


@pytest.fixture(scope="module")
def dense(sparse: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Four layers of Mistral 7B."""
    model = sparse.dense_layers(sparse.language_model(layers=LAYERS))
    return open_model(str(sparse.write(tmp_path_factory.mktemp("beside") / "m.gguf", model)), None)


@pytest.fixture
def adapter(sparse: ModuleType, tmp_path: Path) -> Write:
    """Write an adapter for some tensors, each of (inputs, outputs)."""

    def write(tensors: dict[str, tuple[int, int]], name: str = "llama", **general: str) -> str:
        model = sparse.Model(name, words=0)
        model.general = {"general.type": "adapter", "adapter.type": "lora", **general}
        for tensor, (inputs, outputs) in tensors.items():
            model.add(f"{tensor}.lora_a", inputs, RANK, kind=sparse.F16)
            model.add(f"{tensor}.lora_b", RANK, outputs, kind=sparse.F16)
        path = tmp_path / f"a{len(list(tmp_path.iterdir()))}.gguf"
        return str(sparse.write(path, model))

    return write


def estimate(found: Pipeline, **settings: SettingValue) -> Estimate:
    chosen = resolve_settings(found, {"gpu_layers": "all", "parallel": 1, **settings})
    return estimate_ggml(found, chosen, "8.6", CONTEXT)


def lines(found: Estimate, component: str, kind: LineKind) -> list[Line]:
    return [one for one in found.lines if (one.component, one.kind) == (component, kind)]


def test_an_adapter_is_beside_the_matrices_that_it_belongs_to(
    dense: Pipeline, adapter: Write
) -> None:
    queries = {f"blk.{layer}.attn_q.weight": (WIDE, WIDE) for layer in range(LAYERS)}
    path = adapter(queries)
    each = 2 * RANK * WIDE * 2  # two halves in f16; both are multiples of 128
    whole, with_it = estimate(dense), estimate(dense, lora=path)
    (weights,) = lines(with_it, "lora", LineKind.WEIGHTS)
    assert weights.band == Band.exactly(LAYERS * each)
    assert weights.origin is Origin.EXACT
    (scratch,) = lines(with_it, "lora", LineKind.COMPUTE_BUFFER)
    assert scratch.band.expected_bytes == 512 * (WIDE + RANK) * 4
    assert scratch.origin is Origin.ASSUMED
    more = weights.band + scratch.band
    (compute,) = lines(with_it, "language_model", LineKind.COMPUTE_BUFFER)
    assert compute.origin is Origin.ASSUMED  # its graph is another with an adapter in it
    most = whole.peak.device + more
    assert with_it.peak.device.expected_bytes == most.expected_bytes
    assert with_it.peak.device.high_bytes == most.high_bytes
    half = estimate(dense, lora=path, gpu_layers=3)  # the output layer and two blocks
    (weights,) = lines(half, "lora", LineKind.WEIGHTS)
    assert weights.band == Band.exactly(2 * each)
    host = buffers_object(half.buffers)["host_model_bytes"]
    assert host - buffers_object(estimate(dense, gpu_layers=3).buffers)["host_model_bytes"] == (
        2 * each
    )


def test_adapters_add_up(dense: Pipeline, adapter: Write) -> None:
    one = adapter({"blk.0.attn_q.weight": (WIDE, WIDE)})
    other = adapter({"blk.1.ffn_down.weight": (INNER, WIDE)})
    found = estimate(dense, lora=f"{one};{other}")
    (weights,) = lines(found, "lora", LineKind.WEIGHTS)
    assert weights.band.expected_bytes == 2 * RANK * (2 * WIDE + INNER + WIDE)
    assert [part.name for part in found.components] == ["language_model", "lora"]


#: MiB that llama.cpp b11549 prints for its graph of 4 layers with an adapter of `FEEDS` in it, by
#: layers on the card; without it 131.50 and 120.01
WITH_FEEDS = {2: 119.50, LAYERS + 1: 120.01}
FEEDS = {
    f"blk.{layer}.{name}.weight": shape
    for layer in range(LAYERS)
    for name, shape in (
        ("attn_q", (WIDE, WIDE)),
        ("ffn_up", (WIDE, INNER)),
        ("ffn_down", (INNER, WIDE)),
    )
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("layers", WITH_FEEDS)
def test_the_engine_tells_what_an_adapter_adds(
    dense: Pipeline, adapter: Write, layers: int
) -> None:
    if importlib.metadata.version("xllamacpp").rpartition(".")[2] != str(WITNESS_BUILD):
        pytest.skip(f"the engine that is installed is not b{WITNESS_BUILD}")
    found = estimate(dense, lora=adapter(FEEDS), gpu_layers=layers, context=4096)
    (compute,) = lines(found, "language_model", LineKind.COMPUTE_BUFFER)
    assert compute.origin is Origin.WITNESSED
    assert abs(compute.band.expected_bytes / MIB - WITH_FEEDS[layers]) < 0.006
    assert compute.band.high_bytes - compute.band.low_bytes <= MIB // 100
    assert not lines(found, "lora", LineKind.COMPUTE_BUFFER)
    assert lines(found, "lora", LineKind.WEIGHTS)
    assert not any("adapters add" in note for note in found.notes)


@pytest.mark.usefixtures("engine")
def test_an_adapter_that_the_engine_refuses_stays_assumed(dense: Pipeline, adapter: Write) -> None:
    path = Path(adapter(FEEDS))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - MIB)
    found = estimate(dense, lora=str(path))
    (results,) = lines(found, "lora", LineKind.COMPUTE_BUFFER)
    assert results.origin is Origin.ASSUMED
    (note,) = (note for note in found.notes if "adapters add" in note)
    assert "the engine does not take this adapter" in note


@pytest.mark.parametrize(
    ("engine_build", "why"),
    [("b11549", "pip install 'vramplan[engine]'"), ("b10488", "not b10488")],
)
def test_without_the_engine_what_an_adapter_adds_is_assumed(
    dense: Pipeline, adapter: Write, engine_build: str, why: str
) -> None:
    found = estimate(dense, lora=adapter(FEEDS), engine=engine_build)
    (results,) = lines(found, "lora", LineKind.COMPUTE_BUFFER)
    assert results.origin is Origin.ASSUMED
    (note,) = (note for note in found.notes if "adapters add" in note)
    assert why in note


@pytest.mark.parametrize("layers", WITH_FEEDS)
def test_what_is_assumed_of_an_adapter_holds_what_the_engine_says(
    dense: Pipeline, adapter: Write, layers: int
) -> None:
    found = estimate(dense, lora=adapter(FEEDS), gpu_layers=layers, context=4096)
    (compute,) = lines(found, "language_model", LineKind.COMPUTE_BUFFER)
    (results,) = lines(found, "lora", LineKind.COMPUTE_BUFFER)
    band = compute.band + results.band
    assert band.low_bytes < WITH_FEEDS[layers] * MIB < band.high_bytes


@pytest.mark.parametrize(
    ("tensors", "name", "problem"),
    [
        ({"blk.0.attn_q.weight": (WIDE, WIDE)}, "qwen3", "an adapter of qwen3, not of llama"),
        ({"blk.9.attn_q.weight": (WIDE, WIDE)}, "llama", "the model has no blk.9.attn_q.weight"),
        ({"blk.0.attn_q.weight": (WIDE, 64)}, "llama", "is of another shape"),
        ({"blk.0.attn_norm.weight": (WIDE, 64)}, "llama", "is no matrix"),
        ({}, "llama", "an adapter without tensors"),
    ],
)
def test_another_models_adapter_is_refused(
    dense: Pipeline,
    adapter: Write,
    tensors: dict[str, tuple[int, int]],
    name: str,
    problem: str,
) -> None:
    with pytest.raises(SourceError, match=problem):
        estimate(dense, lora=adapter(tensors, name))


@pytest.mark.parametrize("key", ["lora", "control_vector", "draft"])
def test_a_file_that_is_none_is_refused(dense: Pipeline, tmp_path: Path, key: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        estimate(dense, **{key: str(tmp_path / "none.gguf")})
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(VramplanError):
        estimate(dense, **{key: str(tmp_path / "text.gguf")})
    if key != "draft":
        with pytest.raises(SourceError, match="not a"):
            estimate(dense, **{key: dense.path})


@pytest.fixture
def vectors(sparse: ModuleType, tmp_path: Path) -> Write:
    def write(width: int, layers: int = 3) -> str:
        model = sparse.Model("controlvector", words=0)
        for layer in range(1, layers + 1):
            model.add(f"direction.{layer}", width)
        return str(sparse.write(tmp_path / f"v{width}.gguf", model))

    return write


def test_an_adapter_as_peft_saves_it_is_said_to_want_converting(
    dense: Pipeline, tmp_path: Path
) -> None:
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(b"PK\x03\x04 adapter_model/data.pkl")
    with pytest.raises(SourceError, match="a checkpoint of PyTorch") as told:
        estimate(dense, lora=str(path))
    assert told.value.hint is not None
    assert "convert_lora_to_gguf" in told.value.hint


def test_control_vectors_are_a_vector_a_layer_but_the_first(
    dense: Pipeline, vectors: Write
) -> None:
    path = vectors(WIDE, layers=1)  # the engine makes room for every layer all the same
    for settings in ({"control_vector": path}, {"control_vector": f"{path};{path}"}):
        (found,) = lines(estimate(dense, **settings), "control_vector", LineKind.WEIGHTS)
        assert found.band == Band.exactly((LAYERS - 1) * WIDE * 4)


def test_another_models_control_vector_is_refused(dense: Pipeline, vectors: Write) -> None:
    with pytest.raises(SourceError, match="has 512 numbers, and the model's states have 4,096"):
        estimate(dense, control_vector=vectors(512))


@pytest.fixture
def small(sparse: ModuleType, tmp_path: Path) -> str:
    model = sparse.language_model(
        layers=2, embedding=1024, heads=16, kv_heads=4, head=64, feed_forward=2816
    )
    return str(sparse.write(tmp_path / "small.gguf", sparse.dense_layers(model)))


def test_a_draft_model_is_a_second_model_with_a_context_of_its_own(
    dense: Pipeline, small: str
) -> None:
    alone, with_it = estimate(dense, context=8192), estimate(dense, context=8192, draft=small)
    own = estimate(open_model(small, None), context=8192)
    for kind in (LineKind.WEIGHTS, LineKind.KV_CACHE, LineKind.COMPUTE_BUFFER):
        (found,) = lines(with_it, "draft_model", kind)
        assert found.band.expected_bytes == own.bytes_of(kind)
    # the model's logits are those of the token and its three guesses
    rows = with_it.bytes_of(LineKind.COMPUTE_BUFFER) - own.bytes_of(LineKind.COMPUTE_BUFFER)
    assert rows >= alone.bytes_of(LineKind.COMPUTE_BUFFER)
    quantised = estimate(dense, context=8192, draft=small, kv_type="q8_0")
    (cache,) = lines(quantised, "draft_model", LineKind.KV_CACHE)
    assert cache.band.expected_bytes == own.bytes_of(LineKind.KV_CACHE)  # f16 by itself


@pytest.mark.usefixtures("engine")
def test_the_engine_tells_a_draft_models_compute_buffer(dense: Pipeline, small: str) -> None:
    if importlib.metadata.version("xllamacpp").rpartition(".")[2] != str(WITNESS_BUILD):
        pytest.skip(f"the engine that is installed is not b{WITNESS_BUILD}")
    found = estimate(dense, context=8192, draft=small)
    (compute,) = lines(found, "draft_model", LineKind.COMPUTE_BUFFER)
    assert compute.origin is Origin.WITNESSED
    own = estimate(open_model(small, None), context=8192).bytes_of(LineKind.COMPUTE_BUFFER)
    assert compute.band.low_bytes <= own <= compute.band.high_bytes
    other = estimate(dense, context=8192, draft=small, engine="b10488")
    (compute,) = lines(other, "draft_model", LineKind.COMPUTE_BUFFER)
    assert compute.origin is Origin.ASSUMED


def test_the_fit_counts_a_draft_model(dense: Pipeline, small: str) -> None:
    plain = resolve_settings(dense, {"parallel": 1})
    run = read_run(dense, plain, "8.6")
    beside = read_run(dense, {**plain, "draft": small}, "8.6")
    needs = {name: _whole(one) for name, one in (("plain", run), ("beside", beside))}
    assert needs["beside"] > needs["plain"]
    free = needs["plain"] + MARGIN_BYTES
    assert fit_run(run, free).on_gpu == LAYERS + 1
    assert fit_run(beside, free).on_gpu < LAYERS + 1
    assert fit_run(beside, needs["beside"] + MARGIN_BYTES).on_gpu == LAYERS + 1


def _whole(run: object) -> int:
    from vramplan.engines.ggml import layer_fit

    return sum(layer_fit._used_bytes(as_asked(run)))


def test_a_context_that_shrinks_shrinks_the_drafts_too(dense: Pipeline, small: str) -> None:
    settings = resolve_settings(dense, {"parallel": 1, "context": "auto", "draft": small})
    run = read_run(dense, settings, "8.6")
    found = fit_run(run, 2 * GIB)
    assert found.run.draft is not None
    assert found.run.batch.context < run.batch.context
    assert found.run.draft.batch.context == found.run.batch.context
    assert found.run.batch.outputs == 4


def test_one_model_guesses_at_a_time(dense: Pipeline, small: str) -> None:
    with pytest.raises(UsageError, match="several models"):
        estimate(dense, draft=f"{small};{small}")


def test_files_beside_are_on_each_of_several_cards(
    dense: Pipeline, adapter: Write, small: str
) -> None:
    from vramplan.catalog.search import load_catalog

    card = load_catalog().card("2xrtx-3090").candidates[0]
    queries = {f"blk.{layer}.attn_q.weight": (WIDE, WIDE) for layer in range(LAYERS)}
    settings = resolve_settings(dense, {"lora": adapter(queries), "draft": small})
    found = estimate_on(dense, settings, card)
    first, last = lines(found, "lora", LineKind.WEIGHTS)
    assert (first.device.gpu, last.device.gpu) == (0, 1)
    each = 2 * RANK * WIDE * 2
    assert (first.band.expected_bytes, last.band.expected_bytes) == (3 * each, each)
    assert len(lines(found, "draft_model", LineKind.WEIGHTS)) == 2
    assert sum(share.need.expected_bytes for share in found.cards) == (
        found.peak.device.expected_bytes
    )
