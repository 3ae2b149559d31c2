"""Model files as TARGETs: a .gguf, a folder, Ollama's store, and the engine beside ours."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.extras import install_command

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

MIB = 1 << 20


def mistral(layers: int = 32) -> object:
    """Return Mistral 7B in q4_0, the language model of LLaVA 1.6."""
    return sparse.dense_layers(sparse.language_model(layers=layers, words=32000))


def clip() -> object:
    """Return CLIP-L/14-336 with LLaVA's projector: 377 tensors, 595.49 MiB."""
    model = sparse.Model("clip", words=0)
    model.meta = {
        "vision.image_size": 336,
        "vision.patch_size": 14,
        "vision.embedding_length": 1024,
        "vision.feed_forward_length": 4096,
        "vision.attention.head_count": 16,
        "vision.block_count": 23,
        "vision.projection_dim": 768,
        "projector_type": "mlp",
    }
    f16 = sparse.F16
    model.add("v.class_embd", 1024)
    model.add("v.patch_embd.weight", 14, 14, 3, 1024, kind=f16)
    model.add("v.position_embd.weight", 1024, 577, kind=f16)
    for name in ("v.pre_ln.weight", "v.pre_ln.bias"):
        model.add(name, 1024)
    for layer in range(23):
        at = f"v.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            model.add(f"{at}.{part}.weight", 1024, 1024, kind=f16)
            model.add(f"{at}.{part}.bias", 1024)
        for part in ("ln1", "ln2"):
            model.add(f"{at}.{part}.weight", 1024)
            model.add(f"{at}.{part}.bias", 1024)
        model.add(f"{at}.ffn_up.weight", 1024, 4096, kind=f16)
        model.add(f"{at}.ffn_up.bias", 4096)
        model.add(f"{at}.ffn_down.weight", 4096, 1024, kind=f16)
        model.add(f"{at}.ffn_down.bias", 1024)
    for name, width in (("mm.0", 1024), ("mm.2", 4096)):
        model.add(f"{name}.weight", width, 4096, kind=f16)
        model.add(f"{name}.bias", 4096)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    sparse.write(folder / "m.gguf", mistral())
    (folder / "eyes").mkdir()
    sparse.write(folder / "eyes" / "mmproj-f16.gguf", clip())
    return folder


@pytest.fixture
def store(models, tmp_path) -> Path:
    """An Ollama store with llava:7b."""
    folder = tmp_path / "ollama"
    (folder / "blobs").mkdir(parents=True)
    layers = []
    for kind, path in (
        ("model", models / "m.gguf"),
        ("projector", models / "eyes" / "mmproj-f16.gguf"),
    ):
        digest = ("1" if kind == "model" else "2") * 64
        (folder / "blobs" / f"sha256-{digest}").symlink_to(path)
        media = f"application/vnd.ollama.image.{kind}"
        layers.append({"mediaType": media, "digest": f"sha256:{digest}"})
    manifest = folder / "manifests/registry.ollama.ai/library/llava/7b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": layers}))
    return folder


# -- a file -------------------------------------------------------------------------------------


def test_a_file_is_judged_like_a_pipeline_of_the_catalogue(run, models, validate) -> None:
    result = run("check", models / "m.gguf", "--card", "8gb", "--card", "4GiB", "--json")
    validate(result.json)
    fits, small = result.json["result"]["verdicts"]
    assert fits["verdict"] in ("fits", "tight")
    assert small["verdict"] == "offload"
    assert "19 of 33 layers on the GPU, the rest on the CPU" in small["reason"]
    # 18 blocks of 117.03 MiB (ollama#2706) and the output layer's 102.56; 16 MiB of KV a block
    assert "the GPU holds 2,210 MiB of weights, 288 MiB of KV cache" in small["reason"]
    assert "host memory 1,709 MiB of weights, 224 MiB of KV cache" in small["reason"]
    assert small["layers"] == {"total": 33, "on_gpu": 19, "experts_on_cpu": 0}
    assert small["buffers"]["host_kv_cache_bytes"] == 14 * 16 * MIB
    assert fits["layers"]["on_gpu"] == 33


