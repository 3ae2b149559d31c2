"""Files of Ollama's own converter: what llama.cpp gets of them, held against its own files.

The names on the left are those that ollama/ollama writes (convert/convert_*.go).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from vramplan.engines.ggml import described_projector, ollama_files, projector_entry
from vramplan.engines.ggml.estimate import estimate_ggml
from vramplan.engines.ggml.ollama_files import Translated, translated
from vramplan.engines.ggml.ollama_versions import RUN_BY_OLLAMA_ALONE
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.projector_file import projector_of
from vramplan.engines.ggml.read_model import read_model
from vramplan.engines.ggml.tensor_names import OLLAMAS
from vramplan.model import Band, LineKind, Origin
from vramplan.settings import resolve_settings
from vramplan.sources.gguf_header import GgufFile, GgufTensor

pytest.importorskip("gguf")

_FOLDER = Path(__file__).parents[1]


def _beside(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    if not hasattr(module, "families"):
        spec.loader.exec_module(module)
    return module


projectors = _beside("sparse_projectors")
sparse = projectors.sparse


def header(model: object) -> GgufFile:
    """Return the header of a model of `sparse_gguf`, without a file."""
    metadata = {"general.architecture": model.architecture}
    for key, value in model.meta.items():
        whole = tuple(value) if isinstance(value, list) else value
        metadata[f"{model.architecture}.{key}"] = whole
    tensors = tuple(
        GgufTensor(name=name, shape=tuple(shape), type=kind.name.lower())
        for name, shape, kind in model.tensors
    )
    return GgufFile(
        path="m.gguf",
        version=3,
        metadata=metadata,
        lengths={"tokenizer.ggml.tokens": model.words},
        tensors=tensors,
        identity="m",
    )


def by_name(tensors: Iterable[GgufTensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {one.name: (one.shape, one.type) for one in tensors}


def joined(text: object, seeing: object, renames: dict[str, str], split: bool = False) -> GgufFile:
    """Return both in one file: the encoder's keys below the model's name, its tensors renamed."""
    model, encoder = header(text), header(seeing)
    name = model.architecture
    keys = dict(model.metadata)
    for key, value in encoder.metadata.items():
        if key.startswith("clip.vision."):
            keys[f"{name}.vision.{key.removeprefix('clip.vision.')}"] = value
    found = []
    for one in encoder.tensors:
        told = one.name
        for theirs, ours in renames.items():
            told = told.replace(ours, theirs)
        kind = "f16" if len(one.shape) > 1 else one.type
        if split and ".attn_qkv." in told:
            shape = (*one.shape[:-1], one.shape[-1] // 3)
            found += [
                GgufTensor(name=told.replace("attn_qkv", f"attn_{part}"), shape=shape, type=kind)
                for part in "qkv"
            ]
        elif split and told == "v.patch_embed.weight.1":
            continue
        elif split and told == "v.patch_embed.weight":
            wide, high, colours, out = one.shape
            found.append(GgufTensor(name=told, shape=(wide, high, 2, colours * out), type=kind))
        elif told != "v.token_embd.img_break":
            found.append(GgufTensor(name=told, shape=one.shape, type=kind))
    return GgufFile(
        path="m.gguf",
        version=3,
        metadata=keys,
        lengths={"tokenizer.ggml.tokens": 2048},
        tensors=(*model.tensors, *found),
        identity="m",
    )


def shown(file: GgufFile) -> Translated:
    found = translated(file)
    assert found is not None
    return found


_WIDENED = ("v.patch_embd.weight", "v.patch_embd.weight.1", "v.position_embd.weight")
_QWEN = {
    "v.pos_embed.": "v.position_embd.",
    "v.patch_embed.": "v.patch_embd.",
    "v.merger.norm": "v.post_ln",
    "v.merger.linear_fc1": "mm.0",
    "v.merger.linear_fc2": "mm.2",
    ".mlp.linear_fc1.": ".ffn_up.",
    ".mlp.linear_fc2.": ".ffn_down.",
    ".norm1.": ".ln1.",
    ".norm2.": ".ln2.",
}
_PLAIN = "qwen3vl without deepstack"
_CASES = {
    "gemma3": (
        "gemma3",
        {
            "v.patch_embedding": "v.patch_embd",
            "v.position_embedding": "v.position_embd",
            "v.post_layernorm": "v.post_ln",
            ".layer_norm1": ".ln1",
            ".layer_norm2": ".ln2",
            ".attn_output": ".attn_out",
            ".mlp.fc1": ".ffn_down",
            ".mlp.fc2": ".ffn_up",
            "mm.mm_input_projection": "mm.input_projection",
            "mm.mm_soft_emb_norm": "mm.soft_emb_norm",
        },
        _WIDENED,
    ),
    "mistral3": (
        "mistral-small",
        {
            "v.patch_conv": "v.patch_embd",
            "v.encoder_norm": "v.pre_ln",
            ".attn_output": ".attn_out",
            ".attn_norm": ".ln1",
            ".ffn_norm": ".ln2",
            "mm.linear_1": "mm.1",
            "mm.linear_2": "mm.2",
            "mm.patch_merger.merging_layer": "mm.patch_merger",
            "mm.norm": "mm.input_norm",
        },
        _WIDENED[:1],
    ),
    "qwen25vl": (
        "qwen2.5vl",
        {
            "v.merger.ln_q": "v.post_ln",
            "v.merger.mlp.0": "mm.0",
            "v.merger.mlp.2": "mm.2",
            "v.patch_embd_1.weight": "v.patch_embd.weight.1",
            "v.patch_embd_0.weight": "v.patch_embd.weight",
        },
        _WIDENED[:2],
    ),
    "qwen3vl": ("qwen3vl", _QWEN, _WIDENED),
    "qwen35": (_PLAIN, _QWEN, _WIDENED),
    "llama4": (
        "llama4",
        {
            "v.positional_embedding_vlm": "v.position_embd.weight",
            "v.vision_adapter.mlp.fc1": "mm.model.mlp.1",
            "v.vision_adapter.mlp.fc2": "mm.model.mlp.2",
            "mm.linear_1": "mm.model.fc",
            "v.class_embedding": "v.class_embd",
            "v.layernorm_post": "v.post_ln",
            "v.layernorm_pre": "v.pre_ln",
            "v.patch_embedding": "v.patch_embd",
            ".attn_output": ".attn_out",
            ".attn_norm": ".ln1",
            ".ffn_norm": ".ln2",
            ".mlp.fc1": ".ffn_up",
            ".mlp.fc2": ".ffn_down",
        },
        (),
    ),
    "gemma4": ("gemma4", {}, _WIDENED[:1]),
}


def _encoder(name: str) -> object:
    return projectors.qwen3vl(deep=()) if name == _PLAIN else projectors.families()[name]


def _pair(architecture: str) -> tuple[GgufFile, GgufFile, GgufFile]:
    """Return a file of both, and the two that llama.cpp's converter makes."""
    name, renames, _ = _CASES[architecture]
    seeing = _encoder(name)
    wide = 5120 if architecture == "mistral3" else 4096
    text = sparse.dense_layers(sparse.language_model(architecture, embedding=wide))
    file = joined(text, seeing, renames, split=architecture in ("qwen3vl", "qwen35"))
    if architecture == "qwen3vl":
        file = _with_deepstack(file, seeing)
    if architecture == "qwen25vl":
        key = "qwen25vl.vision.fullatt_block_indexes"
        file = _with_keys(file, {key: (1, 3)}, without="qwen25vl.vision.n_wa_pattern")
    if architecture == "mistral3":
        file = _with_keys(file, {"mistral3.spatial_merge_size": 2})
    return file, header(text), header(seeing)


