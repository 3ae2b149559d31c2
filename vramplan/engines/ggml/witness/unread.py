"""Lets the engine map a model file without reading it: a plan needs the header alone.

llama.cpp asks the system to read a whole file as it maps it (MAP_POPULATE, POSIX_MADV_WILLNEED); a
file of 100 GB takes minutes then, of which a dry run wants nothing. In a process of its own, the
entries by which its library calls the two are turned to functions here. Where an entry is not found
nothing is changed: it is slower, and as right.
Source: ggml-org/llama.cpp, src/llama-mmap.cpp; the ELF specification (System V ABI, chapter 5).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Iterator
from ctypes import c_int, c_size_t, c_ssize_t, c_void_p
from pathlib import Path

_POPULATE = 0x8000  # linux/mman.h
_ELF64 = b"\x7fELF\x02\x01"
_RELOCATIONS, _DYNAMIC_SYMBOLS = 4, 11  # kinds of sections
_JUMP_SLOT = 7  # x86-64; the entries of other machines are left alone
_X86_64 = 62

#: what the library has the address of
_KEPT: list[object] = []


def leave_data_unread(path: Path) -> None:
    """Make the library at `path`, which is loaded, map files without reading them ahead."""
    base = _base(path)
    if base is None:
        return
    system = ctypes.CDLL(None)
    real = system.mmap
    real.restype, real.argtypes = c_void_p, [c_void_p, c_size_t, c_int, c_int, c_int, c_ssize_t]
    kind = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_ssize_t)
    advice = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t, c_int)
    functions = {
        "mmap": kind(
            lambda at, size, access, flags, file, offset: real(
                at, size, access, flags & ~_POPULATE, file, offset
            )
        ),
        "posix_madvise": advice(lambda *_: 0),
    }
    for name, place in _entries(path, functions):
        _KEPT.append(functions[name])
        c_void_p.from_address(base + place).value = ctypes.cast(functions[name], c_void_p).value


def _base(path: Path) -> int | None:
    """Return where a library begins in memory."""
    name = str(path.resolve())
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) > 5 and fields[5] == name and int(fields[2], 16) == 0:
            return int(fields[0].partition("-")[0], 16)
    return None


def _entries(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield those of the functions that a library calls by its table, and their places in it.

    Only those of the table that stays writable (lazy binding) are told.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != _ELF64 or struct.unpack_from("<H", data, 18)[0] != _X86_64:
            return
        (start,) = struct.unpack_from("<Q", data, 40)
        size, count = struct.unpack_from("<HH", data, 58)
        sections = [
            struct.unpack_from("<IIQQQQIIQQ", data, start + size * one) for one in range(count)
        ]
        for section in sections:
            if section[1] != _RELOCATIONS or sections[section[6]][1] != _DYNAMIC_SYMBOLS:
                continue
            symbols = sections[section[6]]
            names = sections[symbols[6]]
            text = data[names[4] : names[4] + names[5]]
            # thousands of them: looked at for the beginnings of the names, not read one by one
            begins = {begin: name for name in wanted for begin in _beginnings(text, name)}
            rows = data[section[4] : section[4] + section[5] // 24 * 24]
            for place, kind, symbol in struct.iter_unpack("<QII8x", rows):
                if kind != _JUMP_SLOT:
                    continue
                (begin,) = struct.unpack_from("<I", data, symbols[4] + 24 * symbol)
                if begin in begins:
                    yield begins[begin], place


def _beginnings(text: bytes, name: str) -> Iterator[int]:
    """Yield where a name stands in a table of names, alone or as the end of a longer one."""
    word = name.encode("ascii") + b"\0"
    begin = text.find(word)
    while begin >= 0:
        yield begin
        begin = text.find(word, begin + 1)
