"""Writes the page as static files that run vramplan in the browser with Pyodide.

    npm install pyodide && pip install ziglang             the runtime, and a compiler of the core
    python -m tools.static_page --out DIR                  with the one in ./node_modules
    python -m tools.static_page --out DIR --pyodide FOLDER with one that lies elsewhere

Any web server can hold what is written: it is asked for files and answers no question. Tapes,
graphs and stored results are fetched when they are first read. Nothing else is asked for anything.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.static_page import wasm_core
from vramplan.page.server import ASSETS, POLICY

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

#: the files of Pyodide that a browser loads
RUNTIME = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)
#: folders of profiles that are fetched file by file, and those that the page never reads
_FETCHED = ("tapes", "graphs")
_LEFT_OUT = ("measured", "engine_logs", "schema")
#: parts of the package that only run where there is a machine
_NO_PLACE = (
    "vramplan/commands",
    "vramplan/page/assets",
    "vramplan/engines/torch/record",
    "vramplan/engines/torch/run",
    "vramplan/engines/torch/witness",
    "vramplan/engines/ggml/run",
)
#: a zip with the same contents has the same bytes
_LONG_AGO = (2020, 1, 1, 0, 0, 0)


def write_page(out: Path, pyodide: Path, core: bytes) -> None:
    """Write the page's files into a folder; raises FileNotFoundError without the runtime."""
    out.mkdir(parents=True, exist_ok=True)
    for asset in ASSETS.iterdir():
        shutil.copyfile(asset, out / asset.name)
    for name in ("transport.js", "worker.js"):
        shutil.copyfile(HERE / name, out / name)
    (out / "index.html").write_text(
        with_policy((ASSETS / "index.html").read_text("utf-8")), "utf-8"
    )
    (out / "pyodide").mkdir(exist_ok=True)
    for name in RUNTIME:
        shutil.copyfile(pyodide / name, out / "pyodide" / name)
    write_package(out / "vramplan.zip", core)
    (out / "files.json").write_text(json.dumps(list(fetched_files(out))), "utf-8")


def with_policy(page: str) -> str:
    """Return the page with its policy in it, for servers that send none; it may run WebAssembly."""
    policy = POLICY.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
    parts = [part for part in policy.split("; ") if not part.startswith("frame-ancestors")]
    said = "; ".join([*parts, "worker-src 'self'"])
    head, found, rest = page.partition('<meta charset="utf-8">\n')
    if not found:
        raise ValueError("index.html has lost the line that the policy goes behind")
    return f'{head}{found}<meta http-equiv="Content-Security-Policy" content="{said}">\n{rest}'


def write_package(path: Path, core: bytes) -> None:
    """Write the package and the small profiles as a zip, for the browser's own file system."""
    contents = {name: source.read_bytes() for name, source in packed_files()}
    contents[wasm_core.PLACE] = core
    with zipfile.ZipFile(path, "w", compresslevel=9) as archive:
        for name, data in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


def packed_files() -> Iterator[tuple[str, Path]]:
    """Yield what is in the zip: each name in it, and the file."""
    for source in (ROOT / "vramplan").rglob("*.py"):
        name = source.relative_to(ROOT).as_posix()
        if not name.startswith(tuple(f"{folder}/" for folder in _NO_PLACE)):
            yield name, source
    profiles = ROOT / "profiles"
    for source in profiles.rglob("*"):
        place = source.relative_to(profiles)
        if source.is_file() and place.parts[0] not in (*_FETCHED, *_LEFT_OUT):
            yield f"vramplan/_profiles/{place.as_posix()}", source


def fetched_files(out: Path) -> Iterator[dict[str, str]]:
    """Copy the large profiles beside the page; yield where each belongs, and its address."""
    for folder in _FETCHED:
        (out / folder).mkdir(exist_ok=True)
        for source in sorted((ROOT / "profiles" / folder).iterdir()):
            if source.is_file():
                shutil.copyfile(source, out / folder / source.name)
                place = f"vramplan/_profiles/{folder}"
                yield {"folder": place, "name": source.name, "address": f"{folder}/{source.name}"}


def main(words: Sequence[str] | None = None) -> int:
    """Write the page; return 1 where the runtime or the compiler is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.static_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it is put")
    parser.add_argument(
        "--pyodide",
        type=Path,
        default=Path("node_modules/pyodide"),
        metavar="FOLDER",
        help="the npm package pyodide (default: node_modules/pyodide)",
    )
    args = parser.parse_args(words)
    missing = [name for name in RUNTIME if not (args.pyodide / name).is_file()]
    if missing:
        print(f"error: {args.pyodide} has no {missing[0]}", file=sys.stderr)
        print("hint: npm install pyodide, or name its folder with --pyodide", file=sys.stderr)
        return 1
    if not wasm_core.can_build():
        print("error: nothing here compiles the core to WebAssembly", file=sys.stderr)
        print("hint: pip install ziglang", file=sys.stderr)
        return 1
    write_page(args.out, args.pyodide, wasm_core.build())
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
