"""What llama.cpp's fit leaves on the GPU: the context first, then layers, of mixtures experts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vramplan.ask.library import open_target
from vramplan.ask.targets import make_jobs
from vramplan.budget.verdict import without_words
from vramplan.catalog import load_catalog
from vramplan.engines.ggml import engine_pools, layer_fit
from vramplan.engines.ggml.estimate import fit_layers
from vramplan.engines.ggml.experts import HostExperts, HostPart, Moved
from vramplan.engines.ggml.judge import GgmlGrader, judge_ggml
from vramplan.engines.ggml.kv_cache import most_cache_bytes
from vramplan.engines.ggml.layer_fit import MARGIN_BYTES, Fit, as_asked, fit_run
from vramplan.engines.ggml.load_plan import GgmlRun, read_run
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.pipeline import of_ggml
from vramplan.engines.ggml.projector_compute import projector_compute
from vramplan.model import Band, LineKind, Pipeline, SettingValue, buffer_bytes
from vramplan.settings import resolve_settings
from vramplan.units import MIB

STEP = 256


@pytest.fixture(scope="module")
def dense(sparse: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Four layers of Mistral 7B, trained on 32,768 tokens."""
    model = sparse.dense_layers(sparse.language_model(layers=4))
    return open_model(str(sparse.write(tmp_path_factory.mktemp("fit") / "d.gguf", model)), None)


def run_of(found: Pipeline, **settings: SettingValue) -> GgmlRun:
    return read_run(found, resolve_settings(found, settings), "8.6")


def used(fit: Fit) -> int:
    return sum(layer_fit._used_bytes(fit))


def fit_to(run: GgmlRun, used_bytes: int) -> Fit:
    """Return the fit where the engine may use just so much."""
    return fit_run(run, used_bytes + MARGIN_BYTES)


# ------------------------------------------------------------------------------ the context


def test_where_there_is_room_the_context_is_the_models(dense: Pipeline) -> None:
    run = run_of(dense, context="auto")
    assert run.settings["context"] == 32_768
    assert fit_to(run, used(as_asked(run))) == as_asked(run)


@pytest.mark.parametrize("parallel", [1, 2])
def test_the_context_shrinks_before_any_layer_moves(dense: Pipeline, parallel: int) -> None:
    run = run_of(dense, context="auto", parallel=parallel)
    whole, least = used(as_asked(run)), used(as_asked(run.with_context(4096 * parallel)))
    for share in (0.02, 0.5, 0.98):
        target = least + int((whole - least) * share)
        found = fit_to(run, target)
        tokens = found.run.settings["context"]
        assert isinstance(tokens, int)
        assert found.on_gpu == 5
        assert tokens % (STEP * parallel) == 0
        # the straight line holds for keys, values and masks: one step more would not fit
        assert used(found) <= target < used(as_asked(run.with_context(tokens + STEP * parallel)))


def test_below_4096_tokens_layers_move(dense: Pipeline) -> None:
    run = run_of(dense, context="auto")
    least = run.with_context(4096)
    found = fit_to(run, used(as_asked(least)) - 1)
    assert found.run.settings["context"] == 4096
    assert found.on_gpu < 5
    assert found == fit_to(least, used(as_asked(least)) - 1)


def test_a_context_that_was_asked_for_is_kept(dense: Pipeline) -> None:
    run = run_of(dense, context=32_768)
    found = fit_to(run, used(as_asked(run)) - 1)
    assert found.run.settings["context"] == 32_768
    assert found.on_gpu < 5


def test_layers_that_were_asked_for_are_kept_and_the_context_is_the_least(dense: Pipeline) -> None:
    run = run_of(dense, context="auto", gpu_layers="all")
    found = fit_to(run, 64 * MIB)
    assert (found.run.settings["context"], found.on_gpu) == (4096, 5)


def test_a_model_trained_on_less_is_not_shrunk(sparse: ModuleType, tmp_path: Path) -> None:
    model = sparse.dense_layers(sparse.language_model(context=2048))
    found = open_model(str(sparse.write(tmp_path / "s.gguf", model)), None)
    run = run_of(found, context="auto")
    found_fit = fit_to(run, 1)
    assert (found_fit.run.settings["context"], found_fit.on_gpu) == (2048, 0)


