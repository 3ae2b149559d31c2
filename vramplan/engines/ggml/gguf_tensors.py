"""A model file's header as the engine reads it: its tensors, with their places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vramplan.engines.ggml.coverage import NO_OUTPUT
from vramplan.engines.ggml.file_kind import refuse_other_kinds
from vramplan.engines.ggml.gguf_shapes import language_shape
from vramplan.engines.ggml.quantise_rules import FILE_TYPES
from vramplan.engines.ggml.weights import GgmlModel, GgmlTensor, TensorRole
from vramplan.engines.ggml.windows import windows_of
from vramplan.errors import SourceError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.sources.gguf_header import GgufFile, GgufTensor

_MOST_LAYERS = 512  # llama.cpp, src/llama-hparams.h (LLAMA_MAX_LAYERS)
_WIDEST = 1 << 20


def model_from_gguf(file: GgufFile) -> GgmlModel:
    """Return the language model of a header.

    Raises SourceError for a file without a language model in it.
    """
    name = file.architecture
    blocks = file.number(f"{name}.block_count")
    layers = blocks - file.number(f"{name}.nextn_predict_layers")
    embedding = file.number(f"{name}.embedding_length")
    refuse_other_kinds(file)
    if not 1 <= layers <= blocks <= _MOST_LAYERS or not 1 <= embedding <= _WIDEST:
        raise SourceError(
            f"{file.path}: {layers:,} layers of {embedding:,}: not a language model",
            hint=f"engines take 1 to {_MOST_LAYERS} layers",
        )
    found = tuple(_tensors(file))
    tensors = tuple(one for one in found if one.layer is None or one.layer < layers)
    there = {tensor.layer for tensor in tensors}
    missing = next((one for one in range(_with_tensors(file, layers)) if one not in there), None)
    if missing is not None:
        message = (
            f"{file.path}: {layers} layers are meant, and of layer {missing} there is no tensor"
        )
        raise SourceError(message, hint="the file is damaged, or only a part of a model")
    windows = windows_of(file, layers)
    shape = language_shape(file, layers, blocks, embedding, windows)
    first = shape.layers[0]
    return GgmlModel(
        architecture=name,
        quantisation=quantisation_of(file),
        layers=layers,
        embedding=embedding,
        feed_forward=max(layer.feed_forward for layer in shape.layers) or embedding,
        heads=max(layer.heads for layer in shape.layers),
        kv_heads=max(layer.kv_heads for layer in shape.layers),
        head_size=first.head_k,
        vocabulary=shape.vocabulary,
        trained_context=file.number(f"{name}.context_length", 4096) or 4096,
        tensors=tensors,
        language=shape,
        window=windows.size,
        next_tensors=tuple(one for one in found if one.layer is not None and one.layer >= layers),
        next_layers=blocks - layers,
        identity=file.identity,
        pooling=_POOLINGS.get(file.number(f"{name}.pooling_type"), "none"),
        keys={
            key.removeprefix(f"{name}."): value
            for key, value in file.metadata.items()
            if key.startswith(f"{name}.")
        },
    )


def _with_tensors(file: GgufFile, layers: int) -> int:
    """Return how many layers, from the first, have tensors of their own.

    HRM goes through two stacks of layers again and again, with a cache for each time. Source:
    llama.cpp, src/models/hrm-text.cpp.
    """
    stacked = file.number(f"{file.architecture}.hrm.layers_per_stack")
    return min(2 * stacked, layers) if stacked and file.architecture == "hrm_text" else layers


#: enum llama_pooling_type
_POOLINGS = {1: "mean", 2: "cls", 3: "last", 4: "rank"}


def _tensors(file: GgufFile) -> Iterator[GgmlTensor]:
    """Yield the tensors with their places; a table of embeddings may be the output matrix too."""
    has_output = False
    table: GgufTensor | None = None
    for tensor in file.tensors:
        layer = _layer_of(tensor.name)
        if layer is not None:
            yield _tensor(tensor, TensorRole.BLOCK, layer)
            continue
        role = _role(tensor.name)
        has_output = has_output or tensor.name == "output.weight"
        if tensor.name == "token_embd.weight":
            table = tensor
        # rotations' factors and the like are with the first layer
        yield _tensor(tensor, role, 0 if role is TensorRole.BLOCK else None)
    if not has_output and table is not None and file.architecture not in NO_OUTPUT:
        yield GgmlTensor(
            name="output.weight",
            shape=table.shape,
            type=table.type,
            role=TensorRole.OUTPUT,
            is_shared=True,
        )


#: what is in no layer and looked up by token: in host memory; and what comes behind the layers.
#: Source: llama.cpp, src/llama-arch.cpp (LLM_TENSOR_INFOS)
_INPUTS = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
_OUTPUTS = ("output", "cls", "dense_2", "dense_3", "enc.output_norm", "dec.output_norm", "altup_")
#: a norm that the engine keeps beside the output matrix, before the layers or behind them
_NORM = "token_embd_norm"


def _layer_of(name: str) -> int | None:
    """Return the layer of a tensor called ``blk.7.…``: encoders and decoders count theirs alike."""
    own = name[4:] if name.startswith(("enc.", "dec.")) else name
    number, dot, _ = own.removeprefix("blk.").partition(".")
    is_layer = dot and own.startswith("blk.") and len(number) <= 4
    # a pattern that says so would take as long to compile as a model's names to look through
    return int(number) if is_layer and number.isascii() and number.isdecimal() else None


def _role(name: str) -> TensorRole:
    """Return the part that a tensor outside the layers belongs to."""
    if name.startswith(_NORM):
        return TensorRole.OUTPUT
    if name.startswith(_INPUTS):
        return TensorRole.INPUT
    return TensorRole.OUTPUT if name.startswith(_OUTPUTS) else TensorRole.BLOCK


def _tensor(tensor: GgufTensor, role: TensorRole, layer: int | None = None) -> GgmlTensor:
    return GgmlTensor(
        name=tensor.name, shape=tensor.shape, type=tensor.type, role=role, layer=layer
    )


def quantisation_of(file: GgufFile) -> str:
    """Return what the file calls its quantisation, else the type that most of its bytes have."""
    named = FILE_TYPES.get(file.number("general.file_type", 1 << 20))
    if named is not None:
        return named
    sizes: Counter[str] = Counter()
    for tensor in file.tensors:
        sizes[tensor.type] += tensor.size_bytes
    return max(sizes, key=lambda name: sizes[name], default="f16")