def test_what_would_bring_everything_back_is_a_smaller_file(run, models) -> None:
    result = run("check", models / "m.gguf", "--card", "5GiB", "--json").json["result"]
    settings, file = result["verdicts"][0]["advice"]
    assert (settings["change"], settings["effect"]) == ("-ngl 999", "fits")
    assert "instead of using the CPU, should it not fit" in settings["cost"]
    assert file["change"] == (
        "a smaller file of the model: q3_k_s, 3.5 bits a weight where this one has 4.5"
    )


def test_where_nothing_brings_everything_back_it_is_more_layers(run, models) -> None:
    result = run("check", models / "m.gguf", "--card", "4GiB", "--json").json["result"]
    (advice,) = result["verdicts"][0]["advice"]
    assert advice["change"] == "-ctk q8_0 -ctv q8_0; -ub 128; -c 2048"
    assert advice["effect"] == "22 of 33 layers on the GPU"


def test_without_a_context_llama_server_cuts_its_own(run, models, validate) -> None:
    result = run("check", models / "m.gguf", "--card", "8gb", "--context", "auto", "--json")
    validate(result.json)
    found = result.json["result"]["verdicts"][0]
    assert found["verdict"] == "fits"
    assert found["context"] % 256 == 0
    assert 4096 < found["context"] < 32768
    assert f"the context cut to {found['context']:,} tokens" in found["reason"]
    # 1 GiB is left, out of which come pools
    assert found["headroom_bytes"] <= 1024 * MIB
    whole = run("estimate", models / "m.gguf", "--context", "auto", "--json").json["result"]
    assert whole["settings"]["context"] == 32768
    assert any("llama-server takes the 32,768 tokens" in note for note in whole["notes"])


def test_a_context_that_the_engine_cuts_fits_a_smaller_card(run, models, validate) -> None:
    """What is planned goes out from what the engine takes, and a smaller card would do too."""
    done = run("plan", models / "m.gguf", "--card", "8gb", "--context", "auto", "--json")
    validate(done.json)
    found = done.json["result"]
    assert (found["verdict"], found["smallest"]["class"]) == ("fits", "6gb")
    assert found["largest"]["context"] % 256 == 0
    words = ("check", models / "m.gguf", "--card", "8gb", "--json", "--context")
    largest = found["largest"]["context"]
    kinds = [
        run(*words, str(tokens)).json["result"]["verdicts"][0]["verdict"]
        for tokens in (largest, largest + 256, 32768)
    ]
    assert kinds == ["fits", "offload", "offload"]
    small = run("plan", models / "m.gguf", "--card", "5GiB", "--context", "auto", "--json")
    ways = small.json["result"]["changes"]
    assert ways
    assert {"context", "gpu_layers", "kv_type", "ubatch"} >= {
        key for w in ways for key in w["settings"]
    }