# ------------------------------------------------------------------------------- the layers


def test_as_many_layers_as_fit(dense: Pipeline) -> None:
    run = run_of(dense)
    sums = [used(Fit(run=run, on_gpu=layers)) for layers in range(6)]
    for target in range(0, max(sums) + 64 * MIB, 37 * MIB):
        fitting = [layers for layers in range(6) if sums[layers] <= target]
        # all layers may take less than all but one, which needs scratch for what is copied
        expected = 5 if 5 in fitting else max(fitting, default=0)
        assert fit_to(run, target).on_gpu == expected


def most_within(target: int, sums: list[int]) -> int:
    """Return where the engine's search ends among sums of so many steps."""
    last = len(sums) - 1
    if sums[last] <= target:
        return last
    return layer_fit._search(
        0, last, target, used=sums.__getitem__, count=int, step=lambda low, count: low + count
    )


@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=40),
    st.integers(-100, 20_000),
)
def test_the_search_ends_where_the_next_step_does_not_fit(steps: list[int], target: int) -> None:
    sums = [sum(steps[:count]) for count in range(len(steps) + 1)]
    found = most_within(target, sums)
    assert found == max((n for n, total in enumerate(sums) if total <= target), default=0)


# ------------------------------------------------------------------------------ the experts


def _whole_layers(fit: Fit) -> int:
    return fit.on_gpu - fit.placement.blocks_without_experts


def test_a_mixture_keeps_its_layers_and_gives_up_experts_from_the_last(mixture: Pipeline) -> None:
    run = run_of(mixture)
    whole = used(as_asked(run))
    found = fit_to(run, whole - 1)
    assert found.on_gpu == 9
    assert experts_of(found).stop == 8
    assert used(found) < whole
    # before it must be copied, an expert takes no scratch: what is copied for it costs a layer
    assert 1 <= found.placement.blocks_without_experts <= 2


def test_one_more_layer_with_its_experts_would_not_fit(mixture: Pipeline) -> None:
    run = run_of(mixture)
    whole = used(as_asked(run))
    cut = {}
    for target in range(500 * MIB, whole, 119 * MIB):
        found = fit_to(run, target)
        if found.on_gpu < 9:
            continue
        assert used(found) <= target
        kept = experts_of(found)
        cut[found.placement.blocks_without_experts] = kept.first_part
        full = Fit(run=_with(run, kept.first + 1, HostPart.EXPERTS), on_gpu=9)
        assert used(full) > target
        for part in (HostPart.ALL_BUT_GATE, HostPart.ALL_BUT_UP):  # the finest that fits
            finer = Fit(run=_with(run, kept.first, part), on_gpu=9)
            if kept.first_part is part:
                break
            assert kept.first == 8 or used(finer) >= target
    assert len(cut) > 4
    assert len(set(cut.values())) > 1


def _with(run: GgmlRun, first: int, part: HostPart) -> GgmlRun:
    rule = HostExperts(first=first, stop=8, first_part=part)
    return replace(run, moved=Moved(experts=(rule,)))


def experts_of(fit: Fit) -> HostExperts:
    """Return the rule for experts of a fit; one without any has none in host memory."""
    return fit.run.moved.experts[0] if fit.run.moved.experts else HostExperts(first=8, stop=8)


def test_where_not_even_attention_fits_layers_move_too(mixture: Pipeline) -> None:
    run = run_of(mixture, context=32_768)
    every = _with(run, 0, HostPart.EXPERTS)
    found = fit_to(run, used(as_asked(every)) - 1)
    assert found.on_gpu < 9
    # the first of the blocks keeps its experts: the engine counts the output layer as that one
    assert found.placement.blocks_without_experts == max(found.on_gpu - 2, 0)


