"""Holds a tape against the engine: at headers, depths and settings that it was not made of.

The graph must be the engine's node for node; its buffers those of a CPU, and of a card that is not
there with no layer, one, half and all of them, to the byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tools.graphs.asking import Asking, EngineError
from tools.graphs.headers import Style
from tools.graphs.making import OUTPUT, Maker, deep_enough, keeps
from tools.graphs.samples import dice, request_of, run_of, windows_of
from tools.graphs.sketch import leaf_names
from vramplan.engines.ggml.graph.recording import Recording, cpu_bytes, norm_of
from vramplan.engines.ggml.graph.tape import Tape, TapeDomainError, Tapes
from vramplan.engines.ggml.graph_buffer import recording_sizes
from vramplan.engines.ggml.graph_tape import compose
from vramplan.engines.ggml.layer_fit import as_asked
from vramplan.engines.ggml.load_plan import NEVER_FLASH, GgmlRun
from vramplan.errors import VramplanError
from vramplan.sources.gguf_header import GgufFile

_FIRST_SEED = 1_000
_HEADERS, _DEPTHS = 2, (5, 8, 13, 18)
_PLACED = ("0", "1", "half", "all")


#: why tapes said nothing of what they were held against, and how often
OUTSIDE: Counter[str] = Counter()


class RejectedError(Exception):
    """The engine's graph, or its buffers, are others than a tape says."""


def hold(
    tapes: Tapes, tape: Tape, maker: Maker, style: Style, tensors: frozenset[str], engine: Asking,
    card: Asking, name: str,
) -> int:  # fmt: skip
    """Return at how many settings the engine holds what a tape says.

    Raises RejectedError, EngineError where no such model is made.
    """
    held = taken = 0
    sets = [tensors - {OUTPUT}, tensors] if len(tape.domain.outputs) > 1 else [tensors]
    problem: Exception | None = None
    for seed in range(_FIRST_SEED, _FIRST_SEED + 8 * _HEADERS):
        depth = deep_enough(name, _DEPTHS[seed % len(_DEPTHS)])
        try:
            header = maker.header(style, seed, keeps(sets[taken % len(sets)]), depth)
            held += _hold_graphs(tapes, tape, header, maker.settings(dice(seed)), engine)
            held += _hold_buffers(tapes, tape, _as_served(header, seed), seed, card)
        except (EngineError, VramplanError) as found:
            problem = found
            continue
        taken += 1
        if held < 10 * taken:
            raise RejectedError(f"outside: {OUTSIDE.most_common(1)}")
        if taken == _HEADERS:
            return held
    raise EngineError(f"only {taken} models to hold it against: {problem}")


def _as_served(header: GgufFile, seed: int) -> GgufFile:
    """Return a header whose matrices are of few bits, as most files' are."""
    kind = ("q8_0", "f16", "q4_0")[seed % 3]
    tensors = tuple(
        replace(one, type=kind)
        if len(one.shape) > 1
        and not one.shape[0] % 32
        and one.name.endswith(".weight")
        and not any(
            part in one.name
            for part in ("ssm_", "time_mix", "conv", "_gate_inp", "norm", "altup", "rel_b", "pos")
        )
        else one
        for one in header.tensors
    )
    return replace(header, tensors=tensors)


def _hold_graphs(
    tapes: Tapes, tape: Tape, header: GgufFile,
    wanted: Sequence[tuple[object, Mapping[str, object]]], engine: Asking,
) -> int:  # fmt: skip
    runs = [run_of(header, settings) for _, settings in wanted]
    told = engine.graphs(header, [request_of(run) for run in runs])
    held = 0
    for run, graph in zip(runs, told, strict=True):
        made = _composed(tapes, tape, run)
        if made is None:
            continue
        held += 1
        _compare(made, graph, windows_of(run))
        if cpu_bytes(made) != graph["held_bytes"]:
            raise RejectedError(
                f"the engine holds {graph['held_bytes']:,} bytes, and the tape's graph "
                f"{cpu_bytes(made):,}"
            )
    return held


def _composed(tapes: Tapes, tape: Tape, run: GgmlRun) -> Recording | None:
    """Return a tape's graph; None where it says nothing of a run."""
    try:
        return compose(tapes, tape, run.model, run.batch)
    except TapeDomainError as problem:
        OUTSIDE[str(problem)] += 1
        return None


