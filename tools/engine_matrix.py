"""Ask the real llama.cpp what it allocates, over every family, and keep its answers beside ours.

    python -m tools.engine_matrix                docs/engine_witness.json, all settings
    python -m tools.engine_matrix --few          two settings a family
    python -m tools.engine_matrix --family llama --out FILE

The engine is xllamacpp's CPU build; the models are files with real shapes and no data, made on the
spot. No GPU is needed. `tools/docs/accuracy.py` makes the table of docs/accuracy.md of it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.model_files import sparse_module
from vramplan.commands.result_file import write_file
from vramplan.engine_buffer import engine_name
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import LIBRARY, ask_engine
from vramplan.engines.ggml.witness.cpu_build import cpu_build
from vramplan.errors import MeasurementError, UsageError, VramplanError
from vramplan.model import Pipeline, Settings
from vramplan.settings import resolve_settings

ROOT = Path(__file__).resolve().parents[1]

#: context, ubatch, flash attention, type of the cache
Case = tuple[int, int, str, str]

OUT = ROOT / "docs" / "engine_witness.json"
FEW = ((2048, 512, "on", "f16"), (8192, 256, "off", "f16"))
ALL = tuple(
    (context, ubatch, flash, kv_type)
    for context, ubatch, (flash, kv_type) in itertools.product(
        (512, 4096, 16384), (128, 512), (("on", "f16"), ("off", "f16"), ("on", "q8_0"))
    )
)


def _at(path: Path, settings: Case) -> tuple[Pipeline, Settings]:
    pipeline = open_model(str(path), None)
    context, ubatch, flash, kv_type = settings
    most = pipeline.constraints["context"].maximum
    wanted = {
        "context": min(context, int(most or context)),
        "ubatch": ubatch,
        "flash_attention": flash,
        "kv_type": kv_type,
        "parallel": 1,
    }
    return pipeline, resolve_settings(pipeline, {**pipeline.defaults, **wanted})


def ours(path: Path, settings: Case) -> dict[str, int]:
    """Return our buffers in bytes, under the engine's names; none for settings that cannot be."""
    pipeline, chosen = _at(path, settings)
    try:
        found = cpu_build(pipeline, chosen).buffers
    except UsageError:
        return {}
    sizes = {engine_name(one.kind, one.component): one.size_bytes for one in found}
    return {name: size for name, size in sorted(sizes.items()) if size}


def ask(path: Path, family: str, settings: Case) -> dict[str, object]:
    """Return one case: the settings, the engine's buffers in bytes, and ours.

    Without buffers the engine refuses the settings.
    """
    _, chosen = _at(path, settings)
    theirs: dict[str, int] = {}
    try:
        buffers = ask_engine(path, chosen).buffers
    except MeasurementError:  # such as a cache in blocks that do not fill a head
        buffers = ()
    for one in buffers:
        if one.size_bytes and one.name != "output":  # one row of logits a sequence, on the host
            theirs[one.name] = theirs.get(one.name, 0) + one.size_bytes
    return {
        "family": family,
        **{key: chosen[key] for key in ("context", "ubatch", "flash_attention", "kv_type")},
        "engine": dict(sorted(theirs.items())),
        "ours": ours(path, settings),
    }


def cases(names: Sequence[str], settings: Sequence[Case]) -> Iterator[dict[str, object]]:
    """Yield the cases of the families called `names`, saying on stderr how far it is."""
    models = sparse_module("sparse_gguf").families()
    number, total = 0, len(names) * len(settings)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = sparse_module("sparse_gguf").write(Path(folder) / f"{name}.gguf", models[name])
            for one in settings:
                number += 1
                print(f"\r{number} of {total}: {name:<12}", end="", file=sys.stderr, flush=True)
                yield ask(path, name, one)
            path.unlink()
    print(file=sys.stderr)


def main() -> int:
    """Ask, and write the answers; return 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = list(sparse_module("sparse_gguf").families())
    parser.add_argument("--few", action="store_true", help="two settings a family")
    parser.add_argument("--family", action="append", choices=known, help="repeatable")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    args = parser.parse_args()
    try:
        found = list(cases(args.family or known, FEW if args.few else ALL))
    except VramplanError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    about = {
        "engine": f"{LIBRARY} {importlib.metadata.version(LIBRARY)}",
        "command": "python -m tools.engine_matrix" + (" --few" if args.few else ""),
    }
    lines = ",\n".join(f"    {json.dumps(case)}" for case in found)
    head = json.dumps(about, indent=2).removesuffix("\n}")
    write_file(args.out, f'{head},\n  "cases": [\n{lines}\n  ]\n}}\n', replaces=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
