"""The engine's own graph of a model file, recorded where the engine is installed.

A child process loads the header, allocates nothing, and tells the graph it reserves (about a
second and 100 MB whatever the model's size). Time, output and memory of the child are bounded; a
crash or a time-out is a `RecordingError` that names the build. What it tells is checked as a
stranger's would be, and taken only if our allocator gives it the bytes that the engine holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from vramplan.codec import JsonError, Limits, parse_json, rows, text_of, whole
from vramplan.engines.ggml.cuda_facts import ALIGNMENT, HOST_ALIGNMENT, padding_bytes
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.graph_allocator import allocate
from vramplan.engines.ggml.graph.split import GPU, Memory, schedule
from vramplan.engines.ggml.graph.tensor import Shape, Tensor
from vramplan.errors import MeasurementError, MissingError
from vramplan.extras import install_command
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.sources.block_sizes import BLOCKS
from vramplan.units import MIB

if TYPE_CHECKING:
    import subprocess

LIBRARY = "xllamacpp"
_CHILD = "vramplan.engines.ggml.witness.record_graph"
_SECONDS = 30
_LIMITS = Limits(text_bytes=64 * MIB, parsed_bytes=768 * MIB, depth=8, characters=512)
_MOST_TENSORS = 200_000
_LONGEST_NAME = 256
_MOST_SOURCES = 10
#: operators whose operands are looked at, and how many those have at least
_OPERANDS = {"mul_mat": 2, "mul": 2, "flash_attn_ext": 3, "ssm_conv": 2}
_VIEWS = frozenset({"view", "reshape", "permute", "transpose"})
_INPUT, _OUTPUT = 1, 2
_KINDS = ("made", "weight", "cache")
#: the layer of a weight or a cache by its name: blk.3.attn_q.weight, cache_k_l3
_LAYER = re.compile(r"blk\.([0-9]{1,4})\.|_l([0-9]{1,4})\b")
#: the layer that an operator is of: Qcur-3
_NORM = re.compile(r"norm-([0-9]{1,4})")
_OF_LAYER = re.compile(r"-([0-9]{1,4})(?: |$)")
_FACTORS = "rope_"
_TABLE, _OUTPUT_MATRIX = "token_embd.weight", "output.weight"


class RecordingError(MeasurementError):
    """The engine's graph was not to be had, or not one that our allocator reproduces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tensor: `sources` and `shows` (-1: none) are numbers of others; `kind` is whose it is."""

    op: str
    type: str
    shape: Shape
    strides: Shape
    sources: tuple[int, ...]
    shows: int
    is_input: bool
    is_output: bool
    kind: str  # made by the graph, weight, or cache
    size_bytes: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A graph as the engine reserved it without a card, and the bytes it holds for it."""

    build: str
    tensors: tuple[Row, ...]
    leaves: tuple[int, ...]
    nodes: tuple[int, ...]
    held_bytes: int

    @property
    def tells_norms(self) -> bool:
        """Return whether it says which norms are computed where their layer is."""
        return any(norm_of(self.tensors[node].name) >= 0 for node in self.nodes)


# ---------------------------------------------------------------------------- asking
def record(request: Mapping[str, object], *, tokens: int, outputs: int) -> Recording:
    """Return the graph for `tokens` of a batch and `outputs` rows of logits.

    `request` is the dry run's. Raises MissingError without the engine, RecordingError where it
    does not tell, in a line that names the build.
    """
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec(LIBRARY) is None:
        message = f"recording a graph needs {LIBRARY}, which is not installed"
        raise MissingError(message, hint=install_command("engine"))
    build = f"{LIBRARY} {importlib.metadata.version(LIBRARY)}"
    asked = json.dumps({**request, "tokens": tokens, "outputs": outputs})
    told = _listen(["-m", _CHILD, asked], build)
    try:
        recording = read_recording(parse_json(told, build, _LIMITS), build)
    except (JsonError, ValueError) as problem:
        raise RecordingError(f"{build} told no graph that can be read: {problem}") from None
    ours = cpu_bytes(recording)
    if ours != recording.held_bytes:
        raise RecordingError(
            f"{build} holds {recording.held_bytes:,} bytes for a graph of which our allocator "
            f"makes {ours:,}"
        )
    return recording


def _listen(command: list[str], build: str) -> bytes:
    import subprocess
    import tempfile

    from vramplan.engines.ggml import engine_process

    with (
        tempfile.TemporaryFile() as said,
        engine_process.start(command, stdout=subprocess.PIPE, stderr=said) as engine,
    ):
        assert engine.stdout is not None
        text, problem = _read_within(engine)
        said.seek(0, os.SEEK_END)
        said.seek(max(said.tell() - 4096, 0))
        last = said.read().decode("utf-8", errors="replace").strip().splitlines()[-1:]
    if problem:
        raise RecordingError(f"{build} {problem} while its graph was recorded")
    if engine.returncode < 0:
        raise RecordingError(f"{build} crashed (signal {-engine.returncode}) recording its graph")
    if not text:
        why = last[0][:300] if last else "it says nothing"
        raise RecordingError(f"{build} tells no graph: {why}")
    return text


def _read_within(engine: subprocess.Popen[bytes]) -> tuple[bytes, str]:
    """Return what the child printed, and what went wrong: it took too long, or said too much."""
    import threading

    assert engine.stdout is not None
    problem = ""

    def end() -> None:
        nonlocal problem
        problem = f"was not done within {_SECONDS} seconds"
        engine.kill()

    timer = threading.Timer(_SECONDS, end)
    timer.start()
    try:
        text = engine.stdout.read(_LIMITS.text_bytes + 1)
        if len(text) > _LIMITS.text_bytes:
            problem = "said too much"
            engine.kill()
        engine.wait()
    finally:
        timer.cancel()
        engine.kill()
    return text, problem


# --------------------------------------------------------------------------- reading
def read_recording(told: object, build: str) -> Recording:
    """Return what JSON's values tell; raises ValueError for what cannot be a graph."""
    told = _object(told)
    found = rows(told.get("tensors"), _MOST_TENSORS)
    count = len(found)

    def places(values: object, most: int) -> tuple[int, ...]:
        return tuple(whole(one, count - 1) for one in rows(values, most))

    tensors = tuple(_row(one, count) for one in found)
    _check_order(tensors)
    return Recording(
        build=build,
        tensors=tensors,
        leaves=places(told.get("leaves"), count),
        nodes=places(told.get("nodes"), count),
        held_bytes=whole(told.get("held_bytes")),
    )


