"""Which of several cards has which layer, worked out by hand from llama.cpp's rule."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.catalog.search import load_catalog
from vramplan.engines.ggml.card_memory import CardMemory, together
from vramplan.engines.ggml.card_shares import HOST, cards_of
from vramplan.engines.ggml.cards_used import choose_cards
from vramplan.engines.ggml.estimate import estimate_placed
from vramplan.engines.ggml.gpu_seats import gpus_of
from vramplan.engines.ggml.judge import judge_ggml
from vramplan.engines.ggml.layer_fit import as_asked, fit_run, layers_of
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.weights import place_layers
from vramplan.errors import UsageError
from vramplan.model import Judgement, Pipeline, SettingValue, VerdictKind
from vramplan.settings import resolve_settings
from vramplan.units import GIB, MIB

LAYERS = 12


@pytest.fixture(scope="module")
def dense(sparse: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Twelve layers of Mistral 7B."""
    model = sparse.dense_layers(sparse.language_model(layers=LAYERS))
    return open_model(str(sparse.write(tmp_path_factory.mktemp("cards") / "d.gguf", model)), None)


def run_on(found: Pipeline, *free_gib: float, **settings: SettingValue) -> GgmlRun:
    cards = [CardMemory(total_bytes=int(one * GIB), free_bytes=int(one * GIB)) for one in free_gib]
    return read_run(found, resolve_settings(found, settings), "8.6", together(cards))


@pytest.mark.parametrize(
    ("layers", "shares", "counts"),
    [
        (13, (), [13]),
        (13, (1.0,), [13]),
        (13, (1.0, 1.0), [7, 6]),  # 6/13 < 1/2 <= 7/13
        (4, (1.0, 1.0), [2, 2]),  # 2/4 is not below the first card's share
        (13, (3.0, 1.0), [10, 3]),
        (13, (0.0, 1.0), [0, 13]),
        (13, (1.0, 0.0), [13, 0]),
        (13, (1.0, 0.0, 1.0), [7, 0, 6]),
        (81, (1.0, 1.0), [41, 40]),
        (1, (1.0, 9.0), [1, 0]),
        (0, (1.0, 1.0), [0, 0]),
    ],
)
def test_layers_are_dealt_out_by_their_number(
    layers: int, shares: tuple[float, ...], counts: list[int]
) -> None:
    owners = cards_of(layers, shares)
    assert [owners.count(card) for card in range(max(len(shares), 1))] == counts


def test_numbers_are_rounded_as_the_engines_are() -> None:
    """In 32 bits a third of 0.3 + 0.6 is a third of three; in 64 it is a little more than that."""
    assert cards_of(3, (0.3, 0.6)) == (0, 1, 1)
    assert 0.3 / (0.3 + 0.6) > 1 / 3


@given(st.integers(0, 200), st.lists(st.integers(1, 1 << 40).map(float), min_size=2, max_size=8))
def test_owners_rise_and_are_scale_free(layers: int, shares: list[float]) -> None:
    owners = cards_of(layers, tuple(shares))
    assert list(owners) == sorted(owners)
    assert len(owners) == layers
    assert cards_of(layers, tuple(4 * share for share in shares)) == owners


def test_every_byte_is_on_one_card_or_the_other(dense: Pipeline) -> None:
    model = run_on(dense, 8).model
    whole = place_layers(model, 13, output_first=True)
    for shares in ((1.0, 1.0), (1.0, 2.0, 5.0)):
        split = place_layers(model, 13, output_first=True, shares=shares)
        assert split.gpu_bytes == whole.gpu_bytes
        assert split.host_bytes == whole.host_bytes
        assert sum(card.layers for card in split.cards) == 13
        assert [card.has_output for card in split.cards] == [False] * (len(shares) - 1) + [True]
        owners = [split.card_of(block) for block in range(12)]
        assert owners == sorted(owners)


def test_layers_in_host_memory_are_the_first(dense: Pipeline) -> None:
    split = place_layers(run_on(dense, 8).model, 5, output_first=True, shares=(1.0, 1.0))
    assert [split.card_of(block) for block in range(12)] == [HOST] * 8 + [0, 0, 0, 1]
    older = place_layers(run_on(dense, 8).model, 5, output_first=False, shares=(1.0, 1.0))
    assert [older.card_of(block) for block in range(12)] == [HOST] * 7 + [0, 0, 0, 1, 1]
    assert older.card_of_output == HOST


