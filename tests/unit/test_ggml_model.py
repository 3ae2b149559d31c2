"""A ggml model's tensors: counts and bytes against published files and logs, errors in entries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.engines.ggml.read_model import read_model
from vramplan.engines.ggml.weights import (
    BLOCKS,
    GgmlModel,
    GgmlTensor,
    TensorRole,
    place_layers,
    row_bytes,
)
from vramplan.errors import CatalogError
from vramplan.units import MIB

MISTRAL = {
    "architecture": "llama",
    "quantisation": "q4_0",
    "layers": 32,
    "embedding": 4096,
    "feed_forward": 14336,
    "heads": 32,
    "kv_heads": 8,
    "vocabulary": 32000,
    "trained_context": 32768,
}
VICUNA = MISTRAL | {"feed_forward": 11008, "kv_heads": 32, "trained_context": 4096}


def entry(ggml: dict[str, object]) -> GgmlPipeline:
    return GgmlPipeline(
        name="x",
        title="X",
        summary="x",
        runtime="llama.cpp",
        defaults={},
        constraints={},
        source="x",
        path="x.yaml",
        model=Described(section=ggml),
    )


def model(shapes: dict[str, object], **changes: object) -> GgmlModel:
    return read_model(entry(shapes | changes))


def mib(size_bytes: int) -> float:
    return round(size_bytes / MIB, 2)


def test_parameters_are_those_of_the_models() -> None:
    # Mistral 7B and Llama 2 7B (of which Vicuna is one), as their papers' checkpoints count them;
    # LLaVA-HF counts its language model and its head apart, with 64 padding tokens in each
    assert model(MISTRAL).parameters == 7_241_732_096
    assert model(VICUNA).parameters == 6_738_415_616
    assert model(VICUNA).parameters == 6_607_605_760 + 131_334_144 - 2 * 64 * 4096


def test_a_file_has_291_tensors() -> None:
    assert len(model(MISTRAL).tensors) == 291  # "24 key-value pairs and 291 tensors", ollama#2706
    assert len({tensor.name for tensor in model(MISTRAL).tensors}) == 291


def test_llava_7b_is_the_log_of_ollama_2706() -> None:
    """Its 3,917.87 MiB are all tensors: a vocabulary of 32,000, the Q6_K output matrix too."""
    mistral = model(MISTRAL)
    assert mib(mistral.weights_bytes) == 3917.87
    six = place_layers(mistral, 6, output_first=False)
    assert mib(six.gpu_bytes) == 702.19
    assert (six.blocks_on_gpu, six.output_on_gpu) == (6, False)


@pytest.mark.parametrize("output_first", [False, True])
def test_all_layers_leave_the_token_embedding_on_the_host(output_first: bool) -> None:
    everything = place_layers(model(MISTRAL), 33, output_first=output_first)
    assert (mib(everything.gpu_bytes), mib(everything.host_bytes)) == (3847.55, 70.31)
    assert (everything.blocks_on_gpu, everything.output_on_gpu) == (32, True)


def test_published_files_of_vicuna() -> None:
    """janhq/jan#2391 prints the buffers of llava-v1.5-7b-Q4_K and of the Q5_K model beside it."""
    for quantisation, gpu, host in (("q4_k_m", 3820.94, 70.31), ("q5_k_m", 4474.94, 85.94)):
        split = place_layers(model(VICUNA, quantisation=quantisation), 33, output_first=False)
        assert (mib(split.gpu_bytes), mib(split.host_bytes)) == (gpu, host)


def test_the_output_layer_goes_first_or_last() -> None:
    mistral = model(MISTRAL)
    first = place_layers(mistral, 1, output_first=True)
    last = place_layers(mistral, 1, output_first=False)
    assert (first.blocks_on_gpu, first.output_on_gpu) == (0, True)
    assert (last.blocks_on_gpu, last.output_on_gpu) == (1, False)
    output = [tensor for tensor in mistral.tensors if tensor.role is TensorRole.OUTPUT]
    assert first.gpu_bytes == sum(tensor.size_bytes for tensor in output)


def test_cuda_pads_rows_that_are_no_multiple_of_512() -> None:
    down = next(t for t in model(VICUNA).tensors if t.name == "blk.0.ffn_down.weight")
    assert down.cuda_bytes == down.size_bytes + 256  # 256 elements of q4_0, aligned to 128 bytes
    assert all(t.cuda_bytes == t.size_bytes for t in model(MISTRAL).tensors)


