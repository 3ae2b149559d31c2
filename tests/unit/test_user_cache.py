"""What is kept between runs: found again, bounded, and believed only where it is what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vramplan import user_cache
from vramplan.user_cache import UserCache


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path, said) -> UserCache:
    return UserCache(tmp_path / "kept", "1.2", said.append)


def only(cache: UserCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_what_is_kept_is_found_again(cache) -> None:
    value = {"a": [1, 2.5, "x", None, True], "b": {}}
    assert cache.find("replay", "key") is None
    cache.keep("replay", "key", value)
    assert cache.find("replay", "key") == value
    assert UserCache(cache.root, "1.2", print).find("replay", "key") == value
    assert cache.find("replay", "other") is None
    assert cache.find("graph", "key") is None


def test_a_name_that_no_text_has_is_a_key_too(cache) -> None:
    cache.keep("header", "half\udc80.gguf 5", [1])
    assert cache.find("header", "half\udc80.gguf 5") == [1]


def swap(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b" ",
        lambda data: swap(data, b"12345", b"12346"),
        lambda data: swap(data, b"12345", b"[[[[["),
        lambda data: swap(data, b"replay", b"graphs"),
        lambda data: data.split(b"\n", 1)[1],
        lambda data: b"\x80\x04K\x01." + data,  # a pickle's first bytes
        lambda data: data * 200_000,
        lambda data: bytes(reversed(data)),
    ],
)
def test_what_is_damaged_is_no_entry(cache, damage: Callable[[bytes], bytes]) -> None:
    cache.keep("replay", "key", [12345])
    path = only(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.find("replay", "key") is None
    cache.keep("replay", "key", [7])
    assert cache.find("replay", "key") == [7]


def test_another_keys_entry_is_not_believed(cache) -> None:
    cache.keep("replay", "key", [1])
    mine = only(cache)
    cache.keep("replay", "other", [2])
    other = next(path for path in cache.folder.iterdir() if path != mine)
    other.replace(mine)
    assert cache.find("replay", "key") is None


@pytest.mark.parametrize("text", ["[1e999]", "[NaN]", '{"a":1,"a":2}', "[" * 40 + "]" * 40, "\xff"])
def test_hostile_json_with_a_right_checksum_is_no_entry(cache, text: str) -> None:
    cache.keep("replay", "key", [1])
    body = b'"key"\n' + text.encode("latin-1")
    only(cache).write_bytes(user_cache._head("replay", body) + b"\n" + body)
    assert cache.find("replay", "key") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_entry_and_nobody_waits_for_it(cache) -> None:
    cache.keep("replay", "key", [1])
    path = only(cache)
    path.unlink()
    os.mkfifo(path)
    assert cache.find("replay", "key") is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_an_entry_of_somebody_else_is_not_believed(cache, monkeypatch) -> None:
    cache.keep("replay", "key", [1])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert cache.find("replay", "key") is None


def test_what_json_cannot_say_or_is_too_long_is_not_kept(cache, said, monkeypatch) -> None:
    cache.keep("header", "key", [float("nan")])
    monkeypatch.setattr(user_cache, "_LARGEST", 1000)
    cache.keep("header", "long", ["x" * 2000])
    assert not cache.root.exists()
    assert said == []


def test_the_oldest_of_too_many_are_forgotten(cache, monkeypatch) -> None:
    monkeypatch.setattr(user_cache, "MOST_ENTRIES", 50)
    for number in range(300):
        cache.keep("stop", f"key {number}", [number])
        path = cache._path("stop", f"key {number}")
        os.utime(path, (number, number))
    numbers = [number for number in range(300) if cache.find("stop", f"key {number}")]
    assert 50 <= len(numbers) <= 150  # looked through every sixteenth time, by chance
    assert numbers[-50:] == list(range(250, 300))


def test_large_entries_are_forgotten_sooner(cache, monkeypatch) -> None:
    monkeypatch.setattr(user_cache, "MOST_BYTES", 100_000)
    for number in range(200):
        cache.keep("header", f"key {number}", ["x" * 5000])
    assert sum(one.size_bytes for one in user_cache.entries(cache.root)) <= 100_000 + 80 * 5100


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, said) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = UserCache(tmp_path / "file" / "kept", "1", said.append)
    for number in range(3):
        cache.keep("stop", f"{number}", [1])
        assert cache.find("stop", f"{number}") is None
    (line,) = said
    assert "cannot be written" in line
    assert "VRAMPLAN_CACHE=off" in line


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such file system here")
def test_a_folder_that_cannot_be_made_is_said_too(said) -> None:
    UserCache(Path("/proc/vramplan"), "1", said.append).keep("stop", "key", [1])
    assert len(said) == 1


def test_another_version_is_passed_over_and_removed(cache, said) -> None:
    old = UserCache(cache.root, "1.1", said.append)
    old.keep("replay", "key", [1])
    (cache.root / "vramplan-results-notes").mkdir()
    (cache.root / "mine").mkdir()
    (old.folder / "mine.txt").write_text("not an entry")
    assert cache.find("replay", "key") is None
    assert old.find("replay", "key") == [1]
    cache.keep("replay", "key", [2])
    assert cache.find("replay", "key") == [2]
    assert old.find("replay", "key") is None
    assert (old.folder / "mine.txt").exists()
    assert (cache.root / "mine").is_dir()


def test_code_that_was_changed_is_another_version(tmp_path, monkeypatch) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    for name in ("one.py", "inner/two.py", "inner/core.so", "inner/notes.txt"):
        (package / name).write_text("x = 1\n")
    monkeypatch.setattr(user_cache, "__file__", str(package / "user_cache.py"))
    first = user_cache.code_stamp()
    (package / "inner" / "notes.txt").write_text("y")
    (package / "report").mkdir()
    (package / "report" / "page.py").write_text("")
    assert user_cache.code_stamp() == first
    for name in ("one.py", "inner/two.py", "inner/core.so"):
        os.utime(package / name, (1, 1))
        changed = user_cache.code_stamp()
        assert changed != first
        first = changed
    (package / "inner" / "three.py").write_text("")
    assert user_cache.code_stamp() != first


def test_clearing_removes_what_is_ours_and_nothing_else(cache, tmp_path) -> None:
    cache.keep("replay", "key", [1])
    cache.keep("graph", "key", [1, 2])
    (cache.folder / "left.json.77.part").write_text("half")
    (cache.root / "mine.json").write_text("{}")
    assert {one.kind for one in user_cache.entries(cache.root)} == {
        "replay",
        "graph",
        "left.json.77.part",
    }
    count, size = user_cache.clear(cache.root)
    assert count == 3
    assert size > 0
    assert [path.name for path in cache.root.iterdir()] == ["mine.json"]
    assert user_cache.clear(tmp_path / "nowhere") == (0, 0)


_WRITER = """
import sys
from pathlib import Path
from vramplan.user_cache import UserCache

