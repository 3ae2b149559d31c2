"""A GGUF file in llama.cpp's own server, started for the measurement and ended with it.

Source: tools/server/README.md of ggml-org/llama.cpp: its options, /health, /v1/chat/completions.
"""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from vramplan.engines.ggml.run import llama_binding
from vramplan.engines.ggml.run.http_lines import RefusedError, ask, ask_lines
from vramplan.engines.ggml.run.load_log import EngineLog, read_log
from vramplan.engines.ggml.run.served_run import (
    EngineMeter,
    EngineOutcome,
    EngineTools,
    a_picture,
    a_prompt,
)
from vramplan.errors import MeasurementError, MissingError
from vramplan.measurement.run import Failure, FailureKind
from vramplan.quick_dataclass import dataclass, replace
from vramplan.runner.channel import child_environment, python_command

BINARY = "llama-server"
#: the level that prints buffers; today's default of 3 keeps silent about them
_VERBOSITY = "4"
_POLL_S = 0.1
#: CUDA's start takes seconds
_ASKING_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerJob:
    """What is started; `settings` are the pipeline's, `started` hears the process's number."""

    model: Path
    settings: Mapping[str, object]
    mmproj: Path | None = None
    command: tuple[str, ...] = (BINARY,)
    started: Callable[[int], None] = lambda _pid: None
    new_tokens: int = 64


def find_server() -> tuple[str, ...]:
    """Return what starts the server: a llama-server on the PATH, else the one in the binding.

    Raises MissingError where neither is there; a binding that has no CUDA does not count.
    """
    found = shutil.which(BINARY)
    if found is not None:
        return (found,)
    if importlib.util.find_spec(llama_binding.LIBRARY) is not None:
        command = tuple(python_command(llama_binding.__name__))
        with suppress(OSError, subprocess.SubprocessError):  # asked in a process of its own: CUDA
            asked = subprocess.run(
                [*command, llama_binding.HAS_CARD],
                env=child_environment({}),
                capture_output=True,
                timeout=_ASKING_S,
                check=False,
            )
            if asked.returncode == 0:
                return command
    hint = (
        "build llama.cpp or install a package of it, or xllamacpp's wheel for CUDA; or measure "
        "through Ollama"
    )
    raise MissingError(f"{BINARY} is not on the PATH", hint=hint)


def command_of(job: ServerJob, port: int) -> list[str]:
    """Return the command line of a server that does as the settings say."""
    chosen = job.settings
    words = [*job.command, "-m", str(job.model), "-lv", _VERBOSITY]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    if job.mmproj is not None:
        words += ["--mmproj", str(job.mmproj)]
    for option, key in (("-c", "context"), ("-ub", "ubatch"), ("-np", "parallel")):
        if chosen.get(key, "auto") != "auto":
            words += [option, str(chosen[key])]
    # without a word the server shares its cache as the settings' auto says
    if chosen.get("kv_unified", "auto") != "auto":
        words += ["--kv-unified" if chosen["kv_unified"] == "on" else "--no-kv-unified"]
    if chosen.get("swa_full") == "on":
        words += ["--swa-full"]
    if "kv_type" in chosen:
        words += ["-ctk", str(chosen["kv_type"]), "-ctv", str(chosen["kv_type"])]
    if "flash_attention" in chosen:
        words += ["-fa", str(chosen["flash_attention"])]
    layers = chosen.get("gpu_layers")
    if layers == "all":
        words += ["-ngl", "999"]
    elif isinstance(layers, int):
        words += ["-ngl", str(layers)]
    experts = chosen.get("cpu_moe", 0)
    if experts == "all":
        words += ["--cpu-moe"]
    elif isinstance(experts, int) and experts:
        words += ["--n-cpu-moe", str(experts)]
    return words


def measure_server(job: ServerJob, tools: EngineTools) -> EngineOutcome:
    """Start the server, ask it something cold and warm, end it, and read its log.

    A server that dies or cannot get its memory is a result. No process of ours outlives this.
    """
    outcome = EngineOutcome(versions=_binding_version(job))
    meter = EngineMeter(tools, outcome)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        port = _free_port()
        with path.open("wb") as log, _server(command_of(job, port), log.fileno()) as process:
            job.started(process.pid)
            try:
                with meter.watching():
                    with meter.stretch("load", "load"):
                        _await(process, port, tools.limit_seconds)
                    for turn in ("cold", "warm"):
                        _chat(job, port, meter, turn, tools)
                    meter.hold()
            except MeasurementError as problem:
                kind = FailureKind.ERROR if isinstance(problem, RefusedError) else FailureKind.CRASH
                outcome.failure = Failure(
                    kind=kind,
                    phase=meter.phase,
                    component="language_model",
                    message=str(problem)[:300],
                )
        with path.open(encoding="utf-8", errors="replace") as lines:
            _take_log(read_log(lines), outcome, meter.phase)
    return outcome


def _binding_version(job: ServerJob) -> dict[str, str]:
    """Return the binding's version, which its server does not tell as llama.cpp's build."""
    if llama_binding.__name__ not in job.command:
        return {}
    return {llama_binding.LIBRARY: importlib.metadata.version(llama_binding.LIBRARY)}


def _take_log(log: EngineLog, outcome: EngineOutcome, phase: str) -> None:
    outcome.buffers = log.buffers
    outcome.facts |= log.settings
    if log.layers is not None:
        outcome.facts["layers_on_gpu"] = f"{log.layers[0]} of {log.layers[1]}"
    if log.build is not None:
        outcome.versions["llama.cpp"] = log.build
    if outcome.failure is not None and log.failure is not None:
        outcome.failure = replace(log.failure, phase=phase)  # the engine's own words


@contextmanager
def _server(command: list[str], log: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server in a session of its own; whatever happens it ends, and what it started."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment({}),
            start_new_session=True,
        )
    except OSError as problem:
        raise MissingError(f"{command[0]} cannot be started: {problem.strerror}") from None
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(process: subprocess.Popen[bytes], port: int, seconds: float) -> None:
    """Wait until the server has loaded the model."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise MeasurementError(f"the server {how}")
        with suppress(MeasurementError):
            ask(f"http://127.0.0.1:{port}/health", seconds=5)
            return
        time.sleep(_POLL_S)
    raise MeasurementError(f"the server has not loaded the model after {seconds:.0f} s")


def _chat(job: ServerJob, port: int, meter: EngineMeter, turn: str, tools: EngineTools) -> None:
    content: list[dict[str, object]] = [{"type": "text", "text": a_prompt(job.settings)}]
    if job.mmproj is not None:
        data = base64.b64encode(a_picture()).decode()
        image = {"url": f"data:image/png;base64,{data}"}
        content.append({"type": "image_url", "image_url": image})
    body = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": job.new_tokens,
        "temperature": 0,
        "stream": True,
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    answer = ask_lines(url, body, seconds=tools.limit_seconds)
    with meter.stretch("encode_image" if job.mmproj is not None else "prefill", turn):
        next(answer, None)
    is_done = False
    with meter.stretch("generate", turn):
        for said in answer:
            is_done = is_done or _is_last(said)
        if not is_done:
            raise MeasurementError("the server's answer broke off")


def _is_last(said: Mapping[str, object]) -> bool:
    """Return whether a part of a streamed answer ends it: its choice has a ``finish_reason``."""
    choices = said.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and first.get("finish_reason") is not None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