def test_a_trace_of_the_engine_ends_at_the_same_layers(
    mixture: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """am17an/llama.cpp#6: Qwen3.6 35B-A3B on an RTX 3060 with 10,603 MiB free; 42 layers.

    25 layers without experts fit, 24 take 9,625 MiB and do not; one more layer without its gate and
    down is 9,387 MiB and is taken. That makes 119 MiB a matrix of experts.
    """
    third = (9625 - 9387) // 2
    by_part = {
        HostPart.EXPERTS: 0,
        HostPart.ALL_BUT_ATTENTION: 0,
        HostPart.ALL_BUT_UP: third,
        HostPart.ALL_BUT_GATE: 2 * third,
    }

    def used(fit: Fit) -> tuple[int]:
        kept = experts_of(fit) if fit.run.moved else HostExperts()
        without = max(kept.stop + 1 - kept.first, 0) if kept.stop else 0
        return ((9625 + (24 - without) * 3 * third + by_part[kept.first_part]) * MIB,)

    monkeypatch.setattr(layer_fit, "_used_bytes", used)
    run = run_of(mixture)
    long = replace(run.model, layers=41)
    found = fit_run(replace(run, model=long), 10_603 * MIB)
    assert found.on_gpu == 42
    assert experts_of(found).first == 42 - 25
    assert experts_of(found).first_part in (HostPart.ALL_BUT_UP, HostPart.ALL_BUT_GATE)


def test_experts_that_were_asked_for_stay_as_they_are(mixture: Pipeline) -> None:
    run = run_of(mixture, cpu_moe=2)
    found = fit_to(run, 64 * MIB)
    assert found == as_asked(run)
    assert found.placement.blocks_without_experts == 2


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(200, 4000), st.integers(1, 500))
def test_more_room_never_puts_less_on_the_gpu(mixture: Pipeline, budget: int, more: int) -> None:
    chosen = resolve_settings(mixture, {})
    context = Band.exactly(0)
    less, small = fit_layers(mixture, chosen, "8.6", context, budget * MIB)
    lots, large = fit_layers(mixture, chosen, "8.6", context, (budget + more) * MIB)
    assert (less.on_gpu, -less.experts_on_cpu) <= (lots.on_gpu, -lots.experts_on_cpu)
    weights = LineKind.WEIGHTS
    assert buffer_bytes(small.buffers, weights) <= buffer_bytes(large.buffers, weights)


# ------------------------------------------------------------------------- to the byte


def test_the_margin_is_the_engines() -> None:
    """1,024 MiB: llama.cpp, common/common.h (fit_params_target); tested as the number it is."""
    assert MARGIN_BYTES == 1_073_741_824


def test_what_fits_to_the_byte_fits(dense: Pipeline) -> None:
    run = run_of(dense)
    sums = [used(Fit(run=run, on_gpu=layers)) for layers in range(6)]
    assert sums[1:5] == sorted(set(sums[1:5]))
    for layers in range(1, 5):
        expected = 5 if sums[5] <= sums[layers] else layers
        assert fit_to(run, sums[layers]).on_gpu == expected
        assert fit_to(run, sums[layers] - 1).on_gpu < layers
    assert fit_to(run, sums[5]).on_gpu == 5
    assert fit_to(run, sums[5] - 1).on_gpu < 5


@pytest.mark.parametrize("steps", [[3, 4, 5], [1, 1, 1, 1], [7]])
def test_the_search_takes_what_is_just_enough(steps: list[int]) -> None:
    sums = [sum(steps[:count]) for count in range(len(steps) + 1)]
    for count, total in enumerate(sums):
        assert most_within(total, sums) == count


