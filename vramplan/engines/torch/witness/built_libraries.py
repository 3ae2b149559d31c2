"""The stand-ins as shared libraries, built on first use for the torch that is there, and kept.

They stand in the user's cache under torch's version and a checksum of what they were made from. A
folder there is whole or not at all: it is built beside and moved, under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from vramplan.engines.torch.witness import compiler, elf_symbols, library_table
from vramplan.engines.torch.witness.library_table import CORE, CORE_SOURCES, SOURCES, STAND_INS
from vramplan.engines.torch.witness.torch_files import TorchFiles
from vramplan.errors import MissingError
from vramplan.user_cache import default_root


def cache_folder() -> Path:
    """Return where built libraries are kept: in the user's cache.

    Also where that is switched off for results: these are a program's parts, and no answers. Raises
    MissingError where there is no such folder.
    """
    root = default_root()
    if root is None:
        message = "there is no folder of yours to keep the stand-ins in"
        raise MissingError(message, hint="VRAMPLAN_CACHE=FOLDER names one")
    return root


def built_for(torch: TorchFiles) -> Path:
    """Return the folder with the stand-ins for a torch; they are built where they are not there.

    Raises MissingError where nothing compiles them, or they cannot be kept.
    """
    place = cache_folder() / "pretended-card"
    folder = place / f"torch-{torch.version}-{checksum(torch)}"
    if folder.is_dir():
        return folder
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(place / "lock"):
            if not folder.is_dir():  # while this one waited, another may have built it
                _build(torch, place, folder)
    except OSError as problem:
        message = f"{place}: the stand-ins cannot be kept: {problem.strerror}"
        raise MissingError(message, hint="VRAMPLAN_CACHE=FOLDER names another place") from None
    return folder


def checksum(torch: TorchFiles) -> str:
    """Return what tells one build from another: our sources, and the libraries they are for."""
    found = hashlib.sha256()
    tables = [Path(__file__).with_name(f"{name}.py") for name in ("library_table", "compiler")]
    for path in [*sorted(SOURCES.iterdir()), *tables]:
        if path.is_file():
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in torch.libraries:
        about = path.stat()
        found.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return found.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system lets go of, however the process ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(torch: TorchFiles, place: Path, folder: Path) -> None:
    command = compiler.find_compiler()
    for left in place.glob(".part-*"):  # of a build that was interrupted; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    beside = Path(mkdtemp(prefix=".part-", dir=place))
    try:
        _compile_all(command, torch, beside)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _compile_all(
    command: list[str],
    torch: TorchFiles,
    folder: Path,
    libraries: Sequence[library_table.StandIn] = STAND_INS,
) -> None:
    wanted: dict[str, str] = {}
    objects: set[str] = set()
    for library in torch.libraries:
        variables = elf_symbols.undefined_objects(library)
        objects.update(variables)
        asked = elf_symbols.undefined_functions(library) | variables
        ours = {name: told for name, told in asked.items() if library_table.is_of_ours(name, told)}
        wanted = ours | wanted  # torch's own come first
    shares = library_table.share_out(wanted)
    core = [SOURCES / name for name in CORE_SOURCES]
    compiler.compile_library(
        command, core, folder / CORE, f"-Wl,-soname,{CORE}", "-ldl", "-lpthread"
    )

    def make(one: library_table.StandIn) -> None:
        sources = [SOURCES / one.source] if one.source else []
        own = {name for path in sources for name in library_table.defined_functions(path)}
        symbols = shares[one.soname]
        stubs = folder / f"{one.soname}.stubs.c"
        stubs.write_text(library_table.stub_text(one, sorted(set(symbols) - own), objects))
        flags = [f"-I{SOURCES}", f"-L{folder}", f"-l:{CORE}", "-Wl,-rpath,$ORIGIN"]
        flags += [f"-Wl,-soname,{one.soname}", "-ldl", "-lpthread"]
        script = library_table.version_script(symbols, own)
        if script:
            path = folder / f"{one.soname}.map"
            path.write_text(script)
            flags.append(f"-Wl,--version-script={path}")
        compiler.compile_library(command, [*sources, stubs], folder / one.soname, *flags)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as several:
        list(several.map(make, libraries))


def build_memory(folder: Path) -> None:
    """Build in a folder what needs no torch: the cards, the runtime, the driver and NVML.

    Raises MissingError where nothing compiles them.
    """
    nothing = TorchFiles(version="none", cuda="13.0", libraries=())
    plain = [one for one in STAND_INS if one.source in ("runtime.c", "driver.c", "nvml.c")]
    _compile_all(compiler.find_compiler(), nothing, folder, plain)
