"""Which of a graph's operators a GPU computes, and what is copied to it or from it.

The engine's scheduler starts from memory that is there already: weights, caches, inputs (always in
host memory). Operators go where their weights are, or to the GPU although these are in host memory
if the batch is large enough for a copy to pay; what is left goes with its neighbours, or to the
host where the GPU has no kernel for it. Where an operator reads what the other side has, its split
of the graph begins with a copy, which stays until it was read for the last time.

Of several GPUs each computes what is on it, and the first what is copied from host memory. GPUs of
other machines come before this machine's, and are said to compute everything, but no weights are
copied to them. Where all layers are on GPUs these work in a pipeline: up to four batches are on
their way at a time, and of every input, and of every result that goes from one GPU to the next,
there are four copies which stay. Source: ggml-org/ggml, src/ggml-backend.cpp
(ggml_backend_sched_split_graph), src/ggml-cuda/ggml-cuda.cu (offload_op), src/ggml-rpc/ggml-rpc.cpp
(ggml_backend_rpc_device_i).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import prod

from vramplan.engines.ggml.cuda_facts import (
    ALIGNMENT,
    CONVOLVED_STEP,
    FEW_QUERIES,
    MOST_SUMMED_EXPERTS,
    WORTH_COPYING,
    has_attention,
    padding_bytes,
)
from vramplan.engines.ggml.graph.builder import Graph, root
from vramplan.engines.ggml.graph.tensor import Tensor
from vramplan.quick_dataclass import dataclass

#: backends by rising number, where there is one GPU; of several the host comes behind the last
GPU, HOST = 0, 1
_UNKNOWN = -1
#: of each input in a pipeline (ggml-backend.cpp, GGML_SCHED_MAX_COPIES)
PIPELINE_COPIES = 4
#: operators whose small weights say nothing of where they should be
_FREE = frozenset({"rope", "flash_attn_ext"})
#: operators that the GPU computes of some sizes only
_SIZED = frozenset({"flash_attn_ext", "ssm_conv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A weight or a cache: the bytes that a copy of it takes on a GPU, and where it is.

    A cache is copied as attention looks at it, of which the strides need not be told.
    `copied_as`: of what several layers read under names of their own, and one copy is made of.
    """

    size_bytes: int
    is_on_host: bool
    is_weight: bool = True
    copied_as: str = ""
    gpu: int = GPU  # which one has it, where it is not in host memory


_ON_GPU = Memory(size_bytes=0, is_on_host=False, is_weight=False)


def schedule(
    graph: Graph,
    memories: Mapping[str, Memory],
    *,
    copies_weights: bool = True,
    unpacks: Sequence[str] = (),
    fuses_experts: bool = False,
    is_recorded: bool = False,
    gpus: int = 1,
    remotes: int = 0,
    is_pipeline: bool = False,
    owners: Sequence[int] = (),
) -> Graph:
    """Return `graph` with every tensor on a backend and the copies between them.

    Backends are the `gpus` by their numbers, the first `remotes` of them other machines', and the
    host behind the last.

    `memories` has the graph's weights and caches by name; others are on the GPU.
    `unpacks`: of keys (k) and values (v) those that flash attention on the GPU has room for as f16,
    behind its result. `is_recorded`: caches are of the type that they hold, not of the one that
    they are looked at as. `fuses_experts`: the GPU sums up a token's experts at once, and they stay
    until it did. `is_pipeline`: inputs have as many copies as batches may be on their way.
    `owners`: the backend of each layer, where norms are computed there and not with the layer
    before. The graph's tensors are taken over: it cannot be scheduled again.
    """
    # what copies weights of the host's, or the host itself, which computes with them
    copier = remotes if copies_weights else gpus
    schedule = _Schedule(graph, memories, gpus, owners, remotes=remotes, copier=copier)
    scheduled = schedule.run(copies=PIPELINE_COPIES if is_pipeline else 1)
    if unpacks:
        for node in scheduled.nodes:
            if node.op == "flash_attn_ext" and node.backend < gpus:
                node.fixed_bytes = _unpacked_bytes(node, unpacks, is_recorded=is_recorded)
    if fuses_experts:
        scheduled.nodes = list(_with_kept_experts(scheduled.nodes, range(remotes, gpus)))
    return scheduled


def gpu_part(graph: Graph) -> Graph:
    """Return `graph`, all of which the GPU computes, with the copies of its inputs before it.

    The graph's tensors are taken over: it cannot be allocated as it was afterwards.
    """
    part = Graph()
    part.alike = graph.alike
    copies: dict[int, Tensor] = {}
    for node in graph.nodes:
        node.sources = tuple(_input_copy(one, copies) for one in node.sources)
        part.nodes.append(node)
    part.nodes[:0] = copies.values()
    return part


