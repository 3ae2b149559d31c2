"""Results are made once: known of this process, of what ships, of earlier runs, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from vramplan import user_cache
from vramplan.engines.ggml.known_graphs import GRAPHS, known_sizes
from vramplan.known_results import KnownResults, find_shipped, has_shipped, shipped_text
from vramplan.user_cache import UserCache


def read(raw: object) -> str | None:
    return raw[0] if isinstance(raw, list) and raw and isinstance(raw[0], str) else None


def known(**options) -> KnownResults[str]:
    return KnownResults[str]("test", lambda one: [one], read, **options)


@pytest.fixture
def cache(tmp_path):
    found = UserCache(tmp_path / "kept", "1", print)
    user_cache.use(found)
    yield found
    user_cache.use(None)


def never() -> str:
    raise AssertionError("made")


def test_results_of_a_process_are_forgotten_the_oldest_first() -> None:
    results, asked = known(most=3), []

    def make(key: str) -> str:
        asked.append(key)
        return key

    for key in "abcdadc":
        assert results.get(key, lambda key=key: make(key)) == key
    assert asked == list("abcda")
    results.forget()
    assert results.get("c", lambda: make("c")) == "c"
    assert asked == list("abcdac")


def test_an_earlier_runs_result_is_taken(cache) -> None:
    assert known().get("key", lambda: "made") == "made"
    assert known().get("key", never) == "made"
    assert cache.find("test", "key ") == ["made"]


def test_without_a_cache_nothing_is_written_and_nothing_proved(tmp_path) -> None:
    assert known().get("key", lambda: "made", proof=never) == "made"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("cache")
def test_what_a_stranger_chose_is_proved() -> None:
    assert known().get("key", lambda: "theirs", proof=lambda: "theirs") == "theirs"
    assert known().get("key", lambda: "ours", proof=lambda: "ours") == "ours"
    assert known().get("key", never, proof=lambda: "ours") == "ours"


def test_a_kept_result_that_cannot_have_been_written_is_made_anew(cache) -> None:
    cache.keep("test", "key ", {"no": "result"})
    assert known().get("key", lambda: "made") == "made"
    assert cache.find("test", "key ") == ["made"]


def test_what_is_not_worth_it_is_not_kept(cache) -> None:
    results = known(is_worth_keeping=lambda one: len(one) > 3)
    assert [results.get(key, lambda key=key: key) for key in ("abc", "abcd")] == ["abc", "abcd"]
    assert cache.find("test", "abc ") is None
    assert cache.find("test", "abcd ") == ["abcd"]


def test_what_raises_is_not_remembered(cache) -> None:
    results = known()
    for _ in range(2):
        with pytest.raises(AssertionError, match="made"):
            results.get("key", never)
    assert not cache.root.exists()


def test_what_ships_is_taken_before_an_earlier_runs(cache, tmp_path) -> None:
    path = tmp_path / "results.json"
    rows = [("b", ["2"]), ("a", ["1"]), ('c "d\u00e9"', ["3"])]
    path.write_text(shipped_text(rows), encoding="utf-8")
    cache.keep("test", "a ", ["other"])
    assert [known().get(key, never, shipped=path) for key, _ in rows] == ["2", "1", "3"]
    assert known().get("e", lambda: "made", shipped=path) == "made"
    assert (has_shipped(path, "c "), has_shipped(path, "d")) == (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"a":["1"}\n',
        '{"a":nothing,\n"b":["2"]}\n',
        '["a"]',
        '{"a":{"x":1},\n"b":1}\n',
        "\xff",
    ],
)
def test_a_shipped_file_that_is_damaged_has_no_result(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    assert find_shipped(path, "a", read) is None
    assert find_shipped(tmp_path / "nowhere.json", "a", read) is None


@pytest.mark.usefixtures("cache")
def test_sizes_of_other_sides_are_found_anew() -> None:
    """Of two cards there are three: two that somebody wrote under the same key are no answer."""
    assert known_sizes("key", 2, lambda: (1, 2)) == (1, 2)
    assert known_sizes("key", 3, lambda: (1, 2, 3)) == (1, 2, 3)


@pytest.mark.parametrize("raw", [None, [], [1], [1] * 18, [1, -2], [1, "2"], [1, True]])
def test_what_are_no_sizes_is_not_taken(raw) -> None:
    assert GRAPHS.read(raw) is None


@pytest.mark.usefixtures("cache")
def test_sizes_of_all_cards_are_kept() -> None:
    sizes = tuple(range(1, 16))
    known_sizes("many", 15, lambda: sizes)
    GRAPHS.forget()
    assert known_sizes("many", 15, never) == sizes
