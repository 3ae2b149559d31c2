"""Raw files of a first look at a GPU, from before there was a campaign, read as runs.

A file ``<case>.json.gz`` has one object: `case`, `device`, `capability` [major, minor], `torch`,
`cudnn`, `utc`, `dry`, `nvml_before` {driver, v1, v2}, and `extra`. In the case ``context`` `extra`
has what NVML said after each step, in the case ``conv_workspace`` `rows` of dtype, channels_last,
benchmark, batch, in, out, size, kernel, cold and warm workspace. All sizes are bytes. Other cases
are kept for people: the campaign measures the same anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vramplan.errors import MeasurementError
from vramplan.measurement.files import read_envelope
from vramplan.measurement.run import (
    ContextStep,
    MeasuredGpu,
    MeasuredWorkspace,
    Run,
    Witness,
)

#: the first look's names of the steps, and ours
_STEPS = {
    "after_first_tensor": "context",
    "after_gemm": "cuBLAS",
    "after_linear": "cuBLASLt",
    "after_conv": "cuDNN",
    "after_sdpa": "attention",
}


def first_looks_in(folder: Path) -> Iterator[tuple[Path, Run]]:
    """Yield the first looks in a folder's ``measured`` that have something to teach."""
    for path in sorted((folder / "measured").glob("*/*.json.gz")):
        if path.name.endswith(".history.json.gz"):
            continue
        data = read_envelope(path)
        if data.get("case") in ("context", "conv_workspace") and not data.get("dry"):
            try:
                yield path, _run(data)
            except (KeyError, TypeError, ValueError, IndexError) as problem:
                message = f"{path}: not a first look at a GPU ({problem!r})"
                raise MeasurementError(message) from None


def _run(data: Mapping[str, Any]) -> Run:
    case = str(data["case"])
    v2 = data["nvml_before"].get("v2")
    memory = v2 if isinstance(v2, dict) else data["nvml_before"]["v1"]
    major, minor = data["capability"]
    extra = data["extra"]
    return Run(
        pipeline="@context" if case == "context" else "@convolutions",
        title=case,
        runtime="torch",
        settings={},
        weights="random",
        witness=Witness.GPU,
        created=str(data["utc"]),
        command=f"first look: {case}",
        gpu=MeasuredGpu(
            name=str(data["device"]),
            compute_capability=f"{int(major)}.{int(minor)}",
            total_bytes=int(memory["total"]),
            reserved_bytes=memory.get("reserved"),
            driver=str(data["nvml_before"]["driver"]),
        ),
        versions={"torch": str(data["torch"]), "cudnn": str(data["cudnn"])},
        kernels="machine",
        context=tuple(_context(extra)) if case == "context" else (),
        workspaces=tuple(map(_workspace, extra["rows"])) if case != "context" else (),
    )


def _context(extra: Mapping[str, Any]) -> Iterator[ContextStep]:
    """Yield the steps; what torch had reserved is not told, so the small tensors stay inside."""
    for key, name in _STEPS.items():
        seen = extra.get(key)
        if not isinstance(seen, dict) or not isinstance(seen.get("processes"), list):
            continue
        listed = seen["processes"]
        mine = [one["used"] for one in listed if one.get("me") or len(listed) == 1]
        memory = seen["v2"] if isinstance(seen.get("v2"), dict) else seen["v1"]
        yield ContextStep(
            name=name,
            process_used_bytes=int(mine[0]) if mine and mine[0] is not None else None,
            device_used_bytes=int(memory["used"]),
            reserved_bytes=0,
        )


def _workspace(row: list[Any]) -> MeasuredWorkspace:
    dtype, is_last, is_benchmarked, batch, channels, out, side, kernel, *taken = row
    sizes = [one if isinstance(one, int) else None for one in taken]
    return MeasuredWorkspace(
        dtype=str(dtype).removeprefix("torch."),
        batch=int(batch),
        in_channels=int(channels),
        out_channels=int(out),
        side=int(side),
        kernel=int(kernel),
        layout="nhwc" if is_last else "nchw",
        benchmark="on" if is_benchmarked else "off",
        cold_bytes=sizes[0] if sizes else None,
        warm_bytes=sizes[1] if len(sizes) > 1 else None,
    )
