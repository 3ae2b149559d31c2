"""What Windows keeps of a card: a band of the budget, on Windows and under WSL alone."""

from __future__ import annotations

import pytest

from vramplan.ask.judge import judge, judge_together
from vramplan.ask.targets import make_jobs
from vramplan.budget.system_share import REPORTED_MIB, beside_share, system_share
from vramplan.catalog import CardChoice, load_catalog
from vramplan.model import Band, Card, Verdict, VerdictKind
from vramplan.units import GIB, MIB

CATALOG = load_catalog()


def _card(total_bytes: int) -> Card:
    return Card(
        name="a-card", title="a card", kind="assumed", class_gib=total_bytes // GIB,
        total_bytes=total_bytes, reserved_bytes=0, compute_capability="8.6",
        bandwidth_bytes_per_s=1, source="made for a test",
        multiprocessors=28,
    )  # fmt: skip


def _judge(total_bytes: int, platform: str) -> Verdict:
    (job,) = make_jobs(["sd15"], CATALOG, {"platform": platform})
    card = _card(total_bytes)
    return judge(job, CardChoice(label=card.name, title=card.title, candidates=(card,)))[0]


def test_linux_keeps_nothing_unseen() -> None:
    assert system_share({"platform": "linux"}) == system_share({}) == Band.exactly(0)
    assert _judge(8 * GIB, "linux").budget_bytes == 8 * GIB


@pytest.mark.parametrize("platform", ["windows", "wsl"])
def test_windows_keeps_a_share_under_wsl_too(platform: str) -> None:
    share = system_share({"platform": platform})
    verdict = _judge(8 * GIB, platform)
    assert verdict.budget_bytes == 8 * GIB - share.expected_bytes
    assert "taken off for Windows" in verdict.reason


def test_the_band_and_a_context_hold_what_people_saw() -> None:
    """They saw what was left for a process that had a CUDA context: 100 to 400 MiB of it."""
    share = system_share({"platform": "wsl"})
    for seen in REPORTED_MIB:
        assert share.low_bytes + 100 * MIB <= seen * MIB <= share.high_bytes + 400 * MIB


def test_what_fits_only_where_windows_keeps_little_is_tight() -> None:
    need = _judge(24 * GIB, "windows").need
    share = system_share({"platform": "windows"})
    between = need.high_bytes + (share.expected_bytes + share.high_bytes) // 2
    assert _judge(between, "windows").kind is VerdictKind.TIGHT
    assert _judge(need.high_bytes + share.high_bytes, "windows").kind is VerdictKind.FITS
    assert _judge(between, "windows").offload_risk > _judge(between + GIB, "windows").offload_risk


def test_the_share_widens_a_need_and_leaves_its_middle() -> None:
    need = Band(low_bytes=GIB, expected_bytes=2 * GIB, high_bytes=3 * GIB)
    about = beside_share(need, {"platform": "wsl"})
    assert about.low_bytes < need.low_bytes < about.expected_bytes == need.expected_bytes
    assert about.high_bytes > need.high_bytes
    assert beside_share(need, {}) == need


def test_a_card_that_several_share_has_one_windows() -> None:
    jobs = make_jobs(["sd15", "log-anomaly-ae"], CATALOG, {"platform": "windows"})
    card = _card(24 * GIB)
    choice = CardChoice(label=card.name, title=card.title, candidates=(card,))
    verdict, _ = judge_together(jobs, choice)
    share = system_share({"platform": "windows"})
    assert verdict.budget_bytes == 24 * GIB - share.expected_bytes


def test_the_band_is_what_the_reports_leave_beside_a_context() -> None:
    """Two of three saw 1.0 GiB less and one 1.1, of which 100 to 400 MiB are a CUDA context."""
    share = system_share({"platform": "windows"})
    assert (share.low_bytes, share.expected_bytes, share.high_bytes) == (
        (1024 - 400) * MIB,
        (1024 - 250) * MIB,
        (1126 - 100) * MIB,
    )


def test_a_card_is_windows_where_one_of_several_jobs_was_told_so() -> None:
    jobs = [make_jobs([name], CATALOG, {"platform": platform})[0]
            for name, platform in (("sd15", "linux"), ("log-anomaly-ae", "windows"))]  # fmt: skip
    card = _card(24 * GIB)
    choice = CardChoice(label=card.name, title=card.title, candidates=(card,))
    for order in (jobs, jobs[::-1]):
        verdict, _ = judge_together(order, choice)
        share = system_share({"platform": "windows"})
        assert verdict.budget_bytes == 24 * GIB - share.expected_bytes
        assert "taken off for Windows" in verdict.reason


def test_a_need_has_the_band_of_the_share_about_it() -> None:
    need = Band(low_bytes=4 * GIB, expected_bytes=5 * GIB, high_bytes=6 * GIB)
    share = system_share({"platform": "windows"})
    told = beside_share(need, {"platform": "windows"})
    assert told.expected_bytes == need.expected_bytes
    assert need.low_bytes - told.low_bytes == share.expected_bytes - share.low_bytes > 0
    assert told.high_bytes - need.high_bytes == share.high_bytes - share.expected_bytes > 0
    assert beside_share(Band.exactly(MIB), {"platform": "windows"}).low_bytes == 0
    assert beside_share(need, {"platform": "linux"}) == need
