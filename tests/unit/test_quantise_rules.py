"""The types that llama-quantize gives a model's matrices, against sizes that others publish."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from vramplan.catalog.pipelines import load_pipeline_file
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.ggml.open import open_entry
from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.engines.ggml.projector_entry import read_projector
from vramplan.engines.ggml.quantise_rules import TYPES, Mixture, quantised
from vramplan.engines.ggml.quantised_name import read_name
from vramplan.engines.ggml.read_model import header_of, read_model
from vramplan.errors import CatalogError

ENTRIES = sorted((profiles_dir() / "pipelines").glob("ollama-*.yaml"))


@cache
def entry(path: Path) -> GgmlPipeline:
    return open_entry(load_pipeline_file(path))


def described(**changes: object) -> GgmlPipeline:
    """Return Llama 3.1 8B, with changes."""
    section = {
        "architecture": "llama",
        "quantisation": "q4_k_m",
        "layers": 32,
        "embedding": 4096,
        "feed_forward": 14336,
        "heads": 32,
        "kv_heads": 8,
        "vocabulary": 128_256,
        "trained_context": 131_072,
        "rotation_factors": True,
    }
    return GgmlPipeline(
        name="x",
        title="x",
        summary="x",
        runtime="ollama",
        defaults={},
        constraints={},
        source="",
        path="x.yaml",
        model=Described(section=section | changes),
    )


#: bits a weight and GiB of Llama 3.1 8B. Source: llama.cpp, tools/quantize/README.md
PUBLISHED = {
    "iq3_xxs": (3.2548, 3.04),
    "q2_k": (3.1593, 2.95), "q3_k_s": (3.6429, 3.41), "q3_k_m": (3.9960, 3.74),
    "q3_k_l": (4.2979, 4.02), "iq4_xs": (4.4597, 4.17), "iq4_nl": (4.6818, 4.38),
    "q4_k_s": (4.6672, 4.36), "q4_k_m": (4.8944, 4.58), "q5_k_s": (5.5704, 5.21),
    "q5_k_m": (5.7036, 5.33), "q6_k": (6.5633, 6.14), "q8_0": (8.5008, 7.95),
    "f16": (16.0005, 14.96),
}  # fmt: skip


@pytest.mark.parametrize(("quantisation", "published"), PUBLISHED.items())
def test_llama_3_1_in_every_quantisation_is_as_llama_cpp_publishes_it(
    quantisation: str, published: tuple[float, float]
) -> None:
    model = read_model(described(quantisation=quantisation))
    bits = round(model.weights_bytes * 8 / model.parameters, 4)
    assert (bits, round(model.weights_bytes / 2**30, 2)) == published
    assert model.quantisation == quantisation


#: what Ollama's library says of a download, GB as it rounds them (ollama.com/library, 2025 and
#: 2026); with a header of words, 6 to 16 MB, and licences of some kilobytes
LISTED = {
    "bakllava:7b": 4.7, "gemma3:4b": 3.3, "gemma3:12b": 8.1, "gemma3:27b": 17, "llava:13b": 8.0,
    "llava:34b": 20, "llava-llama3:8b": 5.5, "mistral-small3.1:24b": 15, "qwen2.5vl:7b": 6.0,
    "qwen2.5vl:32b": 21, "gemma3:4b-it-qat": 4.0, "gemma3:12b-it-qat": 8.9, "gemma3:27b-it-qat": 18,
    "codellama:7b": 3.8, "deepseek-r1:14b": 9.0, "deepseek-r1:32b": 20, "deepseek-r1:7b": 4.7,
    "deepseek-r1:8b": 5.2, "gemma2:27b": 16, "gemma2:2b": 1.6, "gemma2:9b": 5.4,
    "gemma3:1b": 0.815, "gpt-oss:20b": 14, "gpt-oss:120b": 65,
    "llama2:7b": 3.8, "llama3.1:8b": 4.9, "llama3.2:1b": 1.3,
    "llama3.2:3b": 2.0, "llama3.3:70b": 43, "llama3:8b": 4.7, "mistral-nemo:12b": 7.1,
    "mistral-small:24b": 14, "mistral:7b": 4.4, "mixtral:8x7b": 26, "phi4:14b": 9.1,
    "qwen2.5:0.5b": 0.398, "qwen2.5:1.5b": 0.986, "qwen2.5:14b": 9.0, "qwen2.5:32b": 20,
    "qwen2.5:3b": 1.9, "qwen2.5:72b": 47, "qwen2.5:7b": 4.7, "qwen3:0.6b": 0.523,
    "qwen3:1.7b": 1.4, "qwen3:14b": 9.3, "qwen3:30b": 19, "qwen3:32b": 20, "qwen3:4b": 2.5,
    "qwen3:8b": 5.2, "smollm2:1.7b": 1.8, "tinyllama:1.1b": 0.638,
}  # fmt: skip


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_entries_are_as_large_as_ollamas_library_says(path: Path) -> None:
    pipeline = entry(path)
    listed = LISTED[pipeline.name]
    vision = read_projector(pipeline)
    least = read_model(pipeline).weights_bytes + (vision.counted_bytes if vision else 0)
    digit = 0.001 if listed < 1 else 0.1 if listed < 10 else 1.0
    assert least / 1e9 + 0.0005 <= listed + digit / 2
    assert (least + 16.1e6) / 1e9 >= listed - digit / 2


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen2.5vl-7b", 8_292_166_656),  # Qwen/Qwen2.5-VL-7B-Instruct
        ("mistral-small3.1-24b", 24_011_361_280),  # mistralai/Mistral-Small-3.1-24B-Base-2503
    ],
)
def test_models_that_see_have_as_many_parameters_as_their_authors_files(
    name: str, parameters: int
) -> None:
    pipeline = entry(next(path for path in ENTRIES if path.stem == f"ollama-{name}"))
    vision = read_projector(pipeline)
    made = [one for one in vision.tensors if one.name == "v.token_embd.img_break"]
    counted = read_model(pipeline).parameters + sum(one.elements for one in vision.tensors)
    assert counted - sum(one.elements for one in made) == parameters


@pytest.mark.parametrize(("size", "published"), [("4b", 3.16), ("12b", 8.07), ("27b", 17.2)])
def test_gemma_3_trained_for_four_bits_is_as_large_as_googles_files(
    size: str, published: float
) -> None:
    """The text model alone, beside a header of words of 6 MB.

    Source: google/gemma-3-SIZE-it-qat-q4_0-gguf, as the cards of stduhpf's smaller ones list them.
    """
    path = next(path for path in ENTRIES if path.stem == f"ollama-gemma3-{size}-it-qat")
    bytes_of_file = read_model(entry(path)).weights_bytes + 6_500_000
    assert round(bytes_of_file / 1e9, 1 if published > 10 else 2) == published


def test_downloads_that_ollamas_documentation_counts_to_the_byte() -> None:
    """Beside the tensors there are a header, of Llama's words 7.8 MB, of Qwen's 5.9, and texts.

    Source: ollama/ollama, docs/api.md ("List Local Models").
    """
    sizes = {entry(path).name: read_model(entry(path)).weights_bytes for path in ENTRIES}
    assert 2_019_393_189 - sizes["llama3.2:3b"] == 7_853_477
    assert 4_683_075_271 - sizes["deepseek-r1:7b"] == 5_955_271


def test_the_library_keeps_the_values_of_qwen3_in_f16() -> None:
    """`- type f32: 257`, f16 64, q4_K 353 and q6_K 33 tensors, 18.81 GiB: ollama/ollama#14774."""
    path = next(path for path in ENTRIES if path.stem == "ollama-qwen3-32b")
    types = Counter(tensor.type for tensor in header_of(entry(path)).tensors)
    assert types == {"f32": 257, "f16": 64, "q4_k": 353, "q6_k": 33}
    assert round(read_model(entry(path)).weights_bytes / 2**30, 2) == 18.81


