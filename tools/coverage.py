"""Records every causal language model of transformers, scaled down, and writes docs/coverage.md.

    python -m tools.coverage             record them all: some minutes of CPU time
    python -m tools.coverage NAME ...    record these architectures (qwen2, llama) and show them
    python -m tools.coverage --read FILE write the page from what an earlier run kept
    python -m tools.coverage --keep FILE keep each result there, a line of JSON, as it is made

Each is built from its class's own default config with two layers and small sides, and recorded as a
saved model is: by nothing that knows the class. A process for each has 60 seconds of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
_SECONDS = 60
#: the longest reason that is shown
_LONGEST = 160
Value = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one class: why it was not built, or not recorded; nothing where it was."""

    architecture: str
    class_name: str
    stage: str  # recorded | built | none: how far it came
    reason: str = ""
    cpu_seconds: float = 0.0


def causal_classes() -> dict[str, str]:
    """Return the causal language model of each architecture of the installed transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return {key: name if isinstance(name, str) else name[0] for key, name in sorted(NAMES.items())}


def record_class(architecture: str, class_name: str) -> Result:
    """Return what becomes of a class, recorded in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
        with os.fdopen(writing, "w") as pipe:
            json.dump(_record_here(architecture, class_name), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read(1 << 16)
    _, status, used = os.wait4(child, 0)
    stage, reason = json.loads(said) if said else ("built", f"ended by signal {status & 127}")
    return Result(
        architecture=architecture,
        class_name=class_name,
        stage=stage,
        reason=reason,
        cpu_seconds=round(used.ru_utime + used.ru_stime, 1),
    )


def _record_here(architecture: str, class_name: str) -> tuple[str, str]:
    from vramplan.engines.torch.record.saved.build import said

    stage = "none"
    try:
        request, modules = _small_model(architecture, class_name)
        stage = "built"
        from vramplan.engines.torch.record.saved.constant_tape import write_recording
        from vramplan.engines.torch.record.saved.recording_child import record_modules
        from vramplan.engines.torch.tape.format import parse_tape

        recorded = record_modules(request, modules, lambda _: None)
        parse_tape(write_recording("small", recorded, modules, 2), "small")
    except Exception as problem:  # noqa: BLE001  # whatever a class does is its result
        return stage, said(problem)[:_LONGEST]
    return "recorded", ""


def _small_model(architecture: str, class_name: str) -> tuple[Value, dict[str, Value]]:
    """Return a request and the model of an architecture's default config with small sides."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from vramplan.engines.torch.record.saved.build import SavedPart, build_part
    from vramplan.engines.torch.record.saved.request import Request

    cls = getattr(transformers, class_name)
    config = CONFIG_MAPPING[architecture]()
    _shrink(config)
    with torch.device("meta"):
        elements = sum(one.numel() for one in cls(config).parameters())
    path = f"transformers.{class_name}"
    part = SavedPart(name="model", class_path=path, config=config.to_dict(), elements=elements)
    request = Request(
        name="small",
        kind="model",
        class_path=path,
        parts=(part,),
        index={},
        schedulers={},
        dtype="bf16",
        kernel="flash",
        batch=1,
        image=None,
        frames=None,
        prompt_tokens=24,
    )
    return request, {"model": build_part(part, torch.bfloat16)}


def _shrink(config: Value) -> None:
    """Give a config two layers, and lists of layers as many: its first and its last kinds."""
    layers = 2
    before = getattr(config, "num_hidden_layers", None)
    for name in (
        *("num_hidden_layers", "num_layers", "n_layer"),
        *("decoder_layers", "encoder_layers", "num_decoder_layers"),
    ):
        if isinstance(getattr(config, name, None), int):
            with suppress(Exception):
                setattr(config, name, layers)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == before and len(value) > layers:
            setattr(config, name, [value[0], next((v for v in value if v != value[0]), value[-1])])
    for inner in ("text_config", "vision_config", "audio_config", "decoder", "encoder"):
        if hasattr(getattr(config, inner, None), "to_dict"):
            _shrink(getattr(config, inner))


# ---------------------------------------------------------------------------------- page
def write_page(results: Sequence[Result]) -> str:
    """Return the page of all results."""
    import torch
    import transformers

    built = [one for one in results if one.stage != "none"]
    recorded = [one for one in built if one.stage == "recorded"]
    rows = [
        f"| `{one.architecture}` | {one.class_name} | {_state(one)} |"
        for one in sorted(results, key=lambda one: (one.stage == "recorded", one.architecture))
    ]
    versions = (
        f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"
    )
    summary = (
        f"Of {len(results)} causal language models of {versions}, {len(built)} are built from "
        "their default config with two layers, and "
        f"{len(recorded)} of those are recorded, with no code that knows one of them."
    )
    return "\n".join(
        [
            "# What is recorded on the spot",
            "",
            summary,
            "Made by `python -m tools.coverage`.",
            "",
            "| architecture | class | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _state(one: Result) -> str:
    if one.stage == "recorded":
        return "recorded"
    reason = one.reason.replace("|", "/").replace("<", "(").replace("`", "'")
    return f"{'not built' if one.stage == 'none' else 'not recorded'}: {reason}"


def _record_all(names: Sequence[str], keep: Path | None) -> Iterator[Result]:
    known = causal_classes()
    for architecture in names or known:
        result = record_class(architecture, known[architecture])
        print(
            f"{architecture:28} {result.stage:9} {result.cpu_seconds:5} s  {result.reason}",
            flush=True,
        )
        if keep is not None:
            with keep.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
        yield result


def main(arguments: Sequence[str]) -> int:
    """Record, show, and write the page unless only some were asked for."""
    parser = argparse.ArgumentParser(description="What is recorded on the spot.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--read", type=Path)
    asked = parser.parse_args(arguments)
    if asked.read is not None:
        lines = asked.read.read_text().splitlines()
        results = [Result(**json.loads(line)) for line in lines]
    else:
        from vramplan.engines.torch.libraries import QUIET

        os.environ.update({**QUIET, "TRANSFORMERS_VERBOSITY": "critical"})
        import torch

        torch.set_num_threads(1)
        begun = time.process_time()
        results = list(_record_all(asked.names, asked.keep))
        print(f"{time.process_time() - begun:.0f} s of CPU time here")
    if not asked.names:
        PAGE.write_text(write_page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
