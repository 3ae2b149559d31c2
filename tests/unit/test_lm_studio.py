"""LM Studio as itself: its folder and settings, its switches, what it would say and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vramplan.catalog.search import load_catalog
from vramplan.engines.ggml.changes import changes
from vramplan.engines.ggml.estimate import estimate_on
from vramplan.engines.ggml.judge import judge_ggml
from vramplan.engines.ggml.layer_fit import as_asked, layers_of
from vramplan.engines.ggml.lm_studio import guardrail_in_words, says
from vramplan.engines.ggml.load_plan import read_run
from vramplan.engines.ggml.open import find_local, open_model
from vramplan.engines.ggml.pipeline import GgmlPipeline
from vramplan.errors import SourceError, UsageError
from vramplan.model import Buffer, Device, LineKind, VerdictKind
from vramplan.settings import resolve_settings
from vramplan.sources.lm_studio_settings import read_settings
from vramplan.units import GIB, MIB

LAYERS = 12
Open = Callable[..., GgmlPipeline]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".lmstudio"
    (folder / "models" / "publisher" / "model").mkdir(parents=True)
    return folder


@pytest.fixture
def studio(home: Path, sparse: ModuleType) -> Open:
    """Open a model of LM Studio's, with what its settings say."""
    model = sparse.dense_layers(sparse.language_model(layers=LAYERS))
    sparse.write(home / "models" / "publisher" / "model" / "m.gguf", model)

    def open_it(**told: object) -> GgmlPipeline:
        (home / "settings.json").write_text(json.dumps(told))
        text = find_local("lmstudio:publisher/model", lambda _: None)
        assert text is not None
        return open_model(text, None)

    return open_it


def test_a_model_is_found_by_its_publisher_and_name(studio: Open, home: Path) -> None:
    heard: list[str] = []
    assert studio().runtime == "lmstudio"
    bare = find_local("publisher/model", heard.append)
    assert bare is not None
    assert open_model(bare, None).runtime == "lmstudio"
    assert heard == [f"LM Studio's model: {home / 'models' / 'publisher' / 'model'}"]
    missing = find_local("lmstudio:publisher/other", heard.append)
    assert missing is not None
    with pytest.raises(SourceError, match="LM Studio has no such model"):
        open_model(missing, None)


def test_a_file_that_is_named_by_its_path_is_llama_cpps(studio: Open, home: Path) -> None:
    studio()
    path = home / "models" / "publisher" / "model" / "m.gguf"
    assert open_model(str(path), None).runtime == "llama.cpp"


def test_defaults_are_its_own_and_its_settings_go_before_them(studio: Open) -> None:
    plain = studio().defaults
    assert (plain["context"], plain["batch_tokens"], plain["ubatch"]) == (4096, 2048, 512)
    assert (plain["gpu_offload"], plain["guardrail"]) == ("auto", "strict")
    told = studio(
        defaultContextLength={"type": "custom", "value": "8192"},
        modelLoadingGuardrails={"mode": "custom", "customThresholdBytes": 4 << 30},
    ).defaults
    assert (told["context"], told["guardrail"]) == (8192, "4096MiB")
    longer = studio(defaultContextLength={"type": "custom", "value": 1_000_000}).defaults
    assert longer["context"] == 32_768  # what the model was trained on


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"defaultContextLength": 5, "modelLoadingGuardrails": []}',
        '{"defaultContextLength": {"type": "custom", "value": true}}',
        '{"defaultContextLength": {"type": "custom", "value": "99999999999999999999"}}',
        '{"modelLoadingGuardrails": {"mode": ["high"]}}',
        '{"modelLoadingGuardrails": {"mode": "custom", "customThresholdBytes": -5}}',
        "[" * 10_000,
    ],
)
def test_settings_that_are_not_as_expected_are_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    assert read_settings(tmp_path).settings == {}
    assert read_settings(tmp_path / "nowhere").settings == {}


@pytest.mark.parametrize(
    ("mode", "word"),
    [("off", "off"), ("low", "relaxed"), ("medium", "balanced"), ("high", "strict")],
)
def test_guardrails_have_the_names_that_people_see(tmp_path: Path, mode: str, word: str) -> None:
    told = {"modelLoadingGuardrails": {"mode": mode}}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    assert read_settings(tmp_path).settings == {"guardrail": word}