def _with_keys(file: GgufFile, keys: dict[str, object], without: str = "") -> GgufFile:
    told = {key: value for key, value in file.metadata.items() if key != without}
    return GgufFile(
        path=file.path,
        version=3,
        metadata={**told, **keys},
        lengths=file.lengths,
        tensors=file.tensors,
        identity=file.identity,
    )


def _with_deepstack(file: GgufFile, seeing: object) -> GgufFile:
    """Number the mergers by their order, as the converter does, and tell their layers."""
    layers = sorted({int(n.split(".")[2]) for n, *_ in seeing.tensors if ".deepstack." in n})
    tensors = []
    for one in file.tensors:
        told = one.name
        for number, layer in enumerate(layers):
            told = told.replace(f"v.deepstack.{layer}.fc", f"v.deepstack_merger.{number}.linear_fc")
            told = told.replace(f"v.deepstack.{layer}.", f"v.deepstack_merger.{number}.")
        tensors.append(GgufTensor(name=told, shape=one.shape, type=one.type))
    key = "qwen3vl.vision.deepstack_visual_indexes"
    return GgufFile(
        path=file.path,
        version=3,
        metadata={**file.metadata, key: tuple(layers)},
        lengths=file.lengths,
        tensors=tuple(tensors),
        identity="m",
    )


