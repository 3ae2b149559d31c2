"""Puts the pretended cards under torch in a program's own process, when torch is imported.

It is imported at the start of every Python below `vramplan run`, and so imports nothing itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import Any

#: what looks for a driver or a card
_ASKS_FOR_CARDS = ("torch", "pynvml")
#: what talks to a GPU by itself: no pretended card is seen by it
_OTHERS = {
    "onnxruntime": "ONNX Runtime", "jax": "JAX", "tensorflow": "TensorFlow", "cupy": "CuPy",
    "tensorrt": "TensorRT", "pycuda": "PyCUDA", "numba.cuda": "Numba", "warp": "Warp",
    "llama_cpp": "llama.cpp", "ctranslate2": "CTranslate2", "paddle": "PaddlePaddle",
}  # fmt: skip
#: libraries that import such where it is installed, and use it only when they are asked to
_OFFER_OTHERS = frozenset({
    "accelerate", "datasets", "diffusers", "einops", "evaluate", "keras", "peft", "tensorboard",
    "torch", "transformers",
})  # fmt: skip
#: what loads weights or files by name, and the variable that says which it may
_LOADS_WEIGHTS = ("diffusers.", "transformers.", "huggingface_hub.", "safetensors")
_WEIGHTS = "VRAMPLAN_PRETENDED_WEIGHTS"


def begin() -> None:
    """Wait for the first import that asks for a card."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Loads the stand-ins before torch or pynvml is found, and watches torch once it is there."""

    def __init__(self) -> None:
        self._is_loaded = False

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return torch's specification, with what follows its import; None for all others."""
        if name in _OTHERS:  # many ask whether it is there, and never import it
            return _followed(name, path, target, lambda _module: _tell_of(_OTHERS[name]))
        if name.startswith(_LOADS_WEIGHTS) and os.environ.get(_WEIGHTS) == "none":
            return _followed(name, path, target, _meet)
        if name not in _ASKS_FOR_CARDS or path is not None:
            return None
        if not self._is_loaded:
            self._is_loaded = True
            _load()
        return _followed(name, None, target, _watch) if name == "torch" else None


def _load() -> None:
    from vramplan.engines.torch.witness import (
        built_libraries,
        loaded_libraries,
        program_record,
        torch_files,
    )
    from vramplan.errors import VramplanError

    try:
        torch = torch_files.find_torch()
        folder = built_libraries.built_for(torch)
    except VramplanError as problem:
        program_record.tell_problem(str(problem), problem.hint)
        sys.exit(2)  # told already; a traceback of this would only look like the program's own
    program_record.CORE.append(loaded_libraries.load_libraries(folder, torch.planner))


def _tell_of(other: str) -> None:
    """Take down that the program has another way to a GPU, for a run without torch too.

    Not where a library imports it that only offers it besides.
    """
    import atexit

    if _importer() in _OFFER_OTHERS:
        return

    from vramplan.engines.torch.witness import program_record

    if not program_record.REMARKS:
        atexit.register(_tell_alone)
    text = f"{other} talks to a GPU by itself: it sees no pretended card, and what it would take "
    program_record.REMARKS.append(f"{text}is not in these figures")


def _importer() -> str:
    """Return the package whose code imports what is being imported."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        is_ours = name.startswith("vramplan.") or name == __name__
        if not is_ours and not name.startswith(("importlib", "_frozen_importlib")):
            return name.partition(".")[0]
        frame = frame.f_back
    return ""


def _tell_alone() -> None:
    from vramplan.engines.torch.witness import program_record

    if "torch" not in sys.modules:  # else the watch has told it
        program_record.tell({"remarks": program_record.REMARKS})


def _followed(
    name: str, path: Any, target: ModuleType | None, follow: Callable[[ModuleType], None]
) -> ModuleSpec | None:
    """Return a module's specification; when it has been imported, `follow` hears of it."""
    spec = PathFinder.find_spec(name, path, target)
    if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
        return spec
    load = spec.loader.exec_module

    def load_and_follow(module: ModuleType) -> None:
        load(module)
        follow(module)

    spec.loader.exec_module = load_and_follow  # type: ignore[method-assign]  # this one spec's loader
    return spec


def _watch(_torch: ModuleType) -> None:
    from vramplan.engines.torch.witness import program_record, program_watch, real_values

    if os.environ.get("VRAMPLAN_PRETENDED_WATCH") == "off":  # measured by other means
        real_values.Values(program_record.CORE[0]).begin()
    else:
        program_watch.watch()


def _meet(module: ModuleType) -> None:
    from vramplan.engines.torch.witness import configs_alone, hollow_files, hub_alone

    if module.__name__ == "safetensors":
        hollow_files.meet(module)
    elif module.__name__.startswith("huggingface_hub."):
        if module.__name__ in hub_alone.MODULES:
            hub_alone.meet(module)
    else:
        configs_alone.meet(module)
