"""Model files as people have them: other kinds of GGUF, other families, other settings."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

gguf = pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

MIB = 1 << 20


def lines_of(run, *words: object) -> dict[str, dict[str, object]]:
    """Return an estimate's lines by name."""
    found = run("estimate", *words, "--json").json["result"]
    return {line["name"]: line for line in found["terms"]}


def llama(layers: int = 4):
    return sparse.dense_layers(sparse.language_model(layers=layers))


# -- kinds of file ------------------------------------------------------------------------------

KINDS = (
    ({"general.type": "imatrix"}, "imatrix", "an importance matrix (imatrix)"),
    ({"general.type": "adapter", "adapter.type": "lora"}, "llama", "a LoRA adapter"),
    ({"controlvector.layer_count": 30}, "controlvector", "a control vector"),
    ({}, "flux", "a diffusion model (flux)"),
    ({}, "wavtokenizer-dec", "a model of sound (wavtokenizer-dec)"),
    ({"general.type": "mmproj"}, "clip", "a projector"),
    ({}, "kokoro", "a model of sound (kokoro)"),
    ({}, "brand-new-tts", "a file of brand-new-tts"),
)


@pytest.mark.parametrize(("general", "architecture", "named"), KINDS)
def test_another_kind_of_file_is_named_for_what_it_is(
    run, tmp_path, general, architecture, named
) -> None:
    model = sparse.Model(architecture, general=general, words=0)
    model.add("some.weight", 32, 32)
    found = run("check", sparse.write(tmp_path / "m.gguf", model), "--card", "8gb")
    assert found.code == 2
    assert f"{named}, not a language model" in found.error


@pytest.mark.parametrize(
    ("architecture", "tensor", "named"),
    [
        ("brand-new", "double_blocks.0.img_attn.qkv.weight", "a diffusion model (brand-new)"),
        ("", "model.diffusion_model.out.2.weight", "a diffusion model (by its tensors)"),
        ("", "first_stage_model.decoder.weight", "an autoencoder of images (by its tensors)"),
        ("", "some.weight", "a file that names no architecture"),
    ],
)
def test_a_file_of_images_is_told_by_its_tensors(
    run, tmp_path, architecture, tensor, named
) -> None:
    model = sparse.Model(architecture, words=0)
    model.add(tensor, 32, 32)
    found = run("check", sparse.write(tmp_path / "m.gguf", model), "--card", "8gb")
    assert f"{named}, not a language model" in found.error


def test_what_stands_beside_a_model_says_how_it_is_given(run, tmp_path) -> None:
    model = sparse.Model("llama", general={"adapter.type": "lora"}, words=0)
    model.add("some.weight", 32, 32)
    found = run("check", sparse.write(tmp_path / "m.gguf", model), "--card", "8gb")
    assert "--set lora=FILE" in found.hint


def test_files_of_a_folder_are_told_by_their_headers(run, tmp_path) -> None:
    sparse.write(tmp_path / "a.gguf", llama())
    beside = sparse.Model("imatrix", general={"general.type": "imatrix"}, words=0)
    beside.add("some.weight", 32, 32)
    sparse.write(tmp_path / "b.gguf", beside)
    found = run("estimate", tmp_path, "--json")
    assert found.json["result"]["pipeline"] == "a"
    assert "the model is a.gguf; left out: b.gguf: an importance matrix (imatrix)" in found.err
    sparse.write(tmp_path / "c.gguf", mixture())
    found = run("estimate", tmp_path)
    assert "2 models in it" in found.error
    assert "a.gguf (llama model), b.gguf (an importance matrix (imatrix)), c.gguf (qwen3moe" in (
        found.hint
    )


STRANGE = (
    ("v.blk.0.attn_q.weight", "mmproj"),
    ("mm.0.weight", "mmproj"),
    ("blk.0.brand_new.weight", None),
)


@pytest.mark.parametrize(("name", "hint"), STRANGE)
def test_a_tensor_that_llama_cpp_does_not_know_is_refused_as_it_refuses_it(
    run, tmp_path, name, hint
) -> None:
    model = llama()
    model.add(name, 4096, 32)
    found = run("check", sparse.write(tmp_path / "m.gguf", model), "--card", "8gb")
    assert found.code == 2
    assert "wrong number of tensors; expected 40, got 39" in found.error
    assert name in found.error
    assert hint is None or hint in found.hint


# -- a projector beside -------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "is_taken"), [(4096, True), (2048, False)])
def test_a_projector_beside_is_taken_where_its_width_fits(run, tmp_path, width, is_taken) -> None:
    projectors = sparse.sibling("sparse_projectors")
    sparse.write(tmp_path / "m.gguf", llama())
    sparse.write(tmp_path / "mmproj-f16.gguf", projectors.llava(text=width))
    found = run("estimate", tmp_path / "m.gguf", "--json")
    components = [one["name"] for one in found.json["result"]["components"]]
    assert ("projector" in components) is is_taken
    assert ("another model's projector" in found.err) is not is_taken


