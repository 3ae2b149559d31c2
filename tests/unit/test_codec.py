"""JSON from strangers: whatever they send is read within bounds, or refused in one line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.codec import (
    JsonError,
    Limits,
    parse_json,
    read_json,
    read_object,
    reckon_parsed_bytes,
    rows,
    text_of,
    whole,
)

MIB = 1 << 20
#: no bound but depth and texts
WIDE = Limits(text_bytes=1 << 40, parsed_bytes=1 << 40)

#: shapes that take much more memory than text, made of `count` pieces
SHAPES = {
    "empty objects": lambda count: ",".join(["{}"] * count),
    "empty lists": lambda count: ",".join(["[]"] * count),
    "objects of one name": lambda count: ",".join(f'{{"k{n}":1}}' for n in range(count)),
    "objects in objects": lambda count: ",".join(['{"a":{}}'] * count),
    "objects of five": lambda count: ",".join(['{"a":1.5,"b":[],"c":{},"d":"","e":7}'] * count),
    "one wide object": lambda count: "{" + ",".join(f'"k{n}":{n}' for n in range(count)) + "}",
    "fractions": lambda count: ",".join(["1.5"] * count),
    "numbers": lambda count: ",".join(["9999999"] * count),
    "large numbers": lambda count: ",".join(["18446744073709551615"] * count),
    "texts": lambda count: ",".join(f'"{n}"' for n in range(count)),
    "wide letters": lambda count: ",".join(f'"\N{GRINNING FACE}{n}"' for n in range(count)),
    "lists in lists": lambda count: ",".join(["[[[[[[]]]]]]"] * count),
    "rows": lambda count: ",".join(f"[0,{n + 1000},{n * 512}]" for n in range(count)),
}


def shape(name: str, count: int) -> str:
    return f"[{SHAPES[name](count)}]"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("count", [60, 683, 21_846])  # the last two: a dictionary has just grown
def test_nothing_takes_more_than_was_reckoned(name: str, count: int) -> None:
    """The peak while reading, beside the text: what `parsed_bytes` is held to."""
    text = shape(name, count)
    parse_json("[]", "x", WIDE)  # what a first call leaves behind is not counted
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        parse_json(text, "x", WIDE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    small = 4096  # the reader itself: its decoder, its own lists
    assert peak - before <= reckon_parsed_bytes(text, WIDE.characters) - sys.getsizeof(text) + small


#: reads a hostile file as the command does, and says what that took at its peak
READ = """
import sys, time
from pathlib import Path
from vramplan.errors import VramplanError
from vramplan.measurement.files import read_run
from vramplan.measurement.history import read_history
read = read_history if sys.argv[1].endswith(".history.json.gz") else read_run
began = time.process_time()
try:
    read(Path(sys.argv[1]))
except VramplanError as problem:
    assert "\\n" not in str(problem)