def test_a_mixture_of_experts_is_as_its_log_says() -> None:
    """579 tensors, and 243.4 MiB outside the layers: ollama/ollama#10458 (qwen3:30b-a3b)."""
    path = next(path for path in ENTRIES if path.stem == "ollama-qwen3-30b")
    header = header_of(entry(path))
    assert len(header.tensors) == 579
    outside = [one for one in header.tensors if one.name.startswith("output")]
    assert round(sum(one.size_bytes for one in outside) / 2**20, 1) == 243.4


def test_rows_that_no_block_fits_get_another_type() -> None:
    def kind(row: int, quantisation: str) -> str:
        tensors = [("output.weight", (row, 32)), ("blk.0.attn_q.weight", (row, 32))]
        mixture = Mixture(quantisation=quantisation, architecture="llama", layers=1, heads_a_key=1)
        return list(quantised(tensors, mixture))[1][2]

    assert kind(896, "q4_k_m") == "q5_0"
    assert kind(896, "q6_k") == "q8_0"
    assert kind(896, "q5_k_s") == "q5_1"
    assert kind(896, "iq4_xs") == "iq4_nl"
    assert kind(900, "q4_0") == "f16"


def test_eight_experts_keep_keys_and_values_in_eight_bits() -> None:
    header = header_of(described(experts=8, experts_used=2))
    kinds = {tensor.name: tensor.type for tensor in header.tensors}
    assert kinds["blk.3.attn_v.weight"] == kinds["blk.3.attn_k.weight"] == "q8_0"
    assert kinds["blk.3.attn_output.weight"] == "q5_k"
    assert kinds["blk.3.ffn_gate_inp.weight"] == "f32"


