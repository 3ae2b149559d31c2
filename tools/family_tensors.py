"""Read out of llama.cpp's library which tensors each family may ask a file for.

    python -m tools.family_tensors           writes vramplan/engines/ggml/family_tensors.py
    python -m tools.family_tensors --check   exits with 1 where another file would be written

A family's tensors are named in its class's ``load_arch_tensors`` and in what that calls, by
``LLM_TN_IMPL(family, tensor, ...)`` with the tensor's number a constant. Machine code is read, and
nothing is loaded: what is asked for depends on a header's keys (``rope.scaling.type``, experts,
next-token layers), and no set of example files has all of those. Names that the engine's own
converter may write for a family (gguf-py/gguf/constants.py) are taken as read, too.

Needs the `engine` extra, and nm, objdump and readelf (binutils); reads x86-64 alone.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vramplan.engines.ggml.coverage import KNOWN
from vramplan.engines.ggml.tensor_names import stem_of
from vramplan.engines.ggml.witness.llama_library import model_parameters, open_library

OUT = Path(__file__).resolve().parents[1] / "vramplan/engines/ggml/family_tensors.py"
_HEAD = '''\
"""Which tensors llama.cpp may read of each family: `python -m tools.family_tensors` wrote this.

In layers, then outside; without the endings of weights and biases. Source: the code in the library
of llama.cpp b11549, and what its converter may write (gguf-py/gguf/constants.py).
"""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off
READ: Mapping[str, tuple[str, str]] = {
'''

_FAMILY = "_Z13llm_arch_name8llm_arch"
_MAKE = "_Z18llama_model_create8llm_archRK18llama_model_params"
_LOADS = "17load_arch_tensorsER18llama_model_loader"
_NAMES_A_TENSOR = "_ZN11LLM_TN_IMPLC1E8llm_arch10llm_tensorPKcii"
_NAME_OF = "_ZNK11LLM_TN_IMPL3strEv"
#: of virtual functions, to look among for the one that loads
_MOST_SLOTS = 32
_MOST_FAMILIES = 1024
#: `objdump -d --no-show-raw-insn`: address, operation, operands
_LINE = re.compile(r"^ *([0-9a-f]+):\t(\S+) *([^#]*?) *(?:#.*)?$", re.MULTILINE)
_TARGET = re.compile(r"([0-9a-f]+) <([^>@+]*)")
_SETS_TENSOR = re.compile(r"(?:.*,)?%[er]?d[xl]$")
_CONSTANT = re.compile(r"\$0x([0-9a-f]+),%edx$")


def main() -> int:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(prog="python -m tools.family_tensors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    text = table()
    if not options.check:
        OUT.write_text(text, encoding="utf-8")
    elif OUT.read_text(encoding="utf-8") != text:
        print(f"{OUT.name}: the engine's library says otherwise", file=sys.stderr)
        return 1
    return 0


def table() -> str:
    """Return the text of the module."""
    library = _Library()
    rows = []
    for family, function in sorted(library.families()):
        names = {library.name(number) for number in library.code.tensors(function)}
        stems = {stem_of(f"{one}.weight") for one in (*names, *_converted(family))}
        rows.append(f'    "{family}": (\n')
        rows += [_row({stem for inside, stem in stems if inside is part}) for part in (True, False)]
        rows.append("    ),\n")
    return _HEAD + "".join(rows) + "}\n"


def _row(stems: Iterable[str]) -> str:
    lines = [""]
    for stem in sorted(stems):
        if len(lines[-1]) + len(stem) > 84:
            lines.append("")
        lines[-1] += f"{stem} "
    lines[-1] = lines[-1].rstrip()
    if len(lines) == 1:
        return f'        "{lines[0]}",\n'
    return "        (\n" + "".join(f'            "{line}"\n' for line in lines) + "        ),\n"


def _converted(family: str) -> Iterator[str]:
    from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES

    for kind, known in MODEL_ARCH_NAMES.items():
        if known == family:
            for tensor in MODEL_TENSORS[kind]:
                yield TENSOR_NAMES[tensor].replace("{bid}", "0").replace("{xid}", "0")


class _Library:
    """The engine's library, in this process."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("xllamacpp")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("needs the engine: pip install 'vramplan[engine]'")
        self._library = library = open_library(Path(spec.submodule_search_locations[0]))
        self.code = _Code(Path(library._name))  # noqa: SLF001  # ctypes tells a library's path there
        self._family, self._make = library[_FAMILY], library[_MAKE]
        self._tensor, self._name_of = library[_NAMES_A_TENSOR], library[_NAME_OF]
        self._family.restype, self._family.argtypes = ctypes.c_char_p, [ctypes.c_int]
        self._make.restype = ctypes.c_void_p
        self._make.argtypes = [ctypes.c_int, ctypes.c_void_p]
        ends = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        self._tensor.argtypes = [ctypes.c_void_p, *ends]
        self._name_of.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

    def families(self) -> Iterator[tuple[str, int]]:
        """Yield each known family, and where the function starts that loads its tensors."""
        library, code = self._library, self.code
        loads = {start for name, start in code.starts.items() if name.endswith(_LOADS)}
        some = next(name for name in code.starts if name.endswith(_LOADS))
        base = (ctypes.cast(library[some], ctypes.c_void_p).value or 0) - code.starts[some]
        parameters = ctypes.addressof(model_parameters(library))
        found = {}
        for number in range(_MOST_FAMILIES):
            family = self._family(number).decode()
            if family == "(unknown)":
                break
            if family in KNOWN:  # of some others it makes no model, and ends the process
                model = self._make(number, parameters)
                functions = ctypes.c_void_p.from_address(model).value or 0
                slots = (ctypes.c_void_p * _MOST_SLOTS).from_address(functions)
                found[family] = next(one - base for one in slots if one and one - base in loads)
        if found.keys() != KNOWN:
            raise SystemExit(f"the library has no {', '.join(sorted(KNOWN - found.keys()))}")
        yield from found.items()

    def name(self, tensor: int) -> str:
        """Return the name of a tensor, of layer 0 where it is in one."""
        made, text = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
        self._tensor(made, 0, tensor, None, 0, 0)
        self._name_of(text, made)
        start = ctypes.c_void_p.from_buffer(text).value  # of a std::string, the characters' place
        assert start is not None
        return ctypes.string_at(start).decode()