def test_a_mixture_is_advised_to_keep_experts_on_the_cpu(run, tmp_path, validate) -> None:
    model = sparse.language_model("qwen3moe", layers=24, embedding=2048, feed_forward=6144)
    model.meta |= {
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    path = sparse.write(tmp_path / "moe.gguf", sparse.dense_layers(model, "qk norm", "experts"))
    words = ("check", path, "--card", "6gb", "--json")
    asked = run(*words, "--gpu-layers", "all").json["result"]["verdicts"][0]
    assert asked["verdict"] == "oom"
    advice = asked["advice"][0]
    assert advice["change"] == "--n-cpu-moe 12"
    assert advice["effect"] == "fits"
    assert advice["cost"] == "the experts of 12 of 24 layers are computed on the CPU"
    taken = run(*words, "--gpu-layers", "all", "--cpu-moe", "12")
    validate(taken.json)
    found = taken.json["result"]["verdicts"][0]
    assert found["verdict"] == "fits"
    assert found["need_bytes"] == advice["need_bytes"]
    assert found["layers"] == {"total": 25, "on_gpu": 25, "experts_on_cpu": 12}
    by_itself = run(*words).json["result"]["verdicts"][0]
    assert by_itself["verdict"] == "offload"
    assert by_itself["layers"]["on_gpu"] == 25
    assert 0 < by_itself["layers"]["experts_on_cpu"] < 24


def test_one_request_at_a_time_is_advised_where_windows_take_the_room(run, tmp_path) -> None:
    shape = {"layers": 12, "embedding": 2560, "feed_forward": 10240, "heads": 8, "kv_heads": 4}
    model = sparse.language_model("gemma3", head=256, context=131072, **shape)
    model.meta["attention.sliding_window"] = 1024
    path = sparse.write(
        tmp_path / "g.gguf", sparse.dense_layers(model, "qk norm", "norms behind", "tied")
    )
    words = ("check", path, "--card", "2.4GiB", "--context", "32768", "--json")
    (verdict,) = run(*words).json["result"]["verdicts"]
    advice = verdict["advice"][0]
    assert (verdict["verdict"], advice["change"], advice["effect"]) == ("offload", "-np 1", "fits")
    (alone,) = run(*words, "--set", "parallel=1").json["result"]["verdicts"]
    assert (alone["verdict"], alone["need_bytes"]) == ("fits", advice["need_bytes"])
    # ten of twelve layers hold the windows of three requests less: 4 KiB a token
    assert verdict["need_bytes"] - alone["need_bytes"] > 10 * 3 * 1024 * 4096
    words = ("check", path, "--card", "2.55GiB", *words[4:], "--set", "swa_full=on")
    (whole,) = run(*words).json["result"]["verdicts"]
    advice = whole["advice"][0]
    assert (whole["verdict"], advice["change"]) == ("offload", "no --swa-full")
    assert (advice["effect"], advice["need_bytes"]) == ("fits", verdict["need_bytes"])


def test_a_files_buffers_are_counted_from_its_header(run, models, validate) -> None:
    result = run("estimate", models / "m.gguf", "--context", "2048", "--json")
    validate(result.json)
    found = result.json["result"]
    assert found["runtime"] == "llama.cpp"
    buffers = found["buffers"]
    # ollama#2706's model with the output matrix on the GPU: 3,917.87 MiB less the embeddings'
    assert buffers["kv_cache_bytes"] == 256 * MIB
    assert buffers["model_bytes"] == pytest.approx(3847.55 * MIB, abs=0.1 * MIB)
    assert buffers["host_model_bytes"] == 32000 * 4096 // 32 * 18
    assert found["layers"] == {"total": 33, "on_gpu": 33, "experts_on_cpu": 0}


def test_a_projector_is_given_or_found_beside_the_model(run, models, tmp_path, validate) -> None:
    eyes = models / "eyes" / "mmproj-f16.gguf"
    given = run("estimate", models / "m.gguf", "--mmproj", eyes, "--json")
    validate(given.json)
    buffers = given.json["result"]["buffers"]
    assert buffers["projector_bytes"] == pytest.approx(595.49 * MIB, rel=0.0001)
    assert buffers["projector_compute_bytes"] == pytest.approx(21.55 * MIB, rel=0.03)
    off = run("estimate", models / "m.gguf", "--mmproj", eyes, "--set", "flash_attention=off",
              "--set", "engine=b2200", "--json")  # fmt: skip
    found = off.json["result"]["buffers"]["projector_compute_bytes"]
    assert found == pytest.approx(32.89 * MIB, rel=0.03)
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "m.gguf").symlink_to(models / "m.gguf")
    (folder / "mmproj-f16.gguf").symlink_to(eyes)
    beside = run("estimate", folder, "--json")
    assert beside.err == "note: with the projector beside it: mmproj-f16.gguf\n"
    assert beside.json["result"]["buffers"] == buffers