took = time.process_time() - began
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(took, int(peak[0]) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's peak")
@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        # what was 58 KB and took 1.5 GB; then the most that is still read, by kind of file
        ("run.json.gz", "empty objects", 22 * MIB),
        ("run.json.gz", "objects of one name", 250_000),
        ("run.json.gz", "fractions", 1_300_000),
        ("run.json.gz", "wide letters", 420_000),
        ("x.history.json.gz", "empty objects", 22 * MIB),
        ("x.history.json.gz", "objects of one name", 600_000),
        ("x.history.json.gz", "rows", 700_000),
    ],
)
def test_a_hostile_file_takes_neither_the_memory_nor_the_day(
    tmp_path: Path, file: str, name: str, count: int
) -> None:
    head = '{"actions":["alloc"],"segments":[],"events":%s}'
    if file == "run.json.gz":
        head = '{"command":"profile","result":{"run":%s}}'
    path = tmp_path / file
    path.write_bytes(gzip.compress((head % shape(name, count)).encode(), 1))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    seconds, peak = map(float, done.stdout.split())
    assert peak <= 300
    assert seconds <= 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x:1:1: not JSON: Expecting value"),
        ('{"a": 1,\n "b" 2}', "x:2:6: not JSON: Expecting ':' delimiter"),
        ('{"a": 1, "a": 2}', "x: not JSON: a name stands twice in one object 'a'"),
        ("[NaN]", "x: not JSON: NaN is not a number"),
        ("[-Infinity]", "x: not JSON: -Infinity is not a number"),
        ('{"a": [1, 1e999]}', "x: a[1]: a number that no 64 bits hold"),
        ('{"a": {"b": 18446744073709551616}}', "x: a.b: a number that no 64 bits hold"),
        ("-9223372036854775809", "x: the text: a number that no 64 bits hold"),
        ("9" * 5000, "x: not JSON: Exceeds the limit (4300 digits) for integer string conversion"),
        ('["\\ud800"]', "x: [0]: a text with half a character (a lone surrogate)"),
        ('{"\\udfff": 1}', "x: a name: a text with half a character (a lone surrogate)"),
        ('["' + "y" * 200_001 + '"]', "x: [0]: a text of more than 200,000 characters"),
        ("[" * 66 + "]" * 66, "x: the text: nested deeper than 64"),
        ("[" * 100_000, "x: not JSON: nested too deeply"),
        (b"\xc3\x28", "x: not JSON: not text in UTF-8 (byte 0)"),
    ],
)
def test_what_is_refused_says_where_and_why_in_one_line(text: str | bytes, message: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse_json(text, "x", Limits())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.is_damaged


def test_a_long_number_is_refused_where_python_has_no_bound_of_its_own() -> None:
    code = (
        "from vramplan.codec import JsonError, Limits, parse_json\n"
        "try: parse_json('[' + '9' * 4_000_000 + ']', 'x', Limits())\n"
        "except JsonError as problem: print(problem)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "int_max_str_digits=0", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "x: not JSON: a number of 4000000 digits\n"


def test_what_cannot_be_had_or_is_too_large_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(JsonError, match="cannot be read: No such file") as caught:
        read_json(tmp_path / "none.json", Limits())
    assert caught.value.is_missing
    assert not caught.value.is_damaged
    (tmp_path / "a.json").write_text("[" + "1," * 40_000 + "1]")
    with pytest.raises(JsonError, match="larger than 64 KiB"):
        read_json(tmp_path / "a.json", Limits(text_bytes=1 << 16))
    with pytest.raises(JsonError, match="too many values: about 2 MiB when read, at most 1 MiB"):
        read_json(tmp_path / "a.json", Limits(parsed_bytes=MIB))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or cut short"),
        (b"{}", "damaged"),
        (gzip.compress(b"{}", mtime=0)[:-9], "damaged or cut short"),
        (gzip.compress(b"{}", mtime=0)[:-1] + b"\xff", "damaged"),
        (
            gzip.compress(b"{}", mtime=0) * 2,
            "damaged or cut short",
        ),  # one member, or there is no end
        (gzip.compress(b" " * (17 * MIB), mtime=0), "larger than 16 MiB"),
    ],
)
def test_a_damaged_archive_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    with pytest.raises(JsonError, match=message):
        read_json(path, Limits())


def test_an_archive_may_be_padded_and_a_shell_may_write_wide_text(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"a": 1}') + b"\0" * 512)
    assert read_object(tmp_path / "a.json.gz", Limits()) == {"a": 1}
    (tmp_path / "a.json").write_bytes('{"a": "größer"}'.encode("utf-16"))  # PowerShell's `>`
    assert read_object(tmp_path / "a.json", Limits()) == {"a": "größer"}
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(JsonError, match="not an object of JSON"):
        read_object(tmp_path / "a.json", Limits())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
)  # fmt: skip
def test_what_json_writes_is_read_back(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text, "x", Limits()) == value
    assert parse_json(text.encode(), "x", Limits()) == value


@given(st.text(alphabet='[]{}",:1.eE-+\\u0dN \n', max_size=40) | st.binary(max_size=40))
def test_any_text_is_json_or_one_error(text: str | bytes) -> None:
    with suppress(JsonError):
        assert parse_json(text, "x", Limits()) == json.loads(text)


def test_plain_kinds_are_strict() -> None:
    assert whole(5, 5) == 5
    for other in (6, -1, True, 1.0, "1", None):
        with pytest.raises(ValueError, match="not a size"):
            whole(other, 5)
    assert rows([1], 1) == [1]
    for other in ([1, 2], (1,), "a", None):
        with pytest.raises(ValueError, match="not a list of at most 1"):
            rows(other, 1)
    assert text_of("ab", 2) == "ab"
    for other in ("abc", b"a", None):
        with pytest.raises(ValueError, match="not a text of at most 2"):
            text_of(other, 2)