@pytest.mark.parametrize(
    ("share", "layers"), [("off", 0), ("0.5", 6), ("0.99", 11), ("max", LAYERS + 1), ("1", 13)]
)
def test_a_share_of_the_layers_is_a_number_of_them(studio: Open, share: str, layers: int) -> None:
    found = studio()
    run = read_run(found, resolve_settings(found, {"gpu_offload": share}), "8.6")
    assert run.asked_layers == layers
    assert any("not documented" in one for one in run.remarks) == share.startswith("0.")


def test_a_share_and_a_number_are_one_too_many(studio: Open) -> None:
    found = studio()
    settings = resolve_settings(found, {"gpu_offload": "0.5", "gpu_layers": 3})
    with pytest.raises(UsageError, match="say the same thing twice"):
        read_run(found, settings, "8.6")


def test_a_share_of_experts_is_of_a_mixtures_layers(
    studio: Open, home: Path, sparse: ModuleType
) -> None:
    dense = studio()
    with pytest.raises(UsageError, match="has no experts"):
        read_run(dense, resolve_settings(dense, {"expert_offload": "0.5"}), "8.6")
    model = sparse.language_model("qwen3moe", layers=8, embedding=2048, kv_heads=4)
    model.meta |= {"expert_count": 16, "expert_used_count": 2, "expert_feed_forward_length": 768}
    path = home / "models" / "publisher" / "model" / "m.gguf"
    sparse.write(path, sparse.dense_layers(model, "qk norm", "experts"))
    found = open_model(f"lmstudio:{path}", None)
    for share, kept in (("off", 0), ("0.5", 4), ("max", 8)):
        run = read_run(found, resolve_settings(found, {"expert_offload": share}), "8.6")
        assert as_asked(run).placement.blocks_without_experts == kept
    both = resolve_settings(found, {"expert_offload": "0.5", "cpu_moe": 2})
    with pytest.raises(UsageError, match="say the same thing twice"):
        read_run(found, both, "8.6")


def test_layers_that_were_asked_for_are_shared_out_alike(studio: Open) -> None:
    """Its strategy "evenly"; where it leaves the placement to llama.cpp, by what is free."""
    found, card = studio(), load_catalog().card("rtx-4090+rtx-3060-12gb").candidates[0]
    own, asked = (
        estimate_on(found, resolve_settings(found, settings), card).cards
        for settings in ({}, {"gpu_offload": "max"})
    )
    assert [share.layers for share in asked] == [7, 6]
    assert own[0].layers > asked[0].layers
    run = read_run(found, resolve_settings(found, {}), "8.6")
    assert layers_of(as_asked(run)) == (13,)


def buffers(mib: int) -> tuple[Buffer, ...]:
    weights = Buffer(kind=LineKind.WEIGHTS, device=Device(gpu=0), size_bytes=mib * MIB)
    pool = Buffer(kind=LineKind.ENGINE_POOL, device=Device(gpu=0), size_bytes=100 * MIB)
    host = Buffer(kind=LineKind.WEIGHTS, device=Device(gpu=None), size_bytes=8 * MIB)
    return weights, pool, host


@pytest.mark.parametrize(
    ("guardrail", "mib", "said"),
    [
        ("off", 9000, "refuses nothing"),
        ("relaxed", 9000, "cannot be said"),
        ("balanced", 1, "cannot be said"),
        ("strict", 1, "cannot be said"),
        ("4096MiB", 4089, "refuses it: 4,097 MiB are more than its limit of 4,096 MiB"),
        ("4096MiB", 4088, "may refuse it"),
        ("4096MiB", 2041, "may refuse it"),
        ("4096MiB", 2040, "lets it pass"),
    ],
)
def test_a_guardrail_says_what_is_documented_and_no_more(
    guardrail: str, mib: int, said: str
) -> None:
    assert said in guardrail_in_words({"guardrail": guardrail}, buffers(mib))
    assert says(buffers(mib)) == (mib * MIB, (mib + 8) * MIB)


def test_where_a_guardrail_refuses_what_fits_both_are_said(studio: Open) -> None:
    found = studio()
    card = load_catalog().card("rtx-3090").candidates[0]
    settings = resolve_settings(found, {"guardrail": "1024MiB"})
    judged = judge_ggml(found, settings, card, 20 * GIB)
    assert judged.kind is VerdictKind.FITS
    assert "LM Studio's guardrail refuses it" in judged.reason
    assert any("--estimate-only" in note for note in judged.estimate.notes)


def test_advice_is_in_its_own_words(studio: Open) -> None:
    found = studio()
    settings = resolve_settings(found, {"gpu_layers": "all", "context": 8192})
    said = [change.line for change in changes(found, settings)]
    assert "lms load --context-length 4096" in said
    assert not any(line.startswith(("-", "OLLAMA")) for line in said)
