"""An exception of torch, CUDA or its libraries as the result of a run."""

from __future__ import annotations

import re

from vramplan.measurement.run import Failure, FailureKind

_LONGEST = 600

#: torch: "CUDA out of memory. Tried to allocate 2.25 GiB."
_ASKED = re.compile(r"[Tt]ried to allocate ([0-9]{1,15}(?:\.[0-9]{1,6})?) (bytes|[KMGT]iB)")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

#: what the libraries below torch say when memory ends
_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its handle did not fit
)


def failure_of(problem: BaseException, phase: str, component: str) -> Failure:
    """Return how a run ended early, and where."""
    text = str(problem)
    is_oom = type(problem).__name__ == "OutOfMemoryError" or any(
        words in text for words in _OUT_OF_MEMORY
    )
    return Failure(
        kind=FailureKind.OOM if is_oom else FailureKind.ERROR,
        phase=phase,
        component=component,
        message=f"{type(problem).__name__}: {text}"[:_LONGEST],
        asked_bytes=asked_bytes(text) if is_oom else None,
    )


def asked_bytes(text: str) -> int | None:
    """Return what the failed allocation asked for, to the two decimals that torch prints."""
    found = _ASKED.search(text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None
