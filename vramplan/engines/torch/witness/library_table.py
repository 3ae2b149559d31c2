"""The libraries of NVIDIA's that torch's CUDA build wants, and which source of ours answers each.

Every function that torch wants and no source of ours has becomes a stub: it succeeds and does
nothing, or, where it would have to tell how much memory is needed, it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "stand_ins"

#: what all stand-ins share: the cards and their memory
CORE = "libvramplan_card.so"
CORE_SOURCES = ("card.c", "memory.c", "work.c")

#: of names that a stub must not answer with success: whoever asks reads a number then
_SIZES = r"bufferSize|Size|MakePlan|[wW]orkEstimation|WorkspaceSize|Nnz"


#: of a variable whose type nobody tells (torch 2.15.0 wants one of NVSHMEM's, a number)
_WORDS = 32


@dataclass(frozen=True, slots=True)
class StandIn:
    """One library: the names of its functions, our source, and what is refused, with which code."""

    soname: str
    names: str
    source: str | None = None
    refused: str = r"(?!)"
    refusal: int = 1

    def wants(self, symbol: str) -> bool:
        """True where a function of this name is this library's."""
        return re.match(self.names, symbol) is not None

    def code(self, symbol: str) -> int:
        """Return what a stub of this name answers: 0, or the library's "not supported"."""
        return self.refusal if re.search(self.refused, symbol) else 0


#: in the order in which they are built and loaded; the numbers of CUDA 13
STAND_INS = (
    StandIn("libcuda.so.1", r"cu(?!File|[a-z])[A-Z]", "driver.c", r"", 801),
    StandIn("libcudart.so.13", r"(__)?cuda[A-Z]", "runtime.c", r"Graph|Ipc|Library|Managed", 801),
    StandIn("libcublasLt.so.13", r"cublasLt", "cublaslt.c"),
    StandIn("libcublas.so.13", r"cublas(?!Lt)", "cublas.c"),
    StandIn("libcudnn.so.9", r"cudnn", "cudnn.c", rf"{_SIZES}|GetRNN|Find|_v7$", 3000),
    StandIn("libcusolver.so.12", r"cusolver", "solver.c", _SIZES, 9),
    StandIn("libcusparse.so.12", r"cusparse(?!Lt)", "sparse.c", rf"{_SIZES}|GetSize", 10),
    StandIn("libcusparseLt.so.0", r"cusparseLt", None, r"", 10),
    StandIn("libcufft.so.12", r"cufft", "cufft.c", _SIZES, 16),
    StandIn("libcufile.so.0", r"cuFile", None, r"", 5001),
    StandIn("libcurand.so.10", r"curand", None),
    StandIn("libnccl.so.2", r"p?nccl", "nccl.c"),
    StandIn("libcupti.so.13", r"cupti", "cupti.c"),
    StandIn("libnvrtc.so.13", r"nvrtc", "nvrtc.c", r"", 11),
    StandIn("libnvshmem_host.so.3", r"nvshmem", None, r"", 1),
    StandIn("libnvidia-ml.so.1", r"nvml", "nvml.c", r"", 3),
)

_DEFINED = re.compile(r"^(?!static)[a-z][\w ]*?[ *]+(\w+)\([^;{}]*\)\s*\{", re.MULTILINE)


def defined_functions(source: Path) -> set[str]:
    """Return the functions that one of our C sources defines for others."""
    return set(_DEFINED.findall(source.read_text(encoding="utf-8")))


def share_out(wanted: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return for each library the functions that are wanted of it, with their versions."""
    found: dict[str, dict[str, str]] = {one.soname: {} for one in STAND_INS}
    for symbol, version in wanted.items():
        one = owner(symbol)
        if one is not None and is_of_ours(symbol, version):
            found[one.soname][symbol] = version
    return found


def is_of_ours(symbol: str, version: str) -> bool:
    """True for a function of one of these libraries, and of the one that its version names.

    cuDNN's parts want one another's functions, and some packages bring builds for several CUDAs.
    """
    one = owner(symbol)
    return one is not None and (not version.startswith("lib") or version == one.soname)


def owner(symbol: str) -> StandIn | None:
    """Return the library that a function of this name is of; None for nobody's here."""
    if symbol.startswith("_Z"):  # C++: torch's own
        return None
    return next((one for one in STAND_INS if one.wants(symbol)), None)


def stub_text(
    library: StandIn, symbols: Iterable[str], objects: Container[str] = frozenset()
) -> str:
    """Return the C source of a library's stubs; those in `objects` are variables, and zero."""
    lines = ["extern void card_note(const char *);"]
    for symbol in symbols:
        if symbol in objects:
            lines.append(f"long {symbol}[{_WORDS}];")
            continue
        code = library.code(symbol)
        note = f'card_note("{symbol}"); ' if code else ""
        lines.append(f"int {symbol}(void) {{ {note}return {code}; }}")
    return "\n".join(lines) + "\n"


def version_script(symbols: Mapping[str, str], own: Iterable[str]) -> str:
    """Return the linker's script that gives each function the version that torch asks for.

    "" where none has one: then a library needs no script.
    """
    nodes: dict[str, list[str]] = {}
    for symbol in sorted({*symbols, *own}):
        nodes.setdefault(symbols.get(symbol, ""), []).append(symbol)
    plain = nodes.pop("", [])
    if not nodes:
        return ""
    text = [
        f"{version} {{ global: {' '.join(f'{one};' for one in names)} }};"
        for version, names in sorted(nodes.items())
    ]
    shown = f"global: {' '.join(f'{one};' for one in plain)} " if plain else ""
    text.append(f"VRAMPLAN {{ {shown}local: *; }};")
    return "\n".join(text) + "\n"
