"""Makes an environment with torch's CUDA build, and runs in it what needs one.

    python -m tools.witness_environment                 make .witness-venv, or say that it is there
    python -m tools.witness_environment -- COMMAND …    and run a command in it

About 3.5 GB: torch's own wheel without NVIDIA's, whose places the stand-ins take, and cuDNN with
the cuBLAS it uses for its plans. COMMAND is such as ``python -m pytest -m witness``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from tools.docs.page import ROOT

FOLDER = ROOT / ".witness-venv"

#: by themselves: torch would bring several gigabytes of NVIDIA's libraries
ALONE = (
    "torch==2.14.1",
    "nvidia-cudnn-cu13==9.24.0.43",  # what torch 2.14.1 asks for
    "nvidia-cublas>=13.0,<13.2",
    "accelerate",
)
#: what those and the tests import
BESIDE = (
    "numpy", "typing_extensions", "filelock", "sympy", "networkx", "jinja2", "fsspec", "psutil",
    "diffusers==0.42.1", "transformers==5.23.0", "PyYAML", "tabulate", "nvidia-ml-py", "pillow",
    "pytest", "hypothesis", "jsonschema",
)  # fmt: skip


def make() -> Path:
    """Make the environment where it is not there; return its Python."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "complete").exists():
        venv.create(FOLDER, with_pip=True, clear=True)
        for packages in (["--no-deps", *ALONE], BESIDE):
            command = [str(python), "-m", "pip", "install", "-q", *packages]
            subprocess.run(command, check=True)
        (FOLDER / "complete").touch()
    return python


def main(arguments: Sequence[str]) -> int:
    """Make the environment, and run what stands behind ``--`` in it."""
    python = make()
    if arguments[:1] != ["--"]:
        print(python)
        return 0
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(arguments[1:], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