@pytest.mark.parametrize("architecture", _CASES)
def test_one_file_is_shown_as_the_two_of_llama_cpps_converter(architecture: str) -> None:
    file, text, seeing = _pair(architecture)
    found = shown(file)
    assert by_name(found.model.tensors) == by_name(text.tensors)
    assert found.projector is not None
    expected = by_name(seeing.tensors)
    *_, widened = _CASES[architecture]
    for name, (shape, kind) in expected.items():
        joint = architecture == "qwen3vl" and ".attn_qkv." in name
        told = "f32" if name in widened or joint else kind
        if name not in widened and len(shape) > 1 and kind == "f32":
            told = "f16"  # these files have positions in f16, and nobody widens them
        expected[name] = (shape, told)
    assert by_name(found.projector.tensors) == expected
    assert found.written_as == architecture


@pytest.mark.parametrize("architecture", _CASES)
def test_its_encoder_is_known_as_llama_cpps_is(architecture: str) -> None:
    file, _, seeing = _pair(architecture)
    ours = projector_of(shown(file).projector)
    theirs = projector_of(seeing)
    assert ours.shape is not None
    for key in ("family", "embedding", "heads", "head", "layers", "patch", "merge"):
        assert getattr(ours.shape, key) == getattr(theirs.shape, key), key
    assert ours.shape.window_pattern == theirs.shape.window_pattern
    assert (ours.sizes, ours.tokens, ours.outputs) == (theirs.sizes, theirs.tokens, theirs.outputs)
    assert ours.feed_forward == theirs.feed_forward


def test_room_is_made_for_what_the_file_holds_and_more_is_loaded() -> None:
    file, _, _ = _pair("qwen3vl")
    found = shown(file)
    loaded = sum(one.size_bytes for one in found.projector.tensors)
    written = sum(one.size_bytes for one in file.tensors if one.name.startswith(("v.", "mm.")))
    assert found.encoder_bytes == written
    heads = sum(one.size_bytes for one in found.projector.tensors if "attn_qkv.w" in one.name)
    assert loaded > written + heads // 3  # heads are joined in f32, twice as wide


def test_the_two_views_of_a_file_are_not_taken_for_one_another() -> None:
    found = shown(_pair("gemma3")[0])
    assert len({found.model.identity, found.projector.identity, "m"}) == 3


def test_words_without_a_row_are_left_out() -> None:
    file, text, _ = _pair("gemma3")
    rows = text.lengths["tokenizer.ggml.tokens"]
    assert file.lengths["tokenizer.ggml.tokens"] > rows
    assert shown(file).model.lengths["tokenizer.ggml.tokens"] == rows


def _text(architecture: str, *parts: str, **sizes: int) -> GgufFile:
    return header(sparse.dense_layers(sparse.language_model(architecture, **sizes), *parts))


def _renamed(file: GgufFile, architecture: str, renames: dict[str, str]) -> GgufFile:
    """Return a file of llama.cpp's converter as Ollama's writes it."""
    before = f"{file.architecture}."
    keys = {
        key.replace(before, f"{architecture}.", 1) if key.startswith(before) else key: value
        for key, value in file.metadata.items()
    }
    keys["general.architecture"] = architecture
    tensors = []
    for one in file.tensors:
        told = one.name
        for theirs, ours in renames.items():
            told = told.replace(ours, theirs)
        tensors.append(GgufTensor(name=told, shape=one.shape, type=one.type))
    return GgufFile(
        path=file.path,
        version=3,
        metadata=keys,
        lengths=file.lengths,
        tensors=tuple(tensors),
        identity="m",
    )


