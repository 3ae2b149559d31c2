"""Ollama's versions as builds, what ``ollama ps`` shows, and the forms of its manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vramplan.catalog.search import load_catalog
from vramplan.engines.ggml.estimate import estimate_on
from vramplan.engines.ggml.judge import judge_ggml
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.ollama_ps import Shown, human_bytes, shown
from vramplan.engines.ggml.ollama_versions import version_of
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.engines.ggml.witnessed import settle
from vramplan.errors import SourceError, UsageError
from vramplan.model import Estimate, LineKind, Origin, Settings, SettingValue, VerdictKind
from vramplan.settings import resolve_settings
from vramplan.units import GIB, MIB

MEDIA = "application/vnd.ollama.image."
Store = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Install a model of these layers: of each kind a file, or what is in it."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    blobs = tmp_path / "ollama" / "blobs"
    blobs.mkdir(parents=True)

    def install(*layers: tuple[str, object], config: object = None) -> str:
        told = []
        for number, (kind, content) in enumerate([*layers, ("config", config)]):
            name = f"{number:064x}"
            blob = blobs / f"sha256-{name}"
            blob.unlink(missing_ok=True)
            if isinstance(content, Path):
                blob.symlink_to(content)
            else:
                blob.write_text(json.dumps(content))
            told.append({"mediaType": f"{MEDIA}{kind}", "digest": f"sha256:{name}"})
        manifest = tmp_path / "ollama" / "manifests/registry.ollama.ai/library/m/latest"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        data = {"layers": told[:-1], "config": told[-1]}
        manifest.write_text(json.dumps(data))
        return "ollama:m"

    return install


@pytest.fixture
def dense(sparse: ModuleType, tmp_path: Path) -> Path:
    model = sparse.dense_layers(sparse.language_model(layers=12))
    return Path(sparse.write(tmp_path / "m.gguf", model))


@pytest.fixture
def windowed(sparse: ModuleType, tmp_path: Path) -> Path:
    return Path(sparse.write(tmp_path / "g.gguf", sparse.families()["gemma3"]))


def estimate(target: str, **asked: SettingValue) -> Estimate:
    pipeline = open_model(target, None)
    return estimate_on(
        pipeline, settings_of(pipeline, asked), load_catalog().card("rtx-3090").candidates[0]
    )


def settings_of(pipeline: GgmlPipeline, asked: dict[str, SettingValue]) -> Settings:
    return resolve_settings(pipeline, asked)


# -- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "build", "has_server"),
    [
        ("ollama-0.6.0", 4800, False),
        ("ollama-0.24.0", 7400, False),
        ("ollama-0.30", 9452, True),
        ("ollama-v0.32.5", 10091, True),
        ("ollama-0.99.0", 10488, True),
    ],
)
def test_a_version_is_a_build(engine: str, build: int, has_server: bool) -> None:
    version = version_of(engine)
    assert version is not None
    assert (version.build, version.has_server) == (build, has_server)


def test_another_word_is_no_version() -> None:
    assert version_of("b10488") is None
    for word in ("ollama-", "ollama-new", "ollama-0.5.13"):
        with pytest.raises(UsageError):
            version_of(word)


def test_its_own_engine_ran_one_family_after_another() -> None:
    before, since, server = map(version_of, ("ollama-0.12.6", "ollama-0.12.7", "ollama-0.30.0"))
    assert before is not None
    assert since is not None
    assert server is not None
    assert not before.runs_itself("qwen3vl", has_projector_file=False)
    assert since.runs_itself("qwen3vl", has_projector_file=False)
    assert not since.runs_itself("qwen3vl", has_projector_file=True)
    assert not server.runs_itself("qwen3vl", has_projector_file=False)
    assert since.flash_attention("gemma3", is_own=True) == "on"
    assert since.flash_attention("llama", is_own=False) == "off"
    assert server.flash_attention("llama", is_own=False) == "auto"


def test_a_version_decides_what_nobody_asked_for(store: Store, dense: Path) -> None:
    target = store(("model", dense))
    for engine, context, flash in (
        ("ollama-0.6.0", 2048, "off"),
        ("ollama-0.12.0", 4096, "off"),
        ("ollama-0.24.0", 4096, "auto"),
        ("ollama-0.32.3", 4096, "auto"),
    ):
        found = estimate(target, engine=engine)
        chosen = found.settings
        assert chosen["flash_attention"] == flash
        assert chosen["context"] == context
        assert any(engine.removeprefix("ollama-") in one for one in found.notes)


def test_graphs_of_its_own_engine_are_assumed(store: Store, windowed: Path) -> None:
    target = store(("model", windowed))
    own = estimate(target, engine="ollama-0.12.6")
    line = next(one for one in own.lines if one.kind is LineKind.COMPUTE_BUFFER)
    assert line.origin is Origin.ASSUMED
    assert line.band.high_bytes >= 2 * line.band.expected_bytes
    assert any("an engine of its own" in one for one in own.notes)
    assert not any("ollama ps" in one for one in own.notes)
    later = estimate(target, engine="ollama-0.32.3")
    line = next(one for one in later.lines if one.kind is LineKind.COMPUTE_BUFFER)
    assert line.origin is not Origin.ASSUMED


def test_a_version_is_only_ollamas(dense: Path) -> None:
    pipeline = open_model(str(dense), None)
    with pytest.raises(UsageError, match="not a build of what runs this model"):
        read_run(pipeline, {"engine": "ollama-0.32.3"}, "8.6")


# -- ollama ps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (999, "999 B"),
        (5_000_000_000, "5 GB"),
        (5_260_000_000, "5.3 GB"),
        (12_900_000_000, "12 GB"),
        (640_000_000, "640 MB"),
    ],
)
def test_sizes_as_ollama_writes_them(size: int, text: str) -> None:
    assert human_bytes(size) == text


def test_what_is_where_as_ollama_writes_it() -> None:
    def processor(total: int, gpu: int) -> str:
        return Shown(total=total, gpu=gpu, unseen_cache=0).processor

    assert processor(100, 100) == "100% GPU"
    assert processor(100, 0) == "100% CPU"
    assert processor(1000, 595) == "41%/59% CPU/GPU"


def shown_of(target: str, **asked: SettingValue) -> tuple[Shown, Estimate]:
    pipeline = open_model(target, None)
    chosen = settings_of(pipeline, asked)
    fit, figures = settle(read_run(pipeline, chosen, "8.6"), None)
    found = estimate_on(pipeline, chosen, load_catalog().card("rtx-3090").candidates[0])
    return shown(fit, figures, found.buffers), found


def test_all_on_the_gpu_is_what_is_there(store: Store, dense: Path) -> None:
    found, whole = shown_of(store(("model", dense)), context=4096, ubatch=512)
    kinds = (LineKind.WEIGHTS, LineKind.KV_CACHE, LineKind.COMPUTE_BUFFER)
    sizes = [one.band.expected_bytes for one in whole.lines if one.kind in kinds]
    assert found.gpu == found.total == sum(sizes)
    told = next(one for one in whole.notes if "ollama ps" in one)
    assert "100% GPU" in told
    assert "the CUDA context and pools are not in it" in told


def test_a_part_on_the_gpu_counts_the_file_once(store: Store, dense: Path) -> None:
    target = store(("model", dense))
    asked: dict[str, SettingValue] = {"context": 4096, "ubatch": 512, "gpu_layers": 6}
    found, half = shown_of(target, **asked)
    weights = next(one for one in half.lines if one.kind is LineKind.WEIGHTS).band.expected_bytes
    host = {one.kind: one.size_bytes for one in half.buffers if one.device.is_host}
    rest = host[LineKind.KV_CACHE] + host[LineKind.COMPUTE_BUFFER]
    file = half.components[0].weights_bytes
    assert found.total - found.gpu == file - weights + rest
    assert found.processor.endswith("CPU/GPU")


def test_a_verdict_says_what_it_shows(store: Store, dense: Path) -> None:
    pipeline = open_model(store(("model", dense)), None)
    card = load_catalog().card("rtx-3090").candidates[0]
    for budget, shows in ((20 * GIB, "100% GPU"), (2 * GIB, "CPU/GPU")):
        found = judge_ggml(pipeline, settings_of(pipeline, {"context": 4096}), card, budget)
        assert "; `ollama ps` would show " in found.reason
        assert found.reason.endswith(shows)


def test_of_two_caches_it_sees_one(store: Store, windowed: Path) -> None:
    found, whole = shown_of(store(("model", windowed)), context=16384, ubatch=512)
    cache = next(one for one in whole.lines if one.kind is LineKind.KV_CACHE).band.expected_bytes
    assert 0 < found.unseen_cache < cache
    assert any("cache of the layers without a window" in one for one in whole.notes)


# -- manifests -----------------------------------------------------------------------------------


def test_a_manifest_names_adapters_and_a_draft_model(
    store: Store, dense: Path, sparse: ModuleType, tmp_path: Path
) -> None:
    draft = sparse.write(tmp_path / "d.gguf", sparse.dense_layers(sparse.language_model(layers=2)))
    target = store(("model", dense), ("adapter", dense), ("adapter", draft), ("draft", draft))
    defaults = open_model(target, None).defaults
    assert str(defaults["lora"]).count(";") == 1
    assert str(defaults["draft"]).endswith("3")
    target = store(("model", dense), ("draft", draft))
    found = estimate(target, context=4096)
    assert any("guesses 4 tokens ahead" in one for one in found.notes)
    assert any("whichever were loaded last" in one for one in found.notes)
    target = store(("model", dense), ("draft", draft), ("params", {"draft_num_predict": 0}))
    assert open_model(target, None).defaults["draft"] == "none"


def test_a_template_may_name_the_card(store: Store, dense: Path) -> None:
    target = store(("model", dense), ("params", {"main_gpu": 1}))
    defaults = open_model(target, None).defaults
    assert (defaults["split_mode"], defaults["main_gpu"]) == ("none", 1)


def test_models_without_a_gguf_are_named_for_what_they_are(store: Store) -> None:
    target = store(*[("tensor", None)] * 1200)
    with pytest.raises(SourceError, match="1,200 tensors in safetensors"):
        open_model(target, None)
    target = store(config={"remote_host": "https://ollama.com", "remote_model": "big"})
    with pytest.raises(SourceError, match="a model of Ollama's cloud"):
        open_model(target, None)
    target = store(config={})
    with pytest.raises(SourceError, match="names no model"):
        open_model(target, None)


def test_a_draft_has_the_context_of_a_request(
    store: Store, dense: Path, sparse: ModuleType, tmp_path: Path
) -> None:
    draft = sparse.write(tmp_path / "d.gguf", sparse.dense_layers(sparse.language_model(layers=2)))
    pipeline = open_model(store(("model", dense), ("draft", draft)), None)
    run = read_run(pipeline, settings_of(pipeline, {"context": 4096, "parallel": 2}), "8.6")
    assert run.draft is not None
    assert run.draft.batch.context * run.draft.batch.streams == 2 * 4096
    assert run.batch.context * run.batch.streams == 2 * 4096


# -- a load that fails ---------------------------------------------------------------------------


def test_after_a_failed_load_the_projector_goes_to_the_cpu(
    store: Store, dense: Path, sparse: ModuleType, tmp_path: Path
) -> None:
    clip = sparse.write(tmp_path / "p.gguf", sparse.sibling("sparse_projectors").llava(text=4096))
    pipeline = open_model(store(("model", dense), ("projector", Path(clip))), None)
    card = load_catalog().card("rtx-3090").candidates[0]
    chosen = settings_of(pipeline, {"context": 4096, "gpu_layers": "all"})
    need = judge_ggml(pipeline, chosen, card, 20 * GIB).estimate.need.band.expected_bytes
    found = judge_ggml(pipeline, chosen, card, need - 64 * MIB)
    assert found.kind is not VerdictKind.OOM
    assert "Ollama loads it again with the projector on the CPU" in found.reason
    by_hand = settings_of(pipeline, {**chosen, "mmproj_offload": "off"})
    told = judge_ggml(pipeline, by_hand, card, 20 * GIB).estimate
    assert {one.device for one in told.components if one.name != "language_model"} == {"cpu"}
    assert told.need.band.expected_bytes < need


def test_a_load_that_an_image_is_too_large_for_was_none_that_failed(
    store: Store, dense: Path, sparse: ModuleType, tmp_path: Path
) -> None:
    seeing = sparse.sibling("sparse_projectors").qwen25vl()
    clip = sparse.write(tmp_path / "p.gguf", seeing)
    pipeline = open_model(store(("model", dense), ("projector", Path(clip))), None)
    card = load_catalog().card("rtx-3090").candidates[0]
    chosen = settings_of(
        pipeline, {"context": 4096, "gpu_layers": "all", "image": (4000, 3000), "parallel": 1}
    )
    need = judge_ggml(pipeline, chosen, card, 20 * GIB).estimate.need.band.expected_bytes
    found = judge_ggml(pipeline, chosen, card, need - 64 * MIB)
    assert found.kind is VerdictKind.OOM
    assert "loads, and fails at an image of this size with all" in found.reason
    reserved = {**chosen, "image": pipeline.defaults["image"]}
    assert judge_ggml(pipeline, reserved, card, need - 64 * MIB).kind is not VerdictKind.OOM


def test_a_model_that_only_ollamas_own_engine_ran(
    store: Store, sparse: ModuleType, tmp_path: Path
) -> None:
    model = sparse.dense_layers(sparse.language_model("mllama", layers=2))
    model.add("v.blk.0.attn_q.weight", 64, 64)
    pipeline = open_model(store(("model", sparse.write(tmp_path / "m.gguf", model))), None)
    for engine in ("b10488", "ollama-0.30.0"):
        with pytest.raises(UsageError, match="llama-server has no architecture mllama"):
            read_run(pipeline, settings_of(pipeline, {"engine": engine}), "8.6")
    run = read_run(pipeline, settings_of(pipeline, {"engine": "ollama-0.24.0"}), "8.6")
    assert run.model.architecture == "mllama"


def test_an_encoder_that_ollama_does_not_hand_over_is_refused_by_llama_server(
    store: Store, sparse: ModuleType, tmp_path: Path
) -> None:
    model = sparse.dense_layers(sparse.language_model(layers=2))
    model.add("v.blk.0.attn_q.weight", 64, 64)
    target = store(("model", sparse.write(tmp_path / "m.gguf", model)))
    with pytest.raises(SourceError, match=r"refuses it: wrong number .* know v\.blk\.0"):
        open_model(target, None)


@pytest.mark.parametrize("name", ["gptoss", "qwen25vl", "mllama"])
def test_llama_cpp_itself_does_not_know_what_ollamas_converter_calls_otherwise(
    sparse: ModuleType, tmp_path: Path, name: str
) -> None:
    path = sparse.write(tmp_path / "m.gguf", sparse.dense_layers(sparse.language_model(name)))
    with pytest.raises(SourceError, match=f"unknown model architecture: '{name}'"):
        open_model(str(path), None)


def test_after_a_failed_load_a_context_nobody_gave_is_lower(store: Store, dense: Path) -> None:
    pipeline = open_model(store(("model", dense)), None)
    card = load_catalog().card("rtx-3090").candidates[0]
    chosen = settings_of(pipeline, {"gpu_layers": "all"})
    need = judge_ggml(pipeline, chosen, card, 23 * GIB).estimate
    assert need.settings["context"] == 32_768
    less = need.need.band.expected_bytes - 256 * MIB
    found = judge_ggml(pipeline, chosen, card, less)
    assert found.estimate.settings["context"] == 4096
    assert "loads it again with a context of 4,096 tokens" in found.reason
    given = judge_ggml(pipeline, {**chosen, "context": 32_768}, card, less)
    assert given.kind is VerdictKind.OOM