def stop(line):
    sys.exit(line)

cache = UserCache(Path(sys.argv[1]), "1", stop)
for turn in range(24):
    for number in range(12):
        found = cache.find("stop", f"key {number}")
        if found is not None and found != [number] * 200:
            sys.exit(f"read {found!r:.80}")
        cache.keep("stop", f"key {number}", [number] * 200)
    if turn % 8 == int(sys.argv[2]):
        UserCache(Path(sys.argv[1]), f"other {turn}", stop).keep("stop", "key", [1])
"""


def test_several_processes_write_at_once(tmp_path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 4
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("platform", "environment", "root"),
    [
        ("linux", {"HOME": "/home/x"}, "/home/x/.cache/vramplan"),
        ("linux", {"HOME": "/home/x", "XDG_CACHE_HOME": "/c"}, "/c/vramplan"),
        ("linux", {"HOME": "/home/x", "XDG_CACHE_HOME": "c"}, "/home/x/.cache/vramplan"),
        ("linux", {"HOME": "/home/x", "VRAMPLAN_CACHE": "/here"}, "/here"),
        ("linux", {"HOME": "/home/x", "VRAMPLAN_CACHE": "OFF"}, "/home/x/.cache/vramplan"),
        ("darwin", {"HOME": "/Users/x"}, "/Users/x/Library/Caches/vramplan"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/vramplan/cache"),
        ("win32", {}, None),
    ],
)
def test_where_it_is(platform, environment, root, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    found = user_cache.default_root(environment)
    assert found == (None if root is None else Path(root))
