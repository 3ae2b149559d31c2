"""What Transformers' loader leaves to the CPU: its own rule, held against its own code."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from vramplan.ask.check import Question, answer
from vramplan.ask.judge import judge
from vramplan.ask.targets import make_jobs, silent
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch import judge as torch_judge
from vramplan.engines.torch.device_map import Module, modules_of, offered_bytes, place
from vramplan.engines.torch.judge import judge_torch
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.model import SettingValue, Verdict, VerdictKind
from vramplan.report import phrases
from vramplan.units import GIB, MIB, format_size

CATALOG = load_catalog()
NAME = "llava-1.5-7b-hf"


def llava_modules() -> tuple[Module, ...]:
    (job,) = make_jobs([NAME], CATALOG, {})
    pipeline = of_torch(job.pipeline)
    return modules_of(pipeline, open_tape(find_tape(pipeline)), 2)


def verdict_on(card: str, **settings: SettingValue) -> Verdict:
    jobs = make_jobs([NAME], CATALOG, settings)
    return judge(jobs[0], CATALOG.card(card))[0]


def test_the_modules_are_the_models_in_its_own_order() -> None:
    inner, head = llava_modules()
    assert [part.name for part in inner.children] == [
        "vision_encoder", "projector", "language_model",
    ]  # fmt: skip
    assert inner.size_bytes == sum(layer.size_bytes for layer in inner.layers())
    assert (inner.size_bytes + head.size_bytes) // 2 >= 7_063_427_072  # and a table of positions
    layers = [one for one in inner.layers() if one.name.startswith("language_model.layers.")]
    assert len(layers) == 32
    # four projections, three of the feed-forward part, two norms
    assert {one.size_bytes for one in layers} == {2 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)}


def test_of_14_17_gib_free_the_last_two_layers_and_the_head_stay_on_the_cpu() -> None:
    placed = place(llava_modules(), int(14.17 * GIB))
    assert placed.offered_bytes / GIB == pytest.approx(12.75, abs=0.01)
    on_cpu = [one.name for one in placed.on_cpu]
    assert on_cpu[:2] == ["language_model.layers.30", "language_model.layers.31"]
    assert on_cpu[-1].startswith("lm_head")
    assert (placed.split().on_gpu, placed.split().total) == (30, 33)
    assert placed.names_on_cpu() == "layers 30 to 31 of the language model, its head"


def test_a_model_within_what_is_offered_is_placed_whole() -> None:
    """Then no layer can be refused: `judge` asks the tape only for what is larger."""
    dice = random.Random(7)  # noqa: S311  # a sample
    for _ in range(200):
        parts = tuple(
            Module(name=f"p{n}", size_bytes=sum(sizes), children=tuple(
                Module(name=f"p{n}.{i}", size_bytes=size) for i, size in enumerate(sizes)
            ))
            for n in range(dice.randint(1, 4))
            if (sizes := [dice.randint(1, 100) for _ in range(dice.randint(1, 6))])
        )  # fmt: skip
        total = sum(part.size_bytes for part in parts)
        enough = next(free for free in range(total, 3 * total) if offered_bytes(free) >= total)
        assert place(parts, enough).is_whole
        assert not place(parts, total).is_whole or offered_bytes(total) >= total


def test_it_is_what_transformers_own_code_does() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    from transformers.integrations.accelerate import infer_auto_device_map

    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=6, num_attention_heads=4,
        vocab_size=900,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).half()

    def sized(name: str, module: Any, *, whole: bool = False) -> Module:
        own = list(module.parameters()) + list(module.buffers())
        size = sum(tensor.numel() * tensor.element_size() for tensor in own)
        inside = () if whole else module.named_children()
        children = tuple(
            sized(f"{name}.{key}" if name else key, child,
                  whole=type(child).__name__ == "LlamaDecoderLayer")
            for key, child in inside
        )  # fmt: skip
        return Module(name=name, size_bytes=size, children=children)

    ours = sized("", model).children
    total = sum(part.size_bytes for part in ours)
    for share in range(5, 130, 5):
        room = total * share // 100
        theirs = infer_auto_device_map(
            model,
            max_memory={0: room, "cpu": 1 << 40},
            no_split_module_classes=model._no_split_modules,
        )
        placed = place(ours, -(-room * 100 // 90))  # offers `room`
        for layer in placed.on_gpu:
            assert device_of(layer.name, theirs) == 0, (share, layer.name)
        for layer in placed.on_cpu:
            assert device_of(layer.name, theirs) == "cpu", (share, layer.name)


def device_of(name: str, placed: dict[str, object]) -> object:
    """Return the device of a module: its own, or that of the module it is a part of."""
    if "" in placed:
        return placed[""]
    while name not in placed:
        name, _, _ = name.rpartition(".")
    return placed[name]


# ------------------------------------------------------------------------------ verdicts
def test_the_loaders_rule_is_part_of_the_verdict() -> None:
    verdict = verdict_on("16gb")
    assert verdict.kind is VerdictKind.OFFLOAD
    assert verdict.need.high_bytes <= verdict.budget_bytes  # it would fit
    assert verdict.layers is not None
    assert verdict.layers.on_gpu < verdict.layers.total == 33
    assert 'device_map="auto" offers itself 90 %' in verdict.reason
    assert "its head" in verdict.reason


def test_what_is_planned_is_certain_and_the_headroom_says_of_what() -> None:
    verdict = verdict_on("16gb")
    assert verdict.offload_risk == 1
    assert verdict.headroom_bytes > 0
    assert phrases.risk(verdict) == "certain"
    assert phrases.headroom_of(verdict) == "if all on GPU"


def test_device_map_cuda_is_the_advice_and_fits() -> None:
    jobs = make_jobs([NAME], CATALOG, {})
    question = Question(jobs=tuple(jobs), choices=(CATALOG.card("16gb"),))
    (verdict,) = answer(question, silent).verdicts
    assert [one.change for one in verdict.advice] == ['device_map="cuda"']
    assert verdict.advice[0].effect == "fits"
    assert verdict_on("16gb", device_map="cuda").kind is VerdictKind.FITS


def test_a_card_that_is_too_small_for_all_of_it_fails_only_without_the_loaders_rule() -> None:
    assert verdict_on("12gb").kind is VerdictKind.OFFLOAD
    assert verdict_on("12gb", device_map="cuda").kind is VerdictKind.OOM


def test_a_split_whose_work_does_not_fit_fails() -> None:
    verdict = verdict_on("8gb", batch=24, prompt_tokens=1500)
    assert verdict.kind is VerdictKind.OOM
    assert "even with" in verdict.reason


def test_a_card_with_room_gets_all_of_it() -> None:
    verdict = verdict_on("24gb")
    assert verdict.kind is VerdictKind.FITS
    assert verdict.layers is None
    assert verdict.need.expected_bytes > 13 * GIB + 100 * MIB


def test_a_need_of_just_the_budget_is_no_excess() -> None:
    """To the byte: what the loader splits would fit whole, and with a byte less it would not."""
    (job,) = make_jobs([NAME], CATALOG, {})
    (card,) = CATALOG.card("rtx-4080").candidates
    pipeline, settings = of_torch(job.pipeline), job.settings
    need = judge_torch(pipeline, settings, card, 14 * GIB).estimate.need.band.expected_bytes
    just, short = (judge_torch(pipeline, settings, card, need - less) for less in (0, 1))
    assert just.kind is short.kind is VerdictKind.OFFLOAD
    assert re.search(r"all on the GPU it needs [\d.]+ GiB of ", just.reason)
    assert re.search(r"all on the GPU it needs [\d.]+ GiB, and .* are available", short.reason)


@pytest.mark.parametrize("device_map", ["auto", "cuda"])
@pytest.mark.parametrize("card", ["rtx-3060-12gb", "rtx-4090"])
def test_a_grid_of_verdicts_knows_the_loader_too(card: str, device_map: str) -> None:
    (job,) = make_jobs([NAME], CATALOG, {"device_map": device_map})
    verdict, entry = verdict_on(card, device_map=device_map), CATALOG.cards[card]
    graded = engine_of(job.pipeline).grader(job)(entry, verdict.budget_bytes)
    assert (graded.kind, graded.need.band) == (verdict.kind, verdict.need)
    assert graded.is_split == (verdict.layers is not None)


def test_what_is_offered_is_rounded_down_and_what_is_left_up() -> None:
    placed = place(llava_modules(), int(14.17 * GIB) + 12_345)
    told = torch_judge._left(placed, {"device_map": "auto"})
    for size, up in ((placed.offered_bytes, False), (placed.cpu_bytes, True)):
        assert format_size(size, up=up) != format_size(size, up=not up)
        assert format_size(size, up=up) in told


def test_a_loader_that_quantises_offers_itself_less() -> None:
    """Transformers takes 90 % of what is free, and bitsandbytes' quantiser 90 % of that."""
    plain = verdict_on("rtx-3060-12gb", quantization="none")
    assert "90 % of what is free" in plain.reason
    eight = verdict_on("rtx-3050-8gb", quantization="bnb-8bit")
    assert "81 % of what is free" in eight.reason
    assert eight.kind is VerdictKind.OFFLOAD


def test_balanced_is_auto_on_one_card() -> None:
    auto, balanced = (verdict_on("rtx-3060-12gb", device_map=one) for one in ("auto", "balanced"))
    assert (auto.kind, auto.need, auto.layers) == (balanced.kind, balanced.need, balanced.layers)
    assert 'device_map="balanced" offers itself' in balanced.reason
