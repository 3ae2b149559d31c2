"""Headers of GGUF files: what they say, and what hostile ones are refused for."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import struct
import sys
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramplan import user_cache
from vramplan.errors import SourceError
from vramplan.sources import gguf as module
from vramplan.sources.block_sizes import BLOCKS, TYPES
from vramplan.sources.gguf import read_gguf, read_header
from vramplan.sources.gguf_header import GgufFile
from vramplan.user_cache import UserCache

gguf = pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    model = sparse.dense_layers(sparse.language_model())
    model.general = {"general.name": "A model", "general.file_type": 2}
    return sparse.write(folder / "plain.gguf", model)


@pytest.fixture(scope="module")
def header(plain: Path) -> bytes:
    """A valid header, without the hole behind it."""
    return plain.read_bytes()[:40_000]


def test_a_header_says_what_the_model_is(plain: Path) -> None:
    file = read_gguf(plain)
    assert (file.version, file.architecture) == (3, "llama")
    assert file.text("general.name") == "A model"
    assert file.number("llama.block_count") == 2
    assert file.numbers("llama.attention.head_count_kv", 2) == (8, 8)
    assert file.lengths["tokenizer.ggml.tokens"] == sparse.WORDS
    tensors = {tensor.name: tensor for tensor in file.tensors}
    assert tensors["blk.1.ffn_down.weight"].shape == (14336, 4096)
    assert tensors["output.weight"].type == "q6_k"
    assert tensors["output.weight"].size_bytes == 4096 * sparse.WORDS // 256 * 210


@pytest.mark.parametrize("count", [1, 99, 100, 101, 350])
def test_words_of_any_length_are_gone_over(tmp_path: Path, count: int) -> None:
    writer = gguf.GGUFWriter(tmp_path / "words.gguf", "llama")
    lengths = [(7 * number) % 33 for number in range(count)]
    lengths[150:151] = [0, 70_000][: len(lengths[150:151]) * 2]
    writer.add_token_list(["w" * length for length in lengths])
    writer.add_uint32("behind.them", 4711)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    file = read_gguf(tmp_path / "words.gguf")
    assert file.lengths["tokenizer.ggml.tokens"] == len(lengths)
    assert file.number("behind.them") == 4711


def test_a_model_of_gigabytes_costs_a_few_kilobytes(plain: Path) -> None:
    stat = plain.stat()
    assert stat.st_size > 200 << 20
    assert stat.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("name", BLOCKS)
def test_block_sizes_are_those_of_the_gguf_package(name: str) -> None:
    kind = getattr(gguf.GGMLQuantizationType, name.upper(), None)
    if kind is None:
        pytest.skip(f"the package does not know {name}")
    assert gguf.GGML_QUANT_SIZES[kind] == BLOCKS[name]
    assert TYPES.get(kind.value, name) == name


def test_every_type_of_the_package_is_known() -> None:
    known = {kind.value for kind in gguf.GGML_QUANT_SIZES}
    assert known <= set(TYPES)


def test_a_split_model_is_read_from_its_parts(tmp_path: Path) -> None:
    parts = []
    for number in range(2):
        model = sparse.Model("llama", words=0)
        model.general = {"split.count": 2, "split.no": number}
        model.add(f"blk.{number}.attn_q.weight", 256, 256)
        name = f"m-{number + 1:05}-of-00002.gguf"
        parts.append(sparse.write(tmp_path / name, model))
    file = read_gguf(parts[0])
    assert [tensor.name for tensor in file.tensors] == [
        "blk.0.attn_q.weight",
        "blk.1.attn_q.weight",
    ]
    assert read_gguf(parts[1]).tensors == file.tensors
    whole = parts[1].read_bytes()
    parts[1].write_bytes(parts[0].read_bytes())
    with pytest.raises(SourceError, match="its parts are not of one model"):
        read_gguf(parts[0])
    parts[1].write_bytes(whole)
    parts[1].unlink()
    with pytest.raises(SourceError, match=r"m-00002-of-00002\.gguf: missing"):
        read_gguf(parts[0])
    parts[0].rename(tmp_path / "other.gguf")
    with pytest.raises(SourceError, match="not named"):
        read_gguf(tmp_path / "other.gguf")


def test_a_part_of_another_model_is_noticed_by_its_count(tmp_path: Path) -> None:
    for number in range(2):
        model = sparse.Model("llama", words=0)
        model.general = {"split.count": 2, "split.no": number, "split.tensors.count": 3}
        model.add(f"blk.{number}.attn_q.weight", 256, 256)
        sparse.write(tmp_path / f"m-{number + 1:05}-of-00002.gguf", model)
    with pytest.raises(SourceError, match="not of one model") as caught:
        read_gguf(tmp_path / "m-00001-of-00002.gguf")
    assert caught.value.hint == "3 tensors are meant, 2 are there"


# -- hostile ------------------------------------------------------------------------------------

HEAD = b"GGUF" + struct.pack("<I", 3)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


HOSTILE = {
    "empty": b"",
    "another file": b"PK\x03\x04" + b"\0" * 100,
    "version 1": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "2^63 tensors": HEAD + struct.pack("<QQ", 1 << 63, 0),
    "2^63 keys": HEAD + struct.pack("<QQ", 0, 1 << 63),
    "a key of 2^62 bytes": HEAD + struct.pack("<QQQ", 0, 1, 1 << 62),
    "a text of 2^62 bytes": HEAD
    + struct.pack("<QQ", 0, 1)
    + text(b"a")
    + struct.pack("<IQ", 8, 1 << 62),
    "a list of 2^62 numbers": HEAD
    + struct.pack("<QQ", 0, 1)
    + text(b"a")
    + struct.pack("<IIQ", 9, 4, 1 << 62),
    "a list of 2^62 texts": HEAD
    + struct.pack("<QQ", 0, 1)
    + text(b"a")
    + struct.pack("<IIQ", 9, 8, 1 << 62),
    "a list of lists": HEAD + struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 9, 1),
    "an unknown kind of value": HEAD + struct.pack("<QQ", 0, 1) + text(b"a") + b"\x63\0\0\0",
    "a key twice": HEAD + struct.pack("<QQ", 0, 2) + (text(b"a") + struct.pack("<II", 4, 1)) * 2,
    "an unknown type": HEAD
    + struct.pack("<QQ", 1, 0)
    + text(b"t")
    + struct.pack("<IQIQ", 1, 32, 999, 0),
    "no dimensions": HEAD + struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<IIQ", 0, 0, 0),
    "five dimensions": HEAD
    + struct.pack("<QQ", 1, 0)
    + text(b"t")
    + struct.pack("<IQQQQQIQ", 5, 1, 1, 1, 1, 1, 0, 0),
    "a side of nothing": HEAD
    + struct.pack("<QQ", 1, 0)
    + text(b"t")
    + struct.pack("<IQQIQ", 2, 32, 0, 0, 0),
    "a product beyond everything": HEAD
    + struct.pack("<QQ", 1, 0)
    + text(b"t")
    + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0),
    "rows that are no whole blocks": HEAD
    + struct.pack("<QQ", 1, 0)
    + text(b"t")
    + struct.pack("<IQQIQ", 2, 33, 2, 2, 0),
    "a tensor twice": HEAD
    + struct.pack("<QQ", 2, 0)
    + (text(b"t") + struct.pack("<IQIQ", 1, 32, 0, 0)) * 2,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_refused_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(SourceError) as raised:
        read_gguf(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))


def test_big_endian_is_named() -> None:
    with pytest.raises(SourceError, match="big-endian"):
        read_header(HOSTILE["big-endian"], "x")


@pytest.mark.parametrize(
    "head",
    [
        HEAD + struct.pack("<QQ", 100_000, 0),  # tensors of noise
        HEAD + struct.pack("<QQ", 0, 20_000),  # keys of noise
        HEAD + struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, 12_000_000),
    ],
)
def test_100_mb_of_hostile_bytes_are_refused_soon_and_in_100_mb(tmp_path, calls, head) -> None:
    path = tmp_path / "x.gguf"
    noise = random.Random(1).randbytes(1 << 20)  # noqa: S311  # noise that can be made again
    tail = b"\0" * (1 << 20) if b"a" in head[24:40] else noise
    path.write_bytes(head + tail * 100)
    tracemalloc.start()
    with pytest.raises(SourceError), calls:
        read_gguf(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert calls.made < 100_000, calls.made
    assert most < 100 << 20


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_header_is_read_or_refused_and_nothing_else(header: bytes, data) -> None:
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(damaged), 3000) - 1))
        kind = data.draw(st.sampled_from(["byte", "cut", "huge", "insert"]))
        if kind == "byte":
            damaged[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del damaged[at : at + data.draw(st.integers(1, 64))]
        elif kind == "huge":
            damaged[at : at + 8] = b"\xff" * 8
        else:
            damaged[at:at] = data.draw(st.binary(max_size=16))
        if not damaged:
            break
    try:
        found = read_header(bytes(damaged), "x")
    except SourceError:
        return
    else:
        assert isinstance(found, GgufFile)
        assert all(tensor.size_bytes >= 0 for tensor in found.tensors)


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_are_refused_or_read(data: bytes) -> None:
    with suppress(SourceError):
        read_header(HEAD + data, "x")


# ------------------------------------------------------------------ headers of earlier runs
@pytest.fixture
def many_words(tmp_path: Path) -> Path:
    """A file whose vocabulary takes longer to go over than its header to be read as JSON."""
    path = sparse.write(
        tmp_path / "many.gguf", sparse.dense_layers(sparse.language_model(words=60_000))
    )
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


@pytest.fixture
def cache(tmp_path):
    found = UserCache(tmp_path / "kept", "1", print)
    user_cache.use(found)
    yield found
    user_cache.use(None)


def read_anew(path: Path) -> GgufFile:
    module._KNOWN.forget()
    return read_gguf(path)


def test_a_large_header_is_read_once(many_words, cache, monkeypatch) -> None:
    first = read_anew(many_words)
    assert [one.kind for one in user_cache.entries(cache.root)] == ["header"]
    monkeypatch.setattr(module, "read_header", None)
    assert read_anew(many_words) == first
    monkeypatch.chdir(many_words.parent)
    assert read_anew(Path("many.gguf")).path == "many.gguf"
    assert first.identity.startswith(str(many_words))


@pytest.mark.usefixtures("cache")
def test_a_file_that_was_changed_is_read_again(many_words) -> None:
    first = read_anew(many_words)
    other = sparse.dense_layers(sparse.language_model("qwen2", words=60_000))
    sparse.write(many_words, other)
    os.utime(many_words, (1_000_000_001, 1_000_000_001))
    assert first.architecture == "llama"
    assert read_anew(many_words).architecture == "qwen2"


def test_what_was_written_just_now_and_what_is_small_is_not_kept(many_words, plain, cache) -> None:
    os.utime(plain, (1_000_000_000, 1_000_000_000))
    assert read_anew(plain).identity
    os.utime(many_words)
    assert read_anew(many_words).identity == ""
    assert not cache.root.exists()


def test_a_header_survives_being_kept(plain: Path) -> None:
    header = read_gguf(plain)
    kept = json.loads(json.dumps(module._to_json(header)))
    assert replace(module._from_json(kept), path=header.path) == header


@pytest.mark.parametrize(
    "change",
    [
        {"version": "3"},
        {"metadata": []},
        {"metadata": {"a": None}},
        {"metadata": {"a": ["x"]}},
        {"metadata": {"a": [[1]]}},
        {"metadata": {"a": [1] * 5000}},
        {"lengths": {"a": -1}},
        {"lengths": {"a": 1 << 60}},
        {"identity": 5},
        {"tensors": {}},
        {"tensors": [["x"]]},
        {"tensors": [["x", "q4_0"]]},
        {"tensors": [["x", "q4_0", 33]]},
        {"tensors": [["x", "q4_0", 1 << 45]]},
        {"tensors": [["x", "f32", 1 << 40, 1 << 40]]},
        {"tensors": [["x", "f32", 0]]},
        {"tensors": [["x", "f32", 1.5]]},
        {"tensors": [["x", "none", 32]]},
        {"tensors": [["x", "f32", 1, 1, 1, 1, 1]]},
        {"tensors": [[5, "f32", 1]]},
        {"tensors": [["x", "f32", 1], ["x", "f32", 1]]},
        {"tensors": [["x", "f32", 1]] * 100_001},
    ],
)
def test_what_cannot_have_been_kept_is_no_header(plain: Path, change) -> None:
    kept = module._to_json(read_gguf(plain))
    assert module._from_json({**kept, **change}) is None
    assert module._from_json([]) is None
