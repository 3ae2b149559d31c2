"""A ggml model as its list of tensors: types, sizes, layers, and which of them go to the GPU.

It comes from a file's header, or from one that a catalogue's entry stands for; nothing above this
module needs to know which of the two it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property, lru_cache
from math import prod

from vramplan.engines.ggml.card_shares import HOST, cards_of
from vramplan.engines.ggml.cuda_facts import ALIGNMENT, ROW_STEP
from vramplan.engines.ggml.experts import NOTHING_MOVED, Moved, has_experts
from vramplan.quick_dataclass import dataclass, field
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.sources.block_sizes import BLOCKS

if TYPE_CHECKING:
    from vramplan.engines.ggml.graph.shapes import LanguageShape
    from vramplan.sources.gguf_header import Value

#: the embeddings of words
TABLE = "token_embd.weight"

#: tensors begin at multiples of this in a file (GGUF's general.alignment, unless it says otherwise)
_FILE_ALIGNMENT = 32


class TensorRole(StrEnum):
    """Which part of a model a tensor belongs to; it decides where the tensor may live."""

    INPUT = "input"  # the token embedding: always in host memory
    BLOCK = "block"  # one of the repeating layers
    OUTPUT = "output"  # final norm and output matrix: together they count as one layer
    VISION = "vision"  # the projector file's vision encoder
    PROJECTOR = "projector"  # the projector file's projector


@dataclass(frozen=True, slots=True, kw_only=True)
class GgmlTensor:
    """One tensor of a model file; `shape` starts with the dimension that is contiguous."""

    name: str
    shape: tuple[int, ...]
    type: str
    role: TensorRole
    layer: int | None = None
    is_shared: bool = False  # another tensor's data, copied to the GPU beside the original

    @property
    def file_name(self) -> str:
        """Return what the file calls it: a copy of the table of words has the table's name."""
        return TABLE if self.is_shared else self.name

    @property
    def elements(self) -> int:
        """Return the number of elements: what is counted as parameters."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Return the bytes of its data."""
        return _size_bytes(self.type, self.shape)

    @property
    def cuda_bytes(self) -> int:
        """Return the bytes it takes in a CUDA buffer, its share of the alignment included.

        A quantised matrix whose rows are not a multiple of 512 elements is padded at its end, once:
        Vicuna's ffn_down has rows of 11,008. Source: llama.cpp, ggml/src/ggml-cuda/ggml-cuda.cu
        (ggml_backend_cuda_buffer_type_get_alloc_size, MATRIX_ROW_PADDING, an alignment of 128).
        """
        rest = self.shape[0] % ROW_STEP
        is_quantised = BLOCKS[self.type][0] > 1
        padding = row_bytes(self.type, ROW_STEP - rest) if rest and is_quantised else 0
        return -(-(self.size_bytes + padding) // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, kw_only=True, eq=False)
class GgmlModel:
    """A language model as a ggml engine sees it: the shapes of its graph and its tensors.

    Models are told apart by identity, so that sums over their tensors are remembered.
    """

    architecture: str
    quantisation: str
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    trained_context: int
    tensors: tuple[GgmlTensor, ...]
    #: the shapes of the graph, layer by layer, where a file tells them
    language: LanguageShape | None = None
    window: int = 0  # tokens that windowed layers see; 0 where none is windowed
    #: of layers behind the others, which guess the tokens after the next: not loaded by default
    next_tensors: tuple[GgmlTensor, ...] = ()
    next_layers: int = 0
    #: what it was read from, in one certain state; empty where that is not known
    identity: str = ""
    pooling: str = "none"  # its own way to make one embedding of its tokens'
    #: the header's keys of the architecture, without its name before them
    keys: Mapping[str, Value] = field(default_factory=dict)

    @property
    def total_layers(self) -> int:
        """Return how many layers `gpu_layers` counts: all blocks and the output layer.

        Those that guess ahead count, loaded or not.
        """
        return self.layers + self.next_layers + 1

    @cached_property
    def has_experts(self) -> bool:
        """Return whether it is a mixture of experts, whose experts may stay in host memory."""
        return has_experts(tensor.name for tensor in self.tensors)

    @cached_property
    def parameters(self) -> int:
        """Return the number of parameters."""
        return sum(tensor.elements for tensor in self.tensors if not tensor.is_shared)

    @cached_property
    def weights_bytes(self) -> int:
        """Return the bytes of all tensors, wherever they live."""
        return sum(tensor.size_bytes for tensor in self.tensors if not tensor.is_shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPart:
    """What one card has: the blocks from `first` on, `stop` excluded, and maybe the output layer.

    `weights_bytes` is what its buffer of weights takes.
    """

    first: int
    stop: int
    has_output: bool
    weights_bytes: int

    @property
    def layers(self) -> int:
        """Return how many layers there are, the output layer counted as one."""
        return self.stop - self.first + self.has_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which part of a model is on which card when `on_gpu` of its layers are on one.

    `host_bytes` is the bare size of what is in host memory. Of `blocks_without_experts` of the
    cards' blocks some tensors were `moved` there. `mapped_bytes` is what the engine prints of it:
    the file from the first tensor that is there to the last. The first `remotes` of the cards are
    other machines'.
    """

    on_gpu: int
    blocks_on_gpu: int
    output_on_gpu: bool
    cards: tuple[CardPart, ...]
    host_bytes: int
    blocks_without_experts: int = 0
    moved: Moved = NOTHING_MOVED
    mapped_bytes: int = 0
    remotes: int = 0

    @property
    def gpu_bytes(self) -> int:
        """Return the bytes of weights in the buffers of all cards."""
        return sum(card.weights_bytes for card in self.cards)

    def card_of(self, block: int) -> int:
        """Return the card that has a block, or HOST."""
        for number, card in enumerate(self.cards):
            if card.first <= block < card.stop:
                return number
        return HOST

    @property
    def card_of_output(self) -> int:
        """Return the card that has the output layer, or HOST."""
        return next((at for at, card in enumerate(self.cards) if card.has_output), HOST)


def row_bytes(type_name: str, elements: int) -> int:
    """Return the bytes of a row of `elements`; raises ValueError when no whole blocks fill it."""
    block, size = BLOCKS[type_name]
    if elements % block:
        raise ValueError(f"{elements} is not a multiple of {type_name}'s block of {block}")
    return elements // block * size


@lru_cache(maxsize=1024)
def _size_bytes(type_name: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor: the layers of a model are alike, and are summed up often."""
    return row_bytes(type_name, shape[0]) * prod(shape[1:])


@lru_cache(maxsize=4096)
def place_layers(
    model: GgmlModel,
    on_gpu: int,
    *,
    output_first: bool,
    moved: Moved = NOTHING_MOVED,
    shares: tuple[float, ...] = (),
    remotes: int = 0,
) -> Placement:
    """Return what is where when `on_gpu` of the model's layers are on a GPU.

    `shares` are the parts that several cards have of these layers, of which the first `remotes` are
    other machines'.

    Blocks go from the last to the first; the output layer goes before them (`output_first`, since
    llama.cpp#18148) or after all of them. The token embedding stays in host memory: "there is very
    little benefit to offloading the input layer". What was `moved` is elsewhere. Source: llama.cpp,
    src/llama-model.cpp (load_tensors), src/llama-model-loader.cpp (buft_for_tensor,
    get_mapping_range).
    """
    output = on_gpu >= 1 if output_first else on_gpu >= model.total_layers
    blocks = max((on_gpu - 1 if output else on_gpu) - model.next_layers, 0)
    first = model.layers - blocks
    # layers that guess ahead are behind the blocks, loaded or not
    last = model.total_layers - 1
    owners = cards_of(min(on_gpu, last + 1), shares)
    place_of = {last + 1 - len(owners) + at: card for at, card in enumerate(owners)}
    if not output and owners:  # the blocks come first, the output layer has no place
        place_of = {last - len(owners) + at: card for at, card in enumerate(owners)}
    weights = [0] * max(len(shares), 1)
    host_bytes = 0
    place_in_file, mapped_from, mapped_to = 0, -1, 0
    kept: set[int] = set()
    table = HOST
    for tensor in model.tensors:
        place, size_bytes = HOST, tensor.size_bytes
        if tensor.layer is not None and tensor.layer >= first:
            place = place_of[tensor.layer]
        elif output and tensor.role is TensorRole.OUTPUT:
            place = place_of[last]
        if moved:
            found = moved.find(tensor.file_name, tensor.layer)
            if found == HOST != place and tensor.layer is not None:
                kept.add(tensor.layer)
            # the tensors of a layer that is in host memory may be on a card all the same
            place = place if found is None else found
        if tensor.name == TABLE:
            table = place
        if place != HOST:  # a copy is made where the original is not
            weights[place] += 0 if tensor.is_shared and place == table else tensor.cuda_bytes
        elif not tensor.is_shared:
            host_bytes += size_bytes
            mapped_from = place_in_file if mapped_from < 0 else mapped_from
            mapped_to = place_in_file + size_bytes
        if not tensor.is_shared:
            place_in_file += -(-size_bytes // _FILE_ALIGNMENT) * _FILE_ALIGNMENT
    return Placement(
        on_gpu=on_gpu,
        blocks_on_gpu=blocks,
        output_on_gpu=output,
        cards=tuple(_parts(model.layers, last if output else HOST, place_of, weights)),
        host_bytes=host_bytes,
        blocks_without_experts=len(kept),
        moved=moved,
        mapped_bytes=mapped_to - max(mapped_from, 0),
        remotes=remotes,
    )


def _parts(
    layers: int, output: int, place_of: Mapping[int, int], weights: Sequence[int]
) -> Iterator[CardPart]:
    """Yield each card's part; its blocks stand one behind the other."""
    for card, weights_bytes in enumerate(weights):
        blocks = [layer for layer, place in place_of.items() if place == card and layer < layers]
        yield CardPart(
            first=blocks[0] if blocks else 0,
            stop=blocks[-1] + 1 if blocks else 0,
            has_output=place_of.get(output) == card,
            weights_bytes=weights_bytes,
        )