@pytest.mark.parametrize("name", ["llava:7b", "llava-v1.5-7b"])
def test_the_margin_has_room_for_the_projector_and_its_compute(name: str) -> None:
    """Ollama keeps room for the projector's file twice, in whole MiB, llama.cpp once."""
    run = read_run(of_ggml(open_target(name).pipeline), {}, "8.6")
    assert run.vision is not None
    held = run.vision.weights_bytes
    compute = projector_compute(run.vision, has_flash=run.has_vision_flash).expected_bytes
    assert compute > 16 * MIB
    again = -(-held // MIB) * MIB if run.is_ollama else 0
    assert layer_fit.margin_bytes(run, 64 << 30) == MARGIN_BYTES + held + compute + again


def test_the_most_that_may_be_cached_is_all_of_it_where_no_layer_has_a_window(
    dense: Pipeline,
) -> None:
    """Keys and values: 2 x 8 heads x 128 x 2 bytes a token and layer."""
    run = run_of(dense, context=4096)
    for layers in range(5):
        most = most_cache_bytes(run.model, run.batch, layers)
        assert most == run.batch.cache_of_last(layers) == layers * 4096 * 2 * 8 * 128 * 2


def test_pools_of_a_vision_encoder_hold_what_one_operation_needs() -> None:
    """CLIP-L/336 in LLaVA: 577 places, 16 heads; without fused attention its scores in f16."""
    run = read_run(of_ggml(open_target("llava:7b").pipeline), {}, "8.6")
    assert run.vision is not None
    flash, plain = (
        engine_pools.vision_pool(run.vision, has_flash=flash).expected_bytes
        for flash in (True, False)
    )
    assert (flash, plain) == (10 * MIB, 12 * MIB)


def filled(run: GgmlRun, target: int) -> tuple[layer_fit._Part, ...]:
    """Return what one card has once it is filled with layers, experts aside."""
    return layer_fit._Filling(run, (target,))._fill((layer_fit._Part(),), 0)


@pytest.mark.parametrize("power", [0.5, 1, 3])
def test_as_many_layers_without_experts_as_fit(
    mixture: Pipeline, monkeypatch: pytest.MonkeyPatch, power: float
) -> None:
    """Wherever the target is, and however bytes grow with layers: one layer more does not fit."""
    run = run_of(mixture)
    total = run.model.total_layers
    sums = [round(1000 * count**power) for count in range(total + 1)]
    monkeypatch.setattr(layer_fit, "_used_bytes", lambda fit: (sums[fit.on_gpu],))
    for count in range(total + 1):
        for target in (sums[count], sums[min(count + 1, total)] - 1):
            (split,) = filled(run, target)
            assert split.layers == max(n for n, size in enumerate(sums) if size <= target)
            assert split.parts <= max(split.layers - 1, 0)  # the output layer is none of them


def test_a_step_of_one_layer_puts_no_block_without_experts(
    mixture: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the engine counts: a step from no parts has one part less than layers.

    Bytes that bend upwards make it go layer by layer, each of them then whole; on a straight line
    it goes there at once. Source: llama.cpp, common/fit.cpp (n_part).
    """
    run = run_of(mixture)
    for power, parts in ((3, 0), (1, 2)):
        sums = [1000 * count**power for count in range(run.model.total_layers + 1)]
        monkeypatch.setattr(layer_fit, "_used_bytes", lambda fit, sums=sums: (sums[fit.on_gpu],))
        (split,) = filled(run, sums[3])
        assert (split.layers, split.parts) == (3, parts)


# ------------------------------------------------------------------------------- the search


@pytest.mark.parametrize("target", [0, 1, 4_999, 5_000, 123_456, 999_998, 999_999])
def test_a_search_guesses_along_the_straight_line(target: int) -> None:
    """Each guess is a whole graph that is counted: on a line the first is right."""
    asked: list[int] = []

    def line(number: int) -> int:
        asked.append(number)
        return 1_000 * number

    found = layer_fit._search(
        0, 1_000, target, used=line, count=lambda number: number, step=lambda low, more: low + more
    )
    assert found == target // 1_000
    assert len(set(asked)) <= 5


@pytest.mark.parametrize("name", ["llava:7b", "llava-v1.5-7b"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"gpu_layers": 12}, {"context": 3_072}, {"kv_type": "q8_0"}, {"platform": "windows"}],
)
def test_a_grader_says_of_every_card_what_a_judgement_says(
    name: str, changed: dict[str, SettingValue]
) -> None:
    """It knows a run that cards take whole from the first of them."""
    catalog = load_catalog()
    (job,) = make_jobs([name], catalog, changed)
    pipeline = of_ggml(job.pipeline)
    grader = GgmlGrader(pipeline, job.settings)
    for card in list(catalog.cards.values())[::4]:
        for budget in (card.total_bytes, min(card.total_bytes, 6 << 30)):
            judged = judge_ggml(pipeline, job.settings, card, budget)
            assert grader(card, budget) == without_words(judged), (card.name, budget)