def test_a_layer_more_never_takes_less() -> None:
    for output_first in (False, True):
        for quantisation in ("f16", "q4_0", "q4_k_m"):
            vicuna = model(VICUNA, quantisation=quantisation)
            sizes = [
                place_layers(vicuna, count, output_first=output_first).gpu_bytes
                for count in range(vicuna.total_layers + 1)
            ]
            assert sizes[0] == 0
            assert sizes == sorted(set(sizes))


def test_fewer_bits_are_fewer_bytes() -> None:
    order = ["f16", "q8_0", "q6_k", "q5_k_m", "q5_0", "q4_k_m", "q4_0"]
    sizes = [model(MISTRAL, quantisation=quantisation).weights_bytes for quantisation in order]
    assert sizes == sorted(sizes, reverse=True)


def test_rows_are_whole_blocks() -> None:
    assert row_bytes("q4_0", 4096) == 4096 // 32 * 18
    assert all(row_bytes(kind, block) == size for kind, (block, size) in BLOCKS.items())
    with pytest.raises(ValueError, match="block of 256"):
        row_bytes("q6_k", 4000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "x.yaml: ggml.layers: must be a whole number from 1 to 1,024, not 0"),
        ({"layers": 1025}, "ggml.layers: must be a whole number from 1 to 1,024"),
        ({"embedding": 131_073}, "ggml.embedding: must be a whole number from 1 to 131,072"),
        (
            {"feed_forward": 1_048_577},
            "ggml.feed_forward: must be a whole number from 1 to 1,048,576",
        ),
        ({"heads": 1025}, "ggml.heads: must be a whole number from 1 to 1,024"),
        ({"kv_heads": 1025}, "ggml.kv_heads: must be a whole number from 1 to 1,024"),
        ({"vocabulary": 2_097_153}, "ggml.vocabulary: must be a whole number from 1 to 2,097,152"),
        ({"layers": True}, "ggml.layers: must be a whole number"),
        ({"layers": 1 << 63}, "ggml.layers: must be a whole number"),
        ({"layers": "32"}, "not '32'"),
        ({"heads": 33}, "ggml.heads: 33 does not divide"),
        ({"kv_heads": 5}, "ggml.kv_heads: 5 does not divide the 32 heads"),
        ({"embedding": 4080, "heads": 16}, "ggml.embedding: 4080 is not a multiple of q4_0's 32"),
        ({"feed_forward": 14001}, "ggml.feed_forward: 14001 is not a multiple"),
        ({"architecture": "lama"}, "ggml.architecture: unknown architecture 'lama'"),
        ({"quantisation": "q4_1k"}, "ggml.quantisation: unknown quantisation 'q4_1k'"),
        ({"quantization": "q4_0"}, "ggml.quantization: unknown key"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        model(MISTRAL, **change)
    assert message in str(caught.value)


def test_a_missing_key_and_a_missing_mapping_are_named() -> None:
    shapes = {key: value for key, value in MISTRAL.items() if key != "kv_heads"}
    with pytest.raises(CatalogError, match="ggml: the key 'kv_heads' is missing"):
        model(shapes)
    with pytest.raises(CatalogError, match="ggml: must be a mapping"):
        read_model(entry([]))  # type: ignore[arg-type]  # a wrong type is the test


def test_near_words_are_suggested() -> None:
    with pytest.raises(CatalogError) as caught:
        model(MISTRAL, architecture="lama")
    assert caught.value.hint == "did you mean 'llama'?"


def test_what_is_mapped_goes_from_the_first_tensor_on_the_host_to_the_last() -> None:
    """Tensors begin at multiples of 32 bytes of the file; what lies between is mapped too."""

    def tensor(name: str, elements: int, role: TensorRole, layer: int | None = None) -> GgmlTensor:
        return GgmlTensor(name=name, shape=(elements,), type="f32", role=role, layer=layer)

    words = tensor("token_embd.weight", 10, TensorRole.INPUT)
    first, second = (tensor(f"blk.{n}.ffn.weight", 20, TensorRole.BLOCK, n) for n in (0, 1))
    output = tensor("output.weight", 9, TensorRole.OUTPUT)
    shared = replace(output, name="shared.weight", is_shared=True)

    def mapped(on_gpu: int, *tensors: GgmlTensor) -> int:
        small = replace(model(MISTRAL), layers=2, tensors=tensors)
        return place_layers(small, on_gpu, output_first=True).mapped_bytes

    assert mapped(3, words, first, second, output) == 40
    assert mapped(2, words, first, second, output) == 64 + 80
    assert mapped(3, output, first, words, second) == 40
    assert mapped(2, output, first, second, words) == 64 + 96 + 96 + 40 - 64
    assert mapped(1, words, shared, first, second) == 64 + 96 + 80  # not in the file twice
    assert mapped(3, first, second, output) == 0
