"""Where the profiles that ship with vramplan are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

#: figures that others published, beside the folder of pipelines
PUBLISHED_FILE = "published.yaml"
#: out-of-memory messages that tell a CUDA context
CONTEXTS_FILE = "cuda_contexts.yaml"
#: the folder of logs that engines printed and others published
ENGINE_LOGS = "engine_logs"

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def profiles_dir() -> Path:
    """Return the folder of the shipped profiles: inside an installed package, or in a checkout.

    The wheel carries the repository's `profiles` as `vramplan/_profiles`.
    """
    packed = _PACKAGE / "_profiles"
    return packed if packed.is_dir() else _PACKAGE.parent / "profiles"