def _hold_buffers(tapes: Tapes, tape: Tape, header: GgufFile, seed: int, card: Asking) -> int:
    rng = dice(seed)
    has_flash = header.architecture not in NEVER_FLASH
    held = 0
    for layers in _PLACED:
        wanted = []
        for slots in (1, 4):
            for type_name in ("f16", "q8_0") if has_flash else ("f16",):
                wanted.append({
                    "context": 256 * slots * rng.choice((4, 9, 17)),
                    "ubatch": rng.choice((64, 256, 512)),
                    "flash_attention": "on" if has_flash else "off",
                    "key_type": type_name, "value_type": type_name if has_flash else "f16",
                    "parallel": slots,
                    "kv_unified": "on" if slots > 1 and rng.random() < 0.5 else "off",
                    "engine": "b11549",
                })  # fmt: skip
        runs = []
        for one in wanted:
            run = run_of(header, {**one, "gpu_layers": 0})
            total = run.model.total_layers
            count = {"0": 0, "1": 1, "half": total // 2, "all": total}[layers]
            runs.append(run_of(header, {**one, "gpu_layers": count}))
        told = card.buffers(header, [request_of(run, run.asked_layers) for run in runs])
        for run, buffers in zip(runs, told, strict=True):
            made = _composed(tapes, tape, run)
            if made is not None:
                _compare_buffers(made, run, buffers, layers)
                held += 1
    return held


def _compare_buffers(made: Recording, run: GgmlRun, told: Mapping[str, int], layers: str) -> None:
    ours = split_of(made, run)
    theirs = told.get("CUDA0", 0), told.get("CPU", 0)
    if ours != theirs:
        raise RejectedError(
            f"with {layers} layers ({run.batch.cache_type}, {run.batch.sequences} slots) the "
            f"engine holds {theirs[0]:,} and {theirs[1]:,} bytes, the tape's graph {ours[0]:,} and "
            f"{ours[1]:,}"
        )


def split_of(made: Recording, run: GgmlRun) -> tuple[int, ...]:
    """Return the buffers of a graph on the GPU and in host memory, as `own_graph` has them."""
    return recording_sizes(made, run.model, run.batch, as_asked(run).placement, run.rules)


def _compare(made: Recording, told: Mapping[str, Any], windowed: Sequence[bool]) -> None:
    """Raise RejectedError where a graph is not the engine's, node for node."""
    names = leaf_names(told["tensors"], told["leaves"], told["nodes"], windowed)
    theirs = list(_told_nodes(told, names))
    ours = list(_made_nodes(made))
    if len(ours) != len(theirs):
        raise RejectedError(f"{len(ours)} nodes, and the engine has {len(theirs)}")
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one != other:
            raise RejectedError(f"node {number} is {one}, and the engine's {other}")
    inputs = [names[one] for one in told["leaves"] if told["tensors"][one]["kind"] == "made"]
    own = [made.tensors[one].name for one in made.leaves if made.tensors[one].kind == "made"]
    if inputs != own:
        raise RejectedError(f"inputs {own}, and the engine's {inputs}")


def _told_nodes(told: Mapping[str, Any], names: Mapping[int, str]) -> Iterator[object]:
    rows, position = told["tensors"], {node: at for at, node in enumerate(told["nodes"])}

    def named(one: int) -> object:
        return position[one] if one in position else names[one]

    for node in told["nodes"]:
        row = rows[node]
        yield (
            row["op"], row["type"], tuple(row["shape"]), tuple(row["strides"]), row["bytes"],
            row["flags"], norm_of(row["name"]), [named(one) for one in row["sources"]],
            named(row["shows"]) if row["shows"] >= 0 else None,
        )  # fmt: skip


def _made_nodes(made: Recording) -> Iterator[object]:
    rows, position = made.tensors, {node: at for at, node in enumerate(made.nodes)}

    def named(one: int) -> object:
        return position.get(one, rows[one].name)

    for node in made.nodes:
        row = rows[node]
        yield (
            row.op, row.type, row.shape, row.strides, row.size_bytes,
            row.is_input + 2 * row.is_output, norm_of(row.name),
            [named(one) for one in row.sources],
            named(row.shows) if row.shows >= 0 else None,
        )  # fmt: skip
