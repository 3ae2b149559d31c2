"""Plans of real pipelines, held against every change, every pair and every size one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from types import SimpleNamespace

import pytest

from vramplan.ask.judge import judge
from vramplan.ask.largest import find_largest, legal_sizes
from vramplan.ask.plan import PlanQuestion, find_plan
from vramplan.ask.targets import make_jobs
from vramplan.budget.change import Change, combine
from vramplan.budget.plan import Plan
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.errors import VramplanError
from vramplan.model import Constraint, Job, SettingValue, Verdict, VerdictKind
from vramplan.report.plan import largest_words
from vramplan.report.serial import largest_object
from vramplan.units import MIB

CATALOG = load_catalog()


def question(
    name: str, card: str, margin_bytes: int = 0, worst: VerdictKind = VerdictKind.FITS, **settings
) -> PlanQuestion:
    (job,) = make_jobs([name], CATALOG, settings)
    choice = CATALOG.card(card)
    return PlanQuestion(
        job=job, choice=choice, catalog=CATALOG, margin_bytes=margin_bytes, worst=worst
    )


def verdict(asked: PlanQuestion, changed: dict[str, SettingValue]) -> Verdict | None:
    job = Job(pipeline=asked.job.pipeline, settings={**asked.job.settings, **changed})
    try:
        return judge(job, asked.choice, margin_bytes=asked.margin_bytes)[0]
    except VramplanError:
        return None


def fits(asked: PlanQuestion, changed: dict[str, SettingValue]) -> bool:
    found = verdict(asked, changed)
    return found is not None and found.kind is VerdictKind.FITS


#: on each there is something to do, on a class of cards and on one card, and together every kind
#: of change is among what is done
ASKED = [
    ("sdxl", "rtx-3070", {}),
    ("sdxl", "rtx-3050-6gb", {}),
    ("sd15", "rtx-3050-laptop", {"image": (768, 768), "batch": 2}),
    ("sd15", "rtx-3050-6gb", {"image": (1024, 1024), "batch": 4}),
    ("sd15", "gtx-1060-6gb", {"image": (1024, 1024)}),
    ("sd15-vae", "rtx-3070", {"image": (2048, 2048), "batch": 2}),
    ("llava-1.5-7b-hf", "rtx-4080", {"batch": 4}),
    ("llava:7b", "rtx-3050-6gb", {"context": 16384}),
    ("llava-v1.5-7b", "8gb", {}),
    ("vit-mae-base", "rtx-3050-laptop", {"mode": "train", "batch": 128}),
    ("denoising-ae", "8gb", {"mode": "train", "batch": 256}),
    ("log-anomaly-ae", "4gb", {"batch": 1 << 20}),
]


@pytest.mark.parametrize(("name", "card", "settings"), ASKED, ids=lambda one: str(one)[:16])
def test_the_cheapest_change_and_the_cheapest_pair_are_found(name, card, settings) -> None:
    asked = question(name, card, **settings)
    check_against_all(asked, find_plan(asked, sizes=()))


def check_against_all(asked: PlanQuestion, plan: Plan) -> None:
    """Judge every change and every pair, and see that the plan has the cheapest of each."""
    if not plan.is_needed:
        assert plan.options == ()
        return
    for option in plan.options:
        found = verdict(asked, dict(option.settings))
        assert found == option.verdict
        assert found.kind in (VerdictKind.FITS, VerdictKind.TIGHT)
        if found.kind is VerdictKind.FITS:  # and no change in it is idle
            for change in option.changes:
                rest = [one for one in option.changes if one is not change]
                assert not fits(asked, dict(combine(rest).settings))
    prices = [option.price for option in plan.options]
    assert prices == sorted(prices)
    changes = list(engine_of(asked.job.pipeline).changes(asked.job))
    single = [change for change in changes if fits(asked, dict(change.settings))]
    pairs = [
        combine(pair)
        for pair in combinations(changes, 2)
        if not pair[0].settings.keys() & pair[1].settings.keys()
        and not any(one in single for one in pair)
        and fits(asked, dict(combine(pair).settings))
    ]
    fitting = [one for one in plan.options if one.verdict.kind is VerdictKind.FITS]
    for count, known in ((1, single), (2, pairs)):
        mine = [option.price for option in fitting if len(option.changes) == count]
        assert min(mine, default=None) == min(_prices(known), default=None)


def _prices(changes: list[Change]) -> Iterator[int]:
    return (change.price for change in changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CATALOG.pipelines))
def test_every_pipeline_on_twelve_cards(name: str) -> None:
    """A minute or two each: the brute force, not the plan, takes it."""
    for card in (
        "4gb", "6gb", "8gb", "10gb", "12gb", "16gb", "24gb", "gtx-1060-6gb", "rtx-2070",
        "rtx-3060-12gb", "rtx-4060", "rtx-5080",
    ):  # fmt: skip
        asked = question(name, card)
        check_against_all(asked, find_plan(asked, sizes=()))


def test_what_fits_is_left_as_it_is() -> None:
    plan = find_plan(question("sd15", "8gb"))
    assert (plan.is_needed, plan.options, plan.succeeds) == (False, (), True)
    assert plan.smallest is not None
    assert plan.smallest.class_name == "4gb"


def test_what_cannot_fit_says_by_how_much_it_misses() -> None:
    plan = find_plan(question("llava:7b", "4gb"), sizes=())
    assert (plan.options, plan.succeeds) == ((), False)
    assert plan.everything is not None
    needs = plan.everything.verdict
    assert needs.kind.is_failure
    assert plan.missing_bytes == needs.need.expected_bytes - needs.budget_bytes > 0
    assert {"kv_type", "ubatch", "context", "gpu_layers"} <= plan.everything.settings.keys()
    assert "11 of 33 layers on the GPU" in plan.nearest[0].effect
    assert plan.beside == plan.nearest
    again = replace(plan.nearest[0], change=plan.everything.line)
    assert replace(plan, nearest=(again,)).beside == ()


def test_the_engine_keeps_nothing_free_where_it_is_told_so() -> None:
    """Ollama leaves a GiB free by itself, for which layers go to the CPU."""
    plan = find_plan(question("llava:7b", "6gb"), sizes=())
    assert plan.verdict.kind is VerdictKind.OFFLOAD
    assert plan.options[0].settings == {"gpu_layers": "all"}
    assert plan.saving_bytes(plan.options[0]) == 0


def test_what_is_tight_is_taken_where_nothing_fits() -> None:
    """And where tight is good enough, from the start."""
    card = CATALOG.cards["rtx-3090"]
    margin = card.total_bytes - card.reserved_bytes - 578 * MIB
    asked = question("vit-mae-base", "rtx-3090", margin, batch=2)
    plan = find_plan(asked, sizes=())
    assert plan.verdict.kind is VerdictKind.OOM
    found = [(option.line, option.verdict.kind) for option in plan.options]
    assert found == [("model.to(torch.float16)", VerdictKind.TIGHT)]
    lenient = find_plan(replace(asked, worst=VerdictKind.TIGHT), sizes=())
    assert lenient.options[0] == plan.options[0]
    barely = question("sd15", "6gb", image=(1024, 1024))
    assert find_plan(barely, sizes=()).is_needed
    assert not find_plan(replace(barely, worst=VerdictKind.TIGHT), sizes=()).is_needed


def test_a_change_that_the_tape_does_not_know_is_left_out_and_said() -> None:
    asked = question("sdxl", "8gb")
    choices = Constraint(choices=("sdpa", "math", "sliced"))  # it was not recorded with slices
    pipeline = replace(
        asked.job.pipeline, constraints={**asked.job.pipeline.constraints, "attention": choices}
    )
    job = Job(pipeline=pipeline, settings=asked.job.settings)
    plan = find_plan(replace(asked, job=job), sizes=())
    assert plan.options[0].settings == {"offload": "model"}
    left = {one.line: one.why for one in plan.left_out}
    assert "no recording" in left["pipe.enable_attention_slicing()"]
    assert "weights in 8 or 4 bits" not in left  # a setting of it


def test_the_front_has_what_needs_least_and_what_is_fastest() -> None:
    plan = find_plan(question("sd15", "6gb", image=(1024, 1024), batch=4), sizes=())
    front = [option for option in plan.options if plan.is_on_front(option)]
    assert min(plan.options, key=lambda one: one.need_bytes) in front
    assert min(plan.options, key=lambda one: plan.slowdown(one) or 0) in front
    for option in (one for one in plan.options if one not in front):
        mine = option.need_bytes, plan.slowdown(option)
        assert any(
            other.need_bytes <= mine[0] and (plan.slowdown(other) or 0) <= (mine[1] or 0)
            for other in front
        )


# ------------------------------------------------------------------------------------------- sizes
#: small runs, so that every legal size can be judged
SMALL = [
    ("sd15-vae", "image", {"image": (512, 512)}),
    ("sd15-vae", "image", {"image": (512, 768), "mode": "decode"}),
    ("sd15-vae", "batch", {"image": (256, 256)}),
    ("denoising-ae", "image", {"mode": "train", "batch": 8}),
    ("denoising-ae", "batch", {"image": (256, 256)}),
    ("vit-mae-base", "batch", {"mode": "infer"}),
    ("llava:7b", "context", {}),
]
CARDS = ("gtx-1060-6gb", "rtx-2070", "rtx-3060-12gb", "rtx-4060", "rtx-5080", "6gb")


def cases(count: int) -> list[tuple[str, str, dict[str, SettingValue], str, int]]:
    """Return pipelines, sizes, cards, and what is left of the cards, drawn at random."""
    drawn = random.Random(20261130)  # noqa: S311  # a draw of cases
    found = []
    while len(found) < count:
        # the graph of a context takes as long as a hundred small tapes
        name, size, settings = drawn.choice(SMALL if len(found) % 4 == 0 else SMALL[:-1])
        card = drawn.choice(CARDS)
        usable = CATALOG.card(card).candidates[0]
        room = usable.total_bytes - usable.reserved_bytes
        least, most = (5000, 9000) if name == "llava:7b" else (500, 1600)
        margin = room - drawn.randrange(least, most) * MIB
        if margin >= 0:
            found.append((name, size, settings, card, margin))
    return found


@pytest.mark.parametrize(("name", "size", "settings", "card", "margin"), cases(100))
def test_the_largest_size_is_exact(name, size, settings, card, margin) -> None:
    """It fits, and no larger one up to twice as large does, whichever way success goes."""
    asked = question(name, card, margin_bytes=margin, **settings)
    found = find_plan(asked, sizes=(size,), with_options=False).largest[size]
    sizes = legal_sizes(asked.job.settings[size], asked.job.pipeline.constraints.get(size), size)
    largest = sizes[0] if found is None else found.value
    if found is not None:
        assert found.verdict == verdict(asked, {size: found.value})
        assert found.verdict.kind is VerdictKind.FITS
    for larger in sizes:
        if _edge(larger) > 2 * _edge(largest):
            break
        if _edge(larger) > _edge(largest) or found is None:
            assert not fits(asked, {size: larger}), larger


class EndsAt39:
    """Trials of batches, as of a tape that holds for 39: more may fit, and nobody knows."""

    asked = question("clip-vit-h-14", "8gb")
    job = asked.job
    budgets = tuple((card, 1 << 33) for card in asked.choice.candidates)

    def least_bytes(self, changes, _card, _budget):
        return changes["batch"]

    def look(self, changes):
        return SimpleNamespace(is_assumed=changes["batch"] > 39)

    def accepted(self, changes):
        return None if changes["batch"] > 39 else verdict(self.asked, changes)


def test_where_a_tape_ends_the_largest_is_said_to_be_the_last_that_is_known() -> None:
    found = find_largest(EndsAt39(), "batch")  # type: ignore[arg-type]  # what it asks a trial for
    assert found is not None
    assert (found.value, found.is_last_known) == (39, True)
    assert largest_words("batch", found).endswith("; for larger ones nothing was recorded)")
    assert largest_object({"batch": found})["last_known"] == ["batch"]


def test_where_memory_ends_the_largest_is_not_said_to_be_the_last_that_is_known() -> None:
    found = find_plan(question("flux1-vae", "rtx-3060-12gb"), sizes=("image",)).largest["image"]
    assert found is not None
    assert not found.is_last_known


def test_frames_that_no_band_counts_have_no_largest() -> None:
    largest = find_plan(question("hunyuanvideo-1.5", "rtx-4090"), with_options=False).largest
    assert set(largest) == {"image", "batch"}


def test_where_one_image_is_made_of_every_size_none_is_the_largest() -> None:
    asked = question("hidream-i1", "a100-80gb")
    assert "image" not in find_plan(asked, sizes=("image",), with_options=False).largest


def _edge(value: SettingValue) -> int:
    return value[0] if isinstance(value, tuple) else int(value)


@pytest.mark.parametrize(
    ("now", "bounds", "first", "last"),
    [
        ((512, 512), Constraint(multiple_of=8, minimum=64, maximum=4096), (64, 64), (4096, 4096)),
        ((768, 512), Constraint(multiple_of=8, minimum=64, maximum=4096), (96, 64), (4080, 2720)),
        ((1000, 712), Constraint(multiple_of=8, maximum=4096), (1000, 712), (4000, 2848)),
        ((300, 300), Constraint(), (1, 1), (16384, 16384)),
        (1, Constraint(maximum=64), 1, 64),
        (100, Constraint(minimum=10, multiple_of=20), 20, 52416 * 20),
    ],
)
def test_legal_sizes_are_those_that_the_pipeline_takes(now, bounds, first, last) -> None:
    sizes = legal_sizes(now, bounds, "image" if isinstance(now, tuple) else "batch")
    assert (sizes[0], sizes[len(sizes) - 1]) == (first, last)
    if isinstance(now, tuple):
        assert all(w * now[1] == h * now[0] for w, h in (sizes[n] for n in range(3)))


def test_large_numbers_are_counted_in_ten_binary_digits() -> None:
    sizes = legal_sizes(1, Constraint(), "batch")
    known = [sizes[place] for place in range(len(sizes))]
    assert known[:1025] == [*range(1, 1025), 1026]
    assert known == sorted(set(known))
    assert all(later - one <= max(1, one // 512) for one, later in pairwise(known))
    assert known[-1] == 1 << 20


def test_contexts_are_counted_as_the_engine_makes_them() -> None:
    assert list(legal_sizes(4096, Constraint(minimum=1, maximum=1024), "context")) == [
        256, 512, 768, 1024,
    ]  # fmt: skip


def test_the_smallest_card_is_the_smallest_that_fits() -> None:
    asked = question("sdxl", "8gb", offload="model")
    found = find_plan(asked, sizes=(), with_options=False).smallest
    assert found is not None
    assert found.class_name is not None
    assert fits(replace(asked, choice=CATALOG.card(found.class_name)), {})
    smaller = [
        card
        for card in CATALOG.cards.values()
        if not card.shares_memory
        and card.total_bytes - card.reserved_bytes
        < CATALOG.cards[found.card].total_bytes - CATALOG.cards[found.card].reserved_bytes
    ]
    assert smaller
    assert not any(fits(replace(asked, choice=CATALOG.card(card.name)), {}) for card in smaller)