def test_gpt_oss() -> None:
    experts = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 2880}
    model = sparse.language_model("gpt-oss", embedding=2880, heads=64, head=64, feed_forward=2880)
    model.meta |= experts
    parts = ("qkv bias", "output bias", "sinks", "norm between", "experts", "mxfp4")
    real = header(sparse.dense_layers(model, *parts))
    renames = {
        ".attn_out.": ".attn_output.",
        ".ffn_norm.": ".post_attention_norm.",
        ".attn_sinks": ".attn_sinks.weight",
    }
    key = "gptoss.expert_feed_forward_length"
    file = _with_keys(_renamed(real, "gptoss", renames), {}, without=key)
    found = shown(file).model
    assert found.architecture == "gpt-oss"
    assert by_name(found.tensors) == by_name(real.tensors)
    assert found.number("gpt-oss.expert_feed_forward_length") == 2880
    assert found.number("gpt-oss.block_count") == 2


def test_norms_and_names_of_plain_models() -> None:
    real = _text("olmo2", "norms behind", "qk norm wide")
    found = shown(_renamed(real, "olmo3", {})).model
    assert found.architecture == "olmo2"
    assert by_name(found.tensors) == by_name(real.tensors)
    lfm2 = _text("lfm2", "qk norm")
    real = _renamed(lfm2, "lfm2", {"token_embd_norm": "output_norm"})
    wrong = _with_keys(lfm2, {"lfm2.feed_forward_length": 1})
    found = shown(wrong).model
    assert by_name(found.tensors) == by_name(real.tensors)
    assert found.number("lfm2.feed_forward_length") == 14336


def test_a_gate_is_joined_with_the_matrix_beside_it() -> None:
    real = _text("glm4", "norms behind", "fused up", kv_heads=2)
    plain = _text("glm4", "norms behind", kv_heads=2)
    renames = {
        ".attn_out.": ".attn_output.",
        ".post_attn_norm.": ".post_attention_norm.",
        ".post_ffn_norm.": ".post_ffw_norm.",
    }
    found = shown(_renamed(plain, "glmocr", renames)).model
    assert by_name(found.tensors) == by_name(real.tensors)
    assert found.architecture == "glm4"


def test_the_table_of_gemma3n_is_cut_to_the_words_that_layers_know() -> None:
    file = _text("gemma3n", words=1100)
    more = GgufTensor(name="per_layer_token_embd.weight", shape=(512, 1024), type="q6_k")
    file = GgufFile(
        path="m",
        version=3,
        metadata=file.metadata,
        lengths=file.lengths,
        tensors=(*file.tensors, more),
    )
    found = shown(file).model
    assert by_name(found.tensors)["token_embd.weight"] == ((4096, 1024), "q4_0")
    assert found.lengths["tokenizer.ggml.tokens"] == 1024


def test_an_embedding_model_is_another_architecture() -> None:
    file = _text("gemma3", "qk norm", "norms behind", "tied")
    dense = [
        GgufTensor(name=f"dense.{number}.weight", shape=shape, type="f16")
        for number, shape in enumerate([(4096, 3072), (3072, 4096)])
    ]
    file = GgufFile(
        path="m",
        version=3,
        metadata=file.metadata,
        lengths=file.lengths,
        tensors=(*file.tensors, *dense),
    )
    found = shown(
        _with_keys(file, {"gemma3.attention.sliding_window_pattern": (True, False)})
    ).model
    assert found.architecture == "gemma-embedding"
    assert {"dense_2.weight", "dense_3.weight"} < set(by_name(found.tensors))
    assert "gemma-embedding.attention.sliding_window_pattern" not in found.metadata
    assert found.number("gemma-embedding.block_count") == 2


def _seeing(architecture: str, keys: dict[str, object], *tensors: tuple) -> GgufFile:
    """Return the projector that is made of one of the rarer files."""
    file = _text(architecture)
    told = {f"{architecture}.vision.{key}": value for key, value in keys.items()}
    more = [GgufTensor(name=name, shape=shape, type="f16") for name, shape in tensors]
    found = shown(
        GgufFile(
            path="m",
            version=3,
            metadata={**file.metadata, **told},
            lengths=file.lengths,
            tensors=(*file.tensors, *more),
        )
    ).projector
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(1280, 16384), (16384, 1280), (1, 16384, 1280)])
def test_positions_of_a_larger_image_are_shrunk(shape: tuple[int, ...]) -> None:
    keys = {"image_size": 512, "patch_size": 16, "embedding_length": 1280}
    found = _seeing("nemotron_h_omni", keys, ("v.position_embd", shape), ("a.x", (64,)))
    assert by_name(found.tensors) == {"v.position_embd.weight": ((1280, 1024), "f32")}


