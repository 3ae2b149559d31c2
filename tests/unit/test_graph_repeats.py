"""A few layers stand for all that are like them: the buffers are those of all, to the byte."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.engines.ggml import encoder_graph, reserved_graph
from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.experts import Moved
from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.graph_allocator import allocate
from vramplan.engines.ggml.graph.repeats import Repeats, UnlikeError, few_of
from vramplan.engines.ggml.graph.vision_shapes import Encoding
from vramplan.engines.ggml.load_plan import batch_of, read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.projector_file import projector_of
from vramplan.engines.ggml.weights import GgmlModel, place_layers
from vramplan.setting_values import overrides_of
from vramplan.sources.gguf import read_gguf

gguf = pytest.importorskip("gguf")


def load(name: str):
    path = Path(__file__).parents[1] / f"{name}.py"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


sparse = load("sparse_gguf")
FAMILIES = {**sparse.sibling("sparse_families").families()}
PROJECTORS = sparse.sibling("sparse_projectors")

#: settings that split a graph, or fill its buffers, in different ways
SETTINGS = (
    {},
    {"flash_attention": "off", "kv_type": "bf16"},
    {"parallel": 3, "ubatch": 16, "kv_offload": "off"},
)


def test_few_stand_for_many() -> None:
    assert few_of("aaaabb", 1) == Repeats(numbers=(0, 1, 2, 3, 4, 5))
    assert few_of("abbbbbbbc", 1) == Repeats(numbers=(0, 1, 2, 3, 4, 8), alike=((2, 3),))
    assert few_of("abbbbbbbc", 2) == Repeats(numbers=(0, 1, 2, 3, 4, 5, 8), alike=((2, 4),))
    assert few_of("a" * 80, 3) == Repeats(numbers=(0, 1, 2, 3, 4, 5, 6, 7), alike=((1, 4),))
    assert few_of("aaaaaaabbbbbbb", 2).alike == ((1, 3), (8, 10))
    assert few_of("aaaaaaaaa", 0) == Repeats(numbers=tuple(range(9)))


def test_few_stand_for_many_that_take_turns() -> None:
    whole = Repeats(numbers=(0, 1, 2, 3, 4, 5, 6))
    assert few_of("abababa", 1) == whole  # a round, a period behind the next, and a round
    assert few_of("ababababa", 1) == Repeats(numbers=(*range(7),), alike=((2, 4),))
    assert few_of("xabababababy", 1) == Repeats(numbers=(*range(9), 11), alike=((3, 5),))
    assert few_of("aabaabaabaabaab", 1) == Repeats(numbers=(*range(12),), alike=((3, 6),))
    assert few_of("ab" * 12, 6) == Repeats(numbers=(*range(12),), alike=((2, 8),))


def stretched(model: GgmlModel, times: int) -> GgmlModel:
    """Return a model with each of its layers so many times in a row."""
    language = model.language
    count = model.layers

    def renamed(name: str, number: int) -> str:
        kind, _, rest = name.partition(".")
        return f"{kind}.{number}.{rest.partition('.')[2]}"

    names = {name for name in language.names if not name.startswith("blk.")}
    tensors = [one for one in model.tensors if one.layer is None]
    for number in range(count * times):
        there = f"blk.{number // times}."
        names |= {renamed(name, number) for name in language.names if name.startswith(there)}
        tensors += [
            replace(one, name=renamed(one.name, number), layer=number)
            for one in model.tensors
            if one.layer == number // times and one.name.startswith(there)
        ]
    layers = tuple(language.layers[number // times] for number in range(count * times))
    states = len(language.kept) * times
    kept = tuple(language.kept[number // times] for number in range(states))
    return replace(
        model,
        layers=count * times,
        tensors=tuple(tensors),
        language=replace(language, layers=layers, names=frozenset(names), kept=kept),
    )


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_models_buffers_are_those_of_all_its_layers(name, tmp_path, monkeypatch) -> None:
    path = sparse.write(tmp_path / "m.gguf", FAMILIES[name])
    run = read_run(open_model(str(path), None), {}, "8.6")
    model = stretched(run.model, 6 if run.model.layers < 8 else 1)
    asked = []
    for changes in SETTINGS:
        settings = {**run.settings, "context": 4096, **changes}
        has_flash = changes.get("flash_attention") != "off"
        batch = batch_of(model, settings, run.rules, has_flash=has_flash, is_shared=True)
        for on_gpu in (0, model.layers // 2, model.total_layers):
            asked.append((batch, place_layers(model, on_gpu, output_first=True)))
    sizes = reserved_graph.split_sizes
    whole = reserved_graph.graph_sizes.__wrapped__
    few = [sizes(model, *one, run.rules) for one in asked]
    few_on_host = whole(model, asked[0][0], run.rules)
    monkeypatch.setattr(reserved_graph, "_PERIODS", ())
    assert [sizes(model, *one, run.rules) for one in asked] == few
    assert whole(model, asked[0][0], run.rules) == few_on_host


#: shares of cards, what is elsewhere than its layer, other settings, layers kept in host memory
SHARED_OUT = (
    ((1.0, 1.0), "none", {}, 0),
    ((3.0, 1.0, 2.0), "none", {}, 0),
    ((1.0, 2.0), "none", {}, 5),
    ((1.0, 1.0), "ffn_down=CPU", {}, 0),
    ((1.0, 1.0), r"blk\.[0-9]*[02468]\.attn_k=CUDA1;ffn_up=CUDA0", {}, 3),
    ((2.0, 1.0), "none", {"ubatch": 16}, 4),
    ((1.0,), r"blk\.[0-9]*[13579]\.ffn_up=CPU", {"ubatch": 16}, 6),
)


@pytest.mark.parametrize(("shares", "overrides", "changes", "kept"), SHARED_OUT)
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3moe"])
def test_few_layers_stand_for_all_on_several_cards(
    name, shares, overrides, changes, kept, tmp_path, monkeypatch
) -> None:
    path = sparse.write(tmp_path / "m.gguf", FAMILIES[name])
    run = read_run(open_model(str(path), None), {}, "8.6")
    model = stretched(run.model, 6 if run.model.layers < 8 else 1)
    settings = {**run.settings, "context": 4096, "parallel": 1, **changes}
    batch = batch_of(model, settings, run.rules, has_flash=True, is_shared=True)
    patterns = tuple((one, HOST if to is None else to) for one, to in overrides_of(overrides))
    placement = place_layers(
        model,
        model.total_layers - kept,
        output_first=True,
        moved=Moved(patterns=patterns),
        shares=shares,
    )
    few = reserved_graph.split_sizes(model, batch, placement, run.rules)
    assert len(few) == len(shares) + 1
    monkeypatch.setattr(reserved_graph, "_PERIODS", ())
    assert reserved_graph.split_sizes(model, batch, placement, run.rules) == few


@pytest.mark.parametrize("has_flash", [True, False])
@pytest.mark.parametrize("name", ["llava", "gemma3", "internvl", "pixtral", "kimi"])
def test_a_projectors_buffer_is_that_of_all_its_layers(name, has_flash, tmp_path) -> None:
    path = sparse.write(tmp_path / "p.gguf", getattr(PROJECTORS, name)())
    shape = projector_of(read_gguf(path)).shape
    times = 6
    tensors = {one: shape.tensors[one] for one in shape.tensors if not one.startswith("v.blk.")}
    for number in range(shape.layers * times):
        there = f"v.blk.{number // times}."
        for key, tensor in shape.tensors.items():
            if key.startswith(there):
                tensors[f"v.blk.{number}.{key.removeprefix(there)}"] = tensor
    shape = replace(shape, layers=shape.layers * times, tensors=tensors)
    encoding = Encoding(width=20 * shape.patch, height=20 * shape.patch, has_flash=has_flash)
    few = encoder_graph.encoder_sizes(shape, encoding)
    assert few == encoder_graph.sizes_in(shape, encoding, 0)


def test_it_is_few_that_are_built(monkeypatch, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", FAMILIES["llama"])
    run = read_run(open_model(str(path), None), {}, "8.6")
    model = stretched(run.model, 40)
    built = []
    real = reserved_graph.reserve_graph

    def reserve(*args):
        built.append(args[-1])
        return real(*args)

    monkeypatch.setattr(reserved_graph, "reserve_graph", reserve)
    placement = place_layers(model, 30, output_first=True)
    reserved_graph.split_sizes(model, run.batch, placement, run.rules)
    assert [len(one.numbers) for one in built] == [4 + 4 + 1]


def test_layers_that_leave_memory_otherwise_are_refused() -> None:
    graph = Graph()
    x = graph.input("f32", 64, 64)
    ends = {}
    kept = []
    for number in range(5):  # each leaves another tensor behind: memory grows with every layer
        x = graph.matmul(64, x)
        kept.append(graph.matmul(64, x))
        graph.expand(kept[-1])
        ends[number] = x
    for one in kept:
        x = graph.same("concat", x, one)
    graph.expand(x)
    graph.compare_ends(ends, Repeats(numbers=(0, 1, 2, 3, 4), alike=((1, 3),)))
    with pytest.raises(UnlikeError):
        allocate(graph)


def test_a_graph_is_laid_out_once_however_many_layers_are_where(monkeypatch, tmp_path) -> None:
    path = sparse.write(tmp_path / "m.gguf", FAMILIES["llama"])
    run = read_run(open_model(str(path), None), {}, "8.6")
    model = stretched(run.model, 20)
    batch = batch_of(model, run.settings, run.rules, has_flash=True, is_shared=True)
    split, built = reserved_graph._split, []

    def counted(*args):
        built.append(args)
        return split(*args)

    monkeypatch.setattr(reserved_graph, "_split", counted)
    found = {}
    for on_gpu in range(model.total_layers + 1):
        placement = place_layers(model, on_gpu, output_first=True)
        found[on_gpu] = reserved_graph.split_sizes(model, batch, placement, run.rules)
    assert len(built) < len(found) / 2
    monkeypatch.setattr(reserved_graph, "_PERIODS", ())
    for on_gpu in (7, 8, 23):
        placement = place_layers(model, on_gpu, output_first=True)
        assert found[on_gpu] == reserved_graph.split_sizes(model, batch, placement, run.rules)
