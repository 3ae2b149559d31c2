"""Files, and what stands where one is expected."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vramplan import opened_file as files
from vramplan.opened_file import open_file, read_some

OPEN = Path("/proc/self/fd")


def test_a_file_and_a_link_to_one_are_opened(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "b"):
        with open_file(tmp_path / name) as file:
            assert file.read() == b"abc"
        assert read_some(tmp_path / name, 2) == b"ab"


@pytest.fixture
def odd(tmp_path):
    """Everything that is no file and may stand where one is expected."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "device").symlink_to(os.devnull)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe", "not a file, but a pipe or a device"),
        ("device", "not a file, but a pipe or a device"),
        ("folder", "Is a directory"),
        ("circle", "Too many levels of symbolic links"),
        ("nothing", "No such file or directory"),
        ("n" * 300, "File name too long"),
        ("a\0b", "no file's name has a NUL"),
        ("a\ud800b", "no file's name has half a character"),
    ],
)
def test_what_is_no_file_is_refused_at_once(odd, name, said) -> None:
    with pytest.raises(OSError, match=said):
        open_file(odd / name)


@pytest.mark.skipif(not OPEN.is_dir(), reason="the system does not list what is open")
def test_nothing_stays_open_behind_a_refusal(odd) -> None:
    before = len(list(OPEN.iterdir()))
    for name in ("pipe", "device", "folder"):
        with pytest.raises(OSError, match=r"."):
            open_file(odd / name)
    assert len(list(OPEN.iterdir())) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_is_not_yours_is_refused(tmp_path) -> None:
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(PermissionError):
        open_file(tmp_path / "a")


def test_a_pipe_is_read_to_its_end(odd) -> None:
    def write() -> None:
        with (odd / "pipe").open("wb") as pipe:
            pipe.write(b"x" * 100_000)

    threading.Thread(target=write, daemon=True).start()
    assert read_some(odd / "pipe", 1 << 20) == b"x" * 100_000


def test_a_pipe_that_nobody_writes_to_is_left(odd, monkeypatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE_S", 0.05)
    with pytest.raises(TimeoutError, match=r"nothing came in 0\.05 seconds"):
        read_some(odd / "pipe", 10)


def test_a_device_without_an_end_is_read_to_the_limit() -> None:
    assert read_some(Path("/dev/zero"), 1000) == bytes(1000)