def test_keys_of_other_names_are_found() -> None:
    keys = {"intermediate_size": 2816, "out_hidden_size": 1536, "embedding_length": 1024}
    found = projector_of(_seeing("glmocr", keys, ("v.patch_embd_0.weight", (14, 14, 3, 1024))))
    assert (found.feed_forward, found.projection) == (2816, 1536)
    sam = ("s.patch_embd.weight", (16, 16, 3, 768))
    seen = _seeing("deepseekocr", {"head_count": 12}, sam, ("v.class_embd", (1024,)))
    assert projector_of(seen).heads == 12
    assert by_name(seen.tensors)["s.patch_embd.weight"][1] == "f32"


def test_layers_that_guess_go_behind_the_others() -> None:
    file = _text("qwen35moe")
    heads = "qwen35moe.attention.head_count_kv"
    wide = 4096
    inner = [("attn_norm.weight", (wide,), "f16"), ("attn_q.weight", (wide, wide), "q4_0")]
    guessing = [
        GgufTensor(name=f"mtp.layers.0.{name}", shape=shape, type=kind)
        for name, shape, kind in inner
    ]
    guessing += [
        GgufTensor(name=f"mtp.layers.0.mlp.experts.{n}.{part}_proj.weight", shape=shape, type="f16")
        for n in range(4)
        for part, shape in (("gate", (wide, 512)), ("up", (wide, 512)), ("down", (512, wide)))
    ]
    guessing += [
        GgufTensor(name="mtp.fc.weight", shape=(2 * wide, wide), type="q4_0"),
        GgufTensor(name="mtp.pre_fc_norm_hidden.weight", shape=(wide,), type="f16"),
        GgufTensor(name="mtp.strange.weight", shape=(wide,), type="f16"),
    ]
    states = GgufTensor(name="blk.0.ssm_dt", shape=(32,), type="f32")
    file = GgufFile(
        path="m",
        version=3,
        metadata={**file.metadata, heads: (0, 2)},
        lengths=file.lengths,
        tensors=(*file.tensors, states, *guessing),
    )
    found = shown(file).model
    tensors = by_name(found.tensors)
    assert found.number("qwen35moe.nextn_predict_layers") == 1
    assert found.number("qwen35moe.block_count") == 3
    assert found.metadata[heads] == 2
    assert "blk.0.ssm_dt.bias" in tensors
    assert tensors["blk.2.ffn_down_exps.weight"] == ((512, wide, 4), "f16")
    assert tensors["blk.2.attn_norm.weight"] == ((wide,), "f32")
    assert tensors["blk.2.nextn.eh_proj.weight"] == ((2 * wide, wide), "q4_0")
    assert tensors["blk.2.nextn.hnorm.weight"] == ((wide,), "f32")
    assert not any(name.startswith("mtp.") for name in tensors)


def test_latent_attention_is_told_as_deepseeks() -> None:
    file = _text("glm4moelite", heads=20, kv_heads=20, head=256)
    told = {
        "glm4moelite.attention.kv_lora_rank": 512,
        "glm4moelite.rope.dimension_count": 64,
    }
    found = shown(_with_keys(file, told)).model
    assert found.architecture == "deepseek2"
    assert found.number("deepseek2.attention.head_count_kv") == 1
    assert found.number("deepseek2.attention.key_length") == 576
    assert found.number("deepseek2.attention.value_length") == 512
    assert found.number("deepseek2.attention.key_length_mla") == 256


