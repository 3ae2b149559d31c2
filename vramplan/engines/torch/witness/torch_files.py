"""The torch that a Python has, looked at from outside: importing it would be too late."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from vramplan.errors import MissingError

#: the CUDA versions whose structures the stand-ins fill in
KNOWN_CUDA = ("13",)

#: packages whose libraries call CUDA themselves: what they want has a stub too
_WITH_CUDA_CODE = ("torchvision", "torchaudio", "bitsandbytes", "xformers", "flash_attn")

_LONGEST_VERSION_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class TorchFiles:
    """A CUDA build of torch: its version, CUDA's, and the libraries whose functions it wants."""

    version: str
    cuda: str
    libraries: tuple[Path, ...]
    planner: tuple[Path, ...] = ()  # the real cuBLASLt and cuDNN, where both are installed


def find_torch() -> TorchFiles:
    """Return the torch of this Python.

    Raises MissingError where there is none, or none that the stand-ins know.
    """
    check_machine()
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        message = f"torch is not installed for {sys.executable}"
        raise MissingError(message, hint=_INSTALL)
    return read_torch(Path(spec.origin).parent)


def check_machine() -> None:
    """Raise MissingError where the stand-ins cannot be built: anywhere but on Linux on x86-64."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{platform.system()} on {platform.machine()}"
        raise MissingError(f"a pretended card needs Linux on x86-64, this is {here}")


_INSTALL = (
    "a pretended card needs torch's CUDA build: pip install torch (with --no-deps its own wheel is "
    "enough; nvidia-cudnn-cu13 and nvidia-cublas for convolutions)"
)


def read_torch(folder: Path) -> TorchFiles:
    """Return the torch in a folder; raises as `find_torch` does."""
    version, cuda = _versions(folder / "version.py")
    if cuda is None:
        message = f"torch {version} is a build without CUDA"
        raise MissingError(message, hint=_INSTALL)
    if cuda.partition(".")[0] not in KNOWN_CUDA:
        known = " and ".join(f"{one}.x" for one in KNOWN_CUDA)
        message = f"torch {version} is built for CUDA {cuda}; the stand-ins know {known}"
        raise MissingError(message, hint="pip install 'torch>=2.9' from the default index has 13.x")
    beside = folder.parent
    others = [path for name in _WITH_CUDA_CODE for path in sorted((beside / name).rglob("*.so"))]
    cudnn = beside / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9"
    products = beside / "nvidia" / "cu13" / "lib" / "libcublasLt.so.13"
    others += sorted(cudnn.parent.glob("libcudnn_*.so.9"))  # its engines want the driver's
    return TorchFiles(
        version=version,
        cuda=cuda,
        libraries=(*sorted((folder / "lib").glob("lib*.so")), *others),
        planner=(products, cudnn) if cudnn.is_file() and products.is_file() else (),
    )


def _versions(path: Path) -> tuple[str, str | None]:
    """Return torch's version and that of its CUDA, None for another build."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST_VERSION_FILE)
    except OSError as problem:
        message = f"{path}: cannot be read: {problem.strerror}"
        raise MissingError(message, hint=_INSTALL) from None
    version = re.search(r"^__version__ = '([\w.+-]{1,64})'", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:: [\w\[\]]{1,32})? = '([0-9.]{1,16})'", text, re.MULTILINE)
    return (version[1] if version else "of unknown version"), (cuda[1] if cuda else None)
