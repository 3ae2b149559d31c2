"""The range of torch, diffusers and transformers: what is stated is what was tried."""

from __future__ import annotations

import re
import tomllib

from tools import library_range
from tools.docs.page import ROOT


def stated() -> dict[str, str]:
    """Return the lowest version of each library that the extra asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"]["gpu"]
    return {re.match(r"\w+", one)[0]: re.search(r">=([\d.]+)", one)[1] for one in wanted}


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, without the zeros that end it."""
    found = [int(one) for one in version.split(".")]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def test_the_low_end_that_was_tried_is_the_one_that_is_stated() -> None:
    tried = library_range.read_results()["low"]["versions"]
    assert set(tried) == set(stated())
    for name, version in tried.items():
        assert numbers(version) == numbers(stated()[name]), name


def test_the_pinned_versions_lie_between_the_ends() -> None:
    known = library_range.read_results()
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, pinned = line.partition("==")
        if name in known["low"]["versions"]:
            ends = (known[end]["versions"][name] for end in ("low", "high"))
            low, high = map(numbers, ends)
            assert low < numbers(pinned) <= high, name


def test_nothing_failed_at_either_end_and_the_page_says_what_was_found() -> None:
    known = library_range.read_results()
    assert list(known) == list(library_range.ENDS)
    for told in known.values():
        assert told["tests"]["passed"] > 50
        assert not told["tests"]["failed"]
        assert [one["name"] for one in told["entries"]] == list(library_range.ENTRIES)
        assert not [one for one in told["entries"] if "reason" in one]
    assert library_range.main(["--check"]) == 0


def test_a_report_of_tests_is_read(tmp_path) -> None:
    path = tmp_path / "tests.xml"
    path.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><skipped message="no B"/>'
        '</testcase><testcase name="c"><failure message="1 != 2"/></testcase>'
        '<testcase name="d"><error message="gone"/></testcase></testsuite></testsuites>'
    )
    assert library_range.read_report(path) == {
        "passed": 1,
        "skipped": [["b", "no B"]],
        "failed": [["c", "1 != 2"], ["d", "gone"]],
    }


def test_another_figure_is_told_in_bytes() -> None:
    figures = {"allocated peak": [1 << 20, (1 << 20) + 512], "reserved peak": [4096, 4096]}
    told = {
        "versions": {"torch": "2.6.0"},
        "tests": {"passed": 2, "skipped": [], "failed": []},
        "entries": [{"name": "one", "figures": figures}, {"name": "two", "reason": "no <class>"}],
    }
    text = library_range.render({"low": told})
    assert "| `one` | +512 | the same | not told |" in text
    assert "| `two` | no \\<class\\> | | |" in text
