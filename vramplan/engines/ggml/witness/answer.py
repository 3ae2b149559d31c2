"""What the real llama.cpp allocates for a model file: it loads the header and reserves its buffers.

The engine is xllamacpp's (a wheel with llama.cpp's CPU build inside). It runs in a process of its
own: a crash is a result. The file's data may be a hole, because nothing is computed. With a card
that is pretended (`engine_device`) the same engine plans for CUDA.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from vramplan.engine_buffer import EngineBuffer, in_our_words
from vramplan.engines.ggml import engine_process
from vramplan.engines.ggml.run.load_log import EngineLog, read_log
from vramplan.engines.ggml.witness.dry_run import ADAPTERS_DONE, WITH_ADAPTERS, request_of
from vramplan.engines.ggml.witness.llama_library import NOT_KNOWN
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.errors import MeasurementError, MissingError
from vramplan.extras import install_command
from vramplan.model import LineKind
from vramplan.quick_dataclass import dataclass
from vramplan.setting_values import key_type, value_type
from vramplan.units import MIB

LIBRARY = "xllamacpp"
EXTRA = "engine"

_SECONDS = 60
_LONGEST_LOG = 16 << 20

#: tensor blk.3.ffn_up_exps.weight (… MiB …) buffer type overridden to CPU
_HOST_EXPERTS = re.compile(r"blk\.(\d{1,4})\.ffn_\w{1,20}exps[^\n]{0,80}overridden")

#: what the engine prints last of its language model
_GRAPH = ": nodes = "
#: what it prints of a projector's weights and compute buffer together, before it loads anything
_PROJECTOR = "memory usage of mmproj"
_FIT = "common_fit_params"
_REASON = "error loading model: "

#: the child: loads, which prints the buffers, and ends at once; the server would go on
_CHILD = """
import ctypes, os, sys
import xllamacpp as engine
(path, mmproj, context, ubatch, batch, key_type, value_type, flash, parallel, unified, whole_window,
 mtp) = sys.argv[1:]
params = engine.CommonParams()
params.model.path = path
if mmproj:
    params.mmproj.path = mmproj
params.n_ctx, params.n_ubatch, params.n_batch = int(context), int(ubatch), int(batch)
params.n_parallel = int(parallel)
params.kv_unified, params.swa_full = unified == "on", whole_window == "on"
params.cache_type_k = getattr(engine.ggml_type, "GGML_TYPE_" + key_type)
params.cache_type_v = getattr(engine.ggml_type, "GGML_TYPE_" + value_type)
params.flash_attn_type = getattr(
    engine.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_" + flash
)
params.load_mtp = mtp == "on"
params.warmup = params.fit_params = bool(mmproj)  # fitting asks what a projector takes
params.no_extra_bufts = True  # weights as in the file, none packed anew for the CPU
params.verbosity = 4
print("build:", engine.BUILD_INFO, file=sys.stderr)
try:
    engine.Server(params)
except RuntimeError as problem:
    print(problem, file=sys.stderr, flush=True)
library = ctypes.CDLL(engine.xllamacpp.__file__)
if hasattr(library, "_Z16common_log_pauseP10common_log"):  # its thread writes to the end
    log = library._Z15common_log_mainv
    log.restype = ctypes.c_void_p
    library._Z16common_log_pauseP10common_log(ctypes.c_void_p(log()))
os._exit(0)
"""

#: for the engine: as many as its server has by itself, and one cache for them
_OWN_SLOTS = -1
_FLASH = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


class RefusedError(MeasurementError):
    """The engine does not load a file, or not at these settings; it says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAnswer:
    """The engine's buffers, and which engine it was.

    `projector_bytes`: a projector's weights and compute buffer, of which it tells only the sum.
    """

    version: str
    buffers: tuple[EngineBuffer, ...]
    nodes: int | None  # of the graph
    projector_bytes: int | None = None  # weights and compute buffer
    layers: tuple[int, int] | None = None  # on the GPU, of
    context: int | None = None  # tokens, of all sequences
    host_experts: frozenset[int] = frozenset()  # layers with experts in host memory