def test_a_name_of_ollamas_store_is_judged(run, store, monkeypatch, validate) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    result = run("check", "ollama:llava:7b", "--card", "8gb", "--card", "12gb", "--json")
    validate(result.json)
    verdicts = {one["card"]: one for one in result.json["result"]["verdicts"]}
    assert verdicts["12gb"]["verdict"] == "fits"
    parts = {part["name"] for part in verdicts["8gb"]["components"]}
    assert parts == {"language_model", "vision_encoder", "projector"}
    shown = run("estimate", "ollama:llava:7b", "--json").json["result"]
    assert shown["runtime"] == "ollama"
    assert shown["settings"]["engine"] == "b10488"


def test_ollamas_environment_is_read(run, store, monkeypatch, validate) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    for name, value in {
        "OLLAMA_CONTEXT_LENGTH": "8192",
        "OLLAMA_NUM_PARALLEL": " '2' ",
        "OLLAMA_KV_CACHE_TYPE": "Q8_0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_GPU_OVERHEAD": "1073741824",
    }.items():
        monkeypatch.setenv(name, value)
    result = run("estimate", "ollama:llava:7b", "--json")
    validate(result.json)
    assert result.err == (
        "note: unless asked otherwise, from the environment: OLLAMA_CONTEXT_LENGTH=8192, "
        "OLLAMA_NUM_PARALLEL=2, OLLAMA_KV_CACHE_TYPE=Q8_0, OLLAMA_FLASH_ATTENTION=1, "
        "OLLAMA_GPU_OVERHEAD=1073741824\n"
    )
    found = result.json["result"]
    chosen = ("context", "parallel", "kv_type", "flash_attention", "ubatch")
    # 8,192 tokens twice: Ollama takes a batch of 1,024 for more than 4,096
    assert [found["settings"][key] for key in chosen] == [8192, 2, "q8_0", "on", 1024]
    assert found["buffers"]["kv_cache_bytes"] == 2 * 32 * 1024 * 2 * 8192 // 32 * 34
    asked = run("estimate", "ollama:llava:7b", "--context", "4096", "--kv-type", "f16", "--json")
    kept = asked.json["result"]["settings"]
    assert (kept["context"], kept["kv_type"], kept["parallel"]) == (4096, "f16", 2)
    monkeypatch.setenv("OLLAMA_KV_CACHE_TYPE", "q8")
    refused = run("estimate", "ollama:llava:7b")
    assert refused.code == 2
    assert refused.error == "OLLAMA_KV_CACHE_TYPE=q8: the engine has no such type"