def test_values_of_seventy_billion_get_a_bit_more() -> None:
    header = header_of(described(layers=80, heads=64, embedding=8192))
    kinds = {tensor.name: tensor.type for tensor in header.tensors}
    assert kinds["blk.10.attn_v.weight"] == "q5_k"
    assert kinds["blk.9.attn_v.weight"] == "q6_k"


def test_mxfp4_is_for_experts_alone() -> None:
    header = header_of(described(quantisation="mxfp4", experts=4, experts_used=2))
    kinds = {tensor.name: tensor.type for tensor in header.tensors}
    assert kinds["blk.3.ffn_up_exps.weight"] == "mxfp4"
    assert kinds["blk.3.attn_q.weight"] == kinds["output.weight"] == "q8_0"
    assert set(TYPES) >= set(PUBLISHED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": {"attn_v": "f15"}}, "ggml.types.attn_v: unknown type 'f15'"),
        ({"types": {"atn_v": "f16"}}, "ggml.types.atn_v: unknown key"),
        ({"types": "f16"}, "ggml.types: must be a mapping"),
        ({"tied": 1}, "ggml.tied: must be true or false, not 1"),
        ({"experts": 8}, "ggml: the key 'experts_used' is missing"),
        ({"experts": 2, "experts_used": 3}, "3 of 2 experts cannot be used"),
        ({"experts_used": 3}, "3 of 0 experts cannot be used"),
        ({"parameters": 8_000_000_000}, "8,000,000,000 are said, and its sizes make 8,030,261,312"),
        ({"log": 2706}, "ggml.log: must be a text, not 2706"),
        ({"head_size": 0}, "ggml.head_size: must be a whole number"),
        ({"window": "4096"}, "ggml.window: must be a whole number"),
    ],
)
def test_what_is_wrong_in_an_entry_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        header_of(described(**change))
    assert message in str(caught.value)


def test_what_an_entry_leaves_out_is_the_engines_default(tmp_path: Path) -> None:
    text = (profiles_dir() / "pipelines" / "ollama-qwen3-0.6b.yaml").read_text()
    path = tmp_path / "mine.yaml"
    for line in ("  parallel: 1\n", "  parallel: {max: 256}\n", "  flash_attention: auto\n"):
        assert line in text
        text = text.replace(line, "")
    path.write_text(text)
    found = open_entry(load_pipeline_file(path))
    assert found.defaults == entry(profiles_dir() / "pipelines" / "ollama-qwen3-0.6b.yaml").defaults


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [("ollama-gpt-oss-20b", 20_914_757_184, 459), ("ollama-gpt-oss-120b", 116_829_156_672, 687)],
)
def test_gpt_oss_has_the_parameters_that_its_authors_count(
    name: str, parameters: int, tensors: int
) -> None:
    """20.91 B and 116.83 B (gpt-oss's model card, table 1); a file of it has 459 tensors.

    Source of the latter: ikawrakow/ik_llama.cpp#822, which prints llama.cpp's.
    """
    pipeline = entry(profiles_dir() / "pipelines" / f"{name}.yaml")
    assert read_model(pipeline).parameters == parameters
    assert len(header_of(pipeline).tensors) == tensors


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("qwen3:8b-q8_0", ("qwen3:8b", "q8_0")),
        ("llama3.1:8b-instruct-q5_K_M", ("llama3.1:8b", "q5_k_m")),
        ("mistral:7b-instruct-v0.3-fp16", ("mistral:7b", "f16")),
        ("mixtral:8x7b-q3_K_S", ("mixtral:8x7b", "q3_k_s")),
        ("qwen3:8b", None),
        ("qwen3:8b-q9_0", None),
        ("qwen3:q8_0", None),
        ("qwen3:8b-vision-q8_0", None),
        ("qwen3", None),
    ],
)
def test_a_tag_names_a_quantisation(name: str, read: tuple[str, str] | None) -> None:
    assert read_name(name) == read