def _row(told: object, count: int) -> Row:
    told = _object(told)
    type_name = text_of(told.get("type"), 16)
    if type_name not in BLOCKS:
        raise ValueError(f"unknown type of a tensor: {type_name}")
    kind = text_of(told.get("kind"), 8)
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of a tensor: {kind}")
    op, sources = text_of(told.get("op"), 64), rows(told.get("sources"), _MOST_SOURCES)
    if len(sources) < _OPERANDS.get(op, 0):
        raise ValueError(f"{op} of {len(sources)} operands")
    flags, shows = whole(told.get("flags"), 3), told.get("shows")
    return Row(
        op=op,
        type=type_name,
        shape=_four(told.get("shape")),
        strides=_four(told.get("strides")),
        sources=tuple(whole(one, count - 1) for one in sources),
        shows=-1 if shows == -1 else whole(shows, count - 1),
        is_input=bool(flags & _INPUT),
        is_output=bool(flags & _OUTPUT),
        kind=kind,
        size_bytes=whole(told.get("bytes")),
        name=text_of(told.get("name"), _LONGEST_NAME),
    )


def _object(told: object) -> dict[str, object]:
    if not isinstance(told, dict):
        raise ValueError("not an object")  # noqa: TRY004  # as for every other fault of a graph
    return told


def _four(told: object) -> Shape:
    first, second, third, fourth = (whole(one) for one in rows(told, 4))
    return first, second, third, fourth


def _check_order(tensors: tuple[Row, ...]) -> None:
    """Raise ValueError for a view of a view: ggml's show the tensor that owns the memory."""
    for tensor in tensors:
        if tensor.shows >= 0 and tensors[tensor.shows].shows >= 0:
            raise ValueError("a view shows another view")


# ------------------------------------------------------------------------- replaying
def cpu_bytes(recording: Recording) -> int:
    """Return the buffer of the whole graph in host memory."""
    return allocate(_graph(recording), (HOST_ALIGNMENT,))[0]


def norm_of(name: str) -> int:
    """Return the layer whose norm a node of this name is, -1 for any other node."""
    found = _NORM.fullmatch(name)
    return int(found[1]) if found else -1


def split_bytes(
    recording: Recording,
    weights: Mapping[str, Memory],
    owners: Sequence[int],
    *,
    cards: int = 1,
    remotes: int = 0,
    is_cache_on_host: bool,
    is_pipeline: bool = False,
    norms_with_layers: bool = False,
    copies_weights: bool = True,
    unpacks: Sequence[str] = (),
    fuses_experts: bool = False,
) -> tuple[int, ...]:
    """Return the buffers on each card and in host memory; the rest are the rules of `schedule`.

    `weights` are those of the file by name; caches and RoPE's factors of a layer are on the card
    that `owners` says, `cards` for the host. `norms_with_layers`: a layer's norms are computed
    there too.
    """
    graph = _graph(recording, owners, cards, has_matrix=_OUTPUT_MATRIX in weights)
    if is_cache_on_host:
        for number, node in zip(recording.nodes, graph.nodes, strict=True):
            node.is_on_host = _is_attended(recording.tensors[number])
    memories = dict(weights)
    memories.update(_other_memories(recording, owners, cards, is_cache_on_host=is_cache_on_host))
    scheduled = schedule(
        graph,
        memories,
        copies_weights=copies_weights,
        unpacks=unpacks,
        fuses_experts=fuses_experts,
        is_recorded=True,
        gpus=cards,
        remotes=remotes,
        is_pipeline=is_pipeline,
        owners=owners if norms_with_layers else (),
    )
    return tuple(allocate(scheduled, (ALIGNMENT,) * cards + (HOST_ALIGNMENT,)))