def test_experts_of_gemma4_are_stacked_but_where_something_scales_them() -> None:
    model = sparse.language_model("gemma4")
    model.meta |= {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 512}
    file = header(sparse.dense_layers(model, "experts"))
    assert translated(file) is None, "llama.cpp's own converter leaves them apart too"
    file = _with_keys(file, {"tokenizer.ggml.model": "llama"})
    found = by_name(shown(file).model.tensors)
    assert found["blk.0.ffn_gate_up_exps.weight"] == ((4096, 1024, 4), "q4_0")
    assert "blk.0.ffn_gate_exps.weight" not in found
    scale = GgufTensor(name="blk.0.ffn_up_exps.scale", shape=(4,), type="f32")
    scaled = GgufFile(
        path="m",
        version=3,
        metadata=file.metadata,
        lengths=file.lengths,
        tensors=(*file.tensors, scale),
    )
    found = by_name(shown(scaled).model.tensors)
    assert "blk.0.ffn_gate_exps.weight" in found
    assert "blk.1.ffn_gate_up_exps.weight" in found


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3vl", "mistral3"])
def test_a_file_of_llama_cpps_converter_stays_as_it_is(architecture: str) -> None:
    file = _text(architecture)
    if architecture == "qwen3vl":
        file = _with_keys(file, {"qwen3vl.n_deepstack_layers": 3})
    assert translated(file) is None


def test_names_of_ollamas_own_are_refused_by_llama_cpp_itself() -> None:
    renamed = {name for name, rule in ollama_files._RULES.items() if rule.name}
    assert renamed | set(RUN_BY_OLLAMA_ALONE) == OLLAMAS


def test_an_entry_may_describe_every_projector_whose_tensors_are_known() -> None:
    assert set(projector_entry._ARCHITECTURES) == {"clip", *described_projector.FAMILIES}


@pytest.mark.parametrize(("engine", "is_known"), [("b10488", True), ("ollama-0.24.0", False)])
def test_what_ollamas_own_engine_makes_of_an_encoder_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, is_known: bool
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    _install(tmp_path / "models", _write_joined(tmp_path / "blob", "gemma3"))
    pipeline = open_model("ollama:seeing", None)
    chosen = resolve_settings(pipeline, {"engine": engine})
    lines = estimate_ggml(pipeline, chosen, "8.6", Band.exactly(0)).lines
    seeing = [one for one in lines if one.component in ("vision_encoder", "projector")]
    weights = {one.origin for one in seeing if one.kind is LineKind.WEIGHTS}
    (compute,) = [one for one in seeing if one.kind is LineKind.PROJECTOR_COMPUTE]
    assert weights == {Origin.EXACT if is_known else Origin.ASSUMED}
    assert compute.origin is (Origin.PUBLISHED if is_known else Origin.ASSUMED)
    assert (compute.band.high_bytes > 1.9 * compute.band.expected_bytes) is not is_known
    (cache,) = [one for one in lines if one.kind is LineKind.KV_CACHE]
    assert cache.origin is (Origin.EXACT if is_known else Origin.ASSUMED)
    assert (cache.band.low_bytes < cache.band.expected_bytes) is not is_known


def _install(folder: Path, blob: Path) -> None:
    """Install a model as Ollama does: a manifest, and a blob under the name of its digest."""
    digest = "a" * 64
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    blob.rename(blobs / f"sha256-{digest}")
    manifest = folder / "manifests/registry.ollama.ai/library/seeing/latest"
    manifest.parent.mkdir(parents=True)
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{digest}",
        "size": 1,
    }
    manifest.write_text(json.dumps({"layers": [layer]}), encoding="utf-8")


def _write_joined(path: Path, architecture: str) -> Path:
    file = _pair(architecture)[0]
    model = sparse.Model(architecture, words=1024)
    before = f"{architecture}."
    for key, value in file.metadata.items():
        if key.startswith(before):
            told = list(value) if isinstance(value, tuple) else value
            model.meta[key.removeprefix(before)] = told
    kinds = {one.name.lower(): one for one in sparse.GGMLQuantizationType}
    for one in file.tensors:
        model.add(one.name, *one.shape, kind=kinds[one.type])
    return sparse.write(path, model)


@pytest.mark.parametrize("architecture", ["gemma3", "qwen25vl"])
def test_an_installed_model_of_one_file_has_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    _install(tmp_path / "models", _write_joined(tmp_path / "blob", architecture))
    pipeline = open_model("ollama:seeing", None)
    assert pipeline.has_projector
    assert not any(one.name.startswith(("v.", "mm.")) for one in read_model(pipeline).tensors)
    assert pipeline.defaults["mmproj_offload"] == "on"
    assert pipeline.model.written_as == architecture
    assert ("image" in pipeline.defaults) == (architecture == "qwen25vl")