def test_shares_are_of_what_is_free_beside_the_context(dense: Pipeline) -> None:
    cards = [
        CardMemory(total_bytes=8 * GIB, free_bytes=8 * GIB, context_bytes=2 * GIB),
        CardMemory(total_bytes=8 * GIB, free_bytes=2 * GIB),
    ]
    run = read_run(dense, dense.defaults, "8.6", together(cards))
    assert run.shares == (6.0 * GIB, 2.0 * GIB)
    assert layers_of(as_asked(run)) == (10, 3)


@pytest.mark.parametrize(
    ("settings", "cards", "shares"),
    [
        ({}, (0, 1), (4.0 * GIB, 2.0 * GIB)),
        ({"tensor_split": "3/1"}, (0, 1), (3.0, 1.0)),
        ({"tensor_split": "3"}, (0, 1), (3.0, 0.0)),
        ({"split_mode": "none"}, (0,), ()),
        ({"split_mode": "none", "main_gpu": 1}, (1,), ()),
    ],
)
def test_settings_say_which_cards(
    dense: Pipeline,
    settings: dict[str, SettingValue],
    cards: tuple[int, ...],
    shares: tuple[float, ...],
) -> None:
    run = run_on(dense, 4, 2, **settings)
    assert (run.cards, run.shares) == (cards, shares)


def run_over(dense: Pipeline, remote: str, **settings: SettingValue) -> GgmlRun:
    """Return a run on cards of 4, 2 and 1 GiB, of which those with an r are other machines'."""
    cards = [
        CardMemory(total_bytes=size * GIB, free_bytes=size * GIB, is_remote=kind == "r")
        for size, kind in zip((4, 2, 1), remote, strict=False)
    ]
    return read_run(dense, {**dense.defaults, **settings}, "8.6", together(cards))


def test_cards_of_other_machines_come_first(dense: Pipeline) -> None:
    run = run_over(dense, "-r-")
    assert (run.cards, run.remotes) == ((1, 0, 2), 1)
    assert run.shares == (2.0 * GIB, 4.0 * GIB, 1.0 * GIB)
    assert run.projector_card == 0
    assert run_over(dense, "r--").projector_card == 1
    assert run_over(dense, "r").projector_card == 0
    assert run_over(dense, "-r-", tensor_split="3/1").shares == (3.0, 1.0, 0.0)
    alone = run_over(dense, "-r-", split_mode="none")
    assert (alone.cards, alone.remotes) == ((1,), 1)
    assert run_over(dense, "-r-", split_mode="none", main_gpu=1).cards == (0,)


def test_patterns_count_this_machines_cards_alone(dense: Pipeline) -> None:
    moved = run_over(dense, "-r-", override_tensor="ffn=CUDA1;attn=CUDA0").moved
    assert moved.find("blk.0.ffn_up.weight", 0) == 2
    assert moved.find("blk.0.attn_q.weight", 0) == 1
    with pytest.raises(UsageError, match="no CUDA2"):
        run_over(dense, "-r-", override_tensor="ffn=CUDA2")
    with pytest.raises(UsageError, match="no CUDA0"):
        run_over(dense, "r", override_tensor="ffn=CUDA0")


def test_pipelines_over_other_machines_came_later(dense: Pipeline) -> None:
    assert run_over(dense, "-r", engine="b11549").batch.may_pipeline
    assert not run_over(dense, "-r", engine="b10488").batch.may_pipeline
    assert run_over(dense, "--", engine="b10488").batch.may_pipeline