class _Code:
    """The machine code of a library, function by function."""

    def __init__(self, path: Path) -> None:
        self._path = path
        listed = (line.split() for line in self._said("nm", "-D", "--defined-only").splitlines())
        self.starts: Mapping[str, int] = {name: int(start, 16) for start, _, name in listed}
        frames = re.findall(r"pc=([0-9a-f]+)\.\.([0-9a-f]+)", self._said("readelf", "-wF"))
        self._ends = {int(start, 16): int(end, 16) for start, end in frames}
        self._parts: dict[int, tuple[frozenset[int], frozenset[int]]] = {}

    def tensors(self, start: int) -> set[int]:
        """Return the numbers of the tensors that a function, or what it calls, may name."""
        found: set[int] = set()
        seen: set[int] = set()
        rest = [start]
        while rest:
            function = rest.pop()
            if function not in seen and function in self._ends:
                seen.add(function)
                if function not in self._parts:
                    self._parts[function] = self._read(function)
                named, called = self._parts[function]
                found |= named
                rest += called
        return found

    def _read(self, start: int) -> tuple[frozenset[int], frozenset[int]]:
        """Return the tensors that one function names, and the functions that it goes to."""
        bounds = (f"--start-address={start}", f"--stop-address={self._ends[start]}")
        text = self._said("objdump", "-d", "--no-show-raw-insn", *bounds)
        lines = [(int(at, 16), does, what) for at, does, what in _LINE.findall(text)]
        places = {at: index for index, (at, _, _) in enumerate(lines)}
        named, called = set(), set()
        for index, (_, does, what) in enumerate(lines):
            target = _TARGET.match(what) if does == "call" or does.startswith("j") else None
            if target is not None:
                to = self.starts.get(target[2], 0) if "@plt" in what else int(target[1], 16)
                if to not in places or does == "call":
                    called.add(to)
            elif _sets_tensor(does, what):
                number = _number(does, what)
                if number is not None and _is_used(lines, places, index + 1):
                    named.add(number)
        return frozenset(named), frozenset(called)

    def _said(self, *words: str) -> str:
        done = subprocess.run([*words, str(self._path)], capture_output=True, text=True, check=True)
        return done.stdout


def _sets_tensor(does: str, what: str) -> bool:
    return not does.startswith(("cmp", "test", "push")) and _SETS_TENSOR.match(what) is not None


def _number(does: str, what: str) -> int | None:
    """Return the constant that a line puts into the third argument, if it does."""
    if does == "xor" and what == "%edx,%edx":
        return 0
    constant = _CONSTANT.match(what) if does == "mov" else None
    return int(constant[1], 16) if constant else None


def _is_used(lines: list[tuple[int, str, str]], places: Mapping[int, int], index: int) -> bool:
    """Return whether a third argument that is set before a line comes to name a tensor."""
    seen: set[int] = set()
    rest = [index]
    while rest:
        index = rest.pop()
        while index < len(lines) and index not in seen:
            seen.add(index)
            _, does, what = lines[index]
            target = _TARGET.match(what) if does.startswith("j") else None
            if does == "call":
                if _NAMES_A_TENSOR in what:
                    return True
                break
            if target is not None and int(target[1], 16) in places:
                rest.append(places[int(target[1], 16)])
            if does in {"jmp", "ret"} or _sets_tensor(does, what):
                break
            index += 1
    return False


if __name__ == "__main__":
    raise SystemExit(main())