# -- older builds -------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "mib"), [("b7000", 13.01), ("b8600", 18.01)])
def test_a_build_with_room_for_embeddings_holds_them_on_the_host(run, tmp_path, build, mib) -> None:
    """Qwen3 4B in a log of mid-2026 printed CUDA_Host 18.01 MiB."""
    model = sparse.language_model(
        "qwen3", layers=36, embedding=2560, heads=32, kv_heads=8, feed_forward=9728
    )
    path = sparse.write(tmp_path / "m.gguf", sparse.dense_layers(model, "qk norm", "tied"))
    words = ("--context", "4096", "--gpu-layers", "all", "--set", "parallel=1")
    found = run("estimate", path, *words, "--set", f"engine={build}", "--json").json["result"]
    assert found["buffers"]["host_compute_bytes"] == pytest.approx(mib * MIB, abs=0.01 * MIB)


# -- settings -----------------------------------------------------------------------------------

ALL = ("--context", "4096", "--gpu-layers", "all", "--set", "parallel=1")


def test_keys_and_values_have_types_of_their_own(run, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", llama())
    found = lines_of(run, path, *ALL, "--set", "key_type=q8_0", "--set", "value_type=q4_0")
    tokens = 4 * 4096 * 1024  # of four layers, eight heads of 128
    assert found["KV cache"]["bytes"] == tokens // 32 * (34 + 18)
    assert found["KV cache"]["origin"] == "exact"
    assert found["compute buffer"]["origin"] == "published", "the family's graph is known"


def test_a_cache_in_host_memory_is_not_on_the_card(run, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", llama())
    found = run("estimate", path, *ALL, "--set", "kv_offload=off", "--json").json["result"]
    assert found["buffers"]["kv_cache_bytes"] == 0
    assert found["buffers"]["host_kv_cache_bytes"] == 2 * 4 * 4096 * 1024 * 2


def mixture():
    model = sparse.language_model(
        "qwen3moe", layers=6, embedding=2048, feed_forward=6144, kv_heads=4
    )
    model.meta |= {"expert_count": 16, "expert_used_count": 4, "expert_feed_forward_length": 768}
    return sparse.dense_layers(model, "qk norm", "experts")


def test_experts_of_any_layers_stay_on_the_host(run, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", mixture())
    experts = 3 * 16 * 2048 * 768 // 32 * 18  # q4_0

    def weights(value: str) -> int:
        return int(lines_of(run, path, *ALL, "--cpu-moe", value)["weights"]["bytes"])

    assert weights("0") - weights("2-4") == pytest.approx(3 * experts, abs=4096)  # padded rows
    assert weights("0-1") == weights("2")
    assert run("check", path, "--card", "8gb", "--cpu-moe", "6-9").code == 2
    assert run("check", path, "--card", "8gb", "--cpu-moe", "4-2").code == 2


def test_layers_that_guess_ahead_are_loaded_where_it_is_asked(run, tmp_path) -> None:
    families = sparse.sibling("sparse_families").other_families()
    path = sparse.write(tmp_path / "m.gguf", families["glm4moe"])
    off, on = (lines_of(run, path, *ALL, "--set", f"load_mtp={word}") for word in ("off", "on"))
    # llama.cpp b11549: 567.26 and 801.91 MiB; a cache of 16 MiB for the one layer
    assert off["weights"]["bytes"] == pytest.approx(567.26 * MIB, abs=0.01 * MIB)
    assert on["weights"]["bytes"] == pytest.approx(801.91 * MIB, abs=0.01 * MIB)
    assert on["KV cache"]["bytes"] - off["KV cache"]["bytes"] == 16 * MIB
    # more than are loaded are all of them, as for the engine
    assert run("check", tmp_path / "m.gguf", "--card", "8gb", "--gpu-layers", "6").code == 0


# -- families that are not known ----------------------------------------------------------------


def other_family():
    """InternLM 2, whose graph is known of a tape alone."""
    return sparse.dense_layers(sparse.language_model("internlm2", layers=4))


@pytest.fixture
def no_tapes(monkeypatch):
    """A name that is newer than the tapes that ship."""
    monkeypatch.setattr("vramplan.engines.ggml.graph_tape.tapes_of", lambda _: None)


def test_without_the_engine_a_graph_is_replayed_from_its_tape(run, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", other_family())
    found = lines_of(run, path, *ALL)
    assert found["compute buffer"]["origin"] == "replayed"
    assert "b11549 reserves for internlm2" in str(found["compute buffer"]["source"])
    assert "vramplan[engine]" not in run("estimate", path).out


@pytest.mark.parametrize(
    ("words", "origin"),
    [
        ((), "replayed"),
        (("--set", "override_tensor=ffn_down=CPU"), "replayed"),
        (("--set", "embedding=on"), "assumed"),
        (("--set", "ubatch=16"), "assumed"),
        (("--set", "engine=b10488"), "assumed"),
        (("--card", "2xrtx-3060-12gb"), "replayed"),
    ],
)
def test_a_tape_is_of_layers_on_cards_and_of_what_was_recorded(
    run, tmp_path, words, origin
) -> None:
    path = sparse.write(tmp_path / "m.gguf", other_family())
    assert lines_of(run, path, *ALL, *words)["compute buffer"]["origin"] == origin


@pytest.mark.parametrize(
    ("key", "value"),
    [("attention.clamp_kqv", 8.0), ("nextn_predict_layers", 1)],
)
def test_what_changes_a_graph_and_was_not_recorded_is_assumed(run, tmp_path, key, value) -> None:
    model = other_family()
    model.meta[key] = value
    found = lines_of(run, sparse.write(tmp_path / "m.gguf", model), *ALL)
    changes = {"attention.clamp_kqv": "replayed"}  # which this family does not read
    assert found["compute buffer"]["origin"] == changes.get(key, "assumed")


def test_another_set_of_optional_tensors_is_assumed(run, tmp_path) -> None:
    model = other_family()
    model.add("blk.3.attn_q.bias", 4096)
    found = lines_of(run, sparse.write(tmp_path / "m.gguf", model), *ALL)
    assert found["compute buffer"]["origin"] == "assumed"


@pytest.mark.usefixtures("no_tapes")
def test_without_the_engine_an_unknown_graph_is_assumed(run, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", other_family())
    found = lines_of(run, path, *ALL)
    assert found["weights"]["origin"] == found["KV cache"]["origin"] == "exact"
    assert found["compute buffer"]["origin"] == "assumed"
    assert "vramplan[engine]" in run("estimate", path).out


@pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")
@pytest.mark.usefixtures("engine", "no_tapes")
def test_with_the_engine_an_unknown_family_is_its_own_plan(run, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", other_family())
    found = lines_of(run, path, *ALL, "--set", "flash_attention=on")
    origins = {found[name]["origin"] for name in ("weights", "KV cache", "compute buffer")}
    assert origins == {"witnessed"}
    assert "xllamacpp" in str(found["compute buffer"]["source"])
    assert "itself was asked" in run("estimate", path, *ALL).out
    split = run("check", path, "--card", "8gb", "--gpu-layers", "2", "--json")
    assert split.json["result"]["verdicts"][0]["layers"] == {
        "total": 5,
        "on_gpu": 2,
        "experts_on_cpu": 0,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")
@pytest.mark.usefixtures("engine", "no_tapes")
def test_what_the_engine_refuses_of_an_unknown_family_is_refused(run, tmp_path) -> None:
    model = other_family()
    model.tensors = [one for one in model.tensors if one[0] != "blk.2.attn_v.weight"]
    found = run("check", sparse.write(tmp_path / "m.gguf", model), "--card", "8gb")
    assert found.code == 2
    assert "the engine refuses it" in found.error
    assert "attn_v" in found.error


@pytest.mark.parametrize("name", ["bert", "gemma-embedding"])
def test_encoders_cache_nothing(run, tmp_path, name) -> None:
    model = sparse.language_model(name, layers=4, embedding=768, heads=12, kv_heads=12, head=64)
    model.meta["attention.sliding_window"] = 512
    sparse.dense_layers(model, "tied", "norm bias")
    if name == "bert":  # has no gate, and its norms stand elsewhere
        others = ("ffn_gate", "attn_norm", "ffn_norm")
        model.tensors = [one for one in model.tensors if not any(it in one[0] for it in others)]
    path = sparse.write(tmp_path / "m.gguf", model)
    found = run("estimate", path, *ALL, "--json").json["result"]
    assert found["buffers"]["kv_cache_bytes"] == 0
    table = 768 * 1024 // 32 * 18
    copied = table if name == "gemma-embedding" else 0
    blocks = sum(
        (shape[0] * (shape[1] if len(shape) > 1 else 1))
        // (32 if kind == sparse.Q4 else 1)
        * (18 if kind == sparse.Q4 else 4)
        for tensor, shape, kind in model.tensors
        if not tensor.startswith("token_embd")
    )
    assert found["buffers"]["model_bytes"] == pytest.approx(blocks + copied, abs=64 * 1024)
