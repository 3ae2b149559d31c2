"""Tries both ends of the range of torch, diffusers and transformers that pyproject.toml states.

    python -m tools.library_range low       make .range-venv/low, try it there, and write the page
    python -m tools.library_range high
    python -m tools.library_range           write the page of what is kept
    python -m tools.library_range --check   exit 1 where the page is out of date

In an environment with an end's exact versions the tests that hold a recording against the same run
with real data are run, and some entries of the catalogue are recorded: what is another figure than
their tapes' is what the other version allocates. Results are kept in docs/library_range.json. An
environment takes 2 GB. Of a torch with CUDA inside its own wheel is enough: what it wants of
NVIDIA's libraries is stood in for by functions that find no card.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tools.docs.page import ROOT, escape, replace_generated

MODULE = "tools.library_range"
PAGE = ROOT / "docs" / "how-a-tape-works.md"
RESULTS = ROOT / "docs" / "library_range.json"
FOLDER = ROOT / ".range-venv"

#: what decides what is recorded; each exactly, and nothing that they would bring
ENDS: Mapping[str, Sequence[str]] = {
    "low": (
        *("torch==2.6.0", "diffusers==0.35.0", "transformers==4.57.1", "accelerate==1.0.0"),
        *("huggingface_hub==0.36.0", "tokenizers==0.22.1", "sympy==1.13.1"),
    ),
    "high": (
        *("torch==2.15.0", "diffusers==0.42.1", "transformers==5.24.0", "accelerate==1.15.0"),
        *("huggingface_hub==2.4.0", "tokenizers==0.23.3", "sympy==1.14.0"),
    ),
}
#: the page names these
NAMED = ("torch", "diffusers", "transformers", "accelerate")
#: what those and the tests import
BESIDE = (
    *("numpy", "typing_extensions", "filelock", "mpmath", "networkx", "jinja2", "fsspec"),
    *("safetensors", "regex", "requests", "tqdm", "packaging", "importlib_metadata"),
    *("psutil", "ftfy", "pillow", "PyYAML", "tabulate", "nvidia-ml-py", "typer"),
    *("pytest", "pytest-xdist", "hypothesis", "jsonschema"),
)
TESTS = "tests/unit/test_record_saved.py"
#: recorded whole: of each kind one or two that take seconds
ENTRIES = (
    *("log-anomaly-ae", "denoising-ae", "taesd", "sd15-vae", "flux1-vae", "sd15-inpaint"),
    *("clip-vit-l-14", "siglip-base", "dinov2-small", "all-minilm-l6-v2", "whisper-tiny"),
    *("llama-3.2-1b", "qwen3-0.6b", "smolvlm", "qwen2-vl-2b"),
)
#: where drift is told on the page
CAPABILITY = "8.6"
_WHAT = ("allocated peak", "reserved peak", "least limit")
_MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
#: cudaErrorNoDevice, and the driver's number for the same
_NO_DEVICE = 100


def main(arguments: Sequence[str]) -> int:
    """Try an end, or write the page of what is known."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("end", nargs="?", choices=list(ENDS), help="try this end")
    parser.add_argument("--check", action="store_true", help="say whether the page is up to date")
    parser.add_argument("--inside", metavar="NAME", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.inside:
        for line in record_entries(args.inside):
            print(json.dumps(line), flush=True)
        return 0
    if args.end:
        known = read_results() if RESULTS.exists() else {}
        known[args.end] = try_end(args.end)
        text = json.dumps({end: known[end] for end in ENDS if end in known}, indent=1)
        RESULTS.write_text(text + "\n", encoding="utf-8")
    old = PAGE.read_text(encoding="utf-8")
    new = replace_generated(old, MODULE, render(read_results()))
    if args.check:
        if new != old:
            print(f"{PAGE.name} is out of date: run python -m {MODULE}", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


def read_results() -> dict[str, Any]:
    """Return what is known of each end that was tried."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


# ------------------------------------------------------------------------- an environment
def make(end: str) -> tuple[Path, dict[str, str]]:
    """Make an end's environment where it is not there; return its Python, and how it is run."""
    folder = FOLDER / end
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        # what these two need besides is not in the way; torch and accelerate would bring CUDA
        hub = [pin for pin in ENDS[end] if pin.startswith(("huggingface_hub", "tokenizers"))]
        for packages in (["--no-deps", *ENDS[end]], [*BESIDE, *hub]):
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        stand_in_for_missing(folder)
        (folder / "complete").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VRAMPLAN_CACHE": "off"}
    environment["LD_LIBRARY_PATH"] = str(folder / "missing")
    return python, environment


def stand_in_for_missing(folder: Path) -> None:
    """Build what torch's libraries want and do not find: functions that know of no card."""
    from vramplan.engines.torch.witness import compiler, elf_symbols, library_table

    (libraries,) = folder.glob("lib/python3*/site-packages/torch/lib")
    made = folder / "missing"
    made.mkdir(exist_ok=True)
    missing: set[str] = set()
    wanted: dict[str, str] = {}
    objects: set[str] = set()
    for library in sorted(libraries.glob("lib*.so")):
        command = [shutil.which("ldd") or "ldd", str(library)]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        missing |= set(_MISSING.findall(told.stdout))
        variables = elf_symbols.undefined_objects(library)
        objects.update(variables)
        wanted |= elf_symbols.undefined_functions(library) | variables
    command = compiler.find_compiler() if missing else []
    for name in sorted(missing):
        stem = name.partition(".so")[0]
        owner = next(
            (o for o in library_table.STAND_INS if o.soname.startswith(f"{stem}.so")), None
        )
        ours = {f: v for f, v in wanted.items() if owner and library_table.owner(f) is owner}
        source, script = made / f"{name}.c", library_table.version_script(ours, [])
        code = _NO_DEVICE if stem in {"libcudart", "libcuda"} else 1
        lines = (
            f"long {one}[32];" if one in objects else f"int {one}(void) {{ return {code}; }}"
            for one in sorted(ours)
        )
        source.write_text("\n".join(lines))
        flags = [f"-Wl,-soname,{name}"]
        if script:
            (made / f"{name}.map").write_text(script)
            flags.append(f"-Wl,--version-script={made / name}.map")
        compiler.compile_library(command, [source], made / name, *flags)


# ------------------------------------------------------------------------- what is tried
def try_end(end: str) -> dict[str, Any]:
    """Return what becomes of the tests and the entries in an end's environment."""
    python, environment = make(end)
    pins = dict(pin.split("==") for pin in ENDS[end])
    report, kept = FOLDER / end / "tests.xml", FOLDER / end / "entries.jsonl"
    if not report.exists():
        subprocess.run(
            [python, "-m", "pytest", "-q", "-n", "0", "-W", "default", "-p", "no:cacheprovider",
             f"--junitxml={report}", TESTS],
            cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
    done = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    names = [name for name in ENTRIES if name not in {json.loads(line)["name"] for line in done}]
    command = [str(python), "-m", MODULE, "--inside", *names]
    if names:
        with (
            kept.open("a", encoding="utf-8") as file,
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
            ) as inside,
        ):
            for line in inside.stdout or ():
                if not line.startswith("{"):  # some libraries print when they are imported
                    continue
                print(line, end="", file=file, flush=True)
                print(line, end="", flush=True)
    told = {
        "versions": {name: pins[name] for name in NAMED},
        "tests": read_report(report),
        "entries": [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()],
    }
    for path in (report, kept):  # another time all of it is tried anew
        path.unlink()
    return told


def read_report(path: Path) -> dict[str, Any]:
    """Return how many tests passed, and of the others which and why."""
    passed, skipped, failed = 0, [], []
    for case in ET.parse(path).iter("testcase"):  # noqa: S314  # pytest wrote it just now
        name = str(case.get("name"))
        skip, failure = case.find("skipped"), case.find("failure")
        failure = case.find("error") if failure is None else failure
        if failure is not None:
            failed.append([name, str(failure.get("message"))[:200]])
        elif skip is not None:
            skipped.append([name, str(skip.get("message"))[:200]])
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}


def record_entries(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield for each entry its figures by its tape, and by the libraries that are installed.

    Or why it is not recorded.
    """
    from vramplan.ask.record import record
    from vramplan.ask.targets import open_catalog
    from vramplan.errors import VramplanError

    catalog = open_catalog()
    for name in names:
        try:
            drift = record(name, catalog, is_proved=False).drift()
        except VramplanError as problem:
            yield {"name": name, "reason": str(problem)[:200]}
            continue
        yield {
            "name": name,
            "figures": {
                one.what: [one.before_bytes, one.now_bytes]
                for one in drift
                if one.compute_capability == CAPABILITY
            },
        }


# ------------------------------------------------------------------------- the page
def render(results: Mapping[str, Any]) -> str:
    """Return what was tried at each end, as MyST."""
    return "\n\n".join(_section(end, told) for end, told in results.items()) + "\n"


def _section(end: str, told: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    tests = told["tests"]
    about = (
        f"**The {end} end: {versions}.** Of the tests that hold a recording against the same run "
        f"with real data, {tests['passed']} pass, {len(tests['failed'])} fail, and "
        f"{len(tests['skipped'])} have nothing to try: their class, or the tape that they are held "
        "against, is not of these versions. What the entries take, beside their tapes, in bytes:"
    )
    lines = [
        about,
        "",
        f"| entry, on {CAPABILITY} | " + " | ".join(_WHAT) + " |",
        "|---|--:|--:|--:|",
    ]
    for entry in told["entries"]:
        if "reason" in entry:
            lines.append(f"| `{entry['name']}` | {escape(entry['reason'])} | | |")
            continue
        cells = (_change(*entry["figures"].get(what, (None, None))) for what in _WHAT)
        lines.append(f"| `{entry['name']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(before: int | None, now: int | None) -> str:
    """Return what another version adds to a figure, in bytes."""
    if before is None or now is None:
        return "not told"
    return f"{now - before:+,}" if now != before else "the same"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