def ask_engine(
    model: Path,
    settings: Mapping[str, object],
    mmproj: Path | None = None,
    *,
    card: PretendedCard | None = None,
    others: Sequence[PretendedCard] = (),
) -> EngineAnswer:
    """Return what the engine allocates for `model` at a pipeline's settings, on the CPU.

    With a `card` it is what CUDA would allocate there and in host memory, for `gpu_layers` layers
    or as many as the engine's own fit puts on it (auto), which knows of no projector then; with
    `others`, what it would allocate on each of them.

    Raises MissingError without the engine, MeasurementError with its own line where it refuses.
    """
    server = _command(model, settings)
    request = request_of(model, settings, card, LIBRARY, others)
    command = ["-m", "vramplan.engines.ggml.witness.dry_run", request]
    has_adapters = settings.get(WITH_ADAPTERS) == "on"
    text = _listen(command, ADAPTERS_DONE if has_adapters else _GRAPH, model)
    if has_adapters and ADAPTERS_DONE not in text:
        why = _why(read_log(text.splitlines()), text)
        raise RefusedError(f"{model}: the engine refuses it: {why}")
    if card is None and NOT_KNOWN in text:  # its server is asked the same way in every build
        text = _listen(server, _GRAPH, model)
    log = read_log(text.splitlines())
    if not any(one.kind is LineKind.COMPUTE_BUFFER for one in in_our_words(log.buffers)):
        raise RefusedError(f"{model}: the engine refuses it: {_why(log, text)}")
    context = log.settings.get("n_ctx", "")
    return EngineAnswer(
        version=f"{LIBRARY} {importlib.metadata.version(LIBRARY)}",
        buffers=tuple(log.buffers),
        nodes=_nodes(text),
        projector_bytes=None if mmproj is None else ask_projector(mmproj, settings),
        layers=log.layers,
        context=int(context) if context.isdecimal() else None,
        host_experts=frozenset(int(one) for one in _HOST_EXPERTS.findall(text)),
    )


def ask_projector(mmproj: Path, settings: Mapping[str, object]) -> int:
    """Return what the engine would allocate for a projector file: weights and compute buffer.

    It prints MiB with two decimals. Raises as `ask_engine` does.
    """
    text = _listen(_command(mmproj, settings, mmproj), _PROJECTOR, mmproj)
    found = re.search(rf"{_PROJECTOR} is ([0-9]{{1,12}}(?:\.[0-9]{{1,4}})?) MiB", text)
    if found is None:
        raise RefusedError(f"{mmproj}: the engine refuses it: {_refusal(text)}")
    return round(float(found[1]) * MIB)


def _command(model: Path, settings: Mapping[str, object], mmproj: Path | None = None) -> list[str]:
    if importlib.util.find_spec(LIBRARY) is None:
        message = f"--engine-check needs {LIBRARY}, which is not installed"
        raise MissingError(message, hint=install_command(EXTRA))
    return [
        "-c",
        _CHILD,
        str(model),
        "" if mmproj is None else str(mmproj),
        str(settings.get("context", 4096)),
        str(settings.get("ubatch", 512)),
        str(settings.get("batch_tokens", max(2048, int(str(settings.get("ubatch", 512)))))),
        key_type(settings).upper(),
        value_type(settings).upper(),
        _FLASH[str(settings.get("flash_attention", "auto"))],
        str(_OWN_SLOTS if settings.get("parallel") == "auto" else settings.get("parallel", 1)),
        str(settings.get("kv_unified", "off")),  # auto: off for a number, on for its own
        str(settings.get("swa_full", "off")),
        str(settings.get("load_mtp", "off")),
    ]


def _refusal(text: str) -> str:
    """Return the line in which the engine says why it cannot load a projector."""
    for line in text.splitlines():
        if " E " in line:  # behind the time
            return line.partition(" E ")[2].strip()[:300]
        if "ASSERT" in line:
            return line.strip()[:300]
    return "it says nothing"


def _listen(command: list[str], last: str, model: Path) -> str:
    """Return what the engine prints, up to the line with `last`: more is not wanted of it.

    The server it would start then may hang where two of its threads meet. Raises MeasurementError
    where it is not done in time.
    """
    with engine_process.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as engine:
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            engine.kill()

        timer = threading.Timer(_SECONDS, end)
        timer.start()
        lines: list[str] = []
        size = 0
        try:
            assert engine.stderr is not None
            for raw in engine.stderr:
                size += len(raw)
                line = raw.decode("utf-8", errors="replace")
                lines.append(line)
                if last in line or size > _LONGEST_LOG:
                    break
        finally:
            timer.cancel()
            engine.kill()
    text = "".join(lines)
    if is_late.is_set() and last not in text:
        message = f"{model}: the engine was not done within {_SECONDS} seconds; it refused nothing"
        raise MeasurementError(message, hint="leave --engine-check out, or ask on another machine")
    return text


def _why(log: EngineLog, text: str) -> str:
    # the fit's line says no more than that loading failed, and may come before or after its reason
    if log.failure is not None and _FIT not in log.failure.message:
        return log.failure.message
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if _REASON in line]
    reasons = reasons or [line for line in lines if _FIT not in line] or lines
    return reasons[-1][:300] if reasons else "it says nothing"


def _nodes(text: str) -> int | None:
    found = re.search(r"graph[^\n]{0,80}: nodes = ([0-9]{1,7})", text)
    return int(found[1]) if found else None
