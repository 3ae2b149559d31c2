"""What engines take for a context and a batch that nobody set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from vramplan.catalog import load_pipeline_file
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.ggml.card_memory import CardMemory
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.open import open_entry, open_model
from vramplan.errors import UsageError
from vramplan.model import Pipeline, SettingValue
from vramplan.units import GIB, MIB


def card(total: float, free: float | None = None) -> CardMemory:
    size = int(total * GIB)
    return CardMemory(total_bytes=size, free_bytes=size if free is None else int(free * GIB))


@pytest.fixture(scope="module")
def small(sparse: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Two layers of Mistral's shapes, trained on 131,072 tokens, whose cache takes 1 GiB."""
    model = sparse.dense_layers(sparse.language_model(context=131_072))
    return open_model(str(sparse.write(tmp_path_factory.mktemp("def") / "s.gguf", model)), None)


def ollama(found: Pipeline, memory: CardMemory | None, **settings: SettingValue) -> GgmlRun:
    chosen = {**found.defaults, "context": "auto", "ubatch": "auto", **settings}
    return read_run(replace(found, runtime="ollama"), chosen, "8.6", memory)


@pytest.mark.parametrize(
    ("memory", "tokens"),
    [
        (None, 4_096),
        (card(11.6), 4_096),
        (CardMemory(total_bytes=23 * GIB - 1, free_bytes=1), 4_096),
        (card(23), 32_768),
        (CardMemory(total_bytes=47 * GIB - 1, free_bytes=1), 32_768),
        (card(47), 131_072),  # 262,144, were the model trained on so many
    ],
)
def test_ollamas_context_goes_by_the_cards_memory(
    small: Pipeline, memory: CardMemory | None, tokens: int
) -> None:
    run = ollama(small, memory)
    assert (run.settings["context"], run.batch.context) == (tokens, tokens)
    assert run.remarks[0].startswith("context=auto: ")
    assert not run.may_shrink_context


def test_a_context_that_was_asked_for_wins(small: Pipeline) -> None:
    run = ollama(small, card(80), context=8192)
    assert (run.settings["context"], run.batch.context) == (8192, 8192)
    assert not any("context" in remark for remark in run.remarks if "ubatch" not in remark)


@pytest.mark.parametrize(
    ("context", "memory", "batch"),
    [
        (4_096, card(80), 512),
        (4_097, card(80), 1_024),
        (32_768, card(80), 1_024),
        (32_769, card(80), 2_048),
        (32_769, None, 2_048),
        (32_769, card(80, 4.0), 2_048),
        (32_769, card(80, 2.9), 1_024),  # 0.63 GiB is within 60 %, and 2 more above 80 %
        (32_769, card(80, 1.2), 512),
        (131_072, card(80, 1.7), 512),  # the cache alone is more than three quarters
    ],
)
def test_ollamas_batch_goes_by_the_context_and_the_room(
    small: Pipeline, context: int, memory: CardMemory | None, batch: int
) -> None:
    assert ollama(small, memory, context=context).settings["ubatch"] == batch