def _input_copy(source: Tensor, copies: dict[int, Tensor]) -> Tensor:
    if not source.is_input:
        return source
    return copies.setdefault(id(source), Tensor("copy", source.type, source.shape))


class _Schedule:
    def __init__(
        self,
        graph: Graph,
        memories: Mapping[str, Memory],
        host: int,
        owners: Sequence[int],
        *,
        remotes: int,
        copier: int,
    ) -> None:
        self._host = host
        self._remotes = remotes
        self._copier = copier
        self._owners = owners
        self._graph = graph
        self._memories = memories
        self._copies: dict[tuple[int | str, int], Tensor] = {}
        self._nodes: list[Tensor] = []
        self._copied_first: list[Tensor] = []  # copies in the order in which they are made

    def run(self, *, copies: int) -> Graph:
        nodes = [node for node in self._graph.nodes if node.op != "view"]
        for leaf in self._graph.leaves:
            leaf.backend = self._backend_of_memory(leaf)
        for node in nodes:
            node.backend = self._wanted(node)
        kept = frozenset(id(node) for node in nodes if node.op in _SIZED and not _is_computed(node))
        computes_all = frozenset((*range(self._remotes), self._host))
        for order in (nodes, reversed(nodes)):
            _spread(order, kept, computes_all, self._host, only_gpu=True)
        for order in (nodes, reversed(nodes)):
            _spread(order, kept, computes_all, self._host, only_gpu=False)
        for node in nodes if kept else ():
            if node.backend == _UNKNOWN and id(node) in kept:
                node.backend = self._host
        self._split()
        scheduled = Graph()
        scheduled.leaves, scheduled.nodes = self._graph.leaves, self._nodes
        scheduled.alike = self._graph.alike
        if copies > 1:
            scheduled.leaves = [*self._lasting(copies), *self._graph.leaves]
        return scheduled

    def _lasting(self, copies: int) -> Iterator[Tensor]:
        """Yield the inputs, and what is copied from one backend to another, each `copies` times.

        They come first and are never given back.
        """
        inputs = [leaf for leaf in self._graph.leaves if leaf.is_input]
        for tensor in (*inputs, *self._copied_first):
            tensor.is_input = tensor.is_output = True
            yield tensor
            for _ in range(copies - 1):
                twin = Tensor("none", tensor.type, tensor.shape, strides=tensor.strides)
                twin.is_input = twin.is_output = True
                twin.backend, twin.fixed_bytes = tensor.backend, tensor.fixed_bytes
                yield twin

    # ----------------------------------------------------------------- backends
    def _memory(self, tensor: Tensor) -> Memory:
        return self._memories.get(tensor.name, _ON_GPU)

    def _backend_of_memory(self, tensor: Tensor) -> int:
        if tensor.is_input:
            return self._host
        memory = self._memory(tensor)
        return self._host if memory.is_on_host else memory.gpu

    def _wanted(self, node: Tensor) -> int:
        """Return where an operator must be, or should because of its weights."""
        if node.is_on_host:
            return self._host
        if self._owners and node.layer >= 0:
            return self._owners[node.layer]
        if node.view_of is not None and node.view_of.is_external:
            return self._backend_of_memory(node.view_of)
        if node.op in _FREE:
            return _UNKNOWN
        for source in node.sources:
            if source.is_external and self._memory(source).is_weight:
                backend = self._backend_of_memory(source)
                if backend < self._host:
                    return backend
                return self._copier if _is_worth_copying(node) else backend
        return _UNKNOWN

    def _backend(self, tensor: Tensor) -> int:
        """Return where a tensor's memory is, be it a view or not."""
        shown = root(tensor)
        return self._backend_of_memory(shown) if shown.is_external else shown.backend

    # ------------------------------------------------------------------- copies
    def _split(self) -> None:
        """Put the nodes into splits, the copies that each reads at its beginning."""
        current = _UNKNOWN
        inputs: list[Tensor] = []  # of the split that is open
        begin = 0  # where it begins
        for node in self._graph.nodes:
            if node.op == "view":
                self._nodes.append(node)
                continue
            if node.backend != current or (inputs and self._reads_foreign_weight(node)):
                self._close(begin, current, inputs)
                current, inputs, begin = node.backend, [], len(self._nodes)
            node.sources = tuple(
                self._copied(source, current, inputs)
                if self._backend(source) != current
                else source
                for source in node.sources
            )
            self._nodes.append(node)
        self._close(begin, current, inputs)

    def _reads_foreign_weight(self, node: Tensor) -> bool:
        return any(
            source.is_external
            and self._memory(source).is_weight
            and self._backend_of_memory(source) != node.backend
            for source in node.sources
        )

    def _copied(self, source: Tensor, backend: int, inputs: list[Tensor]) -> Tensor:
        key = self._copy_key(source), backend
        copy = self._copies.get(key)
        if copy is None:
            copy = Tensor("none", source.type, source.shape, strides=source.strides)
            copy.backend = backend
            shown = root(source)
            is_whole = source is shown and self._memory(shown).is_weight
            if source.fixed_bytes >= 0 and not is_whole:
                copy.fixed_bytes = source.fixed_bytes
                if backend < self._host:
                    copy.fixed_bytes += padding_bytes(source.type, source.shape[0])
            elif shown.is_external:
                copy.fixed_bytes = self._memory(shown).size_bytes
            self._copies[key] = copy
            inputs.append(source)
            self._copied_first.append(copy)
        return copy

    def _copy_key(self, source: Tensor) -> int | str:
        """Return what tells a tensor from others: a weight that is read twice is copied once."""
        if not source.is_external:
            return id(source)
        return self._memory(source).copied_as or source.name or id(source)

    def _close(self, begin: int, backend: int, inputs: list[Tensor]) -> None:
        """Put the copies of a split before it, each behind a view that keeps its original."""
        added: list[Tensor] = []
        for source in inputs:
            keeper = Tensor("none", source.type, source.shape, (source,), view_of=root(source))
            added += (keeper, self._copies[self._copy_key(source), backend])
        self._nodes[begin:begin] = added


