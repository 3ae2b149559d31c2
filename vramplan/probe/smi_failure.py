"""What nvidia-smi and a shell say where nvidia-smi itself fails, and what each means."""

from __future__ import annotations

import re

_REINSTALL = "the driver is not loaded: install it, or load it (modprobe nvidia), and reboot"

#: how each begins, and what to do
_SAID = (
    (r"NVIDIA-SMI has failed because", _REINSTALL),
    (
        r"Failed to initialize NVML: Driver/library version mismatch",
        "the driver was updated below the running kernel module: reboot, or unload and load it",
    ),
    (
        r"Failed to initialize NVML: GPU access blocked by the operating system",
        "WSL or the hypervisor keeps the GPU: update Windows' driver, then wsl --shutdown",
    ),
    (
        r"Failed to initialize NVML: (?:Unknown Error|Insufficient Permissions)",
        "a container has lost its devices, or may not open them: start it anew with --gpus all",
    ),
    (r"Failed to initialize NVML", _REINSTALL),
    (r"Failed to properly shut ?down NVML", _REINSTALL),
    (
        r"Unable to (?:determine|detect) the device handle for GPU",
        "the driver has lost that GPU (dmesg has the Xid): reboot; -i names the other GPUs",
    ),
    (r"GPU is lost", "the driver has lost that GPU: reboot"),
    (r"No devices were found", "the driver sees no GPU: dmesg and lspci tell why"),
    (r"No devices found", "the driver sees no GPU: dmesg and lspci tell why"),
    (r"NVIDIA-SMI couldn'?t find libnvidia-ml", _REINSTALL),
    (r"couldn'?t communicate with the NVIDIA driver", _REINSTALL),
    (r"libnvidia-ml\.so[.0-9]{0,8}: cannot open shared object", _REINSTALL),
    (
        r"Not supported on the device\(s\)",
        "this GPU does not tell it: paste what nvidia-smi prints without a command",
    ),
    (
        r"Field \"[^\"]{1,60}\" is not a valid field to query",
        "nvidia-smi --help-query-gpu lists the fields that this driver has",
    ),
    (r"(?:ERROR: )?Option \S{1,60} is not recognized", "paste what nvidia-smi prints by itself"),
    (r"Invalid combination of input arguments", "paste what nvidia-smi prints by itself"),
    (r"nvidia-smi(?:\.exe)?'?: (?:command )?not found", "it comes with NVIDIA's driver"),
    (r"Command 'nvidia-smi' not found", "it comes with NVIDIA's driver"),
    (r"command not found: nvidia-smi", "it comes with NVIDIA's driver"),
    (r"'nvidia-smi' is not recognized", "it comes with NVIDIA's driver"),
    (r"The term 'nvidia-smi' is not recognized", "it comes with NVIDIA's driver"),
    (r"nvidia-smi: No such file or directory", "it comes with NVIDIA's driver"),
    (r"exec: \"nvidia-smi\": executable file not found", "start the container with --gpus all"),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), hint) for pattern, hint in _SAID)


def failure_in(text: str) -> tuple[str, str] | None:
    """Return the line in which nvidia-smi says why it fails, and a hint; None where there is none.

    Lines that follow and belong to it (``NVML library version: 580.95``) are put behind it.
    """
    lines = [line.strip(" |\t`$") for line in text.splitlines()]
    for place, line in enumerate(lines):
        for pattern, hint in _COMPILED:
            if pattern.search(line[:2000]):
                return _with_rest(lines, place), hint
    return None


def _with_rest(lines: list[str], place: int) -> str:
    said = lines[place]
    following = lines[place + 1] if place + 1 < len(lines) else ""
    if following.startswith(("NVML library version", "Make sure", "Reboot")):
        said = f"{said.rstrip('.')}. {following}"
    return " ".join(said.split())[:300]
