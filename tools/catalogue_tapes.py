"""Writes the tapes of the catalogue's entries that no recipe knows, `profiles/tapes/NAME.json.gz`.

    python -m tools.catalogue_tapes [NAME...]    those that are not there yet, or those named anew
    python -m tools.catalogue_tapes --list       which there are, and which not
    python -m tools.catalogue_tapes --dtype fp32 NAME...    for another dtype than its default
    python -m tools.catalogue_tapes --kernel math NAME...   add a kernel of attention that it lacks

Each is recorded and proved in a process of its own; one that fails is said, and the next goes on.
So it may be stopped and started again. Some ten to ninety seconds of CPU time an entry.
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vramplan.catalog.pipelines import TORCH_RUNTIMES, Entry, load_pipeline_file
from vramplan.catalog.search import catalog_files
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.torch.attention_kernel import KERNELS
from vramplan.engines.torch.libraries import QUIET
from vramplan.engines.torch.open import open_entry
from vramplan.errors import VramplanError


def entries(profiles: Path) -> Iterator[Entry]:
    """Yield the entries whose tape is made here."""
    for entry in map(load_pipeline_file, catalog_files(profiles)[0]):
        if entry.runtime in TORCH_RUNTIMES and open_entry(entry, ()).tape_within is not None:
            yield entry


def place_of(profiles: Path, name: str, dtype: str | None) -> Path:
    """Return where the tape of an entry is kept."""
    return profiles / "tapes" / (f"{name}.{dtype}.json.gz" if dtype else f"{name}.json.gz")


def record(profiles: Path, entry: Entry, dtype: str | None, kernel: str | None) -> None:
    """Write the tape of one entry, or add a kernel to it.

    Raises VramplanError where it cannot be recorded.
    """
    os.environ.update(QUIET)
    from vramplan.engines.torch.record.saved.entry_settings import dtypes_of
    from vramplan.engines.torch.record.saved.entry_tape import add_kernel, record_entry

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    pipeline, place = open_entry(entry, (profiles,)), place_of(profiles, entry.name, dtype)
    if kernel is None:
        text = record_entry(pipeline, tell, dtype)
    else:
        known = gzip.decompress(place.read_bytes()).decode()
        text = add_kernel(pipeline, tell, dtype or dtypes_of(pipeline)[0], kernel, known)
    place.parent.mkdir(exist_ok=True)
    part = place.with_suffix(".part")
    part.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    part.replace(place)


def main(arguments: Sequence[str]) -> int:
    """Record what is asked for; return 1 where one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tools.catalogue_tapes", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="entries; all that have no tape")
    parser.add_argument("--dtype", help="another dtype than an entry's default")
    parser.add_argument("--kernel", choices=KERNELS, help="add it to tapes that lack it")
    parser.add_argument("--list", action="store_true", help="say which there are, and which not")
    parser.add_argument("--profiles", type=Path, default=profiles_dir(), help="the catalogue")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    known = {entry.name: entry for entry in entries(args.profiles)}
    unknown = [name for name in args.names if name not in known]
    if unknown:
        print(f"error: no entry whose tape is made here: {', '.join(unknown)}", file=sys.stderr)
        return 2
    lacking = [n for n in args.names if not place_of(args.profiles, n, args.dtype).is_file()]
    if args.kernel and (lacking or not args.names):
        print(f"error: no tape to add to: {', '.join(lacking) or 'none named'}", file=sys.stderr)
        return 2
    if args.list:
        for name in known:
            place = place_of(args.profiles, name, args.dtype)
            size = f"{place.stat().st_size:>9,} bytes" if place.is_file() else "no tape"
            print(f"{name:32} {size}")
        return 0
    if args.one:
        try:
            record(args.profiles, known[args.names[0]], args.dtype, args.kernel)
        except VramplanError as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
        return 0
    wanted = args.names or [
        name for name in known if not place_of(args.profiles, name, args.dtype).is_file()
    ]
    return max((_apart(args, name) for name in wanted), default=0)


def _apart(args: argparse.Namespace, name: str) -> int:
    """Record one entry in a process of its own, and say what became of it in a line."""
    more = ["--dtype", args.dtype] if args.dtype else []
    more += ["--kernel", args.kernel] if args.kernel else []
    command = [sys.executable, "-m", "tools.catalogue_tapes", "--one", name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, "--profiles", str(args.profiles), *more],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [line for line in done.stderr.splitlines() if ": " in line or "needs a tape" in line]
    notes = "; ".join(line for line in said if "as by default" in line or "needs a tape" in line)
    if done.returncode:
        why = f"{said[-1] if said else '?'} {notes}"
        print(f"{name:32} FAILED after {seconds:.0f} CPU-s: {why[:1000]}", flush=True)
        return 1
    size = place_of(args.profiles, name, args.dtype).stat().st_size
    print(f"{name:32} {size:>9,} bytes {seconds:5.0f} CPU-s {notes[:300]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
