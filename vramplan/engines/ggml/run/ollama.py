"""A model in a running Ollama server, measured through its HTTP API.

Source: docs/api.md of ollama/ollama: /api/version, /api/tags, /api/generate, /api/ps.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from vramplan.engine_buffer import EngineBuffer
from vramplan.engines.ggml.run.http_lines import RefusedError, ask, ask_lines
from vramplan.engines.ggml.run.served_run import (
    EngineMeter,
    EngineOutcome,
    EngineTools,
    a_picture,
    a_prompt,
)
from vramplan.errors import MeasurementError, MissingError, UsageError, did_you_mean
from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import Failure, FailureKind
from vramplan.quick_dataclass import dataclass

_DEFAULT = "http://127.0.0.1:11434"

#: our settings, and what Ollama calls them in a request's options
_OPTIONS = {"context": "num_ctx", "ubatch": "num_batch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaJob:
    """What is asked of the server; `settings` are the pipeline's."""

    model: str
    settings: Mapping[str, object]
    has_vision: bool
    new_tokens: int = 64
    address: str = _DEFAULT


def server_address(environment: Mapping[str, str] | None = None) -> str:
    """Return the server's address as Ollama's own client finds it: OLLAMA_HOST, else port 11434.

    Raises UsageError for an address that is none.
    """
    environ = os.environ if environment is None else environment
    text = environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    if not text:
        return _DEFAULT
    whole = text if "://" in text else f"http://{text}"
    parts = urlsplit(whole)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"OLLAMA_HOST={text}: not an address", hint="such as 127.0.0.1:11434")
    if host == "0.0.0.0":  # noqa: S104  # what a server listens on; a client asks this machine
        host = "127.0.0.1"
    if port is None:
        port = 443 if parts.scheme == "https" else 80 if "://" in text else 11434
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}"


def measure_ollama(job: OllamaJob, tools: EngineTools) -> EngineOutcome:
    """Load a model, ask it something cold and warm, and unload it.

    Raises MissingError for a server that does not answer and a model that it does not have.
    """
    version = _version(job)
    name = _find_model(job)
    outcome = EngineOutcome(versions={"ollama": version})
    _unload(job, name)
    meter = EngineMeter(tools, outcome)
    try:
        with meter.watching():
            with meter.stretch("load", "load"):
                ask(f"{job.address}/api/generate", _request(job, name), seconds=tools.limit_seconds)
            for turn in ("cold", "warm"):
                _generate(job, name, meter, turn, tools)
            meter.hold()
            _read_ps(job, name, outcome)
    except RefusedError as problem:
        text = str(problem)
        is_memory = "memory" in text or "alloc" in text
        outcome.failure = Failure(
            kind=FailureKind.OOM if is_memory else FailureKind.ERROR,
            phase=meter.phase,
            component="language_model",
            message=text[:300],
        )
    except MeasurementError as problem:
        outcome.failure = Failure(
            kind=FailureKind.CRASH,
            phase=meter.phase,
            component="language_model",
            message=str(problem)[:300],
        )
    finally:
        with suppress(MeasurementError):
            _unload(job, name)
    return outcome


def own_share(memory: DeviceMemory) -> int | None:
    """Return what Ollama's processes hold: its server starts a runner for each model.

    None where the driver does not tell what single processes hold.
    """
    found = [
        one.used_bytes
        for one in memory.processes or ()
        if "ollama" in one.name.lower() or "llama-server" in one.name.lower()
    ]
    known = [size for size in found if size is not None]
    return sum(known) if known else None


def _version(job: OllamaJob) -> str:
    hint = "start it with: ollama serve; OLLAMA_HOST names another address"
    try:
        version = ask(f"{job.address}/api/version", seconds=10).get("version")
    except MeasurementError as problem:
        raise MissingError(f"no Ollama server: {problem}", hint=hint) from None
    if not isinstance(version, str):
        raise MissingError(f"no Ollama server: {job.address} answers, but not as one", hint=hint)
    return version[:80]


def _find_model(job: OllamaJob) -> str:
    """Return the name under which the server has the model."""
    found = ask(f"{job.address}/api/tags", seconds=30).get("models")
    listed = found if isinstance(found, list) else []  # null where there is none
    names = [str(one.get("name", "")) for one in listed[:10_000] if isinstance(one, dict)]
    wanted = job.model if ":" in job.model else f"{job.model}:latest"
    if wanted in names:
        return wanted
    near = did_you_mean(wanted, names)
    hint = f"ollama pull {job.model}" + (f"; {near}" if near else "")
    raise MissingError(f"{job.address} does not have {wanted}", hint=hint)


def _request(job: OllamaJob, name: str, **more: object) -> dict[str, object]:
    options: dict[str, object] = {
        theirs: job.settings[ours]
        for ours, theirs in _OPTIONS.items()
        if job.settings.get(ours, "auto") != "auto"
    }
    layers = job.settings.get("gpu_layers")
    if isinstance(layers, int):
        options["num_gpu"] = layers
    elif layers == "all":
        options["num_gpu"] = 999
    return {"model": name, "stream": False, "keep_alive": "10m", "options": options, **more}


def _generate(job: OllamaJob, name: str, meter: EngineMeter, turn: str, tools: EngineTools) -> None:
    request = _request(job, name, stream=True, prompt=a_prompt(job.settings))
    options = request["options"]
    assert isinstance(options, dict)
    options |= {"num_predict": job.new_tokens, "temperature": 0, "seed": 1}
    if job.has_vision:
        request["images"] = [base64.b64encode(a_picture()).decode()]
    answer = ask_lines(f"{job.address}/api/generate", request, seconds=tools.limit_seconds)
    phase = "encode_image" if job.has_vision else "prefill"
    with meter.stretch(phase, turn):
        next(answer, None)  # the first token: image and prompt have been read
    is_done = False
    with meter.stretch("generate", turn):
        for said in answer:
            is_done = bool(said.get("done"))
        if not is_done:
            raise MeasurementError(f"{job.address}: the answer broke off")


def _read_ps(job: OllamaJob, name: str, outcome: EngineOutcome) -> None:
    """Take down what the server itself says it holds."""
    running = ask(f"{job.address}/api/ps", seconds=30).get("models", [])
    for one in running if isinstance(running, list) else []:
        if isinstance(one, dict) and one.get("name") == name:
            size, on_gpu = one.get("size"), one.get("size_vram")
            if isinstance(size, int) and isinstance(on_gpu, int):
                outcome.buffers += [
                    EngineBuffer(device="GPU", name="ollama ps", size_bytes=on_gpu),
                    EngineBuffer(device="CPU", name="ollama ps", size_bytes=max(0, size - on_gpu)),
                ]
            context = one.get("context_length")
            if isinstance(context, int):  # not told before 2025
                outcome.facts["ollama_context"] = str(context)


def _unload(job: OllamaJob, name: str) -> None:
    body = {"model": name, "keep_alive": 0, "stream": False}
    ask(f"{job.address}/api/generate", body, seconds=60)
