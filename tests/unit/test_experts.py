"""Experts in host memory: which tensors stay there, what is on each side, what it costs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vramplan.engines.ggml.card_shares import HOST
from vramplan.engines.ggml.changes import changes
from vramplan.engines.ggml.estimate import estimate_ggml
from vramplan.engines.ggml.experts import NOTHING_MOVED, HostExperts, HostPart, Moved, has_experts
from vramplan.engines.ggml.open import open_model
from vramplan.errors import UsageError
from vramplan.model import Band, Estimate, LayerSplit, Pipeline, SettingValue
from vramplan.report.serial import buffers_object
from vramplan.settings import resolve_settings
from vramplan.units import MIB

CONTEXT = Band.exactly(400 * MIB)
LAYERS = 8
#: a layer's three expert matrices in q4_0: 128 experts of 2048 x 768
EXPERTS = 3 * 128 * 2048 * 768 // 32 * 18
#: CUDA pads a matrix whose rows of 768 are no multiple of 512 by 256 elements, and aligns it
PADDED = EXPERTS + 256


def estimate(found: Pipeline, **settings: SettingValue) -> tuple[Estimate, LayerSplit]:
    ours = estimate_ggml(found, resolve_settings(found, settings), "8.6", CONTEXT)
    assert ours.layers is not None
    return ours, SimpleNamespace(**buffers_object(ours.buffers)), ours.layers


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("blk.3.ffn_gate_exps.weight", set(HostPart) - {HostPart.ALL_BUT_GATE}),
        ("blk.3.ffn_up_exps.weight", {HostPart.EXPERTS, HostPart.ALL_BUT_ATTENTION}),
        ("blk.3.ffn_down_exps.bias", set(HostPart)),
        ("blk.3.ffn_gate_up_exps.weight", set(HostPart) - {HostPart.ALL_BUT_GATE}),
        ("blk.3.ffn_down_chexps.weight", set(HostPart)),
        ("blk.3.ffn_down_shexp.weight", set(HostPart) - {HostPart.EXPERTS}),
        ("blk.3.ffn_gate_inp.weight", {HostPart.ALL_BUT_ATTENTION, HostPart.ALL_BUT_UP}),
        ("blk.3.ffn_norm.weight", set()),
        ("blk.3.attn_q.weight", set()),
        ("output.weight", set()),
    ],
)
def test_names_are_matched_as_the_engine_does(name: str, parts: set[HostPart]) -> None:
    assert {part for part in HostPart if part.has(name)} == parts


@pytest.mark.parametrize("first_to", [HOST, 1])
def test_only_the_first_layer_is_cut_elsewhere(first_to: int) -> None:
    rule = HostExperts(first=2, stop=4, first_part=HostPart.ALL_BUT_GATE, first_to=first_to)
    moved = Moved(experts=(rule,))
    found = [
        (layer, part)
        for layer in range(6)
        for part in ("gate", "up", "down")
        if (place := moved.find(f"blk.{layer}.ffn_{part}_exps.weight", layer)) is not None
        and place == (first_to if layer == 2 else HOST)
    ]
    assert found == [(2, "down"), (3, "gate"), (3, "up"), (3, "down")]
    assert NOTHING_MOVED.find("blk.0.ffn_up_exps.weight", 0) is None
    assert moved.find("output.weight", None) is None


def test_a_mixture_is_known_by_its_tensors() -> None:
    assert has_experts(["blk.1.attn_q.weight", "blk.1.ffn_up_exps.weight"])
    assert not has_experts(["blk.1.ffn_up.weight", "blk.1.ffn_up_shexp.weight"])


@pytest.mark.parametrize(("asked", "layers"), [(1, 1), (5, 5), ("all", LAYERS)])
def test_bytes_move_from_one_side_to_the_other(
    mixture: Pipeline, asked: SettingValue, layers: int
) -> None:
    whole, before, _ = estimate(mixture)
    ours, after, split = estimate(mixture, cpu_moe=asked)
    assert before.model_bytes - after.model_bytes == layers * PADDED
    assert after.host_model_bytes - before.host_model_bytes == layers * EXPERTS
    assert after.kv_cache_bytes == before.kv_cache_bytes
    assert (split.on_gpu, split.experts_on_cpu, split.is_whole) == (LAYERS + 1, layers, False)
    assert split.in_words() == f"9 of 9 layers on the GPU, the experts of {layers} on the CPU"
    assert [part.device for part in ours.components] == ["split"]
    assert [part.device for part in whole.components] == ["gpu"]
    assert any("the experts are in host memory" in note for note in ours.notes)
    # for a big batch one matrix of a layer's experts comes to the GPU at a time, not at the peak
    assert 0 < after.compute_bytes - before.compute_bytes < EXPERTS // 3


def test_a_small_batch_is_computed_where_the_experts_are(mixture: Pipeline) -> None:
    _, before, _ = estimate(mixture, ubatch=16)
    _, after, _ = estimate(mixture, ubatch=16, cpu_moe="all")
    assert after.compute_bytes < before.compute_bytes
    assert after.host_compute_bytes > before.host_compute_bytes


def test_layers_on_the_cpu_have_no_experts_to_move(mixture: Pipeline) -> None:
    """The output layer goes first, then the last blocks: 5 layers are blocks 4 to 7."""
    _, before, _ = estimate(mixture, gpu_layers=5)
    _, same, _ = estimate(mixture, gpu_layers=5, cpu_moe=4)
    _, fewer, split = estimate(mixture, gpu_layers=5, cpu_moe=6)
    assert same == before
    assert before.model_bytes - fewer.model_bytes == 2 * PADDED
    assert split.experts_on_cpu == 2
    half = before.host_kv_cache_bytes
    assert half == before.kv_cache_bytes > 0


def test_what_cannot_be_is_refused(mixture: Pipeline, sparse: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cpu_moe 9: must be at most 8"):
        estimate(mixture, cpu_moe=9)
    dense = open_model(str(sparse.write(tmp_path / "d.gguf", sparse.families()["llama"])), None)
    with pytest.raises(UsageError, match="has no setting 'cpu_moe'"):
        estimate(dense, cpu_moe=1)
    with pytest.raises(UsageError, match="the model has no experts"):
        estimate_ggml(dense, {"cpu_moe": 1}, "8.6", CONTEXT)


def test_advice_moves_more_and_more_experts_where_the_layers_are_said(mixture: Pipeline) -> None:
    def offered(**settings: SettingValue) -> list[SettingValue]:
        chosen = resolve_settings(mixture, settings)
        single = [change for change in changes(mixture, chosen) if ";" not in change.line]
        return [change.settings["cpu_moe"] for change in single if "cpu_moe" in change.settings]

    assert offered(gpu_layers="all") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert offered(gpu_layers="all", cpu_moe=6) == [7, 8]
    assert offered(gpu_layers="all", cpu_moe="all") == []
    assert offered() == []  # the engine moves them itself


def test_the_last_layer_has_experts_to_move_and_there_is_none_behind_it(mixture: Pipeline) -> None:
    _, last, split = estimate(mixture, cpu_moe="7-7")
    assert split.experts_on_cpu == 1
    assert last.host_model_bytes > estimate(mixture)[1].host_model_bytes
    with pytest.raises(UsageError, match="has no such layer"):
        estimate(mixture, cpu_moe="8-8")