def test_ollamas_context_goes_by_the_card(run, store, monkeypatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    words = ("check", "ollama:llava:7b", "--card", "8gb", "--card", "23.5GiB", "--json")
    small, large = run(*words).json["result"]["verdicts"]
    assert (small["context"], large["context"]) == (4096, 32768)
    # one GiB less is below the 23 that Ollama asks for
    monkeypatch.setenv("OLLAMA_GPU_OVERHEAD", str(1 << 30))
    assert run(*words).json["result"]["verdicts"][1]["context"] == 4096
    notes = run("estimate", "ollama:llava:7b", "--json").json["result"]["notes"]
    told = "context=auto: 4,096 tokens, which Ollama takes on a card of less than 23 GiB"
    assert told in notes


def test_a_name_of_lm_studios_is_found(run, models, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "home" / ".lmstudio" / "models" / "pub" / "Mistral-GGUF"
    folder.mkdir(parents=True)
    (folder / "m.gguf").symlink_to(models / "m.gguf")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = run("estimate", "pub/Mistral-GGUF", "--json")
    assert result.err == f"note: LM Studio's model: {folder}\n"
    words = ("plan", "pub/Mistral-GGUF", "--card", "5GiB", "--json")
    ways = run(*words).json["result"]["changes"]
    assert ways[0]["line"] == "lms load --gpu max"
    long = run(*words, "--context", "32k", "--gpu-layers", "all").json["result"]["changes"]
    typed = {line for way in long for line in way["lines"]}
    assert any(line.startswith("lms load --context-length ") for line in typed)
    assert not any(line.startswith("-") for line in typed)
    found = result.json["result"]
    assert (found["pipeline"], found["runtime"]) == ("m", "lmstudio")
    assert found["settings"]["context"] == 4096
    assert "pub/Other" in run("estimate", "pub/Other").error


def test_a_tied_table_is_on_both_sides(run, tmp_path) -> None:
    model = sparse.dense_layers(sparse.language_model(layers=2, words=32000), "tied")
    path = sparse.write(tmp_path / "tied.gguf", model)
    table = 32000 * 4096 // 32 * 18
    whole = run("estimate", path, "--json").json["result"]
    host = run("estimate", path, "--gpu-layers", "0", "--json").json["result"]
    assert whole["buffers"]["host_model_bytes"] == table
    total = whole["components"][0]["weights_bytes"]
    assert whole["buffers"]["model_bytes"] == total  # with the table once more, as the output
    assert host["buffers"]["host_model_bytes"] == total
    assert whole["components"][0]["parameters"] == host["components"][0]["parameters"]


# -- the engine ---------------------------------------------------------------------------------


def test_the_engines_buffers_stand_beside_ours(run, models, validate) -> None:
    pytest.importorskip("xllamacpp")
    words = ("estimate", models / "m.gguf", "--context", "2048", "--engine-check")
    shown = run(*words)
    assert shown.code == 0
    assert "the engine beside ours" in shown.out
    assert "for all of it to be on the GPU" in " ".join(shown.out.split())
    assert "nvidia-smi shows when the card has room" in " ".join(shown.out.split())
    part = run("estimate", models / "m.gguf", "--gpu-layers", "6").out
    assert "nvidia-smi shows with this split" in " ".join(part.split())
    as_json = run(*words, "--json")
    validate(as_json.json)
    rows = {row["name"]: row["size"] for row in as_json.json["result"]["engine"]["buffers"]}
    # Mistral 7B at 2,048 tokens, flash attention: what the engine is known to print
    assert rows["KV cache"]["measured_bytes"] == 256 * MIB
    assert rows["compute"]["measured_bytes"] == pytest.approx(126.02 * MIB, abs=0.01 * MIB)
    assert all(row["band"] == 0 for row in rows.values())
    assert "The engine beside ours" in run(*words, "--format", "markdown").out
    assert run(*words, "--format", "html").code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")
def test_the_engine_plans_for_a_card_that_is_not_there(run, models, validate) -> None:
    pytest.importorskip("xllamacpp")
    words = ("check", models / "m.gguf", "--card", "4GiB", "--card", "8gb", "--engine-check")
    shown = run(*words)
    assert shown.code == 1
    assert "m on 4GiB: xllamacpp" in " ".join(shown.out.split())
    as_json = run(*words, "--json")
    validate(as_json.json)
    small, large = as_json.json["result"]["engines"]
    assert (small["card"], large["card"]) == ("4GiB", "8gb")
    assert large["layers"] == {"ours": 33, "engine": 33, "total": 33}
    assert 0 < small["layers"]["engine"] < 33
    assert small["layers"]["ours"] == small["layers"]["engine"]
    for told in (small, large):
        sizes = {row["name"]: row["size"] for row in told["buffers"]}
        for name in sizes.keys() - {"compute", "compute in host memory"}:
            assert abs(sizes[name]["residual_bytes"]) <= 0.01 * MIB, name
    assert "### The engine beside ours" in run(*words, "--format", "markdown").out
    assert run(*words, "--format", "html").code == 2
    assert run("check", "llava:7b", "--card", "8gb", "--engine-check").code == 2
    assert run(*words[:4], "--engine-check", "--together").code == 2


def test_without_the_engine_the_extra_is_named(run, models, monkeypatch) -> None:
    monkeypatch.setattr("vramplan.engines.ggml.witness.answer.LIBRARY", "not_installed_at_all")
    result = run("estimate", models / "m.gguf", "--engine-check")
    assert (result.code, result.out) == (3, "")
    assert install_command("engine") in result.hint


def test_the_engine_is_asked_of_files_only(run) -> None:
    result = run("estimate", "llava:7b", "--engine-check")
    assert result.code == 2
    assert "is no model file" in result.error


# -- bad input ----------------------------------------------------------------------------------


def test_an_unknown_family_has_weights_and_cache_and_says_that_the_rest_is_a_guess(
    run, tmp_path
) -> None:
    model = mistral(2)
    model.architecture = "brand-new"
    path = sparse.write(tmp_path / "new.gguf", model)
    found = run("estimate", path, "--json").json["result"]
    terms = {term["name"]: term for term in found["terms"]}
    assert terms["weights"]["origin"] == terms["KV cache"]["origin"] == "assumed"
    assert terms["KV cache"]["bytes"] == 2 * 2 * 4096 * 1024 * 2
    assert terms["KV cache"]["low_bytes"] == 0  # an encoder's, for all we know
    compute = terms["compute buffer"]
    assert compute["origin"] == "assumed"
    assert compute["high_bytes"] > 2 * compute["bytes"]
    assert any("compute buffer is a guess" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.write_bytes(b"PK\x03\x04 not a model"), "but a zip archive"),
        (lambda p: p.write_bytes(b"PK\x03\x04 x/data.pkl"), "but a checkpoint of PyTorch"),
        (lambda p: p.write_bytes(b"\x80\x02\x8a\n"), "but a checkpoint of PyTorch"),
        (lambda p: p.write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "but a safetensors file"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00\x01"), "not a GGUF file"),
        (lambda p: p.write_bytes(b""), "but an empty file"),
        (lambda p: p.write_bytes(b"# read me"), "but a text file"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda p: p.write_bytes(b"<!DOCTYPE html>"), "a web page"),
        (lambda p: p.write_bytes(b"tjgg\x03\0\0\0"), "a ggml file of 2023"),
        (lambda p: p.write_bytes(b"GGUF\x03\0\0\0"), "cut off or damaged"),
        (lambda p: sparse.write(p, clip()), "a projector, not a language model"),
        (lambda _: None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_model_is_one_line(run, tmp_path, make, said) -> None:
    path = tmp_path / "x.gguf"
    make(path)
    result = run("check", path, "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    assert said in result.error


@pytest.mark.parametrize("name", ["sd.ckpt", "pytorch_model.bin", "net.pt", "net.onnx"])
def test_a_file_that_is_there_is_named_for_what_it_is(run, tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(
        b"PK\x03\x04 x/data.pkl" if name != "net.onnx" else b"\x08\x07\x01"
    )
    result = run("check", name, "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    said = "an ONNX model" if name == "net.onnx" else "a checkpoint of PyTorch"
    assert f"{name}: not a GGUF file, but {said}" in result.error


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["model.onnx", "config.json"], "an ONNX model"),
        (["openvino_model.xml", "openvino_model.bin", "config.json"], "an OpenVINO model"),
        (["rank0.engine", "config.json"], "a TensorRT engine"),
        (["flax_model.msgpack", "config.json"], "weights of Flax"),
        (["tf_model.h5", "config.json"], "weights of TensorFlow"),
        (["model.bin", "vocabulary.json", "config.json"], "a CTranslate2 model"),
        (["model.nemo"], "a NeMo archive"),
        (["model.mlpackage"], "a Core ML model"),
    ],
)
def test_a_folder_of_another_format_is_named_for_what_it_is(run, tmp_path, there, said) -> None:
    for name in there:
        (tmp_path / name).write_text('{"architectures": ["LlamaForCausalLM"]}')
    result = run("check", tmp_path, "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    assert result.error == f"{tmp_path}: {said}, by the names of its files"
    assert "pickles" not in result.err


def test_weights_of_torch_go_before_the_copies_that_other_formats_have(run, tmp_path) -> None:
    for name in ("pytorch_model.bin", "flax_model.msgpack", "tf_model.h5", "config.json"):
        (tmp_path / name).write_text('{"architectures": ["BertModel"]}')
    assert "pytorch_model.bin: not read" in run("check", tmp_path, "--card", "8gb").error


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "but the text that Git LFS puts"),
        (b"<!doctype html><html>", "but a web page"),
        (b"\x40\x42\x0f\0\0\0\0\0{", "not a whole safetensors file"),
    ],
)
def test_what_was_downloaded_instead_of_weights_is_told(run, tmp_path, data, said) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    result = run("check", path, "--card", "8gb")
    assert (result.code, said in result.error, bool(result.hint)) == (2, True, True)


@pytest.mark.parametrize(
    ("name", "is_of_folder"),
    [("model.safetensors.index.json", True), ("config.json", True), ("workflow.json", False)],
)
def test_only_what_lies_in_a_models_folder_points_to_that(
    run, tmp_path, name, is_of_folder
) -> None:
    path = tmp_path / name
    path.write_text("{}")
    result = run("check", path, "--card", "8gb")
    assert ("name the folder" in result.hint) is is_of_folder


def test_a_model_file_needs_no_suffix(run, models, tmp_path) -> None:
    blob = tmp_path / "sha256-0a1b"  # as Ollama's store has them
    blob.symlink_to(models / "m.gguf")
    assert run("check", blob, "--card", "8gb").code == 0


def test_what_is_no_model_is_said_without_the_projector_beside_it(run, tmp_path) -> None:
    sparse.write(tmp_path / "mmproj-x.gguf", clip())
    flux = sparse.Model("flux", words=0)
    flux.add("double_blocks.0.img_attn.qkv.weight", 3072, 9216)
    sparse.write(tmp_path / "flux.gguf", flux)
    result = run("check", tmp_path / "flux.gguf", "--card", "8gb")
    assert "a diffusion model (flux)" in result.error
    assert "projector" not in result.err


def test_other_bad_use_is_one_line(run, models, tmp_path, monkeypatch) -> None:
    model = models / "m.gguf"
    assert "no such projector" in run("check", model, "--mmproj", "no.gguf").error
    assert "not a projector" in run("check", model, "--mmproj", model).error
    assert "belongs to one model file" in run("check", "sd15", "--mmproj", model).error
    assert "no GGUF file in it" in run("check", tmp_path).error
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    assert "not installed" in run("check", "ollama:llava:7b").error
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = run("check", "hf:a/b:c.gguf")
    assert "cannot be read" in found.error
    assert "without a network the model's own folder is enough" in found.err


def test_the_catalogue_needs_no_source() -> None:
    code = "from vramplan.cli import main; import sys; main(['check', 'sd15', '--card', '8gb'])"
    code += "; sys.exit(any(m.startswith('vramplan.sources.gguf') or m == 'urllib.request'"
    code += " for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("app.py", "but a Python program", "vramplan run --card 8gb -- python FILE.py"),
        ("a.ipynb", "but a notebook", "jupyter nbconvert --to script"),
        ("Modelfile", "but an Ollama Modelfile", "the model behind its FROM"),
        ("Modelfile.llama", "but an Ollama Modelfile", "the model behind its FROM"),
        ("my.modelfile", "but an Ollama Modelfile", "the model behind its FROM"),
        ("serve.sh", "but a shell script", "name the model that it runs"),
        ("docker-compose.gpu.yml", "describes services, not a pipeline", "name the model"),
    ],
)
def test_what_runs_a_model_is_told_from_one(run, tmp_path, name, said, hint) -> None:
    path = tmp_path / name
    path.write_text("FROM: qwen3:8b\n")
    result = run("check", path, "--card", "8gb")
    assert (result.code, said in result.error, hint in result.hint) == (2, True, True)


@pytest.mark.parametrize("place", ["./nowhere", "../no/where", "/no/where"])
def test_a_path_that_is_none_is_no_unknown_pipeline(run, tmp_path, monkeypatch, place) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("check", place, "--card", "8gb").error == f"{place}: no such file or folder"
