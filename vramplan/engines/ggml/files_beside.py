"""Files that are loaded beside a model: LoRA adapters, control vectors, a draft model.

An adapter's tensors go where the matrices are that they belong to, and each product with one of
those has a second result beside its own. Control vectors are one number for each of a hidden
state's, in f32, in every layer but the first, however many files there are. A draft model is a
second model with a context of its own, as long as the first one's. None of the first two is in
llama.cpp's fit: they come out of its margin. Sources: ggml-org/llama.cpp, src/llama-adapter.cpp,
src/llama-graph.cpp (build_lora_mm), common/speculative.cpp (common_base_params_to_speculative).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vramplan.engines.ggml.cuda_facts import ALIGNMENT, padding_bytes
from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import files_of

if TYPE_CHECKING:
    from vramplan.engines.ggml.weights import GgmlModel, GgmlTensor, Placement
    from vramplan.model import Settings
    from vramplan.sources.gguf_header import GgufFile, GgufTensor

_F32 = 4
_A, _B = ".lora_a", ".lora_b"
_MODEL_HINT = "it was made for another model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two tensors of an adapter that belong to one matrix of the model's."""

    base: str
    rank: int
    outputs: int
    cuda_bytes: int
    bare_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter."""

    path: str
    parameters: int
    dtype: str
    pairs: tuple[Pair, ...]

    @property
    def size_bytes(self) -> int:
        """Return the bytes of its tensors."""
        return sum(pair.bare_bytes for pair in self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What files beside a model take on each card, and in host memory, bytes.

    `scratch` is the second result of the largest product on each card.
    """

    cards: tuple[int, ...]
    host: int
    scratch: tuple[int, ...]


def read_adapters(chosen: Settings, model: GgmlModel) -> tuple[Adapter, ...]:
    """Return the LoRA adapters that the settings name.

    Raises SourceError for a file that is none, or another model's.
    """
    return tuple(_adapter(path, model) for path in files_of(chosen.get("lora")))


def _adapter(path: str, model: GgmlModel) -> Adapter:
    try:
        file = _read(path)
    except SourceError as problem:
        if "not a GGUF file" not in str(problem):
            raise
        hint = "convert_lora_to_gguf.py of llama.cpp makes a GGUF of an adapter that PEFT saved"
        raise SourceError(str(problem), hint=hint) from None
    kind = file.text("general.type").lower()
    if kind != "adapter" or file.text("adapter.type").lower() != "lora":
        raise SourceError(
            f"{path}: not a LoRA adapter", hint="general.type and adapter.type say so"
        )
    if file.architecture != model.architecture:
        raise SourceError(
            f"{path}: an adapter of {file.architecture or 'no architecture'}, not of "
            f"{model.architecture}",
            hint=_MODEL_HINT,
        )
    found: dict[str, dict[str, GgufTensor]] = {}
    for tensor in file.tensors:
        for end in (_A, _B):
            if tensor.name.endswith(end):
                found.setdefault(tensor.name.removesuffix(end), {})[end] = tensor
    bases = {tensor.name: tensor for tensor in model.tensors if not tensor.is_shared}
    pairs = tuple(_pair(path, name, halves, bases) for name, halves in found.items())
    if not pairs:
        raise SourceError(f"{path}: an adapter without tensors")
    return Adapter(
        path=path,
        parameters=sum(one.elements for halves in found.values() for one in halves.values()),
        dtype=file.tensors[0].type,
        pairs=pairs,
    )


def _pair(
    path: str, name: str, halves: Mapping[str, GgufTensor], bases: Mapping[str, GgmlTensor]
) -> Pair:
    if set(halves) != {_A, _B}:
        raise SourceError(f"{path}: of {name} there is one half only", hint="the file is damaged")
    if name not in bases:
        raise SourceError(f"{path}: the model has no {name}", hint=_MODEL_HINT)
    base, first, second = bases[name].shape, halves[_A].shape, halves[_B].shape
    if len(first) < 2 or len(second) < 2 or len(base) < 2:
        raise SourceError(f"{path}: {name} is no matrix", hint=_MODEL_HINT)
    is_table = name == "token_embd.weight"  # its halves are the other way round
    fits = (
        (base[0], base[1]) == (second[1], first[1])
        if is_table
        else (base[0], base[1], first[1]) == (first[0], second[1], second[0])
    )
    if not fits:
        raise SourceError(f"{path}: {name} is of another shape than the model's", hint=_MODEL_HINT)
    return Pair(
        base=name,
        rank=first[0] if is_table else first[1],
        outputs=base[1],
        cuda_bytes=sum(map(_cuda_bytes, halves.values())),
        bare_bytes=sum(half.size_bytes for half in halves.values()),
    )


def _cuda_bytes(tensor: GgufTensor) -> int:
    size = tensor.size_bytes + padding_bytes(tensor.type, tensor.shape[0])
    return -(-size // ALIGNMENT) * ALIGNMENT


def adapter_bytes(
    adapters: Sequence[Adapter], model: GgmlModel, placement: Placement, tokens: int
) -> Beside:
    """Return what adapters take where the model is placed so, for a batch of `tokens`."""
    from vramplan.engines.ggml.reserved_graph import weight_memories

    memories = dict(weight_memories(model, placement))
    count = len(placement.cards)
    cards, scratch, host = [0] * count, [0] * count, 0
    for adapter in adapters:
        for pair in adapter.pairs:
            memory = memories[pair.base]
            if memory.is_on_host:
                host += pair.bare_bytes
                continue
            cards[memory.gpu] += pair.cuda_bytes
            second = tokens * (pair.outputs + pair.rank) * _F32
            scratch[memory.gpu] = max(scratch[memory.gpu], second)
    return Beside(cards=tuple(cards), host=host, scratch=tuple(scratch))


def check_vectors(chosen: Settings, model: GgmlModel) -> bool:
    """Return whether the settings name control vectors.

    Raises SourceError for a file that is none, or another model's.
    """
    paths = files_of(chosen.get("control_vector"))
    for path in paths:
        file = _read(path)
        vectors = [one for one in file.tensors if one.name.startswith("direction.")]
        if not vectors:
            raise SourceError(f"{path}: not a control vector: no direction.N in it")
        for one in vectors:
            if one.type != "f32" or tuple(one.shape[1:]) not in {(), (1,), (1, 1), (1, 1, 1)}:
                raise SourceError(f"{path}: {one.name} is no vector in f32")
            if one.shape[0] != model.embedding:
                raise SourceError(
                    f"{path}: {one.name} has {one.shape[0]:,} numbers, and the model's states "
                    f"have {model.embedding:,}",
                    hint=_MODEL_HINT,
                )
    return bool(paths)


def vector_bytes(model: GgmlModel, placement: Placement) -> Beside:
    """Return what control vectors take: a vector in each layer from the second on."""
    size = -(-model.embedding * _F32 // ALIGNMENT) * ALIGNMENT
    layers = [placement.card_of(layer) for layer in range(1, model.layers)]
    cards = tuple(layers.count(card) * size for card in range(len(placement.cards)))
    on_host = sum(card < 0 for card in layers)
    return Beside(
        cards=cards, host=on_host * model.embedding * _F32, scratch=(0,) * len(placement.cards)
    )


def _read(path: str) -> GgufFile:
    place = Path(path)
    if not place.is_file():
        raise SourceError(f"{path}: no such file", hint="name a .gguf")
    stamp = place.stat()
    return _read_once(path, stamp.st_size, stamp.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_once(path: str, _size: int, _changed: int) -> GgufFile:
    from vramplan.sources.gguf import read_gguf

    return read_gguf(Path(path))
