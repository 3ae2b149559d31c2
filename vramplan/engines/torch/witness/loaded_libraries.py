"""The stand-ins in this process: loaded before torch, which then gets them for NVIDIA's.

The loader takes a library that is loaded for every later request of the same name, so nothing is
installed, no file of torch's is touched and no variable of the loader is set.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vramplan.engines.torch.witness.card_state import CUDNN_VARIABLE
from vramplan.engines.torch.witness.library_table import CORE, STAND_INS


class LoadedCore:
    """What the stand-ins of this process tell and are told."""

    def __init__(self, core: ctypes.CDLL) -> None:
        self._core = core
        core.work_count.restype = ctypes.c_size_t
        core.memory_device.argtypes = [ctypes.c_void_p]
        core.answer_next_copies.argtypes = [ctypes.POINTER(ctypes.c_longlong), ctypes.c_int]
        self._teller: object = None

    @property
    def work(self) -> int:
        """How many calls have given a card something to do."""
        return int(self._core.work_count())

    def tell(self, teller: Callable[[], None], every: int) -> None:
        """Have `teller` called in the main thread after every so many calls, between bytecodes.

        It runs where Python runs signal handlers, never inside a call of torch's.
        """

        def call(_nothing: object) -> int:
            teller()
            return 0

        pending = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(call)
        add = ctypes.pythonapi.Py_AddPendingCall
        add.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        at = ctypes.cast(pending, ctypes.c_void_p).value
        self._core.work_tell_pending.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint]
        self._core.work_tell_pending(ctypes.cast(add, ctypes.c_void_p), at, every)
        self._teller = pending  # C has its address

    def answer_next_copies(self, values: Sequence[int]) -> None:
        """Let the next small copies to the host bring these numbers, whatever is on the card."""
        self._core.answer_next_copies((ctypes.c_longlong * len(values))(*values), len(values))

    def drop_answers(self) -> None:
        """Forget numbers that nobody fetched."""
        self._core.drop_answers()


def load_libraries(folder: Path, planner: Sequence[Path] = ()) -> LoadedCore:
    """Load the stand-ins in `folder`; `planner` are the real cuBLASLt and cuDNN.

    Without those nobody plans convolutions.
    """
    if planner:
        os.environ.setdefault(CUDNN_VARIABLE, ":".join(map(str, planner)))
    os.environ["TRITON_LIBCUDA_PATH"] = str(folder)  # what it compiles is linked with the driver
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):  # what was timed here is not true
        os.environ[name] = str(folder.parent / "compiled" / folder.name)
    os.environ["USE_PYTORCH_KERNEL_CACHE"] = "0"  # nor is what torch compiles itself a kernel
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # each other would import torch
    core = ctypes.CDLL(str(folder / CORE), mode=ctypes.RTLD_GLOBAL)
    for one in STAND_INS:
        ctypes.CDLL(str(folder / one.soname), mode=ctypes.RTLD_GLOBAL)
    return LoadedCore(core)