def test_the_rough_sum_counts_weights_and_cache(small: Pipeline) -> None:
    """2 x 2 layers x 8 KV heads x 128 x tokens x 2 bytes, beside the file's tensors."""
    run = ollama(small, None, context=32_769)
    predicted = run.model.weights_bytes + 2 * 2 * 8 * 128 * 32_769 * 2
    least = -(-(predicted + 2 * GIB) * 100 // 80)  # here the 80 % decide, not the 60
    for free, batch in ((least + 4, 2_048), (least - 4, 1_024)):
        memory = CardMemory(total_bytes=80 * GIB, free_bytes=free)
        assert ollama(small, memory, context=32_769).settings["ubatch"] == batch


def test_of_a_large_cache_the_share_of_model_and_cache_decides(
    sparse: ModuleType, tmp_path: Path
) -> None:
    """Trained on 2^20 tokens, whose cache takes 8 GiB: there 60 % are more than 80 % less 2 GiB."""
    model = sparse.dense_layers(sparse.language_model(context=1 << 20))
    found = open_model(str(sparse.write(tmp_path / "l.gguf", model)), None)
    run = ollama(found, None, context=1 << 20)
    predicted = run.model.weights_bytes + 2 * 2 * 8 * 128 * (1 << 20) * 2
    least = -(-predicted * 100 // 60)
    for free, batch in ((least, 2_048), (least - 1, 1_024)):
        memory = CardMemory(total_bytes=80 * GIB, free_bytes=free)
        assert ollama(found, memory, context=1 << 20).settings["ubatch"] == batch
    assert ollama(found, card(47)).settings["context"] == 262_144


def test_the_rough_sum_takes_the_layer_with_the_fewest_heads(
    sparse: ModuleType, tmp_path: Path
) -> None:
    batches = []
    for heads in ([8, 8], [8, 2], [2, 8]):
        model = sparse.dense_layers(sparse.language_model(context=131_072))
        model.meta["attention.head_count_kv"] = heads
        found = open_model(str(sparse.write(tmp_path / "h.gguf", model)), None)
        batches.append(ollama(found, card(80, 2), context=131_072).settings["ubatch"])
    assert batches == [512, 1_024, 1_024]


def test_without_flash_attention_batches_are_small(small: Pipeline) -> None:
    for memory, batch in ((card(8), 256), (card(8.1), 512), (None, 512)):
        run = ollama(small, memory, context=8192, flash_attention="off")
        assert run.settings["ubatch"] == batch
    assert ollama(small, card(8), context=4096, flash_attention="off").settings["ubatch"] == 512


def test_ollama_holds_a_context_against_the_model(small: Pipeline) -> None:
    run = ollama(small, None, context=200_000)
    assert run.settings["context"] == 131_072
    assert "Ollama makes the context 131,072 tokens: trained on no more" in run.remarks


def test_ollama_serves_some_families_one_at_a_time(sparse: ModuleType, tmp_path: Path) -> None:
    model = sparse.families()["lfm2"]
    found = open_model(str(sparse.write(tmp_path / "l.gguf", model)), None)
    run = ollama(found, None, parallel=4)
    assert run.batch.sequences == 1
    assert "Ollama serves lfm2 one request at a time" in run.remarks
    assert ollama(found, None).remarks == run.remarks[:1]


def test_ollama_serves_one_request_and_gives_each_its_own_cache(small: Pipeline) -> None:
    one, two = ollama(small, None), ollama(small, None, parallel=2)
    assert (one.batch.sequences, two.batch.sequences, two.batch.streams) == (1, 2, 2)
    assert two.batch.cache_layer_bytes == 2 * one.batch.cache_layer_bytes


def test_images_need_2048_tokens() -> None:
    found = open_entry(load_pipeline_file(profiles_dir() / "pipelines" / "llava-7b.yaml"))
    run = read_run(found, {"context": 512}, "8.6")
    assert run.batch.context == 2048
    assert "Ollama makes the context 2,048 tokens: at least that with images" in run.remarks


def test_llama_server_takes_what_the_model_was_trained_on(small: Pipeline) -> None:
    chosen: dict[str, SettingValue] = {**small.defaults, "context": "auto", "ubatch": "auto"}
    run = read_run(small, chosen, "8.6")
    assert (run.settings["context"], run.settings["ubatch"]) == (131_072, 512)
    assert run.may_shrink_context
    two = read_run(small, {**chosen, "parallel": 2}, "8.6")
    assert (two.settings["context"], two.batch.context) == (262_144, 131_072)
    assert two.batch.cache_layer_bytes == 2 * run.batch.cache_layer_bytes > 256 * MIB


def llama_server(found: Pipeline, **settings: SettingValue) -> GgmlRun:
    return read_run(found, {"context": 8192, **settings}, "8.6")


def test_llama_server_serves_four_over_one_cache(small: Pipeline) -> None:
    run = llama_server(small)
    assert (run.settings["parallel"], run.settings["kv_unified"]) == (4, "on")
    assert (run.batch.sequences, run.batch.streams, run.batch.context) == (4, 1, 8192)
    (told,) = run.remarks
    assert told.startswith("parallel=auto: llama-server serves 4 requests at once, over one KV")
    own = read_run(small, {"context": "auto"}, "8.6")
    assert own.settings["context"] == own.batch.context == 131_072


def test_told_how_many_it_gives_each_its_part(small: Pipeline) -> None:
    run = llama_server(small, parallel=4)
    assert run.settings["kv_unified"] == "off"
    assert (run.batch.sequences, run.batch.streams, run.batch.context) == (4, 4, 2048)
    assert not run.remarks
    one = llama_server(small, parallel=4, kv_unified="on")
    assert (one.batch.streams, one.batch.context) == (1, 8192)
    assert one.batch.cache_layer_bytes == run.batch.cache_layer_bytes


def test_its_own_choice_is_one_cache_and_nothing_else(small: Pipeline) -> None:
    with pytest.raises(UsageError, match="kv_unified=off: with parallel=auto") as refused:
        llama_server(small, kv_unified="off")
    assert refused.value.hint == "say how many: parallel=4 kv_unified=off"


def test_builds_before_november_2025_serve_one(small: Pipeline) -> None:
    run = llama_server(small, engine="b6500")
    assert (run.settings["parallel"], run.settings["kv_unified"]) == (1, "off")
    assert not run.remarks


def test_builds_before_july_2025_have_one_cache(small: Pipeline) -> None:
    run = llama_server(small, engine="b5800", parallel=4)
    assert (run.settings["kv_unified"], run.batch.streams, run.batch.context) == ("on", 1, 8192)
    assert "llama.cpp b5800 has one KV cache for all requests" in run.remarks


def test_a_window_may_hold_the_whole_context(
    small: Pipeline, sparse: ModuleType, tmp_path: Path
) -> None:
    model = sparse.families()["gemma3"]
    found = open_model(str(sparse.write(tmp_path / "g.gguf", model)), None)
    assert found.defaults["swa_full"] == "off"
    assert "swa_full" not in small.defaults
    run, full = llama_server(found), llama_server(found, swa_full="on")
    assert (run.batch.window_context, full.batch.window_context) == (4608, 8192)
    assert run.batch.cache_of_last(2) < full.batch.cache_of_last(2)


def test_the_batch_is_taken_where_the_room_is_just_enough(small: Pipeline) -> None:
    """To the byte: the sum may be 80 % of what is free, and with less it may not."""
    run = ollama(small, None, context=32_769)
    whole = run.model.weights_bytes + 2 * 2 * 8 * 128 * 32_769 * 2 + 2 * GIB
    enough = next(free for free in range(whole * 5 // 4 - 2, 80 * GIB) if free * 80 // 100 == whole)
    for free, batch in ((enough, 2_048), (enough - 1, 1_024)):
        memory = CardMemory(total_bytes=80 * GIB, free_bytes=free)
        assert ollama(small, memory, context=32_769).settings["ubatch"] == batch