@pytest.mark.parametrize("runtime", ["ollama", "lmstudio"])
def test_only_llama_cpp_has_cards_of_other_machines(dense: Pipeline, runtime: str) -> None:
    other = replace(dense, runtime=runtime)
    with pytest.raises(UsageError, match=f"{runtime} knows of no cards"):
        run_over(other, "-r")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"split_mode": "row"}, "split_mode=row: .* no longer"),
        ({"split_mode": "tensor"}, "split_mode=tensor: .* experimental"),
        ({"main_gpu": 2}, "main_gpu=2: there are 2 cards"),
        ({"tensor_split": "1/1/1"}, "tensor_split has 3 shares, and there are 2 cards"),
    ],
)
def test_what_cannot_be_is_refused(
    dense: Pipeline, settings: dict[str, SettingValue], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        run_on(dense, 4, 2, **settings)


def test_without_memory_for_a_pipeline_the_cards_work_one_after_the_other(dense: Pipeline) -> None:
    """llama-context.cpp: "… allocation failed, retrying without pipeline parallelism"."""
    card = load_catalog().card("2xrtx-3090").candidates[0]
    settings = resolve_settings(dense, {"gpu_layers": "all", "context": 4096})
    pipelined = estimate_placed(dense, settings, gpus_of(card))
    plain = estimate_placed(dense, settings, gpus_of(card), may_pipeline=False)
    most, least = (found.cards[0].need.expected_bytes for found in (pipelined, plain))
    assert least < most

    def judged(budget: int) -> Judgement:
        seats = tuple(replace(seat, budget_bytes=budget) for seat in card.seats)
        return judge_ggml(dense, settings, replace(card, seats=seats), 2 * budget)

    assert judged(least - MIB).kind is VerdictKind.OOM
    squeezed = judged((least + most) // 2)
    assert squeezed.kind is not VerdictKind.OOM
    assert squeezed.cards[0].need.expected_bytes == least
    assert "one after the other" in squeezed.reason
    assert "one after the other" not in judged(most + GIB).reason


def test_the_worst_card_decides(dense: Pipeline) -> None:
    card = load_catalog().card("2xrtx-3090").candidates[0]
    settings = resolve_settings(dense, {"gpu_layers": "all", "tensor_split": "1/1"})
    first, last = card.seats
    seats = (replace(first, budget_bytes=8 * GIB), replace(last, budget_bytes=600 * MIB))
    found = judge_ggml(dense, settings, replace(card, seats=seats), 8 * GIB + 600 * MIB)
    assert [share.kind for share in found.cards] == [VerdictKind.FITS, VerdictKind.OOM]
    assert found.kind is VerdictKind.OOM
    assert "fails to load on gpu 1" in found.reason


def ollamas(free_gib: list[int], need_gib: int, **settings: SettingValue) -> tuple[int, ...]:
    cards = [CardMemory(total_bytes=one * GIB, free_bytes=one * GIB) for one in free_gib]
    chosen = {"split_mode": "auto", **settings}
    return choose_cards(chosen, cards, lambda: need_gib * GIB).numbers


def test_ollama_takes_one_card_where_the_model_fits_it_by_its_rough_sum() -> None:
    """At most 80 % of what is free on the card that has most (server/sched.go)."""
    assert ollamas([10, 20], 16) == (1,)
    assert ollamas([10, 20], 17) == (0, 1)
    assert ollamas([20, 20], 16) == (0,)  # of equals the first
    assert ollamas([10, 20], 16, split_mode="layer") == (0, 1)  # OLLAMA_SCHED_SPREAD
    assert ollamas([10, 20], 16, split_mode="none", main_gpu=0) == (0,)


def test_a_card_that_is_full_gives_layers_to_the_other(dense: Pipeline) -> None:
    """Seven and six of thirteen; the first card has room for the margin and two layers more."""
    run = run_on(dense, 8, 8)
    whole = as_asked(run)
    assert layers_of(whole) == (7, 6)
    found = fit_run(run, [1024 * MIB + 500 * MIB, 8 * GIB])
    assert layers_of(found) == (0, 13)  # from the last card on
    found = fit_run(run, [8 * GIB, 1024 * MIB + 500 * MIB])
    first, last = layers_of(found)
    assert first + last == 13
    assert 1 <= last < 6


def test_shares_that_were_asked_for_are_kept_however_little_room_there_is(dense: Pipeline) -> None:
    run = run_on(dense, 8, 8, tensor_split="1/1")
    assert layers_of(fit_run(run, [1100 * MIB, 1100 * MIB])) == (7, 6)
