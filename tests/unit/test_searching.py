"""What a search does without: noted for whoever asks, and said once."""

from __future__ import annotations

from vramplan.commands.left_out import saying_what_is_left_out
from vramplan.searching import is_search, leave_out, noting_left_out, searching


def test_what_is_left_out_is_noted_once_and_only_inside() -> None:
    leave_out("nobody asks")
    with noting_left_out() as names, searching():
        assert is_search()
        for name in ("b", "a", "b"):
            leave_out(name)
    leave_out("too late")
    assert list(names) == ["b", "a"]


def test_it_is_said_in_a_line_and_not_where_there_is_nothing(capsys) -> None:
    with saying_what_is_left_out():
        pass
    assert capsys.readouterr().err == ""
    with saying_what_is_left_out():
        for name in "abcdef":
            leave_out(name)
    said = capsys.readouterr().err
    assert said.startswith("note: a, b, c, d and 2 more: a search makes no recordings")
    assert said.count("\n") == 1
