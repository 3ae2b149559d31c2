"""llama.cpp's own server out of a Python binding, where no llama-server is installed.

``python -m vramplan.engines.ggml.run.llama_binding`` takes those of llama-server's options
that vramplan gives, and then listens and logs as it does: it is the same server, in xllamacpp's
wheel. Source: xorbitsai/xllamacpp, README.md (CommonParams, Server).
"""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
from collections.abc import Sequence
from typing import Any

LIBRARY = "xllamacpp"

#: asks whether the binding is there and sees a CUDA card: exit code 0, else `NO_CARD`
HAS_CARD = "--has-card"
NO_CARD = 3

#: as many slots as the server itself sees fit: it is llama-server's default
_AUTO = -1
_FLASH = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def main(words: Sequence[str]) -> int:
    """Serve until the process is ended, or answer `HAS_CARD`."""
    try:
        engine: Any = importlib.import_module(LIBRARY)
    except (ImportError, OSError):  # not installed, or built for a CUDA that is not here
        return NO_CARD
    if list(words) == [HAS_CARD]:
        names = [str(one["name"]) for one in engine.get_device_info()]
        return 0 if any(name.startswith("CUDA") for name in names) else NO_CARD
    chosen = _parser().parse_args(words)
    serving = engine.Server(_params(engine, chosen))
    threading.Event().wait()
    del serving
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=LIBRARY, allow_abbrev=False)
    parser.add_argument("-m", required=True)
    parser.add_argument("--mmproj")
    parser.add_argument("--host", default="127.0.0.1")
    for option in ("--port", "-lv", "-c", "-ub", "-np", "-ngl"):
        parser.add_argument(option, type=int)
    for option in ("-ctk", "-ctv"):
        parser.add_argument(option)
    parser.add_argument("-fa", choices=sorted(_FLASH))
    return parser


def _params(engine: Any, chosen: argparse.Namespace) -> Any:
    """Return the server's parameters; what is not chosen is the engine's to choose."""
    params = engine.CommonParams()
    params.model.path = chosen.m
    if chosen.mmproj:
        params.mmproj.path = chosen.mmproj
    params.hostnames, params.port = [chosen.host], chosen.port or 0
    params.n_parallel = _AUTO
    names = {"lv": "verbosity", "c": "n_ctx", "np": "n_parallel", "ngl": "n_gpu_layers"}
    for option, name in names.items():
        value = getattr(chosen, option)
        if value is not None:
            setattr(params, name, value)
    if chosen.ub is not None:
        params.n_ubatch, params.n_batch = chosen.ub, max(params.n_batch, chosen.ub)
    for name, kind in (("cache_type_k", chosen.ctk), ("cache_type_v", chosen.ctv)):
        if kind is not None:
            setattr(params, name, getattr(engine.ggml_type, f"GGML_TYPE_{kind.upper()}"))
    if chosen.fa is not None:
        kind = f"LLAMA_FLASH_ATTN_TYPE_{_FLASH[chosen.fa]}"
        params.flash_attn_type = getattr(engine.llama_flash_attn_type, kind)
    return params


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