def _with_kept_experts(nodes: Sequence[Tensor], gpus: range) -> Iterator[Tensor]:
    """Yield the nodes, and behind each weighted sum over experts what keeps its operands so long.

    Only `gpus`, this machine's, are asked to.
    The sum is a product with the experts' weights, a view of each expert, and their additions.
    Source: ggml/src/ggml-cuda/ggml-cuda.cu (ggml_cuda_match_moe_weighted_reduction).
    """
    keepers: dict[int, Tensor] = {}
    for number, node in enumerate(nodes):
        end = number + 2 * node.shape[1]
        is_sum = (
            node.op == "mul" and node.backend in gpus and 2 <= node.shape[1] <= MOST_SUMMED_EXPERTS
        )
        if is_sum and end <= len(nodes) and node.sources[1].shape == (1, *node.shape[1:]):
            ops = [one.op for one in nodes[number + 1 : end]]
            if ops.count("view") == node.shape[1] and ops.count("add") == node.shape[1] - 1:
                first = node.sources[0]
                keepers[end - 1] = Tensor(
                    "none", first.type, first.shape, node.sources, view_of=root(first)
                )
        yield node
        if number in keepers:
            yield keepers[number]


def _unpacked_bytes(node: Tensor, unpacks: Sequence[str], *, is_recorded: bool) -> int:
    """Return the bytes of attention's result and of its keys and values as f16.

    Source: ggml/src/ggml-cuda/fattn.cu (ggml_cuda_flash_attn_ext_get_alloc_size).
    """
    size = node.size_bytes
    if node.sources[0].shape[1] <= FEW_QUERIES:
        return size
    for kind, cache in zip("kv", node.sources[1:3], strict=True):
        if kind not in unpacks or (is_recorded and cache.type == "f16"):
            continue
        size = -(-size // ALIGNMENT) * ALIGNMENT + 2 * prod(cache.shape)
    return size


def _is_computed(node: Tensor) -> bool:
    """Return whether the GPU has a kernel for an operator that may be anywhere.

    Source: ggml/src/ggml-cuda/ggml-cuda.cu (supports_op), fattn.cu.
    """
    if node.op == "flash_attn_ext":
        return has_attention(node.sources[1].shape[0], node.sources[2].shape[0])
    if node.op == "ssm_conv":
        return node.sources[0].shape[1] % CONVOLVED_STEP == 0
    return True


def _is_worth_copying(node: Tensor) -> bool:
    shape = node.shape
    if node.op == "get_rows":
        return False
    if node.op == "mul_mat":
        return shape[1] >= WORTH_COPYING
    if node.op in {"mul_mat_id", "rope"}:
        return shape[2] >= WORTH_COPYING
    return shape[1] * shape[2] * shape[3] >= WORTH_COPYING


def _spread(
    nodes: Iterable[Tensor],
    kept: Collection[int],
    computes_all: Collection[int],
    host: int,
    *,
    only_gpu: bool,
) -> None:
    """Give operators that may be anywhere the backend of the one before them.

    `kept` are the ids of those that no GPU has a kernel for, but `computes_all` take them.
    """
    current = _UNKNOWN
    for node in nodes:
        if node.backend == _UNKNOWN:
            if current in computes_all or not kept or id(node) not in kept:
                node.backend = current
        else:
            current = _UNKNOWN if only_gpu and node.backend == host else node.backend