def _is_attended(row: Row) -> bool:
    """Return whether a node is what attention without flash attention makes.

    The engine computes it, and all between it and the cache, on the CPU where the cache is. Tapes
    have no names of nodes.
    """
    return row.op == "cont" and row.name.startswith("kqv_out-")


def _owner(owners: Sequence[int], layer: int, host: int) -> int:
    """Return who has a layer; one behind the model's, as a router's, is with the last."""
    if layer < 0 or not owners:
        return host
    return owners[min(layer, len(owners) - 1)]


def _other_memories(
    recording: Recording, owners: Sequence[int], cards: int, *, is_cache_on_host: bool
) -> Iterator[tuple[str, Memory]]:
    """Yield the caches and RoPE's factors, which the engine has once on each device."""
    for row in recording.tensors:
        if row.kind == "cache":
            found = _LAYER.search(row.name)
            layer = int(found[1] or found[2]) if found else -1
            owner = cards if is_cache_on_host else _owner(owners, layer, cards)
            yield row.name, _memory(row.size_bytes, owner, cards, is_weight=False)
        elif row.kind == "weight" and row.name.startswith(_FACTORS):
            size = row.size_bytes + padding_bytes(row.type, row.shape[0])
            for owner in range(cards + 1):
                yield _factors(row.name, owner), _memory(size, owner, cards)


def _memory(size_bytes: int, owner: int, cards: int, *, is_weight: bool = True) -> Memory:
    is_on_host = owner == cards
    return Memory(
        size_bytes=size_bytes,
        is_on_host=is_on_host,
        is_weight=is_weight,
        gpu=GPU if is_on_host else owner,
    )


def _factors(name: str, owner: int) -> str:
    return f"{name} of {owner}"


def _graph(
    recording: Recording, owners: Sequence[int] = (), cards: int = 1, *, has_matrix: bool = True
) -> Graph:
    """Return the graph anew: allocating takes it over.

    The engine has RoPE's factors where each layer is, and the table of words once more where it is
    the output's matrix too, but for a family that has no such matrix (`has_matrix`).
    """
    made = [_tensor(row) for row in recording.tensors]
    copies: dict[str, Tensor] = {}
    for row, tensor in zip(recording.tensors, made, strict=True):
        tensor.sources = tuple(made[one] for one in row.sources)
        tensor.view_of = made[row.shows] if row.shows >= 0 else None
        tensor.layer = norm_of(row.name)
        if tensor.layer >= len(owners):
            tensor.layer = -1
    for row, tensor in zip(recording.tensors, made, strict=True):
        if row.op == "rope" and len(row.sources) > 2:  # x, positions, factors
            layer = _OF_LAYER.search(row.name)
            if layer and made[row.sources[2]].name.startswith(_FACTORS):
                factors = made[row.sources[2]]
                name = _factors(factors.name, _owner(owners, int(layer[1]), cards))
                own = _twin(factors, name, copies)
                tensor.sources = (*tensor.sources[:2], own, *tensor.sources[3:])
        elif has_matrix and row.op == "mul_mat" and made[row.sources[0]].name == _TABLE:
            tensor.sources = (
                _twin(made[row.sources[0]], _OUTPUT_MATRIX, copies),
                *tensor.sources[1:],
            )
    graph = Graph()
    graph.leaves = [made[number] for number in recording.leaves]
    graph.nodes = [made[number] for number in recording.nodes]
    return graph


def _twin(tensor: Tensor, name: str, copies: dict[str, Tensor]) -> Tensor:
    if name not in copies:
        twin = Tensor("none", tensor.type, tensor.shape, strides=tensor.strides, is_external=True)
        twin.name, twin.fixed_bytes = name, tensor.fixed_bytes
        copies[name] = twin
    return copies[name]


def _tensor(row: Row) -> Tensor:
    tensor = Tensor(
        "view" if row.op in _VIEWS else row.op,
        row.type,
        row.shape,
        strides=row.strides,
        is_input=row.is_input,
        is_external=row.kind != "made",
    )
    tensor.is_output = row.is_output
    tensor.fixed_bytes = row.size_bytes
    tensor.name = row.name if row.kind != "made" else ""
    return tensor
